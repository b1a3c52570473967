/// The zero checksum of UDP, which means "none" (RFC 768), in every place where a checksum is made or changed.
module Lightway.Specs.Rfc768

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets
open Lightway.Specs.Oracles

/// The same superpacket with the first payload word of its only or first segment chosen so that the checksum there
/// computes to zero: the word is the checksum that the segment has with 0 in its place.
let private foldingToZero (shape: Shape) : Superpacket =
    let superpacket = build shape
    let known = superpacket.Known
    let at = known.HeaderLength
    (ByteSum.word 0).CopyTo(superpacket.Packet, at)
    let first = List.head (NaiveSegmenter.segments known superpacket.Packet)
    (ByteSum.word 0).CopyTo(first, NaiveSegmenter.checksumAt known)
    let word = ByteSum.checksum (NaiveSegmenter.covered known first)
    (ByteSum.word (int word)).CopyTo(superpacket.Packet, at)
    superpacket

let private kinds =
    [ for isUdp in [ true; false ] do
          for isV6 in [ false; true ] do
              let name =
                  (if isUdp then "UDP" else "TCP") + (if isV6 then " over IPv6" else " over IPv4")

              yield
                  name,
                  { plainShape with
                      IsUdp = isUdp
                      IsV6 = isV6 } ]

let private fieldOf (known: NaiveSegmenter.Known) (packet: byte[]) =
    word packet (NaiveSegmenter.checksumAt known)

let private made =
    [ for name, shape in kinds do
          let expected = if shape.IsUdp then 0xFFFF else 0

          testCase $"a segment of {name} whose checksum computes to zero carries {expected:x4}"
          <| fun () ->
              for seed in 1..200 do
                  let superpacket = foldingToZero { shape with Fill = Random seed }

                  let segments =
                      Expect.wantOk (Cut.segments Cut.unlimited 0 superpacket.Vnet superpacket.Packet) "planned"

                  Expect.equal (fieldOf superpacket.Known segments.Head) expected $"seed {seed}"
                  Expect.isTrue (ByteSum.verifies (NaiveSegmenter.covered superpacket.Known segments.Head)) "verifies"

          testCase $"a completed single packet of {name} whose checksum computes to zero carries {expected:x4}"
          <| fun () ->
              let superpacket = foldingToZero { shape with PayloadLength = 99 }

              let vnet =
                  { superpacket.Vnet with
                      GsoType = 0uy
                      GsoSize = 0us }

              Expect.isTrue (Segment.completeChecksum (&vnet, Span superpacket.Packet)) "completed"
              Expect.equal (fieldOf superpacket.Known superpacket.Packet) expected "field" ]

/// 20 bytes of IPv4 and 8 of UDP, source address 0.0.0.1, without payload.
let private datagram (checksum: int) =
    Array.concat [ hex "4500001c 00010000 4011 0000 00000001 0a000001 9fba5bf7 0008"; ByteSum.word checksum ]

/// 20 bytes of IPv4 and 20 of TCP with `options`, source address 0.0.0.1.
let private segment (checksum: int) (options: string) =
    let bytes = hex options
    let words = (20 + bytes.Length) / 4

    Array.concat
        [ hex "4500"
          ByteSum.word (40 + bytes.Length)
          hex "00010000 4006 0000 00000001 0a000001 9fba01bb 00000001 00000002"
          [| byte (words <<< 4); 0x02uy |]
          hex "2000"
          ByteSum.word checksum
          hex "0000"
          bytes ]

let private never =
    [ testCase "a rewritten checksum of TCP that computes to zero stays 0000"
      <| fun () ->
          for checksum in [ 1; 0x1234; 0xFFFE ] do
              let packet = segment checksum ""

              Expect.isTrue
                  (Rewrite.source (Span packet, Ipv4Address(uint32 (checksum + 1)), TransportChecksum.Complete))
                  "rewritten"

              Expect.equal (word packet 36) 0 $"{checksum:x4}"

      testCase "a checksum of TCP that is zero is a checksum: it follows the address as any other"
      <| fun () ->
          let packet = segment 0 ""
          Expect.isTrue (Rewrite.source (Span packet, Ipv4Address 0x0000_0004u, TransportChecksum.Complete)) "rewritten"
          Expect.equal (word packet 36) 0xFFFC "~(ffff - 1 + 4)"

      testCase "a checksum of TCP that computes to zero with the MSS lowered stays 0000"
      <| fun () ->
          // Equation 3 as above: it folds to zero if the checksum is the new MSS less the old one, in one's complement.
          let packet = segment 100 "020405b4"
          (ByteSum.word (1360 - 0x05B4 + 0xFFFF)).CopyTo(packet, 36)
          Expect.equal (Rewrite.clampMss (Span packet, 1360)) 0x05B4 "lowered"
          Expect.equal (word packet 36) 0 "field"

      testProperty "a partial sum of UDP follows the address, zero or not"
      <| fun (sum: uint16) (address: uint32) ->
          let packet = datagram (int sum)
          let high, low = int (address >>> 16), int (address &&& 0xFFFFu)

          Rewrite.source (Span packet, Ipv4Address address, TransportChecksum.Partial)
          && word packet 26 % 0xFFFF = (int sum + high + low + 0xFFFF - 1) % 0xFFFF ]

let private changed =
    [ testProperty "udpField changes zero only"
      <| fun (checksum: uint16) ->
          Checksum.udpField 0us = 0xFFFFus && (checksum = 0us || Checksum.udpField checksum = checksum)

      testProperty "a datagram without checksum has none after its address is rewritten"
      <| fun (address: uint32) ->
          let packet = datagram 0
          Rewrite.source (Span packet, Ipv4Address address, TransportChecksum.Complete) && word packet 26 = 0

      testCase "a rewritten checksum that computes to zero becomes ffff"
      <| fun () ->
          // Equation 3: ~(~c + ~0001 + m') = 0 where m' = c + 1, as ~c + fffe + (c + 1) folds to ffff.
          for protocol in [ IpProtocol.Udp; IpProtocol.UdpLite ] do // the same in RFC 3828 §3.1
              for checksum in [ 1; 0x1234; 0xFFFE ] do
                  let packet = datagram checksum
                  packet[9] <- protocol

                  Expect.isTrue
                      (Rewrite.source (Span packet, Ipv4Address(uint32 (checksum + 1)), TransportChecksum.Complete))
                      "rewritten"

                  Expect.equal (word packet 26) 0xFFFF $"protocol {protocol}, {checksum:x4}"

      testCase "a partial sum of zero is a sum like any other: rewriting changes it"
      <| fun () ->
          let packet = datagram 0
          Expect.isTrue (Rewrite.source (Span packet, Ipv4Address 0x8001u, TransportChecksum.Partial)) "rewritten"
          Expect.equal (word packet 26) 0x8000 "0 - 0001 + 8001" ]

let laws = testList "RFC 768" (made @ changed @ never)

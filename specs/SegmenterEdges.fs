/// Single values at which a rule of the segmenter turns. Random packets hardly ever have them; mutants showed that.
module Lightway.Specs.SegmenterEdges

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets

let private planned (superpacket: Superpacket) =
    Cut.plan Cut.unlimited superpacket.Vnet (place 0 superpacket.Packet)

let private v6 = { plainShape with IsV6 = true }

/// An IPv6 packet of one extension header, of 8 or more bytes, and nothing behind it.
let private onlyExtension (length: int) =
    let superpacket =
        build
            { v6 with
                Extensions = [ IpProtocol.DestinationOptions, byte (length / 8 - 1) ] }

    let packet = superpacket.Packet[.. 40 + length - 1]
    packet[4] <- 0uy
    packet[5] <- byte length
    { superpacket with Packet = packet }

let private folding =
    [ testCase
          "RFC 1071 §1: fold keeps any 64 bits modulo 65535, and gives zero for zero only: words at the edges of a carry"
      <| fun () ->
          let words = [ 0UL; 1UL; 2UL; 0x7FFFUL; 0x8000UL; 0xFFFDUL; 0xFFFEUL; 0xFFFFUL ]

          for high, low in List.allPairs (List.allPairs words words) (List.allPairs words words) do
              let sum = fst high <<< 48 ||| (snd high <<< 32) ||| (fst low <<< 16) ||| snd low
              let folded = Checksum.fold sum
              Expect.equal (bigint folded % 65535I) (bigint sum % 65535I) $"{sum:x16}"
              Expect.equal (folded = 0us) (sum = 0UL) $"{sum:x16} is zero" ]

let private extensions =
    [ testCase "RFC 8200 §4: an extension header may end with the packet: it is the transport header that is missing"
      <| fun () ->
          for length in [ 8; 16; 64 ] do
              Expect.equal (planned (onlyExtension length)) (Error DropReason.TcpHeader) $"{length} bytes"

      testCase "RFC 8200 §3: bytes beyond the payload length are no part of an extension header"
      <| fun () ->
          let whole = onlyExtension 16
          whole.Packet[5] <- 8uy
          Expect.equal (planned whole) (Error DropReason.Ipv6Extension) "16 bytes, of which 8 are there"

      testCase "headers of exactly 512 bytes are segmented, 516 are too long"
      <| fun () ->
          // 40 of IPv6, 448 of two extension headers, 20 of TCP, and its options.
          let shape words =
              { v6 with
                  Extensions = List.replicate 2 (IpProtocol.DestinationOptions, 27uy)
                  TcpOptions = words }

          Expect.equal (planned (build (shape 1)) |> Result.map _.HeaderLength) (Ok 512) "512"
          Expect.equal (planned (build (shape 2))) (Error DropReason.HeaderTooLong) "516" ]

let private metadata =
    [ testCase "csum_start and csum_offset have one right value: every other of 0 to 65535 is refused"
      <| fun () ->
          let superpacket = build plainShape

          for value in 0us .. UInt16.MaxValue do
              let start =
                  { superpacket.Vnet with
                      CsumStart = value }

              let offset =
                  { superpacket.Vnet with
                      CsumOffset = value }

              let expected right reason =
                  if value = right then DropReason.None else reason

              let found vnet =
                  match planned { superpacket with Vnet = vnet } with
                  | Ok _ -> DropReason.None
                  | Error reason -> reason

              Expect.equal (found start) (expected 20us DropReason.BadCsumStart) $"csum_start {value}"
              Expect.equal (found offset) (expected 16us DropReason.BadCsumOffset) $"csum_offset {value}" ]

/// A UDP packet whose checksum field holds `field`.
let private udpWith (fragmentWord: int) (totalLength: int) (field: string) =
    hex $"4500{totalLength:x4} 0001{fragmentWord:x4} 4011 0000 0a000001 0a000002 c00001bb 0010{field} 0102030405060708"

let private rewriting =
    [ testCase "RFC 791: with any of the 13 bits of the fragment offset set, there is no transport header to rewrite"
      <| fun () ->
          for bit in 0..12 do
              let packet = udpWith (1 <<< bit) 36 "abcd"

              Expect.isTrue
                  (Rewrite.source (Span packet, Ipv4Address 0x01020304u, TransportChecksum.Complete))
                  "rewritten"

              let before = udpWith (1 <<< bit) 36 "abcd"
              Expect.equal packet[20..] before[20..] $"offset {1 <<< bit}"

      testCase "a transport checksum that the IP length does not reach is not touched, one that it just reaches is"
      <| fun () ->
          for totalLength in 20..36 do
              let packet = udpWith 0 totalLength "abcd"

              Expect.isTrue
                  (Rewrite.source (Span packet, Ipv4Address 0x01020304u, TransportChecksum.Complete))
                  "rewritten"

              let before = udpWith 0 totalLength "abcd"
              Expect.equal (packet[20..] <> before[20..]) (totalLength >= 28) $"total length {totalLength}" ]

/// An IPv4 packet of a protocol with options, a fragment offset in units of 8 bytes, and this transport header.
let private carrying (protocol: byte) (options: int) (fragmentOffset: int) (transport: byte[]) : byte[] =
    let header: byte[] = Array.zeroCreate (20 + options)
    header[0] <- 0x40uy ||| byte (header.Length / 4)
    header[3] <- byte (header.Length + transport.Length)
    header[6] <- byte (fragmentOffset >>> 8)
    header[7] <- byte fragmentOffset
    header[9] <- protocol
    Array.blit [| 203uy; 0uy; 113uy; 9uy |] 0 header 16 4
    Array.append header transport

let private addressed =
    let address = Ipv4Address 0xCB007109u

    let isTo (packet: byte[]) =
        Ports.isTo (ReadOnlySpan packet, IpProtocol.Udp, address, 27690us)

    let ports (port: int) =
        [| 0x12uy; 0x34uy; byte (port >>> 8); byte port; 0uy; 8uy; 0uy; 0uy |]

    [ testCase "RFC 768: a datagram is to an address and a port if both are its destination, whatever options it has"
      <| fun () ->
          for options in [ 0; 4; 40 ] do
              Expect.isTrue (isTo (carrying 17uy options 0 (ports 27690))) "address and port"
              Expect.isFalse (isTo (carrying 17uy options 0 (ports 27691))) "another port"
              Expect.isFalse (isTo (carrying 6uy options 0 (ports 27690))) "TCP"
              Expect.isFalse (isTo (carrying 17uy options 0 [| 0x12uy; 0x34uy; 0x6Cuy |])) "cut within the port"

          let other = carrying 17uy 0 0 (ports 27690)
          other[19] <- 10uy
          Expect.isFalse (isTo other) "another address"

      testCase "RFC 791 §3.2: a later fragment has no port; it is to the address"
      <| fun () ->
          Expect.isTrue (isTo (carrying 17uy 0 185 [| 1uy |])) "a later fragment"
          Expect.isFalse (isTo (carrying 6uy 0 185 [| 1uy |])) "of TCP"

      testProperty "any bytes are to an address or not, without raising"
      <| fun (junk: byte[]) ->
          isTo junk |> ignore
          true ]

let laws =
    testList "Segmenter edges" (folding @ extensions @ metadata @ rewriting @ addressed)

/// Packets quoted in ICMPv4 errors, and errors made here: each against the error that is built from scratch.
module Lightway.Specs.IcmpErrors

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.AddressExchange
open Lightway.Specs.AddressRewrite
open Lightway.Specs.Generators
open Lightway.Specs.Oracles
open Lightway.Specs.IcmpErrorMoulds

let private complete = TransportChecksum.Complete

/// Residues of all checksums of an error: its header, its message, the quoted header and, if it is quoted as a whole, the
/// quoted transport.
let private verdicts (mould: ErrorMould) (packet: byte[]) =
    let start = 20 + mould.OptionWords * 4
    let message = packet[start .. packet.Length - 1 - mould.Surplus]
    let quote = excerpt mould (cast mould.Quote false 1u 2u)
    let quote = message[8 .. 7 + quote.Length]
    let l4 = 20 + mould.Quote.OptionWords * 4
    let isWhole = quote.Length >= l4 + mould.Quote.PayloadLength

    [ ByteSum.residue packet[.. start - 1]
      ByteSum.residue message
      if isQuote mould then
          ByteSum.residue quote[.. l4 - 1]

      match transportAt mould.Quote with
      | Some at when isWhole && (zeroIsChecksum mould.Quote || word quote at <> 0) ->
          ByteSum.residue (
              Array.append
                  (ByteSum.pseudoHeaderV4 quote mould.Quote.PayloadLength)
                  quote[l4 .. l4 + mould.Quote.PayloadLength - 1]
          )
      | _ -> () ]

let private replace isSource (packet: Span<byte>) before after state =
    if isSource then
        Icmp.replaceQuotedSource (packet, before, after, state)
    else
        Icmp.replaceQuotedDestination (packet, before, after, state)

let private pair isSource one peer =
    if isSource then (one, peer) else (peer, one)

let private quotes =
    [ for isSource in [ true; false ] do
          let field = if isSource then "source" else "destination"

          testPropertyWithConfig
              config
              $"RFC 5508 §4.2: with a new {field} in the quote, the error is the one built with it"
          <| fun (mould: ErrorMould) (Address before) (Address after) (Address peer) (offset: byte) ->
              let old, renewed = pair isSource before peer, pair isSource after peer

              let build quote =
                  around mould 0x08080808u 0x0A7D0005u quote

              let packet = build (excerpt mould (old ||> cast mould.Quote false))
              let placed = place (int offset) packet
              let isDone = replace isSource placed.Span before after complete

              placed.SurroundingsIntact
              && isDone = isQuote mould
              && placed.Bytes =
                  (if isDone then
                       build (requoted mould old renewed)
                   else
                       packet)

      testPropertyWithConfig config "RFC 5508 §4.2: a quote that does not have the address is left alone"
      <| fun (mould: ErrorMould) (Address source) (Address destination) (Address other) ->
          let packet =
              around mould 1u 2u (excerpt mould (cast mould.Quote false source destination))

          let copy = Array.copy packet

          (other = source || not (Icmp.replaceQuotedSource (Span copy, other, 7u, complete)))
          && (other = destination || not (Icmp.replaceQuotedDestination (Span copy, other, 7u, complete)))
          && copy = packet

      testPropertyWithConfig config "RFC 5508 §4.2: there and back is the identity"
      <| fun (mould: ErrorMould) (Address before) (Address after) (Address peer) (isSource: bool) (isPartial: bool) ->
          let state = if isPartial then TransportChecksum.Partial else complete
          let quote = excerpt mould (pair isSource before peer ||> cast mould.Quote false)
          let packet = around mould 1u 2u quote
          let copy = Array.copy packet
          let isThere = replace isSource (Span copy) before after state
          let isBack = replace isSource (Span copy) after before state
          isThere = isQuote mould && isBack = isThere && copy = packet

      testPropertyWithConfig config "RFC 1624 §3: every checksum stays as right or as wrong as it was"
      <| fun
             (mould: ErrorMould)
             (Address before)
             (Address after)
             (Address peer)
             (isSource: bool)
             (spoilt: uint16 * uint16) ->
          let quote = excerpt mould (pair isSource before peer ||> cast mould.Quote false)
          let packet = around mould 1u 2u quote
          let start = 20 + mould.OptionWords * 4

          let spoil (at: int) (by: uint16) =
              if at + 2 <= packet.Length - mould.Surplus then
                  (ByteSum.word ((word packet at + int by) % 0x10000)).CopyTo(packet, at)

          spoil (start + 2) (fst spoilt)

          if isQuote mould then
              spoil (start + 8 + 10) (snd spoilt)

          match transportAt mould.Quote with
          | Some at when at + 2 <= quote.Length && word quote at + int (fst spoilt) <> 0x10000 ->
              spoil (start + 8 + at) (fst spoilt)
          | _ -> ()

          let before' = verdicts mould packet

          replace isSource (Span packet) before after complete = isQuote mould
          && verdicts mould packet = before'

      testPropertyWithConfig config "a partial ICMP checksum does not depend on the quote: only the quote changes"
      <| fun (mould: ErrorMould) (Address before) (Address after) (Address peer) (isSource: bool) ->
          let quote = excerpt mould (pair isSource before peer ||> cast mould.Quote false)
          let one = around mould 1u 2u quote
          let other = Array.copy one
          let at = 20 + mould.OptionWords * 4 + 2
          let field = one[at .. at + 1]
          let isDone = replace isSource (Span one) before after complete
          let isDoneToo = replace isSource (Span other) before after TransportChecksum.Partial
          let isSame = other[at .. at + 1] = field
          one[at .. at + 1].CopyTo(other, at)
          isDone = isDoneToo && isSame && one = other

      testPropertyWithConfig config "other ICMP types, other protocols, IPv6 and later fragments are left alone"
      <| fun (mould: ErrorMould) (Address before) (Address after) (icmpType: byte) (fragment: uint16) ->
          let spoil (at: int) (value: byte) =
              let packet =
                  around mould 1u 2u (excerpt mould (cast mould.Quote false before before))

              packet[at] <- value
              packet

          let start = 20 + mould.OptionWords * 4
          let isError = List.contains icmpType [ 3uy; 4uy; 5uy; 11uy; 12uy ]
          let offset = max 1 (int fragment &&& 0x1FFF)

          [ if not isError then
                spoil start icmpType

            spoil 9 17uy
            spoil 0 (byte (0x65 + mould.OptionWords))
            (let packet = spoil 9 1uy
             (ByteSum.word (mould.FragmentWord ||| offset)).CopyTo(packet, 6)
             packet)
            // The IP length ends before the quote has a header.
            (let packet = spoil 9 1uy
             (ByteSum.word (start + int fragment % 28)).CopyTo(packet, 2)
             packet) ]
          |> List.forall (fun packet ->
              let copy = Array.copy packet

              not (Icmp.replaceQuotedSource (Span copy, before, after, complete))
              && not (Icmp.replaceQuotedDestination (Span copy, before, after, complete))
              && copy = packet)

      testPropertyWithConfig
          config
          "RFC 4884 §5: what follows the announced length is an extension, however short the quote"
      <| fun (mould: ErrorMould) (Address before) (Address after) (words: byte) ->
          let mould =
              { mould with
                  Type = 3uy
                  FragmentWord = 0
                  Surplus = 0 }

          let quote = cast mould.Quote false before 2u
          let words = 1 + int words % 31 // fewer than the 32 that senders owe
          let packet = around { mould with ExtensionLength = 0 } 1u 2u quote
          let start = 20 + mould.OptionWords * 4
          packet[start + 5] <- byte words
          let copy = Array.copy packet
          let isDone = Icmp.replaceQuotedSource (Span copy, before, after, complete)
          let ends = min copy.Length (start + 8 + words * 4)

          isDone = (words * 4 >= 20 + mould.Quote.OptionWords * 4)
          && copy[ends..] = packet[ends..]
          && (isDone || copy = packet)

      testPropertyWithConfig
          { config with maxTest = 60_000 }
          "any bytes: quotes are replaced or left alone, nothing is written beside them"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let packet = filled (Random seed) (random.Next 120)

          let set at (value: int) =
              if packet.Length > at then
                  packet[at] <- byte value

          let headerLength () =
              if packet.Length > 0 then
                  int (packet[0] &&& 15uy) * 4
              else
                  0

          if random.Next 8 > 0 then
              set 0 (0x40 ||| random.Next(5, 8))
              set 2 (random.Next 8 / 7)
              set 6 (random.Next 8 / 7 * 32)
              set 7 0
              set 9 1

              let start = headerLength ()
              let errorType = [| 3; 4; 5; 11; 12 |][random.Next 5]
              let protocol = [| 6; 17; 1 |][random.Next 3]
              set start errorType
              set (start + 5) (random.Next 3 * random.Next 40)
              set (start + 8) (0x40 ||| random.Next(4, 16))
              set (start + 17) protocol

          let isSource = random.Next 2 = 0

          let start = headerLength ()
          let at = start + 8 + (if isSource then 12 else 16)

          let before =
              if at + 4 <= packet.Length then
                  uint32 (word packet at) <<< 16 ||| uint32 (word packet (at + 2))
              else
                  0u

          let placed = place (seed % 64) packet
          let isDone = replace isSource placed.Span before (uint32 seed) complete

          placed.SurroundingsIntact
          && (isDone || placed.Bytes = packet)
          && placed.Bytes[.. min (start + 1) (packet.Length - 1)] = packet[.. min (start + 1) (packet.Length - 1)] ]

/// A router on the way answers `question` with an error to its sender.
let private errorAbout (mould: ErrorMould) (router: uint32) (question: byte[]) =
    let sender = (Rewrite.sourceOf (ReadOnlySpan question)).Value
    around mould router sender (excerpt mould question)

let private toPeer (exchange: Exchange) (packet: byte[]) =
    let translation = exchange.Translation
    Translation.toPeer (&translation, Span packet, complete)

let private fromPeer (exchange: Exchange) (packet: byte[]) =
    let translation = exchange.Translation
    Translation.fromPeer (&translation, Span packet)

/// Translation computes checksums that a quote has only half of; such errors are compared without it.
let private withoutHalf (mould: ErrorMould) (packet: byte[]) =
    let start = 20 + mould.OptionWords * 4
    let length = (excerpt mould (cast mould.Quote false 1u 2u)).Length

    match transportAt mould.Quote with
    | Some at when at + 1 = length ->
        packet
        |> Array.mapi (fun i value ->
            if i = start + 8 + at || i = start + 2 || i = start + 3 then
                0uy
            else
                value)
    | _ -> packet

let private translated =
    [ testPropertyWithConfig config "§5: an error about a translated packet comes back as an error about the original"
      <| fun (mould: ErrorMould) (exchange: Exchange) (toDns: bool) (Address router) ->
          let source, destination =
              match exchange.IsServer, toDns with
              | true, _ -> exchange.Other, exchange.Here
              | false, true -> exchange.Here, exchange.DnsHere
              | false, false -> exchange.Here, exchange.Other

          let original = cast mould.Quote false source destination
          let question = Array.copy original
          let isThere = toPeer exchange question
          let back = errorAbout mould router question
          let isBack = fromPeer exchange back

          // What the receiver would have got from the same router without any translation.
          let sender =
              match exchange.IsServer, router = exchange.DnsAtPeer with
              | true, _ -> exchange.Here
              | false, true -> exchange.DnsHere
              | false, false -> router

          let expected = around mould sender source (excerpt mould original)

          let isPastStandIn =
              not exchange.IsServer && destination = exchange.DnsAtPeer && destination <> exchange.DnsHere

          isThere
          && isBack
          && (isPastStandIn || not (isQuote mould) || withoutHalf mould back = withoutHalf mould expected)

      testPropertyWithConfig
          config
          "§5: an error about a packet that came from the peer is about the one that the peer sent"
      <| fun (mould: ErrorMould) (exchange: Exchange) (fromDns: bool) ->
          let source, destination =
              match exchange.IsServer, fromDns with
              | true, _ -> exchange.AtPeer, exchange.Other
              | false, true -> exchange.DnsAtPeer, exchange.AtPeer
              | false, false -> exchange.Other, exchange.AtPeer

          let original = cast mould.Quote false source destination
          let received = Array.copy original
          let isHere = fromPeer exchange received
          // The receiver answers from the address that it was addressed by.
          let receiver = (Rewrite.destinationOf (ReadOnlySpan received)).Value
          let answer = errorAbout mould receiver received
          let isBack = toPeer exchange answer
          let expected = around mould destination source (excerpt mould original)

          // A host that has the number of the stand-in looks like the DNS server.
          let isStandIn =
              not exchange.IsServer && source = exchange.DnsHere && source <> exchange.DnsAtPeer

          isHere
          && isBack
          && (isStandIn || not (isQuote mould) || withoutHalf mould answer = withoutHalf mould expected)

      testCase "§5: traceroute in a client sees each router, about its own packet"
      <| fun () ->
          let device, granted, inside, router, target =
              0x64400102u, 0x0A7D0005u, 0x0A000007u, 0xC0000201u, 0xC6336401u

          let probe =
              { Protocol = IpProtocol.Udp
                OptionWords = 0
                FragmentWord = 0
                HasChecksum = true
                PayloadLength = 40
                Seed = 5 }

          let mould =
              { Type = 11uy
                Code = 0uy
                OptionWords = 0
                FragmentWord = 0
                Quote = probe
                QuotedLength = 28
                ExtensionLength = 0
                Surplus = 0
                Seed = 6 }

          let client =
              Translation.client (Ipv4Address device, Ipv4Address granted, Ipv4Address 1u, Ipv4Address 2u)

          let server = Translation.server (Ipv4Address inside, Ipv4Address granted)
          let packet = cast probe false device target
          Expect.isTrue (Translation.toPeer (&client, Span packet, complete)) "client out"
          Expect.isTrue (Translation.fromPeer (&server, Span packet)) "server out"
          Expect.equal packet (cast probe false inside target) "what the router gets"
          let error = errorAbout mould router packet
          Expect.isTrue (Translation.toPeer (&server, Span error, complete)) "server in"
          Expect.isTrue (Translation.fromPeer (&client, Span error)) "client in"
          Expect.equal error (around mould router device (excerpt mould (cast probe false device target))) "error"

      testCase "translation of an error allocates nothing"
      <| fun () ->
          let quote = hex "45000054 00010000 4001 0000 0a7d0005 c0000201 08001234"

          let error =
              Array.concat [ hex "45000038 00010000 4001 0000 c0000202 0a7d0005 0b001234 00000000"; quote ]

          let server = Translation.server (Ipv4Address 0x0A7D0005u, Ipv4Address 0x0A7D0006u)

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      Translation.toPeer (&server, Span error, complete) |> ignore
                      Icmp.replaceQuotedSource (Span error, 0x0A7D0006u, 0x0A7D0005u, complete) |> ignore)

          Expect.equal allocated 0L "bytes" ]

/// An error that is made here, from scratch.
let private made (source: uint32) (icmpType: int) (code: int) (rest: uint32) (packet: byte[]) : byte[] =
    let quote = packet[.. (min (word packet 2) 548) - 1]

    let number (value: uint32) =
        Array.append (ByteSum.word (int (value >>> 16))) (ByteSum.word (int value &&& 0xFFFF))

    let message =
        Array.concat [ [| byte icmpType; byte code; 0uy; 0uy |]; number rest; quote ]

    (ByteSum.word (int (ByteSum.checksum message))).CopyTo(message, 2)

    let header =
        Array.concat
            [ hex "45c0"
              ByteSum.word (28 + quote.Length)
              hex "00004000 4001 0000"
              number source
              packet[12..15] ]

    (ByteSum.word (int (ByteSum.checksum header))).CopyTo(header, 10)
    Array.append header message

/// Each error, as bytes written into junk: type, code, second word and the call.
let private makers =
    [ "fragmentation needed",
      (3, 4, 1400u),
      (fun (packet: byte[]) source (dst: byte[]) ->
          Icmp.writeFragmentationNeeded (ReadOnlySpan packet, source, 1400, Span dst))
      "host unreachable",
      (3, 1, 0u),
      (fun packet source dst -> Icmp.writeHostUnreachable (ReadOnlySpan packet, source, Span dst)) ]

let private plain =
    { Protocol = IpProtocol.Udp
      OptionWords = 0
      FragmentWord = 0x4000
      HasChecksum = true
      PayloadLength = 1480
      Seed = 9 }

let private errors =
    [ for name, (icmpType, code, rest), write in makers do
          testPropertyWithConfig
              { config with maxTest = 500 }
              $"RFC 1812 §4.3.2.3: {name} quotes as much as 576 bytes allow, with right checksums"
          <| fun (mould: Mould) (Address source) (payload: uint16) (surplus: byte) ->
              let mould =
                  { mould with
                      FragmentWord = 0x4000
                      Protocol = (if mould.Protocol = 1uy then 47uy else mould.Protocol)
                      PayloadLength =
                          if code = 4 then
                              1400 + int payload % 2000
                          else
                              int payload % 2000 }

              let packet = cast mould false 0x0A000005u 0x08080808u
              let dst = junk 700
              let length = write (Array.append packet (junk (int surplus))) source dst
              let expected = made source icmpType code rest packet

              length = expected.Length
              && length <= 576
              && dst[.. length - 1] = expected
              && Array.forall ((=) 0xA5uy) dst[length..]

          testCase $"RFC 1812 §4.3.2.7, RFC 1122 §3.2.2: {name} is never about what must not be reported"
          <| fun () ->
              let from source = cast plain false source 0x08080808u

              let towards destination =
                  cast plain false 0x0A000005u destination

              let icmp (first: int) =
                  let packet = cast { plain with Protocol = 1uy } false 0x0A000005u 0x08080808u
                  packet[20] <- byte first
                  packet

              let fragment (word: int) =
                  cast { plain with FragmentWord = word } false 0x0A000005u 0x08080808u

              let withWord (at: int) (value: int) =
                  let packet = from 0x0A000005u
                  (ByteSum.word value).CopyTo(packet, at)
                  packet

              let refused =
                  [ for source in
                        [ 0u
                          1u
                          0x00FFFFFFu
                          0x7F000001u
                          0x7FFFFFFFu
                          0xE0000000u
                          0xE0000001u
                          0xEFFFFFFFu
                          0xF0000001u
                          0xFFFFFFFFu ] do
                        $"from {source:x8}", from source

                    for destination in [ 0xE0000000u; 0xE00000FBu; 0xEFFFFFFFu; 0xF0000000u; 0xFFFFFFFFu ] do
                        $"to {destination:x8}", towards destination

                    for first in [ 1; 2; 3; 4; 5; 6; 7; 11; 12; 19; 30; 31; 40; 41; 44; 253; 255 ] do
                        $"ICMP {first}", icmp first

                    for word in [ 0x4001; 0x6001; 0x5000; 0x5FFF ] do
                        $"fragment {word:x4}", fragment word

                    "an ICMP message without a type",
                    Array.append
                        (cast
                            { plain with
                                Protocol = 1uy
                                PayloadLength = 0 }
                            false
                            0x0A000005u
                            8u)
                        (Array.zeroCreate 1500)
                    "a length beyond the packet", withWord 2 1501
                    "a length below the header", withWord 2 19
                    "IPv6", Array.updateAt 0 0x65uy (from 0x0A000005u)
                    "no header", [||]
                    "a header cut short", (from 0x0A000005u)[..18] ]

              for what, packet in refused do
                  let dst = junk 700
                  Expect.equal (write packet 0x0A000001u dst) 0 what
                  Expect.all dst ((=) 0xA5uy) $"{what}: nothing is written"

          testCase $"RFC 1122 §3.2.2: {name} may be about hosts of all other networks and about queries"
          <| fun () ->
              for source in [ 0x01000000u; 0x0A000005u; 0x7EFFFFFFu; 0x80000000u; 0xDFFFFFFFu ] do
                  Expect.isGreaterThan (write (cast plain false source 0xDFFFFFFFu) 1u (junk 700)) 0 $"{source:x8}"

              for first in [ 0; 8; 9; 10; 13; 14; 15; 16; 17; 18; 42; 43 ] do
                  let packet = cast { plain with Protocol = 1uy } false 0x0A000005u 0x08080808u
                  packet[20] <- byte first
                  Expect.isGreaterThan (write packet 1u (junk 700)) 0 $"ICMP {first}"

              let first = cast { plain with FragmentWord = 0x6000 } false 0x0A000005u 0x08080808u
              Expect.isGreaterThan (write first 1u (junk 700)) 0 "the first fragment"

          testCase $"{name} is written as a whole or not at all"
          <| fun () ->
              let packet = cast plain false 0x0A000005u 0x08080808u

              for length in [ 0; 1; 28; 575 ] do
                  let dst = junk length
                  Expect.equal (write packet 1u dst) 0 $"{length} bytes"
                  Expect.all dst ((=) 0xA5uy) "nothing is written"

              Expect.equal (write packet 1u (junk 576)) 576 "576 bytes"

      testCase
          "RFC 1191 §4: fragmentation needed has the MTU of the next hop, and is about packets that may not be fragmented"
      <| fun () ->
          let packet = cast plain false 0x0A000005u 0x08080808u // of 1500 bytes

          let write (packet: byte[]) mtu =
              let dst = junk 576
              let length = Icmp.writeFragmentationNeeded (ReadOnlySpan packet, 1u, mtu, Span dst)
              length, word dst 26

          for mtu in [ 68; 576; 1280; 1499 ] do
              Expect.equal (write packet mtu) (576, mtu) $"MTU {mtu}"

          for mtu in [ Int32.MinValue; -1; 0; 67; 1500; 1501; 65535; 65536; 66936; Int32.MaxValue ] do
              Expect.equal (write packet mtu |> fst) 0 $"MTU {mtu}"

          for word in [ 0; 0x2000; 0x8000 ] do
              let packet = cast { plain with FragmentWord = word } false 0x0A000005u 0x08080808u
              Expect.equal (write packet 1400 |> fst) 0 $"flags {word:x4}"

          let large = cast { plain with PayloadLength = 65_515 } false 0x0A000005u 0x08080808u
          Expect.equal (write large 65_534) (576, 65_534) "the largest MTU"

      testPropertyWithConfig config "an error that was made is not reported itself, but its quote can be translated"
      <| fun (mould: Mould) (Address after) ->
          let packet =
              cast
                  { mould with
                      FragmentWord = 0
                      Protocol = IpProtocol.Udp }
                  false
                  0x0A000005u
                  0x08080808u

          let dst = junk 576
          let length = Icmp.writeHostUnreachable (ReadOnlySpan packet, 0x0A000001u, Span dst)
          let error = dst[.. length - 1]

          let isRefused =
              Icmp.writeHostUnreachable (ReadOnlySpan error, 1u, Span(junk 576)) = 0

          isRefused
          && Icmp.replaceQuotedSource (Span error, 0x0A000005u, after, complete)
          && ByteSum.verifies error[20..]

      testCase "errors are made without allocation"
      <| fun () ->
          let packet = cast plain false 0x0A000005u 0x08080808u
          let dst = junk 576

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      Icmp.writeFragmentationNeeded (ReadOnlySpan packet, 1u, 1400, Span dst) |> ignore
                      Icmp.writeHostUnreachable (ReadOnlySpan packet, 1u, Span dst) |> ignore)

          Expect.equal allocated 0L "bytes" ]

let laws = testList "ICMP errors" (quotes @ translated @ errors)

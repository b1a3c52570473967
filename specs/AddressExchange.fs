/// Translation of inside packets at both ends (protocol §5, "Addresses"): the packet afterwards is the one that would
/// have been built with the addresses that the other side knows.
module Lightway.Specs.AddressExchange

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.AddressRewrite
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Addresses of one connection, as numbers: what is expected is spelled out from them.
type Exchange =
    {
        IsServer: bool
        Here: uint32
        AtPeer: uint32
        DnsHere: uint32
        DnsAtPeer: uint32
        /// Any other host.
        Other: uint32
    }

    member this.Translation =
        if this.IsServer then
            Translation.server (Ipv4Address this.Here, Ipv4Address this.AtPeer)
        else
            Translation.client (
                Ipv4Address this.Here,
                Ipv4Address this.AtPeer,
                Ipv4Address this.DnsHere,
                Ipv4Address this.DnsAtPeer
            )

type ExchangeArbitrary =
    static member Exchange() =
        gen {
            // Few addresses among them, so that two of a connection's may be equal.
            let address =
                Gen.oneof
                    [ Gen.elements [ 0u; 0x0A7D0005u; 0x0A7D0001u; 0xFFFFFFFFu ]
                      Gen.choose64 (0L, 0xFFFFFFFFL) |> Gen.map uint32 ]

            let! isServer = Gen.elements [ true; false ]
            let! addresses = Gen.arrayOfLength 5 address

            return
                { IsServer = isServer
                  Here = addresses[0]
                  AtPeer = addresses[1]
                  DnsHere = addresses[2]
                  DnsAtPeer = addresses[3]
                  Other = addresses[4] }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        arbitrary = [ typeof<MouldArbitrary>; typeof<ExchangeArbitrary>; typeof<SeedArbitrary> ] }

/// Source and destination as the peer is to see them, spelled out; and as this end is to see what the peer sent.
let private seenByPeer (exchange: Exchange) (source: uint32, destination: uint32) =
    match exchange.IsServer, destination = exchange.DnsHere with
    | true, _ -> source, exchange.AtPeer
    | false, true -> exchange.AtPeer, exchange.DnsAtPeer
    | false, false -> exchange.AtPeer, destination

let private seenHere (exchange: Exchange) (source: uint32, destination: uint32) =
    match exchange.IsServer, source = exchange.DnsAtPeer with
    | true, _ -> exchange.Here, destination
    | false, true -> exchange.DnsHere, exchange.Here
    | false, false -> source, exchange.Here

/// Addresses of a packet from this end: to the DNS server or to any other host.
let private outbound (exchange: Exchange) (toDns: bool) =
    match exchange.IsServer, toDns with
    | true, _ -> exchange.Other, exchange.Here
    | false, true -> exchange.Here, exchange.DnsHere
    | false, false -> exchange.Here, exchange.Other

let private toPeer (exchange: Exchange) (packet: Span<byte>) (state: TransportChecksum) =
    let translation = exchange.Translation
    Translation.toPeer (&translation, packet, state)

let private fromPeer (exchange: Exchange) (packet: Span<byte>) =
    let translation = exchange.Translation
    Translation.fromPeer (&translation, packet)

let private addressesOf (packet: byte[]) =
    (Rewrite.sourceOf (ReadOnlySpan packet)).Value, (Rewrite.destinationOf (ReadOnlySpan packet)).Value

/// Residues of a packet's checksums modulo 65535, of the IP header and of the transport: 0 where they are right. None:
/// the packet has no transport checksum.
let private verdicts (mould: Mould) (packet: byte[]) =
    let l4 = 20 + mould.OptionWords * 4
    let offset = if mould.Protocol = IpProtocol.Tcp then 16 else 6

    let isCovered =
        ({ mould with HasChecksum = true } |> checksumOffset |> Option.isSome)
        && mould.FragmentWord &&& 0x1FFF = 0
        && offset + 2 <= mould.PayloadLength
        && (zeroIsChecksum mould || word packet (l4 + offset) <> 0) // RFC 768: zero is none

    ByteSum.residue packet[.. l4 - 1],
    (if isCovered then
         Some(ByteSum.residue (Array.append (ByteSum.pseudoHeaderV4 packet mould.PayloadLength) packet[l4..]))
     else
         None)

let private properties =
    [ for state in [ TransportChecksum.Complete; TransportChecksum.Partial ] do
          testPropertyWithConfig
              config
              $"§5: to the peer goes the packet built with the addresses that the peer knows, {state} checksum"
          <| fun (mould: Mould) (exchange: Exchange) (toDns: bool) (offset: byte) ->
              let isPartial = state = TransportChecksum.Partial
              let addresses = outbound exchange toDns
              let placed = place (int offset) (addresses ||> cast mould isPartial)

              toPeer exchange placed.Span state
              && placed.Bytes = (seenByPeer exchange addresses ||> cast mould isPartial)
              && placed.SurroundingsIntact

      testPropertyWithConfig config "§5: from the peer comes the packet built with the addresses that this end knows"
      <| fun (mould: Mould) (exchange: Exchange) (fromDns: bool) (offset: byte) ->
          let addresses =
              match exchange.IsServer, fromDns with
              | true, _ -> exchange.AtPeer, exchange.Other
              | false, true -> exchange.DnsAtPeer, exchange.AtPeer
              | false, false -> exchange.Other, exchange.AtPeer

          let placed = place (int offset) (addresses ||> cast mould false)

          fromPeer exchange placed.Span
          && placed.Bytes = (seenHere exchange addresses ||> cast mould false)
          && placed.SurroundingsIntact

      testPropertyWithConfig
          config
          "§5: a client's claimed source never counts: the server puts its inside address there"
      <| fun (mould: Mould) (exchange: Exchange) (claimed: uint32) ->
          let server = { exchange with IsServer = true }
          let packet = cast mould false claimed exchange.Other
          fromPeer server (Span packet) && addressesOf packet = (exchange.Here, exchange.Other)

      testPropertyWithConfig
          config
          "§5: an answer to a translated packet comes back as an answer to the original, past the stand-in excepted"
      <| fun (mould: Mould) (exchange: Exchange) (toDns: bool) ->
          let source, destination = outbound exchange toDns
          let question = cast mould false source destination
          let isDone = toPeer exchange (Span question) TransportChecksum.Complete
          let sourceThere, destinationThere = addressesOf question
          let answer = cast mould false destinationThere sourceThere
          let isBack = fromPeer exchange (Span answer)

          // The answer of a host that has the granted DNS address cannot be distinguished from one of the stand-in's.
          let isPastStandIn =
              not exchange.IsServer && destination = exchange.DnsAtPeer && destination <> exchange.DnsHere

          isDone
          && isBack
          && (isPastStandIn || answer = cast mould false destination source)
          && (not isPastStandIn || addressesOf answer = (exchange.DnsHere, source))

      testPropertyWithConfig
          config
          "§5: what the server's side sends through both ends arrives at the device, and back, byte for byte"
      <| fun (mould: Mould) (exchange: Exchange) (inside: uint32) ->
          // The client's granted address is the one that the server's translation ends in.
          let client = { exchange with IsServer = false }

          let server =
              { exchange with
                  IsServer = true
                  Here = inside }

          let packet = cast mould false exchange.Other inside

          let isThere =
              toPeer server (Span packet) TransportChecksum.Complete && fromPeer client (Span packet)

          let sender =
              if exchange.Other = exchange.DnsAtPeer then
                  exchange.DnsHere
              else
                  exchange.Other

          isThere && packet = cast mould false sender exchange.Here

      testPropertyWithConfig config "RFC 1624 §3: checksums stay as right or as wrong as they were, in both directions"
      <| fun (mould: Mould) (exchange: Exchange) (toDns: bool) (isInbound: bool) (spoilt: uint16 * uint16) ->
          let packet = outbound exchange toDns ||> cast mould false
          let l4 = 20 + mould.OptionWords * 4

          let spoil (at: int) (by: uint16) =
              if at + 2 <= packet.Length then
                  (ByteSum.word ((word packet at + int by) % 0x10000)).CopyTo(packet, at)

          spoil 10 (fst spoilt)

          if mould.PayloadLength >= 18 then
              spoil (l4 + (if mould.Protocol = IpProtocol.Tcp then 16 else 6)) (snd spoilt)

          let before = verdicts mould packet

          let isDone =
              if isInbound then
                  fromPeer exchange (Span packet)
              else
                  toPeer exchange (Span packet) TransportChecksum.Complete

          isDone && verdicts mould packet = before

      testPropertyWithConfig
          { config with maxTest = 50_000 }
          "any bytes: translated or refused, and refused means untouched"
      <| fun (Seed seed) (exchange: Exchange) ->
          let random = System.Random seed
          let packet = filled (Random seed) (random.Next 80)

          if packet.Length > 0 && random.Next 4 > 0 then
              packet[0] <- byte (0x40 ||| random.Next 16)

          if packet.Length > 9 then
              packet[9] <- [| 6uy; 17uy; 1uy |][random.Next 3]

          let placed = place (seed % 64) packet

          let isDone =
              match random.Next 3 with
              | 0 -> fromPeer exchange placed.Span
              | state -> toPeer exchange placed.Span (LanguagePrimitives.EnumOfValue(state - 1))

          placed.SurroundingsIntact
          && isDone =
              (packet.Length >= 20
               && packet[0] >>> 4 = 4uy
               && packet[0] &&& 15uy >= 5uy
               && int (packet[0] &&& 15uy) * 4 <= packet.Length)
          && (isDone || placed.Bytes = packet) ]

let private cases =
    let packet =
        { Protocol = IpProtocol.Udp
          OptionWords = 0
          FragmentWord = 0
          HasChecksum = true
          PayloadLength = 40
          Seed = 1 }

    [ testCase "§5: without addresses every packet is refused and untouched"
      <| fun () ->
          for translation in [ Translation.none; Unchecked.defaultof<Translation> ] do
              let before = cast packet false 1u 2u
              let copy = Array.copy before
              Expect.isTrue translation.IsNone "none"
              Expect.isFalse (Translation.toPeer (&translation, Span copy, TransportChecksum.Complete)) "to"
              Expect.isFalse (Translation.fromPeer (&translation, Span copy)) "from"
              Expect.equal copy before "untouched"

          let none = Ipv4Address.None
          Expect.isFalse (Translation.server (Ipv4Address 1u, Ipv4Address 2u)).IsNone "known"
          Expect.isFalse (Translation.client (none, none, none, none)).IsNone "known"

      testCase "§5: a name server's answer reaches a client's program from the stand-in that it asked"
      <| fun () ->
          let local, granted, standIn, dns =
              0x64400102u, 0x0A7D0005u, 0x64400101u, 0x0A7D0001u

          let translation =
              Translation.client (Ipv4Address local, Ipv4Address granted, Ipv4Address standIn, Ipv4Address dns)

          let question = cast packet false local standIn
          Expect.isTrue (Translation.toPeer (&translation, Span question, TransportChecksum.Complete)) "asked"
          Expect.equal question (cast packet false granted dns) "question"
          let answer = cast packet false dns granted
          Expect.isTrue (Translation.fromPeer (&translation, Span answer)) "answered"
          Expect.equal answer (cast packet false standIn local) "answer"

      testCase "translation allocates nothing"
      <| fun () ->
          let bytes = cast packet false 1u 2u

          let translation =
              Translation.client (Ipv4Address 1u, Ipv4Address 3u, Ipv4Address 2u, Ipv4Address 4u)

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      Translation.toPeer (&translation, Span bytes, TransportChecksum.Complete) |> ignore
                      Translation.fromPeer (&translation, Span bytes) |> ignore)

          Expect.equal allocated 0L "bytes" ]

let laws = testList "Translation" (properties @ cases)

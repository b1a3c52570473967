/// Address translation: the packet afterwards is the one that would have been built with the new address.
module Lightway.Specs.AddressRewrite

open System
open Expecto
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// An IPv4 packet with right checksums, which its addresses go into.
type Mould =
    {
        Protocol: byte
        OptionWords: int
        /// The IPv4 word of flags and fragment offset.
        FragmentWord: int
        /// False: UDP is sent without checksum.
        HasChecksum: bool
        PayloadLength: int
        Seed: int
    }

let checksumOffset (mould: Mould) =
    match mould.Protocol with
    | IpProtocol.Tcp -> Some 16
    | IpProtocol.Udp when mould.HasChecksum -> Some 6
    | IpProtocol.UdpLite
    | IpProtocol.Dccp -> Some 6
    | _ -> None

/// A field of zero is a checksum like another: not so in UDP, RFC 768, and UDP-Lite, RFC 3828 §3.1.
let zeroIsChecksum (mould: Mould) =
    mould.Protocol <> IpProtocol.Udp && mould.Protocol <> IpProtocol.UdpLite

let private state (partial: bool) =
    if partial then
        TransportChecksum.Partial
    else
        TransportChecksum.Complete

let private addressBytes (address: uint32) =
    Array.append (ByteSum.word (int (address >>> 16))) (ByteSum.word (int address))

/// The packet for these addresses; with `partial` the transport checksum is the pseudo-header's sum only. Every
/// checksum is computed over all that it covers, after the address is in place.
let cast (mould: Mould) (partial: bool) (source: uint32) (destination: uint32) : byte[] =
    let mould =
        { mould with
            HasChecksum = mould.HasChecksum || partial } // NEEDS_CSUM says that there will be one

    let l4 = 20 + mould.OptionWords * 4

    let packet =
        Array.concat
            [ [| byte (0x40 ||| l4 / 4); 0uy |]
              ByteSum.word (l4 + mould.PayloadLength)
              hex "0001"
              ByteSum.word mould.FragmentWord
              [| 64uy; mould.Protocol; 0uy; 0uy |]
              addressBytes source
              addressBytes destination
              filled (Random mould.Seed) (mould.OptionWords * 4 + mould.PayloadLength) ]

    (ByteSum.word (int (ByteSum.checksum packet[.. l4 - 1]))).CopyTo(packet, 10)
    let isFirst = mould.FragmentWord &&& 0x1FFF = 0

    if isFirst && mould.Protocol = IpProtocol.Udp && not mould.HasChecksum && mould.PayloadLength >= 8 then
        (ByteSum.word 0).CopyTo(packet, l4 + 6)

    // UDP-Lite and DCCP: the checksum covers all of the payload (RFC 3828 §3.1, RFC 4340 §9.2).
    if isFirst && mould.PayloadLength >= 8 then
        if mould.Protocol = IpProtocol.UdpLite then
            (ByteSum.word 0).CopyTo(packet, l4 + 4)
        elif mould.Protocol = IpProtocol.Dccp then
            packet[l4 + 5] <- packet[l4 + 5] &&& 0xF0uy

    match checksumOffset mould with
    | Some offset when isFirst && offset + 2 <= mould.PayloadLength ->
        (ByteSum.word 0).CopyTo(packet, l4 + offset)
        let pseudoHeader = ByteSum.pseudoHeaderV4 packet mould.PayloadLength
        let full = ByteSum.checksum (Array.append pseudoHeader packet[l4..])

        let field =
            if partial then ByteSum.sum pseudoHeader
            elif not (zeroIsChecksum mould) && full = 0us then 0xFFFFus
            else full

        (ByteSum.word (int field)).CopyTo(packet, l4 + offset)
    | _ -> ()

    packet

type MouldArbitrary =
    static member Mould() =
        gen {
            let! protocol =
                Gen.elements [ IpProtocol.Tcp; IpProtocol.Udp; IpProtocol.UdpLite; IpProtocol.Dccp; 1uy; 47uy ]

            let! optionWords = Gen.frequency [ 3, Gen.constant 0; 1, Gen.choose (0, 10) ]
            let! fragmentWord = Gen.elements [ 0; 0; 0x4000; 0x2000; 0x2001; 0x0100 ]
            let! hasChecksum = Gen.elements [ true; true; false ]

            let! payloadLength =
                Gen.frequency [ 4, Gen.choose (20, 1400); 1, Gen.choose (0, 24) ]

            let! seed = Gen.choose (0, Int32.MaxValue - 1)

            return
                { Protocol = protocol
                  OptionWords = optionWords
                  FragmentWord = fragmentWord
                  HasChecksum = hasChecksum
                  PayloadLength = payloadLength
                  Seed = seed }
        }
        |> fun gen -> Arb.fromGenShrink (gen, MouldArbitrary.Smaller)

    static member private Smaller(mould: Mould) : Mould seq =
        seq {
            for length in [ mould.PayloadLength / 2; mould.PayloadLength - 1 ] do
                if length > 0 && length < mould.PayloadLength then
                    { mould with PayloadLength = length }

            if mould.OptionWords > 0 then
                { mould with OptionWords = 0 }

            if mould.FragmentWord > 0 then
                { mould with FragmentWord = 0 }
        }

/// An address with every bit as likely as another; FsCheck prefers small numbers.
type Address = Address of uint32

type AddressArbitrary =
    static member Address() =
        gen {
            let! high = Gen.choose (0, 0xFFFF)
            let! low = Gen.choose (0, 0xFFFF)
            return Address(uint32 high <<< 16 ||| uint32 low)
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2000
        arbitrary = [ typeof<MouldArbitrary>; typeof<AddressArbitrary>; typeof<SeedArbitrary> ] }

let private properties =
    [ for partial in [ false; true ] do
          let polarity = if partial then "a partial sum" else "a checksum"

          testPropertyWithConfig
              config
              $"RFC 1624: a rewritten source gives the packet built with it, {polarity} in TCP and UDP"
          <| fun (mould: Mould) (Address before) (Address after) (Address peer) (offset: byte) ->
              let placed = place (int offset) (cast mould partial before peer)

              Rewrite.source (placed.Span, Ipv4Address after, state partial)
              && placed.Bytes = cast mould partial after peer
              && placed.SurroundingsIntact

          testPropertyWithConfig
              config
              $"RFC 1624: a rewritten destination gives the packet built with it, {polarity} in TCP and UDP"
          <| fun (mould: Mould) (Address before) (Address after) (Address peer) (offset: byte) ->
              let placed = place (int offset) (cast mould partial peer before)

              Rewrite.destination (placed.Span, Ipv4Address after, state partial)
              && placed.Bytes = cast mould partial peer after
              && placed.SurroundingsIntact

      testPropertyWithConfig config "RFC 1624: addresses rewritten there and back leave every byte as it was"
      <| fun (mould: Mould) (Address source) (Address destination) (Address other) (partial: bool) ->
          let packet = cast mould partial source destination
          let copy = Array.copy packet

          Rewrite.source (Span copy, Ipv4Address other, state partial)
          && Rewrite.destination (Span copy, Ipv4Address source, state partial)
          && Rewrite.destination (Span copy, Ipv4Address destination, state partial)
          && Rewrite.source (Span copy, Ipv4Address source, state partial)
          && copy = packet

      testPropertyWithConfig config "RFC 1624 §3: a wrong checksum stays wrong, and by as much: nothing is laundered"
      <| fun (mould: Mould) (Address before) (Address after) (Address peer) (spoil: uint16) ->
          let packet = cast mould false before peer
          let l4 = 20 + mould.OptionWords * 4

          let covered =
              match checksumOffset mould with
              | Some offset when mould.FragmentWord &&& 0x1FFF = 0 && offset + 2 <= mould.PayloadLength ->
                  Some(l4 + offset)
              | _ -> None

          let add at =
              (ByteSum.word ((word packet at + int spoil) % 0x10000)).CopyTo(packet, at)

          add 10
          Option.iter add covered
          // A UDP checksum spoilt to zero is none at all, and stays none; UDP-Lite's is one that no receiver takes.
          let covered =
              covered |> Option.filter (fun at -> zeroIsChecksum mould || word packet at <> 0)

          let residues () =
              ByteSum.residue packet[.. l4 - 1],
              covered
              |> Option.map (fun _ ->
                  ByteSum.residue (Array.append (ByteSum.pseudoHeaderV4 packet mould.PayloadLength) packet[l4..]))

          let wrong = residues ()
          Rewrite.source (Span packet, Ipv4Address after, TransportChecksum.Complete) && residues () = wrong

      testPropertyWithConfig config "UDP-Lite, DCCP: a checksum that leaves payload out stays right"
      <| fun (Seed seed) (coverage: byte) (Address before) (Address after) (Address peer) ->
          let random = System.Random seed

          for protocol, least in [ IpProtocol.UdpLite, 8; IpProtocol.Dccp, 12 ] do
              let mould =
                  { Protocol = protocol
                    OptionWords = random.Next 11
                    FragmentWord = 0
                    HasChecksum = true
                    PayloadLength = random.Next(100, 200)
                    Seed = seed }

              let l4 = 20 + mould.OptionWords * 4
              let covered = least + int coverage % 15 * 4

              // The packet with a right checksum over its first bytes.
              let partly (source: uint32) : byte[] =
                  let packet = cast mould false source peer

                  if protocol = IpProtocol.UdpLite then
                      (ByteSum.word covered).CopyTo(packet, l4 + 4)
                  else
                      packet[l4 + 5] <- byte (1 + (covered - least) / 4)

                  (ByteSum.word 0).CopyTo(packet, l4 + 6)
                  let pseudoHeader = ByteSum.pseudoHeaderV4 packet mould.PayloadLength

                  let sum =
                      ByteSum.checksum (Array.append pseudoHeader packet[l4 .. l4 + covered - 1])

                  let field =
                      if sum = 0us && protocol = IpProtocol.UdpLite then
                          0xFFFFus
                      else
                          sum

                  (ByteSum.word (int field)).CopyTo(packet, l4 + 6)
                  packet

              let packet = partly before
              Expect.isTrue (Rewrite.source (Span packet, Ipv4Address after, TransportChecksum.Complete)) "done"
              Expect.equal packet (partly after) $"protocol {protocol}, {covered} bytes"

      testPropertyWithConfig config "sourceOf and destinationOf read what was written"
      <| fun (mould: Mould) (Address source) (Address destination) ->
          let packet = cast mould false source destination

          Rewrite.sourceOf (ReadOnlySpan packet) = Ipv4Address source
          && Rewrite.destinationOf (ReadOnlySpan packet) = Ipv4Address destination

      testPropertyWithConfig
          { config with maxTest = 100_000 }
          "any bytes: rewritten or refused, and refused means untouched"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let packet = filled (Random seed) (random.Next 80)

          if packet.Length > 0 && random.Next 4 > 0 then
              packet[0] <- byte (0x40 ||| random.Next 16)

          if packet.Length > 9 then
              packet[9] <- [| 6uy; 17uy; 1uy |][random.Next 3]

          let placed = place (seed % 64) packet

          let isDone =
              Rewrite.destination (placed.Span, Ipv4Address 0x0A000001u, state (random.Next 2 = 0))

          placed.SurroundingsIntact
          && isDone =
              (packet.Length >= 20
               && packet[0] >>> 4 = 4uy
               && packet[0] &&& 15uy >= 5uy
               && int (packet[0] &&& 15uy) * 4 <= packet.Length)
          && (isDone || placed.Bytes = packet)
          && (Rewrite.destinationOf placed.ReadOnly).Value = (if isDone then 0x0A000001u else 0u) ]

/// Packets with CCCC and LLLL for the checksums; their values for the address pairs S1D1, S1D2, S2D1, S2D2.
let private published =
    [ "ICMP, 20-byte header only", "45000054 00010000 4001 CCCC", "", [ "4695", ""; "f67b", ""; "48e6", ""; "f8cc", "" ]
      "TCP",
      "45000028 00010000 4006 CCCC",
      "9fba5b88 00000000 00000000 50022000 LLLL 0000",
      [ "46bc", "608c"; "f6a2", "1073"; "490d", "62dd"; "f8f3", "12c4" ]
      "UDP",
      "4500001c 00010000 4011 CCCC",
      "9fba5bf7 0008 LLLL",
      [ "46bd", "d018"; "f6a3", "7fff"; "490e", "d269"; "f8f4", "8250" ] ]

let private sources = [ 0x0a041721u; 0x0a0414d0u ]
let private destinations = [ 0x4a7dc871u; 0x4a7d188bu ]
let private pairs = List.allPairs sources destinations

let private vectors =
    [ for name, header, transport, checksums in published do
          let packets =
              [ for (source, destination), (network, field) in List.zip pairs checksums do
                    let addresses = $"{source:x8}{destination:x8}"
                    hex ((header + addresses + transport).Replace("CCCC", network).Replace("LLLL", field)) ]

          testCase $"published {name}: every packet becomes every other by rewriting source and destination"
          <| fun () ->
              for before in packets do
                  for (source, destination), after in List.zip pairs packets do
                      let packet = Array.copy before

                      Expect.isTrue
                          (Rewrite.source (Span packet, Ipv4Address source, TransportChecksum.Complete))
                          "source"

                      Expect.isTrue
                          (Rewrite.destination (Span packet, Ipv4Address destination, TransportChecksum.Complete))
                          "destination"

                      Expect.equal packet after $"{source:x8} {destination:x8}"

      testCase "IPv6, version 0, no bytes and a header cut short are left alone"
      <| fun () ->
          for packet in
              [ filled (Random 1) 60 |> Array.updateAt 0 0x65uy
                Array.zeroCreate 60
                [||]
                Array.create 19 0x45uy ] do
              let copy = Array.copy packet
              Expect.isFalse (Rewrite.source (Span copy, Ipv4Address 1u, TransportChecksum.Complete)) "source"
              Expect.isFalse (Rewrite.destination (Span copy, Ipv4Address 1u, TransportChecksum.Partial)) "destination"
              Expect.equal copy packet "untouched"
              Expect.equal (Rewrite.sourceOf (ReadOnlySpan copy)) Ipv4Address.None "sourceOf" ]

let private theType =
    [ testPropertyWithConfig config "an address is the number that its four bytes spell, and prints as .NET prints it"
      <| fun (Address number) ->
          let address = Ipv4Address number
          let platform = Net.IPAddress(ReadOnlySpan(addressBytes number))

          Ipv4Address.Of platform = address
          && address.Value = number
          && address.ToIPAddress() = platform
          && string address = string platform
          && address.IsNone = (number = 0u)

      testPropertyWithConfig config "addresses are equal if their numbers are, as values, as keys and by operator"
      <| fun (Address one) (Address other) ->
          [ one; other ]
          |> List.forall (fun other ->
              let left, right = Ipv4Address one, Ipv4Address other

              (left = right) = (one = other)
              && left.Equals right = (one = other)
              && Ipv4Address.op_Equality (left, right) = (one = other)
              && Ipv4Address.op_Inequality (left, right) = (one <> other)
              && (one <> other || left.GetHashCode() = right.GetHashCode())
              && sign (compare left right) = sign (compare one other))

      testCase "no address is 0.0.0.0, and the default"
      <| fun () ->
          Expect.equal Ipv4Address.None Unchecked.defaultof<Ipv4Address> "default"
          Expect.isTrue (Ipv4Address.None.IsNone && not (Ipv4Address 1u).IsNone) "none"
          Expect.equal (string Ipv4Address.None) "0.0.0.0" "text"
          Expect.equal (Ipv4Address.Of(Net.IPAddress.Parse "10.0.0.1")) (Ipv4Address 0x0A000001u) "10.0.0.1"

      testCase "an IPv6 address is no IPv4 address, also when it holds one"
      <| fun () ->
          for text in [ "::1"; "::ffff:10.0.0.1"; "2001:db8::1" ] do
              Expect.throwsT<ArgumentException> (fun () -> Ipv4Address.Of(Net.IPAddress.Parse text) |> ignore) text

      testCase "an address as a key allocates nothing"
      <| fun () ->
          let table = Collections.Generic.Dictionary<Ipv4Address, int>()
          table[Ipv4Address 1u] <- 1

          let round count =
              for i in 1..count do
                  table.ContainsKey(Ipv4Address(uint32 i)) |> ignore

          round 100
          Expect.equal (allocatedBy (fun () -> round 10_000)) 0L "bytes" ]

let laws = testList "Address rewrite" (theType @ properties @ vectors)

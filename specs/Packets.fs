/// Single packets for the laws on coalescing, described by what they are made of, and traffic made of them.
module Lightway.Specs.Packets

open System
open FsCheck.FSharp
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Everything that makes one packet; `bytesOf` gives its bytes. Fields of a protocol that it does not have are 0.
type Packet =
    {
        /// Chooses addresses and ports.
        Flow: int
        /// Added to the source port.
        Port: int
        IsV6: bool
        IsUdp: bool
        /// Type of service or traffic class, all 8 bits.
        Tos: int
        FlowLabel: int
        Ttl: int
        /// The IPv4 word of flags and fragment offset: DF 0x4000, MF 0x2000.
        Fragment: int
        Identification: int
        /// 32-bit words of IPv4 options, or one IPv6 destination options header if not 0.
        Options: int
        Sequence: uint32
        Acknowledgement: uint32
        /// The low 12 bits of TCP's offset word.
        Flags: int
        Window: int
        Urgent: int
        /// A multiple of 4 bytes.
        TcpOptions: byte[]
        Payload: byte[]
        /// Added to the transport checksum, the IPv4 header checksum: not 0 spoils it.
        Spoil: int
        SpoilHeader: int
        /// RFC 768: a UDP checksum of zero, "none".
        NoChecksum: bool
        /// Added to the UDP length; the checksum is right for the length as it is.
        SpoilLength: int
        /// Bytes after the end that the IP length claims; the checksum covers them, so nothing but the length tells.
        Trailing: int
    }

/// DF, as Linux sends TCP.
[<Literal>]
let DontFragment = 0x4000

/// 100 bytes of TCP over IPv4, ACK set.
let data: Packet =
    { Flow = 1
      Port = 0
      IsV6 = false
      IsUdp = false
      Tos = 0
      FlowLabel = 0
      Ttl = 64
      Fragment = DontFragment
      Identification = 100
      Options = 0
      Sequence = 1000u
      Acknowledgement = 77u
      Flags = 0x010
      Window = 500
      Urgent = 0
      TcpOptions = [||]
      Payload = Array.init 100 byte
      Spoil = 0
      SpoilHeader = 0
      NoChecksum = false
      SpoilLength = 0
      Trailing = 0 }

let datagram: Packet =
    { data with
        IsUdp = true
        Sequence = 0u
        Acknowledgement = 0u
        Flags = 0
        Window = 0 }

let private ports (packet: Packet) =
    Array.append (ByteSum.word (1024 + packet.Flow + packet.Port)) (ByteSum.word 443)

let private transport (packet: Packet) =
    if packet.IsUdp then
        Array.concat
            [ ports packet
              ByteSum.word (8 + packet.Payload.Length + packet.SpoilLength)
              [| 0uy; 0uy |]
              packet.Payload ]
    else
        Array.concat
            [ ports packet
              ByteSum.word (int (packet.Sequence >>> 16))
              ByteSum.word (int (packet.Sequence &&& 0xFFFFu))
              ByteSum.word (int (packet.Acknowledgement >>> 16))
              ByteSum.word (int (packet.Acknowledgement &&& 0xFFFFu))
              ByteSum.word ((5 + packet.TcpOptions.Length / 4) <<< 12 ||| packet.Flags)
              ByteSum.word packet.Window
              [| 0uy; 0uy |]
              ByteSum.word packet.Urgent
              packet.TcpOptions
              packet.Payload ]

let private ipv4 (packet: Packet) (length: int) =
    let header =
        Array.concat
            [ [| byte (0x45 + packet.Options); byte packet.Tos |]
              ByteSum.word (20 + packet.Options * 4 + length)
              ByteSum.word packet.Identification
              ByteSum.word packet.Fragment
              [| byte packet.Ttl; (if packet.IsUdp then 17uy else 6uy); 0uy; 0uy |]
              [| 10uy; 9uy; byte packet.Flow; 1uy; 10uy; 8uy; 0uy; 2uy |]
              Array.create (packet.Options * 4) 1uy ] // "no operation" options

    let checksum = int (ByteSum.checksum header) + packet.SpoilHeader
    (ByteSum.word checksum).CopyTo(header, 10)
    header

let private ipv6 (packet: Packet) (length: int) =
    let protocol = if packet.IsUdp then 17uy else 6uy
    let destinationOptions = [| protocol; 0uy; 1uy; 4uy; 0uy; 0uy; 0uy; 0uy |] // PadN
    let extension = if packet.Options = 0 then [||] else destinationOptions

    Array.concat
        [ ByteSum.word (0x6000 ||| (packet.Tos <<< 4) ||| (packet.FlowLabel >>> 16))
          ByteSum.word (packet.FlowLabel &&& 0xFFFF)
          ByteSum.word (extension.Length + length)
          [| (if packet.Options = 0 then protocol else 60uy); byte packet.Ttl |]
          hex "fd00 0000 0000 0000 0000 0000 0000"
          ByteSum.word packet.Flow
          hex "fd01 0000 0000 0000 0000 0000 0000 0002"
          extension ]

let bytesOf (packet: Packet) : byte[] =
    let transport = transport packet

    let network =
        if packet.IsV6 then
            ipv6 packet transport.Length
        else
            ipv4 packet transport.Length

    let transport = Array.append transport (junk packet.Trailing)

    let pseudoHeader =
        if packet.IsV6 then
            ByteSum.pseudoHeaderV6 network (if packet.IsUdp then 17uy else 6uy) transport.Length
        else
            ByteSum.pseudoHeaderV4 network transport.Length

    let checksum =
        match int (ByteSum.checksum (Array.append pseudoHeader transport)) with
        | _ when packet.NoChecksum -> 0
        | 0 when packet.IsUdp -> 0xFFFF
        | checksum -> checksum

    (ByteSum.word (checksum + packet.Spoil)).CopyTo(transport, (if packet.IsUdp then 6 else 16))
    Array.append network transport

/// The packet that a sender would send next after `packet`, with as much payload.
let following (packet: Packet) : Packet =
    { packet with
        Identification = (packet.Identification + 1) &&& 0xFFFF
        Sequence =
            if packet.IsUdp then
                0u
            else
                packet.Sequence + uint32 packet.Payload.Length }

/// `count` packets of one flow, one after the other.
let train (count: int) (first: Packet) : Packet list =
    Seq.unfold (fun packet -> Some(packet, following packet)) first |> Seq.truncate count |> List.ofSeq

let private trains (random: System.Random) (flows: int) =
    [| for flow in 1..flows do
           let isUdp = random.Next 3 = 0
           let isV6 = random.Next 3 = 0
           let payload = filled (Random(random.Next())) (random.Next(1, 300))

           { (if isUdp then datagram else data) with
               Flow = flow
               IsV6 = isV6
               Fragment = (if isV6 || random.Next 3 > 0 then 0 else DontFragment)
               Identification = (if isV6 then 0 else random.Next 65536)
               Sequence = (if isUdp then 0u else uint32 (random.NextInt64 4294967296L))
               TcpOptions =
                   (if isUdp then
                        [||]
                    else
                        filled (Random(random.Next())) (4 * random.Next 4))
               Payload = payload } |]

/// What happens to a packet that would have continued its flow.
let private disturbed (random: System.Random) (packet: Packet) : Packet =
    let tcp (changed: Packet) =
        if packet.IsUdp then packet else changed

    let v4 (changed: Packet) = if packet.IsV6 then packet else changed

    match random.Next 40 with
    | 0 ->
        { packet with
            Tos = packet.Tos ^^^ (1 <<< random.Next 8) }
    | 1 -> { packet with Ttl = packet.Ttl - 1 }
    | 2 ->
        v4
            { packet with
                Fragment = packet.Fragment ^^^ DontFragment }
    | 3 -> v4 { packet with Fragment = 0x2000 }
    | 4 -> v4 { packet with Fragment = 5 }
    | 5 -> { packet with Options = 1 }
    | 6 ->
        v4
            { packet with
                Identification = random.Next 65536 }
    | 7 ->
        { packet with
            Spoil = random.Next(1, 0xFFFF) }
    | 8 ->
        v4
            { packet with
                SpoilHeader = random.Next(1, 0xFFFF) }
    | 9 ->
        { packet with
            Trailing = random.Next(1, 5) }
    | 24 ->
        if packet.IsUdp then
            { packet with
                SpoilLength = random.Next(-8, 8) }
        else
            packet
    | 10 ->
        { packet with
            Payload = packet.Payload[.. packet.Payload.Length / 2 - 1] }
    | 11 ->
        { packet with
            Payload = Array.append packet.Payload [| 1uy; 2uy; 3uy |] }
    | 12 -> { packet with Payload = [||] }
    | 13 ->
        tcp
            { packet with
                Flags = packet.Flags ||| 0x008 }
    | 14 ->
        tcp
            { packet with
                Flags = packet.Flags ||| 0x001 }
    | 15 ->
        tcp
            { packet with
                Flags = packet.Flags ^^^ (1 <<< random.Next 12) }
    | 16 ->
        tcp
            { packet with
                Sequence = packet.Sequence + uint32 (random.Next 200) }
    | 17 ->
        tcp
            { packet with
                Sequence = packet.Sequence - uint32 (random.Next 200) }
    | 18 ->
        tcp
            { packet with
                Acknowledgement = packet.Acknowledgement + 1u }
    | 19 ->
        tcp
            { packet with
                Window = packet.Window + 1 }
    | 20 ->
        tcp
            { packet with
                Urgent = packet.Urgent + 1 }
    | 21 ->
        tcp
            { packet with
                TcpOptions = filled (Random(random.Next())) packet.TcpOptions.Length }
    | 22 ->
        (if packet.IsUdp then
             { packet with NoChecksum = true }
         else
             packet)
    | 23 ->
        (if packet.IsV6 then
             { packet with
                 FlowLabel = packet.FlowLabel ^^^ (1 <<< random.Next 20) }
         else
             packet)
    | _ -> packet

/// Traffic of a few flows in any interleaving, with whatever may disturb it: a retransmission, a gap, an ACK, another
/// ToS, a fragment, a broken checksum. What disturbs a flow may last or be over with the next packet.
let traffic (maxFlows: int) (maxPackets: int) (seed: int) : Packet list =
    let random = System.Random seed
    let latest = trains random (random.Next(1, maxFlows + 1))

    [ for _ in 1 .. random.Next(1, maxPackets + 1) do
          let flow = random.Next latest.Length
          let packet = disturbed random latest[flow]
          yield packet
          let lasts = random.Next 2 = 0 && packet.Spoil = 0 && packet.Payload.Length > 0

          latest[flow] <-
              following (
                  if lasts then
                      packet
                  else
                      { latest[flow] with
                          Sequence = packet.Sequence }
              ) ]

/// A receive batch; a counterexample shrinks to the packets that matter.
type Batch = Batch of Packet list

type BatchArbitrary =
    static member Batch() =
        let gen = Gen.choose (0, Int32.MaxValue - 1) |> Gen.map (traffic 4 80 >> Batch)

        let shrink (Batch packets) =
            let count = packets.Length

            seq {
                if count > 3 then
                    yield Batch(List.truncate (count / 2) packets)
                    yield Batch(List.skip (count / 2) packets)

                if count > 1 then
                    for index in 0 .. count - 1 do
                        yield Batch(List.removeAt index packets)
            }

        Arb.fromGenShrink (gen, shrink)

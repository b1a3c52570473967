/// Single packets for the laws on coalescing, described by what they are made of.
module Lightway.Specs.Packets

open System
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Everything that makes one packet; `bytesOf` gives its bytes.
type Packet =
    {
        IsUdp: bool
        /// 4 bytes for IPv4, 16 for IPv6; as long as the destination.
        Source: byte[]
        Destination: byte[]
        SourcePort: int
        DestinationPort: int
        /// TTL or hop limit.
        HopLimit: int
        /// Type of service or traffic class, all 8 bits.
        TrafficClass: int
        FlowLabel: int
        Identification: int
        /// IPv4's word of flags and fragment offset.
        Fragment: int
        /// 32-bit words of IPv4 options.
        Options: int
        /// Type of an IPv6 extension header of 8 bytes.
        Extension: byte option
        Sequence: uint32
        Acknowledgement: uint32
        /// The low 12 bits of TCP's offset word: reserved bits, AE, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
        Flags: int
        Window: int
        Urgent: int
        /// A multiple of 4 bytes.
        TcpOptions: byte[]
        Payload: byte[]
        /// UDP's checksum is left out: zero (RFC 768).
        NoChecksum: bool
        /// Added to UDP's length; the checksum is right for the length as it is.
        SpoilLength: int
        /// Bits that are wrong in the transport checksum. Never all 16: zero has two forms.
        Spoil: int
        /// The same for IPv4's header checksum.
        SpoilHeader: int
        /// Bytes after the end that the IP length claims.
        Trailing: int
        /// The checksum covers them, so only the length shows them.
        IsTrailingSummed: bool
    }

    member this.IsV6 = this.Source.Length = 16

/// IPv4's DF, as Linux sends it with TCP.
[<Literal>]
let DontFragment = 0x4000

/// TCP over IPv4, ACK set, no payload.
let tcp4: Packet =
    { IsUdp = false
      Source = hex "0a010001"
      Destination = hex "0a020002"
      SourcePort = 10000
      DestinationPort = 443
      HopLimit = 64
      TrafficClass = 0
      FlowLabel = 0
      Identification = 0x1234
      Fragment = DontFragment
      Options = 0
      Extension = None
      Sequence = 1000u
      Acknowledgement = 0x01020304u
      Flags = 0x010
      Window = 0xFEDC
      Urgent = 0
      TcpOptions = [||]
      Payload = [||]
      NoChecksum = false
      SpoilLength = 0
      Spoil = 0
      SpoilHeader = 0
      Trailing = 0
      IsTrailingSummed = false }

let tcp6: Packet =
    { tcp4 with
        Source = hex "fd01 0000 0000 0000 0000 0000 0000 0001"
        Destination = hex "fd02 0000 0000 0000 0000 0000 0000 0002"
        SourcePort = 10001 }

let udp4: Packet =
    { tcp4 with
        IsUdp = true
        SourcePort = 10002 }

let udp6: Packet =
    { tcp6 with
        IsUdp = true
        SourcePort = 10003 }

/// The packet without what its protocols have no field for, so that equal packets have equal descriptions.
let normal (packet: Packet) : Packet =
    let network =
        if packet.IsV6 then
            { packet with
                Identification = 0
                Fragment = 0
                Options = 0
                SpoilHeader = 0 }
        else
            { packet with
                FlowLabel = 0
                Extension = None }

    if packet.IsUdp then
        { network with
            Sequence = 0u
            Acknowledgement = 0u
            Flags = 0
            Window = 0
            Urgent = 0
            TcpOptions = [||] }
    else
        { network with
            NoChecksum = false
            SpoilLength = 0 }

/// Common fields of one flow's packets.
let flowOf (packet: Packet) =
    packet.IsUdp, packet.Source, packet.Destination, packet.SourcePort, packet.DestinationPort

let private protocol (packet: Packet) = if packet.IsUdp then 17uy else 6uy

let private word32 (value: uint32) =
    Array.append (ByteSum.word (int (value >>> 16))) (ByteSum.word (int value))

let private transport (packet: Packet) =
    let ports =
        Array.append (ByteSum.word packet.SourcePort) (ByteSum.word packet.DestinationPort)

    if packet.IsUdp then
        Array.concat
            [ ports; ByteSum.word (8 + packet.Payload.Length + packet.SpoilLength); hex "0000"; packet.Payload ]
    else
        Array.concat
            [ ports
              word32 packet.Sequence
              word32 packet.Acknowledgement
              ByteSum.word (((5 + packet.TcpOptions.Length / 4) <<< 12) ||| packet.Flags)
              ByteSum.word packet.Window
              hex "0000"
              ByteSum.word packet.Urgent
              packet.TcpOptions
              packet.Payload ]

let private ipv4 (packet: Packet) (transportLength: int) =
    let length = 20 + packet.Options * 4

    let header =
        Array.concat
            [ [| byte (0x40 ||| length / 4); byte packet.TrafficClass |]
              ByteSum.word (length + transportLength)
              ByteSum.word packet.Identification
              ByteSum.word packet.Fragment
              [| byte packet.HopLimit; protocol packet; 0uy; 0uy |]
              packet.Source
              packet.Destination
              Array.create (packet.Options * 4) 1uy ] // "no operation" options

    (ByteSum.word (int (ByteSum.checksum header) ^^^ packet.SpoilHeader)).CopyTo(header, 10)
    header

let private ipv6 (packet: Packet) (transportLength: int) =
    let next, extension =
        match packet.Extension with
        | None -> protocol packet, [||]
        | Some kind -> kind, Array.append [| protocol packet |] (hex "00 010400000000") // PadN (RFC 8200 §4.2)

    Array.concat
        [ ByteSum.word (0x6000 ||| (packet.TrafficClass <<< 4) ||| (packet.FlowLabel >>> 16))
          ByteSum.word packet.FlowLabel
          ByteSum.word (extension.Length + transportLength)
          [| next; byte packet.HopLimit |]
          packet.Source
          packet.Destination
          extension ]

let bytesOf (packet: Packet) : byte[] =
    let transport = transport packet

    let network = (if packet.IsV6 then ipv6 else ipv4) packet transport.Length

    let whole = Array.append transport (junk packet.Trailing)
    let summed = if packet.IsTrailingSummed then whole else transport

    let pseudoHeader =
        if packet.IsV6 then
            ByteSum.pseudoHeaderV6 network (protocol packet) summed.Length
        else
            ByteSum.pseudoHeaderV4 network summed.Length

    let checksum =
        match int (ByteSum.checksum (Array.append pseudoHeader summed)) with
        | _ when packet.IsUdp && packet.NoChecksum -> 0
        | 0 when packet.IsUdp -> 0xFFFF ^^^ packet.Spoil // RFC 768
        | checksum -> checksum ^^^ packet.Spoil

    (ByteSum.word checksum).CopyTo(whole, (if packet.IsUdp then 6 else 16))
    Array.append network whole

/// The packet that its sender makes after this one, with a payload of given length: sequence number and identification
/// count up.
let following (packet: Packet) (length: int) : Packet =
    let sequence = packet.Sequence + uint32 packet.Payload.Length

    let seed = int sequence ^^^ (packet.SourcePort <<< 16) ^^^ packet.Identification

    { packet with
        Identification = (packet.Identification + 1) &&& 0xFFFF
        Sequence = sequence
        Payload = filled (Random seed) length }

/// Packets as their sender makes them, one for each payload length. `template` is the one before the first.
let inOrder (template: Packet) (lengths: int list) : Packet list =
    List.scan following template lengths |> List.tail

/// `count` packets of 100 bytes.
let train (count: int) (template: Packet) : Packet list =
    inOrder template (List.replicate count 100)

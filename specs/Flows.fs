/// Packets of TCP and UDP flows for the coalescer's laws, described by what they are made of.
module Lightway.Specs.Flows

open System
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// What is wrong with a packet.
type Spoilt =
    | Nothing
    /// The TCP or UDP checksum.
    | TransportChecksum
    /// The IPv4 header checksum.
    | NetworkChecksum
    /// UDP's checksum is left out (RFC 768).
    | NoChecksum
    /// UDP's length field says one less than there is.
    | ShortLength

/// Everything that makes one packet; `build` gives its bytes.
type Packet =
    {
        IsV6: bool
        IsUdp: bool
        /// The source port's distance from 10000.
        Flow: int
        /// TTL or hop limit.
        HopLimit: int
        /// ToS or traffic class, ECN included.
        TrafficClass: int
        FlowLabel: int
        Identification: int
        /// IPv4's word of flags and fragment offset.
        Fragment: int
        IpOptions: byte[]
        /// IPv6 extension header, as 8 bytes without the first: type and the rest.
        Extension: (byte * byte[]) option
        Sequence: uint32
        Acknowledgement: uint32
        /// The low 12 bits of TCP's offset word: reserved bits, AE, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
        Flags: int
        Window: int
        Urgent: int
        TcpOptions: byte[]
        Payload: byte[]
        /// Bytes after what the IP length covers.
        Trailing: int
        Spoilt: Spoilt
    }

/// IPv4's DF.
[<Literal>]
let DontFragment = 0x4000

/// A TCP/IPv4 data segment with nothing special.
let plain: Packet =
    { IsV6 = false
      IsUdp = false
      Flow = 0
      HopLimit = 64
      TrafficClass = 0
      FlowLabel = 0
      Identification = 0x1234
      Fragment = DontFragment
      IpOptions = [||]
      Extension = None
      Sequence = 1000u
      Acknowledgement = 0x01020304u
      Flags = 0x010
      Window = 0xFEDC
      Urgent = 0
      TcpOptions = [||]
      Payload = [||]
      Trailing = 0
      Spoilt = Nothing }

let private word32 (value: uint32) =
    Array.append (ByteSum.word (int (value >>> 16))) (ByteSum.word (int value))

let private transport (packet: Packet) =
    let ports = Array.append (ByteSum.word (10000 + packet.Flow)) (hex "01bb")

    if packet.IsUdp then
        let length =
            8 + packet.Payload.Length - (if packet.Spoilt = ShortLength then 1 else 0)

        Array.concat [ ports; ByteSum.word length; hex "0000"; packet.Payload ]
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

let private protocol (packet: Packet) = if packet.IsUdp then 17uy else 6uy

let private network (packet: Packet) (transportLength: int) =
    if packet.IsV6 then
        let next, extension =
            match packet.Extension with
            | None -> protocol packet, [||]
            | Some(kind, rest) -> kind, Array.append [| protocol packet |] rest

        Array.concat
            [ ByteSum.word (0x6000 ||| (packet.TrafficClass <<< 4) ||| (packet.FlowLabel >>> 16))
              ByteSum.word packet.FlowLabel
              ByteSum.word (extension.Length + transportLength)
              [| next; byte packet.HopLimit |]
              hex "fd01 0000 0000 0000 0000 0000 0000 0001 fd02 0000 0000 0000 0000 0000 0000 0002"
              extension ]
    else
        let length = 20 + packet.IpOptions.Length

        let header =
            Array.concat
                [ [| byte (0x40 ||| length / 4); byte packet.TrafficClass |]
                  ByteSum.word (length + transportLength)
                  ByteSum.word packet.Identification
                  ByteSum.word packet.Fragment
                  [| byte packet.HopLimit; protocol packet; 0uy; 0uy |]
                  hex "0a010001 0a020002"
                  packet.IpOptions ]

        let spoilt = if packet.Spoilt = NetworkChecksum then 0x0101 else 0
        (ByteSum.word (int (ByteSum.checksum header) ^^^ spoilt)).CopyTo(header, 10)
        header

let build (packet: Packet) : byte[] =
    let transport = transport packet
    let network = network packet transport.Length
    let checksumAt = if packet.IsUdp then 6 else 16

    let pseudoHeader =
        if packet.IsV6 then
            ByteSum.pseudoHeaderV6 network (protocol packet) transport.Length
        else
            ByteSum.pseudoHeaderV4 network transport.Length

    let checksum =
        match int (ByteSum.checksum (Array.append pseudoHeader transport)) with
        | 0 when packet.IsUdp -> 0xFFFF // RFC 768
        | checksum -> checksum

    match packet.Spoilt with
    | NoChecksum -> ()
    | TransportChecksum -> (ByteSum.word (checksum ^^^ 0x0100)).CopyTo(transport, checksumAt)
    | _ -> (ByteSum.word checksum).CopyTo(transport, checksumAt)

    Array.concat [ network; transport; Array.zeroCreate packet.Trailing ]

/// The packet that its sender makes after this one, with so many bytes of payload: sequence number and identification
/// count up.
let following (packet: Packet) (length: int) : Packet =
    let sequence = packet.Sequence + uint32 packet.Payload.Length

    { packet with
        Identification = (packet.Identification + 1) &&& 0xFFFF
        Sequence = sequence
        Payload = filled (Random(int sequence ^^^ (packet.Flow <<< 20) ^^^ packet.Identification)) length }

/// Packets as their sender makes them, one for each payload length. `template` is the one before the first.
let inOrder (template: Packet) (lengths: int list) : Packet list =
    List.scan following template lengths |> List.tail

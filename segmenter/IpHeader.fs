namespace Lightway.Segmenter

open System

/// IANA protocol numbers and IPv6 extension header types (RFC 8200 §4) that this library knows.
[<RequireQualifiedAccess>]
module IpProtocol =
    [<Literal>]
    let HopByHop = 0uy

    [<Literal>]
    let Icmp = 1uy

    [<Literal>]
    let Tcp = 6uy

    [<Literal>]
    let Udp = 17uy

    [<Literal>]
    let Dccp = 33uy

    [<Literal>]
    let Routing = 43uy

    [<Literal>]
    let Fragment = 44uy

    [<Literal>]
    let DestinationOptions = 60uy

    [<Literal>]
    let UdpLite = 136uy

/// Fields of the IPv4 header (RFC 791 §3.1). Offsets and lengths in bytes, values in host order.
/// `isWellFormed` guarantees that no accessor below it raises.
[<RequireQualifiedAccess>]
module Ipv4 =
    /// Header without options.
    [<Literal>]
    let MinHeaderLength = 20

    /// DSCP in the upper six bits, ECN in the lower two (RFC 2474 §3, RFC 3168 §5).
    [<Literal>]
    let TosAt = 1

    [<Literal>]
    let TotalLengthAt = 2

    [<Literal>]
    let IdentificationAt = 4

    /// The word of flags and fragment offset.
    [<Literal>]
    let FragmentWordAt = 6

    [<Literal>]
    let TimeToLiveAt = 8

    [<Literal>]
    let ProtocolAt = 9

    [<Literal>]
    let ChecksumAt = 10

    [<Literal>]
    let SourceAt = 12

    [<Literal>]
    let DestinationAt = 16

    /// Bytes of header and options: IHL in 32-bit words, 0 to 60. Precondition: one byte.
    let headerLength (packet: ReadOnlySpan<byte>) : int = int (packet[0] &&& 0x0Fuy) * 4

    /// Version 4, an IHL of at least 5 and a packet that holds the whole header.
    let isWellFormed (packet: ReadOnlySpan<byte>) : bool =
        packet.Length >= MinHeaderLength
        && packet[0] >>> 4 = 4uy
        && headerLength packet >= MinHeaderLength
        && headerLength packet <= packet.Length

    /// Bytes of header and payload that the sender claims.
    let totalLength (packet: ReadOnlySpan<byte>) : int = int (read16 (packet, TotalLengthAt))

    let identification (packet: ReadOnlySpan<byte>) : uint16 = read16 (packet, IdentificationAt)

    /// 13-bit offset in units of 8 bytes; 0 in the fragment that carries the transport header.
    let fragmentOffset (packet: ReadOnlySpan<byte>) : int =
        int (read16 (packet, FragmentWordAt)) &&& 0x1FFF

    /// DF set: routers must not fragment the packet.
    let dontFragment (packet: ReadOnlySpan<byte>) : bool =
        int (read16 (packet, FragmentWordAt)) &&& 0x4000 <> 0

    /// MF set or an offset: the packet is a part of one.
    let isFragment (packet: ReadOnlySpan<byte>) : bool =
        int (read16 (packet, FragmentWordAt)) &&& 0x3FFF <> 0

    let protocol (packet: ReadOnlySpan<byte>) : byte = packet[ProtocolAt]

/// Fields of the IPv6 header and its extension headers (RFC 8200 §3, §4).
[<RequireQualifiedAccess>]
module Ipv6 =
    [<Literal>]
    let HeaderLength = 40

    [<Literal>]
    let PayloadLengthAt = 4

    [<Literal>]
    let private NextHeaderAt = 6

    /// Bytes of the packet: 40 plus the payload length field. Precondition: 40 bytes.
    let totalLength (packet: ReadOnlySpan<byte>) : int =
        HeaderLength + int (read16 (packet, PayloadLengthAt))

    /// Walks hop-by-hop, routing and destination options headers; each is at least 8 bytes, so the walk ends.
    /// Returns the type of the first other header (Fragment too) and its offset in `at`, which may be the end of the
    /// packet; `at` is -1 if an extension header does not fit. Precondition: 40 bytes.
    let skipExtensions (packet: ReadOnlySpan<byte>, at: byref<int>) : byte =
        let mutable next = packet[NextHeaderAt]
        at <- HeaderLength

        while at >= 0
              && (next = IpProtocol.HopByHop || next = IpProtocol.Routing || next = IpProtocol.DestinationOptions) do
            let length =
                if at + 2 <= packet.Length then
                    (int packet[at + 1] + 1) * 8
                else
                    8

            if at + length <= packet.Length then
                next <- packet[at]
                at <- at + length
            else
                at <- -1

        next

namespace Lightway.Segmenter

open System
open System.Buffers.Binary

/// Fields of the TCP header (RFC 9293 §3.1). Offsets in bytes from its start.
[<RequireQualifiedAccess>]
module Tcp =
    /// Header without options.
    [<Literal>]
    let MinHeaderLength = 20

    [<Literal>]
    let SequenceAt = 4

    /// The 16-bit word of data offset, reserved bits and flags.
    [<Literal>]
    let OffsetAndFlagsAt = 12

    [<Literal>]
    let ChecksumAt = 16

    [<Literal>]
    let Fin = 0x0001us

    [<Literal>]
    let Syn = 0x0002us

    [<Literal>]
    let Psh = 0x0008us

    /// Congestion window reduced (RFC 3168 §6.1.2).
    [<Literal>]
    let Cwr = 0x0080us

    /// Kind of the maximum segment size option (RFC 9293 §3.2); its length is 4.
    [<Literal>]
    let MaximumSegmentSizeOption = 2uy

    [<Literal>]
    let EndOfOptions = 0uy

    [<Literal>]
    let NoOperation = 1uy

    /// Bytes of header and options: data offset in 32-bit words, 0 to 60. Precondition: 13 bytes from the header's
    /// start.
    let headerLength (segment: ReadOnlySpan<byte>) : int =
        int (segment[OffsetAndFlagsAt] >>> 4) * 4

/// Fields of the DCCP header (RFC 4340 §5.1). Offsets in bytes from its start.
[<RequireQualifiedAccess>]
module Dccp =
    [<Literal>]
    let ChecksumAt = 6

/// Fields of the UDP header (RFC 768), and of UDP-Lite's, which has the checksum at the same offset (RFC 3828 §3.1). Offsets
/// in bytes from its start.
[<RequireQualifiedAccess>]
module Udp =
    [<Literal>]
    let HeaderLength = 8

    [<Literal>]
    let LengthAt = 4

    [<Literal>]
    let ChecksumAt = 6

/// The ports of TCP and UDP, which both headers have at the same place.
[<RequireQualifiedAccess>]
module Ports =
    [<Literal>]
    let private DestinationAt = 2

    /// True for a packet of `protocol` (TCP or UDP) to this address and port, and for later fragments of packets to this
    /// address, which carry no port. False for bytes that are not well-formed IPv4.
    let isTo (packet: ReadOnlySpan<byte>, protocol: byte, address: Ipv4Address, port: uint16) : bool =
        Ipv4.isWellFormed packet
        && Ipv4.protocol packet = protocol
        && BinaryPrimitives.ReadUInt32BigEndian(packet.Slice Ipv4.DestinationAt) = address.Value
        && (Ipv4.fragmentOffset packet <> 0
            || (let portAt = Ipv4.headerLength packet + DestinationAt

                packet.Length >= portAt + 2 && BinaryPrimitives.ReadUInt16BigEndian(packet.Slice portAt) = port))

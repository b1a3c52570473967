namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Buffers.Binary

/// State of a packet's TCP or UDP checksum field.
type TransportChecksum =
    /// Checksum, complemented.
    | Complete = 0
    /// Partial sum over the pseudo-header, not complemented (CHECKSUM_PARTIAL, announced by NEEDS_CSUM).
    | Partial = 1

/// Address translation and MSS clamping on IPv4 packets, with incremental checksums (RFC 1624). Packets that are not
/// well-formed IPv4 are left untouched; nothing raises.
[<RequireQualifiedAccess>]
module Rewrite =
    let private addressOf (packet: ReadOnlySpan<byte>, at: int) : Ipv4Address =
        if Ipv4.isWellFormed packet then
            Ipv4Address(read32 (packet, at))
        else
            Ipv4Address.None

    /// Source address; `Ipv4Address.None` if `packet` is not IPv4.
    let sourceOf (packet: ReadOnlySpan<byte>) : Ipv4Address = addressOf (packet, Ipv4.SourceAt)

    /// Destination address; `Ipv4Address.None` if `packet` is not IPv4.
    let destinationOf (packet: ReadOnlySpan<byte>) : Ipv4Address = addressOf (packet, Ipv4.DestinationAt)

    /// RFC 1624 for both words of an address in a complemented checksum field.
    [<ReflectedDefinition>]
    let internal updateAddress (field: uint16, before: uint32, after: uint32) : uint16 =
        let high = Checksum.update (field, uint16 (before >>> 16), uint16 (after >>> 16))
        Checksum.update (high, uint16 before, uint16 after)

    /// The same in a field that holds an uncomplemented partial sum.
    [<ReflectedDefinition>]
    let internal updateAddressPartial (field: uint16, before: uint32, after: uint32) : uint16 =
        let high =
            Checksum.updatePartial (field, uint16 (before >>> 16), uint16 (after >>> 16))

        Checksum.updatePartial (high, uint16 before, uint16 after)

    /// Offset of the checksum that covers the pseudo-header, or -1: TCP, UDP, UDP-Lite and DCCP have one, in their first
    /// fragment; bytes beyond the IP length are not part of the packet. UDP-Lite and DCCP may leave payload out of the
    /// checksum, never the addresses (RFC 3828 §3.1, RFC 4340 §9.2).
    let private transportChecksumAt (packet: ReadOnlySpan<byte>) : int =
        let l4Offset = Ipv4.headerLength packet

        let at =
            match Ipv4.protocol packet with
            | IpProtocol.Tcp -> l4Offset + Tcp.ChecksumAt
            | IpProtocol.Udp
            | IpProtocol.UdpLite -> l4Offset + Udp.ChecksumAt
            | IpProtocol.Dccp -> l4Offset + Dccp.ChecksumAt
            | _ -> -1

        let ends = min packet.Length (Ipv4.totalLength packet)

        if Ipv4.fragmentOffset packet = 0 && at + 2 <= ends then
            at
        else
            -1

    let private updateTransport
        (packet: Span<byte>, at: int, before: uint32, after: uint32, state: TransportChecksum)
        : unit =
        let field = read16 (packet, at)
        let protocol = Ipv4.protocol packet
        let isUdp = protocol = IpProtocol.Udp || protocol = IpProtocol.UdpLite

        if state = TransportChecksum.Partial then
            put16 (packet, at, updateAddressPartial (field, before, after))
        elif not isUdp then
            put16 (packet, at, updateAddress (field, before, after))
        elif field <> 0us then // zero says that the sender made none, RFC 768; UDP-Lite forbids it, RFC 3828 §3.1
            put16 (packet, at, Checksum.udpField (updateAddress (field, before, after)))

    let private setAddress (packet: Span<byte>, at: int, after: uint32, state: TransportChecksum) : bool =
        let view: ReadOnlySpan<byte> = packet

        if not (Ipv4.isWellFormed view) then
            false
        else
            let before = read32 (view, at)
            let checksumAt = transportChecksumAt view

            if checksumAt >= 0 then
                updateTransport (packet, checksumAt, before, after, state)

            put16 (packet, Ipv4.ChecksumAt, updateAddress (read16 (packet, Ipv4.ChecksumAt), before, after))
            put32 (packet, at, after)
            true

    /// Sets the source address and updates the checksums of the IPv4 header and of TCP, UDP, UDP-Lite or DCCP; no other
    /// protocol that can be translated has a pseudo-header. A UDP checksum of 0 stays 0, a computed 0 becomes 0xFFFF. `checksum` is the
    /// state of the TCP or UDP field. False: not well-formed IPv4, `packet` untouched.
    let source (packet: Span<byte>, address: Ipv4Address, checksum: TransportChecksum) : bool =
        setAddress (packet, Ipv4.SourceAt, address.Value, checksum)

    /// Sets the destination address; all else as `source`.
    let destination (packet: Span<byte>, address: Ipv4Address, checksum: TransportChecksum) : bool =
        setAddress (packet, Ipv4.DestinationAt, address.Value, checksum)

    /// True for every SYN, and for a few other packets: a quick look before `clampMss`, which checks everything.
    let mayBeSyn (packet: ReadOnlySpan<byte>) : bool =
        packet.Length >= Ipv4.MinHeaderLength + Tcp.MinHeaderLength
        && packet[Ipv4.ProtocolAt] = IpProtocol.Tcp
        && (let flagsAt = Ipv4.headerLength packet + Tcp.OffsetAndFlagsAt + 1
            flagsAt < packet.Length && packet[flagsAt] &&& byte Tcp.Syn <> 0uy)

    /// Offset of the value of the MSS option in a TCP header with its options, or -1. Options that do not fit or have a
    /// length that cannot be end the search, as the end-of-options kind does (RFC 9293 §3.1).
    let private mssValueAt (header: Span<byte>) : int =
        let mutable at = Tcp.MinHeaderLength
        let mutable found = -1

        while at + 4 <= header.Length do // the option has 4 bytes: it cannot start later
            let length = int header[at + 1]

            match header[at] with
            | Tcp.NoOperation -> at <- at + 1
            | Tcp.MaximumSegmentSizeOption when length = 4 ->
                found <- at + 2
                at <- header.Length
            | Tcp.EndOfOptions
            | Tcp.MaximumSegmentSizeOption -> at <- header.Length
            | _ -> at <- if length >= 2 then at + length else header.Length

        found

    /// The TCP header with options if `packet` is a whole packet or first fragment with SYN set, else empty.
    let private synHeader (packet: Span<byte>) : Span<byte> =
        let view: ReadOnlySpan<byte> = packet

        if
            not (Ipv4.isWellFormed view)
            || Ipv4.protocol view <> IpProtocol.Tcp
            || Ipv4.fragmentOffset view <> 0
            || view.Length - Ipv4.headerLength view < Tcp.MinHeaderLength
        then
            Span<byte>.Empty
        else
            let tcp = packet.Slice(Ipv4.headerLength view)
            let length = Tcp.headerLength tcp
            let isSyn = read16 (tcp, Tcp.OffsetAndFlagsAt) &&& Tcp.Syn <> 0us

            if isSyn && length <= tcp.Length then
                tcp.Slice(0, length)
            else
                Span<byte>.Empty

    /// Lowers the MSS option of an IPv4 SYN or SYN-ACK to `limit` bytes if it is larger, with the TCP checksum, and
    /// returns the previous value; 0 if nothing was changed. Never raises it, adds no option. The checksum must be
    /// complete: complete a NEEDS_CSUM packet with `Segment.completeChecksum` first.
    let clampMss (packet: Span<byte>, limit: int) : int =
        let header = synHeader packet
        let at = mssValueAt header
        let previous = if at < 0 then 0us else read16 (header, at)

        if limit < 0 || int previous <= limit then
            0
        else
            let lowered = uint16 limit
            put16 (header, at, lowered)
            // At an odd offset the value's bytes count in the opposite halves of two words (RFC 1071 §2(B)).
            let word (value: uint16) =
                if at % 2 = 0 then
                    value
                else
                    BinaryPrimitives.ReverseEndianness value

            let field = read16 (header, Tcp.ChecksumAt)
            put16 (header, Tcp.ChecksumAt, Checksum.update (field, word previous, word lowered))
            int previous

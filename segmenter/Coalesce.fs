namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Runtime.InteropServices

/// Effect of a packet on its neighbours on their way into a TUN device.
type CoalesceClass =
    /// Passes unchanged; its order among TCP and UDP flows does not matter.
    | Unrelated = 0
    /// Passes unchanged, and may belong to any flow of its source, or of any source if it is malformed (a fragment, an
    /// extension header): nothing of those flows that follows it joins what came before it.
    | Barrier = 1
    /// Passes unchanged; packets that follow it in its flow do not join those before it.
    | Alone = 2
    /// May share a superpacket with its neighbours.
    | Mergeable = 3

/// Result of `Coalesce.classify`. Lengths and offsets in bytes from the start of the IP header. Only `Class` is set for
/// `Unrelated` and `Barrier`; `Alone` sets `IsV4`, `IsTcp` and `L4Offset` besides.
[<Struct>]
type CoalesceCandidate =
    {
        Class: CoalesceClass
        IsV4: bool
        IsTcp: bool
        L4Offset: int
        /// IP and transport header.
        HeaderLength: int
        /// Never 0 for a mergeable packet.
        PayloadLength: int
    }

/// One frame for the TUN device: an unchanged packet, or a run of packets that a superpacket replaces.
[<Struct>]
type CoalescedRun =
    {
        /// Index of the first packet; `Coalescer.Next` leads to the others.
        First: int
        /// Packets in it. 1: write that packet unchanged, behind a zeroed virtio_net_hdr.
        Count: int
        /// Bytes before the payload in every packet of a run of two or more.
        HeaderLength: int
        /// Bytes of the frame: of the superpacket (one header and all payloads, at most 65535), or of the one packet.
        PacketLength: int
        IsTcp: bool
    }

/// Decides which packets may share a superpacket: the inverse of `Segment`, by the rules of the kernel's GRO for TCP
/// and UDP (net/ipv4/tcp_offload.c, udp_offload.c, af_inet.c) or stricter ones.
[<RequireQualifiedAccess>]
module Coalesce =
    /// Longest header of a mergeable packet: IPv6 (40) and TCP with options (60).
    [<Literal>]
    let MaxHeaderLength = 100

    /// Datagrams of one UDP superpacket: the kernel's GRO builds as many, and every kernel with USO accepts them.
    [<Literal>]
    let MaxUdpSegments = 64

    /// The limit of the length fields of IP, and of one read or write of a TUN device.
    [<Literal>]
    let MaxPacketLength = 65535

    /// A superpacket of a header and `payloadLength` bytes stays within the limit with `added` bytes more. Precondition: no
    /// argument is above 65535.
    [<ReflectedDefinition>]
    let internal fits (headerLength: int, payloadLength: int, added: int) : bool =
        headerLength + payloadLength + added <= MaxPacketLength

    /// TCP sequence number after `payloadLength` bytes, modulo 2^32 (RFC 9293 §3.4).
    [<ReflectedDefinition>]
    let internal nextSequence (first: uint32, payloadLength: int) : uint32 = first + uint32 payloadLength

    /// IPv4 identification after `count` packets, modulo 2^16.
    [<ReflectedDefinition>]
    let internal nextIdentification (first: uint16, count: int) : uint16 = first + uint16 count

    /// The sum over a packet's transport header, payload and pseudo-header says that its checksum is right (RFC 1071 §1).
    [<ReflectedDefinition>]
    let internal isRight (pseudoHeader: uint16, transport: uint16) : bool =
        Checksum.add (pseudoHeader, transport) = 0xFFFFus

    // Flag bits of TCP's 14th byte (RFC 9293 §3.1).
    [<Literal>]
    let private Fin = 0x01uy

    [<Literal>]
    let private Psh = 0x08uy

    [<Literal>]
    let private Ack = 0x10uy

    [<Literal>]
    let private Ece = 0x40uy

    [<Literal>]
    let private FlagsAt = 13

    let inline private only (kind: CoalesceClass) : CoalesceCandidate =
        { Class = kind
          IsV4 = false
          IsTcp = false
          L4Offset = 0
          HeaderLength = 0
          PayloadLength = 0 }

    /// A correct transport checksum makes the sum over everything covered 0xFFFF (RFC 1071 §1); the bytes of a packet
    /// with a header are never all zero.
    let inline private verifies (packet: ReadOnlySpan<byte>, isV4: bool, protocol: byte, l4Offset: int) =
        let transport = packet.Slice l4Offset

        let pseudoHeader =
            if isV4 then
                Checksum.pseudoHeaderV4 (
                    read32 (packet, Ipv4.SourceAt),
                    read32 (packet, Ipv4.DestinationAt),
                    protocol,
                    transport.Length
                )
            else
                Checksum.pseudoHeaderV6 (packet.Slice(8, 32), protocol, transport.Length)

        isRight (pseudoHeader, Checksum.sum transport)

    /// Payload offset of a TCP segment that may share a superpacket, or 0: its header fits, it has payload, and of all
    /// flags it has ACK, PSH, FIN and ECE at most, ACK always. SYN, RST, URG and CWR travel alone, as does a pure ACK.
    let inline private tcpHeader (segment: ReadOnlySpan<byte>) =
        if segment.Length < Tcp.MinHeaderLength then
            0
        else
            let length = Tcp.headerLength segment

            if
                length >= Tcp.MinHeaderLength
                && length < segment.Length
                && segment[FlagsAt] &&& ~~~(Fin ||| Psh ||| Ece) = Ack
            then
                length
            else
                0

    /// The same for UDP: its length field is right, it has payload, and it carries a checksum.
    let inline private udpHeader (datagram: ReadOnlySpan<byte>) =
        if
            datagram.Length > Udp.HeaderLength
            && int (read16 (datagram, Udp.LengthAt)) = datagram.Length
            && read16 (datagram, Udp.ChecksumAt) <> 0us
        then
            Udp.HeaderLength
        else
            0

    let inline private transport (packet: ReadOnlySpan<byte>, isV4: bool, protocol: byte, l4Offset: int, sound: bool) =
        let isTcp = protocol = IpProtocol.Tcp

        if packet.Length < l4Offset + 4 then
            only CoalesceClass.Barrier // no ports, so the flow is unknown
        else
            let header =
                if not sound then 0
                elif isTcp then tcpHeader (packet.Slice l4Offset)
                else udpHeader (packet.Slice l4Offset)

            let mergeable = header > 0 && verifies (packet, isV4, protocol, l4Offset)

            { Class =
                if mergeable then
                    CoalesceClass.Mergeable
                else
                    CoalesceClass.Alone
              IsV4 = isV4
              IsTcp = isTcp
              L4Offset = l4Offset
              HeaderLength = l4Offset + header
              PayloadLength = packet.Length - l4Offset - header }

    let inline private isTransport (protocol: byte) =
        protocol = IpProtocol.Tcp || protocol = IpProtocol.Udp

    let private classifyV4 (packet: ReadOnlySpan<byte>) =
        if not (Ipv4.isWellFormed packet) then
            only CoalesceClass.Barrier
        else
            let protocol = Ipv4.protocol packet

            if not (isTransport protocol) then
                only CoalesceClass.Unrelated
            elif Ipv4.isFragment packet then
                only CoalesceClass.Barrier
            else
                let length = Ipv4.headerLength packet

                let sound =
                    length = Ipv4.MinHeaderLength
                    && Ipv4.totalLength packet = packet.Length
                    && packet[6] &&& 0x80uy = 0uy // the reserved flag, which must be zero (RFC 791 §3.1)
                    && Checksum.sum (packet.Slice(0, length)) = 0xFFFFus

                transport (packet, true, protocol, length, sound)

    let private classifyV6 (packet: ReadOnlySpan<byte>) =
        if packet.Length < Ipv6.HeaderLength then
            only CoalesceClass.Barrier
        else
            let mutable at = 0
            let protocol = Ipv6.skipExtensions (packet, &at)

            if at <> Ipv6.HeaderLength || protocol = IpProtocol.Fragment then
                only CoalesceClass.Barrier
            elif not (isTransport protocol) then
                only CoalesceClass.Unrelated
            else
                transport (packet, false, protocol, at, Ipv6.totalLength packet = packet.Length)

    /// Classifies a packet by nothing but its own bytes. Mergeable are TCP data segments and
    /// UDP datagrams without IP options, extension headers or fragmentation whose lengths are exact and whose checksums
    /// are right: a superpacket's checksum is computed from scratch, which would launder a wrong one.
    /// Law: total; any bytes give a class.
    let classify (packet: ReadOnlySpan<byte>) : CoalesceCandidate =
        if packet.IsEmpty then
            only CoalesceClass.Barrier
        else
            match packet[0] >>> 4 with
            | 4uy -> classifyV4 packet
            | 6uy -> classifyV6 packet
            | _ -> only CoalesceClass.Barrier

    /// The header of a mergeable packet without what may differ within a superpacket: IP length, identification and
    /// checksum; TCP sequence number, PSH, FIN and checksum, or UDP length and checksum. Writes HeaderLength bytes.
    /// Law: packets share a superpacket only if these bytes are equal (addresses, ports, TTL, all 8 bits of the traffic
    /// class, DF, flow label, acknowledgement, window, urgent pointer, reserved bits, options: all compared).
    let mask (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>, dst: Span<byte>) : unit =
        let header = dst.Slice(0, candidate.HeaderLength)
        packet.Slice(0, candidate.HeaderLength).CopyTo header

        if candidate.IsV4 then
            put16 (header, Ipv4.TotalLengthAt, 0us)
            put16 (header, Ipv4.IdentificationAt, 0us)
            put16 (header, Ipv4.ChecksumAt, 0us)
        else
            put16 (header, Ipv6.PayloadLengthAt, 0us)

        let transport = header.Slice candidate.L4Offset

        if candidate.IsTcp then
            put32 (transport, Tcp.SequenceAt, 0u)
            transport[FlagsAt] <- transport[FlagsAt] &&& ~~~(Fin ||| Psh)
            put16 (transport, Tcp.ChecksumAt, 0us)
        else
            put16 (transport, Udp.LengthAt, 0us)
            put16 (transport, Udp.ChecksumAt, 0us)

    /// PSH and FIN of a mergeable packet: with either, it is the last of its superpacket.
    let closingFlags (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : byte =
        if candidate.IsTcp then
            packet[candidate.L4Offset + FlagsAt] &&& (Fin ||| Psh)
        else
            0uy

    /// TCP sequence number, or 0 for UDP.
    let sequence (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : uint32 =
        if candidate.IsTcp then
            read32 (packet, candidate.L4Offset + Tcp.SequenceAt)
        else
            0u

    /// IPv4 identification, or 0 for IPv6.
    let identification (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : uint16 =
        if candidate.IsV4 then Ipv4.identification packet else 0us

    /// The identification of an atomic datagram has no meaning (RFC 6864 §4.1). Others must count up by one, as they
    /// will when the superpacket is segmented again.
    let identificationMatters (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : bool =
        candidate.IsV4 && packet[6] &&& 0x40uy = 0uy

    /// Same IP version, protocol, addresses and ports. `masked` comes from `mask`.
    let sameFlow (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>, masked: ReadOnlySpan<byte>) : bool =
        let at = candidate.L4Offset

        if candidate.IsV4 then
            masked[0] >>> 4 = 4uy
            && masked[9] = packet[9]
            && packet.Slice(Ipv4.SourceAt, 8).SequenceEqual(masked.Slice(Ipv4.SourceAt, 8))
            && packet.Slice(at, 4).SequenceEqual(masked.Slice(Ipv4.MinHeaderLength, 4))
        else
            masked[0] >>> 4 = 6uy
            && masked[6] = packet[6]
            && packet.Slice(8, 32).SequenceEqual(masked.Slice(8, 32))
            && packet.Slice(at, 4).SequenceEqual(masked.Slice(Ipv6.HeaderLength, 4))

    /// True if a barrier does not tell whose it is.
    let isOfAnySource (packet: ReadOnlySpan<byte>) : bool =
        packet.IsEmpty
        || not (Ipv4.isWellFormed packet || (packet[0] >>> 4 = 6uy && packet.Length >= Ipv6.HeaderLength))

    /// Same IP version and source address. `masked` comes from `mask`. Precondition: not `isOfAnySource`.
    let sameSource (packet: ReadOnlySpan<byte>, masked: ReadOnlySpan<byte>) : bool =
        (packet[0] >>> 4) = (masked[0] >>> 4)
        && (if (packet[0] >>> 4) = 4uy then
                packet.Slice(Ipv4.SourceAt, 4).SequenceEqual(masked.Slice(Ipv4.SourceAt, 4))
            else
                packet.Slice(8, 16).SequenceEqual(masked.Slice(8, 16)))

    /// Hash of the flow: equal for packets of one flow. Every byte of addresses and ports reaches its high bits; the
    /// low bits depend on some only, as a multiplication carries upwards.
    let flowHash (candidate: inref<CoalesceCandidate>, packet: ReadOnlySpan<byte>) : uint32 =
        let ports = MemoryMarshal.Read<uint32>(packet.Slice candidate.L4Offset)

        let addresses =
            if candidate.IsV4 then
                MemoryMarshal.Read<uint64>(packet.Slice Ipv4.SourceAt)
            else
                let words = MemoryMarshal.Cast<byte, uint64>(packet.Slice(8, 32))
                words[0] ^^^ words[1] * 3UL ^^^ words[2] * 5UL ^^^ words[3] * 7UL

        let protocol = if candidate.IsTcp then 0UL else 1UL

        let mixed =
            (addresses ^^^ (uint64 ports <<< 16) ^^^ protocol) * 0x9E37_79B9_7F4A_7C15UL // 2^64 / golden ratio

        uint32 (mixed >>> 32)

    /// Writes the superpacket's header at `dst[10..]`, and before it the virtio_net_hdr that declares it to the kernel
    /// (Documentation/networking/tuntap.rst, linux/virtio_net.h): NEEDS_CSUM, and the transport checksum field holds
    /// the pseudo-header's sum, not complemented. Returns the bytes written, 10 + the header's length.
    /// `masked` is the header as `mask` left it; `identification` and `sequence` are those of the first packet, `flags`
    /// the closing flags of the last; `payloadLength` counts all payloads.
    let writeHeader
        (
            masked: ReadOnlySpan<byte>,
            isV4: bool,
            isTcp: bool,
            identification: uint16,
            sequence: uint32,
            flags: byte,
            gsoSize: int,
            payloadLength: int,
            dst: Span<byte>
        ) : int =
        let l4Offset = if isV4 then Ipv4.MinHeaderLength else Ipv6.HeaderLength
        let l4Length = masked.Length - l4Offset + payloadLength
        let header = dst.Slice(VirtioNetHeader.Size, masked.Length)
        masked.CopyTo header

        let pseudoHeader =
            if isV4 then
                put16 (header, Ipv4.TotalLengthAt, uint16 (l4Offset + l4Length))
                put16 (header, Ipv4.IdentificationAt, identification)
                let network: ReadOnlySpan<byte> = header.Slice(0, l4Offset)
                put16 (header, Ipv4.ChecksumAt, Checksum.complement (Checksum.sum network))

                Checksum.pseudoHeaderV4 (
                    read32 (header, Ipv4.SourceAt),
                    read32 (header, Ipv4.DestinationAt),
                    header[9],
                    l4Length
                )
            else
                put16 (header, Ipv6.PayloadLengthAt, uint16 l4Length)
                Checksum.pseudoHeaderV6 (header.Slice(8, 32), header[6], l4Length)

        let transport = header.Slice l4Offset

        if isTcp then
            put32 (transport, Tcp.SequenceAt, sequence)
            transport[FlagsAt] <- transport[FlagsAt] ||| flags
            put16 (transport, Tcp.ChecksumAt, pseudoHeader)
        else
            put16 (transport, Udp.LengthAt, uint16 l4Length)
            put16 (transport, Udp.ChecksumAt, pseudoHeader)

        let vnet: VirtioNetHeader =
            { Flags = VirtioNetHeader.NeedsCsum
              GsoType =
                if not isTcp then VirtioNetHeader.GsoUdpL4
                elif isV4 then VirtioNetHeader.GsoTcpV4
                else VirtioNetHeader.GsoTcpV6
              HdrLen = uint16 masked.Length
              GsoSize = uint16 gsoSize
              CsumStart = uint16 l4Offset
              CsumOffset = uint16 (if isTcp then Tcp.ChecksumAt else Udp.ChecksumAt) }

        VirtioNetHeader.write (&vnet, dst)
        VirtioNetHeader.Size + masked.Length

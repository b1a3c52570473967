namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System

/// Cuts a planned superpacket into IP packets in place: the header of segment i is written over the bytes just before
/// payload i, which belonged to segment i - 1. The result equals the kernel's own software GSO byte for byte.
///
/// The checksum field must hold the pseudo-header's partial sum, as NEEDS_CSUM promises; it is used, not recomputed, so
/// that a wrong one gives wrong checksums, and not valid ones over corrupt packets.
[<RequireQualifiedAccess>]
module Segment =
    /// Bytes of the template that the caller keeps for `prepare` and `write`.
    [<Literal>]
    let MaxHeaderLength = Superpacket.MaxHeaderLength

    /// Once per superpacket: copies its header to `template`, clears the fields that `write` fills in, and adds the
    /// sums of the rest to `plan`. Precondition: `plan` was made for `packet`; `template` has MaxHeaderLength bytes.
    let prepare (plan: byref<SuperpacketPlan>, packet: ReadOnlySpan<byte>, template: Span<byte>) : unit =
        let header = template.Slice(0, plan.HeaderLength)
        packet.Slice(0, plan.HeaderLength).CopyTo header
        let transport = header.Slice plan.L4Offset
        let checksumAt = if plan.IsTcp then Tcp.ChecksumAt else Udp.ChecksumAt
        let partial = read16 (transport, checksumAt)
        let mutable identification = 0us
        let mutable sequence = 0u
        let mutable offsetAndFlags = 0us

        if plan.IsV4 then
            identification <- Ipv4.identification header
            put16 (header, Ipv4.TotalLengthAt, 0us)
            put16 (header, Ipv4.IdentificationAt, 0us)
            put16 (header, Ipv4.ChecksumAt, 0us)

        if plan.IsTcp then
            sequence <- read32 (transport, Tcp.SequenceAt)
            offsetAndFlags <- read16 (transport, Tcp.OffsetAndFlagsAt)
            put32 (transport, Tcp.SequenceAt, 0u)
            put16 (transport, Tcp.OffsetAndFlagsAt, 0us)
        else
            put16 (transport, Udp.LengthAt, 0us)

        put16 (transport, checksumAt, 0us)
        // The partial sum covers the length of the whole superpacket: its complement takes that out (RFC 1624 §3).
        let oldLength = uint16 (plan.PacketLength - plan.L4Offset)
        let pseudoHeader = Checksum.updatePartial (partial, oldLength, 0us)

        plan <-
            { plan with
                NetworkSum = Checksum.sum (header.Slice(0, plan.L4Offset))
                TransportSum = Checksum.add (pseudoHeader, Checksum.sum transport)
                Identification = identification
                Sequence = sequence
                OffsetAndFlags = offsetAndFlags }

    /// Bytes of segment `index`, header and payload, which starts at `index * gsoSize` of the superpacket.
    [<ReflectedDefinition>]
    let internal lengthOf (headerLength: int, gsoSize: int, packetLength: int, index: int) : int =
        min (headerLength + gsoSize) (packetLength - index * gsoSize)

    /// IPv4 identification of segment `index`: they count up, with DF set or clear alike, as the kernel does.
    [<ReflectedDefinition>]
    let internal identificationOf (first: uint16, index: int) : uint16 = first + uint16 index

    /// TCP sequence number of segment `index`, modulo 2^32 (RFC 9293 §3.4).
    [<ReflectedDefinition>]
    let internal sequenceOf (first: uint32, index: int, gsoSize: int) : uint32 = first + uint32 index * uint32 gsoSize

    /// TCP flags of segment `index` of `count`: CWR belongs to the first (RFC 3168 §6.1.2), PSH and FIN to the last, all
    /// others to each.
    [<ReflectedDefinition>]
    let internal flagsOf (offsetAndFlags: uint16, index: int, count: int) : uint16 =
        let kept = if index = 0 then 0xFFFFus else ~~~Tcp.Cwr

        let closing =
            if index = count - 1 then
                0xFFFFus
            else
                ~~~(Tcp.Fin ||| Tcp.Psh)

        offsetAndFlags &&& kept &&& closing

    /// Checksum field of the IPv4 header of a segment. `networkSum` covers all other fields.
    [<ReflectedDefinition>]
    let internal networkChecksum (networkSum: uint16, totalLength: uint16, identification: uint16) : uint16 =
        Checksum.complement (Checksum.fold (uint64 networkSum + uint64 totalLength + uint64 identification))

    /// Checksum field of a TCP segment. `transportSum` covers the other fields and the pseudo-header without its length.
    [<ReflectedDefinition>]
    let internal tcpChecksum
        (transportSum: uint16, length: uint16, payload: uint16, sequence: uint32, flags: uint16)
        : uint16 =
        Checksum.complement (
            Checksum.fold (uint64 transportSum + uint64 length + uint64 payload + uint64 sequence + uint64 flags)
        )

    /// Checksum field of a UDP datagram, whose length counts twice: in the pseudo-header and in its own header.
    [<ReflectedDefinition>]
    let internal udpChecksum (transportSum: uint16, length: uint16, payload: uint16) : uint16 =
        Checksum.udpField (
            Checksum.complement (Checksum.fold (uint64 transportSum + uint64 length + uint64 payload + uint64 length))
        )

    let inline private writeNetwork (plan: inref<SuperpacketPlan>, index: int, segment: Span<byte>) =
        if plan.IsV4 then
            let totalLength = uint16 segment.Length
            let identification = identificationOf (plan.Identification, index)
            put16 (segment, Ipv4.TotalLengthAt, totalLength)
            put16 (segment, Ipv4.IdentificationAt, identification)
            put16 (segment, Ipv4.ChecksumAt, networkChecksum (plan.NetworkSum, totalLength, identification))
        else
            put16 (segment, Ipv6.PayloadLengthAt, uint16 (segment.Length - Ipv6.HeaderLength))

    let inline private writeTransport
        (plan: inref<SuperpacketPlan>, index: int, transport: Span<byte>, payload: uint16)
        =
        let length = uint16 transport.Length // RFC 768, RFC 9293 §3.1: 16 bits in the pseudo-header of both

        if plan.IsTcp then
            let sequence = sequenceOf (plan.Sequence, index, plan.GsoSize)
            let flags = flagsOf (plan.OffsetAndFlags, index, plan.SegmentCount)
            put32 (transport, Tcp.SequenceAt, sequence)
            put16 (transport, Tcp.OffsetAndFlagsAt, flags)
            let checksum = tcpChecksum (plan.TransportSum, length, payload, sequence, flags)
            put16 (transport, Tcp.ChecksumAt, checksum)
        else
            put16 (transport, Udp.LengthAt, length)
            put16 (transport, Udp.ChecksumAt, udpChecksum (plan.TransportSum, length, payload))

    /// Writes the header of segment `index` at `index * GsoSize` of `packet` and returns the segment's length there.
    /// Segments are written in the order 0, 1, 2, … and each is consumed before the next is written. Returns 0 and
    /// writes nothing for an index that the plan does not have. Precondition: `plan` and `template` come from `prepare`
    /// with this packet.
    let write (plan: inref<SuperpacketPlan>, template: ReadOnlySpan<byte>, index: int, packet: Span<byte>) : int =
        if uint32 index >= uint32 plan.SegmentCount then
            0
        else
            let start = index * plan.GsoSize
            let length = lengthOf (plan.HeaderLength, plan.GsoSize, plan.PacketLength, index)
            let segment = packet.Slice(start, length)
            let payload = Checksum.sum (segment.Slice plan.HeaderLength)
            template.Slice(0, plan.HeaderLength).CopyTo segment
            writeNetwork (&plan, index, segment)
            writeTransport (&plan, index, segment.Slice plan.L4Offset, payload)
            length

    /// Bytes of `packet` that its IP header claims, or all of them if it claims more or is not an IP header.
    let private claimedLength (packet: ReadOnlySpan<byte>) : int =
        let claimed =
            if Ipv4.isWellFormed packet then
                Ipv4.totalLength packet
            elif packet.Length >= Ipv6.HeaderLength && packet[0] >>> 4 = 6uy then
                Ipv6.totalLength packet
            else
                packet.Length

        min claimed packet.Length

    /// Completes the transport checksum of a packet that is not a superpacket, if `vnet` says NEEDS_CSUM: the
    /// complement of the sum from csum_start to the packet's end, where the field itself holds the seed. UDP sends zero
    /// as 0xFFFF (RFC 768); TCP keeps a zero. False, and nothing touched, if csum_start and csum_offset point beyond
    /// the packet.
    let completeChecksum (vnet: inref<VirtioNetHeader>, packet: Span<byte>) : bool =
        if not vnet.NeedsChecksum then
            true
        else
            let length = claimedLength packet
            let start = int vnet.CsumStart
            let at = start + int vnet.CsumOffset

            if at + 2 > length then
                false
            else
                let covered = packet.Slice(start, length - start)
                let checksum = Checksum.complement (Checksum.sum covered)
                let isUdp = int vnet.CsumOffset = Udp.ChecksumAt
                put16 (packet, at, (if isUdp then Checksum.udpField checksum else checksum))
                true

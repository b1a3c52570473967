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

    /// TCP flags of one segment: CWR belongs to the first (RFC 3168 §6.1.2), PSH and FIN to the last, all others to
    /// each.
    let inline private offsetAndFlags (plan: inref<SuperpacketPlan>, index: int) : uint16 =
        let kept = if index = 0 then 0xFFFFus else ~~~Tcp.Cwr

        let closing =
            if index = plan.SegmentCount - 1 then
                0xFFFFus
            else
                ~~~(Tcp.Fin ||| Tcp.Psh)

        plan.OffsetAndFlags &&& kept &&& closing

    let inline private writeNetwork (plan: inref<SuperpacketPlan>, index: int, segment: Span<byte>) =
        if plan.IsV4 then
            let totalLength = uint16 segment.Length
            let identification = plan.Identification + uint16 index // with DF set or clear alike, as the kernel does

            let sum =
                Checksum.fold (uint64 plan.NetworkSum + uint64 totalLength + uint64 identification)

            put16 (segment, Ipv4.TotalLengthAt, totalLength)
            put16 (segment, Ipv4.IdentificationAt, identification)
            put16 (segment, Ipv4.ChecksumAt, Checksum.complement sum)
        else
            put16 (segment, Ipv6.PayloadLengthAt, uint16 (segment.Length - Ipv6.HeaderLength))

    let inline private writeTransport
        (plan: inref<SuperpacketPlan>, index: int, transport: Span<byte>, payload: uint16)
        =
        let length = uint16 transport.Length // RFC 768, RFC 9293 §3.1: 16 bits in the pseudo-header of both
        let sum = uint64 plan.TransportSum + uint64 length + uint64 payload

        if plan.IsTcp then
            let sequence = plan.Sequence + uint32 index * uint32 plan.GsoSize // modulo 2^32, RFC 9293 §3.4
            let flags = offsetAndFlags (&plan, index)
            put32 (transport, Tcp.SequenceAt, sequence)
            put16 (transport, Tcp.OffsetAndFlagsAt, flags)

            let checksum =
                Checksum.complement (Checksum.fold (sum + uint64 sequence + uint64 flags))

            put16 (transport, Tcp.ChecksumAt, checksum)
        else
            put16 (transport, Udp.LengthAt, length)
            let checksum = Checksum.complement (Checksum.fold (sum + uint64 length))
            put16 (transport, Udp.ChecksumAt, Checksum.udpField checksum)

    /// Writes the header of segment `index` at `index * GsoSize` of `packet` and returns the segment's length there.
    /// Segments are written in the order 0, 1, 2, … and each is consumed before the next is written. Returns 0 and
    /// writes nothing for an index that the plan does not have. Precondition: `plan` and `template` come from `prepare`
    /// with this packet.
    let write (plan: inref<SuperpacketPlan>, template: ReadOnlySpan<byte>, index: int, packet: Span<byte>) : int =
        if uint32 index >= uint32 plan.SegmentCount then
            0
        else
            let start = index * plan.GsoSize
            let length = min (plan.HeaderLength + plan.GsoSize) (plan.PacketLength - start)
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

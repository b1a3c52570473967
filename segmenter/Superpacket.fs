namespace Lightway.Segmenter

open System

/// Kinds of superpacket: their headers are rewritten for each segment in different ways.
type SuperpacketKind =
    | TcpV4 = 0
    | TcpV6 = 1
    | UdpV4 = 2
    | UdpV6 = 3

/// Result of `Superpacket.plan`; the fields below `Kind` are set by `Segment.prepare`. Lengths and offsets in bytes
/// from the start of the IP header; values in host order.
[<Struct>]
type SuperpacketPlan =
    {
        /// IP header, options or extension headers, and transport header.
        HeaderLength: int
        /// Start of the transport header.
        L4Offset: int
        /// Payload bytes of each segment but the last, which has 1 to GsoSize. Never 0.
        GsoSize: int
        /// At least 1.
        SegmentCount: int
        /// Bytes up to the end that the IP header claims; bytes read beyond it are not part of the packet.
        PacketLength: int
        Kind: SuperpacketKind
        /// Sum of the IPv4 header without total length, identification and checksum.
        NetworkSum: uint16
        /// Sum of the pseudo-header without length and of the transport header without the fields written per segment.
        TransportSum: uint16
        /// IPv4 identification of segment 0.
        Identification: uint16
        /// TCP sequence number of segment 0.
        Sequence: uint32
        /// The TCP word of data offset and flags.
        OffsetAndFlags: uint16
    }

    /// IPv4, with identification and header checksum.
    member this.IsV4: bool =
        this.Kind = SuperpacketKind.TcpV4 || this.Kind = SuperpacketKind.UdpV4

    member this.IsTcp: bool =
        this.Kind = SuperpacketKind.TcpV4 || this.Kind = SuperpacketKind.TcpV6

/// Parses and validates one read from a TUN device with offloads.
/// Law: for any bytes, `plan` returns a reason or a plan by which `Segment` stays within the packet; it never raises.
[<RequireQualifiedAccess>]
module Superpacket =
    /// Longest header that is segmented. IPv4 and TCP need at most 120; the rest is room for IPv6 extension headers.
    [<Literal>]
    let MaxHeaderLength = 512

    /// Segments that `payloadLength` bytes give; 0 if there is nothing to cut or no size to cut by.
    [<ReflectedDefinition>]
    let segmentCount (payloadLength: int, gsoSize: int) : int =
        if gsoSize <= 0 || payloadLength <= 0 then
            0
        else
            (payloadLength - 1) / gsoSize + 1

    let inline private planOf (headerLength, l4Offset, gsoSize, packetLength, kind) : SuperpacketPlan =
        { HeaderLength = headerLength
          L4Offset = l4Offset
          GsoSize = gsoSize
          SegmentCount = segmentCount (packetLength - headerLength, gsoSize)
          PacketLength = packetLength
          Kind = kind
          NetworkSum = 0us
          TransportSum = 0us
          Identification = 0us
          Sequence = 0u
          OffsetAndFlags = 0us }

    /// Finds the transport header: its protocol and offset, and the packet's length by its IP header.
    let private network
        (packet: ReadOnlySpan<byte>, protocol: byref<byte>, l4Offset: byref<int>, packetLength: byref<int>)
        : DropReason =
        if packet.IsEmpty then
            DropReason.Empty
        else
            match packet[0] >>> 4 with
            | 4uy ->
                if packet.Length < Ipv4.MinHeaderLength then
                    DropReason.Ipv4Header
                elif Ipv4.headerLength packet < Ipv4.MinHeaderLength then
                    DropReason.BadIpv4Ihl
                else
                    protocol <- Ipv4.protocol packet
                    l4Offset <- Ipv4.headerLength packet
                    packetLength <- Ipv4.totalLength packet

                    if l4Offset > packet.Length || l4Offset > packetLength then
                        DropReason.Ipv4Header
                    elif packetLength > packet.Length then
                        DropReason.Truncated
                    elif Ipv4.isFragment packet then
                        DropReason.Fragment
                    else
                        DropReason.None
            | 6uy ->
                if packet.Length < Ipv6.HeaderLength then
                    DropReason.Ipv6Header
                else
                    packetLength <- Ipv6.totalLength packet

                    if packetLength > packet.Length then
                        DropReason.Truncated
                    else
                        protocol <- Ipv6.skipExtensions (packet.Slice(0, packetLength), &l4Offset)

                        if l4Offset < 0 then DropReason.Ipv6Extension
                        elif protocol = IpProtocol.Fragment then DropReason.Fragment
                        else DropReason.None
            | _ -> DropReason.UnsupportedIpVersion

    /// Finds the end of the transport header at `l4Offset` of a packet cut to its IP length.
    let private transport
        (packet: ReadOnlySpan<byte>, protocol: byte, l4Offset: int, headerLength: byref<int>)
        : DropReason =
        match protocol with
        | IpProtocol.Tcp ->
            if packet.Length - l4Offset < Tcp.MinHeaderLength then
                DropReason.TcpHeader
            else
                let length = Tcp.headerLength (packet.Slice l4Offset)
                headerLength <- l4Offset + length

                if length < Tcp.MinHeaderLength then
                    DropReason.BadTcpDataOffset
                elif headerLength > packet.Length then
                    DropReason.TcpHeader
                else
                    DropReason.None
        | IpProtocol.Udp ->
            headerLength <- l4Offset + Udp.HeaderLength

            if headerLength > packet.Length then
                DropReason.UdpHeader
            else
                DropReason.None
        | _ -> DropReason.UnsupportedTransport

    /// The segmentation that belongs to a gso_type without ECN bit, if it goes with the IP version and protocol.
    let private kindOf (gsoType: byte, isV4: bool, protocol: byte, kind: byref<SuperpacketKind>) : DropReason =
        kind <-
            if isV4 then
                if protocol = IpProtocol.Tcp then
                    SuperpacketKind.TcpV4
                else
                    SuperpacketKind.UdpV4
            elif protocol = IpProtocol.Tcp then
                SuperpacketKind.TcpV6
            else
                SuperpacketKind.UdpV6

        let expected =
            match kind with
            | SuperpacketKind.TcpV4 -> VirtioNetHeader.GsoTcpV4
            | SuperpacketKind.TcpV6 -> VirtioNetHeader.GsoTcpV6
            | _ -> VirtioNetHeader.GsoUdpL4

        match gsoType with
        | VirtioNetHeader.GsoNone -> DropReason.NotSuperpacket
        | VirtioNetHeader.GsoUdpFragments -> DropReason.LegacyUfo
        | VirtioNetHeader.GsoTcpV4
        | VirtioNetHeader.GsoTcpV6
        | VirtioNetHeader.GsoUdpL4 ->
            if gsoType = expected then
                DropReason.None
            else
                DropReason.GsoTypeMismatch
        | _ -> DropReason.UnknownGsoType

    /// Checks the metadata against the packet itself. hdr_len is ignored: the kernel sets it to the
    /// length of the linear part of forwarded packets.
    let private metadata
        (vnet: inref<VirtioNetHeader>, isTcp: bool, l4Offset: int, headerLength: int, mtu: int)
        : DropReason =
        let checksumAt = if isTcp then Tcp.ChecksumAt else Udp.ChecksumAt

        if not vnet.NeedsChecksum then
            DropReason.ChecksumNotPartial
        elif int vnet.CsumStart <> l4Offset then
            DropReason.BadCsumStart
        elif int vnet.CsumOffset <> checksumAt then
            DropReason.BadCsumOffset
        elif headerLength > MaxHeaderLength then
            DropReason.HeaderTooLong
        elif vnet.GsoSize = 0us then
            DropReason.ZeroGsoSize
        elif headerLength + int vnet.GsoSize > mtu then
            DropReason.OversizedSegment
        else
            DropReason.None

    /// Plans the segmentation of `packet`, an IP packet without its virtio_net_hdr `vnet`, for a path that carries IP
    /// packets of `mtu` bytes. Sets `plan` and returns None, or returns the reason and leaves `plan` unchanged. Any
    /// number of segments is planned. Bytes beyond the IP length field are ignored; the UDP length field is too, as it
    /// follows from the IP length.
    let plan
        (vnet: inref<VirtioNetHeader>, packet: ReadOnlySpan<byte>, mtu: int, plan: byref<SuperpacketPlan>)
        : DropReason =
        let mutable protocol = 0uy
        let mutable l4Offset = 0
        let mutable packetLength = 0
        let mutable headerLength = 0
        let mutable kind = SuperpacketKind.TcpV4
        let mutable reason = network (packet, &protocol, &l4Offset, &packetLength)

        if reason = DropReason.None then
            reason <- transport (packet.Slice(0, packetLength), protocol, l4Offset, &headerLength)

        if reason = DropReason.None then
            reason <- kindOf (vnet.BaseGsoType, packet[0] >>> 4 = 4uy, protocol, &kind)

        if reason = DropReason.None then
            reason <- metadata (&vnet, (protocol = IpProtocol.Tcp), l4Offset, headerLength, mtu)

        if reason = DropReason.None then
            if packetLength = headerLength then
                reason <- DropReason.NoPayload
            else
                plan <- planOf (headerLength, l4Offset, int vnet.GsoSize, packetLength, kind)

        reason

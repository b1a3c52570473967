namespace Lightway.Segmenter

/// Reason for dropping a superpacket, or the read that should have held one: one case per drop counter.
type DropReason =
    | None = 0
    /// The read held no complete virtio_net_hdr and packet.
    | ShortRead = 1
    /// No bytes after the virtio_net_hdr.
    | Empty = 2
    /// Neither IPv4 nor IPv6.
    | UnsupportedIpVersion = 3
    /// The IPv4 header does not fit in the packet, or its total length ends inside it.
    | Ipv4Header = 4
    /// IHL below 5.
    | BadIpv4Ihl = 5
    /// The IPv6 header does not fit in the packet.
    | Ipv6Header = 6
    /// An IPv6 extension header does not fit in the packet.
    | Ipv6Extension = 7
    /// The IP length field claims more bytes than were read.
    | Truncated = 8
    /// An IP fragment: its transport header is not that of a whole packet.
    | Fragment = 9
    /// Neither TCP nor UDP, or behind an IPv6 extension header that is not walked.
    | UnsupportedTransport = 10
    /// The TCP header does not fit in the packet.
    | TcpHeader = 11
    /// TCP data offset below 5.
    | BadTcpDataOffset = 12
    /// The UDP header does not fit in the packet.
    | UdpHeader = 13
    /// More header bytes than Segment.MaxHeaderLength.
    | HeaderTooLong = 14
    /// gso_type NONE: not a superpacket; a caller's mistake.
    | NotSuperpacket = 15
    /// VIRTIO_NET_HDR_GSO_UDP, IP fragmentation offload, which is never offered.
    | LegacyUfo = 16
    /// A gso_type that this library does not know.
    | UnknownGsoType = 17
    /// gso_type, IP version and protocol do not belong together.
    | GsoTypeMismatch = 18
    /// No NEEDS_CSUM: the virtio specification requires it with any gso_type (1.2, §5.1.6.4.1).
    | ChecksumNotPartial = 19
    /// csum_start is not where the transport header was found.
    | BadCsumStart = 20
    /// csum_offset is not the place of the protocol's checksum.
    | BadCsumOffset = 21
    /// gso_size 0.
    | ZeroGsoSize = 22
    /// Headers and gso_size together exceed the MTU.
    | OversizedSegment = 23
    /// Headers only: nothing to segment.
    | NoPayload = 24

[<RequireQualifiedAccess>]
module DropReason =
    /// Number of values, `None` included: they are 0 to count - 1, so arrays can be indexed by reason.
    [<Literal>]
    let count = 25

    /// Name of the reason's counter with its label, "" for `None` and for undefined numbers. Counters that the
    /// reference server has too carry its names.
    let counterName (reason: DropReason) : string =
        match reason with
        | DropReason.ShortRead -> "tun_recv_gso_short_read"
        | DropReason.Empty -> "gso_dropped_invalid_hdr_len{reason=\"empty\"}"
        | DropReason.UnsupportedIpVersion -> "gso_dropped_invalid_hdr_len{reason=\"unsupported_ip_version\"}"
        | DropReason.Ipv4Header -> "gso_dropped_invalid_hdr_len{reason=\"ipv4_hdr\"}"
        | DropReason.BadIpv4Ihl -> "gso_dropped_invalid_hdr_len{reason=\"bad_ipv4_ihl\"}"
        | DropReason.Ipv6Header -> "gso_dropped_invalid_hdr_len{reason=\"ipv6_hdr\"}"
        | DropReason.Ipv6Extension -> "gso_dropped_invalid_hdr_len{reason=\"ipv6_extension\"}"
        | DropReason.Truncated -> "gso_dropped_invalid_hdr_len{reason=\"truncated\"}"
        | DropReason.Fragment -> "gso_dropped_invalid_hdr_len{reason=\"fragment\"}"
        | DropReason.UnsupportedTransport -> "gso_dropped_invalid_hdr_len{reason=\"unsupported_l4_proto\"}"
        | DropReason.TcpHeader -> "gso_dropped_invalid_hdr_len{reason=\"tcp_hdr\"}"
        | DropReason.BadTcpDataOffset -> "gso_dropped_invalid_hdr_len{reason=\"bad_tcp_data_offset\"}"
        | DropReason.UdpHeader -> "gso_dropped_invalid_hdr_len{reason=\"udp_hdr\"}"
        | DropReason.HeaderTooLong -> "gso_dropped_invalid_hdr_len{reason=\"too_long\"}"
        | DropReason.NotSuperpacket -> "gso_dropped_invalid_vnet_hdr{reason=\"not_superpacket\"}"
        | DropReason.LegacyUfo -> "gso_dropped_invalid_vnet_hdr{reason=\"legacy_ufo\"}"
        | DropReason.UnknownGsoType -> "gso_dropped_invalid_vnet_hdr{reason=\"gso_type\"}"
        | DropReason.GsoTypeMismatch -> "gso_dropped_invalid_vnet_hdr{reason=\"gso_type_mismatch\"}"
        | DropReason.ChecksumNotPartial -> "gso_dropped_invalid_vnet_hdr{reason=\"not_partial\"}"
        | DropReason.BadCsumStart -> "gso_dropped_invalid_vnet_hdr{reason=\"csum_start\"}"
        | DropReason.BadCsumOffset -> "gso_dropped_invalid_vnet_hdr{reason=\"csum_offset\"}"
        | DropReason.ZeroGsoSize -> "gso_dropped_zero_gso_size"
        | DropReason.OversizedSegment -> "gso_dropped_oversized_segment"
        | DropReason.NoPayload -> "gso_dropped_no_payload"
        | _ -> ""

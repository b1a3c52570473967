namespace Lightway.Tunnel.Hooks;

/// <summary>
/// What has been read from the TUN device for one peer, with the addresses that the peer expects: an IPv4 packet, one segment
/// of a superpacket, or a whole superpacket.
/// </summary>
public readonly ref struct InsidePacket
{
    private readonly IInsideReplies _replies;

    internal InsidePacket(Span<byte> bytes, int segmentSize, IInsideReplies replies)
    {
        Bytes = bytes;
        SegmentSize = segmentSize;
        _replies = replies;
    }

    /// <summary>
    /// From the IP header on. They may be changed in place: payload at will, as long as checksums stay right. Those of a
    /// packet or segment are complete; the transport checksum field of a superpacket holds the sum of its pseudo-header
    /// (NEEDS_CSUM of linux/virtio_net.h), so its payload is not in it.
    /// </summary>
    public Span<byte> Bytes { get; }

    /// <summary>Payload bytes of each segment but the last (gso_size); 0 for a packet or segment.</summary>
    public int SegmentSize { get; }

    public bool IsSuperpacket => SegmentSize != 0;

    /// <summary>
    /// Answers the packet in the peer's stead: an IPv4 packet from an address behind the peer to the source of this one.
    /// It does not pass the plugins. To drop the packet that it answers is up to the plugin's verdict.
    /// </summary>
    public void Reply(ReadOnlySpan<byte> packet) => _replies.Reply(packet);
}

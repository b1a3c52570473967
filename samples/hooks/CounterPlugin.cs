using Lightway.Segmenter;
using Lightway.Tunnel.Hooks;

namespace Lightway.Samples.Hooks;

/// <summary>
/// Counts what passes through a connection, by direction and protocol. It looks at a superpacket once, so what it costs does
/// not grow with the segments: their number follows from the length.
/// </summary>
public sealed class CounterPlugin : IInsidePlugin
{
    /// <summary>Packets of one direction. Segments are packets; superpackets are not.</summary>
    public record struct Totals
    {
        public long Packets { get; set; }

        public long Superpackets { get; set; }

        /// <summary>With IP headers; those of superpackets once.</summary>
        public long Bytes { get; set; }

        /// <summary>Packets of TCP.</summary>
        public long Tcp { get; set; }

        /// <summary>Packets of UDP.</summary>
        public long Udp { get; set; }
    }

    private Totals _toPeer;
    private Totals _fromPeer;

    /// <summary>Read them on the worker's thread, or live with values that are a moment old.</summary>
    public Totals ToPeer => _toPeer;

    /// <inheritdoc cref="ToPeer"/>
    public Totals FromPeer => _fromPeer;

    public PluginVerdict Ingress(in InsidePacket packet)
    {
        var segments = packet.IsSuperpacket ? Segments(packet.Bytes, packet.SegmentSize) : 1;
        Count(ref _toPeer, packet.Bytes, segments);
        if (packet.IsSuperpacket)
        {
            _toPeer.Superpackets++;
        }
        return PluginVerdict.Accept;
    }

    public PluginVerdict Egress(Span<byte> packet)
    {
        Count(ref _fromPeer, packet, 1);
        return PluginVerdict.Accept;
    }

    private static void Count(ref Totals totals, ReadOnlySpan<byte> packet, int packets)
    {
        totals.Packets += packets;
        totals.Bytes += packet.Length;
        switch (Ipv4.protocol(packet))
        {
            case IpProtocol.Tcp:
                totals.Tcp += packets;
                break;
            case IpProtocol.Udp:
                totals.Udp += packets;
                break;
        }
    }

    /// <summary>Segments of a superpacket, which is TCP or UDP and has been checked.</summary>
    private static int Segments(ReadOnlySpan<byte> packet, int segmentSize)
    {
        var network = Ipv4.headerLength(packet);
        var isTcp = Ipv4.protocol(packet) == IpProtocol.Tcp;
        var transport = isTcp ? Tcp.headerLength(packet[network..]) : Udp.HeaderLength;
        return Superpacket.segmentCount(packet.Length - network - transport, segmentSize);
    }
}

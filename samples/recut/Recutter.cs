using System.Buffers.Binary;
using Lightway.Segmenter;

namespace Lightway.Samples.Recut;

/// <summary>
/// Cuts superpackets and puts segments together again, as the two directions of a tunnel do. A capture has no
/// virtio_net_hdr, so it is made here as the kernel makes it for a path of the given MTU.
/// </summary>
/// <param name="mtu">Bytes of the longest segment, with its IP header.</param>
internal sealed class Recutter(int mtu)
{
    private readonly byte[] _template = new byte[Segment.MaxHeaderLength];

    /// <summary>
    /// Adds the segments of a superpacket, or a packet that fits as it is. Returns None, or why the packet cannot be cut.
    /// </summary>
    public DropReason Cut(byte[] packet, List<byte[]> segments)
    {
        if (packet.Length <= mtu)
        {
            segments.Add(packet);
            return DropReason.None;
        }
        var work = packet.ToArray(); // segments are written in place, over the payloads that are done with
        var vnet = Offload(work);
        SuperpacketPlan plan = default;
        var reason = Superpacket.plan(vnet, work, mtu, ref plan);
        if (reason == DropReason.None)
        {
            Segment.prepare(ref plan, work, _template);
            for (var i = 0; i < plan.SegmentCount; i++)
            {
                var length = Segment.write(plan, _template, i, work);
                segments.Add(work.AsSpan(i * plan.GsoSize, length).ToArray());
            }
        }
        return reason;
    }

    /// <summary>Superpackets for runs of segments, and all other packets as they are, in the order of the first of each.</summary>
    public static List<byte[]> Coalesce(List<byte[]> segments)
    {
        var coalescer = new Coalescer(segments.Count);
        for (var i = 0; i < segments.Count; i++)
        {
            coalescer.Add(segments[i], i);
        }
        var packets = new List<byte[]>();
        for (var number = 0; number < coalescer.Count; number++)
        {
            var run = coalescer.Run(number);
            packets.Add(run.Count == 1 ? segments[run.First] : Join(coalescer, number, run, segments));
        }
        return packets;
    }

    private static byte[] Join(Coalescer coalescer, int number, CoalescedRun run, List<byte[]> segments)
    {
        var head = new byte[VirtioNetHeaderModule.Size + Lightway.Segmenter.Coalesce.MaxHeaderLength];
        coalescer.WriteHeader(number, head);
        var packet = new byte[run.PacketLength];
        head.AsSpan(VirtioNetHeaderModule.Size, run.HeaderLength).CopyTo(packet);
        var at = run.HeaderLength;
        for (var index = run.First; index >= 0; index = coalescer.Next(index))
        {
            var payload = segments[index].AsSpan(run.HeaderLength);
            payload.CopyTo(packet.AsSpan(at));
            at += payload.Length;
        }
        VirtioNetHeader vnet = default;
        if (VirtioNetHeaderModule.tryParse(head, ref vnet)) // always: it has just been written
        {
            Segment.completeChecksum(vnet, packet); // on a device the kernel does this
        }
        return packet;
    }

    /// <summary>
    /// What the kernel says about a superpacket of this path, whose checksum field gets the sum of the pseudo-header. The
    /// default for bytes that are neither TCP nor UDP, which <see cref="Superpacket.plan"/> refuses with the reason.
    /// </summary>
    private VirtioNetHeader Offload(Span<byte> packet)
    {
        var isV4 = Ipv4.isWellFormed(packet);
        if (!isV4 && (packet.Length < Ipv6.HeaderLength || packet[0] >> 4 != 6))
        {
            return default;
        }
        var l4 = Ipv4.MinHeaderLength;
        byte protocol;
        if (isV4)
        {
            l4 = Ipv4.headerLength(packet);
            protocol = Ipv4.protocol(packet);
        }
        else
        {
            protocol = Ipv6.skipExtensions(packet, ref l4);
        }
        var isTcp = protocol == IpProtocol.Tcp;
        if (!isTcp && protocol != IpProtocol.Udp || l4 < 0 || packet.Length < l4 + Tcp.MinHeaderLength)
        {
            return default;
        }
        var length = packet.Length - l4;
        var pseudoHeader = isV4
            ? Checksum.pseudoHeaderV4(
                BinaryPrimitives.ReadUInt32BigEndian(packet[Ipv4.SourceAt..]),
                BinaryPrimitives.ReadUInt32BigEndian(packet[Ipv4.DestinationAt..]),
                protocol,
                length
            )
            : Checksum.pseudoHeaderV6(packet.Slice(8, 32), protocol, length);
        var checksumAt = isTcp ? Tcp.ChecksumAt : Udp.ChecksumAt;
        BinaryPrimitives.WriteUInt16BigEndian(packet[(l4 + checksumAt)..], pseudoHeader);
        var header = l4 + (isTcp ? Tcp.headerLength(packet[l4..]) : Udp.HeaderLength);
        return new VirtioNetHeader(
            VirtioNetHeaderModule.NeedsCsum,
            !isTcp ? VirtioNetHeaderModule.GsoUdpL4
                : isV4 ? VirtioNetHeaderModule.GsoTcpV4
                : VirtioNetHeaderModule.GsoTcpV6,
            (ushort)header,
            (ushort)Math.Max(0, mtu - header),
            (ushort)l4,
            (ushort)checksumAt
        );
    }
}

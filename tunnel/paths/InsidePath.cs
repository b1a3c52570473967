using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tun;

namespace Lightway.Tunnel.Paths;

/// <summary>Finds whose packet came from the TUN, and translates its addresses.</summary>
public interface IInsideRouter
{
    /// <param name="packet">An IP packet of any kind; rewritten in place.</param>
    /// <param name="isPartial">Its transport checksum field holds an uncomplemented partial sum (NEEDS_CSUM).</param>
    /// <returns>The connection, or null: dropped and counted.</returns>
    Connection? Route(Span<byte> packet, bool isPartial);

    /// <summary>The other worker that must send this packet; null: this one, or nobody.</summary>
    WorkerContext? OtherHomeOf(ReadOnlySpan<byte> packet) => null;
}

/// <summary>Where inside packets come from: the TUN, or a benchmark.</summary>
public interface IInsideSource
{
    /// <summary>Frames start with a virtio_net_hdr (10 bytes).</summary>
    bool HasVnetHeader { get; }

    /// <summary>Reads one frame. Returns its bytes, or -errno (EAGAIN: none waits).</summary>
    int Read(Span<byte> buffer);
}

/// <summary>
/// TUN to outside: reads a superpacket, cuts it in place and seals each segment straight into the batch. Segment i's
/// header is stamped over the bytes just before its payload, which belonged to segment i-1, already sealed; the payload
/// is never copied. One thread.
/// </summary>
public sealed class InsidePath : IDisposable
{
    private const int PacketAt = 64; // bytes before the packet: virtio_net_hdr, Data frame header
    private const int ReadBudget = 64; // frames a wake-up, so that the outside is not starved

    private readonly IInsideSource _source;
    private readonly WorkerContext _worker;
    private readonly IInsideRouter _router;
    private readonly Slab _buffer = new(PacketAt + 65536);
    private readonly Slab _template = new(Segment.MaxHeaderLength);
    private readonly int _frameAt;
    private readonly Counter _reads;
    private SuperpacketPlan _plan;
    private Connection? _connection; // whose packet is being sent; null when none is
    private int _next; // first segment not yet sealed
    private int _count; // segments of the packet; 1 for a single
    private int _length; // bytes of a single
    private bool _segmented;

    /// <param name="mtu">Bytes; see <see cref="Mtu"/>.</param>
    public InsidePath(IInsideSource source, WorkerContext worker, IInsideRouter router, int mtu)
    {
        (_source, _worker, _router, Mtu) = (source, worker, router, mtu);
        _reads = source is Mailbox ? Counter.MailboxReads : Counter.TunReads;
        _frameAt = PacketAt - (source.HasVnetHeader ? VirtioNetHeaderModule.Size : 0);
    }

    /// <summary>Bytes of the largest inside packet or segment.</summary>
    public int Mtu { get; set; }

    /// <summary>A packet waits for the socket.</summary>
    public bool IsPending => _connection is not null;

    /// <summary>Reads and sends until the TUN is empty, the budget is spent or the socket is full.</summary>
    /// <returns>False: the socket is full. Call again when it is writable; nothing was lost.</returns>
    public bool Drain(long now)
    {
        if (!_worker.ToOutside.Flush() || !SendRest())
        {
            return false;
        }
        for (var budget = ReadBudget; budget > 0; budget--)
        {
            var length = _source.Read(_buffer.Span[_frameAt..]);
            _worker.Counters.Add(_reads);
            if (length < 0)
            {
                if (length != -Linux.EAGAIN)
                {
                    _worker.Counters.Add(Counter.TunReadFailed);
                }
                break;
            }
            if (!Process(length, now))
            {
                return false;
            }
        }
        return _worker.ToOutside.Flush();
    }

    public void Dispose()
    {
        _buffer.Dispose();
        _template.Dispose();
    }

    /// <summary>Handles the frame of <paramref name="length"/> bytes that was read. False: the socket is full.</summary>
    private bool Process(int length, long now)
    {
        VirtioNetHeader vnet = default;
        if (_source.HasVnetHeader)
        {
            if (
                !VirtioNetHeaderModule.tryParse(_buffer.Slice(_frameAt, length), ref vnet)
                || length == VirtioNetHeaderModule.Size
            )
            {
                _worker.Counters.Add(DropReason.ShortRead);
                return true;
            }
            length -= VirtioNetHeaderModule.Size;
        }
        var packet = _buffer.Slice(PacketAt, length);
        if (_router.OtherHomeOf(packet) is { } other)
        {
            var isTaken = other.Mailbox.TryPost(_buffer.Slice(_frameAt, PacketAt - _frameAt + length));
            _worker.Counters.Add(isTaken ? Counter.TunForwarded : Counter.TunForwardDropped);
            return true;
        }
        _worker.Counters.Add(Counter.TunPacketsRead);
        _worker.Counters.Add(Counter.TunReadBytes, length);
        var superpacket = vnet.BaseGsoType != VirtioNetHeaderModule.GsoNone;
        return superpacket ? ProcessSuperpacket(vnet, packet, now) : ProcessSingle(vnet, packet, now);
    }

    private bool ProcessSingle(in VirtioNetHeader vnet, Span<byte> packet, long now)
    {
        if (!Segment.completeChecksum(vnet, packet))
        {
            _worker.Counters.Add(Counter.GsoNoneChecksumSkipped);
        }
        if (packet.Length > Mtu)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketTooBig);
            return true;
        }
        return Send(_router.Route(packet, isPartial: false), segmented: false, 1, packet.Length, now);
    }

    private bool ProcessSuperpacket(in VirtioNetHeader vnet, Span<byte> packet, long now)
    {
        _worker.Counters.Add(Counter.SuperpacketsRead);
        var reason = Superpacket.plan(vnet, packet, Mtu, ref _plan);
        if (reason != DropReason.None)
        {
            _worker.Counters.Add(reason);
            return true;
        }
        var connection = _router.Route(packet, isPartial: true);
        if (connection is not null)
        {
            Segment.prepare(ref _plan, packet, _template.Span); // after the rewrite: its sums hold the new addresses
        }
        return Send(connection, segmented: true, _plan.SegmentCount, packet.Length, now);
    }

    private bool Send(Connection? connection, bool segmented, int count, int length, long now)
    {
        if (connection is not null && connection.Home != _worker)
        {
            // Another worker has handed the address out since the packet's home was looked up: not ours to touch.
            _worker.Counters.Add(Counter.TunRejectedPacketNoConnection);
            connection = null;
        }
        connection?.BeginInside(now);
        (_connection, _segmented, _count, _length, _next) = (connection, segmented, count, length, 0);
        return SendRest();
    }

    /// <summary>Seals what is left of the packet at hand.</summary>
    private bool SendRest()
    {
        if (_connection is null)
        {
            return true;
        }
        var buffer = _buffer.Span;
        for (; _next < _count; _next++)
        {
            if (_connection.TrySend(buffer, PacketAt + SegmentAt(), Stamp()) == SendResult.Blocked)
            {
                return false;
            }
        }
        if (_segmented)
        {
            _worker.Counters.Add(Counter.SegmentsBuilt, _count);
        }
        _connection = null;
        return true;
    }

    private int SegmentAt() => _segmented ? _next * _plan.GsoSize : 0;

    /// <summary>Writes the header of the next segment; writing it again after a full socket changes nothing.</summary>
    private int Stamp() =>
        _segmented ? Segment.write(_plan, _template.Span, _next, _buffer.Slice(PacketAt, _plan.PacketLength)) : _length;
}

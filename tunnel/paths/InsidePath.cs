using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tun;

namespace Lightway.Tunnel.Paths;

/// <summary>
/// TUN to outside: reads a superpacket, cuts it in place and encrypts each segment straight into the batch. The header of
/// segment i is written over the bytes just before its payload, which belonged to segment i-1, already encrypted; the
/// payload is never copied. One thread.
/// </summary>
public sealed class InsidePath : IDisposable
{
    private const int PacketAt = 64; // bytes before the packet: virtio_net_hdr, Data frame header
    private const int ReadBudget = 64; // frames per wake-up, so that the outside is not starved

    private readonly ITunReader _tun;
    private readonly WorkerContext _worker;
    private readonly IRouter _router;
    private readonly Slab _buffer = new(PacketAt + 65536);
    private readonly Slab _template = new(Segment.MaxHeaderLength);
    private readonly int _frameAt;
    private readonly ErrorReplies _errors;
    private SuperpacketPlan _plan;
    private Connection? _connection; // whose packet is being sent; null when none is
    private int _next; // first segment not yet encrypted
    private int _count; // segments of the packet; 1 for a single
    private int _length; // bytes of a single
    private bool _segmented;

    public InsidePath(ITunReader tun, WorkerContext worker, IRouter router)
    {
        _tun = tun;
        _worker = worker;
        _router = router;
        _errors = new ErrorReplies(worker);
        _frameAt = PacketAt - (tun.HasVnetHeader ? VirtioNetHeaderModule.Size : 0);
    }

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
            var length = _tun.Read(_buffer.Span[_frameAt..]);
            _worker.Counters.Add(_tun.Reads);
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
        if (_tun.HasVnetHeader)
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
        var connection = _router.Find(packet);
        if (connection is not null && connection.Home != _worker)
        {
            var isTaken = connection.Home.Mailbox.TryPost(_buffer.Slice(_frameAt, PacketAt - _frameAt + length));
            _worker.Counters.Add(isTaken ? Counter.TunForwarded : Counter.TunForwardDropped);
            return true;
        }
        _worker.Counters.Add(Counter.TunPacketsRead);
        _worker.Counters.Add(Counter.TunReadBytes, length);
        if (connection is null)
        {
            if (_router.IsReported(packet))
            {
                _errors.HostUnreachable(packet, now);
            }
            return true;
        }
        return vnet.BaseGsoType != VirtioNetHeaderModule.GsoNone
            ? ProcessSuperpacket(vnet, packet, connection, now)
            : ProcessSingle(vnet, packet, connection, now);
    }

    private bool ProcessSingle(in VirtioNetHeader vnet, Span<byte> packet, Connection connection, long now)
    {
        if (!Segment.completeChecksum(vnet, packet))
        {
            _worker.Counters.Add(Counter.GsoNoneChecksumSkipped);
        }
        var mtu = MtuTo(connection);
        if (packet.Length > mtu)
        {
            _errors.FragmentationNeeded(packet, mtu, now);
            if (packet.Length > LongestTo(connection))
            {
                _worker.Counters.Add(Counter.TunRejectedPacketTooBig);
                return true;
            }
        }
        return !connection.TryTranslate(packet, TransportChecksum.Complete)
            || connection.Hooks?.Ingress(packet, segmentSize: 0) == false
            || Send(connection, segmented: false, 1, packet.Length, now);
    }

    private bool ProcessSuperpacket(in VirtioNetHeader vnet, Span<byte> packet, Connection connection, long now)
    {
        _worker.Counters.Add(Counter.SuperpacketsRead);
        var mtu = MtuTo(connection);
        var reason = Superpacket.plan(vnet, packet, LongestTo(connection), ref _plan);
        if (
            reason == DropReason.OversizedSegment
            || (reason == DropReason.None && _plan.HeaderLength + _plan.GsoSize > mtu)
        )
        {
            _errors.FragmentationNeeded(packet, mtu, now);
        }
        if (reason != DropReason.None)
        {
            _worker.Counters.Add(reason);
            return true;
        }
        if (
            !connection.TryTranslate(packet, TransportChecksum.Partial)
            || connection.Hooks?.Ingress(packet[.._plan.PacketLength], _plan.GsoSize) == false
        )
        {
            return true;
        }
        Segment.prepare(ref _plan, packet, _template.Span); // after all changes: its sums hold the new addresses
        return Send(connection, segmented: true, _plan.SegmentCount, packet.Length, now);
    }

    /// <summary>Bytes of the longest packet or segment: what the device has, and what fits into a datagram to this peer.</summary>
    private int MtuTo(Connection connection) => Math.Min(_worker.InsideMtu, connection.InsideMtu);

    /// <summary>
    /// Bytes of the longest packet or segment that is not dropped. One that is longer than <see cref="MtuTo"/> passes in
    /// several datagrams until its sender has shortened the next ones, or for good if it does not care.
    /// </summary>
    private int LongestTo(Connection connection) => connection.SplitsPackets ? _worker.InsideMtu : MtuTo(connection);

    private bool Send(Connection connection, bool segmented, int count, int length, long now)
    {
        connection.BeginInside(now);
        _connection = connection;
        _segmented = segmented;
        _count = count;
        _length = length;
        _next = 0;
        _worker.Counters.PacketsPerRead.Observe(count);
        return SendRest();
    }

    /// <summary>Encrypts the rest of the packet that was read last. False: the socket is full.</summary>
    private bool SendRest()
    {
        if (_connection is null)
        {
            return true;
        }
        if (!(_connection.Hooks is { } hooks ? SendRest(hooks) : SendRest(_connection)))
        {
            return false;
        }
        if (_segmented)
        {
            _worker.Counters.Add(Counter.SegmentsBuilt, _count);
        }
        _connection = null;
        return true;
    }

    private bool SendRest(Connection connection) =>
        _segmented
            ? connection.TrySendSegments(_plan, _template.Span, _buffer.Span, PacketAt, ref _next)
            : connection.TrySend(_buffer.Span, PacketAt, _length) != SendResult.Blocked;

    /// <summary>As the other, segment by segment, through plugins and codec, which may keep packets back while the socket is full.</summary>
    private bool SendRest(PacketHooks hooks)
    {
        var buffer = _buffer.Span;
        for (; _next < _count; _next++)
        {
            if (hooks.TrySend(buffer, PacketAt + SegmentAt(), Stamp()) == SendResult.Blocked)
            {
                return false;
            }
        }
        return hooks.TryFinish();
    }

    private int SegmentAt() => _segmented ? _next * _plan.GsoSize : 0;

    /// <summary>Writes the header of the next segment; writing it again after a full socket changes nothing.</summary>
    private int Stamp() =>
        _segmented ? Segment.write(_plan, _template.Span, _next, _buffer.Slice(PacketAt, _plan.PacketLength)) : _length;
}

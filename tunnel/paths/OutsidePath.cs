using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Paths;

/// <summary>
/// Outside to TUN: receives runs of datagrams (UDP_GRO), cuts them, hands each datagram to its connection, and writes the
/// resulting packets before the next receive, so that no packet waits for another. One thread.
/// </summary>
public sealed class OutsidePath : IDisposable
{
    private const int ReceiveBudget = 4; // receives per wake-up, so that the inside is not starved
    private const int MaxDatagram = 2048; // bytes; the longest of the protocol has 1553
    private readonly WorkerContext _worker;
    private readonly IRouter _router;
    private readonly Func<ReceiveBatch, int> _receive;
    private readonly Func<GateDrops> _droppedByGate;
    private readonly ReceiveBatch _batch;
    private uint _overflows; // counted
    private uint _drops; // as the kernel counts them
    private GateDrops _dropped; // counted

    public OutsidePath(UdpSocket socket, WorkerContext worker, IRouter router)
        : this(socket.Receive, () => socket.DroppedByGate, socket.IsCoalescing, worker, router) { }

    /// <param name="receive">As <see cref="UdpSocket.Receive"/>.</param>
    /// <param name="droppedByGate">As <see cref="UdpSocket.DroppedByGate"/>.</param>
    /// <param name="coalesced">A buffer may hold a run of datagrams.</param>
    internal OutsidePath(
        Func<ReceiveBatch, int> receive,
        Func<GateDrops> droppedByGate,
        bool coalesced,
        WorkerContext worker,
        IRouter router
    )
    {
        _receive = receive;
        _droppedByGate = droppedByGate;
        _batch = new ReceiveBatch(coalesced);
        _worker = worker;
        _router = router;
    }

    /// <summary>Receives until the socket is empty or the budget is spent.</summary>
    public void Drain(long now)
    {
        _worker.Shares.Begin(now);
        for (var budget = ReceiveBudget; budget > 0; budget--)
        {
            var count = _receive(_batch);
            _worker.Counters.Add(Counter.UdpReceives);
            if (count < _batch.Capacity)
            {
                _worker.Shares.Emptied();
            }
            if (count < 0)
            {
                if (count != -Linux.EAGAIN)
                {
                    _worker.Counters.Add(Counter.UdpRecvFailed); // an ICMP error for an earlier send, usually
                }
                return;
            }
            for (var i = 0; i < count; i++)
            {
                Handle(i, now);
            }
            _worker.OutsideEcn = EcnCodepoint.NotEct;
            _worker.ToInside.Flush();
            if (count < _batch.Capacity)
            {
                return; // drained: another call would only say EAGAIN
            }
        }
    }

    /// <summary>Counts what the gate has dropped. Call about once per second.</summary>
    public void Tick()
    {
        var dropped = _droppedByGate();
        _worker.Counters.Add(Counter.UdpGateNoise, dropped.Noise - _dropped.Noise);
        _worker.Counters.Add(Counter.UdpGateOverLimit, dropped.OverLimit - _dropped.OverLimit);
        _dropped = dropped;
    }

    public void Dispose() => _batch.Dispose();

    private void Handle(int i, long now)
    {
        var bytes = _batch.Bytes(i);
        var control = _batch.ReadControl(i);
        CountOverflows(control.Overflows);
        if (_batch.IsTruncated(i))
        {
            _worker.Counters.Add(Counter.UdpRecvTruncated);
            return;
        }
        _worker.OutsideEcn = Ecn.ofTos(control.Tos);
        var from = new OutsideAddress(_batch.Peer(i), control.Local);
        var size = control.SegmentSize;
        if (size <= 0 || size >= bytes.Length)
        {
            size = bytes.Length;
        }
        else
        {
            _worker.Counters.Add(Counter.UdpGroReceives);
            _worker.Counters.Add(Counter.UdpGroSegments, (bytes.Length + size - 1) / size);
        }
        if (_worker.OutsidePlugins is { } plugins)
        {
            HandleAccepted(plugins, bytes, size, from, now);
            return;
        }
        for (; bytes.Length > size; bytes = bytes[size..])
        {
            HandleDatagram(bytes[..size], from, now);
        }
        HandleDatagram(bytes, from, now);
    }

    /// <summary>Handles those datagrams of a run that the plugins have nothing against.</summary>
    private void HandleAccepted(OutsidePlugins plugins, Span<byte> bytes, int size, in OutsideAddress from, long now)
    {
        do
        {
            var datagram = bytes[..Math.Min(size, bytes.Length)];
            if (plugins.Ingress(datagram))
            {
                HandleDatagram(datagram, from, now);
            }
            bytes = bytes[datagram.Length..];
        } while (!bytes.IsEmpty);
    }

    /// <param name="drops">As the kernel counts them: those of the gate are among them.</param>
    private void CountOverflows(uint drops)
    {
        if (drops == _drops)
        {
            return;
        }
        _drops = drops;
        // The gate may have dropped more by now: what is missing then is counted later.
        var overflows = drops - (uint)_droppedByGate().Buffers;
        if ((int)(overflows - _overflows) > 0)
        {
            _worker.Counters.Add(Counter.UdpReceiveOverflows, overflows - _overflows); // modulo 2^32
            _overflows = overflows;
            _worker.Shares.Overflowed();
        }
    }

    private void HandleDatagram(Span<byte> datagram, in OutsideAddress from, long now)
    {
        _worker.Counters.Add(Counter.UdpDatagramsReceived);
        _worker.Counters.Add(Counter.UdpBytesReceived, datagram.Length);
        if (datagram.Length > MaxDatagram)
        {
            _worker.Counters.Add(Counter.UdpRecvTruncated); // before anybody keeps a copy of it
            return;
        }
        WireHeader header = default;
        switch (WireHeaderModule.tryParse(datagram, ref header))
        {
            case WireError.None:
                _router.Dispatch(header, from, datagram[WireHeaderModule.Size..], now);
                break;
            case WireError.InvalidVersion:
                _worker.Counters.Add(Counter.UdpBadPacketVersion);
                break;
            default:
                _worker.Counters.Add(Counter.UdpParseWireFailed);
                break;
        }
    }
}

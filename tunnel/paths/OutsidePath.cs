using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Paths;

/// <summary>
/// Outside to TUN: receives runs of datagrams (UDP_GRO), cuts them, hands each datagram to its connection, and writes the
/// resulting packets before the next receive, so that no packet waits for another. One thread.
/// </summary>
public sealed class OutsidePath(UdpSocket socket, WorkerContext worker, IRouter router) : IDisposable
{
    private const int ReceiveBudget = 4; // receives per wake-up, so that the inside is not starved
    private const int MaxDatagram = 2048; // bytes; the longest of the protocol has 1553
    private readonly ReceiveBatch _batch = new(socket.IsCoalescing);
    private uint _overflows; // as the kernel counts them

    /// <summary>Receives until the socket is empty or the budget is spent.</summary>
    public void Drain(long now)
    {
        worker.Shares.Begin(now);
        for (var budget = ReceiveBudget; budget > 0; budget--)
        {
            var count = socket.Receive(_batch);
            worker.Counters.Add(Counter.UdpReceives);
            if (count < _batch.Capacity)
            {
                worker.Shares.Emptied();
            }
            if (count < 0)
            {
                if (count != -Linux.EAGAIN)
                {
                    worker.Counters.Add(Counter.UdpRecvFailed); // an ICMP error for an earlier send, usually
                }
                return;
            }
            for (var i = 0; i < count; i++)
            {
                Handle(i, now);
            }
            worker.OutsideEcn = EcnCodepoint.NotEct;
            worker.ToInside.Flush();
            if (count < _batch.Capacity)
            {
                return; // drained: another call would only say EAGAIN
            }
        }
    }

    public void Dispose() => _batch.Dispose();

    private void Handle(int i, long now)
    {
        var bytes = _batch.Bytes(i);
        var control = _batch.ReadControl(i);
        CountOverflows(control.Overflows);
        if (_batch.IsTruncated(i))
        {
            worker.Counters.Add(Counter.UdpRecvTruncated);
            return;
        }
        worker.OutsideEcn = Ecn.ofTos(control.Tos);
        var from = new OutsideAddress(_batch.Peer(i), control.Local);
        var size = control.SegmentSize;
        if (size <= 0 || size >= bytes.Length)
        {
            size = bytes.Length;
        }
        else
        {
            worker.Counters.Add(Counter.UdpGroReceives);
            worker.Counters.Add(Counter.UdpGroSegments, (bytes.Length + size - 1) / size);
        }
        if (worker.OutsidePlugins is { } plugins)
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

    private void CountOverflows(uint overflows)
    {
        if ((int)(overflows - _overflows) > 0)
        {
            worker.Counters.Add(Counter.UdpReceiveOverflows, overflows - _overflows); // modulo 2^32
            _overflows = overflows;
            worker.Shares.Overflowed();
        }
    }

    private void HandleDatagram(Span<byte> datagram, in OutsideAddress from, long now)
    {
        worker.Counters.Add(Counter.UdpDatagramsReceived);
        worker.Counters.Add(Counter.UdpBytesReceived, datagram.Length);
        if (datagram.Length > MaxDatagram)
        {
            worker.Counters.Add(Counter.UdpRecvTruncated); // before anybody keeps a copy of it
            return;
        }
        WireHeader header = default;
        switch (WireHeaderModule.tryParse(datagram, ref header))
        {
            case WireError.None:
                router.Dispatch(header, from, datagram[WireHeaderModule.Size..], now);
                break;
            case WireError.InvalidVersion:
                worker.Counters.Add(Counter.UdpBadPacketVersion);
                break;
            default:
                worker.Counters.Add(Counter.UdpParseWireFailed);
                break;
        }
    }
}

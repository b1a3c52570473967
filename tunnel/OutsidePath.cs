using Lightway.Protocol;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel;

/// <summary>Finds whose datagram came in.</summary>
public interface IOutsideRouter
{
    /// <param name="header">Well-formed wire header of a known version.</param>
    /// <param name="from">The sender, and the address of ours it wrote to.</param>
    /// <param name="body">What follows the header.</param>
    void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now);
}

/// <summary>Outside to TUN: receives datagrams, hands them to their connections and writes what they yield. One thread.</summary>
public sealed class OutsidePath(UdpSocket socket, TunQueue tun, WorkerContext worker, IOutsideRouter router)
    : IDisposable
{
    private const int ReceiveBudget = 4; // batches a wake-up, so that the inside is not starved
    private readonly ReceiveBatch _batch = new();

    /// <summary>Receives until the socket is empty or the budget is spent.</summary>
    public void Drain(long now)
    {
        for (var budget = ReceiveBudget; budget > 0; budget--)
        {
            var count = socket.Receive(_batch);
            worker.Counters.Add(Counter.UdpReceives);
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
            if (count < ReceiveBatch.Capacity)
            {
                return; // drained: another call would only say EAGAIN
            }
        }
    }

    /// <summary>Writes one IP packet to the TUN, or counts why not.</summary>
    public void WriteInside(ReadOnlySpan<byte> packet)
    {
        worker.Counters.Add(Counter.TunWrites);
        if (tun.Write(packet) < 0)
        {
            worker.Counters.Add(Counter.InsideIoSendFailed);
            return;
        }
        worker.Counters.Add(Counter.TunWriteBytes, packet.Length);
        worker.Counters.Add(Counter.TunFromClient, packet.Length);
    }

    public void Dispose() => _batch.Dispose();

    private void Handle(int i, long now)
    {
        var datagram = _batch.Datagram(i);
        worker.Counters.Add(Counter.UdpDatagramsReceived);
        worker.Counters.Add(Counter.UdpBytesReceived, datagram.Length);
        if (_batch.IsTruncated(i))
        {
            worker.Counters.Add(Counter.UdpRecvTruncated);
            return;
        }
        WireHeader header = default;
        switch (WireHeaderModule.tryParse(datagram, ref header))
        {
            case WireError.None:
                router.Dispatch(
                    header,
                    new OutsideAddress(_batch.Peer(i), _batch.Local(i)),
                    datagram[WireHeaderModule.Size..],
                    now
                );
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

using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Tunnel;

/// <summary>What the connections of one worker share: its socket, its batch, its buffers, its counters. One thread.</summary>
public sealed class WorkerContext : IDisposable
{
    /// <summary>Bytes; more than any datagram or frame of the protocol needs.</summary>
    private const int ControlSize = 2048;

    /// <param name="outside">The worker's socket.</param>
    /// <param name="inside">The worker's TUN queue.</param>
    /// <param name="offload">What may be used of what socket and queue can.</param>
    /// <param name="log">Log of transitions; never written per packet.</param>
    public WorkerContext(IDatagramSender outside, IInsideSink inside, Offload offload, ILogger log)
    {
        (Outside, Log) = (outside, log);
        Batch = new SegmentBatch(outside, Counters, offload.MaxSegments);
        Inside = new InsideBatch(inside, Counters, offload.TunGroTcp, offload.TunGroUdp);
    }

    public Counters Counters { get; } = new();

    /// <summary>Sends control datagrams, each alone.</summary>
    public IDatagramSender Outside { get; }

    /// <summary>Sends what comes from inside.</summary>
    public SegmentBatch Batch { get; }

    /// <summary>Takes what comes from outside; application data of a DTLS datagram is decrypted into its tail, too.</summary>
    public InsideBatch Inside { get; }

    public RandomPool Random { get; } = new();

    public ILogger Log { get; }

    /// <summary>Control datagrams are put together here.</summary>
    internal Slab Datagram { get; } = new(ControlSize);

    /// <summary>Frames are written here before they are sealed.</summary>
    internal Slab Frame { get; } = new(ControlSize);

    /// <summary>A packet reassembled from fragments.</summary>
    internal Slab Reassembled { get; } = new(65536);

    public void Dispose()
    {
        Batch.Dispose();
        Inside.Dispose();
        Datagram.Dispose();
        Frame.Dispose();
        Reassembled.Dispose();
    }
}

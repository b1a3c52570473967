using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Tunnel;

/// <summary>What the connections of one worker share: its socket, its batch, its buffers, its counters. One thread.</summary>
public sealed class WorkerContext : IDisposable
{
    /// <summary>Bytes; more than any datagram or frame of the protocol needs.</summary>
    private const int ControlSize = 2048;

    /// <summary>Bytes; room for all application data of one datagram.</summary>
    internal const int PlaintextSize = 2048;

    /// <param name="outside">The worker's socket.</param>
    /// <param name="inside">The worker's TUN queue.</param>
    /// <param name="offload">What may be used of what socket and queue can.</param>
    /// <param name="ids">Where session ids of its connections come from; null: there is no other worker.</param>
    /// <param name="log">Log of transitions; never written per packet.</param>
    public WorkerContext(
        IDatagramSender outside,
        IInsideSink inside,
        Offload offload,
        SessionIdSource? ids,
        ILogger log
    )
    {
        (Control, Ids, Log) = (outside, ids ?? new SessionIdSource(0, 1), log);
        MaxBurstMicroseconds = offload.MaxBurstMicroseconds;
        Mailbox = new Mailbox(inside.HasVnetHeader);
        ToOutside = new SendBatch(outside, Counters, offload.MaxSegments);
        ToInside = new TunBatch(inside, Counters, offload.TunGroTcp, offload.TunGroUdp);
    }

    public Counters Counters { get; } = new();

    /// <summary>Sends control datagrams, each alone.</summary>
    public IDatagramSender Control { get; }

    /// <summary>See <see cref="Offload.MaxBurstMicroseconds"/>.</summary>
    public int MaxBurstMicroseconds { get; }

    /// <summary>Sends what comes from inside.</summary>
    public SendBatch ToOutside { get; }

    /// <summary>Takes what comes from outside; Expresslane packets are opened in its tail.</summary>
    public TunBatch ToInside { get; }

    /// <summary>Takes what other workers read for its connections.</summary>
    public Mailbox Mailbox { get; }

    public SessionIdSource Ids { get; }

    /// <summary>Where handshakes run; null: on the worker's own thread.</summary>
    public ControlPool? Pool { get; init; }

    public RandomPool Random { get; } = new();

    public ILogger Log { get; }

    /// <summary>Control datagrams are put together here.</summary>
    internal Slab Datagram { get; } = new(ControlSize);

    /// <summary>Frames are written here before they are sealed.</summary>
    internal Slab Frame { get; } = new(ControlSize);

    /// <summary>What a DTLS datagram held. Its frames may be many, so they can't be opened where packets for the TUN go.</summary>
    internal Slab Plaintext { get; } = new(PlaintextSize);

    /// <summary>A packet reassembled from fragments.</summary>
    internal Slab Reassembled { get; } = new(65536);

    public void Dispose()
    {
        ToOutside.Dispose();
        ToInside.Dispose();
        Mailbox.Dispose();
        Datagram.Dispose();
        Frame.Dispose();
        Plaintext.Dispose();
        Reassembled.Dispose();
    }
}

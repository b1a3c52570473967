using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel;

/// <summary>
/// Runs <paramref name="work"/> on another thread, then <paramref name="done"/> on the worker's, with its clock
/// (milliseconds).
/// </summary>
public delegate void ControlPool(Action work, Action<long> done);

/// <summary>
/// The parts of a worker that all its connections share: batches, control socket, buffers, timers, counters. One thread.
/// </summary>
public sealed class WorkerContext : IDisposable
{
    /// <summary>Bytes; more than any control datagram or frame of the protocol needs.</summary>
    private const int ControlSize = 2048;

    /// <summary>Bytes; room for all application data of one datagram.</summary>
    internal const int PlaintextSize = 2048;

    /// <summary>Bytes of fragments that all connections of a worker may hold together.</summary>
    internal const int FragmentBudget = 16 << 20;

    private uint _connections; // made so far

    /// <param name="outside">The worker's socket.</param>
    /// <param name="inside">The worker's TUN queue.</param>
    /// <param name="offload">The offloads that may be used, less those that socket and queue lack.</param>
    /// <param name="ids">Draws the session ids of its connections; null: there is no other worker.</param>
    /// <param name="plugins">See the datagrams of this worker; null or empty: they cost nothing.</param>
    public WorkerContext(
        IDatagramSender outside,
        ITunWriter inside,
        Offload offload,
        SessionIdSource? ids,
        IReadOnlyList<IOutsidePlugin>? plugins = null
    )
    {
        OutsidePlugins = plugins is { Count: > 0 } ? new OutsidePlugins(plugins, Counters) : null;
        Control = OutsidePlugins is null ? outside : new PluggedSender(outside, OutsidePlugins);
        Ids = ids ?? new SessionIdSource(0, 1);
        MaxSegments = offload.MaxSegments;
        Mailbox = new Mailbox(inside.HasVnetHeader);
        ToOutside = new SendBatch(outside, Counters, offload.MaxSegments, offload.MaxBurstMicroseconds, OutsidePlugins);
        ToInside = new TunBatch(inside, Counters, offload.TunGroTcp, offload.TunGroUdp);
    }

    public Counters Counters { get; } = new();

    public TimerQueue Timers { get; } = new();

    /// <summary>Sends control datagrams, each in a system call of its own.</summary>
    public IDatagramSender Control { get; }

    /// <summary>Collects the datagrams that carry packets to the peers.</summary>
    public SendBatch ToOutside { get; }

    /// <summary>Collects the packets for the TUN device; they are decrypted in place there.</summary>
    public TunBatch ToInside { get; }

    /// <summary>The TCP connections; null: this worker serves none.</summary>
    public StreamLoop? Streams { get; init; }

    /// <summary>Takes the frames that other workers read for the connections of this one.</summary>
    public Mailbox Mailbox { get; }

    /// <summary>See <see cref="Offload.MaxSegments"/>.</summary>
    public int MaxSegments { get; }

    /// <summary>Bytes of the largest inside packet or segment: the MTU of the TUN device.</summary>
    public int InsideMtu
    {
        get;
        set
        {
            if (field != value)
            {
                field = value;
                InsideMtuChanged?.Invoke(value);
            }
        }
    } = 1500;

    /// <summary>Called when the device has another MTU. On the worker's thread.</summary>
    public Action<int>? InsideMtuChanged { get; set; }

    /// <summary>Milliseconds of the worker's clock at its latest wake-up.</summary>
    public long Now { get; set; }

    /// <summary>Whose datagrams are dropped when the worker cannot open all that come.</summary>
    public FairShare Shares { get; } = new();

    /// <summary>The ECN field of the datagram that is being handled; <see cref="EcnCodepoint.NotEct"/> outside a receive.</summary>
    public EcnCodepoint OutsideEcn { get; set; }

    public SessionIdSource Ids { get; }

    /// <summary>Runs handshakes; null: they run on the worker's own thread.</summary>
    public ControlPool? Pool { get; init; }

    /// <summary>Runs an action on the worker's thread, soon. Any thread. Without a worker: at once.</summary>
    public Action<Action> Post { get; init; } = static action => action();

    /// <summary>Ends the worker. Any thread.</summary>
    public Action Stop { get; init; } = static () => { };

    public RandomPool Random { get; init; } = new();

    /// <summary>Null if there are none.</summary>
    internal OutsidePlugins? OutsidePlugins { get; }

    /// <summary>Control datagrams are put together here.</summary>
    internal Slab Datagram { get; } = new(ControlSize);

    /// <summary>Frames are written here before they are encrypted.</summary>
    internal Slab Frame { get; } = new(ControlSize);

    /// <summary>Payload of pings that test a path; nobody writes to it.</summary>
    internal Slab Zeros { get; } = new(ControlSize);

    /// <summary>
    /// Plaintext of one DTLS datagram that is not just one packet: several frames cannot stay in the TUN batch.
    /// </summary>
    internal Slab Plaintext { get; } = new(PlaintextSize);

    /// <summary>Bytes of fragments that the connections hold.</summary>
    internal long FragmentBytes { get; set; }

    /// <summary>A number for a new connection, never 0; two connections that live at the same time differ.</summary>
    internal uint NextNumber()
    {
        _connections = _connections == uint.MaxValue ? 1 : _connections + 1;
        return _connections;
    }

    public void Dispose()
    {
        ToOutside.Dispose();
        ToInside.Dispose();
        Mailbox.Dispose();
        Datagram.Dispose();
        Frame.Dispose();
        Zeros.Dispose();
        Plaintext.Dispose();
        Streams?.Dispose();
    }
}

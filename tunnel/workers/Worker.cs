using System.Collections.Concurrent;
using System.Diagnostics;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Paths;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Tunnel.Workers;

/// <summary>
/// One thread with its own TUN queue, socket, epoll, buffers, timers and counters. Workers share nothing; other threads
/// reach one through <see cref="Post"/>.
/// </summary>
public sealed partial class Worker : IDisposable
{
    private const long TickMs = 1000;
    private readonly TunQueue _tun;
    private readonly UdpSocket? _socket;
    private StreamListener? _listener; // null: no connections are accepted, from the start or from now on
    private readonly Epoll _epoll = new();
    private readonly StreamLoop _streams;
    private readonly ReadyFlag _tunReady = new();
    private readonly ReadyFlag _socketReady = new();
    private readonly ReadyFlag _listenerReady = new();
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly IWorkerProgram _program;
    private readonly OutsidePath? _outside;
    private readonly InsidePath _inside;
    private readonly InsidePath _forwarded; // what other workers have read for this one's connections
    private volatile bool _stopping;
    private int _tunToken;
    private int _socketToken;
    private int _listenerToken;
    private bool _isListening;
    private bool _blocked; // the socket is full: the TUN waits, nothing is dropped

    /// <param name="tun">Queue of a device that is up. Owned from here on.</param>
    /// <param name="socket">Null: no datagrams. Owned from here on.</param>
    /// <param name="listener">Null: no connections are accepted. Owned from here on.</param>
    /// <param name="offload">The offloads that may be used, if <paramref name="tun"/> and <paramref name="socket"/> have them.</param>
    /// <param name="ids">Draws the session ids of its connections; null: there is no other worker.</param>
    /// <param name="create">Makes the program that owns the connections.</param>
    /// <param name="plugins">See the worker's datagrams; null: there are none.</param>
    public Worker(
        TunQueue tun,
        UdpSocket? socket,
        StreamListener? listener,
        Offload offload,
        SessionIdSource? ids,
        ILogger log,
        Func<WorkerContext, IWorkerProgram> create,
        IReadOnlyList<IOutsidePlugin>? plugins = null
    )
    {
        _tun = tun;
        _socket = socket;
        _listener = listener;
        _streams = new StreamLoop(_epoll);
        Offload = SuperpacketProbe.Run(
            tun,
            socket is { SupportsSegmentation: false } ? offload with { MaxSegments = 1 } : offload
        );
        Context = new WorkerContext(socket is null ? new NoDatagrams() : socket, tun, Offload, ids, plugins)
        {
            Streams = _streams,
            Pool = RunOnPool,
            Post = Post,
            Stop = Stop,
            Now = Environment.TickCount64,
            InsideMtu = tun.QueryMtu(),
        };
        Context.Mailbox.Posted = _epoll.Wake;
        Context.ToOutside.Refused = refused => LogRefused(log, refused);
        Context.ToInside.Refused = refused => LogRefused(log, refused);
        _program = create(Context);
        _inside = new InsidePath(tun, Context, _program);
        _forwarded = new InsidePath(Context.Mailbox, Context, _program);
        _outside = socket is null ? null : new OutsidePath(socket, Context, _program);
    }

    public WorkerContext Context { get; }

    /// <summary>The offloads in use: allowed, and found to work.</summary>
    public Offload Offload { get; }

    /// <summary>The kernel's number of the thread that <see cref="Run"/> is on; 0 before. Any thread.</summary>
    public int Thread { get; private set; }

    /// <summary>What of the offload is in use now. Any thread.</summary>
    public IReadOnlyList<OffloadState> OffloadStates =>
        [
            new("tun_tso", _tun.Tso),
            new("tun_uso", _tun.Uso),
            new("tun_gro_tcp", Context.ToInside.MergesTcp),
            new("tun_gro_udp", Context.ToInside.MergesUdp),
            new("udp_gso_ipv4", _socket is not null && Context.ToOutside.Segments(ipv6: false)),
            new("udp_gso_ipv6", _socket is not null && Context.ToOutside.Segments(ipv6: true)),
            new("udp_gro", _socket is { IsCoalescing: true }),
        ];

    /// <summary>Runs until <see cref="Stop"/>, on the calling thread.</summary>
    public void Run()
    {
        Thread = ThreadTime.CurrentThread;
        _tunToken = _epoll.Add(_tun.Fd, _tunReady);
        if (_socket is not null)
        {
            _socketToken = _epoll.Add(_socket.Fd, _socketReady);
        }
        if (_listener is not null)
        {
            _listenerToken = _epoll.Add(_listener.Fd, _listenerReady);
            _isListening = true;
        }
        try
        {
            Loop();
        }
        finally
        {
            _program.Stopping(); // also when the device is gone
        }
    }

    /// <summary>Runs <paramref name="action"/> on the worker's thread, soon. Any thread.</summary>
    public void Post(Action action)
    {
        if (!_stopping)
        {
            _posted.Enqueue(action);
            _epoll.Wake();
        }
    }

    /// <summary>
    /// Accepts no connections from now on: the kernel resets those that wait, and refuses later ones. Any thread.
    /// </summary>
    public void StopListening() =>
        Post(() =>
        {
            if (_listener is { } listener)
            {
                _listener = null;
                _epoll.Remove(listener.Fd, _listenerToken);
                listener.Dispose();
            }
        });

    /// <summary>Ends <see cref="Run"/>. Any thread.</summary>
    public void Stop()
    {
        _stopping = true;
        _epoll.Wake();
    }

    public void Dispose()
    {
        _inside.Dispose();
        _forwarded.Dispose();
        _outside?.Dispose();
        Context.Dispose();
        _epoll.Dispose();
        _tun.Dispose();
        _socket?.Dispose();
        _listener?.Dispose();
    }

    /// <summary>Runs <paramref name="work"/> on the thread pool, then <paramref name="done"/> on the worker's thread.</summary>
    private void RunOnPool(Action work, Action<long> done) =>
        ThreadPool.UnsafeQueueUserWorkItem(
            _ =>
            {
                work();
                Post(() => done(Context.Now));
            },
            null
        );

    private void Loop()
    {
        var tickAt = Context.Now + TickMs;
        while (!_stopping)
        {
            _tunReady.Value = Readiness.None;
            _socketReady.Value = Readiness.None;
            _listenerReady.Value = Readiness.None;
            _epoll.Wait(TimeoutMs(Math.Min(Context.Timers.NextAt, tickAt)));
            Context.Counters.Add(Counter.EpollWaits);
            var now = Environment.TickCount64;
            Context.Now = now;
            if ((_socketReady.Value & Readiness.Read) != 0)
            {
                _outside?.Drain(now);
            }
            _streams.Run(now);
            Context.ToInside.Flush();
            if (!_blocked || (_socketReady.Value & Readiness.Write) != 0)
            {
                SetBlocked(!DrainInside(now));
                if (Context.Mailbox.HasFrames)
                {
                    _epoll.Wake(); // its budget is spent, and no post will ring again
                }
            }
            _streams.Flush(now);
            if (_listenerReady.Value != Readiness.None)
            {
                Listen(_program.AcceptFrom(_listener!, now));
            }
            while (_posted.TryDequeue(out var action))
            {
                action();
            }
            Context.Timers.Run(now);
            if (now >= tickAt)
            {
                tickAt = now + TickMs;
                Tick(now);
            }
            _streams.Flush(now);
        }
    }

    private void Tick(long now)
    {
        var started = Stopwatch.GetTimestamp();
        Context.ToOutside.Tick();
        Context.ToInside.Tick();
        _outside?.Tick();
        Context.InsideMtu = _tun.QueryMtu();
        _program.Tick(now);
        Listen(true);
        Context.Counters.Add(Counter.Ticks);
        Context.Counters.Add(Counter.TickTime, (long)Stopwatch.GetElapsedTime(started).TotalMicroseconds);
    }

    /// <summary>Listens, or leaves connections waiting until the next tick because there is no descriptor for them.</summary>
    private void Listen(bool on)
    {
        if (_listener is not null && on != _isListening)
        {
            _isListening = on;
            _epoll.Watch(_listener.Fd, _listenerToken, on ? Readiness.Read : Readiness.None);
        }
    }

    /// <summary>Sends what has come from inside. False: the socket is full.</summary>
    private bool DrainInside(long now)
    {
        if ((_inside.IsPending || _tunReady.Value != Readiness.None) && !_inside.Drain(now))
        {
            return false;
        }
        if ((_forwarded.IsPending || Context.Mailbox.HasFrames) && !_forwarded.Drain(now))
        {
            return false;
        }
        return Context.ToOutside.Flush();
    }

    private static int TimeoutMs(long at) => (int)Math.Clamp(at - Environment.TickCount64, 0, TickMs);

    private void SetBlocked(bool blocked)
    {
        if (blocked != _blocked && _socket is not null)
        {
            _blocked = blocked;
            _epoll.Watch(_tun.Fd, _tunToken, blocked ? Readiness.None : Readiness.Read);
            _epoll.Watch(_socket.Fd, _socketToken, blocked ? Readiness.Read | Readiness.Write : Readiness.Read);
        }
    }

    private static void LogRefused(ILogger log, CapabilityRefused refused)
    {
        switch (refused.Capability)
        {
            case Capability.UdpGsoIPv4:
                LogSegmentationOff(log, "IPv4", refused.Errno);
                break;
            case Capability.UdpGsoIPv6:
                LogSegmentationOff(log, "IPv6", refused.Errno);
                break;
            case Capability.TunTcpSuperpackets:
                LogSuperpacketsOff(log, "TCP", refused.Errno);
                break;
            case Capability.TunUdpSuperpackets:
                LogSuperpacketsOff(log, "UDP", refused.Errno);
                break;
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "the kernel refuses UDP segmentation over {Family} (errno {Errno}): datagrams leave one by one for a minute"
    )]
    private static partial void LogSegmentationOff(ILogger log, string family, int errno);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "the TUN refuses {Protocol} superpackets (errno {Errno}): packets are written one by one for a minute"
    )]
    private static partial void LogSuperpacketsOff(ILogger log, string protocol, int errno);

    /// <summary>Remembers what a descriptor is ready for: the loop serves the outside before the inside.</summary>
    private sealed class ReadyFlag : IReadyHandler
    {
        public Readiness Value { get; set; }

        public void OnReady(Readiness readiness) => Value = readiness;
    }
}

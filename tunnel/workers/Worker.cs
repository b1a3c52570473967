using System.Collections.Concurrent;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Paths;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Tunnel.Workers;

/// <summary>What a program adds to a worker: its tables, and what it does once a second.</summary>
public interface IWorkerProgram : IInsideRouter, IOutsideRouter
{
    /// <summary>About once a second.</summary>
    void Tick(long now);

    /// <summary>The worker ends: say goodbye to the peers.</summary>
    void Stopping();
}

/// <summary>
/// One thread with its own TUN queue, socket, epoll, buffers, timers and counters. Workers share nothing; other threads
/// reach one through <see cref="Post"/>.
/// </summary>
public sealed partial class Worker : IDisposable
{
    private const int TunToken = 0;
    private const int SocketToken = 1;
    private const long TickMs = 1000;
    private readonly TunQueue _tun;
    private readonly UdpSocket _socket;
    private readonly Epoll _epoll = new();
    private readonly ConcurrentQueue<Action> _posted = new();
    private readonly Readiness[] _ready = new Readiness[2];
    private IWorkerProgram _program = null!;
    private volatile bool _stopping;
    private bool _blocked; // the socket is full: the TUN waits, nothing is dropped

    /// <param name="tun">Of a device that is up. Owned from here on.</param>
    /// <param name="socket">Owned from here on.</param>
    /// <param name="offload">What may be used of what <paramref name="tun"/> and <paramref name="socket"/> can.</param>
    /// <param name="ids">Where session ids of its connections come from; null: there is no other worker.</param>
    public Worker(TunQueue tun, UdpSocket socket, Offload offload, SessionIdSource? ids, ILogger log)
    {
        (_tun, _socket) = (tun, socket);
        Offload = SuperpacketProbe.Run(tun, socket.SupportsSegmentation ? offload : offload with { MaxSegments = 1 });
        Context = new WorkerContext(socket, tun, Offload, ids, log) { Pool = RunOnPool };
        Context.Mailbox.Posted = _epoll.Wake;
        Context.ToOutside.SegmentationOff = (errno, v6) => LogSegmentationOff(log, v6 ? "IPv6" : "IPv4", errno);
        Context.ToInside.SuperpacketsOff = (errno, tcp) => LogSuperpacketsOff(log, tcp ? "TCP" : "UDP", errno);
    }

    public WorkerContext Context { get; }

    /// <summary>What is in use: allowed, and found to work.</summary>
    public Offload Offload { get; }

    public TimerQueue Timers { get; } = new();

    /// <summary>Set by <see cref="Attach"/>.</summary>
    public OutsidePath Outside { get; private set; } = null!;

    /// <summary>Set by <see cref="Attach"/>.</summary>
    public InsidePath Inside { get; private set; } = null!;

    /// <summary>What other workers have read for this one's connections. Set by <see cref="Attach"/>.</summary>
    private InsidePath Forwarded { get; set; } = null!;

    /// <summary>Milliseconds of the clock all parts of a worker are told.</summary>
    public static long Now => Environment.TickCount64;

    /// <summary>Connects the program that owns the connections; call once, before <see cref="Run"/>.</summary>
    public void Attach(IWorkerProgram program)
    {
        _program = program;
        var mtu = TunInterface.GetMtu(_tun.Name);
        Inside = new InsidePath(_tun, Context, program, mtu);
        Forwarded = new InsidePath(Context.Mailbox, Context, program, mtu);
        Outside = new OutsidePath(_socket, Context, program);
    }

    /// <summary>Runs until <see cref="Stop"/>, on the calling thread.</summary>
    public void Run()
    {
        _epoll.Add(_tun.Fd, TunToken);
        _epoll.Add(_socket.Fd, SocketToken);
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

    /// <summary>Runs <paramref name="work"/> on the thread pool, then <paramref name="done"/> on the worker's thread.</summary>
    private void RunOnPool(Action work, Action<long> done) =>
        ThreadPool.UnsafeQueueUserWorkItem(
            _ =>
            {
                work();
                Post(() => done(Now));
            },
            null
        );

    /// <summary>Ends <see cref="Run"/>. Any thread.</summary>
    public void Stop()
    {
        _stopping = true;
        _epoll.Wake();
    }

    public void Dispose()
    {
        Inside?.Dispose();
        Forwarded?.Dispose();
        Outside?.Dispose();
        Context.Dispose();
        _epoll.Dispose();
        _tun.Dispose();
        _socket.Dispose();
    }

    private void Loop()
    {
        var tickAt = Now + TickMs;
        while (!_stopping)
        {
            _epoll.Wait(TimeoutMs(Math.Min(Timers.NextAt, tickAt)), _ready);
            Context.Counters.Add(Counter.EpollWaits);
            var now = Now;
            if ((_ready[SocketToken] & Readiness.Read) != 0)
            {
                Outside.Drain(now);
            }
            if (!_blocked || (_ready[SocketToken] & Readiness.Write) != 0)
            {
                SetBlocked(!DrainInside(now));
                if (Context.Mailbox.HasFrames)
                {
                    _epoll.Wake(); // its budget is spent, and no post will ring again
                }
            }
            while (_posted.TryDequeue(out var action))
            {
                action();
            }
            Timers.Run(now);
            if (now >= tickAt)
            {
                tickAt = now + TickMs;
                Context.ToOutside.Tick();
                Context.ToInside.Tick();
                Inside.Mtu = Forwarded.Mtu = TunInterface.GetMtu(_tun.Name);
                _program.Tick(now);
            }
        }
    }

    /// <summary>False: the socket is full.</summary>
    private bool DrainInside(long now) =>
        ((!Inside.IsPending && _ready[TunToken] == 0) || Inside.Drain(now))
        && (!Context.Mailbox.HasFrames && !Forwarded.IsPending || Forwarded.Drain(now))
        && Context.ToOutside.Flush();

    private static int TimeoutMs(long at) => (int)Math.Clamp(at - Now, 0, TickMs);

    private void SetBlocked(bool blocked)
    {
        if (blocked != _blocked)
        {
            _blocked = blocked;
            _epoll.Watch(_tun.Fd, TunToken, blocked ? Readiness.None : Readiness.Read);
            _epoll.Watch(_socket.Fd, SocketToken, blocked ? Readiness.Read | Readiness.Write : Readiness.Read);
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
}

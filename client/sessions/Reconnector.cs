using System.Net;
using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client.Sessions;

/// <summary>What decides how a client connects.</summary>
public sealed record ReconnectorSettings
{
    public required ReconnectPolicy Policy { get; init; }

    public required InsideAddresses Inside { get; init; }

    /// <summary>Milliseconds that a server waits for those before it in the list.</summary>
    public long PreferMs { get; init; }

    /// <summary>Milliseconds of silence after which a packet makes the server be asked; 0: never.</summary>
    public long DoubtMs { get; init; }

    /// <summary>SO_MARK of TCP connections, or 0.</summary>
    public uint Mark { get; init; }

    /// <summary>A clock in milliseconds that goes on while the machine sleeps.</summary>
    public Func<long> BootClock { get; init; } = BootTime.Now;

    /// <summary>32 random bits, for waits.</summary>
    public Func<uint> Random { get; init; } =
        static () => (uint)RandomNumberGenerator.GetInt32(int.MinValue, int.MaxValue);
}

/// <summary>
/// The client's program: has a connection to one of its servers, and gets another one when it ends. Worker, device and UDP
/// socket stay meanwhile; packets from the device are dropped. All members run on the worker's thread, unless they say
/// otherwise.
/// </summary>
internal sealed partial class Reconnector : IWorkerProgram, ISessionOwner, ITimed, IDisposable
{
    private readonly IReadOnlyList<ClientServer> _servers;
    private readonly ReconnectorSettings _settings;
    private readonly WorkerContext _worker;
    private readonly ILogger _log;
    private readonly List<ClientSession> _running = []; // of the race, or the one that serves
    private readonly Queue<Func<RaceState, RaceStep>> _events = new();
    private readonly TimerNode _timer;
    private ReconnectState _state;
    private RaceState? _race; // null: none runs
    private ClientSession? _current; // serves
    private int _lost = -1; // the server whose connection was lost just now
    private bool _isApplying; // an event of the race
    private long _boot; // at the latest tick
    private long _clock; // the worker's at that time
    private long _askedAt = long.MaxValue; // whether the connection still lives; nothing is asked
    private int _pathMtu; // as logged

    /// <param name="servers">At least one, the preferred one first. Owned from here on.</param>
    public Reconnector(
        IReadOnlyList<ClientServer> servers,
        ReconnectorSettings settings,
        WorkerContext worker,
        ILogger log
    )
    {
        _servers = servers;
        _settings = settings;
        _worker = worker;
        _log = log;
        _timer = new TimerNode(this);
        _state = Reconnect.create(settings.Policy, worker.Now);
        _boot = settings.BootClock();
        _clock = worker.Now;
    }

    /// <summary>Called from the worker's loop, not from within a connection, when one is online.</summary>
    public Action<ClientSession> Online { get; init; } = static _ => { };

    /// <summary>Called when there is no connection, and a round is planned: time to look names up again.</summary>
    public Action Waiting { get; init; } = static () => { };

    /// <summary>Called before each round: the servers' addresses must be reachable outside of the tunnel.</summary>
    public Action RoundStarts { get; init; } = static () => { };

    /// <summary>Called with the MTU that the device should have, once the server has said what its own device has.</summary>
    public Action<int> MtuGranted { get; init; } = static _ => { };

    /// <summary>Called once per second.</summary>
    public Action Ticked { get; set; } = static () => { };

    /// <summary>How the latest connection or round has ended; null: none has.</summary>
    public string? LastEnd { get; private set; }

    /// <summary>The session that serves; null if there is none.</summary>
    public ClientSession? Current => _current;

    public ReconnectState State => _state;

    /// <summary>Connections that have come online so far.</summary>
    public int Connections { get; private set; }

    /// <summary>Changes of network and sleeps that a connection has survived.</summary>
    public int Moves { get; private set; }

    /// <summary>It is over: no connection will be made any more.</summary>
    public bool HasFailed => _state.Phase == ReconnectPhase.Over;

    /// <summary>It is over, as each server that could be tried has refused the login.</summary>
    public bool IsLoginRefused =>
        HasFailed
        && _servers.Where(server => server.Endings.Count > 0).ToList() is { Count: > 0 } tried
        && tried.TrueForAll(server => server.Endings[^1].Reason == TunnelError.Unauthorized);

    long ITimed.DueAt => Math.Min(_state.RetryAt, _race is { } race ? ServerRace.nextAt(race) : long.MaxValue);

    TimerNode ITimed.Timer => _timer;

    /// <summary>Starts the first round. On the worker's thread, or before it runs.</summary>
    public void Start() => StartRound(_worker.Now);

    /// <summary>The way to the server has changed. Any thread.</summary>
    /// <param name="isAddressNew">This machine's address on that way is another one than before.</param>
    public void NetworkChanged(bool isAddressNew) =>
        _worker.Post(() => Answer(Reconnect.networkAnswer(_state, TransportInUse, isAddressNew), _worker.Now));

    public bool IsReported(ReadOnlySpan<byte> packet) => false; // its sender is this client

    public Connection? Find(ReadOnlySpan<byte> packet)
    {
        if (_current is not { } session)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketNoConnection);
            return null;
        }
        var protocol = session.Server.Transport == Transport.Stream ? IpProtocol.Tcp : IpProtocol.Udp;
        if (Ports.isTo(packet, protocol, session.Peer.IPv4, session.Port))
        {
            // The route to the server leads into the tunnel: encrypting our own packets would never end.
            _worker.Counters.Add(Counter.TunRejectedPacketToServer);
            return null;
        }
        var connection = session.Connection;
        if (_settings.DoubtMs > 0 && _worker.Now - connection.LastOutsideAt >= _settings.DoubtMs)
        {
            connection.Doubt(_worker.Now);
        }
        return connection;
    }

    public void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (_current is { } current)
        {
            if (from.Peer == current.Peer)
            {
                current.Receive(header, body, now);
                return;
            }
        }
        else
        {
            foreach (var session in _running)
            {
                if (from.Peer == session.Peer && session.Server.Transport == Transport.Datagram)
                {
                    session.Receive(header, body, now);
                    return; // the list may have changed
                }
            }
        }
        _worker.Counters.Add(Counter.UdpParseWireFailed);
    }

    public void Stopping()
    {
        foreach (var session in _running)
        {
            session.Stop();
        }
        _timer.Release();
    }

    public void Tick(long now)
    {
        NoticeSleep(now);
        foreach (var session in _running.ToArray())
        {
            session.Tick(now);
        }
        if (_current is { } asked && now - _askedAt >= Reconnect.AskWithin)
        {
            var isDead = asked.Connection.LastOutsideAt < _askedAt;
            _askedAt = long.MaxValue;
            if (isDead)
            {
                Answer(NetworkAnswer.Reconnect, now);
            }
        }
        if (_current?.Connection is { PathMtu: var found and > 0 } connection && found != _pathMtu)
        {
            _pathMtu = found;
            LogPathMtu(_log, found, connection.InsideMtu);
        }
        Ticked();
    }

    void ITimed.OnTimer(long now)
    {
        (_state, var isStarting) = Reconnect.tick(_state, now);
        if (isStarting)
        {
            StartRound(now);
        }
        else
        {
            On(race => ServerRace.tick(race, now));
        }
    }

    void ISessionOwner.Answered(ClientSession session) =>
        On(race => ServerRace.answered(race, session.Entry, _worker.Now));

    void ISessionOwner.Online(ClientSession session) => On(race => ServerRace.online(race, session.Entry, _worker.Now));

    void ISessionOwner.Ended(ClientSession session, Ending ending)
    {
        _running.Remove(session);
        session.Server.Add(ending);
        if (session == _current)
        {
            _state = Reconnect.lost(_state, ending.Reason, _settings.Random(), _worker.Now);
            Leave(session, ending);
        }
        else
        {
            if (_race is not null)
            {
                LogUseless(_log, ending.Server, ending.Reason, ending.AfterMs);
            }
            // Another address is the same server: it would refuse the login as well.
            var isRefused = ending.Reason is TunnelError.Unauthorized or TunnelError.NoFreeClientIp;
            On(race => ServerRace.ended(race, session.Entry, isRefused, _worker.Now));
        }
        session.Dispose();
    }

    public void Dispose()
    {
        foreach (var session in _running)
        {
            session.Dispose();
        }
        foreach (var server in _servers)
        {
            server.Dispose();
        }
    }

    private Transport TransportInUse => _current?.Server.Transport ?? Transport.Datagram;

    private void StartRound(long now)
    {
        foreach (var server in _servers)
        {
            server.Begin();
        }
        RoundStarts();
        _race = ServerRace.create(
            [.. _servers.Select(server => server.Addresses.Count)],
            _settings.PreferMs,
            _lost,
            now
        );
        _lost = -1;
        On(race => ServerRace.tick(race, now));
    }

    /// <summary>Hands an event to the race, and does what follows. Events that come meanwhile wait for their turn.</summary>
    private void On(Func<RaceState, RaceStep> happened)
    {
        _events.Enqueue(happened);
        if (_isApplying)
        {
            return;
        }
        _isApplying = true;
        while (_events.TryDequeue(out var next))
        {
            if (_race is { } race)
            {
                Apply(next(race));
            }
        }
        _isApplying = false;
        _worker.Timers.Schedule(this);
    }

    private void Apply(RaceStep step)
    {
        _race = step.State;
        foreach (var entry in step.Stop)
        {
            Drop(_running.Find(session => session.Entry.Equals(entry)));
        }
        foreach (var entry in step.Start)
        {
            Start(entry);
        }
        if (step.Outcome == RaceOutcome.Won)
        {
            _race = null;
            Choose(_running.Find(session => session.Entry.Equals(step.Winner))!);
        }
        else if (step.Outcome == RaceOutcome.Lost)
        {
            _race = null;
            _state = Reconnect.failed(
                _state,
                _servers.SelectMany(server => server.Endings).Select(ending => ending.Reason),
                _settings.Random(),
                _worker.Now
            );
            Wait($"no server could be used: {EndingText.Causes(_servers)}");
        }
    }

    private void Start(RaceEntry entry)
    {
        var server = _servers[entry.Server];
        try
        {
            var session = new ClientSession(server, entry, _worker, this, _settings.Inside, _settings.Mark);
            _running.Add(session);
            if (entry.Address > 0)
            {
                LogAlso(_log, ClientServer.Shown(server.Addresses[entry.Address - 1]), session.EndPoint);
            }
            session.Start();
        }
        catch (IOException error)
        {
            var now = _worker.Now;
            var address = ClientServer.Shown(server.Addresses[entry.Address]);
            server.Add(new Ending(address, TunnelError.ConnectionLost, Stage.Silent, 0, error.Message));
            On(race => ServerRace.ended(race, entry, isRefused: false, now));
        }
    }

    private void Choose(ClientSession session)
    {
        _current = session;
        _askedAt = long.MaxValue;
        _state = Reconnect.online(_state, _worker.Now);
        Connections++;
        _pathMtu = 0;
        MtuGranted(Sizes.deviceMtu(session.GrantedMtu, session.Connection.InsideMtu));
        LogOnline(_log, session.EndPoint, session.Connection.Security);
        _worker.Post(() =>
        {
            if (session == _current)
            {
                Online(session);
            }
        });
    }

    /// <summary>The connection that served has ended: says so, and waits for the next round.</summary>
    private void Leave(ClientSession session, Ending ending)
    {
        _current = null;
        _lost = session.Entry.Server;
        Wait($"{EndingText.Cause(session.Server.Options, ending)} ({ending.Reason})");
    }

    /// <summary>Waits for the next round, or ends.</summary>
    private void Wait(string why)
    {
        LastEnd = why;
        if (HasFailed)
        {
            _worker.Stop();
            return;
        }
        LogWaiting(_log, why, Math.Max(0, _state.RetryAt - _worker.Now + 500) / 1000);
        Waiting();
        _worker.Timers.Schedule(this);
    }

    private void Drop(ClientSession? session)
    {
        if (session is not null)
        {
            _running.Remove(session);
            session.Stop();
            session.Dispose();
        }
    }

    private void NoticeSleep(long now)
    {
        var boot = _settings.BootClock();
        var slept = Reconnect.sleptBetween(_clock, _boot, now, boot);
        (_clock, _boot) = (now, boot);
        if (slept >= Reconnect.MinSleep)
        {
            LogSlept(_log, slept / 1000);
            Answer(Reconnect.resumeAnswer(_state, TransportInUse, slept), now);
        }
    }

    /// <summary>Does what a change of network or the end of a sleep calls for.</summary>
    private void Answer(NetworkAnswer answer, long now)
    {
        if (answer is NetworkAnswer.Ping or NetworkAnswer.Ask)
        {
            Moves++;
            _askedAt = answer == NetworkAnswer.Ask ? now : long.MaxValue;
            _current?.Connection.NetworkChanged(now);
            return;
        }
        if (answer == NetworkAnswer.Reconnect)
        {
            _state = Reconnect.networkChanged(_state, now);
            if (_current is { } current)
            {
                var ending = new Ending(
                    current.EndPoint,
                    TunnelError.ConnectionLost,
                    Stage.Online,
                    now - current.StartedAt,
                    "the network has changed"
                );
                current.Server.Add(ending);
                Drop(current);
                Leave(current, ending);
                _lost = -1; // the server is not to blame
            }
            else
            {
                _race = null;
                foreach (var session in _running.ToArray())
                {
                    Drop(session);
                }
                Wait("the network has changed");
            }
        }
        else if (_state.Phase == ReconnectPhase.Waiting)
        {
            _state = Reconnect.networkChanged(_state, now);
            _worker.Timers.Schedule(this);
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "online: {Server} ({Security})")]
    private static partial void LogOnline(ILogger log, IPEndPoint server, string security);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "the path to the server carries {Outside} bytes: packets of up to {Inside} bytes pass whole"
    )]
    private static partial void LogPathMtu(ILogger log, int outside, int inside);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Before} has not answered: trying {Server} as well")]
    private static partial void LogAlso(ILogger log, IPEndPoint before, IPEndPoint server);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "{Server} gives no connection ({Reason} after {Milliseconds} ms)"
    )]
    private static partial void LogUseless(ILogger log, IPEndPoint server, TunnelError reason, long milliseconds);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}: trying again in {Seconds} s")]
    private static partial void LogWaiting(ILogger log, string why, long seconds);

    [LoggerMessage(Level = LogLevel.Information, Message = "the machine has slept for {Seconds} s")]
    private static partial void LogSlept(ILogger log, long seconds);
}

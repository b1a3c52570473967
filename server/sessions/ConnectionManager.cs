using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Tunnel;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>Addresses and intervals of a server; addresses are numbers, 10.0.0.1 is 0x0A000001.</summary>
public sealed record ServerSettings
{
    /// <summary>The address every client uses inside the tunnel.</summary>
    public required uint ClientIp { get; init; }

    public required uint ServerIp { get; init; }

    public required uint DnsIp { get; init; }

    /// <summary>How often connections are looked through for stale ones.</summary>
    public required long SweepMs { get; init; }

    /// <summary>How often the number of sessions is logged.</summary>
    public required long ReportMs { get; init; }
}

/// <summary>What one worker has.</summary>
internal sealed record Census(int Online, int Connections, int Rotations);

/// <summary>
/// The connections of one worker: which datagram and which packet belongs to whom, who is let in, who is let go. All
/// members run on the worker's thread; handshakes and password hashes run aside.
/// </summary>
public sealed partial class ConnectionManager : IWorkerProgram, IConnectionOwner, IDisposable
{
    private const long NotOnlineLimitMs = 60_000;
    private const long SilenceLimitMs = 24 * 60 * 60_000;
    private const int MaxAuthChecks = 64; // password hashes at once; the client repeats what is ignored
    private const int RejectsPerTick = 100; // answers to unknown sessions a second
    private const int MaxNotOnline = 10_000; // handshakes and logins under way, of all workers

    private readonly ServerSettings _settings;
    private readonly ConnectionSettings _connectionSettings;
    private readonly Worker _worker;
    private readonly AddressPool _pool;
    private readonly InsideDirectory _inside;
    private readonly Authenticator _authenticator;
    private readonly DtlsListener _listener;
    private readonly ConnectionTable _table;
    private readonly HashSet<Connection> _beingChecked = [];
    private readonly ILogger _log;
    private int _online; // connections that have been Online
    private int _rejectsLeft = RejectsPerTick;
    private Census _latest = new(0, 0, 0);
    private long _sweepAt;
    private long _reportAt;

    public ConnectionManager(
        ServerSettings settings,
        ConnectionSettings connectionSettings,
        Worker worker,
        DtlsContext tls,
        AddressPool pool,
        InsideDirectory inside,
        Authenticator authenticator,
        ILogger log
    )
    {
        _inside = inside;
        (_settings, _connectionSettings, _worker, _pool, _authenticator, _log) = (
            settings,
            connectionSettings,
            worker,
            pool,
            authenticator,
            log
        );
        var now = Worker.Now;
        _listener = new DtlsListener(tls, worker.Context, now);
        _table = new ConnectionTable();
        (_sweepAt, _reportAt) = (now + settings.SweepMs, now + settings.ReportMs);
    }

    /// <summary>The managers of all workers, this one among them; the first one reports for all.</summary>
    public required IReadOnlyList<ConnectionManager> Siblings { get; init; }

    /// <summary>Connections of this worker, up to a second ago. Any thread.</summary>
    private Census Latest
    {
        get => Volatile.Read(ref _latest);
        set => Volatile.Write(ref _latest, value);
    }

    private Counters Counters => _worker.Context.Counters;

    public Connection? Route(Span<byte> packet, bool isPartial)
    {
        var connection = _inside[_pool.OffsetOf(Rewrite.destinationOf(packet))];
        if (connection is null)
        {
            Counters.Add(Counter.TunRejectedPacketNoConnection);
            return null;
        }
        var checksum = isPartial ? TransportChecksum.Partial : TransportChecksum.Complete;
        if (!Rewrite.destination(packet, _settings.ClientIp, checksum))
        {
            Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return null;
        }
        return connection;
    }

    public WorkerContext? OtherHomeOf(ReadOnlySpan<byte> packet)
    {
        if (Siblings.Count == 1)
        {
            return null;
        }
        var home = _inside[_pool.OffsetOf(Rewrite.destinationOf(packet))]?.Home;
        return home == _worker.Context ? null : home;
    }

    public void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (header.Session == SessionId.Rejected)
        {
            Counters.Add(Counter.UdpParseWireFailed); // answering it would make two servers reject each other for ever
            return;
        }
        var known = _table.ByPeer(from.Peer);
        var moved =
            header.Session == SessionId.Empty || known?.Owns(header.Session) == true ? null : BySession(header.Session);
        if (known is not null && moved is null)
        {
            ReceiveKnown(known, header, from, body, now);
            return;
        }
        if (header.Session == SessionId.Empty)
        {
            Accept(header.Version, from, body, now);
            return;
        }
        if (moved is null)
        {
            RejectSession(header.Session, from);
        }
        else if (moved.Receive(header, body, now) == 0)
        {
            Counters.Add(Counter.UdpSessionRotationAttemptedViaReplay);
        }
        else if (moved.State != ConnectionState.Disconnected)
        {
            LogMoved(_log, SessionId.format(moved.SessionId), moved.Path.Peer, from.Peer);
            _table.Move(moved, from.Peer);
            moved.MoveTo(from, _worker.Context.Ids.Draw());
            Counters.Add(Counter.UdpConnRecoveredViaSession);
        }
    }

    public void Tick(long now)
    {
        _rejectsLeft = RejectsPerTick;
        _table.ForgetClosed(now);
        if (now >= _sweepAt)
        {
            _sweepAt = now + _settings.SweepMs;
            Sweep(now);
        }
        Latest = new Census(_online, _table.Count, _table.PendingRotations);
        if (now >= _reportAt)
        {
            _reportAt = now + _settings.ReportMs;
            if (Siblings[0] == this)
            {
                Report();
            }
        }
    }

    public void Stopping()
    {
        foreach (var connection in _table.All.ToArray())
        {
            connection.Disconnect();
            Release(connection);
        }
    }

    public void AuthRequested(Connection connection, AuthRequest request)
    {
        if (connection.State == ConnectionState.Online)
        {
            connection.Grant(Success(connection), Worker.Now); // the reply was lost
        }
        else if (request.Method != AuthMethod.UserPassword)
        {
            Refuse(connection, $"authentication method {request.Method} is not served");
        }
        else if (!_beingChecked.Contains(connection))
        {
            Check(connection, request);
        }
    }

    public void DeliverInside(Connection connection, Span<byte> packet)
    {
        if (connection.InsideAddress == 0)
        {
            Counters.Add(Counter.TunRejectedPacketNoClientIp);
        }
        else if (!Rewrite.source(packet, connection.InsideAddress, TransportChecksum.Complete))
        {
            Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
        }
        else
        {
            _worker.Context.ToInside.Append(packet);
        }
    }

    public void StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.LinkUp)
        {
            LogLinkUp(_log, SessionId.format(connection.SessionId), connection.Path.Peer, connection.Security);
            return;
        }
        _online++;
        LogOnline(_log, SessionId.format(connection.SessionId), connection.Path.Peer);
        if (_table.Promote(connection) is { } replaced)
        {
            // The client has started again from the same port; the older session's peer is gone.
            End(replaced, "its client has started again");
        }
    }

    public void SessionRotationStarted(Connection connection, ulong pending) => _table.AddPending(pending, connection);

    public void SessionRotationFinalized(Connection connection, ulong previous) =>
        _table.FinishRotation(connection, previous);

    public void Rescheduled(Connection connection) => _worker.Timers.Schedule(connection);

    public void Authenticated(Connection connection, AuthSuccess success) { } // a client's business

    public void Closed(Connection connection, TunnelError reason)
    {
        if (reason is TunnelError.Goodbye or TunnelError.TlsPeerClosed)
        {
            Counters.Add(Counter.ConnClientClosed);
        }
        LogClosed(_log, SessionId.format(connection.SessionId), connection.Path.Peer, reason.ToString());
        Release(connection);
    }

    public void Dispose() => _listener.Dispose();

    private void Report() =>
        LogReport(
            _log,
            Siblings.Sum(worker => worker.Latest.Online),
            Siblings.Sum(worker => worker.Latest.Connections),
            Siblings.Sum(worker => worker.Latest.Rotations),
            _pool.Assigned
        );

    private Connection? BySession(ulong id) => _table.BySession(id) ?? _table.ByPending(id);

    private void ReceiveKnown(
        Connection known,
        in WireHeader header,
        in OutsideAddress from,
        ReadOnlySpan<byte> body,
        long now
    )
    {
        var successor = _table.Successor(from.Peer);
        if (header is { Session: SessionId.Empty, Expresslane: false } && ClientHello.Is(body))
        {
            Restart(successor ?? known, header, from, body, now);
        }
        else if (known.Receive(header, body, now) == 0)
        {
            successor?.Receive(header, body, now);
        }
        else if (from.Local != known.Path.Local)
        {
            known.AnswerFrom(from.Local);
        }
    }

    /// <summary>
    /// A ClientHello from an address that has a connection: another copy of the one that started it, or a client that
    /// starts again from the same port. The new handshake runs beside an established session until it has succeeded.
    /// </summary>
    private void Restart(
        Connection latest,
        in WireHeader header,
        in OutsideAddress from,
        ReadOnlySpan<byte> body,
        long now
    )
    {
        if (!ClientHello.IsFirstFragment(body) || ClientHello.RandomOf(body) == latest.Hello)
        {
            latest.Receive(header, body, now);
        }
        else if (_listener.TryAccept(header.Version, from, body, now) is { } session)
        {
            if (_table.Successor(from.Peer) is { } successor)
            {
                End(successor, "its client has started again");
            }
            if (_table.ByPeer(from.Peer) is { WasOnline: false } unfinished)
            {
                End(unfinished, "its client has started again");
            }
            Create(session, header.Version, from, body, now);
        }
    }

    private void Accept(ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (_listener.TryAccept(version, from, body, now) is { } session)
        {
            Create(session, version, from, body, now);
        }
    }

    private void Create(DtlsSession session, ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (_table.Count - _online >= MaxNotOnline / Siblings.Count)
        {
            Counters.Add(Counter.HandshakeIgnored);
            session.Dispose();
            return;
        }
        var connection = new Connection(
            _connectionSettings,
            _worker.Context,
            this,
            version,
            _worker.Context.Ids.Draw(),
            session,
            from,
            now
        )
        {
            Hello = ClientHello.RandomOf(body),
        };
        _table.Add(connection);
        Counters.Add(Counter.ConnCreated);
        connection.Start(now);
    }

    /// <summary>Tells the sender that its session is not known here, within a rate.</summary>
    private void RejectSession(ulong session, in OutsideAddress to)
    {
        if (_table.IsRecentlyClosed(session))
        {
            Counters.Add(Counter.UdpDataAfterDisconnect);
            return;
        }
        if (_rejectsLeft-- <= 0)
        {
            Counters.Add(Counter.UdpRejectsSuppressed);
            return;
        }
        Span<byte> reject = stackalloc byte[WireHeaderModule.Size];
        WireHeaderModule.writeReject(reject);
        Counters.Add(Counter.UdpRejectedSession);
        Counters.Add(Counter.UdpSends);
        _ = _worker.Context.Control.Send(to, reject, 0); // best effort: the peer asks again
    }

    private void Check(Connection connection, AuthRequest request)
    {
        if (_beingChecked.Count >= MaxAuthChecks)
        {
            Counters.Add(Counter.AuthIgnoredBusy);
            return;
        }
        _beingChecked.Add(connection);
        _authenticator.AuthorizeOnPool(
            request.User,
            request.Password,
            allowed => _worker.Post(() => Checked(connection, request.User, allowed))
        );
    }

    private void Checked(Connection connection, string user, bool allowed)
    {
        _beingChecked.Remove(connection);
        if (connection.State != ConnectionState.LinkUp)
        {
            return; // it left meanwhile
        }
        if (!allowed)
        {
            Refuse(connection, $"wrong user or password for '{Printable(user)}'");
            return;
        }
        if (!_pool.TryAllocate(out var address))
        {
            Counters.Add(Counter.ConnRejectedNoFreeIp);
            connection.Deny(TunnelError.NoFreeClientIp, Worker.Now);
            return;
        }
        connection.InsideAddress = address;
        _inside.Set(_pool.OffsetOf(address), connection);
        connection.Grant(Success(connection), Worker.Now);
    }

    private void Refuse(Connection connection, string why)
    {
        Counters.Add(Counter.ConnRejectedAccessDenied);
        LogRefused(_log, connection.Path.Peer, why);
        connection.Deny(TunnelError.AccessDenied, Worker.Now);
    }

    /// <summary>What a peer sent, fit for one line of a log.</summary>
    private static string Printable(string text) =>
        string.Concat(text.Select(letter => char.IsControl(letter) ? '?' : letter));

    private AuthSuccess Success(Connection connection) =>
        new(_settings.ClientIp, _settings.ServerIp, _settings.DnsIp, _worker.Inside.Mtu, connection.SessionId);

    private void Sweep(long now)
    {
        foreach (var connection in _table.All.ToArray())
        {
            var stale = connection.State != ConnectionState.Online && now - connection.CreatedAt > NotOnlineLimitMs;
            var silent = now - connection.LastOutsideAt > SilenceLimitMs;
            if (stale || silent)
            {
                Counters.Add(stale ? Counter.ConnStaleClosed : Counter.ConnAgedOut);
                End(connection, stale ? "not online in time" : "silent for a day");
            }
        }
    }

    /// <summary>Ends a connection on our own account.</summary>
    private void End(Connection connection, string why)
    {
        LogClosed(_log, SessionId.format(connection.SessionId), connection.Path.Peer, why);
        connection.Disconnect();
        Release(connection);
    }

    private void Release(Connection connection)
    {
        Counters.Add(Counter.ConnClosed);
        _online -= connection.WasOnline ? 1 : 0;
        _table.Remove(connection, Worker.Now);
        if (connection.InsideAddress != 0)
        {
            _inside.Set(_pool.OffsetOf(connection.InsideAddress), null);
            _pool.Free(connection.InsideAddress);
            connection.InsideAddress = 0;
        }
        connection.Dispose();
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "session {Session}: link up with {Peer} ({Security})")]
    private static partial void LogLinkUp(ILogger log, string session, PeerAddress peer, string security);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: online, {Peer}")]
    private static partial void LogOnline(ILogger log, string session, PeerAddress peer);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: moved from {From} to {To}")]
    private static partial void LogMoved(ILogger log, string session, PeerAddress from, PeerAddress to);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Peer} refused: {Why}")]
    private static partial void LogRefused(ILogger log, PeerAddress peer, string why);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: closed, {Peer}: {Reason}")]
    private static partial void LogClosed(ILogger log, string session, PeerAddress peer, string reason);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "{Online} online, {All} connections, {Pending} pending rotations, {Addresses} addresses assigned"
    )]
    private static partial void LogReport(ILogger log, int online, int all, int pending, int addresses);
}

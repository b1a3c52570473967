using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Accounting;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Tunnel;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>
/// The connections of one worker: whose datagram and whose packet it is, who comes and who goes. All members run on the
/// worker's thread; handshakes and password hashes run on the thread pool.
/// </summary>
public sealed partial class ConnectionManager : IWorkerProgram, IServerEvents, IDisposable
{
    private const long MoveLogMs = 60_000;
    private const int RejectsPerTick = 100; // answers to unknown sessions per second
    private const long ExpiryMs = 6 * 60 * 60_000; // between two looks for logins that have expired

    private readonly SharedState _shared;
    private readonly ServerSettings _settings;
    private readonly WorkerContext _worker;
    private readonly AddressPool _pool;
    private readonly InsideDirectory _inside;
    private readonly Strangers _strangers;
    private readonly Logins _logins;
    private readonly DtlsListener? _listener;
    private readonly StreamAcceptor _acceptor;
    private readonly ConnectionTable _table;
    private readonly SessionBook _book;
    private readonly ILogger _log;
    private Connection? _recent; // the latest connection that its address and its session id both named
    private int _online; // connections that have been Online
    private int _rejectsLeft = RejectsPerTick;
    private Census _latest = new(0, 0, 0, null, 0);
    private long _sweepAt;
    private long _expiryAt;
    private long _reportAt;

    public ConnectionManager(SharedState shared, WorkerContext worker)
    {
        _shared = shared;
        _settings = shared.Settings;
        _worker = worker;
        _pool = shared.Pool;
        _inside = shared.Inside;
        _log = shared.Log;
        _table = new ConnectionTable(shared.Gate);
        _strangers = new Strangers(shared.Identity.AdmissionOf(shared.Workers), shared.Seed, worker);
        _logins = new Logins(shared, worker, _strangers, EndElsewhere);
        _listener = shared.Identity.Tls is { } tls ? new DtlsListener(tls, worker, worker.Now) : null;
        _acceptor = new StreamAcceptor(shared, worker, _strangers, Create);
        _book = new SessionBook(worker, shared.Accounting);
        _sweepAt = worker.Now + _settings.SweepMs;
        _expiryAt = worker.Now + ExpiryMs;
        _reportAt = worker.Now + _settings.ReportMs;
    }

    /// <summary>The managers of all workers, this one among them; the first one reports for all.</summary>
    public required IReadOnlyList<ConnectionManager> Siblings { get; init; }

    /// <summary>Connections of this worker, up to a second ago. Any thread.</summary>
    internal Census Latest
    {
        get => Volatile.Read(ref _latest);
        private set => Volatile.Write(ref _latest, value);
    }

    private Counters Counters => _worker.Counters;

    public Connection? Find(ReadOnlySpan<byte> packet)
    {
        var connection = _inside[_pool.OffsetOf(Rewrite.destinationOf(packet))];
        if (connection is null)
        {
            Counters.Add(Counter.TunRejectedPacketNoConnection);
        }
        return connection;
    }

    public bool IsReported(ReadOnlySpan<byte> packet) =>
        _settings.IcmpUnreachable && _pool.OffsetOf(Rewrite.destinationOf(packet)) >= 0;

    public void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (_recent is { } recent && recent.Path.Peer == from.Peer && recent.Owns(header.Session))
        {
            Receive(recent, header, from, body, now); // as the look-ups below would say
            return;
        }
        if (_pool.OffsetOf(from.Peer.IPv4) >= 0)
        {
            // Sent through the tunnel to the server itself: its connection would move into itself, and answer itself for ever.
            Counters.Add(Counter.UdpSourceInside);
            return;
        }
        var known = _table.ByPeer(from.Peer);
        Connection? other = null;
        var claim = ClaimOf(header.Session, known, ref other);
        var latest = claim == SessionClaim.Empty ? _table.Successor(from.Peer) ?? known : null;
        var opening = latest is null ? Opening.None : DispatchRules.opening(body, latest.ClientRandom);
        var sender = known is null ? Sender.Stranger : Sender.Known;
        switch (DispatchRules.verdict(claim, sender, header.Payload, opening))
        {
            case DispatchVerdict.Receive:
                _recent = claim == SessionClaim.OfPeer ? known : null;
                Receive(known!, header, from, body, now);
                break;
            case DispatchVerdict.ReceiveHandshake:
                if (TryShare(latest!))
                {
                    latest!.Receive(header, body, now);
                }
                break;
            case DispatchVerdict.Move:
                Move(other!, header, from, body, now);
                break;
            case DispatchVerdict.Accept:
                Accept(header.Version, from, body, now);
                break;
            case DispatchVerdict.Restart:
                Restart(header.Version, from, body, now);
                break;
            case DispatchVerdict.Reject:
                Reject(header.Session, from);
                break;
            default:
                Counters.Add(Counter.UdpParseWireFailed); // answering it would make two servers reject each other for ever
                break;
        }
    }

    public void Tick(long now)
    {
        _rejectsLeft = RejectsPerTick;
        _table.ForgetClosed(now);
        _logins.Tick(now);
        _acceptor.Tick(now);
        _book.Tick(now);
        foreach (var connection in _strangers.Overdue(now))
        {
            Counters.Add(Counter.ConnStaleClosed);
            End(connection, "not online in time");
        }
        if (now >= _sweepAt)
        {
            _sweepAt = now + _settings.SweepMs;
            Sweep(now);
        }
        if (now >= _expiryAt)
        {
            _expiryAt = now + ExpiryMs;
            EndExpired();
        }
        Latest = Count();
        EndIfDrained(now);
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
            Release(connection, "the server stops");
        }
        _acceptor.Dispose();
    }

    public void AuthRequested(Connection connection, AuthRequest request)
    {
        if (connection.Record.IsTurnedAway)
        {
            CryptographicOperations.ZeroMemory(request.Password);
            return;
        }
        _logins.OnRequest(connection, request);
    }

    public void StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.LinkUp)
        {
            _strangers.OnLinkUp(connection, _worker.Now);
            _book.LinkUp(connection);
            LogLinkUp(_log, connection.SessionId.ToString(), connection.Path.Peer, connection.Security);
            RefuseIfTurnedAway(connection);
            return;
        }
        _online++;
        _strangers.OnOnline(connection, _worker.Now);
        _book.Online(connection);
        LogOnline(
            _log,
            connection.SessionId.ToString(),
            connection.Path.Peer,
            _logins.UserOf(connection),
            connection.InsideAddress
        );
        if (_table.Promote(connection) is { } replaced)
        {
            // The client has started again from the same port; the older session's peer is gone.
            End(replaced, "its client has started again");
        }
    }

    public void RotationStarted(Connection connection, SessionId pending) => _table.AddPending(pending, connection);

    public void RotationFinalized(Connection connection, SessionId previous) =>
        _table.FinishRotation(connection, previous, _worker.Now);

    public void Closed(Connection connection, TunnelError reason)
    {
        if (reason is TunnelError.Goodbye or TunnelError.TlsPeerClosed)
        {
            Counters.Add(Counter.ConnClientClosed);
        }
        LogClosing(
            connection,
            reason == TunnelError.TlsFatalAlert && !connection.WasOnline
                ? "TlsFatalAlert, the client refuses the handshake and its log says why"
                : reason.ToString()
        );
        _book.Failed(reason);
        Release(connection, reason.ToString());
    }

    public bool AcceptFrom(StreamListener listener, long now) => _acceptor.AcceptFrom(listener, now);

    public void Dispose() => _listener?.Dispose();

    private SessionClaim ClaimOf(SessionId session, Connection? known, ref Connection? other)
    {
        if (session == SessionId.Empty)
        {
            return SessionClaim.Empty;
        }
        if (session == SessionId.Rejected)
        {
            return SessionClaim.Rejected;
        }
        if (known?.Owns(session) == true)
        {
            return SessionClaim.OfPeer;
        }
        other = _table.BySession(session) ?? _table.ByPending(session);
        return other is null ? SessionClaim.Unknown : SessionClaim.OfOther;
    }

    /// <summary>
    /// Counts a datagram for a connection before anything is opened: only that shows whether it is authentic. False: its
    /// peer is above its share, and the datagram is dropped and counted.
    /// </summary>
    private bool TryShare(Connection connection)
    {
        if (_worker.Shares.TryTake(ref connection.Record.Share))
        {
            return true;
        }
        Counters.Add(Counter.UdpPeerAboveShare);
        return false;
    }

    /// <summary>
    /// The connection of the sender's address reads a datagram; if it holds nothing for it, its successor does, whose
    /// client has neither learned an id nor got keys of the Expresslane yet.
    /// </summary>
    private void Receive(
        Connection known,
        in WireHeader header,
        in OutsideAddress from,
        ReadOnlySpan<byte> body,
        long now
    )
    {
        if (!TryShare(known))
        {
            return;
        }
        var isOfHandshake = header.Session == SessionId.Empty && !header.Expresslane;
        var successor = isOfHandshake ? _table.Successor(from.Peer) : null;
        if (successor is not null && header.Version != known.Version)
        {
            successor.Receive(header, body, now);
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

    /// <summary>A connection's session id under another address: if the datagram is authentic, its peer has moved.</summary>
    private void Move(Connection moved, in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (moved.State != ConnectionState.Online)
        {
            Counters.Add(Counter.UdpMoveBeforeLogin); // its peer has not learned the id yet
        }
        else if (!TryShare(moved))
        {
            return;
        }
        else if (moved.Receive(header, body, now) == 0)
        {
            Counters.Add(Counter.UdpSessionRotationAttemptedViaReplay);
        }
        else if (moved.State == ConnectionState.Online)
        {
            LogMove(moved, from.Peer, now);
            _recent = null;
            _table.Move(moved, from.Peer);
            var isRotating = moved.PendingSessionId != SessionId.Empty;
            moved.MoveTo(from, isRotating ? SessionId.Empty : _worker.Ids.Draw());
            Counters.Add(Counter.UdpConnRecoveredViaSession);
        }
    }

    /// <summary>One line per connection and minute: a peer that alternates between two ports does not fill the log.</summary>
    private void LogMove(Connection moved, in PeerAddress to, long now)
    {
        if (now < moved.Record.LogMovesAt)
        {
            Counters.Add(Counter.UdpMoveNotLogged);
            return;
        }
        moved.Record.LogMovesAt = now + MoveLogMs;
        LogMoved(_log, moved.SessionId.ToString(), moved.Path.Peer, to);
    }

    /// <summary>
    /// A client has started again from the port of a connection. The new handshake runs beside an established session until
    /// it has succeeded.
    /// </summary>
    private void Restart(ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (
            !_strangers.TryDatagram(from.Peer, now) || _listener?.TryAccept(version, from, body, now) is not { } session
        )
        {
            return;
        }
        if (_table.Successor(from.Peer) is { } successor)
        {
            End(successor, "its client has started again");
        }
        if (_table.ByPeer(from.Peer) is { WasOnline: false } unfinished)
        {
            End(unfinished, "its client has started again");
        }
        Create(session, version, from, body, now);
    }

    private void Accept(ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (_strangers.TryDatagram(from.Peer, now) && _listener?.TryAccept(version, from, body, now) is { } session)
        {
            Create(session, version, from, body, now);
        }
    }

    private void Create(DtlsSession session, ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        var id = _worker.Ids.Draw();
        var connection = Connection.ForServer(
            _shared.ConnectionSettings,
            _worker,
            this,
            version,
            id,
            session,
            from,
            ClientHello.randomOf(body),
            now
        );
        Enter(connection, now);
    }

    /// <summary>A TCP connection has been accepted.</summary>
    private void Create(TlsSession session, StreamSocket socket, PeerAddress peer)
    {
        var path = new OutsideAddress(peer, socket.Local);
        Enter(
            Connection.ForServer(
                _shared.ConnectionSettings,
                _worker,
                this,
                _worker.Ids.Draw(),
                session,
                socket,
                path,
                _worker.Now
            ),
            _worker.Now
        );
    }

    private void Enter(Connection connection, long now)
    {
        _recent = null;
        _table.Add(connection);
        Counters.Add(Counter.ConnCreated);
        _book.Created(connection);
        TurnAwayIfDraining(connection);
        if (_strangers.Enter(connection) is { } gaveWay)
        {
            Counters.Add(Counter.ConnGaveWay);
            End(gaveWay, "too many connections without a login");
        }
        connection.Start(now);
    }

    /// <summary>Tells the sender that its session is not known here, within a rate.</summary>
    private void Reject(SessionId session, in OutsideAddress to)
    {
        if (_table.IsRecentlyClosed(session))
        {
            Counters.Add(Counter.UdpDataAfterDisconnect);
            return;
        }
        if (!_strangers.TryDatagram(to.Peer, _worker.Now))
        {
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
        if (_worker.Control.Send(to, reject, 0) < 0)
        {
            Counters.Add(Counter.UdpControlSendFailed); // the peer asks again
            return;
        }
        Counters.Add(Counter.UdpDatagramsSent);
        Counters.Add(Counter.UdpBytesSent, reject.Length);
    }
}

using Lightway.Protocol;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Sessions;

/// <summary>
/// Finds the connections of one worker by peer address, session id and pending session id. Removal takes out only what
/// still points at the connection that goes: a newer one under the same address stays. One thread.
/// </summary>
/// <param name="gate">Lets the sessions' datagrams through; null: nothing is in their way.</param>
public sealed class ConnectionTable(StrangerGate? gate)
{
    private const long AfterlifeMs = 10_000;
    private readonly Dictionary<PeerAddress, Connection> _byPeer = [];
    private readonly Dictionary<PeerAddress, Connection> _successors = []; // handshaking while an older one holds the address
    private readonly Dictionary<SessionId, Connection> _bySession = [];
    private readonly Dictionary<SessionId, Connection> _byPending = [];
    private readonly Queue<(SessionId Id, long Until)> _retired = []; // of finished rotations, still let through by the gate
    private readonly HashSet<Connection> _streams = []; // found by their sockets
    private readonly Dictionary<SessionId, long> _closed = []; // ids of sessions that ended recently, with the time to forget them

    /// <summary>Every connection, also those that handshake.</summary>
    public IEnumerable<Connection> All => _bySession.Values.Concat(_streams);

    public int Count => _bySession.Count + _streams.Count;

    public int PendingRotations => _byPending.Count;

    public Connection? ByPeer(in PeerAddress peer) => _byPeer.GetValueOrDefault(peer);

    public Connection? Successor(in PeerAddress peer) => _successors.GetValueOrDefault(peer);

    public Connection? BySession(SessionId id) => _bySession.GetValueOrDefault(id);

    public Connection? ByPending(SessionId id) => _byPending.GetValueOrDefault(id);

    /// <summary>Registers a new connection; if its peer's address is taken, as successor. No datagram finds a stream.</summary>
    public void Add(Connection connection)
    {
        if (connection.Transport == Transport.Stream)
        {
            _streams.Add(connection);
            return;
        }
        _bySession[connection.SessionId] = connection;
        gate?.Admit(connection.SessionId);
        if (!_byPeer.TryAdd(connection.Path.Peer, connection))
        {
            _successors[connection.Path.Peer] = connection;
        }
    }

    /// <summary>The successor has come Online: it takes the address over. Returns the connection it replaces.</summary>
    public Connection? Promote(Connection connection)
    {
        var peer = connection.Path.Peer;
        if (Successor(peer) != connection)
        {
            return null;
        }
        _successors.Remove(peer);
        var replaced = ByPeer(peer);
        _byPeer[peer] = connection;
        return replaced;
    }

    /// <summary>The connection's peer has moved; call before <see cref="Connection.MoveTo"/>.</summary>
    public void Move(Connection connection, in PeerAddress to)
    {
        Leave(connection);
        _byPeer[to] = connection;
    }

    public void AddPending(SessionId id, Connection connection)
    {
        _byPending[id] = connection;
        gate?.Admit(id);
    }

    /// <summary>A rotation is complete: the connection is known by its new id only.</summary>
    public void FinishRotation(Connection connection, SessionId previous, long now)
    {
        _retired.Enqueue((previous, now + AfterlifeMs));
        Forget(_bySession, previous, connection);
        Forget(_byPending, connection.SessionId, connection);
        _bySession[connection.SessionId] = connection;
    }

    /// <summary>Takes a connection out; datagrams for its session within <see cref="AfterlifeMs"/> are dropped without a reject.</summary>
    public void Remove(Connection connection, long now)
    {
        if (_streams.Remove(connection))
        {
            return;
        }
        _closed[connection.SessionId] = now + AfterlifeMs;
        Leave(connection);
        Forget(_bySession, connection.SessionId, connection);
        if (connection.PendingSessionId != SessionId.Empty)
        {
            Forget(_byPending, connection.PendingSessionId, connection);
            gate?.Forget(connection.PendingSessionId);
        }
    }

    /// <summary>The session ended a moment ago: its peer's last words are still on the way.</summary>
    public bool IsRecentlyClosed(SessionId session) => _closed.ContainsKey(session);

    /// <summary>Forgets sessions that ended long enough ago.</summary>
    public void ForgetClosed(long now)
    {
        foreach (var (session, until) in _closed)
        {
            if (now >= until)
            {
                _closed.Remove(session);
                gate?.Forget(session);
            }
        }
        while (_retired.TryPeek(out var retired) && now >= retired.Until)
        {
            _retired.Dequeue();
            gate?.Forget(retired.Id);
        }
    }

    /// <summary>Gives up the connection's address; one that handshakes behind it takes its place.</summary>
    private void Leave(Connection connection)
    {
        var peer = connection.Path.Peer;
        Forget(_successors, peer, connection);
        if (ByPeer(peer) == connection)
        {
            _byPeer.Remove(peer);
            if (_successors.Remove(peer, out var next))
            {
                _byPeer[peer] = next;
            }
        }
    }

    private static void Forget<TKey>(Dictionary<TKey, Connection> table, TKey key, Connection connection)
        where TKey : notnull
    {
        if (table.TryGetValue(key, out var found) && found == connection)
        {
            table.Remove(key);
        }
    }
}

using Lightway.Protocol;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Sessions;

/// <summary>
/// What peers without a login may cost one worker: asks <see cref="Admission"/> before anything is spent on them, and
/// remembers who has not logged in yet. One thread.
/// </summary>
internal sealed class Strangers(AdmissionLimits limits, HashSeed seed, WorkerContext worker)
{
    private const int LogLinesPerSecond = 10;
    private const int DatagramsOfHandshake = 2; // at least: a ClientHello, and one with the cookie

    private Admission _admission = new(limits, seed);
    private AdmissionLimits _limits = limits;
    private readonly RateLimit _logLines = new(1, LogLinesPerSecond, 3 * LogLinesPerSecond);
    private readonly Dictionary<Connection, Guest> _guests = [];
    private readonly Dictionary<long, Connection> _byTicket = [];

    /// <summary>
    /// Other limits, from now on. What sources have used up is forgotten if they differ. Returns the connections that the
    /// limits have no place for: they must be ended.
    /// </summary>
    public List<Connection> Use(AdmissionLimits limits)
    {
        var ended = new List<Connection>();
        if (limits.Equals(_limits))
        {
            return ended;
        }
        _limits = limits;
        _admission = new Admission(limits, seed);
        var guests = _guests.OrderBy(guest => guest.Key.CreatedAt).ToList();
        _byTicket.Clear();
        foreach (var (connection, guest) in guests)
        {
            var entry = _admission.HalfOpen.Enter(guest.Source);
            guest.Ticket = entry.Ticket;
            _byTicket.Add(entry.Ticket, connection);
            if (entry.GaveWay != 0 && _byTicket.Remove(entry.GaveWay, out var gaveWay))
            {
                _guests.Remove(gaveWay);
                ended.Add(gaveWay);
            }
        }
        return ended;
    }

    /// <summary>Where a peer's datagrams come from.</summary>
    public SourceKey SourceOf(in PeerAddress peer)
    {
        if (!peer.IPv4.IsNone)
        {
            return _admission.SourceOf(peer.IPv4.Value);
        }
        var (high, low) = peer.IPv6;
        return _admission.SourceOf(high, low);
    }

    /// <summary>False: this datagram may cost nothing more; counted.</summary>
    public bool TryDatagram(in PeerAddress from, long now)
    {
        if (_admission.TryDatagram(SourceOf(from), now))
        {
            return true;
        }
        worker.Counters.Add(Counter.UdpStrangerOverLimit);
        return false;
    }

    /// <summary>False: a connection of this peer may cost nothing more; counted. It costs as much as the datagrams of a handshake.</summary>
    public bool TryConnection(in PeerAddress from, long now)
    {
        var source = SourceOf(from);
        for (var i = 0; i < DatagramsOfHandshake; i++)
        {
            if (!_admission.TryDatagram(source, now))
            {
                worker.Counters.Add(Counter.TcpStrangerOverLimit);
                return false;
            }
        }
        return true;
    }

    /// <summary>A connection begins its handshake. Returns the one that must be ended for it, or null.</summary>
    public Connection? Enter(Connection connection)
    {
        var source = SourceOf(connection.Path.Peer);
        var entry = _admission.HalfOpen.Enter(source);
        _guests.Add(connection, new Guest(entry.Ticket, source));
        _byTicket.Add(entry.Ticket, connection);
        if (entry.GaveWay == 0 || !_byTicket.Remove(entry.GaveWay, out var gaveWay))
        {
            return null;
        }
        _guests.Remove(gaveWay);
        return gaveWay;
    }

    /// <summary>The handshake of a connection is complete.</summary>
    public void OnLinkUp(Connection connection, long now)
    {
        if (_guests.TryGetValue(connection, out var guest))
        {
            guest.LinkUpAt = now;
        }
    }

    /// <summary>A connection has asked to be let in.</summary>
    public void OnAsked(Connection connection)
    {
        if (_guests.TryGetValue(connection, out var guest))
        {
            guest.HasAsked = true;
        }
    }

    /// <summary>A connection has logged in: its sender was no stranger, and what its handshake took is given back.</summary>
    public void OnOnline(Connection connection, long now)
    {
        if (_guests.TryGetValue(connection, out var guest))
        {
            for (var i = 0; i < DatagramsOfHandshake; i++)
            {
                _admission.Refund(guest.Source, now);
            }
        }
        Remove(connection);
    }

    /// <summary>A connection has logged in or ended.</summary>
    public void Remove(Connection connection)
    {
        if (_guests.Remove(connection, out var guest))
        {
            _byTicket.Remove(guest.Ticket);
            _admission.HalfOpen.Leave(guest.Ticket);
        }
    }

    /// <summary>The connections whose time to log in is over.</summary>
    public List<Connection> Overdue(long now)
    {
        var overdue = new List<Connection>();
        foreach (var (connection, guest) in _guests)
        {
            if (LoginPatience.isOver(connection.CreatedAt, guest.LinkUpAt, guest.HasAsked, now))
            {
                overdue.Add(connection);
            }
        }
        return overdue;
    }

    /// <summary>False: strangers have caused enough lines in the log; counted.</summary>
    public bool MayLog(long now)
    {
        if (_logLines.Take(0, now))
        {
            return true;
        }
        worker.Counters.Add(Counter.LogLinesSuppressed);
        return false;
    }

    /// <summary>A connection without a login.</summary>
    private sealed class Guest(long ticket, SourceKey source)
    {
        public long Ticket { get; set; } = ticket;
        public SourceKey Source { get; } = source;
        public long LinkUpAt { get; set; } = Time.Never;
        public bool HasAsked { get; set; }
    }
}

using System.Globalization;
using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Server.Observe;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Accounting;

/// <summary>
/// What is kept about the connections of one worker for metrics, statistics and accounting. Members run on the worker's
/// thread, unless they say otherwise.
/// </summary>
/// <param name="log">Null: there is no accounting.</param>
public sealed class SessionBook(WorkerContext worker, AccountingLog? log)
{
    private const int AccountBytes = 16; // nobody guesses one, and no two are the same
    private const int LinesPerTick = 1_000; // sessions that began together don't hold the packets up
    private const long MinuteMs = 60_000;

    private static readonly long[] s_milliseconds =
    [
        10,
        25,
        50,
        100,
        250,
        500,
        1_000,
        2_500,
        5_000,
        10_000,
        30_000,
        60_000,
    ];

    private readonly Dictionary<Connection, Session> _sessions = [];
    private readonly Queue<Due> _due = []; // the earliest first
    private SessionUses _uses = new();

    /// <summary>Handshakes, logins and errors with their labels. Any thread.</summary>
    public LabelledCounts Counts { get; } = new();

    /// <summary>Milliseconds from the first datagram to the end of the handshake. Any thread.</summary>
    public Histogram ToLinkUp { get; } = NewTimes();

    /// <summary>Milliseconds from the first datagram to the login. Any thread.</summary>
    public Histogram ToOnline { get; } = NewTimes();

    /// <summary>As of the latest report. Any thread.</summary>
    public SessionUses Uses
    {
        get => Volatile.Read(ref _uses);
        private set => Volatile.Write(ref _uses, value);
    }

    private sealed class Session(Connection connection)
    {
        /// <summary>Null: it has ended.</summary>
        public Connection? Connection { get; set; } = connection;
    }

    private readonly record struct Due(Session Session, long At);

    /// <summary>An empty histogram of milliseconds.</summary>
    public static Histogram NewTimes() => new(s_milliseconds);

    public void Created(Connection connection) => Counts.Add(new Labelled("conn_created", VersionOf(connection)));

    public void LinkUp(Connection connection)
    {
        ToLinkUp.Observe(worker.Now - connection.CreatedAt);
        Counts.Add(Secured("conn_link_up", connection));
    }

    public void Online(Connection connection)
    {
        ToOnline.Observe(worker.Now - connection.CreatedAt);
        Counts.Add(Secured("conn_online", connection));
        connection.Record.Since = DateTime.UtcNow;
        connection.Record.Account = Convert.ToHexStringLower(RandomNumberGenerator.GetBytes(AccountBytes));
        if (log is not null)
        {
            var session = new Session(connection);
            _sessions.Add(connection, session);
            _due.Enqueue(new Due(session, worker.Now + log.IntervalMs));
        }
    }

    /// <summary>The connection has ended because of this. Call <see cref="Ended"/>, too.</summary>
    public void Failed(TunnelError reason)
    {
        switch (reason)
        {
            case TunnelError.TlsNameMismatch
            or TunnelError.TlsDuplicateMessage
            or TunnelError.TlsCaMissing
            or TunnelError.TlsFatalAlert
            or TunnelError.TlsOther:
                Counts.Add(new Labelled("conn_tls_error", "true"));
                break;
            case TunnelError.Goodbye
            or TunnelError.TlsPeerClosed
            or TunnelError.TimedOut
            or TunnelError.AccessDenied
            or TunnelError.NoFreeClientIp:
                break;
            default:
                Counts.Add(new Labelled("conn_unknown_error", "true"));
                break;
        }
    }

    /// <summary>Call while the connection still has its inside address.</summary>
    public void Ended(Connection connection, string why)
    {
        if (_sessions.Remove(connection, out var session))
        {
            session.Connection = null; // the queue keeps the entry for a while, but not the connection
            Add(connection, DateTime.UtcNow, why);
        }
    }

    public void Tick(long now)
    {
        for (var budget = LinesPerTick; budget > 0 && _due.TryPeek(out var due) && now >= due.At; budget--)
        {
            _due.Dequeue();
            if (due.Session.Connection is { } connection)
            {
                Add(connection, DateTime.UtcNow, null);
                _due.Enqueue(new Due(due.Session, now + log!.IntervalMs));
            }
        }
    }

    /// <summary>Looks at all sessions.</summary>
    public void CountUses(IEnumerable<Connection> connections, long now)
    {
        var uses = new SessionUses();
        foreach (var connection in connections)
        {
            if (connection.State != ConnectionState.Online)
            {
                continue;
            }
            uses.Encoding += connection.Hooks is { IsEncoding: true } ? 1 : 0;
            for (var i = 0; i < SessionUses.Minutes.Length; i++)
            {
                var window = SessionUses.Minutes[i] * MinuteMs;
                switch (SessionUseModule.within(window, now, connection.LastOutsideAt, connection.LastPacketAt))
                {
                    case SessionUse.Active:
                        uses.Active[i]++;
                        break;
                    case SessionUse.Standby:
                        uses.Standby[i]++;
                        break;
                }
            }
        }
        Uses = uses;
    }

    private void Add(Connection connection, DateTime time, string? reason)
    {
        if (log?.TryAdd(AccountingEntry.Of(connection, time, reason)) == false)
        {
            worker.Counters.Add(Counter.AccountingLost);
        }
    }

    private static string VersionOf(Connection connection) =>
        string.Create(CultureInfo.InvariantCulture, $"{connection.Version >> 8}.{connection.Version & 0xff}");

    /// <summary>Suite, group and version of TLS as labels.</summary>
    private static Labelled Secured(string name, Connection connection)
    {
        var parts = connection.Security.Split(", ", 2);
        return new Labelled(
            name,
            parts[0],
            parts.Length > 1 ? parts[1] : "",
            connection.Transport == Transport.Stream ? "TLSv1.3" : "DTLSv1.3"
        );
    }
}

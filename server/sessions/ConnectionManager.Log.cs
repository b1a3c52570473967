using Lightway.Segmenter;
using Lightway.Server.Accounting;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <content>Lines of the log.</content>
public sealed partial class ConnectionManager
{
    /// <summary>A line for each session that was Online; of peers that never logged in, as many lines as strangers may cause.</summary>
    private void LogClosing(Connection connection, string why)
    {
        if (connection.WasOnline)
        {
            LogClosed(_log, connection.SessionId.ToString(), connection.Path.Peer, why);
        }
        else if (_strangers.MayLog(_worker.Now))
        {
            LogNotOnline(_log, connection.Path.Peer, why, connection.TlsError);
        }
    }

    /// <summary>See there which members are for any thread.</summary>
    public SessionBook Book => _book;

    /// <summary>Has all workers look at their sessions; the last one to do so writes the line.</summary>
    private void Report()
    {
        var left = Siblings.Count;
        foreach (var manager in Siblings)
        {
            manager._worker.Post(() =>
            {
                manager._book.CountUses(manager._table.All, manager._worker.Now);
                if (Interlocked.Decrement(ref left) == 0)
                {
                    WriteReport();
                }
            });
        }
    }

    private void WriteReport()
    {
        var uses = SessionUses.Sum(Siblings.Select(manager => manager.Book.Uses));
        LogReport(
            _log,
            Siblings.Sum(manager => manager.Latest.Online),
            Siblings.Sum(manager => manager.Latest.Connections),
            Siblings.Sum(manager => manager.Latest.Rotations),
            _pool.Assigned,
            SessionUses.TextOf(uses.Active),
            SessionUses.TextOf(uses.Standby),
            Siblings.Sum(manager => manager.Counters[Counter.ConnOnline])
        );
    }

    [LoggerMessage(Level = LogLevel.Debug, Message = "session {Session}: link up with {Peer} ({Security})")]
    private static partial void LogLinkUp(ILogger log, string session, PeerAddress peer, string security);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "session {Session}: online, {Peer}, user '{User}', inside address {Inside}"
    )]
    private static partial void LogOnline(
        ILogger log,
        string session,
        PeerAddress peer,
        string user,
        Ipv4Address inside
    );

    [LoggerMessage(Level = LogLevel.Information, Message = "{Peer}: closed without a login: {Reason} ({Tls})")]
    private static partial void LogNotOnline(ILogger log, PeerAddress peer, string reason, string tls);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: moved from {From} to {To}")]
    private static partial void LogMoved(ILogger log, string session, PeerAddress from, PeerAddress to);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: closed, {Peer}: {Reason}")]
    private static partial void LogClosed(ILogger log, string session, PeerAddress peer, string reason);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "{Online} online, {All} connections, {Pending} pending rotations, {Addresses} addresses assigned; within 5/15/60 min {Active} active, {Standby} standby; {Lifetime} sessions since start"
    )]
    private static partial void LogReport(
        ILogger log,
        int online,
        int all,
        int pending,
        int addresses,
        string active,
        string standby,
        long lifetime
    );

    [LoggerMessage(Level = LogLevel.Information, Message = "drained: {Left} sessions are left, and the server ends")]
    private static partial void LogDrained(ILogger log, int left);
}

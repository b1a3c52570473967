using Lightway.Protocol;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Sessions;

/// <content>How connections end, other than by their peers.</content>
public sealed partial class ConnectionManager
{
    private void Sweep(long now)
    {
        foreach (var connection in _table.All.ToArray())
        {
            if (now - connection.LastOutsideAt > _logins.IdleLimitOf(connection))
            {
                Counters.Add(Counter.ConnAgedOut);
                End(connection, "silent for longer than session_idle_limit");
            }
        }
    }

    private void EndExpired()
    {
        foreach (var connection in _logins.Expired())
        {
            Counters.Add(Counter.UserAuthEviction);
            End(connection, "its token has expired");
        }
    }

    /// <summary>Ends a connection on our own account.</summary>
    private void End(Connection connection, string why)
    {
        LogClosing(connection, why);
        connection.Disconnect();
        Release(connection, why);
    }

    /// <summary>Ends a connection of this or another worker, on its thread, and runs an action there.</summary>
    private void EndElsewhere(Connection connection, string why, Action then)
    {
        var owner = Siblings[connection.Home.Ids.WorkerNumber];
        connection.Home.Post(() =>
        {
            if (connection.State == ConnectionState.Online)
            {
                owner.Counters.Add(Counter.ConnReplaced);
                owner.End(connection, why);
            }
            then();
        });
    }

    private void Release(Connection connection, string why)
    {
        Counters.Add(Counter.ConnClosed);
        _book.Ended(connection, why);
        _online -= connection.WasOnline ? 1 : 0;
        _turnedAway -= connection.Record.IsTurnedAway ? 1 : 0;
        _recent = null;
        _table.Remove(connection, _worker.Now);
        _strangers.Remove(connection);
        _logins.Release(connection);
        connection.Dispose();
    }
}

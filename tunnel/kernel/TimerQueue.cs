using Lightway.Tunnel.Connections;

namespace Lightway.Tunnel.Kernel;

/// <summary>
/// Connections by the time they want to be called. A connection whose timer moves later is not searched for: its old
/// entry finds out when it comes up. One thread.
/// </summary>
public sealed class TimerQueue
{
    private readonly PriorityQueue<Connection, long> _queue = new();

    /// <summary>When <see cref="Run"/> has something to do; <see cref="long.MaxValue"/>: never.</summary>
    public long NextAt => _queue.TryPeek(out _, out var at) ? at : long.MaxValue;

    /// <summary>Call when <see cref="Connection.DueAt"/> may have moved.</summary>
    public void Schedule(Connection connection)
    {
        var due = connection.DueAt;
        if (due < connection.ScheduledAt)
        {
            connection.ScheduledAt = due;
            _queue.Enqueue(connection, due);
        }
    }

    /// <summary>Runs every timer that is due.</summary>
    public void Run(long now)
    {
        // Only what is queued now: a timer that is due again at once must not keep the worker here.
        for (var left = _queue.Count; left > 0 && _queue.TryPeek(out var connection, out var at) && at <= now; left--)
        {
            _queue.Dequeue();
            if (at != connection.ScheduledAt || connection.State == Protocol.ConnectionState.Disconnected)
            {
                continue; // an entry that an earlier one has replaced
            }
            connection.ScheduledAt = long.MaxValue;
            if (connection.DueAt <= now)
            {
                connection.OnTimer(now);
            }
            if (connection.State != Protocol.ConnectionState.Disconnected)
            {
                Schedule(connection);
            }
        }
    }
}

namespace Lightway.Tunnel.Kernel;

/// <summary>Something that wants to be called at a time. Times are milliseconds of the worker's clock.</summary>
public interface ITimed
{
    /// <summary>When <see cref="OnTimer"/> is due; <see cref="long.MaxValue"/>: never.</summary>
    long DueAt { get; }

    /// <summary>Its place in the queue, of its own for life.</summary>
    TimerNode Timer { get; }

    /// <summary>Acts on whatever is due.</summary>
    void OnTimer(long now);
}

/// <summary>
/// What the queue holds of something timed. Once released it holds nothing: an entry may stay for as long as its timer
/// would have run, and must not keep a connection and its keys for so long.
/// </summary>
public sealed class TimerNode(ITimed owner)
{
    /// <summary>Null once released.</summary>
    internal ITimed? Owner { get; private set; } = owner;

    /// <summary>The due time of its newest entry.</summary>
    internal long ScheduledAt { get; set; } = long.MaxValue;

    /// <summary>Its owner has ended and is never called again.</summary>
    public void Release() => Owner = null;

    /// <summary>True if <see cref="TimerQueue.Schedule"/> has something to do.</summary>
    public bool IsLaterThan(long due) => due < ScheduledAt && Owner is not null;
}

/// <summary>
/// Timers ordered by due time. A timer that moves later leaves its entry in place; the entry is rescheduled when it is
/// popped. One thread.
/// </summary>
public sealed class TimerQueue
{
    private const int Budget = 64; // timers per run: those of many clients that came together must not hold up the packets
    private readonly PriorityQueue<TimerNode, long> _queue = new();

    /// <summary>When <see cref="Run"/> has something to do; <see cref="long.MaxValue"/>: never.</summary>
    public long NextAt => _queue.TryPeek(out _, out var at) ? at : long.MaxValue;

    /// <summary>Entries, those that are out of date included.</summary>
    public int Count => _queue.Count;

    /// <summary>Call when <see cref="ITimed.DueAt"/> may have moved.</summary>
    public void Schedule(ITimed timed)
    {
        var due = timed.DueAt;
        if (timed.Timer.IsLaterThan(due))
        {
            timed.Timer.ScheduledAt = due;
            _queue.Enqueue(timed.Timer, due);
        }
    }

    /// <summary>Runs timers that are due, the earliest first, within a budget: <see cref="NextAt"/> tells what is left.</summary>
    public void Run(long now)
    {
        // Only what is queued now: a timer that is due again at once must not keep the worker here.
        var calls = 0;
        for (
            var left = _queue.Count;
            left > 0 && calls < Budget && _queue.TryPeek(out var node, out var at) && at <= now;
            left--
        )
        {
            _queue.Dequeue();
            if (at != node.ScheduledAt)
            {
                continue; // an entry that an earlier one has replaced
            }
            node.ScheduledAt = long.MaxValue;
            if (node.Owner is not { } timed)
            {
                continue;
            }
            if (timed.DueAt <= now)
            {
                timed.OnTimer(now);
                calls++;
            }
            Schedule(timed);
        }
    }
}

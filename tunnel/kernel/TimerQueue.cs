namespace Lightway.Tunnel.Kernel;

/// <summary>Something that wants to be called at a time. Times are milliseconds of the worker's clock.</summary>
public interface ITimed
{
    /// <summary>When <see cref="OnTimer"/> is due; <see cref="long.MaxValue"/>: never.</summary>
    long DueAt { get; }

    /// <summary>The queue's own note: the due time of its newest entry. Starts as <see cref="long.MaxValue"/>.</summary>
    long ScheduledAt { get; set; }

    /// <summary>It has ended and is never called again.</summary>
    bool IsOver { get; }

    /// <summary>Acts on whatever is due.</summary>
    void OnTimer(long now);
}

/// <summary>
/// Timers ordered by due time. A timer that moves later leaves its entry in place; the entry is rescheduled when it is
/// popped. One thread.
/// </summary>
public sealed class TimerQueue
{
    private readonly PriorityQueue<ITimed, long> _queue = new();

    /// <summary>When <see cref="Run"/> has something to do; <see cref="long.MaxValue"/>: never.</summary>
    public long NextAt => _queue.TryPeek(out _, out var at) ? at : long.MaxValue;

    /// <summary>Call when <see cref="ITimed.DueAt"/> may have moved.</summary>
    public void Schedule(ITimed timed)
    {
        var due = timed.DueAt;
        if (due < timed.ScheduledAt)
        {
            timed.ScheduledAt = due;
            _queue.Enqueue(timed, due);
        }
    }

    /// <summary>Runs every timer that is due.</summary>
    public void Run(long now)
    {
        // Only what is queued now: a timer that is due again at once must not keep the worker here.
        for (var left = _queue.Count; left > 0 && _queue.TryPeek(out var timed, out var at) && at <= now; left--)
        {
            _queue.Dequeue();
            if (at != timed.ScheduledAt || timed.IsOver)
            {
                continue; // an entry that an earlier one has replaced
            }
            timed.ScheduledAt = long.MaxValue;
            if (timed.DueAt <= now)
            {
                timed.OnTimer(now);
            }
            if (!timed.IsOver)
            {
                Schedule(timed);
            }
        }
    }
}

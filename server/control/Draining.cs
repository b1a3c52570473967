namespace Lightway.Server.Control;

/// <summary>Whether the server takes no new sessions, and until when the others go on. Safe from any thread.</summary>
public sealed class Draining
{
    private long _deadlineAt = long.MaxValue;
    private int _hasBegun;

    /// <summary>True from the first <see cref="Begin"/> on: the server is not ready for clients.</summary>
    public bool HasBegun => Volatile.Read(ref _hasBegun) != 0;

    /// <summary>When the sessions that are left are ended, in ms of the workers' clock; <see cref="long.MaxValue"/>: never.</summary>
    public long DeadlineAt => Volatile.Read(ref _deadlineAt);

    /// <summary>Begins, or changes the deadline.</summary>
    public void Begin(long deadlineAt)
    {
        Volatile.Write(ref _deadlineAt, deadlineAt);
        Volatile.Write(ref _hasBegun, 1);
    }
}

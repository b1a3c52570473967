using System.Diagnostics;
using System.Runtime.InteropServices;

namespace Lightway.Server.Control;

/// <summary>How much of a processor a thread uses. One thread, always the same.</summary>
internal sealed unsafe partial class ThreadLoad
{
    private const int CLOCK_THREAD_CPUTIME_ID = 3; // linux/time.h
    private long _usedAt; // Stopwatch ticks
    private long _used; // ns

    /// <summary>The share of a processor, 0 to 1, since the previous call; 0 the first time.</summary>
    public double Sample()
    {
        Time time;
        if (clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time) != 0)
        {
            return 0;
        }
        var used = time.Seconds * 1_000_000_000 + time.Nanoseconds;
        var now = Stopwatch.GetTimestamp();
        var passed = Stopwatch.GetElapsedTime(_usedAt, now).TotalNanoseconds;
        var load = _usedAt == 0 || passed <= 0 ? 0 : Math.Clamp((used - _used) / passed, 0, 1);
        _usedAt = now;
        _used = used;
        return load;
    }

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, Time* time);

    /// <summary>struct timespec of a 64-bit system.</summary>
    private struct Time
    {
        public long Seconds;
        public long Nanoseconds;
    }
}

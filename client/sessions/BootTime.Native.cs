using System.Runtime.InteropServices;

namespace Lightway.Client.Sessions;

/// <summary>The clock that goes on while the machine sleeps.</summary>
internal static unsafe partial class BootTime
{
    private const int CLOCK_BOOTTIME = 7; // linux/time.h

    /// <summary>Milliseconds since the machine was started (clock_gettime(2)); 0 where the clock is missing.</summary>
    public static long Now()
    {
        var time = stackalloc long[2]; // struct timespec: tv_sec, tv_nsec
        return clock_gettime(CLOCK_BOOTTIME, time) == 0 ? (time[0] * 1000) + (time[1] / 1_000_000) : 0;
    }

    [LibraryImport("libc")]
    private static partial int clock_gettime(int clock, long* time);
}

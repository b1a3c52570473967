using System.Globalization;
using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Kernel;

/// <summary>Time of one thread, in seconds (/proc/PID/task/TID/schedstat, Documentation/scheduler/sched-stats.rst).</summary>
/// <param name="Running">On a processor.</param>
/// <param name="Waiting">Ready to run, while others had the processor.</param>
public readonly partial record struct ThreadTime(double Running, double Waiting)
{
    private const double Nanoseconds = 1e9;

    /// <summary>The kernel's number of the calling thread.</summary>
    public static int CurrentThread => gettid();

    /// <summary>Of a thread of this process; zero if the kernel does not say, or if the thread has ended.</summary>
    public static ThreadTime Of(int thread)
    {
        try
        {
            var fields = File.ReadAllText(
                    string.Create(CultureInfo.InvariantCulture, $"/proc/self/task/{thread}/schedstat")
                )
                .Split(' ');
            return new ThreadTime(Seconds(fields[0]), Seconds(fields[1]));
        }
        catch (Exception error)
            when (error is IOException or UnauthorizedAccessException or FormatException or IndexOutOfRangeException)
        {
            return default;
        }
    }

    private static double Seconds(string nanoseconds) =>
        long.Parse(nanoseconds, CultureInfo.InvariantCulture) / Nanoseconds;

    [LibraryImport("libc")]
    private static partial int gettid();
}

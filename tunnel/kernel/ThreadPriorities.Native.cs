namespace Lightway.Tunnel.Kernel;

/// <summary>Priorities of threads, which .NET does not set on Linux.</summary>
public static class ThreadPriorities
{
    private const int PRIO_PROCESS = 0; // uapi/linux/resource.h

    /// <summary>
    /// Sets the nice value of the calling thread (setpriority(2): on Linux it is one of a thread), 0 to 19. Best effort: a
    /// thread that keeps its priority does the same work.
    /// </summary>
    public static void Lower(int nice) => _ = Linux.setpriority(PRIO_PROCESS, 0, nice);
}

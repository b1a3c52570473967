namespace Lightway.Tunnel.Kernel;

/// <summary>Binds threads to processors (sched_setaffinity(2)).</summary>
internal static unsafe class Affinity
{
    private const int Words = 16; // of 64 processors each, as many as glibc's cpu_set_t

    /// <summary>Binds the calling thread to one of the processors it may use now, the number taken modulo theirs.</summary>
    /// <returns>False: errno says why, and nothing has changed.</returns>
    public static bool TryPin(int number)
    {
        var mask = stackalloc ulong[Words];
        if (Linux.sched_getaffinity(0, Words * sizeof(ulong), mask) < 0)
        {
            return false;
        }
        var allowed = Enumerable.Range(0, Words * 64).Where(cpu => (mask[cpu / 64] >> (cpu % 64) & 1) != 0).ToArray();
        var chosen = allowed[number % allowed.Length];
        new Span<ulong>(mask, Words).Clear();
        mask[chosen / 64] = 1UL << (chosen % 64);
        return Linux.sched_setaffinity(0, Words * sizeof(ulong), mask) == 0;
    }
}

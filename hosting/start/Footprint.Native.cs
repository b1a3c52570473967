using System.Runtime.InteropServices;
using Lightway.Options;

namespace Lightway.Hosting.Start;

/// <summary>What a program holds in memory.</summary>
public static class Footprint
{
    private const int MADV_DONTNEED = 4; // asm-generic/mman-common.h

    /// <summary>
    /// Gives the memory back that only the start needed: options, certificates and the compiler's work leave more behind than
    /// an idle program uses, and so does the code that ran once. Takes some tens of milliseconds in which no thread of the
    /// program runs, so call it before packets pass.
    /// </summary>
    public static void Settle()
    {
        var code = Code();
        GC.Collect(GC.MaxGeneration, GCCollectionMode.Aggressive, blocking: true, compacting: true);
        _ = malloc_trim(0);
        foreach (var (address, length) in code)
        {
            _ = madvise(address, length, MADV_DONTNEED);
        }
    }

    /// <summary>
    /// The mappings of programs and libraries, of which an idle process needs few pages. Whoever comes to one of the others
    /// again gets it from the page cache, without a copy and usually without the disk. Nothing of ours unmaps a library, so no
    /// other mapping takes the place of one meanwhile.
    /// </summary>
    private static (nuint Address, nuint Length)[] Code()
    {
        try
        {
            return MappedPages.droppable(File.ReadAllText("/proc/self/smaps"));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return []; // the pages stay, which costs memory only
        }
    }

    /// <summary>malloc_trim(3): gives free pages of the heap back to the kernel.</summary>
    [DllImport("libc")]
    private static extern int malloc_trim(nuint pad);

    /// <summary>madvise(2).</summary>
    [DllImport("libc")]
    private static extern int madvise(nuint address, nuint length, int advice);
}

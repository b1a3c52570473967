using System.Runtime.InteropServices;
using Microsoft.Extensions.Logging;

namespace Lightway.Hosting;

/// <summary>What a program needs of the system before its first step, and what it hides from other processes.</summary>
public static partial class Platform
{
    // linux/prctl.h, asm-generic/resource.h
    private const int PR_SET_DUMPABLE = 4;
    private const int RLIMIT_CORE = 4;

    /// <summary>One line for the operator if OpenSSL is missing, without which .NET ends the process; null if it is there.</summary>
    public static string? MissingLibrary()
    {
        // The names that .NET tries (pal_ssl's opensslshim.c); the variable is its own.
        var wanted = Environment.GetEnvironmentVariable("CLR_OPENSSL_VERSION_OVERRIDE");
        string[] names = string.IsNullOrEmpty(wanted)
            ? ["libssl.so.3", "libssl.so.1.1"]
            : [$"libssl.so.{wanted}", "libssl.so.3", "libssl.so.1.1"];
        return names.Any(name => NativeLibrary.TryLoad(name, out _))
            ? null
            : "OpenSSL is missing (libssl.so.3), which .NET needs for random numbers and certificates; run: apt-get install libssl3";
    }

    /// <summary>
    /// No core file of this process is written, and no process without CAP_SYS_PTRACE can read its memory (prctl(2),
    /// PR_SET_DUMPABLE): it holds keys and passwords. To be called first, as exec(2) makes a process dumpable again.
    /// </summary>
    public static void ForbidCoreDumps(ILogger log)
    {
        var none = default(Limit);
        if (setrlimit(RLIMIT_CORE, in none) != 0)
        {
            var errno = Marshal.GetLastPInvokeError();
            ProgramLog.Warning(
                log,
                $"core dumps are not forbidden: setrlimit: {Marshal.GetPInvokeErrorMessage(errno)}"
            );
        }
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0)
        {
            var errno = Marshal.GetLastPInvokeError();
            ProgramLog.Warning(log, $"core dumps are not forbidden: prctl: {Marshal.GetPInvokeErrorMessage(errno)}");
        }
    }

    [LibraryImport("libc", SetLastError = true)]
    private static partial int setrlimit(int resource, in Limit limit);

    [LibraryImport("libc", SetLastError = true)]
    private static partial int prctl(int option, nuint argument, nuint third, nuint fourth, nuint fifth);

    /// <summary>struct rlimit of a 64-bit system.</summary>
    private readonly record struct Limit(ulong Soft, ulong Hard);
}

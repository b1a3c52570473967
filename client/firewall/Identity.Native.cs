using System.Runtime.InteropServices;

namespace Lightway.Client.Firewall;

/// <summary>Who this process is to the kernel.</summary>
internal static partial class Identity
{
    /// <summary>The user whose packets its sockets send (geteuid(2)).</summary>
    public static uint EffectiveUser => geteuid();

    [LibraryImport("libc")]
    private static partial uint geteuid();
}

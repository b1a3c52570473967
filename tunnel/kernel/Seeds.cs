using System.Runtime.InteropServices;
using Lightway.Protocol;

namespace Lightway.Tunnel.Kernel;

/// <summary>Secret keys of tables that hold what strangers cause; the core takes them as arguments.</summary>
public static class Seeds
{
    /// <param name="random">Its source; null: the system's generator.</param>
    public static HashSeed Draw(RandomPool? random = null)
    {
        Span<ulong> words = stackalloc ulong[2];
        (random ?? new RandomPool()).Fill(MemoryMarshal.AsBytes(words));
        return new HashSeed(words[0], words[1]);
    }
}

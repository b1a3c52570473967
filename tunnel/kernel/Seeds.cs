using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Lightway.Protocol;

namespace Lightway.Tunnel.Kernel;

/// <summary>Secret keys of tables that hold what strangers cause; the core takes them as arguments.</summary>
public static class Seeds
{
    /// <summary>A key from the system's generator.</summary>
    public static HashSeed Draw()
    {
        Span<ulong> words = stackalloc ulong[2];
        RandomNumberGenerator.Fill(MemoryMarshal.AsBytes(words));
        return new HashSeed(words[0], words[1]);
    }
}

using System.Security.Cryptography;

namespace Lightway.Tunnel.Tls;

/// <summary>
/// Hands out bytes of the system's generator, drawn one block at a time: one draw costs about a microsecond whatever its size, so a
/// 12-byte IV for each packet would cost more than encrypting it. Bytes handed out are wiped. One thread.
/// </summary>
public sealed class RandomPool
{
    private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(4096, pinned: true);
    private int _used;

    public RandomPool() => _used = _bytes.Length;

    /// <summary>32 random bits.</summary>
    public uint Next()
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        Fill(bytes);
        return BitConverter.ToUInt32(bytes);
    }

    /// <summary>Fills <paramref name="destination"/> (at most 4096 bytes) with fresh random bytes.</summary>
    public void Fill(Span<byte> destination)
    {
        if (_bytes.Length - _used < destination.Length)
        {
            RandomNumberGenerator.Fill(_bytes);
            _used = 0;
        }
        var taken = _bytes.AsSpan(_used, destination.Length);
        taken.CopyTo(destination);
        taken.Clear();
        _used += destination.Length;
    }
}

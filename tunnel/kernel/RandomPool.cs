using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Lightway.Tunnel.Kernel;

/// <summary>Fills a buffer with random bytes.</summary>
public delegate void RandomFill(Span<byte> bytes);

/// <summary>
/// Hands out bytes of the system's generator, drawn one block at a time: one draw costs about a microsecond whatever its size, so a
/// 12-byte IV for each packet would cost more than encrypting it. Bytes handed out are wiped. One thread.
/// </summary>
public sealed class RandomPool
{
    private readonly byte[] _bytes = GC.AllocateUninitializedArray<byte>(4096, pinned: true);
    private readonly RandomFill _draw;
    private int _used;

    public RandomPool()
        : this(RandomNumberGenerator.Fill) { }

    /// <param name="draw">Takes the place of the system's generator, in a simulation that must be repeatable.</param>
    internal RandomPool(RandomFill draw)
    {
        _draw = draw;
        _used = _bytes.Length;
    }

    /// <summary>32 random bits.</summary>
    public uint Next()
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        Fill(bytes);
        return BitConverter.ToUInt32(bytes);
    }

    /// <summary>Fills the first 12 bytes of <paramref name="destination"/>: the IV of a packet.</summary>
    public void FillIv(Span<byte> destination)
    {
        if (_bytes.Length - _used < 12)
        {
            Refill();
        }
        var taken = _bytes.AsSpan(_used, 12);
        MemoryMarshal.Write(destination, MemoryMarshal.Read<ulong>(taken));
        MemoryMarshal.Write(destination[8..], MemoryMarshal.Read<uint>(taken[8..]));
        taken.Clear();
        _used += 12;
    }

    /// <summary>Fills <paramref name="destination"/> (at most 4096 bytes) with fresh random bytes.</summary>
    public void Fill(Span<byte> destination)
    {
        if (_bytes.Length - _used < destination.Length)
        {
            Refill();
        }
        var taken = _bytes.AsSpan(_used, destination.Length);
        taken.CopyTo(destination);
        taken.Clear();
        _used += destination.Length;
    }

    private void Refill()
    {
        _draw(_bytes);
        _used = 0;
    }
}

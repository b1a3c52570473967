using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Kernel;

/// <summary>
/// A block of native memory, aligned to a cache line and zeroed, allocated once at start: the garbage collector never
/// moves it, so system calls may keep pointers into it. Pages that nobody touches take no memory: a server without clients
/// uses few of its buffers. After <see cref="Dispose"/> its span is empty.
/// </summary>
public sealed unsafe class Slab : IDisposable
{
    private const nuint CacheLine = 64; // bytes
    private void* _block; // what malloc gave

    /// <param name="length">Bytes; at least 1.</param>
    public Slab(int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegativeOrZero(length);
        _block = NativeMemory.AllocZeroed((nuint)length + CacheLine - 1); // fresh pages of the kernel are not written to
        Pointer = (byte*)(((nuint)_block + CacheLine - 1) & ~(CacheLine - 1));
        Length = length;
    }

    /// <summary>Bytes.</summary>
    public int Length { get; private set; }

    /// <summary>All of it.</summary>
    public Span<byte> Span => new(Pointer, Length);

    /// <summary>Part of it for a system call, bounds checked.</summary>
    internal IoVector Vector(int offset, int length)
    {
        ArgumentOutOfRangeException.ThrowIfNegative(offset);
        ArgumentOutOfRangeException.ThrowIfNegative(length);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(offset, Length - length);
        return new IoVector((nint)(Pointer + offset), length);
    }

    internal byte* Pointer { get; private set; }

    /// <summary>Part of it, bounds checked.</summary>
    public Span<byte> Slice(int offset, int length) => Span.Slice(offset, length);

    public void Dispose()
    {
        NativeMemory.Free(_block);
        _block = null;
        Pointer = null;
        Length = 0;
    }
}

using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Kernel;

/// <summary>One of the pieces that a system call gathers: struct iovec (bits/types/struct_iovec.h).</summary>
/// <param name="address">Address of the first byte.</param>
/// <param name="length">Bytes.</param>
[StructLayout(LayoutKind.Sequential)]
public readonly struct IoVector(nint address, nint length)
{
    public readonly nint Address = address;
    public readonly nint Length = length;
}

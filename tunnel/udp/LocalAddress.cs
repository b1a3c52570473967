using System.Buffers.Binary;
using System.Runtime.InteropServices;
using Lightway.Segmenter;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// The local address a datagram arrived on (IP_PKTINFO, IPV6_PKTINFO), so that replies of a socket bound to the wildcard
/// leave from the address the client knows. <see cref="Length"/> 0: not known, the kernel chooses.
/// </summary>
public readonly struct LocalAddress : IEquatable<LocalAddress>
{
    private readonly SocketAddressBytes _bytes; // 4 or 16 bytes in network order

    public LocalAddress(ReadOnlySpan<byte> address)
    {
        address.CopyTo(_bytes);
        Length = address.Length;
    }

    /// <summary>4, 16 or 0 bytes.</summary>
    public int Length { get; }

    /// <summary>The IPv4 address, also one that is mapped into IPv6; None for all others.</summary>
    public Ipv4Address IPv4
    {
        get
        {
            ReadOnlySpan<byte> bytes = _bytes;
            return Length switch
            {
                4 => new Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(bytes)),
                16 when bytes[..12].SequenceEqual(Mapped) => new Ipv4Address(
                    BinaryPrimitives.ReadUInt32BigEndian(bytes[12..])
                ),
                _ => Ipv4Address.None,
            };
        }
    }

    private static ReadOnlySpan<byte> Mapped => [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xFF, 0xFF]; // RFC 4291 §2.5.5.2

    public void CopyTo(Span<byte> destination) => ((ReadOnlySpan<byte>)_bytes)[..Length].CopyTo(destination);

    public bool Equals(LocalAddress other) =>
        Length == other.Length && ((ReadOnlySpan<byte>)_bytes).SequenceEqual(other._bytes);

    public override bool Equals(object? obj) => obj is LocalAddress other && Equals(other);

    public override int GetHashCode()
    {
        var words = MemoryMarshal.Cast<byte, ulong>(_bytes);
        return HashCode.Combine(words[0], words[1]);
    }

    public static bool operator ==(LocalAddress left, LocalAddress right) => left.Equals(right);

    public static bool operator !=(LocalAddress left, LocalAddress right) => !left.Equals(right);
}

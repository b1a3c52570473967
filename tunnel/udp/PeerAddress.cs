using System.Buffers.Binary;
using System.Diagnostics.CodeAnalysis;
using System.Net;
using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Lightway.Segmenter;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// A socket address as the kernel spells it (struct sockaddr_in, 16 bytes, or sockaddr_in6, 28 bytes), as a value that
/// serves as a table key. The flow label of IPv6 is not part of an address and is kept zero.
/// </summary>
[InlineArray(Capacity)]
public struct SocketAddressBytes
{
    public const int Capacity = 32; // bytes; unused ones are zero
    private byte _first;
}

/// <inheritdoc cref="SocketAddressBytes"/>
public readonly struct PeerAddress : IEquatable<PeerAddress>
{
    private const int IPv4Length = 16;
    private const int IPv6Length = 28;
    private const ushort FamilyIPv4 = 2; // AF_INET
    private const ushort FamilyIPv6 = 10; // AF_INET6
    private readonly SocketAddressBytes _bytes;

    /// <summary>Takes the name that recvmsg(2) wrote into msg_name; families other than IPv4 and IPv6 give the empty address.</summary>
    public PeerAddress(ReadOnlySpan<byte> sockaddr)
    {
        if (sockaddr.Length < 2)
        {
            return;
        }
        var family = BinaryPrimitives.ReadUInt16LittleEndian(sockaddr);
        var length = family switch
        {
            FamilyIPv4 => 8, // family, port, address; sin_zero stays zero
            FamilyIPv6 => IPv6Length,
            _ => 0,
        };
        if (sockaddr.Length >= length)
        {
            sockaddr[..length].CopyTo(_bytes);
            if (family == FamilyIPv6)
            {
                ((Span<byte>)_bytes).Slice(4, 4).Clear(); // sin6_flowinfo
            }
        }
    }

    public PeerAddress(IPEndPoint endPoint)
        : this(Serialize(endPoint)) { }

    /// <summary>An address in numbers: an IPv6 one in two halves in host order, an IPv4 one in <paramref name="low"/>.</summary>
    public static PeerAddress Of(bool isIPv6, ulong high, ulong low, ushort port)
    {
        Span<byte> name = stackalloc byte[SocketAddressBytes.Capacity];
        name.Clear();
        BinaryPrimitives.WriteUInt16LittleEndian(name, isIPv6 ? FamilyIPv6 : FamilyIPv4);
        BinaryPrimitives.WriteUInt16BigEndian(name[2..], port);
        if (isIPv6)
        {
            BinaryPrimitives.WriteUInt64BigEndian(name[8..], high);
            BinaryPrimitives.WriteUInt64BigEndian(name[16..], low);
        }
        else
        {
            BinaryPrimitives.WriteUInt32BigEndian(name[4..], (uint)low);
        }
        return new PeerAddress(name);
    }

    /// <summary>Bytes of the sockaddr; 0 for the empty address.</summary>
    public int Length =>
        BinaryPrimitives.ReadUInt16LittleEndian(Bytes) switch
        {
            FamilyIPv4 => IPv4Length,
            FamilyIPv6 => IPv6Length,
            _ => 0,
        };

    /// <summary>The IPv4 address, also one that is mapped into IPv6 (::ffff:a.b.c.d, RFC 4291 §2.5.5.2); None for all others.</summary>
    public Ipv4Address IPv4
    {
        get
        {
            if (!IsIPv6)
            {
                return new Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(Bytes[4..])); // sin_addr; zero if empty
            }
            var isMapped =
                BinaryPrimitives.ReadUInt64BigEndian(Bytes[8..]) == 0
                && BinaryPrimitives.ReadUInt32BigEndian(Bytes[16..]) == 0xFFFF;
            return isMapped ? new Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(Bytes[20..])) : Ipv4Address.None;
        }
    }

    /// <summary>The two halves of an IPv6 address in host order; zero for all others.</summary>
    public (ulong High, ulong Low) IPv6 =>
        IsIPv6
            ? (BinaryPrimitives.ReadUInt64BigEndian(Bytes[8..]), BinaryPrimitives.ReadUInt64BigEndian(Bytes[16..]))
            : default;

    public bool IsIPv6 => BinaryPrimitives.ReadUInt16LittleEndian(Bytes) == FamilyIPv6;

    /// <summary>Its datagrams have IPv6 headers; those of a mapped address have IPv4's.</summary>
    public bool IsOverIPv6 => IsIPv6 && IPv4 == Ipv4Address.None;

    [UnscopedRef]
    private ReadOnlySpan<byte> Bytes => _bytes;

    /// <summary>Writes the sockaddr; 32 bytes are touched.</summary>
    public void CopyTo(Span<byte> sockaddr) => Bytes.CopyTo(sockaddr);

    public IPEndPoint ToEndPoint()
    {
        var port = BinaryPrimitives.ReadUInt16BigEndian(Bytes[2..]);
        return IsIPv6
            ? new IPEndPoint(new IPAddress(Bytes.Slice(8, 16)), port)
            : new IPEndPoint(new IPAddress(Bytes.Slice(4, 4)), port);
    }

    public bool Equals(PeerAddress other) => Bytes.SequenceEqual(other.Bytes);

    public override bool Equals(object? obj) => obj is PeerAddress other && Equals(other);

    public override int GetHashCode()
    {
        var words = MemoryMarshal.Cast<byte, ulong>(Bytes);
        return HashCode.Combine(words[0], words[1], words[2], words[3]);
    }

    /// <summary>For the log; a mapped IPv4 address is shown as IPv4.</summary>
    public override string ToString() =>
        Length == 0 ? "(none)"
        : IsIPv6 && !IsOverIPv6 ? $"{IPv4}:{BinaryPrimitives.ReadUInt16BigEndian(Bytes[2..])}"
        : ToEndPoint().ToString();

    public static bool operator ==(PeerAddress left, PeerAddress right) => left.Equals(right);

    public static bool operator !=(PeerAddress left, PeerAddress right) => !left.Equals(right);

    private static byte[] Serialize(IPEndPoint endPoint)
    {
        var address = endPoint.Serialize();
        return address.Buffer.Span[..address.Size].ToArray();
    }
}

using System.Buffers.Binary;

namespace Lightway.Server.Sessions;

/// <summary>What tells one plaintext ClientHello datagram from another (RFC 9147 sections 4 and 5.2).</summary>
internal static class ClientHello
{
    private const byte HandshakeRecord = 22;
    private const byte HandshakeType = 1;
    private const int TypeAt = 13; // after the record header
    private const int FragmentOffsetAt = TypeAt + 6; // type, 24-bit length, message_seq; then 24 bits
    private const int RandomAt = TypeAt + 12 + 2; // handshake header, legacy_version
    private const int RandomLength = 16; // of 32 bytes: enough to tell two clients' apart

    public static bool Is(ReadOnlySpan<byte> datagram) =>
        datagram.Length > TypeAt && datagram[0] == HandshakeRecord && datagram[TypeAt] == HandshakeType;

    /// <summary>It starts with the message's first bytes, and so with the client's random.</summary>
    public static bool IsFirstFragment(ReadOnlySpan<byte> datagram) =>
        datagram.Length >= RandomAt + RandomLength && datagram.Slice(FragmentOffsetAt, 3).IndexOfAnyExcept((byte)0) < 0;

    /// <summary>Half of the client's random, the same in both of its ClientHellos; 0 if it is not in this datagram.</summary>
    public static UInt128 RandomOf(ReadOnlySpan<byte> datagram) =>
        IsFirstFragment(datagram) ? BinaryPrimitives.ReadUInt128BigEndian(datagram[RandomAt..]) : 0;
}

using System.Buffers.Binary;

namespace Lightway.Tunnel.Tls;

/// <summary>The unprotected records a datagram may start with while a handshake is under way (RFC 9147 section 4).</summary>
internal static class PlaintextRecords
{
    private const int HeaderSize = 13;
    private const int LengthAt = 11;
    private const byte ChangeCipherSpec = 20;
    private const byte Handshake = 22;
    private const byte Ack = 26;

    // The first byte of a protected record (RFC 9147 section 4, figure 3): 001CSLEE.
    private const byte FixedBits = 0xE0;
    private const byte IsProtected = 0x20;
    private const byte HasConnectionId = 0x10;
    private const byte HasLongNumber = 0x08;
    private const byte HasLength = 0x04;

    /// <summary>
    /// True if every unprotected record is a handshake, ACK or change_cipher_spec record. An unprotected alert ends a handshake
    /// of wolfSSL, also one behind a protected record that is not authentic, and anyone can send one.
    /// </summary>
    public static bool AreHarmless(ReadOnlySpan<byte> datagram)
    {
        while (!datagram.IsEmpty)
        {
            var length =
                (datagram[0] & FixedBits) == IsProtected ? LengthOfProtected(datagram) : LengthOfPlaintext(datagram);
            if (length == 0)
            {
                return false;
            }
            datagram = datagram[Math.Min(length, datagram.Length)..];
        }
        return true;
    }

    /// <summary>True if the datagram is one protected record: nothing is left when that has been read.</summary>
    public static bool IsOneProtected(ReadOnlySpan<byte> datagram) =>
        !datagram.IsEmpty && (datagram[0] & FixedBits) == IsProtected && LengthOfProtected(datagram) >= datagram.Length;

    /// <summary>Bytes of the first record with its header; 0 if it is not to be let through.</summary>
    private static int LengthOfPlaintext(ReadOnlySpan<byte> datagram) =>
        datagram.Length < HeaderSize || datagram[0] is not (ChangeCipherSpec or Handshake or Ack)
            ? 0
            : HeaderSize + BinaryPrimitives.ReadUInt16BigEndian(datagram[LengthAt..]);

    /// <summary>The same. A record without a length goes to the end of the datagram; connection ids are never agreed on.</summary>
    private static int LengthOfProtected(ReadOnlySpan<byte> datagram)
    {
        if ((datagram[0] & HasConnectionId) != 0)
        {
            return 0;
        }
        var lengthAt = (datagram[0] & HasLongNumber) != 0 ? 3 : 2;
        return (datagram[0] & HasLength) == 0 || datagram.Length < lengthAt + sizeof(ushort)
            ? datagram.Length
            : lengthAt + sizeof(ushort) + BinaryPrimitives.ReadUInt16BigEndian(datagram[lengthAt..]);
    }
}

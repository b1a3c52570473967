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

    /// <summary>
    /// True if every unprotected record is a handshake, ACK or change_cipher_spec record. An unprotected alert ends a wolfSSL client
    /// that waits for its server, and anyone can send one.
    /// </summary>
    public static bool AreHarmless(ReadOnlySpan<byte> datagram)
    {
        while (!datagram.IsEmpty && (datagram[0] & 0xE0) != 0x20) // 001xxxxx: protected, and so is what follows it
        {
            if (datagram.Length < HeaderSize || datagram[0] is not (ChangeCipherSpec or Handshake or Ack))
            {
                return false;
            }
            var length = HeaderSize + BinaryPrimitives.ReadUInt16BigEndian(datagram[LengthAt..]);
            datagram = datagram[Math.Min(length, datagram.Length)..];
        }
        return true;
    }
}

using System.Buffers.Binary;
using System.Globalization;

namespace Lightway.Tunnel.Tls;

/// <summary>The records of a handshake in words, for the option tls_debug.</summary>
internal static class RecordText
{
    /// <summary>Bytes of a record's header in a stream.</summary>
    public const int StreamHeader = 5; // RFC 8446 section 5.1: type, version, length
    private const int DatagramHeader = 13; // RFC 9147 section 4: type, version, epoch, sequence number, length

    // The first byte of a protected record of DTLS 1.3 (RFC 9147 section 4, figure 3): 001CSLEE.
    private const byte FixedBits = 0xE0;
    private const byte IsProtected = 0x20;
    private const byte EpochBits = 0x03;

    /// <summary>Bytes of a stream: its records, the last of which may be cut.</summary>
    public static string OfStream(ReadOnlySpan<byte> bytes)
    {
        var found = new List<string>();
        while (bytes.Length >= StreamHeader)
        {
            var length = BinaryPrimitives.ReadUInt16BigEndian(bytes[3..]);
            found.Add(string.Create(CultureInfo.InvariantCulture, $"{Type(bytes[0])} ({length} bytes)"));
            bytes = bytes[Math.Min(bytes.Length, StreamHeader + length)..];
        }
        return found.Count > 0 ? string.Join(", ", found) : "a part of a record";
    }

    /// <summary>A datagram: its first record, and how long the datagram is.</summary>
    public static string OfDatagram(ReadOnlySpan<byte> datagram)
    {
        var first =
            datagram.IsEmpty ? "nothing"
            : (datagram[0] & FixedBits) == IsProtected ? $"protected record, epoch {datagram[0] & EpochBits} (mod 4)"
            : datagram.Length < DatagramHeader ? "a part of a record"
            : $"{Type(datagram[0])}, epoch {BinaryPrimitives.ReadUInt16BigEndian(datagram[3..])}";
        return string.Create(CultureInfo.InvariantCulture, $"{first} ({datagram.Length} bytes)");
    }

    private static string Type(byte type) =>
        type switch
        {
            20 => "change_cipher_spec",
            21 => "alert",
            22 => "handshake",
            23 => "protected record",
            26 => "ACK",
            _ => $"record of type {type}",
        };
}

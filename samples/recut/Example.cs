using System.Buffers.Binary;
using Lightway.Segmenter;

namespace Lightway.Samples.Recut;

/// <summary>Traffic to try the sample on: the same packets at each call.</summary>
internal static class Example
{
    /// <summary>
    /// A TCP superpacket over IPv4, an ICMP echo request, a UDP superpacket over IPv6, and a second TCP superpacket of the
    /// first flow, which ends with a short segment.
    /// </summary>
    public static List<byte[]> Packets() =>
        [Tcp(sequence: 1, payload: 1448 * 5), Echo(), Datagram(payload: 1452 * 3), Tcp(1 + 1448 * 5, 1448 * 2 + 100)];

    private static byte[] Tcp(uint sequence, int payload)
    {
        var packet = IPv4(IpProtocol.Tcp, 32 + payload);
        var tcp = packet.AsSpan(Ipv4.MinHeaderLength);
        BinaryPrimitives.WriteUInt16BigEndian(tcp, 443);
        BinaryPrimitives.WriteUInt16BigEndian(tcp[2..], 51234);
        BinaryPrimitives.WriteUInt32BigEndian(tcp[4..], sequence);
        BinaryPrimitives.WriteUInt32BigEndian(tcp[8..], 0x12345678);
        tcp[12] = 8 << 4; // 32 bytes of header
        tcp[13] = 0x18; // ACK, PSH
        BinaryPrimitives.WriteUInt16BigEndian(tcp[14..], 501);
        ReadOnlySpan<byte> timestamps = [1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0]; // RFC 7323 §3
        timestamps.CopyTo(tcp[20..]);
        Fill(tcp[32..]);
        Complete(packet, Ipv4.MinHeaderLength, 16, PseudoHeader(packet, IpProtocol.Tcp));
        return packet;
    }

    private static byte[] Echo()
    {
        var packet = IPv4(IpProtocol.Icmp, 64);
        packet[20] = 8; // echo request
        Fill(packet.AsSpan(28));
        Complete(packet, 20, 2, 0);
        return packet;
    }

    private static byte[] Datagram(int payload)
    {
        var packet = new byte[Ipv6.HeaderLength + 8 + payload];
        packet[0] = 6 << 4;
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(4), (ushort)(8 + payload));
        packet[6] = IpProtocol.Udp;
        packet[7] = 64; // hop limit
        ReadOnlySpan<byte> prefix = [0x20, 0x01, 0x0D, 0xB8];
        prefix.CopyTo(packet.AsSpan(8));
        packet[23] = 1;
        prefix.CopyTo(packet.AsSpan(24));
        packet[39] = 2;
        var udp = packet.AsSpan(Ipv6.HeaderLength);
        BinaryPrimitives.WriteUInt16BigEndian(udp, 443);
        BinaryPrimitives.WriteUInt16BigEndian(udp[2..], 40000);
        BinaryPrimitives.WriteUInt16BigEndian(udp[4..], (ushort)(8 + payload));
        Fill(udp[8..]);
        Complete(
            packet,
            Ipv6.HeaderLength,
            6,
            Checksum.pseudoHeaderV6(packet.AsSpan(8, 32), IpProtocol.Udp, 8 + payload)
        );
        return packet;
    }

    private static byte[] IPv4(byte protocol, int length)
    {
        var packet = new byte[Ipv4.MinHeaderLength + length];
        packet[0] = 0x45;
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(2), (ushort)packet.Length);
        packet[6] = 0x40; // DF
        packet[8] = 64; // time to live
        packet[9] = protocol;
        BinaryPrimitives.WriteUInt32BigEndian(packet.AsSpan(12), 0xC0000201); // 192.0.2.1
        BinaryPrimitives.WriteUInt32BigEndian(packet.AsSpan(16), 0xC6336407); // 198.51.100.7
        BinaryPrimitives.WriteUInt16BigEndian(
            packet.AsSpan(10),
            Checksum.complement(Checksum.sum(packet.AsSpan(0, 20)))
        );
        return packet;
    }

    private static ushort PseudoHeader(byte[] packet, byte protocol) =>
        Checksum.pseudoHeaderV4(0xC0000201, 0xC6336407, protocol, packet.Length - Ipv4.MinHeaderLength);

    private static void Complete(byte[] packet, int start, int at, ushort pseudoHeader)
    {
        var sum = Checksum.add(pseudoHeader, Checksum.sum(packet.AsSpan(start)));
        BinaryPrimitives.WriteUInt16BigEndian(packet.AsSpan(start + at), Checksum.complement(sum));
    }

    private static void Fill(Span<byte> payload)
    {
        for (var i = 0; i < payload.Length; i++)
        {
            payload[i] = (byte)(i * 7 + i / 256);
        }
    }
}

using System.Buffers.Binary;

namespace Lightway.Samples.Recut;

/// <summary>
/// IP packets of a capture file in the classic format (pcap-savefile(5)), written by `tcpdump -w` on a TUN device: each
/// packet begins with its IP header (LINKTYPE_RAW). Both byte orders and both resolutions of time are read.
/// </summary>
internal static class Pcap
{
    private const int FileHeader = 24; // bytes
    private const int PacketHeader = 16;
    private const uint Microseconds = 0xA1B2C3D4;
    private const uint Nanoseconds = 0xA1B23C4D;
    private const uint LinkTypeRaw = 101;
    private const uint LinkTypeIPv4 = 228;
    private const uint LinkTypeIPv6 = 229;

    /// <exception cref="InvalidDataException">The file is not such a capture; the message says why.</exception>
    public static List<byte[]> Read(string path)
    {
        var file = File.ReadAllBytes(path);
        if (file.Length < FileHeader)
        {
            throw new InvalidDataException($"{path} is shorter than the header of a pcap file");
        }
        var isLittle = IsMagic(BinaryPrimitives.ReadUInt32LittleEndian(file));
        if (!isLittle && !IsMagic(BinaryPrimitives.ReadUInt32BigEndian(file)))
        {
            throw new InvalidDataException($"{path} is not a pcap file; `editcap -F pcap` converts pcapng");
        }
        uint Word(int at) =>
            isLittle
                ? BinaryPrimitives.ReadUInt32LittleEndian(file.AsSpan(at))
                : BinaryPrimitives.ReadUInt32BigEndian(file.AsSpan(at));
        if ((Word(20) & 0xFFFF) is not (LinkTypeRaw or LinkTypeIPv4 or LinkTypeIPv6))
        {
            throw new InvalidDataException(
                $"{path} has link type {Word(20)}; IP packets without a link header are needed"
            );
        }
        var packets = new List<byte[]>();
        for (var at = FileHeader; at < file.Length; )
        {
            if (file.Length - at < PacketHeader || Word(at + 8) > file.Length - at - PacketHeader)
            {
                throw new InvalidDataException($"{path} ends within packet {packets.Count + 1}");
            }
            if (Word(at + 8) != Word(at + 12))
            {
                throw new InvalidDataException(
                    $"{path} has only the start of packet {packets.Count + 1}; capture with -s 0"
                );
            }
            var length = (int)Word(at + 8);
            packets.Add(file[(at + PacketHeader)..(at + PacketHeader + length)]);
            at += PacketHeader + length;
        }
        return packets;
    }

    /// <summary>Writes packets one millisecond apart, from the epoch on, so that equal packets give an equal file.</summary>
    public static void Write(string path, IReadOnlyList<byte[]> packets)
    {
        using var file = new BinaryWriter(File.Create(path)); // little-endian
        file.Write(Microseconds);
        file.Write((ushort)2); // version 2.4
        file.Write((ushort)4);
        file.Write(0L); // time zone and accuracy
        file.Write(65535u); // longest packet
        file.Write(LinkTypeRaw);
        for (var i = 0; i < packets.Count; i++)
        {
            file.Write((uint)(i / 1000));
            file.Write((uint)(i % 1000 * 1000));
            file.Write((uint)packets[i].Length);
            file.Write((uint)packets[i].Length);
            file.Write(packets[i]);
        }
    }

    private static bool IsMagic(uint word) => word is Microseconds or Nanoseconds;
}

using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;

namespace Lightway.Client.Network;

/// <summary>One netlink message: its type (nlmsg_type) and what follows the header.</summary>
internal readonly ref struct NetlinkMessage(ushort type, ReadOnlySpan<byte> body)
{
    public ushort Type { get; } = type;

    public ReadOnlySpan<byte> Body { get; } = body;
}

/// <summary>
/// Messages of rtnetlink as bytes: header, fixed part, attributes (linux/netlink.h, linux/rtnetlink.h). All numbers are in the
/// machine's byte order, except addresses. Reading never raises: what does not fit is cut off or skipped.
/// </summary>
internal static class NetlinkFormat
{
    public const ushort NLMSG_ERROR = 2;
    public const ushort NLMSG_DONE = 3;
    public const ushort NLM_F_REQUEST = 0x1;
    public const ushort NLM_F_ACK = 0x4;
    public const ushort NLM_F_REPLACE = 0x100;
    public const ushort NLM_F_EXCL = 0x200;
    public const ushort NLM_F_DUMP = 0x300;
    public const ushort NLM_F_CREATE = 0x400;
    public const byte AF_INET = 2;
    public const byte AF_INET6 = 10;

    /// <summary>Bytes; more than the longest message that is written here.</summary>
    public const int MaxSize = 128;

    /// <summary>struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port id.</summary>
    public const int HeaderSize = 16;

    private const int AttributeHeader = 4; // struct rtattr: u16 length, u16 type
    private const int NLA_TYPE_MASK = 0x3FFF; // the two highest bits are flags

    /// <summary>Takes the first message that answers <paramref name="sequence"/> off a datagram of the kernel. False: none is left.</summary>
    public static bool TryTake(ref ReadOnlySpan<byte> datagram, uint sequence, out NetlinkMessage message)
    {
        while (datagram.Length >= HeaderSize)
        {
            var length = (int)Math.Min(MemoryMarshal.Read<uint>(datagram), (uint)datagram.Length);
            if (length < HeaderSize)
            {
                break;
            }
            var whole = datagram[..length];
            datagram = datagram[Math.Min(Aligned(length), datagram.Length)..];
            if (MemoryMarshal.Read<uint>(whole[8..]) == sequence)
            {
                message = new NetlinkMessage(MemoryMarshal.Read<ushort>(whole[4..]), whole[HeaderSize..]);
                return true;
            }
        }
        message = default;
        return false;
    }

    /// <summary>The error of NLMSG_ERROR, as errno; 0 is an acknowledgement.</summary>
    public static int ErrorOf(ReadOnlySpan<byte> body) =>
        body.Length < sizeof(int) ? 0 : -MemoryMarshal.Read<int>(body);

    /// <summary>Takes the first attribute off a list of them. False: none is left.</summary>
    public static bool TryTakeAttribute(
        ref ReadOnlySpan<byte> attributes,
        out ushort type,
        out ReadOnlySpan<byte> value
    )
    {
        type = 0;
        value = default;
        if (attributes.Length < AttributeHeader)
        {
            return false;
        }
        var length = Math.Min((int)MemoryMarshal.Read<ushort>(attributes), attributes.Length);
        if (length < AttributeHeader)
        {
            return false;
        }
        type = (ushort)(MemoryMarshal.Read<ushort>(attributes[2..]) & NLA_TYPE_MASK);
        value = attributes[AttributeHeader..length];
        attributes = attributes[Math.Min(Aligned(length), attributes.Length)..];
        return true;
    }

    /// <summary>Clears the header and the fixed part of a message. Returns their length.</summary>
    public static int Begin(Span<byte> buffer, int fixedSize)
    {
        buffer[..(HeaderSize + fixedSize)].Clear();
        return HeaderSize + fixedSize;
    }

    /// <summary>Writes the header of a message that is <paramref name="length"/> bytes long. Returns the length.</summary>
    public static int Finish(Span<byte> buffer, int length, ushort type, int flags, uint sequence)
    {
        MemoryMarshal.Write(buffer, (uint)length);
        MemoryMarshal.Write(buffer[4..], type);
        MemoryMarshal.Write(buffer[6..], (ushort)flags);
        MemoryMarshal.Write(buffer[8..], sequence);
        return length;
    }

    public static int AddAddress(Span<byte> buffer, int at, ushort type, IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        _ = address.TryWriteBytes(bytes, out var length);
        return AddAttribute(buffer, at, type, bytes[..length]);
    }

    public static int AddNumber(Span<byte> buffer, int at, ushort type, uint number)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        MemoryMarshal.Write(bytes, number);
        return AddAttribute(buffer, at, type, bytes);
    }

    /// <summary>Appends an attribute. Returns the length of the message so far.</summary>
    public static int AddAttribute(Span<byte> buffer, int at, ushort type, ReadOnlySpan<byte> value)
    {
        var length = AttributeHeader + value.Length;
        var attribute = buffer.Slice(at, Aligned(length));
        attribute.Clear();
        MemoryMarshal.Write(attribute, (ushort)length);
        MemoryMarshal.Write(attribute[2..], type);
        value.CopyTo(attribute[AttributeHeader..]);
        return at + attribute.Length;
    }

    public static byte FamilyOf(IPAddress address) => FamilyOf(address.AddressFamily);

    public static byte FamilyOf(AddressFamily family) => family == AddressFamily.InterNetworkV6 ? AF_INET6 : AF_INET;

    private static int Aligned(int length) => (length + 3) & ~3; // NLMSG_ALIGNTO, RTA_ALIGNTO
}

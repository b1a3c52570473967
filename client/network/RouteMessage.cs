using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Lightway.Options;

namespace Lightway.Client.Network;

/// <summary>One netlink message: its type (nlmsg_type) and what follows the header.</summary>
internal readonly ref struct NetlinkMessage(ushort type, ReadOnlySpan<byte> body)
{
    public ushort Type { get; } = type;

    public ReadOnlySpan<byte> Body { get; } = body;
}

/// <summary>
/// Messages about routes, as bytes (linux/netlink.h, linux/rtnetlink.h). All numbers are in the machine's byte order, except
/// addresses. Reading never raises: what does not fit is cut off or skipped.
/// </summary>
internal static class RouteMessage
{
    public const ushort NLMSG_ERROR = 2;
    public const ushort NLMSG_DONE = 3;
    public const ushort RTM_NEWROUTE = 24;
    public const ushort RTM_DELROUTE = 25;
    public const ushort RTM_GETROUTE = 26;
    public const ushort NLM_F_REQUEST = 0x1;
    public const ushort NLM_F_ACK = 0x4;
    public const ushort NLM_F_REPLACE = 0x100;
    public const ushort NLM_F_EXCL = 0x200;
    public const ushort NLM_F_DUMP = 0x300;
    public const ushort NLM_F_CREATE = 0x400;

    /// <summary>Bytes; more than the longest message that is written here.</summary>
    public const int MaxSize = 128;

    private const int HeaderSize = 16; // struct nlmsghdr: u32 length, u16 type, u16 flags, u32 sequence, u32 port id
    private const int RouteSize = 12; // struct rtmsg: u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags
    private const int AttributeHeader = 4; // struct rtattr: u16 length, u16 type
    private const int NextHopSize = 8; // struct rtnexthop: u16 length, u8 flags, u8 hops, i32 ifindex
    private const byte AF_INET = 2;
    private const byte AF_INET6 = 10;
    private const byte RT_TABLE_MAIN = 254;
    private const byte RT_SCOPE_UNIVERSE = 0;
    private const byte RT_SCOPE_LINK = 253;
    private const byte RTN_UNICAST = 1;
    private const byte RTN_LOCAL = 2;
    private const uint RTNH_F_DEAD = 1;
    private const ushort RTA_DST = 1;
    private const ushort RTA_OIF = 4;
    private const ushort RTA_GATEWAY = 5;
    private const ushort RTA_PRIORITY = 6;
    private const ushort RTA_MULTIPATH = 9;
    private const ushort RTA_TABLE = 15;
    private const ushort RTA_VIA = 18;
    private const int NLA_TYPE_MASK = 0x3FFF; // the two highest bits are flags

    /// <summary>Writes RTM_NEWROUTE or RTM_DELROUTE for a route of the main table. Returns the length.</summary>
    public static int Write(Span<byte> buffer, ushort type, ushort flags, uint sequence, Route route)
    {
        var destination = route.Destination.BaseAddress;
        var length = HeaderSize + RouteSize;
        buffer[..length].Clear();
        var message = buffer[HeaderSize..];
        message[0] = FamilyOf(destination);
        message[1] = (byte)route.Destination.PrefixLength;
        message[4] = RT_TABLE_MAIN;
        message[5] = route.Protocol;
        message[6] = route.Gateway is null ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
        message[7] = RTN_UNICAST;
        length = AddAddress(buffer, length, RTA_DST, destination);
        if (route.Gateway is { } gateway)
        {
            length =
                gateway.AddressFamily == destination.AddressFamily
                    ? AddAddress(buffer, length, RTA_GATEWAY, gateway)
                    : AddVia(buffer, length, gateway);
        }
        length = AddNumber(buffer, length, RTA_OIF, (uint)route.Device);
        if (route.Metric != 0)
        {
            length = AddNumber(buffer, length, RTA_PRIORITY, route.Metric);
        }
        return Finish(buffer, length, type, flags, sequence);
    }

    /// <summary>Writes the question for all routes of a family. Returns the length.</summary>
    public static int WriteDump(Span<byte> buffer, uint sequence, AddressFamily family)
    {
        var length = HeaderSize + RouteSize;
        buffer[..length].Clear();
        buffer[HeaderSize] = family == AddressFamily.InterNetworkV6 ? AF_INET6 : AF_INET;
        return Finish(buffer, length, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    }

    /// <summary>Writes the question for the route that a packet to an address would take. Returns the length.</summary>
    public static int WriteLookup(Span<byte> buffer, uint sequence, IPAddress address)
    {
        var length = HeaderSize + RouteSize;
        buffer[..length].Clear();
        buffer[HeaderSize] = FamilyOf(address);
        buffer[HeaderSize + 1] = (byte)(address.GetAddressBytes().Length * 8);
        length = AddAddress(buffer, length, RTA_DST, address);
        return Finish(buffer, length, RTM_GETROUTE, NLM_F_REQUEST, sequence);
    }

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

    /// <summary>Reads the body of RTM_NEWROUTE. Null: it is not a usable unicast or local route, or of another table.</summary>
    /// <param name="anyTable">For the answer to a look-up, which policy rules may have sent to another table than main.</param>
    public static Route? Read(ReadOnlySpan<byte> body, bool anyTable = false)
    {
        if (body.Length < RouteSize)
        {
            return null;
        }
        var family = body[0];
        var prefix = body[1];
        var isUsable = body[7] == RTN_UNICAST || (anyTable && body[7] == RTN_LOCAL);
        var isDead = (MemoryMarshal.Read<uint>(body[8..]) & RTNH_F_DEAD) != 0;
        var size = family switch
        {
            AF_INET => 4,
            AF_INET6 => 16,
            _ => 0,
        };
        if (!isUsable || isDead || size == 0 || prefix > size * 8)
        {
            return null;
        }
        uint table = body[4];
        var destination = new IPAddress(new byte[size]);
        IPAddress? gateway = null;
        var device = 0;
        uint metric = 0;
        var attributes = body[RouteSize..];
        while (TryTakeAttribute(ref attributes, out var type, out var value))
        {
            switch (type)
            {
                case RTA_DST when value.Length == size:
                    destination = new IPAddress(value);
                    break;
                case RTA_PRIORITY when value.Length == sizeof(uint):
                    metric = MemoryMarshal.Read<uint>(value);
                    break;
                case RTA_TABLE when value.Length == sizeof(uint):
                    table = MemoryMarshal.Read<uint>(value);
                    break;
                case RTA_MULTIPATH when value.Length >= NextHopSize: // the first of several ways
                    device = MemoryMarshal.Read<int>(value[4..]);
                    var end = Math.Clamp(MemoryMarshal.Read<ushort>(value), NextHopSize, value.Length);
                    var hop = value[NextHopSize..end];
                    while (TryTakeAttribute(ref hop, out var hopType, out var hopValue))
                    {
                        ReadWay(hopType, hopValue, ref gateway, ref device);
                    }
                    break;
                default:
                    ReadWay(type, value, ref gateway, ref device);
                    break;
            }
        }
        if (device == 0 || (table != RT_TABLE_MAIN && !anyTable))
        {
            return null;
        }
        // The constructor refuses bits behind the prefix; the kernel sends none.
        return IPNetwork.TryParse($"{destination}/{prefix}", out var network)
            ? new Route(network, gateway, device, metric, body[5])
            : null;
    }

    private static void ReadWay(ushort type, ReadOnlySpan<byte> value, ref IPAddress? gateway, ref int device)
    {
        switch (type)
        {
            case RTA_OIF when value.Length == sizeof(int):
                device = MemoryMarshal.Read<int>(value);
                break;
            case RTA_GATEWAY when value.Length is 4 or 16:
                gateway = new IPAddress(value);
                break;
            case RTA_VIA when value.Length is 6 or 18: // struct rtvia: u16 family, address
                gateway = new IPAddress(value[2..]);
                break;
        }
    }

    private static bool TryTakeAttribute(
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

    private static int AddAddress(Span<byte> buffer, int at, ushort type, IPAddress address)
    {
        Span<byte> bytes = stackalloc byte[16];
        _ = address.TryWriteBytes(bytes, out var length);
        return AddAttribute(buffer, at, type, bytes[..length]);
    }

    /// <summary>A gateway of the other family (RFC 5549 in the kernel: IPv4 by way of an IPv6 router).</summary>
    private static int AddVia(Span<byte> buffer, int at, IPAddress gateway)
    {
        Span<byte> via = stackalloc byte[18];
        MemoryMarshal.Write(via, (ushort)FamilyOf(gateway));
        _ = gateway.TryWriteBytes(via[2..], out var length);
        return AddAttribute(buffer, at, RTA_VIA, via[..(2 + length)]);
    }

    private static int AddNumber(Span<byte> buffer, int at, ushort type, uint number)
    {
        Span<byte> bytes = stackalloc byte[sizeof(uint)];
        MemoryMarshal.Write(bytes, number);
        return AddAttribute(buffer, at, type, bytes);
    }

    private static int AddAttribute(Span<byte> buffer, int at, ushort type, ReadOnlySpan<byte> value)
    {
        var length = AttributeHeader + value.Length;
        var attribute = buffer.Slice(at, Aligned(length));
        attribute.Clear();
        MemoryMarshal.Write(attribute, (ushort)length);
        MemoryMarshal.Write(attribute[2..], type);
        value.CopyTo(attribute[AttributeHeader..]);
        return at + attribute.Length;
    }

    private static int Finish(Span<byte> buffer, int length, ushort type, int flags, uint sequence)
    {
        MemoryMarshal.Write(buffer, (uint)length);
        MemoryMarshal.Write(buffer[4..], type);
        MemoryMarshal.Write(buffer[6..], (ushort)flags);
        MemoryMarshal.Write(buffer[8..], sequence);
        return length;
    }

    private static byte FamilyOf(IPAddress address) =>
        address.AddressFamily == AddressFamily.InterNetworkV6 ? AF_INET6 : AF_INET;

    private static int Aligned(int length) => (length + 3) & ~3; // NLMSG_ALIGNTO, RTA_ALIGNTO
}

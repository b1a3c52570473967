using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using Lightway.Options;
using static Lightway.Client.Network.NetlinkFormat;

namespace Lightway.Client.Network;

/// <summary>Messages about routes (linux/rtnetlink.h), in the form of <see cref="NetlinkFormat"/>.</summary>
internal static class RouteMessage
{
    public const ushort RTM_NEWROUTE = 24;
    public const ushort RTM_DELROUTE = 25;
    private const ushort RTM_GETROUTE = 26;
    private const int RouteSize = 12; // struct rtmsg: u8 family, dst_len, src_len, tos, table, protocol, scope, type; u32 flags
    private const int NextHopSize = 8; // struct rtnexthop: u16 length, u8 flags, u8 hops, i32 ifindex
    private const byte RT_TABLE_MAIN = 254;
    private const byte RT_SCOPE_UNIVERSE = 0;
    private const byte RT_SCOPE_LINK = 253;
    private const byte RTN_UNICAST = 1;
    private const byte RTN_LOCAL = 2;
    private const byte RTN_UNREACHABLE = 7;
    private const uint RTNH_F_DEAD = 1;
    private const uint RTM_F_CLONED = 0x200;
    private const ushort RTA_DST = 1;
    private const ushort RTA_OIF = 4;
    private const ushort RTA_GATEWAY = 5;
    private const ushort RTA_PRIORITY = 6;
    private const ushort RTA_PREFSRC = 7;
    private const ushort RTA_MULTIPATH = 9;
    private const ushort RTA_TABLE = 15;
    private const ushort RTA_MARK = 16;
    private const ushort RTA_VIA = 18;

    /// <summary>Writes RTM_NEWROUTE or RTM_DELROUTE for a route of the main table. Returns the length.</summary>
    public static int Write(Span<byte> buffer, ushort type, ushort flags, uint sequence, Route route)
    {
        var destination = route.Destination.BaseAddress;
        var length = Begin(buffer, RouteSize);
        var message = buffer[HeaderSize..];
        message[0] = FamilyOf(destination);
        message[1] = (byte)route.Destination.PrefixLength;
        message[4] = RT_TABLE_MAIN;
        message[5] = route.Protocol;
        message[6] = route.Gateway is null && !route.IsUnreachable ? RT_SCOPE_LINK : RT_SCOPE_UNIVERSE;
        message[7] = route.IsUnreachable ? RTN_UNREACHABLE : RTN_UNICAST;
        length = AddAddress(buffer, length, RTA_DST, destination);
        if (route.Gateway is { } gateway)
        {
            length =
                gateway.AddressFamily == destination.AddressFamily
                    ? AddAddress(buffer, length, RTA_GATEWAY, gateway)
                    : AddVia(buffer, length, gateway);
        }
        if (!route.IsUnreachable)
        {
            length = AddNumber(buffer, length, RTA_OIF, (uint)route.Device);
        }
        if (route.Metric != 0)
        {
            length = AddNumber(buffer, length, RTA_PRIORITY, route.Metric);
        }
        return Finish(buffer, length, type, flags, sequence);
    }

    /// <summary>Writes the question for all routes of a family. Returns the length.</summary>
    public static int WriteDump(Span<byte> buffer, uint sequence, AddressFamily family)
    {
        var length = Begin(buffer, RouteSize);
        buffer[HeaderSize] = FamilyOf(family);
        return Finish(buffer, length, RTM_GETROUTE, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    }

    /// <summary>Writes the question for the route that a packet to an address would take. Returns the length.</summary>
    /// <param name="mark">Of the packet (SO_MARK); 0 for none.</param>
    public static int WriteLookup(Span<byte> buffer, uint sequence, IPAddress address, uint mark)
    {
        var length = Begin(buffer, RouteSize);
        buffer[HeaderSize] = FamilyOf(address);
        buffer[HeaderSize + 1] = (byte)(address.GetAddressBytes().Length * 8);
        length = AddAddress(buffer, length, RTA_DST, address);
        if (mark != 0)
        {
            length = AddNumber(buffer, length, RTA_MARK, mark);
        }
        return Finish(buffer, length, RTM_GETROUTE, NLM_F_REQUEST, sequence);
    }

    /// <summary>Reads the body of RTM_NEWROUTE. Null: it is of another kind than those of <see cref="Route"/>, or of another table.</summary>
    /// <param name="isAnswer">To a look-up: policy rules may have sent it to another table than main, and it may be local.</param>
    public static Route? Read(ReadOnlySpan<byte> body, bool isAnswer = false)
    {
        if (body.Length < RouteSize)
        {
            return null;
        }
        var family = body[0];
        var prefix = body[1];
        var isUnreachable = body[7] == RTN_UNREACHABLE;
        var flags = MemoryMarshal.Read<uint>(body[8..]);
        var isUsable = body[7] == RTN_UNICAST || (isAnswer ? body[7] == RTN_LOCAL : isUnreachable);
        // What IPv6 learned about one destination, its path MTU for example, is listed as a copy of the route.
        var isGone = (flags & RTNH_F_DEAD) != 0 || (!isAnswer && (flags & RTM_F_CLONED) != 0);
        var size = family switch
        {
            AF_INET => 4,
            AF_INET6 => 16,
            _ => 0,
        };
        if (!isUsable || isGone || size == 0 || prefix > size * 8)
        {
            return null;
        }
        uint table = body[4];
        var destination = new IPAddress(new byte[size]);
        IPAddress? gateway = null;
        IPAddress? source = null;
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
                case RTA_PREFSRC when value.Length == size:
                    source = new IPAddress(value);
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
        if ((device == 0 && !isUnreachable) || (table != RT_TABLE_MAIN && !isAnswer))
        {
            return null;
        }
        // The constructor refuses bits behind the prefix; the kernel sends none.
        return IPNetwork.TryParse($"{destination}/{prefix}", out var network)
            ? new Route(network, gateway, device, metric, body[5], isUnreachable, source)
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

    /// <summary>A gateway of the other family (RFC 5549 in the kernel: IPv4 by way of an IPv6 router).</summary>
    private static int AddVia(Span<byte> buffer, int at, IPAddress gateway)
    {
        Span<byte> via = stackalloc byte[18];
        MemoryMarshal.Write(via, (ushort)FamilyOf(gateway));
        _ = gateway.TryWriteBytes(via[2..], out var length);
        return AddAttribute(buffer, at, RTA_VIA, via[..(2 + length)]);
    }
}

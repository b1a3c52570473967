using System.Net;
using System.Net.Sockets;
using System.Runtime.InteropServices;
using static Lightway.Client.Network.NetlinkFormat;

namespace Lightway.Client.Network;

/// <summary>An address of an interface.</summary>
/// <param name="Device">Index of the interface.</param>
/// <param name="Local">The address.</param>
/// <param name="Peer">Of a point-to-point link: the address of the other end; otherwise the same as the address.</param>
/// <param name="PrefixLength">Of the network that is on the link.</param>
/// <param name="IsGlobal">It is valid everywhere (RT_SCOPE_UNIVERSE), not only on the link or in this machine.</param>
/// <param name="Protocol">What made the address (IFA_PROTO, Linux 5.18); 0 if the kernel does not tell.</param>
internal sealed record DeviceAddress(
    int Device,
    IPAddress Local,
    IPAddress Peer,
    int PrefixLength,
    bool IsGlobal,
    byte Protocol
);

/// <summary>Messages about addresses and links (linux/if_addr.h, linux/if_link.h), in the form of <see cref="NetlinkFormat"/>.</summary>
internal static class AddressMessage
{
    public const ushort RTM_NEWADDR = 20;
    public const ushort RTM_DELADDR = 21;
    private const ushort RTM_NEWLINK = 16;
    private const ushort RTM_GETLINK = 18;
    private const ushort RTM_GETADDR = 22;
    private const int AddressSize = 8; // struct ifaddrmsg: u8 family, prefixlen, flags, scope; u32 index
    private const int LinkSize = 16; // struct ifinfomsg: u8 family, padding, u16 type, i32 index, u32 flags, u32 change
    private const byte RT_SCOPE_UNIVERSE = 0;
    private const ushort IFA_ADDRESS = 1;
    private const ushort IFA_LOCAL = 2;
    private const ushort IFA_PROTO = 11;
    private const ushort IFLA_MTU = 4;
    private const uint IFF_UP = 1; // linux/if.h

    /// <summary>Writes RTM_NEWADDR or RTM_DELADDR. Returns the length.</summary>
    public static int Write(Span<byte> buffer, ushort type, ushort flags, uint sequence, DeviceAddress address)
    {
        var length = Begin(buffer, AddressSize);
        var message = buffer[HeaderSize..];
        message[0] = FamilyOf(address.Local);
        message[1] = (byte)address.PrefixLength;
        MemoryMarshal.Write(message[4..], address.Device);
        length = AddAddress(buffer, length, IFA_LOCAL, address.Local);
        length = AddAddress(buffer, length, IFA_ADDRESS, address.Peer);
        if (address.Protocol != 0)
        {
            length = AddAttribute(buffer, length, IFA_PROTO, [address.Protocol]);
        }
        return Finish(buffer, length, type, flags, sequence);
    }

    /// <summary>Writes the question for all addresses of a family. Returns the length.</summary>
    public static int WriteDump(Span<byte> buffer, uint sequence, AddressFamily family)
    {
        var length = Begin(buffer, AddressSize);
        buffer[HeaderSize] = FamilyOf(family);
        return Finish(buffer, length, RTM_GETADDR, NLM_F_REQUEST | NLM_F_DUMP, sequence);
    }

    /// <summary>Reads the body of RTM_NEWADDR. Null: it has no address.</summary>
    public static DeviceAddress? Read(ReadOnlySpan<byte> body)
    {
        if (body.Length < AddressSize)
        {
            return null;
        }
        IPAddress? local = null;
        IPAddress? peer = null;
        byte protocol = 0;
        var attributes = body[AddressSize..];
        while (TryTakeAttribute(ref attributes, out var type, out var value))
        {
            switch (type)
            {
                case IFA_LOCAL when value.Length is 4 or 16:
                    local = new IPAddress(value);
                    break;
                case IFA_ADDRESS when value.Length is 4 or 16:
                    peer = new IPAddress(value);
                    break;
                case IFA_PROTO when value.Length == 1:
                    protocol = value[0];
                    break;
            }
        }
        local ??= peer; // IPv6 names the address alone
        return local is null
            ? null
            : new DeviceAddress(
                MemoryMarshal.Read<int>(body[4..]),
                local,
                peer ?? local,
                body[1],
                body[3] == RT_SCOPE_UNIVERSE,
                protocol
            );
    }

    /// <summary>Writes the question for a link. Returns the length.</summary>
    public static int WriteLinkQuestion(Span<byte> buffer, uint sequence, int device)
    {
        var length = Begin(buffer, LinkSize);
        MemoryMarshal.Write(buffer[(HeaderSize + 4)..], device);
        return Finish(buffer, length, RTM_GETLINK, NLM_F_REQUEST, sequence);
    }

    /// <summary>Writes a change of a link's MTU that also brings it up. Returns the length.</summary>
    /// <param name="mtu">Bytes; 0 leaves it.</param>
    public static int WriteLink(Span<byte> buffer, uint sequence, int device, int mtu)
    {
        var length = Begin(buffer, LinkSize);
        var message = buffer[HeaderSize..];
        MemoryMarshal.Write(message[4..], device);
        MemoryMarshal.Write(message[8..], IFF_UP);
        MemoryMarshal.Write(message[12..], IFF_UP);
        if (mtu != 0)
        {
            length = AddNumber(buffer, length, IFLA_MTU, (uint)mtu);
        }
        return Finish(buffer, length, RTM_NEWLINK, NLM_F_REQUEST | NLM_F_ACK, sequence);
    }

    /// <summary>Reads the body of RTM_NEWLINK: the MTU in bytes, and whether the link is up.</summary>
    public static (int Mtu, bool IsUp) ReadLink(ReadOnlySpan<byte> body)
    {
        if (body.Length < LinkSize)
        {
            return default;
        }
        var mtu = 0;
        var attributes = body[LinkSize..];
        while (TryTakeAttribute(ref attributes, out var type, out var value))
        {
            if (type == IFLA_MTU && value.Length == sizeof(int))
            {
                mtu = MemoryMarshal.Read<int>(value);
            }
        }
        return (mtu, (MemoryMarshal.Read<uint>(body[8..]) & IFF_UP) != 0);
    }
}

using System.Net;
using System.Net.Sockets;
using Lightway.Options;
using Lightway.Tunnel.Tun;

namespace Lightway.Client.Network;

/// <summary>
/// Address, MTU and state of the client's TUN device, by netlink. The address carries the protocol number of the client's
/// routes; those of others stay. What is as wanted already needs no privilege.
/// </summary>
internal sealed class TunDevice : IDisposable
{
    private const ushort Request = NetlinkFormat.NLM_F_REQUEST | NetlinkFormat.NLM_F_ACK;
    private readonly string _name;
    private readonly DeviceAddress _address;
    private readonly bool _isAdded; // the address

    /// <summary>Brings the device up with an address and an MTU.</summary>
    /// <exception cref="IOException">The system does not allow it.</exception>
    public TunDevice(string name, IPAddress local, IPAddress peer, int mtu)
    {
        _name = name;
        _address = new DeviceAddress(Netlink.IndexOf(name), local, peer, 32, IsGlobal: true, RoutePlan.Protocol);
        using var kernel = new NetlinkRequests();
        var isThere = false;
        foreach (var present in List(kernel, AddressFamily.InterNetwork).Where(one => one.Device == _address.Device))
        {
            if (IsSame(present, _address))
            {
                isThere = true;
                _isAdded = present.Protocol == RoutePlan.Protocol;
            }
            else if (present.Protocol == RoutePlan.Protocol)
            {
                // A killed client's, on a device that has outlived it.
                _ = Change(kernel, AddressMessage.RTM_DELADDR, Request, present);
            }
        }
        if (!isThere)
        {
            const ushort flags = Request | NetlinkFormat.NLM_F_CREATE | NetlinkFormat.NLM_F_EXCL;
            Check(Change(kernel, AddressMessage.RTM_NEWADDR, flags, _address), $"give it the address {local}");
            _isAdded = true;
        }
        SetLink(kernel, mtu);
    }

    /// <summary>Any thread.</summary>
    /// <exception cref="IOException">The system does not allow it.</exception>
    public void SetMtu(int mtu)
    {
        using var kernel = new NetlinkRequests();
        SetLink(kernel, mtu);
    }

    /// <summary>All addresses of a family; none if the kernel has no IPv6.</summary>
    /// <exception cref="IOException">The kernel does not answer.</exception>
    public static List<DeviceAddress> List(AddressFamily family)
    {
        using var kernel = new NetlinkRequests();
        return List(kernel, family);
    }

    /// <summary>Name of a device that a client has which lives; null if there is none.</summary>
    /// <exception cref="IOException">The kernel does not answer.</exception>
    public static string? OfLivingClient() =>
        List(AddressFamily.InterNetwork)
            .Where(address => address.Protocol == RoutePlan.Protocol)
            .Select(address => Netlink.NameOf(address.Device))
            .FirstOrDefault(name => name is not null && TunInterface.IsInUse(name));

    /// <summary>Removes the addresses that killed clients have left on devices that outlive them. Returns their number.</summary>
    /// <exception cref="IOException">The kernel does not answer.</exception>
    public static int RemoveLeftovers()
    {
        using var kernel = new NetlinkRequests();
        return List(kernel, AddressFamily.InterNetwork)
            .Where(address => address.Protocol == RoutePlan.Protocol)
            .Count(address => Change(kernel, AddressMessage.RTM_DELADDR, Request, address) == 0);
    }

    /// <summary>Takes the address away; it outlives the client only on a persistent device.</summary>
    public void Dispose()
    {
        if (!_isAdded)
        {
            return;
        }
        try
        {
            using var kernel = new NetlinkRequests();
            _ = Change(kernel, AddressMessage.RTM_DELADDR, Request, _address); // gone with its device: as good
        }
        catch (IOException)
        {
            // The kernel does not answer: the next start removes it.
        }
    }

    private static List<DeviceAddress> List(NetlinkRequests kernel, AddressFamily family)
    {
        var addresses = new List<DeviceAddress>();
        _ = kernel.Ask(
            (buffer, sequence) => AddressMessage.WriteDump(buffer, sequence, family),
            (type, body) =>
            {
                if (type == AddressMessage.RTM_NEWADDR && AddressMessage.Read(body) is { } address)
                {
                    addresses.Add(address);
                }
                return true;
            }
        );
        return addresses;
    }

    private void SetLink(NetlinkRequests kernel, int mtu)
    {
        (int Mtu, bool IsUp) present = default;
        _ = kernel.Ask(
            (buffer, sequence) => AddressMessage.WriteLinkQuestion(buffer, sequence, _address.Device),
            (_, body) =>
            {
                present = AddressMessage.ReadLink(body);
                return false;
            }
        );
        if (present != (mtu, true))
        {
            Check(
                kernel.Change((buffer, sequence) => AddressMessage.WriteLink(buffer, sequence, _address.Device, mtu)),
                $"bring it up with an MTU of {mtu}"
            );
        }
    }

    private static int Change(NetlinkRequests kernel, ushort type, ushort flags, DeviceAddress address) =>
        kernel.Change((buffer, sequence) => AddressMessage.Write(buffer, type, flags, sequence, address));

    private static bool IsSame(DeviceAddress a, DeviceAddress b) => a.Local.Equals(b.Local) && a.Peer.Equals(b.Peer);

    private void Check(int errno, string what)
    {
        if (errno != 0)
        {
            var remedy =
                errno == Netlink.EPERM
                    ? "; it needs CAP_NET_ADMIN, or a device that is set up already: see ip address"
                    : "";
            throw new IOException($"device {_name}: can't {what}: {Netlink.Describe(errno)}{remedy}");
        }
    }
}

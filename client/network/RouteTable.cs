using System.Net;
using System.Net.Sockets;
using Lightway.Options;

namespace Lightway.Client.Network;

/// <summary>What came of a wish to add a route.</summary>
internal enum RouteAddition
{
    Added = 0,

    /// <summary>The table has a route with this destination and metric already, and keeps it.</summary>
    TakenByAnother,

    /// <summary>It would keep IPv6 back, and this machine has none.</summary>
    NotNeeded,
}

/// <summary>
/// The main routing table of the process's network namespace. No program is run: the kernel is asked over netlink. One thread.
/// </summary>
internal sealed class RouteTable : IDisposable
{
    private const ushort Request = NetlinkFormat.NLM_F_REQUEST | NetlinkFormat.NLM_F_ACK;
    private readonly NetlinkRequests _kernel = new();

    /// <summary>All unicast and unreachable routes of a family; none if the kernel has no IPv6.</summary>
    /// <exception cref="IOException">The kernel refuses to list them.</exception>
    public List<Route> List(AddressFamily family)
    {
        var routes = new List<Route>();
        var errno = _kernel.Ask(
            (buffer, sequence) => RouteMessage.WriteDump(buffer, sequence, family),
            (type, body) =>
            {
                if (type == RouteMessage.RTM_NEWROUTE && RouteMessage.Read(body) is { } route)
                {
                    routes.Add(route);
                }
                return true;
            }
        );
        return errno switch
        {
            0 or Netlink.EOPNOTSUPP or Netlink.EAFNOSUPPORT => routes,
            _ => throw Refused("list routes", errno),
        };
    }

    /// <summary>
    /// The way that a packet to an address takes now, by all rules and tables, and its source address; null if there is none.
    /// </summary>
    /// <param name="mark">Of the packet (SO_MARK); 0 for none.</param>
    public Route? Find(IPAddress address, uint mark = 0)
    {
        Route? found = null;
        _ = _kernel.Ask(
            (buffer, sequence) => RouteMessage.WriteLookup(buffer, sequence, address, mark),
            (type, body) =>
            {
                found = type == RouteMessage.RTM_NEWROUTE ? RouteMessage.Read(body, isAnswer: true) : null;
                return false;
            }
        );
        return found;
    }

    /// <exception cref="IOException">The kernel refuses the route.</exception>
    public RouteAddition Add(Route route)
    {
        const ushort flags = Request | NetlinkFormat.NLM_F_CREATE | NetlinkFormat.NLM_F_EXCL;
        return Change(RouteMessage.RTM_NEWROUTE, flags, route) switch
        {
            0 => RouteAddition.Added,
            Netlink.EEXIST => RouteAddition.TakenByAnother,
            // IPv6 is not in the kernel, or is switched off for the loopback device, to which such routes belong.
            Netlink.EOPNOTSUPP
            or Netlink.EAFNOSUPPORT
            or Netlink.EACCES
            or Netlink.ENODEV
                when route.IsUnreachable
                    && route.Destination.BaseAddress.AddressFamily == AddressFamily.InterNetworkV6 =>
                RouteAddition.NotNeeded,
            var errno => throw Refused($"add the route {Describe(route)}", errno),
        };
    }

    /// <summary>Puts a route in the place of the one with its destination and metric.</summary>
    /// <exception cref="IOException">The kernel refuses the route.</exception>
    public void Replace(Route route)
    {
        const ushort flags = Request | NetlinkFormat.NLM_F_CREATE | NetlinkFormat.NLM_F_REPLACE;
        if (Change(RouteMessage.RTM_NEWROUTE, flags, route) is var errno and not 0)
        {
            throw Refused($"replace the route {Describe(route)}", errno);
        }
    }

    /// <summary>
    /// Removes a route. One that differs in way, metric or protocol, that somebody else has made, stays. A route that is gone
    /// already is not an error.
    /// </summary>
    /// <exception cref="IOException">The kernel refuses.</exception>
    public void Remove(Route route)
    {
        var errno = Change(RouteMessage.RTM_DELROUTE, Request, route);
        if (errno is not (0 or Netlink.ESRCH or Netlink.ENODEV))
        {
            throw Refused($"remove the route {route}", errno);
        }
    }

    public void Dispose() => _kernel.Dispose();

    private int Change(ushort type, ushort flags, Route route) =>
        _kernel.Change((buffer, sequence) => RouteMessage.Write(buffer, type, flags, sequence, route));

    private static string Describe(Route route) =>
        route.IsUnreachable ? $"{route}" : $"{route} dev {Netlink.NameOf(route.Device)}";

    private static IOException Refused(string what, int errno) =>
        new(
            $"can't {what}: {Netlink.Describe(errno)}; "
                + (
                    errno == Netlink.EPERM
                        ? "it needs CAP_NET_ADMIN, or set route_mode: noexec and make the routes yourself"
                        : "see ip route, or set route_mode: noexec and make the routes yourself"
                )
        );
}

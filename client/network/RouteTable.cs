using System.Net;
using System.Net.Sockets;
using Lightway.Options;

namespace Lightway.Client.Network;

/// <summary>
/// The main routing table of the process's network namespace. No program is run: the kernel is asked over netlink. One thread.
/// </summary>
internal sealed class RouteTable : IDisposable
{
    private readonly Netlink _netlink = new(groups: 0);
    private readonly byte[] _request = new byte[RouteMessage.MaxSize];
    private readonly byte[] _answer = new byte[Netlink.BufferSize];
    private uint _sequence;

    /// <summary>All unicast routes of a family.</summary>
    /// <exception cref="IOException">The kernel refuses to list them.</exception>
    public List<Route> List(AddressFamily family)
    {
        var routes = new List<Route>();
        _netlink.Send(_request.AsSpan(0, RouteMessage.WriteDump(_request, ++_sequence, family)));
        while (true)
        {
            ReadOnlySpan<byte> datagram = _answer.AsSpan(0, _netlink.Receive(_answer));
            while (RouteMessage.TryTake(ref datagram, _sequence, out var message))
            {
                switch (message.Type)
                {
                    case RouteMessage.NLMSG_DONE:
                        return routes;
                    case RouteMessage.NLMSG_ERROR:
                        throw Refused("list routes", RouteMessage.ErrorOf(message.Body));
                    case RouteMessage.RTM_NEWROUTE when RouteMessage.Read(message.Body) is { } route:
                        routes.Add(route);
                        break;
                }
            }
        }
    }

    /// <summary>The way that a packet to an address takes now, by all rules and tables; null if there is none.</summary>
    public Route? Find(IPAddress address)
    {
        _netlink.Send(_request.AsSpan(0, RouteMessage.WriteLookup(_request, ++_sequence, address)));
        while (true)
        {
            ReadOnlySpan<byte> datagram = _answer.AsSpan(0, _netlink.Receive(_answer));
            while (RouteMessage.TryTake(ref datagram, _sequence, out var message))
            {
                if (message.Type is RouteMessage.NLMSG_ERROR or RouteMessage.RTM_NEWROUTE)
                {
                    return message.Type == RouteMessage.RTM_NEWROUTE
                        ? RouteMessage.Read(message.Body, anyTable: true)
                        : null;
                }
            }
        }
    }

    /// <summary>Adds a route. False: the table has a route with this destination and metric already, and keeps it.</summary>
    /// <exception cref="IOException">The kernel refuses the route.</exception>
    public bool Add(Route route)
    {
        const ushort flags = RouteMessage.NLM_F_CREATE | RouteMessage.NLM_F_EXCL;
        var errno = Change(RouteMessage.RTM_NEWROUTE, flags, route);
        return errno switch
        {
            0 => true,
            Netlink.EEXIST => false,
            _ => throw Refused($"add the route {route} dev {Netlink.NameOf(route.Device)}", errno),
        };
    }

    /// <summary>Puts a route in the place of the one with its destination and metric.</summary>
    /// <exception cref="IOException">The kernel refuses the route.</exception>
    public void Replace(Route route)
    {
        const ushort flags = RouteMessage.NLM_F_CREATE | RouteMessage.NLM_F_REPLACE;
        if (Change(RouteMessage.RTM_NEWROUTE, flags, route) is var errno and not 0)
        {
            throw Refused($"replace the route {route} dev {Netlink.NameOf(route.Device)}", errno);
        }
    }

    /// <summary>
    /// Removes a route. One that differs in way, metric or protocol, that somebody else has made, stays. A route that is gone
    /// already is not an error.
    /// </summary>
    /// <exception cref="IOException">The kernel refuses.</exception>
    public void Remove(Route route)
    {
        var errno = Change(RouteMessage.RTM_DELROUTE, 0, route);
        if (errno is not (0 or Netlink.ESRCH or Netlink.ENODEV))
        {
            throw Refused($"remove the route {route}", errno);
        }
    }

    public void Dispose() => _netlink.Dispose();

    private int Change(ushort type, ushort flags, Route route)
    {
        flags |= RouteMessage.NLM_F_REQUEST | RouteMessage.NLM_F_ACK;
        _netlink.Send(_request.AsSpan(0, RouteMessage.Write(_request, type, flags, ++_sequence, route)));
        while (true)
        {
            ReadOnlySpan<byte> datagram = _answer.AsSpan(0, _netlink.Receive(_answer));
            while (RouteMessage.TryTake(ref datagram, _sequence, out var message))
            {
                if (message.Type == RouteMessage.NLMSG_ERROR)
                {
                    return RouteMessage.ErrorOf(message.Body);
                }
            }
        }
    }

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

using System.Net;
using System.Net.Sockets;
using Lightway.Options;
using Lightway.Tunnel.Tun;
using Microsoft.Extensions.Logging;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Client.Network;

/// <summary>What the routes of a client depend on.</summary>
/// <param name="Mode">Noexec: the table is read, but not changed.</param>
/// <param name="Device">Name of the TUN device.</param>
/// <param name="TunPeer">Gateway of what goes through the device.</param>
/// <param name="TunDns">The DNS address inside the tunnel.</param>
/// <param name="BlocksIPv6">IPv6 is not to pass beside the tunnel.</param>
/// <param name="HasKillSwitch">The kill switch lets pass what the other settings allow, and nothing else.</param>
/// <param name="Mark">SO_MARK of the tunnel's own packets; 0 for none.</param>
internal readonly record struct RouteSettings(
    RouteMode Mode,
    string Device,
    IPAddress TunPeer,
    IPAddress TunDns,
    bool BlocksIPv6,
    bool HasKillSwitch,
    uint Mark
);

/// <summary>
/// The client's routes: the server by its present way, everything else through the device, or nowhere. They carry a protocol
/// number of their own (<see cref="RoutePlan.Protocol"/>), by which those of a client that was killed are recognized and
/// removed. A route of somebody else is never changed. <see cref="Dispose"/> removes all.
/// </summary>
internal sealed partial class Routes : IDisposable
{
    private readonly RouteSettings _settings;
    private readonly ILogger _log;
    private readonly RouteTable? _table; // null: mode noexec where the system does not allow the socket
    private readonly List<Route> _installed = [];
    private readonly Lock _changing = new(); // the worker's thread and the watch's, once there is one
    private IPAddress _server = IPAddress.None;
    private Route? _way; // by which the server is reached
    private Route? _mainWay; // the same by the main table alone, when it was last looked at
    private Route? _path; // by which the kernel has sent to the server, when it was last asked
    private IPAddress? _source; // of those packets
    private int _device;
    private bool _isWayMissing; // and the log says so
    private RouteWatch? _watch;
    private readonly Dictionary<IPAddress, IPAddress> _sources = []; // this machine's addresses when a round began, by server

    /// <summary>Removes what a killed client has left behind.</summary>
    /// <exception cref="IOException">The routing table can't be read or changed, or another client has routes in it.</exception>
    public Routes(RouteSettings settings, ILogger log)
    {
        _settings = settings;
        _log = log;
        try
        {
            _table = new RouteTable();
        }
        catch (IOException) when (settings.Mode == RouteMode.NoExec)
        {
            return;
        }
        if (settings.Mode != RouteMode.NoExec)
        {
            foreach (var route in RemoveLeftovers(_table))
            {
                LogLeftover(_log, route);
            }
        }
    }

    /// <summary>
    /// Called, on another thread, after the way to the server has changed or was put back; true: this machine's address is
    /// another one than before.
    /// </summary>
    public Action<bool> Moved { get; set; } = static _ => { };

    /// <summary>This machine has a way to the address. Before <see cref="Install"/>, after which it may lead into the tunnel.</summary>
    public bool Reaches(IPAddress address) => _table is null || _table.Find(address) is not null;

    /// <summary>
    /// Makes the routes, and keeps them in place when the network changes. A later call is about another server: its route
    /// takes the place of those to servers before it.
    /// </summary>
    /// <exception cref="IOException">A route can't be made; <see cref="Dispose"/> removes the others.</exception>
    public void Install(IPAddress server)
    {
        if (_table is null)
        {
            return;
        }
        lock (_changing)
        {
            var isFirst = _watch is null;
            _server = server;
            _device = Netlink.IndexOf(_settings.Device);
            if (_settings.Mode != RouteMode.NoExec)
            {
                Make(_table, isFirst);
            }
            _watch ??= new RouteWatch(() => Follow(_table), _log); // a change after this line is followed
            _path = _table.Find(server, _settings.Mark);
            _source = _path?.Source;
            if (isFirst)
            {
                WarnOfIPv6();
            }
            if (_path is { Source: { } source } && _sources.TryGetValue(server, out var began) && !source.Equals(began))
            {
                LogMoved(_log, server, Describe(_path)); // while the connection was made
                Moved(true);
            }
        }
    }

    /// <summary>
    /// Connections to servers are about to be made: makes routes to them, outside of the tunnel, unless there were no routes
    /// into it so far. The next <see cref="Install"/> removes those that it does not need. A server without a way can't be
    /// reached anyway.
    /// </summary>
    public void Allow(IReadOnlyCollection<IPAddress> servers)
    {
        if (_table is null)
        {
            return;
        }
        lock (_changing)
        {
            try
            {
                _sources.Clear();
                foreach (var server in servers)
                {
                    if (_table.Find(server, _settings.Mark) is { Source: { } source })
                    {
                        _sources[server] = source;
                    }
                }
                if (_watch is null || _settings.Mode == RouteMode.NoExec)
                {
                    return;
                }
                var (local, local6) = Tables(_table);
                foreach (var server in servers)
                {
                    var table = IsIPv6(server) ? local6 : local;
                    if (WayIn(table, server) is { } way)
                    {
                        _ = Ensure(RoutePlan.hostRoute(server, way), table, _table);
                    }
                }
            }
            catch (IOException error)
            {
                LogFailure(_log, error.Message);
            }
        }
    }

    public void Dispose()
    {
        _watch?.Dispose();
        foreach (var route in Enumerable.Reverse(_installed))
        {
            try
            {
                _table?.Remove(route);
            }
            catch (IOException error)
            {
                LogFailure(_log, error.Message);
            }
        }
        _table?.Dispose();
    }

    /// <summary>Removes the routes that a killed client has left behind. Returns them.</summary>
    /// <exception cref="IOException">The routing table can't be read or changed, or they are those of a client that lives.</exception>
    public static IReadOnlyList<Route> RemoveLeftovers(RouteTable table)
    {
        var own = table
            .List(AddressFamily.InterNetwork)
            .Concat(table.List(AddressFamily.InterNetworkV6))
            .Where(RoutePlan.isOwn)
            .ToList();
        foreach (var device in own.Select(route => Netlink.NameOf(route.Device)).Distinct())
        {
            // The kernel takes the routes of a killed client's device away, unless it is persistent; then nobody has it.
            if (device is not null && own.Exists(IsThrough(device)) && TunInterface.IsInUse(device))
            {
                throw new IOException(
                    $"another lightway-client has device {device} and its routes: stop it, or set route_mode: noexec for this one"
                );
            }
        }
        own.ForEach(table.Remove);
        return own;
    }

    private void Make(RouteTable kernel, bool isFirst)
    {
        var (local, local6) = Tables(kernel);
        _mainWay = WayIn(IsIPv6(_server) ? local6 : local, _server);
        _way = isFirst ? kernel.Find(_server, _settings.Mark) : _mainWay; // which may lead into the tunnel by now
        if (_way is null)
        {
            throw new IOException($"no route to the server {_server}: see ip route get {_server}");
        }
        var wanted = Wanted(local, local6);
        foreach (var old in _installed.FindAll(old => !wanted.Any(route => IsInPlaceOf(route, old))))
        {
            kernel.Remove(old);
            _ = _installed.Remove(old);
        }
        foreach (var route in wanted)
        {
            if (_installed.Exists(installed => IsInPlaceOf(route, installed)))
            {
                kernel.Replace(route);
                continue;
            }
            switch (kernel.Add(route))
            {
                case RouteAddition.Added:
                    _installed.Add(route);
                    break;
                case RouteAddition.TakenByAnother:
                    LogKept(_log, route);
                    break;
            }
        }
    }

    private static bool IsIPv6(IPAddress address) => address.AddressFamily == AddressFamily.InterNetworkV6;

    private static (List<Route> IPv4, List<Route> IPv6) Tables(RouteTable kernel) =>
        (kernel.List(AddressFamily.InterNetwork), kernel.List(AddressFamily.InterNetworkV6));

    private IReadOnlyList<Route> Wanted(List<Route> table, List<Route> table6) =>
        RoutePlan.wanted(
            new RouteWishes(
                _settings.Mode,
                _server,
                _way,
                IsIPv6(_server) ? WayIn(table, IPAddress.Any) : _way,
                IsIPv6(_server) ? _way : WayIn(table6, IPAddress.IPv6Any),
                _device,
                _settings.TunPeer,
                _settings.TunDns,
                _settings.BlocksIPv6
            )
        );

    private Route? WayIn(List<Route> table, IPAddress address) => RoutePlan.wayTo(table, address, _device);

    /// <summary>
    /// The network has changed: routes that are gone are put back, those outside the tunnel follow the table, and who waits
    /// for it hears of another path. On the watch's thread.
    /// </summary>
    private void Follow(RouteTable kernel)
    {
        using var changing = _changing.EnterScope();
        var isRestored = false;
        if (_settings.Mode != RouteMode.NoExec && !Restore(kernel, out isRestored))
        {
            return; // the next change may bring a way
        }
        var before = _path;
        _path = kernel.Find(_server, _settings.Mark);
        if (_path is null || (!isRestored && before is not null && RoutePlan.isSamePath(_path, before)))
        {
            return;
        }
        var isSourceNew = _path.Source is not null && !_path.Source.Equals(_source);
        _source = _path.Source ?? _source;
        LogMoved(_log, _server, Describe(_path));
        Moved(isSourceNew);
    }

    /// <summary>False if no route leads to the server.</summary>
    /// <param name="isChanged">A route had to be made.</param>
    private bool Restore(RouteTable kernel, out bool isChanged)
    {
        isChanged = false;
        var (local, local6) = Tables(kernel);
        var mainWay = WayIn(IsIPv6(_server) ? local6 : local, _server);
        if (mainWay is null && _mainWay is not null)
        {
            if (!_isWayMissing)
            {
                LogNoWay(_log, _server);
            }
            _isWayMissing = true;
            _path = null;
            return false;
        }
        if (!RoutePlan.isSameWay(mainWay, _mainWay))
        {
            (_way, _mainWay) = (mainWay, mainWay);
        }
        _isWayMissing = false;
        foreach (var route in Wanted(local, local6))
        {
            isChanged |= Ensure(route, IsIPv6(route.Destination.BaseAddress) ? local6 : local, kernel);
        }
        return true;
    }

    /// <summary>True if the route had to be made.</summary>
    private bool Ensure(Route route, List<Route> table, RouteTable kernel)
    {
        if (RoutePlan.isPresent(table, route))
        {
            return false;
        }
        var old = _installed.FindIndex(installed => IsInPlaceOf(route, installed));
        if (table.Exists(present => RoutePlan.isOwn(present) && IsInPlaceOf(route, present)))
        {
            kernel.Replace(route);
        }
        else if (kernel.Add(route) != RouteAddition.Added)
        {
            return false;
        }
        if (old >= 0)
        {
            _installed[old] = route;
        }
        else
        {
            _installed.Add(route);
        }
        return true;
    }

    /// <summary>Both routes are to the same destination, with the same metric: the table has room for one of them.</summary>
    private static bool IsInPlaceOf(Route a, Route b) => a.Destination.Equals(b.Destination) && a.Metric == b.Metric;

    private void WarnOfIPv6()
    {
        if (_settings.BlocksIPv6 && (_settings.Mode != RouteMode.NoExec || _settings.HasKillSwitch))
        {
            return;
        }
        var address = TunDevice.List(AddressFamily.InterNetworkV6).Find(IsOutside);
        if (address is not null)
        {
            LogIPv6(_log, address.Local, Netlink.NameOf(address.Device) ?? "");
        }
    }

    /// <summary>An address by which this machine may be on the Internet.</summary>
    private bool IsOutside(DeviceAddress address) =>
        address.IsGlobal
        && address.Device != _device
        && !IPAddress.IsLoopback(address.Local)
        && !address.Local.IsIPv6UniqueLocal;

    /// <summary>A route of a client's TUN device: local networks and the server are reached by other devices.</summary>
    private static Predicate<Route> IsThrough(string device) =>
        route => route.Destination.PrefixLength == 1 && !route.IsUnreachable && Netlink.NameOf(route.Device) == device;

    private static string Describe(Route way)
    {
        var gateway = way.Gateway is null ? "" : $"via {way.Gateway} ";
        var source = way.Source is null ? "" : $" from {way.Source}";
        return $"{gateway}dev {Netlink.NameOf(way.Device) ?? $"{way.Device}"}{source}";
    }

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "removed the route {Route}, left behind by a client that was killed"
    )]
    private static partial void LogLeftover(ILogger log, Route route);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "the route {Route} is there already and stays: packets that it matches take it, not the client's"
    )]
    private static partial void LogKept(ILogger log, Route route);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "the network has changed: no route to the server {Server}; packets wait until a route is back"
    )]
    private static partial void LogNoWay(ILogger log, IPAddress server);

    [LoggerMessage(Level = LogLevel.Information, Message = "the network has changed: server {Server} {Path}")]
    private static partial void LogMoved(ILogger log, IPAddress server, string path);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "this machine has the IPv6 address {Address} (dev {Device}): IPv6 does not go through the tunnel, and is not blocked; see allow_ipv6_outside and route_mode"
    )]
    private static partial void LogIPv6(ILogger log, IPAddress address, string device);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

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
internal readonly record struct RouteSettings(RouteMode Mode, string Device, IPAddress TunPeer, IPAddress TunDns);

/// <summary>
/// The client's routes: the server by its present way, everything else through the device. They carry a protocol number of
/// their own (<see cref="RoutePlan.Protocol"/>), by which those of a client that was killed are recognized and removed. A
/// route of somebody else is never changed. <see cref="Dispose"/> removes all.
/// </summary>
internal sealed partial class Routes : IDisposable
{
    private readonly RouteSettings _settings;
    private readonly ILogger _log;
    private readonly RouteTable? _table; // null: mode noexec where the system does not allow the socket
    private readonly List<Route> _installed = [];
    private IPAddress _server = IPAddress.None;
    private Route? _way; // by which the server is reached
    private Route? _mainWay; // the same by the main table alone, when it was last looked at
    private int _device;
    private bool _isWayMissing; // and the log says so
    private RouteWatch? _watch;

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
            RemoveLeftovers(_table);
        }
    }

    /// <summary>Called, on another thread, after the way to the server has changed or was put back.</summary>
    public Action Moved { get; set; } = static () => { };

    /// <summary>This machine has a way to the address. Before <see cref="Install"/>, after which it may lead into the tunnel.</summary>
    public bool Reaches(IPAddress address) => _table is null || _table.Find(address) is not null;

    /// <summary>Makes the routes, and keeps them in place when the network changes.</summary>
    /// <exception cref="IOException">A route can't be made; <see cref="Dispose"/> removes the others.</exception>
    public void Install(IPAddress server)
    {
        if (_settings.Mode == RouteMode.NoExec || _table is null)
        {
            return;
        }
        _server = server;
        _device = Netlink.IndexOf(_settings.Device);
        _mainWay = WayIn(_table.List(AddressFamily.InterNetwork));
        _way = IsServerIPv4 ? _table.Find(server) : _mainWay;
        if (_way is null && IsServerIPv4)
        {
            throw new IOException($"no route to the server {server}: see ip route get {server}");
        }
        foreach (var route in Wanted())
        {
            if (_table.Add(route))
            {
                _installed.Add(route);
            }
            else
            {
                LogKept(_log, route);
            }
        }
        _watch = new RouteWatch(() => Restore(_table), _log);
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

    private bool IsServerIPv4 => _server.AddressFamily == AddressFamily.InterNetwork;

    private IReadOnlyList<Route> Wanted() =>
        RoutePlan.wanted(_settings.Mode, _server, _way, _device, _settings.TunPeer, _settings.TunDns);

    private Route? WayIn(List<Route> table) => RoutePlan.wayTo(table, IsServerIPv4 ? _server : IPAddress.Any, _device);

    /// <summary>
    /// The network has changed: routes that are gone are put back, and those outside the tunnel follow the table. On the
    /// watch's thread.
    /// </summary>
    private void Restore(RouteTable kernel)
    {
        var table = kernel.List(AddressFamily.InterNetwork);
        var mainWay = WayIn(table);
        if (mainWay is null && _mainWay is not null)
        {
            if (!_isWayMissing)
            {
                LogNoWay(_log, _server);
            }
            _isWayMissing = true;
            return; // the next change may bring one
        }
        if (!RoutePlan.isSameWay(mainWay, _mainWay))
        {
            (_way, _mainWay) = (mainWay, mainWay);
        }
        _isWayMissing = false;
        var isChanged = false;
        foreach (var route in Wanted())
        {
            isChanged |= Ensure(route, table, kernel);
        }
        if (isChanged)
        {
            LogRestored(_log, _server, $"{(_way?.Gateway is { } gateway ? $"via {gateway} " : "")}dev {Device(_way)}");
            Moved();
        }
    }

    /// <summary>True if the route had to be made.</summary>
    private bool Ensure(Route route, List<Route> table, RouteTable kernel)
    {
        if (RoutePlan.isPresent(table, route))
        {
            return false;
        }
        var old = _installed.FindIndex(installed => installed.Destination.Equals(route.Destination));
        if (table.Exists(present => RoutePlan.isOwn(present) && present.Destination.Equals(route.Destination)))
        {
            kernel.Replace(route);
        }
        else if (!kernel.Add(route))
        {
            return false; // it is somebody else's
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

    private void RemoveLeftovers(RouteTable table)
    {
        var own = table.List(AddressFamily.InterNetwork).FindAll(RoutePlan.isOwn);
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
        foreach (var route in own)
        {
            LogLeftover(_log, route);
            table.Remove(route);
        }
    }

    /// <summary>A route of a client's TUN device: local networks and the server are reached by other devices.</summary>
    private static Predicate<Route> IsThrough(string device) =>
        route => route.Destination.PrefixLength == 1 && Netlink.NameOf(route.Device) == device;

    private static string Device(Route? way) => way is null ? "" : Netlink.NameOf(way.Device) ?? $"{way.Device}";

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

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "the network has changed: routes put back, server {Server} {Way}"
    )]
    private static partial void LogRestored(ILogger log, IPAddress server, string way);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

using System.Net;
using Lightway.Client.Firewall;
using Lightway.Client.Network;
using Lightway.Client.Resolver;
using Lightway.Client.Sessions;
using Lightway.Options;
using Microsoft.Extensions.Logging;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Client;

/// <summary>
/// What a client changes in its machine for the time of its tunnel: kill switch, device, routes, DNS. They are made in this
/// order, and undone in the reverse. What a killed client has left behind goes first, but for the kill switch: it is closed
/// until this client replaces it, so nothing leaves in between.
/// </summary>
internal sealed partial class HostNetwork : IDisposable
{
    private readonly ClientOptions _options;
    private readonly ILogger _log;
    private readonly KillSwitch _killSwitch;
    private readonly Routes _routes;
    private TunDevice? _device;
    private DnsSetup? _dns;
    private bool _isUndone;

    /// <exception cref="IOException">The system does not allow it, or another client is in the way.</exception>
    public HostNetwork(ClientOptions options, ILogger log)
    {
        _options = options;
        _log = log;
        _killSwitch = new KillSwitch();
        foreach (var restored in DnsSetup.RestoreLeftovers())
        {
            LogRestored(log, restored);
        }
        _routes = new Routes(
            new RouteSettings(
                options.RouteMode,
                options.TunName,
                options.TunPeerIp,
                options.TunDnsIp,
                !options.AllowIPv6Outside,
                options.KillSwitch,
                options.Fwmark
            ),
            log
        );
    }

    /// <summary>See <see cref="Routes.Moved"/>.</summary>
    public Action<bool> Moved
    {
        set => _routes.Moved = value;
    }

    /// <summary>After <see cref="SetUp"/>.</summary>
    public TunDevice Device => _device!;

    /// <summary>This machine has a way to the address. Before <see cref="Install"/>, after which it may lead into the tunnel.</summary>
    public bool Reaches(IPAddress address) => _routes.Reaches(address);

    /// <summary>
    /// The addresses of a server, in the order in which they are tried. While a kill switch is closed, no resolver is asked:
    /// the addresses are those that it lets pass.
    /// </summary>
    /// <param name="server">The options whose server it is.</param>
    /// <exception cref="IOException">The name can't be resolved.</exception>
    /// <exception cref="OperationCanceledException">The program is to stop.</exception>
    public IReadOnlyList<IPAddress> Resolve(ClientOptions server, CancellationToken stopping)
    {
        var host = server.ServerHost;
        if (!_killSwitch.IsClosed || IPAddress.TryParse(host, out _))
        {
            return ServerName.Resolve(host, stopping);
        }
        var remembered = _killSwitch.Remembered(NameOf(server));
        if (remembered.Count == 0)
        {
            throw new IOException(
                $"server: the kill switch of an earlier client is closed, so '{host}' cannot be resolved: run lightway-client reset, which opens it, or write the server's address"
            );
        }
        LogRemembered(_log, host, string.Join(", ", remembered));
        return AddressOrder.alternate(remembered);
    }

    /// <summary>For the kill switch: a server at one of its addresses.</summary>
    public static AllowedServer ServerAt(ClientOptions server, IPAddress address) =>
        new(NameOf(server), server.Mode, new IPEndPoint(address, server.ServerPort));

    /// <summary>Closes the kill switch, if the operator wants one: from now on nothing leaves but to these servers.</summary>
    /// <exception cref="IOException">It can't be closed.</exception>
    public void Close(IEnumerable<AllowedServer> servers)
    {
        if (!_options.KillSwitch)
        {
            if (_killSwitch.IsClosed)
            {
                LogStillClosed(_log);
            }
            return;
        }
        _killSwitch.Close(
            new FirewallWishes(
                _options.TunName,
                [.. servers],
                Identity.EffectiveUser,
                _options.Fwmark,
                _options.RouteMode == RouteMode.Lan,
                _options.AllowIPv6Outside
            )
        );
        LogClosed(_log);
    }

    /// <summary>Gives the TUN device its address and MTU, and brings it up.</summary>
    /// <exception cref="IOException">The system does not allow it.</exception>
    public void SetUp(int mtu) =>
        _device = new TunDevice(_options.TunName, _options.TunLocalIp, _options.TunPeerIp, mtu);

    /// <summary>
    /// Servers that are to be connected to while the routes of another one stand: the way to them does not lead into the
    /// tunnel from now on.
    /// </summary>
    public void Allow(IReadOnlyCollection<IPAddress> servers) => _routes.Allow(servers);

    /// <summary>The tunnel is up: routes and DNS lead into it. A later call is about another server.</summary>
    /// <exception cref="IOException">They can't be made.</exception>
    public void Install(IPAddress server)
    {
        _routes.Install(server);
        if (_options.DnsConfigMode == DnsConfigMode.Default)
        {
            _dns ??= new DnsSetup(_options.TunName, _options.TunDnsIp, _log);
        }
    }

    /// <summary>Undoes all, once.</summary>
    /// <param name="isOrderly">The operator ends the client: the kill switch opens. Otherwise it stays closed.</param>
    public void Undo(bool isOrderly)
    {
        if (_isUndone)
        {
            return;
        }
        _isUndone = true;
        _dns?.Dispose();
        _routes.Dispose();
        _device?.Dispose();
        if (!_options.KillSwitch || !_killSwitch.IsClosed)
        {
            return;
        }
        if (!isOrderly)
        {
            LogStaysClosed(_log);
            return;
        }
        try
        {
            _ = _killSwitch.Open();
        }
        catch (IOException error)
        {
            LogFailure(_log, error.Message);
        }
    }

    public void Dispose() => Undo(isOrderly: false);

    private static string NameOf(ClientOptions server) => $"{server.ServerHost}:{server.ServerPort}";

    [LoggerMessage(Level = LogLevel.Information, Message = "restored {What}, left behind by a client that was killed")]
    private static partial void LogRestored(ILogger log, string what);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "kill switch: closed; nothing leaves this machine but through the tunnel"
    )]
    private static partial void LogClosed(ILogger log);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "kill switch: stays closed; start the client again, or run lightway-client reset, which opens it"
    )]
    private static partial void LogStaysClosed(ILogger log);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "kill switch: an earlier client's is closed, and this one does not touch it; lightway-client reset opens it"
    )]
    private static partial void LogStillClosed(ILogger log);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "kill switch: closed since an earlier client; {Host} is taken to have the addresses it had then: {Addresses}"
    )]
    private static partial void LogRemembered(ILogger log, string host, string addresses);

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

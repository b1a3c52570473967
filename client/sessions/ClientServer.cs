using System.Net;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Client.Sessions;

/// <summary>Who the client is at a server, and how it knows the server.</summary>
/// <param name="Options">As if the server were the only one.</param>
/// <param name="CreateSettings">Settings of a connection, with a copy of the password of their own.</param>
internal sealed record ServerLogin(ClientOptions Options, TlsContext Tls, Func<ConnectionSettings> CreateSettings);

/// <summary>One server that the client may use: its options, its addresses, and how connections to it are made.</summary>
internal sealed class ClientServer(ServerLogin login) : IDisposable
{
    private readonly List<TlsContext> _retired = []; // connections may still use them
    private ServerLogin _login = login;
    private readonly List<Ending> _endings = [];
    private IReadOnlyList<PeerAddress> _offered = [];

    /// <summary>As if it were the only server.</summary>
    public ClientOptions Options => _login.Options;

    /// <summary>As configured.</summary>
    public string Name =>
        Options.ServerHost.Contains(':')
            ? $"[{Options.ServerHost}]:{Options.ServerPort}"
            : $"{Options.ServerHost}:{Options.ServerPort}";

    public TlsContext Tls => _login.Tls;

    public Transport Transport => _login.Tls.Transport;

    /// <summary>In the order in which they are tried; empty if none is known.</summary>
    public IReadOnlyList<PeerAddress> Addresses { get; private set; } = [];

    /// <summary>Why other addresses are not tried, each in a few words.</summary>
    public IReadOnlyList<string> Unusable { get; set; } = [];

    /// <summary>How its addresses have ended in this round, and a connection that was online.</summary>
    public IReadOnlyList<Ending> Endings => _endings;

    /// <summary>Its name can have other addresses by now.</summary>
    public bool IsName => !IPAddress.TryParse(Options.ServerHost, out _);

    /// <summary>Settings of another connection. They hold a copy of the password of their own, which the login overwrites.</summary>
    public ConnectionSettings CreateSettings() => _login.CreateSettings();

    /// <summary>Another login, to the same address and port over the same transport, for connections to come.</summary>
    public void Use(ServerLogin login)
    {
        _retired.Add(_login.Tls);
        _login = login;
    }

    /// <summary>Addresses for the next round; a round that runs keeps those that it began with.</summary>
    public void Offer(IReadOnlyList<PeerAddress> addresses) => _offered = addresses;

    /// <summary>A round begins.</summary>
    public void Begin()
    {
        _endings.Clear();
        Addresses = _offered;
    }

    public void Add(Ending ending) => _endings.Add(ending);

    public void Dispose()
    {
        _login.Tls.Dispose();
        _retired.ForEach(tls => tls.Dispose());
    }

    /// <summary>An IPv4 address that is mapped into IPv6, for a socket of both families, is shown as IPv4.</summary>
    public static IPEndPoint Shown(PeerAddress peer)
    {
        var endPoint = peer.ToEndPoint();
        return endPoint.Address.IsIPv4MappedToIPv6
            ? new IPEndPoint(endPoint.Address.MapToIPv4(), endPoint.Port)
            : endPoint;
    }

    /// <param name="isDual">The UDP socket is one of IPv6, which serves both families: it knows an IPv4 address as mapped.</param>
    public PeerAddress PeerOf(IPAddress address, bool isDual) =>
        new(
            new IPEndPoint(
                isDual && Transport == Transport.Datagram ? address.MapToIPv6() : address,
                Options.ServerPort
            )
        );
}

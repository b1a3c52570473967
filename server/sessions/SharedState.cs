using Lightway.Protocol;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Server.Control;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>What the connection managers of all workers share. Each part is immutable or safe from any thread.</summary>
public sealed record SharedState
{
    public required ServerSettings Settings { get; init; }

    public required ConnectionSettings ConnectionSettings { get; init; }

    /// <summary>Of DTLS; null: no datagrams are served.</summary>
    public TlsContext? Tls { get; init; }

    /// <summary>Of TLS; null: no streams are served.</summary>
    public TlsContext? StreamTls { get; init; }

    /// <summary>Null: no connection begins with a header of the PROXY protocol.</summary>
    public ProxySources? Proxies { get; init; }

    public required AddressPool Pool { get; init; }

    public required LocalParts Parts { get; init; }

    public required InsideDirectory Inside { get; init; }

    public required LoginDesk Desk { get; init; }

    public required UserSessions Users { get; init; }

    /// <summary>What strangers may cost one worker.</summary>
    public required AdmissionLimits Admission { get; init; }

    /// <summary>Random and secret: see <see cref="KeyedHash"/>.</summary>
    public required HashSeed Seed { get; init; }

    /// <summary>Whether new sessions are refused, and until when the others go on.</summary>
    public Draining Draining { get; } = new();

    public required ILogger Log { get; init; }
}

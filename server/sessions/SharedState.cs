using Lightway.Protocol;
using Lightway.Server.Accounting;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Server.Control;
using Lightway.Server.Reload;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Packets;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>What the connection managers of all workers share. Each part is immutable or safe from any thread.</summary>
public sealed record SharedState
{
    public required ServerSettings Settings { get; init; }

    public required ConnectionSettings ConnectionSettings { get; init; }

    /// <summary>What the server is to its clients at the start; a reload replaces it.</summary>
    public required ServerIdentity Identity { get; init; }

    /// <summary>Their number.</summary>
    public required int Workers { get; init; }

    /// <summary>Null: no connection begins with a header of the PROXY protocol.</summary>
    public ProxySources? Proxies { get; init; }

    public required AddressPool Pool { get; init; }

    public required LocalParts Parts { get; init; }

    public required InsideDirectory Inside { get; init; }

    public required LoginDesk Desk { get; init; }

    public required UserSessions Users { get; init; }

    /// <summary>The workers' clock, in ms. Any thread.</summary>
    public Func<long> Now { get; init; } = static () => Environment.TickCount64;

    /// <summary>Says when tokens expire.</summary>
    public TimeProvider Clock { get; init; } = TimeProvider.System;

    /// <summary>Random and secret: see <see cref="KeyedHash"/>.</summary>
    public required HashSeed Seed { get; init; }

    /// <summary>Whether new sessions are refused, and until when the others go on.</summary>
    public Draining Draining { get; } = new();

    /// <summary>Null: the kernel drops nothing for us.</summary>
    public StrangerGate? Gate { get; init; }

    /// <summary>Null: there is none.</summary>
    public AccountingLog? Accounting { get; init; }

    public required ILogger Log { get; init; }
}

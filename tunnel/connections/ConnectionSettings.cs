using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>Settings that all connections of a program share.</summary>
public sealed record ConnectionSettings
{
    public required Role Role { get; init; }

    /// <summary>Bytes of the largest outside IP packet; inside packets may have this less a Data header.</summary>
    public int OutsideMtu { get; init; } = 1500;

    public bool EnableExpresslane { get; init; }

    public long ExpresslaneRotationMs { get; init; } = 15 * 60_000;

    /// <summary>Server: period of DTLS key updates, 0 for none.</summary>
    public long KeyUpdateMs { get; init; } = 15 * 60_000;

    /// <summary>Client: silence after which a ping goes out.</summary>
    public long KeepaliveIntervalMs { get; init; } = 10_000;

    /// <summary>Client: silence after the first unanswered ping that ends the connection.</summary>
    public long KeepaliveTimeoutMs { get; init; } = 60_000;

    public bool KeepaliveContinuous { get; init; } = true;

    /// <summary>Client: the login that it sends.</summary>
    public AuthRequest? Credentials { get; init; }
}

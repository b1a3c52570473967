using Lightway.Protocol;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Hooks;

namespace Lightway.Tunnel.Packets;

/// <summary>Settings that all connections of a program share.</summary>
public sealed record ConnectionSettings
{
    public required Role Role { get; init; }

    /// <summary>Bytes of the largest outside IP packet; inside packets may have this less a Data header.</summary>
    public int OutsideMtu { get; init; } = 1500;

    /// <summary>
    /// Finds out how long datagrams may be on the way to the peer, and splits packets that are longer. The socket must set DF.
    /// </summary>
    public bool EnablePathMtu { get; init; }

    /// <summary>Bytes of the first probe's frame; 0 for that of an outside IP packet of 1280.</summary>
    public int PathMtuBase { get; init; }

    /// <summary>The bits of an inside packet's TOS byte that its datagram gets: 3 is the ECN field, 0xFC is DSCP.</summary>
    public byte CopiedTos { get; init; } = 3;

    public bool EnableExpresslane { get; init; }

    /// <summary>The library that seals and opens Expresslane packets.</summary>
    public PacketAeads Aeads { get; init; } = PacketAeads.WolfCrypt;

    public long ExpresslaneRotationMs { get; init; } = 15 * 60_000;

    /// <summary>Server: period of DTLS key updates, 0 for none.</summary>
    public long KeyUpdateMs { get; init; } = 15 * 60_000;

    /// <summary>
    /// Packets after which the Expresslane key changes: half of the 2^32 that a key may seal with random IVs (NIST SP
    /// 800-38D section 8.3).
    /// </summary>
    public ulong ExpresslanePacketsPerKey { get; init; } = 1UL << 31;

    /// <summary>
    /// Server: records, of one direction, after which the DTLS keys change: before wolfSSL does so on its own, within a
    /// write, after 23.7 million (RFC 8446 section 5.5).
    /// </summary>
    public long DtlsRecordsPerKey { get; init; } = 1L << 23;

    /// <summary>Client: silence after which a ping goes out.</summary>
    public long KeepaliveIntervalMs { get; init; } = 10_000;

    /// <summary>Client: silence after the first unanswered ping that ends the connection.</summary>
    public long KeepaliveTimeoutMs { get; init; } = 60_000;

    public bool KeepaliveContinuous { get; init; } = true;

    /// <summary>
    /// Plugins and codec for each connection, called on its worker's thread; null for none, and they cost nothing then.
    /// </summary>
    public Func<ConnectionHooks>? CreateHooks { get; init; }

    /// <summary>Client: the login that it sends.</summary>
    public AuthRequest? Credentials { get; init; }
}

using Lightway.Segmenter;

namespace Lightway.Server.Sessions;

/// <summary>Addresses and intervals of a server.</summary>
public sealed record ServerSettings
{
    /// <summary>The address that every client uses inside the tunnel.</summary>
    public required Ipv4Address ClientIp { get; init; }

    public required Ipv4Address ServerIp { get; init; }

    public required Ipv4Address DnsIp { get; init; }

    /// <summary>Hosts that write to an address of the pool that no client has are told so (ICMP).</summary>
    public bool IcmpUnreachable { get; init; }

    /// <summary>Milliseconds between two looks for stale connections.</summary>
    public required long SweepMs { get; init; }

    /// <summary>Milliseconds between two log lines with the number of sessions.</summary>
    public required long ReportMs { get; init; }
}

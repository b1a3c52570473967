namespace Lightway.Server.Sessions;

/// <summary>Addresses and intervals of a server; addresses are numbers, 10.0.0.1 is 0x0A000001.</summary>
public sealed record ServerSettings
{
    /// <summary>The address that every client uses inside the tunnel.</summary>
    public required uint ClientIp { get; init; }

    public required uint ServerIp { get; init; }

    public required uint DnsIp { get; init; }

    /// <summary>Milliseconds between two looks for stale connections.</summary>
    public required long SweepMs { get; init; }

    /// <summary>Milliseconds between two log lines with the number of sessions.</summary>
    public required long ReportMs { get; init; }
}

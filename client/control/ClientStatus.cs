using System.Text.Json;
using System.Text.Json.Serialization;

namespace Lightway.Client.Control;

/// <summary>Bytes of inside packets, since the start and in the last second.</summary>
internal sealed record Traffic(long BytesSent, long BytesReceived, long BitsPerSecondSent, long BitsPerSecondReceived);

/// <summary>The connection that serves.</summary>
/// <param name="Server">As configured.</param>
/// <param name="Address">The server's address and port.</param>
/// <param name="Transport">udp or tcp.</param>
/// <param name="Session">Session id, 16 hexadecimal digits.</param>
/// <param name="Since">UTC (RFC 3339).</param>
/// <param name="PathMtu">Bytes of the outside IP packet that the path carries; null: not found out.</param>
/// <param name="InsideMtu">Bytes of the longest packet that passes whole.</param>
/// <param name="RoundTripMs">Of the latest keepalive; null: none was needed yet.</param>
internal sealed record ConnectionStatus(
    string Server,
    string Address,
    string Transport,
    string Security,
    string Session,
    string Since,
    bool Expresslane,
    int? PathMtu,
    int InsideMtu,
    long? RoundTripMs
);

/// <summary>The offloads in use.</summary>
internal sealed record OffloadStatus(bool TunTso, bool TunGroTcp, bool TunGroUdp, bool UdpGro, int UdpGsoSegments);

/// <summary>How a client is, at most a second old: the answer to <c>status</c>, one line of JSON.</summary>
/// <param name="State">connecting, online, waiting (for the next round) or ending.</param>
/// <param name="Connection">Null if there is none.</param>
/// <param name="Reconnects">Connections so far, less the first one.</param>
/// <param name="Moves">Changes of network and sleeps that a connection has survived.</param>
/// <param name="FailedRounds">Rounds over all servers that have failed in a row.</param>
/// <param name="RetryInMs">Milliseconds until the next round; null: none is planned.</param>
/// <param name="LastEnd">How the latest connection or round has ended; null: none has.</param>
internal sealed record ClientStatus(
    string State,
    string Device,
    int DeviceMtu,
    ConnectionStatus? Connection,
    Traffic Traffic,
    int Reconnects,
    int Moves,
    int FailedRounds,
    long? RetryInMs,
    string? LastEnd,
    OffloadStatus Offload
)
{
    private static readonly JsonSerializerOptions Format = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    public bool Ok { get; init; } = true;

    /// <summary>One line, without its end.</summary>
    public string ToJson() => JsonSerializer.Serialize(this, Format);

    /// <exception cref="JsonException">The text is something else.</exception>
    public static ClientStatus? Parse(string json) => JsonSerializer.Deserialize<ClientStatus>(json, Format);
}

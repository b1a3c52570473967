using System.Net.Sockets;
using System.Text.Json;
using System.Text.Json.Serialization;

namespace Lightway.Server.Control;

/// <summary>The last line of an answer that is not a success.</summary>
internal sealed record Refusal(string Error)
{
    public bool Ok { get; init; }
}

/// <summary>Writes an answer: JSON objects, one per line, of which the last one has <c>ok</c>.</summary>
internal sealed class ControlAnswer(Socket peer, CancellationToken cancellation)
{
    /// <summary>Names in snake case; what is not known is left out.</summary>
    public static readonly JsonSerializerOptions Format = new()
    {
        PropertyNamingPolicy = JsonNamingPolicy.SnakeCaseLower,
        DictionaryKeyPolicy = null,
        DefaultIgnoreCondition = JsonIgnoreCondition.WhenWritingNull,
    };

    /// <summary>Sends lines, and waits until the peer has taken them.</summary>
    public async Task SendAsync<T>(IReadOnlyList<T> lines)
    {
        using var bytes = new MemoryStream();
        foreach (var line in lines)
        {
            JsonSerializer.Serialize(bytes, line, Format);
            bytes.WriteByte((byte)'\n');
        }
        var left = bytes.GetBuffer().AsMemory(0, (int)bytes.Length);
        while (!left.IsEmpty)
        {
            left = left[await peer.SendAsync(left, cancellation).ConfigureAwait(false)..];
        }
    }

    public Task RefuseAsync(string error) => SendAsync([new Refusal(error)]);
}

using System.Buffers;
using System.Globalization;
using System.Text.Encodings.Web;
using System.Text.Json;
using Lightway.Segmenter;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Accounting;

/// <summary>What one line of accounting says about a session.</summary>
/// <param name="Time">When, in UTC.</param>
/// <param name="Reason">Why it ended; null: it goes on.</param>
/// <param name="User">As at the login.</param>
/// <param name="Session">Its random name.</param>
/// <param name="Source">Where its datagrams come from now.</param>
/// <param name="Inside">Its address in the tunnel.</param>
/// <param name="Since">When the login succeeded, in UTC.</param>
/// <param name="Traffic">Since then.</param>
internal sealed record AccountingEntry(
    DateTime Time,
    string? Reason,
    string User,
    string Session,
    PeerAddress Source,
    Ipv4Address Inside,
    DateTime Since,
    Traffic Traffic
)
{
    private static readonly JsonWriterOptions s_options = new()
    {
        Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping, // for files, not for pages; control characters are escaped
    };

    public static AccountingEntry Of(Connection connection, DateTime time, string? reason) =>
        new(
            time,
            reason,
            connection.Record.User,
            connection.Record.Account,
            connection.Path.Peer,
            connection.InsideAddress,
            connection.Record.Since,
            connection.Traffic
        );

    /// <summary>A JSON object and a line feed.</summary>
    public void Write(IBufferWriter<byte> line)
    {
        using (var json = new Utf8JsonWriter(line, s_options))
        {
            json.WriteStartObject();
            json.WriteString("time"u8, TextOf(Time));
            json.WriteString("event"u8, Reason is null ? "interim" : "stop");
            json.WriteString("user"u8, User);
            json.WriteString("session"u8, Session);
            json.WriteString("source"u8, Source.ToString());
            json.WriteString("inside"u8, Inside.ToString());
            json.WriteString("start"u8, TextOf(Since));
            json.WriteNumber("seconds"u8, Math.Round(Math.Max(0, (Time - Since).TotalSeconds), 3));
            json.WriteNumber("bytes_in"u8, Traffic.BytesIn);
            json.WriteNumber("bytes_out"u8, Traffic.BytesOut);
            json.WriteNumber("packets_in"u8, Traffic.PacketsIn);
            json.WriteNumber("packets_out"u8, Traffic.PacketsOut);
            if (Reason is not null)
            {
                json.WriteString("reason"u8, Reason);
            }
            json.WriteEndObject();
        }
        line.Write("\n"u8);
    }

    /// <summary>RFC 3339, with milliseconds.</summary>
    private static string TextOf(DateTime time) =>
        time.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z'", CultureInfo.InvariantCulture);
}

using System.Buffers;
using System.Reflection;
using System.Text.Json;
using Lightway.Server.Accounting;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Observe;

/// <summary>
/// What the status page gets each second, as a server-sent event: counters since start, from whose growth the page computes
/// rates, and the present state. There is nothing in it about users or single clients.
/// </summary>
internal static class StatusSample
{
    private static readonly DateTime s_startedAt = DateTime.UtcNow;
    private static readonly string s_version =
        typeof(StatusSample).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion
        ?? "";

    public static void Write(ServerView view, IBufferWriter<byte> output)
    {
        output.Write("data: "u8);
        using (var json = new Utf8JsonWriter(output))
        {
            json.WriteStartObject();
            json.WriteNumber("t"u8, Environment.TickCount64);
            json.WriteNumber("uptime"u8, (long)(DateTime.UtcNow - s_startedAt).TotalSeconds);
            json.WriteString("version"u8, s_version.Split('+')[0]);
            json.WriteString(
                "state"u8,
                view.State.IsDraining ? "draining"
                    : view.State.IsServing ? "ready"
                    : "starting"
            );
            WriteSessions(json, view);
            WriteTraffic(json, view);
            WriteDrops(json, view);
            WriteWorkers(json, view);
            WriteOffload(json, view);
            json.WriteEndObject();
        }
        output.Write("\n\n"u8);
    }

    private static void WriteSessions(Utf8JsonWriter json, ServerView view)
    {
        var uses = view.Uses;
        json.WriteNumber("online"u8, view.Online);
        json.WriteNumber("connections"u8, view.Connections);
        json.WriteNumber("lifetime"u8, view[Counter.ConnOnline]);
        json.WriteNumber("addresses"u8, view.AddressesAssigned);
        json.WriteNumber("capacity"u8, view.AddressesInAll);
        json.WriteStartArray("uses"u8);
        for (var i = 0; i < SessionUses.Minutes.Length; i++)
        {
            json.WriteStartObject();
            json.WriteNumber("minutes"u8, SessionUses.Minutes[i]);
            json.WriteNumber("active"u8, uses.Active[i]);
            json.WriteNumber("standby"u8, uses.Standby[i]);
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    private static void WriteTraffic(Utf8JsonWriter json, ServerView view)
    {
        json.WriteNumber("down"u8, view[Counter.TunToClient]);
        json.WriteNumber("up"u8, view[Counter.TunFromClient]);
        json.WriteNumber("superpackets"u8, view[Counter.SuperpacketsRead]);
        json.WriteNumber("blocked"u8, view[Counter.UdpSendBlocked]);
        json.WriteNumber(
            "fallbacks"u8,
            view[Counter.UdpGsoFallbacks] + view[Counter.UdpGsoPeerFallbacks] + view[Counter.TunGroFallbacks]
        );
        long sends = 0;
        long sent = 0;
        foreach (var histogram in view.Counters.Select(counters => counters.DatagramsPerSend))
        {
            for (var range = 0; range <= histogram.Bounds.Count; range++)
            {
                var (count, sum) = histogram.Read(range);
                sends += count;
                sent += sum;
            }
        }
        json.WriteNumber("sends"u8, sends);
        json.WriteNumber("sent"u8, sent);
    }

    private static void WriteDrops(Utf8JsonWriter json, ServerView view)
    {
        json.WriteStartObject("drops"u8);
        foreach (var (reason, count) in view.Drops.Where(pair => pair.Value > 0))
        {
            json.WriteNumber(reason, count);
        }
        json.WriteEndObject();
    }

    private static void WriteWorkers(Utf8JsonWriter json, ServerView view)
    {
        json.WriteStartArray("workers"u8);
        for (var i = 0; i < view.Workers.Count; i++)
        {
            var worker = view.Workers[i];
            var counters = worker.Context.Counters;
            json.WriteStartObject();
            json.WriteNumber("busy"u8, ThreadTime.Of(worker.Thread).Running);
            json.WriteNumber("in"u8, counters[Counter.UdpDatagramsReceived] + counters[Counter.TcpReceives]);
            json.WriteNumber("out"u8, counters[Counter.UdpDatagramsSent] + counters[Counter.TcpRecordsSent]);
            json.WriteNumber("sessions"u8, view.OnlineOf(i));
            json.WriteEndObject();
        }
        json.WriteEndArray();
    }

    /// <summary>For each part, the number of workers that use it.</summary>
    private static void WriteOffload(Utf8JsonWriter json, ServerView view)
    {
        json.WriteStartObject("offload"u8);
        foreach (var part in view.Workers.SelectMany(worker => worker.OffloadStates).GroupBy(state => state.Part))
        {
            json.WriteNumber(part.Key, part.Count(state => state.IsOn));
        }
        json.WriteEndObject();
    }
}

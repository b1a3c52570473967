using System.Globalization;
using System.Text;
using System.Text.Json;

namespace Lightway.Server.Control;

/// <summary>The answers of a server, for people.</summary>
internal static class ControlText
{
    private static readonly string[] Units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    private static readonly string[] Headings =
    [
        "SESSION",
        "USER",
        "PEER",
        "INSIDE",
        "SINCE",
        "IDLE",
        "VIA",
        "IN",
        "OUT",
        "CIPHER",
    ];

    /// <summary>Lines in columns that are two blanks apart; the last cell of a line is not padded.</summary>
    public static string Columns(IReadOnlyList<IReadOnlyList<string>> rows)
    {
        var widths = Enumerable
            .Range(0, rows.Max(row => row.Count))
            .Select(column => rows.Where(row => row.Count > column).Max(row => row[column].Length))
            .ToArray();
        var text = new StringBuilder();
        foreach (var row in rows)
        {
            for (var column = 0; column < row.Count; column++)
            {
                text.Append(column + 1 < row.Count ? row[column].PadRight(widths[column] + 2) : row[column]);
            }
            text.Append('\n');
        }
        return text.ToString();
    }

    /// <summary>The lines of <c>sessions</c>.</summary>
    public static string Sessions(IReadOnlyList<SessionLine> sessions) =>
        Columns([
            Headings,
            .. sessions.Select(session =>
                (string[])
                    [
                        session.Session,
                        Printable(session.User),
                        session.Peer,
                        session.Inside,
                        session.Since,
                        Duration(session.IdleMs),
                        session.Transport,
                        Bytes(session.BytesIn),
                        Bytes(session.BytesOut),
                        session.Cipher,
                    ]
            ),
        ]);

    /// <summary>The answer of <c>status</c>.</summary>
    public static string Status(StatusAnswer status)
    {
        var offload = status.Offload;
        List<string[]> rows =
        [
            ["version", status.Version],
            ["pid", Number(status.Pid)],
            ["up", $"{Duration(status.UptimeMs)}, since {status.Started}"],
            ["serving", $"{status.Mode} {status.Address}"],
            ["device", $"{status.Device}, MTU {status.Mtu}"],
            ["draining", status.DrainingMs is { } left ? $"yes, ends within {Duration(left)}" : "no"],
            ["sessions", $"{status.Sessions}, of {status.Connections} connections"],
            ["addresses", $"{status.AddressesAssigned} of {status.AddressesTotal} assigned"],
            .. status.Workers.Select(
                (worker, i) =>
                    (string[])
                        [
                            $"worker {i}",
                            $"{worker.Sessions} sessions, {(worker.Load * 100).ToString("F0", CultureInfo.InvariantCulture)} % of a processor",
                        ]
            ),
            ["TUN reads", $"TSO {OnOff(offload.TunTso)}, USO {OnOff(offload.TunUso)}"],
            ["TUN writes", $"TCP {OnOff(offload.TunWritesTcp)}, UDP {OnOff(offload.TunWritesUdp)}"],
            [
                "UDP",
                $"GSO {(offload.UdpGsoSegments > 1 ? $"{offload.UdpGsoSegments} datagrams" : "off")}, GRO {OnOff(offload.UdpGro)}",
            ],
            ["to clients", Bytes(status.Totals.GetValueOrDefault("tun_to_client"))],
            ["from clients", Bytes(status.Totals.GetValueOrDefault("tun_from_client"))],
            ["logins", Number(status.Totals.GetValueOrDefault("conn_online"))],
            ["drops", Number(status.Totals.GetValueOrDefault("drops_total"))],
        ];
        // Their names are longer: in a table of their own they leave the other columns as they are.
        var drops = status.Drops.Select(drop => (string[])[$"  {drop.Key}", Number(drop.Value)]).ToArray();
        return Columns(rows) + (drops.Length > 0 ? Columns(drops) : "");
    }

    /// <summary>The two largest units: <c>3d 4h</c>, <c>12s</c>.</summary>
    public static string Duration(long milliseconds)
    {
        var time = TimeSpan.FromMilliseconds(milliseconds);
        return time switch
        {
            { TotalDays: >= 1 } => $"{(int)time.TotalDays}d {time.Hours}h",
            { TotalHours: >= 1 } => $"{time.Hours}h {time.Minutes}m",
            { TotalMinutes: >= 1 } => $"{time.Minutes}m {time.Seconds}s",
            _ => $"{time.Seconds}s",
        };
    }

    /// <summary>Bytes with a binary unit: <c>1.5 GiB</c>.</summary>
    public static string Bytes(long count)
    {
        var value = (double)count;
        var unit = 0;
        while (value >= 1024 && unit + 1 < Units.Length)
        {
            value /= 1024;
            unit++;
        }
        return value.ToString(unit == 0 ? "F0" : "F1", CultureInfo.InvariantCulture) + " " + Units[unit];
    }

    /// <summary>Without control characters, which a terminal would obey.</summary>
    public static string Printable(string text) =>
        string.Concat(text.Select(letter => char.IsControl(letter) ? '?' : letter));

    /// <summary>A line of an answer; null if it is not one.</summary>
    public static T? Read<T>(string line)
        where T : class
    {
        try
        {
            return JsonSerializer.Deserialize<T>(line, ControlAnswer.Format);
        }
        catch (JsonException)
        {
            return null;
        }
    }

    private static string OnOff(bool value) => value ? "on" : "off";

    private static string Number(long value) => value.ToString(CultureInfo.InvariantCulture);
}

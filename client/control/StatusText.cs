using System.Globalization;
using System.Text;

namespace Lightway.Client.Control;

/// <summary>The client's status in words.</summary>
internal static class StatusText
{
    /// <summary>Several lines, for <c>lightway-client status</c>.</summary>
    public static string Page(ClientStatus status, DateTimeOffset now)
    {
        var text = new StringBuilder();
        void Line(string name, string value) => text.Append(CultureInfo.InvariantCulture, $"{name, -14}{value}\n");
        Line("state", State(status));
        if (status.Connection is { } connection)
        {
            var since = DateTimeOffset.Parse(connection.Since, CultureInfo.InvariantCulture);
            Line("server", $"{connection.Server} ({connection.Address}, {connection.Transport})");
            Line("since", $"{connection.Since} ({Duration((now - since).TotalSeconds)})");
            Line("session", connection.Session);
            Line("security", $"{connection.Security}{(connection.Expresslane ? ", Expresslane" : "")}");
            Line(
                "MTU",
                $"{status.DeviceMtu} of {status.Device}; packets of up to {connection.InsideMtu} pass whole"
                    + (connection.PathMtu is { } path ? $"; the path carries {path}" : "")
            );
            Line(
                "round trip",
                connection.RoundTripMs is { } roundTrip ? $"{roundTrip} ms" : "not known: no keepalive was needed yet"
            );
        }
        var traffic = status.Traffic;
        Line("sent", $"{Bytes(traffic.BytesSent)}, {Rate(traffic.BitsPerSecondSent)}");
        Line("received", $"{Bytes(traffic.BytesReceived)}, {Rate(traffic.BitsPerSecondReceived)}");
        Line("reconnects", $"{status.Reconnects}; moves to another network: {status.Moves}");
        if (status.LastEnd is { } end)
        {
            Line("last end", end);
        }
        var offload = status.Offload;
        Line(
            "offload",
            $"TUN reads: TSO {OnOff(offload.TunTso)}; TUN writes: TCP {OnOff(offload.TunGroTcp)}, UDP {OnOff(offload.TunGroUdp)}; UDP: GSO {(offload.UdpGsoSegments > 1 ? $"{offload.UdpGsoSegments}" : "off")}, GRO {OnOff(offload.UdpGro)}"
        );
        return text.ToString();
    }

    /// <summary>One line, for a terminal.</summary>
    public static string Brief(ClientStatus status)
    {
        var traffic = status.Traffic;
        return $"{State(status)}{(status.Connection is { } connection ? $" {connection.Address}" : "")}"
            + $"  up {Rate(traffic.BitsPerSecondSent)} ({Bytes(traffic.BytesSent)})"
            + $"  down {Rate(traffic.BitsPerSecondReceived)} ({Bytes(traffic.BytesReceived)})";
    }

    /// <summary>Bytes with three digits or so, in powers of 1000.</summary>
    internal static string Bytes(long bytes) => Scaled(bytes, "B", "kB", "MB", "GB", "TB");

    internal static string Rate(long bitsPerSecond) => Scaled(bitsPerSecond, "b/s", "kb/s", "Mb/s", "Gb/s", "Tb/s");

    internal static string Duration(double seconds)
    {
        var time = TimeSpan.FromSeconds(Math.Max(0, Math.Floor(seconds)));
        return time switch
        {
            { TotalDays: >= 1 } => $"{(int)time.TotalDays} d {time.Hours} h",
            { TotalHours: >= 1 } => $"{time.Hours} h {time.Minutes} min",
            { TotalMinutes: >= 1 } => $"{time.Minutes} min {time.Seconds} s",
            _ => $"{time.Seconds} s",
        };
    }

    private static string State(ClientStatus status) =>
        status.RetryInMs is { } wait
            ? $"waiting, {(wait + 999) / 1000} s until the next try (failed so far: {status.FailedRounds})"
            : status.State;

    private static string Scaled(double value, params string[] units)
    {
        var unit = 0;
        while (value >= 1000 && unit < units.Length - 1)
        {
            value /= 1000;
            unit++;
        }
        var format = unit == 0 || value >= 100 ? "0" : "0.0";
        return $"{value.ToString(format, CultureInfo.InvariantCulture)} {units[unit]}";
    }

    private static string OnOff(bool isOn) => isOn ? "on" : "off";
}

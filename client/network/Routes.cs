using System.Diagnostics;
using System.Net;
using Lightway.Options;

namespace Lightway.Client.Network;

/// <summary>
/// Routes of a client (ip-route(8)): the server by its present route, everything else through the device. Removed again
/// on <see cref="Dispose"/>. Mode noexec installs none.
/// </summary>
internal sealed class Routes : IDisposable
{
    private static readonly string[] s_all = ["0.0.0.0/1", "128.0.0.0/1"];
    private static readonly string[] s_local =
    [
        "192.168.0.0/16",
        "172.16.0.0/12",
        "10.0.0.0/8",
        "169.254.0.0/16",
        "224.0.0.0/24",
    ];
    private readonly List<string> _installed = [];

    /// <exception cref="IOException">A route can't be installed; those already installed are removed.</exception>
    public static Routes Install(RouteMode mode, IPAddress server, string device, IPAddress tunPeer, IPAddress tunDns)
    {
        var routes = new Routes();
        if (mode == RouteMode.NoExec)
        {
            return routes;
        }
        try
        {
            var way = CurrentWay(server);
            routes.Add($"{server}/{server.GetAddressBytes().Length * 8} {way}");
            routes.Add($"{tunDns}/32 dev {device}");
            foreach (var network in s_all)
            {
                routes.Add($"{network} via {tunPeer} dev {device}");
            }
            foreach (var network in mode == RouteMode.Lan ? s_local : [])
            {
                routes.Add($"{network} {way}");
            }
            return routes;
        }
        catch
        {
            routes.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        foreach (var route in Enumerable.Reverse(_installed))
        {
            _ = Ip($"route del {route}"); // gone already if its device is
        }
    }

    /// <summary>The "via … dev …" part of the route to an address.</summary>
    private static string CurrentWay(IPAddress address)
    {
        var (exit, output) = Ip($"-o route get {address}");
        var words = output.Split(' ', StringSplitOptions.RemoveEmptyEntries);
        var device = Array.IndexOf(words, "dev");
        if (exit != 0 || device < 0)
        {
            throw new IOException($"no route to the server {address}: {output.Trim()}");
        }
        var via = Array.IndexOf(words, "via");
        return via >= 0 ? $"via {words[via + 1]} dev {words[device + 1]}" : $"dev {words[device + 1]}";
    }

    private void Add(string route)
    {
        var (exit, output) = Ip($"route add {route}");
        if (exit == 0)
        {
            _installed.Add(route);
        }
        else if (!output.Contains("File exists", StringComparison.Ordinal)) // an existing route stays the operator's
        {
            throw new IOException($"ip route add {route}: {output.Trim()}");
        }
    }

    private static (int Exit, string Output) Ip(string arguments)
    {
        using var process =
            Process.Start(
                new ProcessStartInfo("ip", arguments) { RedirectStandardOutput = true, RedirectStandardError = true }
            ) ?? throw new IOException("can't start ip (package iproute2)");
        var error = process.StandardError.ReadToEndAsync();
        var output = process.StandardOutput.ReadToEnd();
        process.WaitForExit();
        return (process.ExitCode, output + error.Result);
    }
}

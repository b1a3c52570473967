using System.Globalization;
using System.Net.NetworkInformation;
using Lightway.Options;
using Microsoft.FSharp.Collections;
using Microsoft.FSharp.Core;

namespace Lightway.Server.Host;

/// <summary>Reads the present state of the host. Changes nothing.</summary>
internal static class HostReader
{
    private const string Devices = "/sys/class/net";

    // linux/if.h, linux/if_tun.h
    private const int IFF_UP = 0x1;
    private const int IFF_TUN = 0x1;
    private const int IFF_MULTI_QUEUE = 0x100;
    private const int IFF_PERSIST = 0x800;

    private static readonly string[] Programs = ["ip", "nft", "sysctl", "ethtool"];
    private static readonly string[] Sysctls = ["net.ipv4.ip_forward", "net.core.rmem_max", "net.core.wmem_max"];

    /// <summary>The device of the default route of IPv4 with the lowest metric; null: there is none.</summary>
    public static string? DefaultUplink() => DefaultUplinkIn(Text("/proc/self/net/route"));

    /// <param name="routes">Text of /proc/net/route (proc(5)): device, destination, gateway, flags, …, metric, mask, in hexadecimal.</param>
    internal static string? DefaultUplinkIn(string routes) =>
        routes
            .Split('\n')
            .Skip(1)
            .Select(line => line.Split('\t', StringSplitOptions.TrimEntries))
            .Where(fields => fields.Length > 7 && fields[1] == "00000000" && fields[7] == "00000000")
            .OrderBy(fields => uint.TryParse(fields[6], out var metric) ? metric : uint.MaxValue)
            .Select(fields => fields[0])
            .FirstOrDefault();

    /// <summary>Bytes; null: there is no such device.</summary>
    public static int? MtuOf(string device) =>
        Number(Path.Combine(Devices, device, "mtu")) is { } mtu ? (int)mtu : null;

    /// <summary>Id of a user of this machine; null: there is none.</summary>
    public static uint? UserId(string user) =>
        HostPrograms.Run(["id", "-u", "--", user]) is { Code: 0 } result
        && uint.TryParse(result.Output.Trim(), out var id)
            ? id
            : null;

    /// <param name="uplink">The device whose settings are of interest; null: none.</param>
    public static HostFacts Read(string device, string pool, string? uplink) =>
        new(
            Environment.IsPrivilegedProcess,
            ListModule.OfSeq(Programs.Where(program => HostPrograms.Find(program) is null)),
            DeviceOf(device, pool) is { } found ? FSharpOption<HostDevice>.Some(found) : null,
            uplink is not null && Directory.Exists(Path.Combine(Devices, uplink)),
            MapModule.OfSeq(
                Sysctls
                    .Select(name => (Name: name, Value: Setting("/proc/sys/" + name.Replace('.', '/'))))
                    .Where(sysctl => sysctl.Value is not null)
                    .Select(sysctl => Tuple.Create(sysctl.Name, sysctl.Value!.Value))
            ),
            uplink is null ? null : GroForwardingIn(HostPrograms.Run(["ethtool", "-k", uplink]).Output),
            HostPrograms.Run(["nft", "list", "table", "inet", HostPlan.tableOf(device)]).Code == 0
        );

    /// <param name="features">Output of <c>ethtool -k</c>. What can't be changed is "[fixed]" there.</param>
    internal static string? GroForwardingIn(string features) =>
        features
            .Split('\n')
            .Select(line => line.Trim())
            .Where(line => line.StartsWith("rx-udp-gro-forwarding: ", StringComparison.Ordinal))
            .Select(line => line.Split(' ', 2)[1])
            .FirstOrDefault(value => value is "on" or "off");

    private static HostDevice? DeviceOf(string device, string pool)
    {
        var directory = Path.Combine(Devices, device);
        if (!Directory.Exists(directory))
        {
            return null;
        }
        var tun = Number(Path.Combine(directory, "tun_flags")) ?? 0; // only TUN and TAP devices have it
        return new HostDevice(
            (tun & IFF_TUN) != 0,
            (tun & IFF_PERSIST) != 0,
            (tun & IFF_MULTI_QUEUE) != 0,
            Number(Path.Combine(directory, "owner")) ?? -1,
            (int)(Number(Path.Combine(directory, "mtu")) ?? 0),
            (int)(Number(Path.Combine(directory, "tx_queue_len")) ?? 0),
            ((Number(Path.Combine(directory, "flags")) ?? 0) & IFF_UP) != 0,
            ListModule.OfSeq(AddressesOf(device)),
            HostPrograms.Run(["ip", "-4", "route", "show", "exact", pool, "dev", device]).Output.Trim().Length > 0
        );
    }

    private static IEnumerable<string> AddressesOf(string device) =>
        NetworkInterface
            .GetAllNetworkInterfaces()
            .Where(found => found.Name == device)
            .SelectMany(found => found.GetIPProperties().UnicastAddresses)
            .Select(address => $"{address.Address}/{address.PrefixLength}");

    /// <summary>A number that can be changed; null: not here. Limits of the whole machine are read-only in its namespaces.</summary>
    private static long? Setting(string file) =>
        File.Exists(file) && File.GetUnixFileMode(file).HasFlag(UnixFileMode.UserWrite) ? Number(file) : null;

    /// <summary>A number, decimal or 0x…; null if the file can't be read.</summary>
    private static long? Number(string file)
    {
        var text = Text(file).Trim();
        return text.StartsWith("0x", StringComparison.Ordinal)
            ? long.TryParse(text.AsSpan(2), NumberStyles.AllowHexSpecifier, null, out var flags)
                ? flags
                : null
            : long.TryParse(text, NumberStyles.AllowLeadingSign, null, out var value)
                ? value
                : null;
    }

    private static string Text(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}

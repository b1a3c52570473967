using System.Net.Sockets;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;

namespace Lightway.Server.Host;

/// <summary>
/// The command <c>lightway-server setup-host</c>: makes this machine ready for a server, or takes that back. What it runs
/// are the commands that <c>--print</c> shows.
/// </summary>
public static class SetUpHost
{
    private const int OutsideMtu = 1500; // of most paths; the server does not send longer datagrams

    /// <returns>Exit code: 0, or 1 (a step failed) or 2 (can't be done like this) after one line on <paramref name="error"/>.</returns>
    public static int Run(HostOptions options, TextWriter output, TextWriter error)
    {
        // The file may belong to the server's user: its values are typed, and none of them is more than a name, a number or
        // an address here.
        var outcome = ServerOptions.Parse(
            ["--config-file", options.ConfigFile],
            Environment.GetEnvironmentVariable,
            File.ReadAllText
        );
        if (outcome.Kind != OutcomeKind.Run)
        {
            error.WriteLine(outcome.Text);
            return Entry.BadConfiguration;
        }
        try
        {
            return options.Action == HostAction.Undo
                ? Undo(NameOf(outcome.Options), outcome.Options, output, error)
                : Apply(options, outcome.Options, output, error);
        }
        catch (ConfigurationException problem)
        {
            error.WriteLine($"setup-host: {problem.Message}");
            return Entry.BadConfiguration;
        }
        catch (Exception problem) when (problem is IOException or UnauthorizedAccessException)
        {
            error.WriteLine($"setup-host: {problem.Message}");
            return Entry.Failed;
        }
    }

    private static int Apply(HostOptions options, ServerOptions server, TextWriter output, TextWriter error)
    {
        var request = RequestOf(options, server);
        var facts = HostReader.Read(request.Device, request.Pool.ToString(), request.Uplink);
        var (steps, changes, problem) = HostPlan.tryApply(request, facts);
        if (problem is not null)
        {
            throw new ConfigurationException(problem);
        }
        if (options.Action == HostAction.Print)
        {
            output.WriteLine("#!/bin/sh -e");
            Show(steps, output);
            return 0;
        }
        Require(facts);
        var record = new HostRecord(request.Device);
        record.Write(HostPlan.merge(record.Read(), changes)); // first: whatever fails can be taken back
        return RunAll(steps, output, error, stopAtFailure: true) == 0 ? 0 : Entry.Failed;
    }

    private static int Undo(string device, ServerOptions server, TextWriter output, TextWriter error)
    {
        var record = new HostRecord(device);
        var changes = record.Read();
        if (changes.IsEmpty)
        {
            output.WriteLine($"# nothing was set up for {device} since the machine has started");
            return 0;
        }
        const string ofUplink = "gro:";
        var uplink = changes
            .Select(change => change.Key)
            .FirstOrDefault(key => key.StartsWith(ofUplink, StringComparison.Ordinal))
            ?[ofUplink.Length..];
        var facts = HostReader.Read(device, server.IpPool.ToString(), uplink);
        Require(facts);
        var steps = HostPlan.undo(device, record.HandOver(changes), facts);
        if (RunAll(steps, output, error, stopAtFailure: false) > 0)
        {
            return Entry.Failed; // the record stays, for another attempt
        }
        record.Write(Microsoft.FSharp.Collections.FSharpList<HostChange>.Empty);
        return 0;
    }

    private static HostRequest RequestOf(HostOptions options, ServerOptions server)
    {
        var uplink = options.Uplink ?? HostReader.DefaultUplink();
        uint user = 0;
        if (options.User is { } name)
        {
            user =
                HostReader.UserId(name)
                ?? throw new ConfigurationException(
                    $"there is no user {name}; run: useradd --system --no-create-home --shell /usr/sbin/nologin {name}"
                );
        }
        var workers = server.Workers > 0 ? server.Workers : Environment.ProcessorCount;
        return new HostRequest(
            NameOf(server),
            server.TunIp,
            server.IpPool,
            options.Mtu > 0 ? options.Mtu : MtuFor(UplinkMtu(uplink), server),
            workers > 1,
            options.User,
            user,
            options.User is not null && server.Mode != TransportMode.Tcp ? server.UdpBufferSize : 0,
            server.Offload.EnableTunOffload && !server.Offload.DisableTunTso,
            uplink,
            options.Nat,
            options.ClientToClient,
            options.ClientToHost
        );
    }

    /// <param name="uplink">null: it is not known.</param>
    private static int UplinkMtu(string? uplink) =>
        uplink is null ? OutsideMtu : HostReader.MtuOf(uplink) ?? OutsideMtu;

    private static string NameOf(ServerOptions server) =>
        server.TunName is not { } name
            ? throw new ConfigurationException(
                "tun_name: missing; the device that stays needs a name: tun_name: lightway"
            )
        : HostPlan.isPlainName(name) ? name
        : throw new ConfigurationException(
            $"tun_name: \"{name}\" means something else to the programs that set the host up; allowed: letters, digits, '.', '_' and '-'"
        );

    /// <summary>The recommended MTU, or less if the uplink carries less.</summary>
    internal static int MtuFor(int uplinkMtu, ServerOptions server)
    {
        var isIPv6 = server.BindAddress.AddressFamily == AddressFamily.InterNetworkV6;
        var fits = Sizes.insideMtu(Math.Min(uplinkMtu, OutsideMtu), isIPv6, server.EnableExpresslane);
        return server.Mode == TransportMode.Tcp
            ? Sizes.DefaultInsideMtu
            : Math.Clamp(fits, Sizes.MinInsideMtu, Sizes.DefaultInsideMtu);
    }

    private static void Require(HostFacts facts)
    {
        if (HostPlan.obstacle(facts) is { } obstacle)
        {
            throw new ConfigurationException(obstacle);
        }
    }

    private static void Show(IEnumerable<HostStep> steps, TextWriter output)
    {
        foreach (var step in steps)
        {
            output.WriteLine();
            foreach (var line in HostPlan.lines(step))
            {
                output.WriteLine(line);
            }
        }
    }

    /// <summary>Runs steps, and shows each one before. Returns the number of those that failed.</summary>
    private static int RunAll(IEnumerable<HostStep> steps, TextWriter output, TextWriter error, bool stopAtFailure)
    {
        var failures = 0;
        foreach (var step in steps)
        {
            Show([step], output);
            if (step.Command.Count == 0)
            {
                continue;
            }
            var result = HostPrograms.Run(step.Command, step.Input);
            if (result.Code == 0)
            {
                continue;
            }
            failures++;
            var why = string.Join(' ', result.Error.Split('\n', StringSplitOptions.TrimEntries));
            error.WriteLine($"setup-host: `{string.Join(' ', step.Command)}` failed with code {result.Code}: {why}");
            if (stopAtFailure)
            {
                error.WriteLine("setup-host: --undo takes back what was done before");
                break;
            }
        }
        return failures;
    }
}

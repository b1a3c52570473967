using Lightway.Client.Firewall;
using Lightway.Client.Network;
using Lightway.Client.Resolver;
using Lightway.Hosting;

namespace Lightway.Client;

/// <summary>
/// <c>lightway-client reset</c>: removes what killed clients have left behind in this machine, or in this network namespace. It
/// needs no configuration.
/// </summary>
internal static class ResetCommand
{
    /// <returns>Exit code.</returns>
    public static int Run(TextWriter output, TextWriter errors)
    {
        try
        {
            if (TunDevice.OfLivingClient() is { } device)
            {
                throw new IOException(
                    $"a client is running, with device {device}: stop it, and it undoes all by itself"
                );
            }
            var killSwitch = new KillSwitch(isToTell: true);
            using var table = new RouteTable();
            var done = Routes
                .RemoveLeftovers(table)
                .Select(route => $"removed the route {route}")
                .Concat(DnsSetup.RestoreLeftovers().Select(what => $"restored {what}"))
                .ToList();
            if (TunDevice.RemoveLeftovers() is var count and > 0)
            {
                done.Add($"removed {count} addresses");
            }
            done.AddRange(killSwitch.Open().Select(name => $"opened the kill switch (table inet {name})"));
            output.WriteLine(done.Count > 0 ? string.Join('\n', done) : "nothing was left behind");
            return 0;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            errors.WriteLine($"reset: {error.Message}");
            return Entry.Failed;
        }
    }
}

using Lightway.Client.Sessions;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>
/// SIGHUP: reads the files again. A running client takes logins and certificates over, for its next connection; the one that it
/// has goes on. What else has changed is named as waiting for a restart. A file that can't be used changes nothing.
/// </summary>
/// <param name="insight">What looks into the TLS of connections to come; null: nobody.</param>
internal sealed class Reload(
    ClientOptions options,
    Func<ParseOutcome<ClientOptions>> reread,
    TlsInsight? insight,
    ILogger log
)
{
    private readonly Lock _reading = new(); // signals may come quickly after each other

    /// <summary>Takes the login of each server, in their order. Null: the client is not that far yet.</summary>
    public Action<IReadOnlyList<ServerLogin>>? Ready { get; set; }

    /// <summary>Who seals packets and records. Null: the client is not that far yet.</summary>
    public PacketAeads? Aeads { get; set; }

    /// <summary>Any thread.</summary>
    public void Run()
    {
        lock (_reading)
        {
            try
            {
                Read();
            }
            catch (Exception error) when (error is ConfigurationException or IOException or UnauthorizedAccessException)
            {
                ProgramLog.Warning(log, $"SIGHUP: nothing has changed: {error.Message}");
            }
        }
    }

    private static ConfigurationException TooEarly() => new("the client is only just starting: send it again");

    private void Read()
    {
        var outcome = reread();
        if (outcome.Kind != OutcomeKind.Run)
        {
            throw new ConfigurationException(outcome.Text);
        }
        FileChecks.Require("config_file", options.ConfigFile, FileRule.OwnerOnly);
        var wanted = options.WithLoginsOf(outcome.Options);
        if (Aeads is not { } aeads)
        {
            throw TooEarly();
        }
        var logins = wanted.Servers.Select(server => ClientHost.LoginOf(server, insight, aeads, log)).ToArray();
        if (Ready is not { } ready)
        {
            throw TooEarly();
        }
        ready(logins);
        ProgramLog.Reloaded(log);
        if (!wanted.Equals(outcome.Options))
        {
            ProgramLog.Warning(
                log,
                "SIGHUP: options other than logins and certificates have changed: they wait for a restart"
            );
        }
    }
}

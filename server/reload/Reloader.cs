using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server.Sessions;
using Lightway.Server.Setup;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Server.Reload;

/// <summary>
/// Reads the configuration file and the files that it names again, while the server runs. Nothing changes unless all of it
/// is right; nobody is disconnected, but for users that are gone if the operator wants that.
/// </summary>
/// <param name="parse">Reads the options as at the start: from the same flags, the environment and the file.</param>
/// <param name="started">The options that the server runs with.</param>
/// <param name="ipMap">The map of local addresses that it runs with.</param>
/// <param name="identity">What it is to its clients with them; owned from here on.</param>
/// <param name="insight">Who looks into TLS, as at the start; null: nobody.</param>
/// <param name="aeads">Who seals packets and records, as at the start.</param>
/// <param name="managers">Of all workers.</param>
internal sealed partial class Reloader(
    Func<ParseOutcome<ServerOptions>> parse,
    ServerOptions started,
    IReadOnlyList<IpMapEntry> ipMap,
    ServerIdentity identity,
    TlsInsight? insight,
    PacketAeads aeads,
    SharedState shared,
    IReadOnlyList<ConnectionManager> managers,
    ILogger log
) : IDisposable
{
    private readonly Lock _serial = new();
    private ServerOptions _options = started;
    private ServerIdentity _identity = identity;
    private bool _isOver;

    /// <summary>
    /// Reads everything again. What is right takes effect at each worker as soon as it gets to it, and a line of the log says
    /// so when all have. Any thread; one reload at a time.
    /// </summary>
    /// <returns>Null: all was right. Otherwise nothing has changed, and this line says why; the log has it, too.</returns>
    public string? Reload()
    {
        lock (_serial)
        {
            if (_isOver)
            {
                return "the server is stopping";
            }
            try
            {
                Apply(Read());
                return null;
            }
            catch (Exception error)
                when (error is ConfigurationException or IOException or UnauthorizedAccessException or TlsException)
            {
                var line = error.Message.ReplaceLineEndings(" ");
                LogRefused(log, line);
                return line;
            }
        }
    }

    public void Dispose()
    {
        lock (_serial)
        {
            _isOver = true;
            _identity.Dispose();
        }
    }

    /// <exception cref="ConfigurationException">Something is wrong.</exception>
    private ServerOptions Read()
    {
        var outcome = parse();
        if (outcome.Kind != OutcomeKind.Run)
        {
            throw new ConfigurationException(outcome.Text);
        }
        ServerFiles.Require(outcome.Options);
        return outcome.Options;
    }

    /// <exception cref="ConfigurationException">A file is wrong; nothing has changed.</exception>
    private void Apply(ServerOptions read)
    {
        var options = ServerReload.merge(_options, read);
        var restart = RestartKeys(read);
        var next = ServerIdentity.Load(options, insight, aeads, log);
        var previous = _identity;
        _options = options;
        _identity = next;
        if (restart.Count > 0)
        {
            LogRestart(log, string.Join(", ", restart));
        }
        Logging.SetLevel(options.LogLevel);
        shared.Desk.Use(next.Authenticator, next.LoginChecks);
        shared.Pool.Fix(next.Limits.Addresses);
        var text = TextOf(options);
        var left = managers.Count;
        foreach (var manager in managers)
        {
            manager.Post(
                next,
                () =>
                {
                    if (Interlocked.Decrement(ref left) == 0)
                    {
                        previous.Dispose(); // no worker makes a session of it any more
                        LogReloaded(log, text);
                    }
                }
            );
        }
    }

    /// <summary>Options that differ from those that the server runs with, and can't change before it is started again.</summary>
    private List<string> RestartKeys(ServerOptions read)
    {
        var keys = ServerReload.needRestart(_options, read).ToList();
        if (!keys.Contains("ip_map") && !ServerFiles.ReadIpMap(read).SequenceEqual(ipMap))
        {
            keys.Add("ip_map"); // the same file has another map
        }
        return keys;
    }

    /// <summary>What has been read, for the log.</summary>
    private static string TextOf(ServerOptions options) =>
        string.Join(
            ", ",
            (string[])
                [
                    "server_cert, server_key",
                    .. options.UserDb is null ? (string[])[] : ["user_db"],
                    .. options.Auth.TokenKeys is null ? (string[])[] : ["token_rsa_pub_key_pem"],
                    .. options.Auth.AddressMap is null ? (string[])[] : ["address_map"],
                    "limits, log_level",
                ]
        );

    [LoggerMessage(Level = LogLevel.Information, Message = "reloaded: {Files}")]
    private static partial void LogReloaded(ILogger log, string files);

    [LoggerMessage(Level = LogLevel.Error, Message = "not reloaded, nothing has changed: {Why}")]
    private static partial void LogRefused(ILogger log, string why);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "these options differ from those that the server runs with, and need a restart: {Keys}; all others are reloaded"
    )]
    private static partial void LogRestart(ILogger log, string keys);
}

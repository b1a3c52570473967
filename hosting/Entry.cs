using System.Net.Sockets;
using Lightway.Options;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Hosting;

/// <summary>The way into a program: from its parsed command line to an exit code.</summary>
public static class Entry
{
    /// <summary>The program could not do its work, and says why in the log.</summary>
    public const int Failed = 1;

    /// <summary>What the operator wrote can't be used; one line on standard error says why.</summary>
    public const int BadConfiguration = 2;

    /// <summary>Prints help or version, or runs <paramref name="body"/> with a log and reports the error that stops it.</summary>
    public static int Run<TOptions>(
        ParseOutcome<TOptions> outcome,
        string program,
        Func<TOptions, ILoggerFactory> createLog,
        Func<TOptions, ILogger, int> body
    )
    {
        switch (outcome.Kind)
        {
            case OutcomeKind.Help or OutcomeKind.Version:
                Console.WriteLine(outcome.Text);
                return 0;
            case OutcomeKind.Error:
                Console.Error.WriteLine(outcome.Text);
                return BadConfiguration;
        }
        if (Platform.MissingLibrary() is { } missing)
        {
            Console.Error.WriteLine(missing);
            return Failed;
        }
        using var logging = createLog(outcome.Options);
        var log = logging.CreateLogger(program);
        foreach (var warning in outcome.Warnings)
        {
            ProgramLog.Warning(log, warning);
        }
        try
        {
            return body(outcome.Options, log);
        }
        catch (ConfigurationException error)
        {
            Console.Error.WriteLine(error.Message);
            return BadConfiguration;
        }
        catch (Exception error)
            when (error is IOException or UnauthorizedAccessException or TlsException or SocketException)
        {
            ProgramLog.Fatal(log, error.Message);
            return Failed;
        }
    }
}

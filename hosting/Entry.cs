using System.Net.Sockets;
using Lightway.Hosting.Start;
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

    /// <summary>Client: the server has refused the login, and would do so again.</summary>
    public const int LoginRefused = 3;

    /// <summary>
    /// Prints help or version, or runs <paramref name="body"/> with a log and reports the error that stops it; or opens the
    /// files only (<paramref name="check"/>) and prints the configuration.
    /// </summary>
    public static int Run<TOptions>(
        ParseOutcome<TOptions> outcome,
        string program,
        Func<TOptions, ILoggerFactory> createLog,
        Func<TOptions, ILogger, int> body,
        Action<TOptions, ILogger> check
    )
    {
        switch (outcome.Kind)
        {
            case OutcomeKind.Write:
                return NewFile(outcome.File, outcome.Text);
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
        if (outcome.Kind == OutcomeKind.Check)
        {
            return Check(outcome, check);
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

    /// <summary>Warnings go to standard error, so that what standard output gets is a configuration file.</summary>
    private static int Check<TOptions>(ParseOutcome<TOptions> outcome, Action<TOptions, ILogger> check)
    {
        var log = new WarningLog(Console.Error);
        foreach (var warning in outcome.Warnings)
        {
            ProgramLog.Warning(log, warning);
        }
        try
        {
            check(outcome.Options, log);
        }
        catch (Exception error) when (error is ConfigurationException or IOException or UnauthorizedAccessException)
        {
            Console.Error.WriteLine(error.Message);
            return BadConfiguration;
        }
        catch (TlsException error)
        {
            Console.Error.WriteLine(error.Message);
            return Failed;
        }
        Console.WriteLine(outcome.Text);
        return 0;
    }

    /// <summary>Writes a file that only its owner can access, as it is to hold secrets. An existing one is left alone.</summary>
    private static int NewFile(string path, string text)
    {
        var options = new FileStreamOptions
        {
            Mode = FileMode.CreateNew,
            Access = FileAccess.Write,
            UnixCreateMode = UnixFileMode.UserRead | UnixFileMode.UserWrite,
        };
        try
        {
            using var file = new StreamWriter(path, options);
            file.Write(text);
            return 0;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            Console.Error.WriteLine($"config_file: cannot write \"{path}\": {error.Message}");
            return BadConfiguration;
        }
    }
}

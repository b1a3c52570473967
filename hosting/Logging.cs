using System.Net;
using Lightway.Options;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Console;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Hosting;

/// <summary>The log on standard output, in the operator's format.</summary>
public static class Logging
{
    private const string Rfc3339 = "yyyy-MM-dd'T'HH:mm:ss.fff'Z'"; // of a time in UTC

    private static volatile LogLevel _level = LogLevel.Information;

    /// <summary>Less than this is not logged, from now on, by this process. Any thread.</summary>
    public static void SetLevel(Options.LogLevel level) =>
        _level = level switch
        {
            Options.LogLevel.Trace => LogLevel.Trace,
            Options.LogLevel.Debug => LogLevel.Debug,
            Options.LogLevel.Info => LogLevel.Information,
            Options.LogLevel.Warn => LogLevel.Warning,
            Options.LogLevel.Error => LogLevel.Error,
            _ => LogLevel.None,
        };

    public static ILoggerFactory Create(LogFormat format, Options.LogLevel level)
    {
        SetLevel(level);
        return Create(format);
    }

    private static ILoggerFactory Create(LogFormat format) =>
        LoggerFactory.Create(builder =>
        {
            builder.SetMinimumLevel(LogLevel.Trace);
            builder.AddFilter(static level => level >= _level);
            // A worker never waits for whoever reads the log.
            builder.Services.Configure<ConsoleLoggerOptions>(console =>
                console.QueueFullMode = ConsoleLoggerQueueFullMode.DropWrite
            );
            switch (format)
            {
                case LogFormat.Json:
                    builder.AddJsonConsole(console =>
                    {
                        console.UseUtcTimestamp = true;
                        console.TimestampFormat = Rfc3339;
                    });
                    break;
                case LogFormat.Pretty:
                    builder.AddSimpleConsole(console =>
                    {
                        console.UseUtcTimestamp = true;
                        console.TimestampFormat = Rfc3339 + " ";
                    });
                    break;
                default:
                    builder.AddConsole(console => console.FormatterName = LineFormatter.FormatterName);
                    builder.AddConsoleFormatter<LineFormatter, LineFormatterOptions>(line =>
                        line.IsFull = format == LogFormat.Full
                    );
                    break;
            }
        });
}

/// <summary>Log lines of a program about itself.</summary>
public static partial class ProgramLog
{
    [LoggerMessage(Level = LogLevel.Warning, Message = "{Text}")]
    public static partial void Warning(ILogger log, string text);

    [LoggerMessage(Level = LogLevel.Critical, Message = "{Text}")]
    public static partial void Fatal(ILogger log, string text);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Library}")]
    public static partial void Library(ILogger log, string library);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "serving {Transport} {Address}, device {Tun}, MTU {Mtu}, workers {Workers}; TUN reads: TSO {Tso}, USO {Uso}; TUN writes: TCP {TcpWrites}, UDP {UdpWrites}; UDP: GSO {Segments}, GRO {Gro}"
    )]
    public static partial void Serving(
        ILogger log,
        string transport,
        IPEndPoint address,
        string tun,
        int mtu,
        int workers,
        bool tso,
        bool uso,
        bool tcpWrites,
        bool udpWrites,
        int segments,
        bool gro
    );

    [LoggerMessage(Level = LogLevel.Information, Message = "device {Tun} has an MTU of {Mtu} from now on")]
    public static partial void MtuChanged(ILogger log, string tun, int mtu);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "SIGHUP: the files were read again; the next connection uses them"
    )]
    public static partial void Reloaded(ILogger log);

    [LoggerMessage(Level = LogLevel.Information, Message = "tls_debug: {Line}")]
    public static partial void Tls(ILogger log, string line);

    [LoggerMessage(Level = LogLevel.Information, Message = "{Text}")]
    public static partial void Note(ILogger log, string text);

    [LoggerMessage(Level = LogLevel.Information, Message = "stopped")]
    public static partial void Stopped(ILogger log);
}

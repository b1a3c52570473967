using System.Globalization;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Logging.Abstractions;
using Microsoft.Extensions.Logging.Console;
using Microsoft.Extensions.Options;
using LogLevel = Microsoft.Extensions.Logging.LogLevel;

namespace Lightway.Hosting;

/// <summary>Options of the line format.</summary>
internal sealed class LineFormatterOptions : ConsoleFormatterOptions
{
    /// <summary>Time in UTC (RFC 3339) and program name in front.</summary>
    public bool IsFull { get; set; }
}

/// <summary>One line an event: <c>2026-11-23T01:05:03.345Z INFO lightway-server: message</c>.</summary>
internal sealed class LineFormatter(IOptions<LineFormatterOptions> options) : ConsoleFormatter(FormatterName)
{
    public const string FormatterName = "line";

    public override void Write<TState>(in LogEntry<TState> entry, IExternalScopeProvider? scopes, TextWriter output)
    {
        if (options.Value.IsFull)
        {
            output.Write(DateTime.UtcNow.ToString("yyyy-MM-dd'T'HH:mm:ss.fff'Z '", CultureInfo.InvariantCulture));
        }
        output.Write(Word(entry.LogLevel));
        output.Write(' ');
        if (options.Value.IsFull)
        {
            output.Write(entry.Category);
            output.Write(": ");
        }
        output.WriteLine(entry.Formatter(entry.State, entry.Exception));
    }

    private static string Word(LogLevel level) =>
        level switch
        {
            LogLevel.Trace => "TRACE",
            LogLevel.Debug => "DEBUG",
            LogLevel.Information => " INFO",
            LogLevel.Warning => " WARN",
            _ => "ERROR",
        };
}

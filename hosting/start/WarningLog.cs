using Microsoft.Extensions.Logging;

namespace Lightway.Hosting.Start;

/// <summary>Writes warnings and errors, one line each, and nothing else.</summary>
public sealed class WarningLog(TextWriter output) : ILogger
{
    public IDisposable? BeginScope<TState>(TState state)
        where TState : notnull => null;

    public bool IsEnabled(LogLevel logLevel) => logLevel >= LogLevel.Warning;

    public void Log<TState>(
        LogLevel logLevel,
        EventId eventId,
        TState state,
        Exception? exception,
        Func<TState, Exception?, string> formatter
    )
    {
        if (IsEnabled(logLevel))
        {
            output.WriteLine($"warning: {formatter(state, exception).ReplaceLineEndings(" ")}");
        }
    }
}

using System.Runtime.InteropServices;
using System.Text.Json;
using Lightway.Tunnel.Metrics;
using Microsoft.Extensions.Logging;

namespace Lightway.Hosting;

/// <summary>Writes all counters as one flat JSON object, on SIGUSR1 and when asked. Null file: does nothing.</summary>
public sealed partial class MetricsFile : IDisposable
{
    private readonly Lock _writing = new(); // a signal may come during the last write
    private readonly string? _file;
    private readonly IReadOnlyList<Counters> _workers;
    private readonly ILogger _log;
    private readonly PosixSignalRegistration _signal;

    public MetricsFile(string? file, IReadOnlyList<Counters> workers, ILogger log)
    {
        _file = file;
        _workers = workers;
        _log = log;
        _signal = PosixSignalRegistration.Create(
            (PosixSignal)10, // SIGUSR1, which has no name in .NET; the number is x86's and Arm's
            context =>
            {
                context.Cancel = true; // without a file too: the signal's default is to end the process
                Write();
            }
        );
    }

    /// <summary>
    /// Replaces the file as a whole, so that a reader never sees half of it. No symbolic link is written through, whoever
    /// put it there: CreateNew is O_EXCL, which follows none, and rename(2) replaces a link itself.
    /// </summary>
    public void Write()
    {
        if (_file is null)
        {
            return;
        }
        try
        {
            lock (_writing)
            {
                var temporary = _file + ".new";
                File.Delete(temporary); // a link is deleted, not what it points to
                using (var stream = new FileStream(temporary, FileMode.CreateNew, FileAccess.Write))
                {
                    JsonSerializer.Serialize(stream, Counters.Sum(_workers).ToDictionary());
                }
                File.Move(temporary, _file, overwrite: true);
            }
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            LogFailure(_log, _file, error.Message);
        }
    }

    public void Dispose() => _signal.Dispose();

    [LoggerMessage(Level = LogLevel.Warning, Message = "can't write metrics to {File}: {Why}")]
    private static partial void LogFailure(ILogger log, string file, string why);
}

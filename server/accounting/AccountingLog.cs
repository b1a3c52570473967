using System.Buffers;
using System.Collections.Concurrent;
using Lightway.Hosting;
using Lightway.Tunnel.Metrics;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Accounting;

/// <summary>
/// Writes lines of accounting on a thread of its own. Whoever adds one never waits: if too many wait, or the line can't be
/// written, it is lost and counted, and one line of the log says so.
/// </summary>
public sealed partial class AccountingLog : IDisposable
{
    private const int Capacity = 65_536; // lines; all sessions of a full pool may end at once
    private static readonly TimeSpan s_lastWords = TimeSpan.FromSeconds(3); // for what waits at the end
    private readonly BlockingCollection<AccountingEntry?> _waiting = new(Capacity); // null: open the file again
    private readonly ArrayBufferWriter<byte> _line = new();
    private readonly string _target;
    private readonly IAccountingSink _sink;
    private readonly ILogger _log;
    private readonly Thread _thread;
    private long _lostInRow; // since the last line that was written

    private AccountingLog(string target, IAccountingSink sink, TimeSpan interval, ILogger log)
    {
        _target = target;
        _sink = sink;
        _log = log;
        IntervalMs = (long)interval.TotalMilliseconds;
        _thread = new Thread(Run) { IsBackground = true, Name = "accounting" };
        _thread.Start();
    }

    /// <summary>Milliseconds between two lines of a session.</summary>
    public long IntervalMs { get; }

    /// <summary>Of the thread that writes.</summary>
    public Counters Counters { get; } = new();

    /// <summary>Null: there is no accounting.</summary>
    /// <param name="target">Path of a file, or of a Unix datagram socket behind "unix:"; null: none.</param>
    /// <exception cref="ConfigurationException">The file can't be opened.</exception>
    public static AccountingLog? Open(string? target, TimeSpan interval, ILogger log)
    {
        const string unix = "unix:";
        try
        {
            return target is null ? null
                : target.StartsWith(unix, StringComparison.Ordinal)
                    ? new AccountingLog(target, new AccountingSocket(target[unix.Length..]), interval, log)
                : new AccountingLog(target, new AccountingFile(target), interval, log);
        }
        catch (IOException error)
        {
            throw new ConfigurationException($"accounting: \"{target}\" can't be opened: {error.Message}");
        }
    }

    /// <summary>Opens the file again by its name, as after a rotation. Any thread.</summary>
    public void Reopen() => _waiting.TryAdd(null);

    /// <summary>Writes what waits, as far as it goes within three seconds.</summary>
    public void Dispose()
    {
        _waiting.CompleteAdding();
        if (_thread.Join(s_lastWords))
        {
            _sink.Dispose();
            _waiting.Dispose();
            return;
        }
        LogLeft(_log, _target, _waiting.Count); // the thread ends with the process
    }

    /// <summary>Has a line written, soon. False: too many wait, and it is lost. Any thread; does not wait.</summary>
    internal bool TryAdd(AccountingEntry entry) => _waiting.TryAdd(entry);

    private void Run()
    {
        foreach (var entry in _waiting.GetConsumingEnumerable())
        {
            try
            {
                if (entry is null)
                {
                    _sink.Reopen();
                    continue;
                }
                _line.ResetWrittenCount();
                entry.Write(_line);
                _sink.Write(_line.WrittenSpan);
                Counters.Add(Counter.AccountingRecords);
                OnWritten();
            }
            catch (IOException error)
            {
                OnLost(error.Message);
            }
        }
    }

    private void OnWritten()
    {
        if (_lostInRow > 0)
        {
            LogAgain(_log, _target, _lostInRow);
            _lostInRow = 0;
        }
    }

    private void OnLost(string why)
    {
        Counters.Add(Counter.AccountingLost);
        if (_lostInRow++ == 0)
        {
            LogLost(_log, _target, why);
        }
    }

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "accounting: can't write to {Target}: {Why}; lines are lost until it can be written again"
    )]
    private static partial void LogLost(ILogger log, string target, string why);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "accounting: {Target} can be written again; {Lost} lines were lost"
    )]
    private static partial void LogAgain(ILogger log, string target, long lost);

    [LoggerMessage(Level = LogLevel.Warning, Message = "accounting: {Target}: {Left} lines were not written in time")]
    private static partial void LogLeft(ILogger log, string target, int left);
}

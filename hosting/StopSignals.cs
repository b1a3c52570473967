using System.Globalization;
using System.Runtime.InteropServices;

namespace Lightway.Hosting;

/// <summary>
/// Runs an action on SIGINT, SIGTERM and SIGQUIT instead of ending the process at once, and another one on SIGHUP. A SIGHUP
/// that the process was started to ignore (nohup(1)) stays ignored.
/// </summary>
public sealed class StopSignals : IDisposable
{
    private const int HangUp = 1; // SIGHUP, signal(7)
    private readonly List<PosixSignalRegistration> _signals = [];

    /// <param name="stop">Ends the program in order.</param>
    /// <param name="hangUp">What SIGHUP does.</param>
    public StopSignals(Action stop, Action hangUp)
    {
        var isHangUpIgnored = IsIgnored(HangUp); // asked before the runtime has a handler of its own
        foreach (var signal in new[] { PosixSignal.SIGINT, PosixSignal.SIGTERM, PosixSignal.SIGQUIT })
        {
            Handle(signal, stop);
        }
        Handle(PosixSignal.SIGHUP, isHangUpIgnored ? () => { } : hangUp);
    }

    /// <summary>
    /// The process has a controlling terminal, so that SIGHUP means that the terminal was closed. For a process without one,
    /// such as a service, it means that files are to be read again.
    /// </summary>
    public static bool HasTerminal => HasTerminalIn(ReadProcess("stat"));

    /// <param name="stat">Text of /proc/PID/stat (proc_pid_stat(5)); the field tty_nr is 0 without a terminal.</param>
    internal static bool HasTerminalIn(string stat)
    {
        // The second field is the program's name in parentheses and may contain anything; the third follows the last one.
        const int ttyAfterName = 4;
        var fields = stat[(stat.LastIndexOf(')') + 1)..].Split(' ', StringSplitOptions.RemoveEmptyEntries);
        return fields.Length > ttyAfterName && fields[ttyAfterName] != "0";
    }

    /// <param name="status">Text of /proc/PID/status (proc_pid_status(5)); SigIgn is a mask of signals in hexadecimal.</param>
    /// <param name="signal">Its number.</param>
    internal static bool IsIgnoredIn(string status, int signal)
    {
        const string label = "SigIgn:";
        var line = status.Split('\n').FirstOrDefault(line => line.StartsWith(label, StringComparison.Ordinal));
        return line is not null
            && ulong.TryParse(line.AsSpan(label.Length).Trim(), NumberStyles.HexNumber, null, out var mask)
            && (mask >> (signal - 1) & 1) != 0;
    }

    public void Dispose()
    {
        foreach (var signal in _signals)
        {
            signal.Dispose();
        }
    }

    private static bool IsIgnored(int signal) => IsIgnoredIn(ReadProcess("status"), signal);

    private void Handle(PosixSignal signal, Action action) =>
        _signals.Add(
            PosixSignalRegistration.Create(
                signal,
                context =>
                {
                    context.Cancel = true;
                    action();
                }
            )
        );

    /// <summary>A file of /proc about this process; empty where there is no /proc.</summary>
    private static string ReadProcess(string name)
    {
        try
        {
            return File.ReadAllText($"/proc/self/{name}");
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return "";
        }
    }
}

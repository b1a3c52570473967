using System.Diagnostics;
using System.Globalization;
using System.Net.Sockets;
using System.Text;
using Lightway.Options;
using Microsoft.Extensions.Logging;

namespace Lightway.Hosting.Service;

/// <summary>
/// Tells systemd how the program is (sd_notify(3)): ready, reloading, stopping, and, while all workers come by, that its
/// watchdog need not bark. Without systemd it does nothing. A message that can't be sent costs one warning, no more.
/// </summary>
public sealed class ServiceNotifier : IDisposable
{
    private const int SendTimeoutMs = 1000; // systemd reads its socket at once, unless it hangs itself
    private readonly ServiceManager _manager;
    private readonly ILogger _log;
    private readonly Socket? _socket;
    private readonly ManualResetEventSlim _ended = new();
    private Thread? _watch;
    private bool _hasFailed;

    /// <param name="manager">What the environment says.</param>
    public ServiceNotifier(ServiceManager manager, ILogger log)
    {
        _manager = manager;
        _log = log;
        if (manager.Socket.Length == 0)
        {
            return;
        }
        try
        {
            _socket = new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified)
            {
                SendTimeout = SendTimeoutMs,
            };
            _socket.Connect(new UnixDomainSocketEndPoint(manager.Socket));
        }
        catch (SocketException error)
        {
            Fail(error);
            _socket?.Dispose();
            _socket = null;
        }
    }

    /// <summary>Of this process's environment.</summary>
    public static ServiceNotifier Create(ILogger log) =>
        new(ServiceManagerModule.read(Environment.GetEnvironmentVariable, Environment.ProcessId), log);

    /// <summary>The program serves. From now on the watchdog hears of the workers.</summary>
    /// <param name="status">One line for <c>systemctl status</c>; empty: none.</param>
    /// <param name="seen">When each worker came by last, by Environment.TickCount64. Called on a thread of this object.</param>
    public void Ready(string status, Func<long[]> seen)
    {
        Send(ServiceManagerModule.message("READY=1", status));
        if (_socket is not null && _manager.WatchdogMs > 0 && _watch is null)
        {
            _watch = new Thread(() => Watch(seen)) { IsBackground = true, Name = "watchdog" };
            _watch.Start();
        }
    }

    /// <summary>Runs <paramref name="reload"/>; systemd knows the service as reloading meanwhile.</summary>
    public void Reload(Action reload)
    {
        // systemd 253 and later (Type=notify-reload) match the answer to their signal by this time, of CLOCK_MONOTONIC.
        var now = (long)Stopwatch.GetElapsedTime(0).TotalMicroseconds;
        Send(string.Create(CultureInfo.InvariantCulture, $"RELOADING=1\nMONOTONIC_USEC={now}"));
        try
        {
            reload();
        }
        finally
        {
            Send("READY=1"); // also if files could not be read: the service goes on with what it has
        }
    }

    /// <summary>The program ends in order: the watchdog expects nothing any more.</summary>
    public void Stopping()
    {
        _ended.Set();
        Send("STOPPING=1");
    }

    /// <summary>Changes the line that <c>systemctl status</c> shows.</summary>
    public void Status(string status) => Send(ServiceManagerModule.message("", status));

    public void Dispose()
    {
        _ended.Set();
        _watch?.Join();
        _socket?.Dispose();
        _ended.Dispose();
    }

    private void Watch(Func<long[]> seen)
    {
        var period = (int)ServiceManagerModule.period(_manager);
        do
        {
            if (ServiceManagerModule.isAlive(_manager, seen(), Environment.TickCount64))
            {
                Send("WATCHDOG=1");
            }
        } while (!_ended.Wait(period));
    }

    private void Send(string message)
    {
        if (_socket is null)
        {
            return;
        }
        try
        {
            _socket.Send(Encoding.UTF8.GetBytes(message));
        }
        catch (Exception error) when (error is SocketException or ObjectDisposedException)
        {
            Fail(error);
        }
    }

    private void Fail(Exception error)
    {
        if (!Interlocked.Exchange(ref _hasFailed, true))
        {
            ProgramLog.Warning(_log, $"systemd can't be told how this service is (NOTIFY_SOCKET): {error.Message}");
        }
    }
}

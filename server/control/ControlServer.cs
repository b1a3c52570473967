using System.Net.Sockets;
using System.Text;
using Lightway.Hosting;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Control;

/// <summary>
/// Answers the operator's commands: one line of JSON comes by a connection of the control socket, the answer goes back, and
/// the connection ends. It runs on the thread pool; workers are asked on their threads. What peers may cost is bounded in
/// number, length and time.
/// </summary>
internal sealed partial class ControlServer : IDisposable
{
    private const int MaxPeers = 32; // at the same time
    private const int MaxRequest = 4096; // bytes, the newline included
    private static readonly TimeSpan RequestTime = TimeSpan.FromSeconds(5);
    private static readonly TimeSpan AnswerTime = TimeSpan.FromSeconds(60);
    private static readonly TimeSpan Pause = TimeSpan.FromMilliseconds(100); // if there are no descriptors
    private readonly ControlSocket _socket;
    private readonly ControlCommands _commands;
    private readonly ILogger _log;
    private readonly CancellationTokenSource _stop = new();
    private int _peers;

    private ControlServer(ControlSocket socket, ControlCommands commands, ILogger log)
    {
        _socket = socket;
        _commands = commands;
        _log = log;
        _ = AcceptAsync();
    }

    /// <summary>Begins to answer; null if there is to be no control socket.</summary>
    /// <exception cref="ConfigurationException">The socket can't be made.</exception>
    public static ControlServer? Start(string? path, ControlCommands commands, ILogger log) =>
        path is null ? null : new ControlServer(ControlSocket.Open(path), commands, log);

    public void Dispose()
    {
        _stop.Cancel(); // the source itself is left to the collector: peers may still ask it
        _socket.Dispose();
    }

    private async Task AcceptAsync()
    {
        while (!_stop.IsCancellationRequested)
        {
            try
            {
                var peer = await _socket.Listener.AcceptAsync(_stop.Token).ConfigureAwait(false);
                _ = ServeAsync(peer, Interlocked.Increment(ref _peers) <= MaxPeers);
            }
            catch (SocketException error)
            {
                LogFailure(_log, error.Message);
                await Task.Delay(Pause).ConfigureAwait(false);
            }
            catch (Exception error) when (error is OperationCanceledException or ObjectDisposedException)
            {
                return;
            }
        }
    }

    private async Task ServeAsync(Socket peer, bool isAdmitted)
    {
        using var time = CancellationTokenSource.CreateLinkedTokenSource(_stop.Token);
        time.CancelAfter(RequestTime);
        var answer = new ControlAnswer(peer, time.Token);
        try
        {
            if (!isAdmitted)
            {
                await answer.RefuseAsync($"{MaxPeers} commands are being served").ConfigureAwait(false);
            }
            else if (await ReadAsync(peer, time.Token).ConfigureAwait(false) is { } request)
            {
                time.CancelAfter(AnswerTime);
                await _commands.RunAsync(request, answer, time.Token).ConfigureAwait(false);
            }
            else
            {
                await answer.RefuseAsync($"a request is one line of at most {MaxRequest} bytes").ConfigureAwait(false);
            }
        }
        catch (Exception error) when (error is SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // Its peer has left, or was too slow: nobody would read a reason.
        }
        finally
        {
            Interlocked.Decrement(ref _peers);
            peer.Dispose();
        }
    }

    /// <summary>The first line, or all that a peer sends before it closes its side; null if it is too long.</summary>
    private static async Task<string?> ReadAsync(Socket peer, CancellationToken cancellation)
    {
        var buffer = new byte[MaxRequest];
        var length = 0;
        while (length < buffer.Length)
        {
            var count = await peer.ReceiveAsync(buffer.AsMemory(length), cancellation).ConfigureAwait(false);
            var newline = Array.IndexOf(buffer, (byte)'\n', length, count);
            length += count;
            if (newline >= 0 || count == 0)
            {
                return Encoding.UTF8.GetString(buffer, 0, newline >= 0 ? newline : length);
            }
        }
        return null;
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "control_socket: no connection could be taken: {Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

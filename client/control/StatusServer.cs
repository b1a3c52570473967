using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Lightway.Hosting;
using Microsoft.Extensions.Logging;

namespace Lightway.Client.Control;

/// <summary>
/// A Unix socket at which programs ask how the client is: one line of JSON each way. Only the client's user and root can
/// connect. It is served by the thread pool; the worker does not notice.
/// </summary>
internal sealed class StatusServer : IDisposable
{
    private const int MaxPeers = 8; // at a time; others wait for their turn
    private const int MaxRequest = 1024; // bytes
    private const int TimeoutMs = 2000; // for the request and the answer
    private readonly string _path;
    private readonly Func<ClientStatus?> _status;
    private readonly ILogger _log;
    private readonly Socket _listener = new(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
    private readonly SemaphoreSlim _places = new(MaxPeers);
    private readonly CancellationTokenSource _stopping = new();

    /// <exception cref="ConfigurationException">The socket can't be made there.</exception>
    public StatusServer(string path, Func<ClientStatus?> status, ILogger log)
    {
        _path = path;
        _status = status;
        _log = log;
        try
        {
            RemoveLeftover();
            _listener.Bind(new UnixDomainSocketEndPoint(path));
            // Nobody can connect before it listens: no moment with another mode counts.
            File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            _listener.Listen();
        }
        catch (Exception error) when (error is SocketException or IOException or UnauthorizedAccessException)
        {
            _listener.Dispose();
            throw new ConfigurationException(
                $"control_socket: can't make \"{path}\": {error.Message}; its directory must exist, and belong to the client's user"
            );
        }
        _ = Task.Run(ServeAsync);
    }

    public void Dispose()
    {
        _stopping.Cancel();
        _listener.Dispose();
        try
        {
            File.Delete(_path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            ProgramLog.Warning(_log, $"control_socket: {error.Message}");
        }
    }

    /// <summary>A socket that nobody listens at was left behind by a client that was killed.</summary>
    private void RemoveLeftover()
    {
        if (!Path.Exists(_path))
        {
            return;
        }
        using var probe = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            probe.Connect(new UnixDomainSocketEndPoint(_path));
        }
        catch (SocketException error) when (error.SocketErrorCode == SocketError.ConnectionRefused)
        {
            File.Delete(_path);
            return;
        }
        throw new IOException("another client listens there");
    }

    private async Task ServeAsync()
    {
        try
        {
            while (true)
            {
                await _places.WaitAsync(_stopping.Token).ConfigureAwait(false);
                var peer = await _listener.AcceptAsync(_stopping.Token).ConfigureAwait(false);
                _ = AnswerAsync(peer);
            }
        }
        catch (Exception error) when (error is OperationCanceledException or ObjectDisposedException or SocketException)
        {
            if (!_stopping.IsCancellationRequested)
            {
                ProgramLog.Warning(_log, $"control_socket: no longer served: {error.Message}");
            }
        }
    }

    private async Task AnswerAsync(Socket peer)
    {
        using var timeout = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
        timeout.CancelAfter(TimeoutMs);
        try
        {
            var request = await ReadLineAsync(peer, timeout.Token).ConfigureAwait(false);
            var answer = Encoding.UTF8.GetBytes(AnswerTo(request) + "\n");
            ReadOnlyMemory<byte> left = answer;
            while (!left.IsEmpty)
            {
                left = left[await peer.SendAsync(left, timeout.Token).ConfigureAwait(false)..];
            }
        }
        catch (Exception error) when (error is SocketException or OperationCanceledException)
        {
            // Whoever asked has gone, or is too slow.
        }
        finally
        {
            peer.Dispose();
            _places.Release();
        }
    }

    /// <summary>The first line; what is there if it does not end.</summary>
    private static async Task<string> ReadLineAsync(Socket peer, CancellationToken cancellation)
    {
        var buffer = new byte[MaxRequest];
        var length = 0;
        while (length < buffer.Length && Array.IndexOf(buffer, (byte)'\n', 0, length) < 0)
        {
            var count = await peer.ReceiveAsync(buffer.AsMemory(length), cancellation).ConfigureAwait(false);
            if (count == 0)
            {
                break;
            }
            length += count;
        }
        return Encoding.UTF8.GetString(buffer, 0, length).Trim();
    }

    private string AnswerTo(string request)
    {
        if (CommandIn(request) != "status")
        {
            return """{"ok":false,"error":"not a command; known: {\"command\":\"status\"}"}""";
        }
        return _status()?.ToJson() ?? """{"ok":false,"error":"the client has only just been started; ask again"}""";
    }

    private static string? CommandIn(string request)
    {
        try
        {
            using var json = JsonDocument.Parse(request, new JsonDocumentOptions { MaxDepth = 2 });
            return
                json.RootElement.ValueKind == JsonValueKind.Object
                && json.RootElement.TryGetProperty("command", out var command)
                && command.ValueKind == JsonValueKind.String
                ? command.GetString()
                : null;
        }
        catch (JsonException)
        {
            return null;
        }
    }
}

using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Client.Control;

/// <summary><c>lightway-client status</c>: asks a running client by its control socket.</summary>
internal static class StatusCommand
{
    private const int TimeoutMs = 5000;

    /// <returns>Exit code: 0, or 1 after one line on <paramref name="error"/>.</returns>
    public static int Run(StatusOptions options, TextWriter output, TextWriter error)
    {
        try
        {
            var answer = Ask(options.Socket);
            var refusal =
                JsonDocument.Parse(answer).RootElement is { ValueKind: JsonValueKind.Object } root
                && root.TryGetProperty("ok", out var isOk)
                && isOk.ValueKind == JsonValueKind.True
                    ? null
                    : $"{options.Socket}: {Printable(answer)}";
            if (refusal is not null)
            {
                error.WriteLine(refusal);
                return Entry.Failed;
            }
            output.Write(
                options.Json ? answer + "\n" : StatusText.Page(ClientStatus.Parse(answer)!, DateTimeOffset.UtcNow)
            );
            return 0;
        }
        catch (SocketException problem)
        {
            error.WriteLine(Explain(options.Socket, problem));
        }
        catch (Exception problem) when (problem is IOException or JsonException)
        {
            error.WriteLine($"{options.Socket}: no answer of a client: {problem.Message}");
        }
        return Entry.Failed;
    }

    private static string Ask(string path)
    {
        using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
        {
            ReceiveTimeout = TimeoutMs,
            SendTimeout = TimeoutMs,
        };
        socket.Connect(new UnixDomainSocketEndPoint(path));
        socket.Send("{\"command\":\"status\"}\n"u8);
        using var answer = new StreamReader(new NetworkStream(socket), Encoding.UTF8);
        return answer.ReadLine() ?? throw new IOException("it ended the connection");
    }

    private static string Printable(string text) =>
        string.Concat(text.Select(character => char.IsControl(character) ? '?' : character));

    private static string Explain(string path, SocketException problem) =>
        problem.SocketErrorCode switch
        {
            SocketError.ConnectionRefused => $"no client listens at \"{path}\": it was killed; start it again",
            SocketError.AccessDenied =>
                $"\"{path}\": permission denied: only root and the user that the client runs as may use it",
            _ when !Path.Exists(path) =>
                $"no client can be reached at \"{path}\": start one with control_socket: {path}, or name its socket with --control-socket PATH",
            _ => $"\"{path}\": {problem.Message}",
        };
}

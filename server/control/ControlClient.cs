using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Server.Control;

/// <summary>The commands <c>status</c>, <c>sessions</c>, <c>kick</c>, <c>reload</c> and <c>drain</c>: asks a running server.</summary>
public static class ControlClient
{
    private const int ReceiveTimeoutMs = 70_000; // longer than a server works at an answer

    /// <returns>Exit code: 0, or 1 (not reachable, or refused) after one line on <paramref name="error"/>.</returns>
    public static int Run(ControlOptions options, TextWriter output, TextWriter error)
    {
        try
        {
            using var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)
            {
                ReceiveTimeout = ReceiveTimeoutMs,
                SendTimeout = ReceiveTimeoutMs,
            };
            socket.Connect(new UnixDomainSocketEndPoint(options.Socket));
            Send(socket, RequestOf(options));
            using var answer = new StreamReader(new NetworkStream(socket), Encoding.UTF8);
            return Show(options, answer, output, error);
        }
        catch (SocketException problem)
        {
            error.WriteLine(Explain(options.Socket, problem));
        }
        catch (IOException problem)
        {
            error.WriteLine($"control socket \"{options.Socket}\": {problem.Message}");
        }
        return Entry.Failed;
    }

    /// <summary>The request as one line of JSON.</summary>
    internal static string RequestOf(ControlOptions options)
    {
        var request = new Dictionary<string, object>
        {
            ["command"] = options.Command switch
            {
                ControlCommand.Status => "status",
                ControlCommand.Sessions => "sessions",
                ControlCommand.Kick => "kick",
                ControlCommand.Reload => "reload",
                _ => "drain",
            },
        };
        if (options.Command == ControlCommand.Kick)
        {
            request["target"] = options.Target;
        }
        if (options.Command == ControlCommand.Drain)
        {
            request["deadline_ms"] = (long)options.Deadline.TotalMilliseconds;
        }
        return JsonSerializer.Serialize(request) + "\n";
    }

    private static void Send(Socket socket, string request)
    {
        try
        {
            socket.Send(Encoding.UTF8.GetBytes(request));
        }
        catch (SocketException error)
            when (error.SocketErrorCode is SocketError.Shutdown or SocketError.ConnectionReset)
        {
            // A server that has too much to do says so without reading the request.
        }
    }

    /// <summary>Prints the answer, and whether it is a success.</summary>
    private static int Show(ControlOptions options, StreamReader answer, TextWriter output, TextWriter error)
    {
        var sessions = new List<SessionLine>();
        while (answer.ReadLine() is { } line)
        {
            var end = ControlText.Read<AnswerEnd>(line);
            if (options.Json)
            {
                output.WriteLine(line);
            }
            if (end?.Ok is null)
            {
                if (!options.Json && ControlText.Read<SessionLine>(line) is { } session)
                {
                    sessions.Add(session);
                }
                continue;
            }
            if (end.Ok == false)
            {
                error.WriteLine($"{options.Socket}: {ControlText.Printable(end.Error ?? "refused")}");
                return Entry.Failed;
            }
            if (!options.Json)
            {
                output.Write(TextOf(options, line, sessions));
            }
            return 0;
        }
        error.WriteLine($"{options.Socket}: the server ended the connection before its answer was whole");
        return Entry.Failed;
    }

    private static string TextOf(ControlOptions options, string line, List<SessionLine> sessions) =>
        options.Command switch
        {
            ControlCommand.Status => ControlText.Status(ControlText.Read<StatusAnswer>(line)!),
            ControlCommand.Sessions => ControlText.Sessions(sessions),
            ControlCommand.Kick => ControlText.Read<KickAnswer>(line)!.Kicked is var count && count == 1
                ? "1 session was ended\n"
                : $"{count} sessions were ended\n",
            ControlCommand.Drain => Drained(ControlText.Read<SessionsAnswer>(line)!),
            _ => "the files were read again\n",
        };

    private static string Drained(SessionsAnswer answer) =>
        $"no new sessions are taken; the server ends when the {answer.Sessions} that are left have gone, within {ControlText.Duration(answer.DeadlineMs ?? 0)} at most\n";

    private static string Explain(string path, SocketException problem) =>
        problem.SocketErrorCode switch
        {
            SocketError.ConnectionRefused =>
                $"no server listens at \"{path}\": it has been killed, or was started with another control_socket",
            SocketError.AccessDenied =>
                $"\"{path}\": permission denied: only root and the user that the server runs as may use it",
            SocketError.TimedOut or SocketError.WouldBlock => $"\"{path}\": the server does not answer",
            _ when !File.Exists(path) =>
                $"no server can be reached at \"{path}\": start one whose server.yaml has control_socket: {path}, or name its socket with --control-socket PATH",
            _ => $"\"{path}\": {problem.Message}",
        };

    /// <summary>The last line of an answer has <c>ok</c>.</summary>
    private sealed record AnswerEnd(bool? Ok, string? Error);
}

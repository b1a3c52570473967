using System.Globalization;
using System.Text.Json;
using Lightway.Protocol;
using Lightway.Server.Sessions;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Control;

/// <summary>One session, as a line of an answer.</summary>
/// <param name="Since">When its handshake began, UTC (RFC 3339).</param>
/// <param name="BytesIn">Bytes of packets from the client.</param>
/// <param name="BytesOut">Bytes of packets to the client.</param>
internal sealed record SessionLine(
    string Session,
    string User,
    string Peer,
    string Inside,
    string Since,
    long IdleMs,
    string Transport,
    string Cipher,
    long BytesIn,
    long BytesOut
);

/// <summary>What became of <c>sessions</c> and <c>drain</c>: the number of sessions.</summary>
/// <param name="DeadlineMs">Drain: milliseconds until those that are left are ended.</param>
internal sealed record SessionsAnswer(int Sessions, long? DeadlineMs = null)
{
    public bool Ok { get; init; } = true;
}

/// <summary>What became of <c>kick</c>: the number of sessions that were ended.</summary>
internal sealed record KickAnswer(int Kicked)
{
    public bool Ok { get; init; } = true;
}

/// <summary>What became of <c>reload</c>.</summary>
internal sealed record ReloadAnswer
{
    public bool Ok { get; init; } = true;
}

/// <summary>
/// Runs the commands of the control socket. Workers are asked on their threads, for a few sessions at a time, so that packets
/// do not wait. Safe from any thread.
/// </summary>
/// <param name="status">Puts the answer of <c>status</c> together.</param>
/// <param name="reload">Reads the files again; what is wrong with them, or null.</param>
internal sealed partial class ControlCommands(
    SharedState shared,
    IReadOnlyList<Worker> workers,
    IReadOnlyList<ConnectionManager> managers,
    Func<StatusAnswer> status,
    Func<string?> reload,
    ILogger log
) : IDisposable
{
    private const int SessionsPerSlice = 64; // about 1 ms of a worker
    private const long LongestDeadlineMs = 3_155_760_000_000; // 100 years, as the options have it
    private static readonly JsonDocumentOptions Shallow = new() { MaxDepth = 2 };
    private readonly SemaphoreSlim _reloading = new(1);

    /// <param name="request">One line, of whatever content.</param>
    public async Task RunAsync(string request, ControlAnswer answer, CancellationToken cancellation)
    {
        if (Parse(request) is not { } fields || fields.Command is not { } command)
        {
            await answer.RefuseAsync("a request is a JSON object with a \"command\"").ConfigureAwait(false);
            return;
        }
        switch (command)
        {
            case "status":
                await answer.SendAsync([status()]).ConfigureAwait(false);
                break;
            case "sessions":
                await ListAsync(answer, cancellation).ConfigureAwait(false);
                break;
            case "kick" when fields.Target is { Length: > 0 } target:
                var kicked = await KickAsync(target, cancellation).ConfigureAwait(false);
                LogKicked(log, ControlText.Printable(target), kicked);
                await answer.SendAsync([new KickAnswer(kicked)]).ConfigureAwait(false);
                break;
            case "kick":
                await answer.RefuseAsync("kick needs a \"target\", a session id or a user").ConfigureAwait(false);
                break;
            case "reload":
                await ReloadAsync(answer, cancellation).ConfigureAwait(false);
                break;
            case "drain" when fields.DeadlineMs is >= 0 and <= LongestDeadlineMs:
                await DrainAsync(fields.DeadlineMs.Value, answer).ConfigureAwait(false);
                break;
            case "drain":
                await answer
                    .RefuseAsync("drain needs a \"deadline_ms\", a whole number of milliseconds")
                    .ConfigureAwait(false);
                break;
            default:
                await answer
                    .RefuseAsync("this command is not known; allowed: status, sessions, kick, reload, drain")
                    .ConfigureAwait(false);
                break;
        }
    }

    public void Dispose() => _reloading.Dispose();

    private static Request? Parse(string text)
    {
        try
        {
            using var document = JsonDocument.Parse(text, Shallow);
            var root = document.RootElement;
            return root.ValueKind != JsonValueKind.Object
                ? null
                : new Request(
                    TextOf(root, "command"),
                    TextOf(root, "target"),
                    root.TryGetProperty("deadline_ms", out var deadline)
                    && deadline.ValueKind == JsonValueKind.Number
                    && deadline.TryGetInt64(out var value)
                        ? value
                        : null
                );
        }
        catch (JsonException)
        {
            return null;
        }
        catch (InvalidOperationException)
        {
            return null; // a text with half a surrogate pair
        }
    }

    private static string? TextOf(JsonElement root, string name) =>
        root.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private async Task ListAsync(ControlAnswer answer, CancellationToken cancellation)
    {
        var count = 0;
        foreach (var manager in managers)
        {
            var online = await manager.AskAsync(static one => one.Online(), cancellation).ConfigureAwait(false);
            foreach (var slice in online.Chunk(SessionsPerSlice))
            {
                var shown = await manager.AskAsync(one => one.Show(slice), cancellation).ConfigureAwait(false);
                var now = DateTimeOffset.UtcNow;
                await answer.SendAsync([.. shown.Select(session => LineOf(session, now))]).ConfigureAwait(false);
                count += shown.Count;
            }
        }
        await answer.SendAsync([new SessionsAnswer(count)]).ConfigureAwait(false);
    }

    private static SessionLine LineOf(SessionView session, DateTimeOffset now) =>
        new(
            session.Id.ToString(),
            session.User,
            session.Peer.ToString(),
            session.Inside,
            Time(now - TimeSpan.FromMilliseconds(session.AgeMs)),
            session.IdleMs,
            session.Transport == Transport.Datagram ? "udp" : "tcp",
            session.Security,
            session.BytesIn,
            session.BytesOut
        );

    /// <summary>A time in UTC (RFC 3339), whole seconds.</summary>
    internal static string Time(DateTimeOffset time) =>
        time.UtcDateTime.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture);

    /// <summary>Ends the session with this id; if there is none, the sessions of the user with this name. Returns their number.</summary>
    private async Task<int> KickAsync(string target, CancellationToken cancellation)
    {
        var found = new List<Connection>();
        if (SessionIdOf(target) is { } id)
        {
            foreach (var manager in managers)
            {
                found.AddRange(await manager.AskAsync(one => one.ById(id), cancellation).ConfigureAwait(false));
            }
        }
        IReadOnlyList<Connection> sessions = found.Count > 0 ? found : shared.Users.Of(target);
        var count = 0;
        foreach (var ofWorker in sessions.GroupBy(session => session.Home.Ids.WorkerNumber))
        {
            foreach (var slice in ofWorker.Chunk(SessionsPerSlice))
            {
                count += await managers[ofWorker.Key]
                    .AskAsync(one => one.Kick(slice), cancellation)
                    .ConfigureAwait(false);
            }
        }
        return count;
    }

    /// <summary>16 hexadecimal digits, as the log and <c>sessions</c> show them.</summary>
    private static SessionId? SessionIdOf(string text) =>
        text.Length == 16 && ulong.TryParse(text, NumberStyles.AllowHexSpecifier, null, out var value)
            ? new SessionId(value)
            : null;

    private async Task ReloadAsync(ControlAnswer answer, CancellationToken cancellation)
    {
        await _reloading.WaitAsync(cancellation).ConfigureAwait(false);
        string? problem;
        try
        {
            problem = reload();
        }
        finally
        {
            _reloading.Release();
        }
        await (problem is null ? answer.SendAsync([new ReloadAnswer()]) : answer.RefuseAsync(problem)).ConfigureAwait(
            false
        );
    }

    private async Task DrainAsync(long deadlineMs, ControlAnswer answer)
    {
        shared.Draining.Begin(shared.Now() + deadlineMs);
        foreach (var worker in workers)
        {
            worker.StopListening();
        }
        var sessions = managers.Sum(manager => manager.Latest.Online);
        LogDraining(log, sessions, TimeSpan.FromMilliseconds(deadlineMs));
        await answer.SendAsync([new SessionsAnswer(sessions, deadlineMs)]).ConfigureAwait(false);
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "kick '{Target}': {Count} sessions were ended")]
    private static partial void LogKicked(ILogger log, string target, int count);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "draining: no new sessions are taken, {Sessions} go on for {Deadline} at most"
    )]
    private static partial void LogDraining(ILogger log, int sessions, TimeSpan deadline);

    private readonly record struct Request(string? Command, string? Target, long? DeadlineMs);
}

using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Auth;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>
/// Lets the clients of one worker in: has their passwords checked on the hashing threads, gives them an address and
/// answers. All members run on the worker's thread.
/// </summary>
/// <param name="endElsewhere">Ends a session of whatever worker, says why in the log, and then runs an action on any thread.</param>
internal sealed partial class Logins(
    SharedState shared,
    WorkerContext worker,
    Strangers strangers,
    Action<Connection, string, Action> endElsewhere
)
{
    private const long FullLogMs = 60_000;
    private const long SilentMs = 30_000; // three keepalives of a client: it has probably left
    private const long SearchMs = 1_000; // between two searches through all sessions
    private readonly HashSet<Connection> _decided = []; // their check has ended, and their answer waits
    private readonly Dictionary<Connection, AuthRequest> _kept = []; // of streams, whose clients send them once only
    private readonly Dictionary<Connection, string> _users = [];
    private readonly List<Refusal> _refusals = []; // that wait for their time
    private long _searchAt = long.MinValue;
    private long _logFullAt = long.MinValue;

    private readonly record struct Refusal(Connection Connection, string Why, long At);

    /// <summary>A client asks to be let in, perhaps again. Its password is wiped as soon as nobody checks it any more.</summary>
    public void OnRequest(Connection connection, AuthRequest request)
    {
        strangers.OnAsked(connection);
        if (connection.State == ConnectionState.Online)
        {
            connection.Grant(Success(connection), worker.Now); // the reply was lost
        }
        else if (request.Method != AuthMethod.UserPassword)
        {
            Refuse(connection, $"authentication method {request.Method} is not served");
        }
        else if (!_decided.Contains(connection))
        {
            Keep(connection, request);
            Check(connection, request);
            return; // the check has its password now
        }
        CryptographicOperations.ZeroMemory(request.Password);
    }

    /// <summary>Who has logged in on a connection, fit for the log; empty before.</summary>
    public string UserOf(Connection connection) => Printable(NameOf(connection));

    /// <summary>The same as the client wrote it.</summary>
    public string NameOf(Connection connection) => _users.GetValueOrDefault(connection, "");

    /// <summary>
    /// Answers the refusals whose time has come. They wait for the tick after the slowest check of the file, so that the
    /// time of an answer does not tell whether the user exists or how the password is hashed.
    /// </summary>
    public void Tick(long now)
    {
        var due = _refusals.FindAll(refusal => now >= refusal.At);
        _refusals.RemoveAll(refusal => now >= refusal.At);
        foreach (var (connection, why, _) in due)
        {
            _decided.Remove(connection);
            if (connection.State == ConnectionState.LinkUp)
            {
                Refuse(connection, why);
            }
        }
        foreach (var (connection, request) in _kept)
        {
            Check(connection, CopyOf(request)); // as clients of datagrams do
        }
    }

    /// <summary>Takes back the address of a connection that has ended.</summary>
    public void Release(Connection connection)
    {
        Forget(connection);
        if (_users.Remove(connection, out var user))
        {
            shared.Users.Remove(user, connection);
        }
        if (!connection.InsideAddress.IsNone)
        {
            shared.Inside.Set(shared.Pool.OffsetOf(connection.InsideAddress), null);
            shared.Pool.Free(connection.InsideAddress);
            connection.InsideAddress = Ipv4Address.None;
        }
    }

    /// <summary>Keeps the login of a stream until it has been checked.</summary>
    private void Keep(Connection connection, in AuthRequest request)
    {
        if (connection.Transport == Transport.Stream)
        {
            Forget(connection);
            _kept.Add(connection, CopyOf(request));
        }
    }

    private void Forget(Connection connection)
    {
        if (_kept.Remove(connection, out var request))
        {
            CryptographicOperations.ZeroMemory(request.Password);
        }
    }

    private static AuthRequest CopyOf(in AuthRequest request) =>
        AuthRequestModule.userPassword(request.User, [.. request.Password]);

    private void Check(Connection connection, AuthRequest request)
    {
        var user = request.User;
        var reply = shared.Desk.Ask(
            strangers.SourceOf(connection.Path.Peer),
            user,
            request.Password,
            connection,
            worker.Now,
            (check, answer) => worker.Post(() => OnChecked(connection, user, check, answer))
        );
        if (reply == LoginReply.TooEarly)
        {
            worker.Counters.Add(Counter.AuthIgnoredDelay);
        }
        else if (reply == LoginReply.Full)
        {
            worker.Counters.Add(Counter.AuthIgnoredBusy);
        }
    }

    private void OnChecked(Connection connection, string user, in LoginCheck check, in LoginAnswer answer)
    {
        Forget(connection);
        worker.Counters.Add(Counter.AuthChecks, check.IsFirst ? 1 : 0);
        shared.Desk.Ended(check, answer.Verdict, worker.Now);
        if (answer.Verdict != AuthVerdict.Allowed)
        {
            var why =
                answer.Verdict == AuthVerdict.Refused
                    ? $"wrong user or password for '{Printable(user)}'"
                    : $"the check of '{Printable(user)}' failed: {answer.Error}";
            _decided.Add(connection);
            _refusals.Add(new Refusal(connection, why, check.StartedAt + shared.Desk.CommonMs));
            return;
        }
        if (connection.State == ConnectionState.LinkUp) // else it has ended meanwhile
        {
            Admit(connection, user, mayMakeRoom: true);
        }
    }

    private void Admit(Connection connection, string user, bool mayMakeRoom)
    {
        var part = shared.Parts.Of(connection.Path.Local);
        if (shared.Pool.TryAllocate(part, out var address))
        {
            connection.InsideAddress = address;
            connection.Translation = TranslationModule.server(address, shared.Settings.ClientIp);
            shared.Inside.Set(shared.Pool.OffsetOf(address), connection);
            _users.Add(connection, user);
            if (shared.Users.Add(user, connection) is { } oldest)
            {
                endElsewhere(oldest, $"'{Printable(user)}' has logged in again (sessions_per_user)", static () => { });
            }
            connection.Grant(Success(connection), worker.Now);
            return;
        }
        if (mayMakeRoom && MostSilent(part) is { } silent)
        {
            _decided.Add(connection); // its repetitions cost no second check
            endElsewhere(
                silent,
                "silent, and its address is needed",
                () => worker.Post(() => AdmitAgain(connection, user))
            );
            return;
        }
        worker.Counters.Add(Counter.ConnRejectedNoFreeIp);
        if (worker.Now >= _logFullAt)
        {
            _logFullAt = worker.Now + FullLogMs;
            LogFull(shared.Log, connection.Path.Peer, Printable(user), shared.Pool.CapacityOf(part));
        }
        connection.Deny(TunnelError.NoFreeClientIp, worker.Now);
    }

    private void AdmitAgain(Connection connection, string user)
    {
        _decided.Remove(connection);
        if (connection.State == ConnectionState.LinkUp)
        {
            Admit(connection, user, mayMakeRoom: false);
        }
    }

    /// <summary>Of the sessions of a part the one that has been silent for longest, if it probably has left; at most one search per second.</summary>
    private Connection? MostSilent(int part)
    {
        if (worker.Now < _searchAt)
        {
            return null;
        }
        _searchAt = worker.Now + SearchMs;
        Connection? found = null;
        var before = worker.Now - SilentMs;
        for (var offset = 0; offset < shared.Pool.Size; offset++)
        {
            if (
                shared.Inside[offset] is { } connection
                && connection.LastOutsideAt < before
                && shared.Pool.PartOf(connection.InsideAddress) == part
            )
            {
                found = connection;
                before = connection.LastOutsideAt;
            }
        }
        return found;
    }

    private void Refuse(Connection connection, string why)
    {
        worker.Counters.Add(Counter.ConnRejectedAccessDenied);
        if (strangers.MayLog(worker.Now))
        {
            LogRefused(shared.Log, connection.Path.Peer, why);
        }
        connection.Deny(TunnelError.AccessDenied, worker.Now);
    }

    /// <summary>Text from a peer, fit for one line of a log.</summary>
    private static string Printable(string text) =>
        string.Concat(text.Select(letter => char.IsControl(letter) ? '?' : letter));

    private AuthSuccess Success(Connection connection) =>
        new(
            shared.Settings.ClientIp,
            shared.Settings.ServerIp,
            shared.Settings.DnsIp,
            worker.InsideMtu,
            connection.SessionId
        );

    [LoggerMessage(Level = LogLevel.Warning, Message = "{Peer} refused: {Why}")]
    private static partial void LogRefused(ILogger log, PeerAddress peer, string why);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "{Peer} ('{User}') refused: all {Capacity} inside addresses are in use; enlarge ip_pool (or its part in ip_map), or limit sessions_per_user or session_idle_limit"
    )]
    private static partial void LogFull(ILogger log, PeerAddress peer, string user, int capacity);
}

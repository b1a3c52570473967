using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Auth;
using Lightway.Server.Reload;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <summary>Who has logged in on a connection.</summary>
/// <param name="Means">What has let the user in.</param>
/// <param name="ExpiresAt">Seconds since 1970; <see cref="LoginAnswer.Never"/> for a password.</param>
internal readonly record struct UserSession(string User, LoginMeans Means, long ExpiresAt);

/// <summary>
/// Lets the clients of one worker in: has their logins checked on the hashing threads, gives them an address and
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
    private const int Attempts = 3; // at an address that somebody else has: clients of one user may come at once
    private readonly HashSet<Connection> _decided = []; // their check has ended, and their answer waits
    private readonly Dictionary<Connection, LoginProof> _kept = []; // of streams, whose clients send them once only
    private readonly Dictionary<Connection, UserSession> _sessions = [];
    private readonly List<Refusal> _refusals = []; // that wait for their time
    private long _searchAt = long.MinValue;
    private long _logFullAt = long.MinValue;

    /// <summary>What users may have.</summary>
    public UserLimits Limits { get; set; } = shared.Identity.Limits;

    private readonly record struct Refusal(Connection Connection, string Why, long At);

    /// <summary>A client asks to be let in, perhaps again. Its password is wiped as soon as nobody checks it any more.</summary>
    public void OnRequest(Connection connection, AuthRequest request)
    {
        strangers.OnAsked(connection);
        if (connection.State == ConnectionState.Online)
        {
            connection.Grant(Success(connection), worker.Now); // the reply was lost
        }
        else if (ProofOf(request) is not { } proof)
        {
            Refuse(connection, $"authentication method {request.Method} is not served");
        }
        else if (!_decided.Contains(connection))
        {
            Keep(connection, proof);
            Check(connection, proof);
            return; // the check has its password now
        }
        CryptographicOperations.ZeroMemory(request.Password);
    }

    /// <summary>Who has logged in on a connection, fit for the log; empty before.</summary>
    public string UserOf(Connection connection) => Printable(NameOf(connection));

    /// <summary>The same as the client wrote it.</summary>
    public string NameOf(Connection connection) => SessionOf(connection)?.User ?? "";

    /// <summary>Who has logged in on a connection; null before.</summary>
    public UserSession? SessionOf(Connection connection) =>
        _sessions.TryGetValue(connection, out var session) ? session : null;

    /// <summary>Milliseconds of silence after which a connection ends.</summary>
    public long IdleLimitOf(Connection connection) => Limits.Of(SessionOf(connection)?.User ?? "").IdleMs;

    /// <summary>The connections of users that the password file has let in, and no longer has.</summary>
    public List<Connection> OfRemovedUsers() =>
        [
            .. _sessions
                .Where(entry => entry.Value.Means == LoginMeans.PasswordFile && !shared.Desk.HasUser(entry.Value.User))
                .Select(entry => entry.Key),
        ];

    /// <summary>The connections whose logins have expired.</summary>
    public List<Connection> Expired()
    {
        var now = shared.Clock.GetUtcNow().ToUnixTimeSeconds();
        return [.. _sessions.Where(entry => TokenRules.isOver(entry.Value.ExpiresAt, now)).Select(entry => entry.Key)];
    }

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
        foreach (var (connection, proof) in _kept)
        {
            Check(connection, CopyOf(proof)); // as clients of datagrams do
        }
    }

    /// <summary>Takes back the address of a connection that has ended.</summary>
    public void Release(Connection connection)
    {
        Forget(connection);
        if (_sessions.Remove(connection, out var session))
        {
            shared.Users.Remove(session.User, connection);
        }
        if (!connection.InsideAddress.IsNone)
        {
            shared.Inside.Set(shared.Pool.OffsetOf(connection.InsideAddress), null);
            shared.Pool.Free(connection.InsideAddress);
            connection.InsideAddress = Ipv4Address.None;
        }
    }

    /// <summary>What a request proves, if it is of a kind that is served.</summary>
    private LoginProof? ProofOf(in AuthRequest request)
    {
        var kind = request.Method == AuthMethod.UserPassword ? LoginKind.Password : LoginKind.Token;
        return request.Method == AuthMethod.Custom || !shared.Desk.Serves(kind) ? null
            : kind == LoginKind.Token ? LoginProof.Token(request.Token)
            : LoginProof.Password(request.User, request.Password);
    }

    /// <summary>Keeps the login of a stream until it has been checked.</summary>
    private void Keep(Connection connection, in LoginProof proof)
    {
        if (connection.Transport == Transport.Stream)
        {
            Forget(connection);
            _kept.Add(connection, CopyOf(proof));
        }
    }

    private void Forget(Connection connection)
    {
        if (_kept.Remove(connection, out var proof))
        {
            CryptographicOperations.ZeroMemory(proof.Secret);
        }
    }

    private static LoginProof CopyOf(in LoginProof proof) => proof with { Secret = [.. proof.Secret] };

    private void Check(Connection connection, LoginProof proof)
    {
        var user = proof.User;
        var reply = shared.Desk.Ask(
            strangers.SourceOf(connection.Path.Peer),
            proof,
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
        if (check.IsFirst)
        {
            Count(answer);
        }
        shared.Desk.Ended(check, answer.Verdict, worker.Now);
        if (answer.Verdict != AuthVerdict.Allowed || IsRemoved(answer, user))
        {
            // Only the time that a hash takes tells something about the file of users.
            var leastMs = answer.Means == LoginMeans.PasswordFile ? shared.Desk.CommonMs : 0;
            _decided.Add(connection);
            _refusals.Add(new Refusal(connection, Why(answer, user), check.StartedAt + leastMs));
            return;
        }
        if (connection.State == ConnectionState.LinkUp) // else it has ended meanwhile
        {
            var session = new UserSession(answer.User ?? user, answer.Means, answer.ExpiresAt);
            Admit(connection, session, Attempts);
        }
    }

    /// <summary>A reload has taken the user out of the password file while the password was checked.</summary>
    private bool IsRemoved(in LoginAnswer answer, string user) =>
        answer.Means == LoginMeans.PasswordFile && !shared.Desk.HasUser(user);

    private void Count(in LoginAnswer answer)
    {
        worker.Counters.Add(Counter.AuthChecks);
        worker.Counters.Add(Counter.AuthTokenChecks, answer.Means == LoginMeans.Token ? 1 : 0);
        worker.Counters.Add(Counter.AuthCommandChecks, answer.Means == LoginMeans.Command ? 1 : 0);
        worker.Counters.Add(Counter.AuthCommandUnsendable, answer.Means == LoginMeans.Unsendable ? 1 : 0);
        var isCommandWrong = answer.Means == LoginMeans.Command && answer.Verdict == AuthVerdict.Failed;
        worker.Counters.Add(Counter.AuthCommandFailed, isCommandWrong ? 1 : 0);
    }

    private static string Why(in LoginAnswer answer, string user) =>
        (answer.Verdict, answer.Means) switch
        {
            (AuthVerdict.Failed, LoginMeans.Token) => $"the check of a token failed: {answer.Error}",
            (AuthVerdict.Failed, _) => $"the check of '{Printable(user)}' failed: {answer.Error}",
            (_, LoginMeans.Token) => $"a token is not accepted: {answer.Error}",
            (_, LoginMeans.Unsendable) => $"'{Printable(user)}' can't be asked of auth_command: {answer.Error}",
            _ => $"wrong user or password for '{Printable(user)}'",
        };

    private void Admit(Connection connection, UserSession session, int attempts)
    {
        var limit = Limits.Of(session.User);
        if (!limit.Address.IsNone)
        {
            AdmitTo(limit, connection, session, attempts);
            return;
        }
        var part = shared.Parts.Of(connection.Path.Local);
        if (shared.Pool.TryAllocate(part, out var address))
        {
            Grant(connection, session, address, limit.Sessions);
        }
        else if (attempts == Attempts && MostSilent(part) is { } silent)
        {
            EndFor(connection, session, silent, "silent, and its address is needed", attempts);
        }
        else
        {
            DenyFull(connection, session, shared.Pool.CapacityOf(part));
        }
    }

    /// <summary>Lets a user in who has an address of its own. Whoever has that address now gives it up.</summary>
    private void AdmitTo(UserLimit limit, Connection connection, UserSession session, int attempts)
    {
        if (shared.Pool.TryAllocateFixed(limit.Address))
        {
            Grant(connection, session, limit.Address, limit.Sessions);
        }
        else if (attempts > 0 && shared.Inside[shared.Pool.OffsetOf(limit.Address)] is { } holder)
        {
            EndFor(
                connection,
                session,
                holder,
                $"its address is for '{Printable(session.User)}', who has logged in (address_map)",
                attempts
            );
        }
        else
        {
            DenyFull(connection, session, 1); // several clients of one user have come at once
        }
    }

    private void Grant(Connection connection, in UserSession session, Ipv4Address address, int limit)
    {
        connection.InsideAddress = address;
        connection.Translation = TranslationModule.server(address, shared.Settings.ClientIp);
        shared.Inside.Set(shared.Pool.OffsetOf(address), connection);
        _sessions.Add(connection, session);
        connection.Record.User = session.User;
        foreach (var oldest in shared.Users.Add(session.User, connection, limit))
        {
            endElsewhere(
                oldest,
                $"'{Printable(session.User)}' has logged in again (sessions_per_user)",
                static () => { }
            );
        }
        connection.Grant(Success(connection), worker.Now);
    }

    /// <summary>Ends another session, and tries to let the client in after that.</summary>
    private void EndFor(Connection connection, UserSession session, Connection other, string why, int attempts)
    {
        _decided.Add(connection); // its repetitions cost no second check
        endElsewhere(other, why, () => worker.Post(() => AdmitAgain(connection, session, attempts - 1)));
    }

    private void AdmitAgain(Connection connection, UserSession session, int attempts)
    {
        _decided.Remove(connection);
        if (connection.State == ConnectionState.LinkUp)
        {
            Admit(connection, session, attempts);
        }
    }

    private void DenyFull(Connection connection, in UserSession session, int capacity)
    {
        worker.Counters.Add(Counter.ConnRejectedNoFreeIp);
        if (worker.Now >= _logFullAt)
        {
            _logFullAt = worker.Now + FullLogMs;
            LogFull(shared.Log, connection.Path.Peer, Printable(session.User), capacity);
        }
        connection.Deny(TunnelError.NoFreeClientIp, worker.Now);
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
                && !shared.Pool.IsFixed(connection.InsideAddress)
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

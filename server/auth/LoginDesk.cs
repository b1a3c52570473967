using System.Security.Cryptography;
using Lightway.Protocol;

namespace Lightway.Server.Auth;

/// <summary>A password check that runs; for <see cref="LoginDesk.Ended"/>.</summary>
/// <param name="IsFirst">Of the clients that get the answer of one check, the first ends it.</param>
public readonly record struct LoginCheck(long Ticket, SourceKey Source, ulong User, long StartedAt, bool IsFirst);

/// <summary>What became of a request to be let in.</summary>
public enum LoginReply
{
    /// <summary>Its password is checked, now or soon.</summary>
    Accepted,

    /// <summary>The check of this user at this source runs already.</summary>
    BeingChecked,

    /// <summary>Too soon after failures.</summary>
    TooEarly,

    /// <summary>Too many wait.</summary>
    Full,
}

/// <summary>
/// Lets password checks run, of all workers: one at a time per source and per user, none soon after failures, and never
/// more than there are hashing threads. The others wait in line, for as long as their clients repeat their requests: one that
/// has left costs nothing. Safe from any thread. Times are milliseconds of the workers' clock.
/// </summary>
public sealed class LoginDesk
{
    private const int Places = 1024;
    private const long StayMs = 3_000; // requests are repeated every two seconds at least
    private const int Sharers = 256; // clients that get the answer of one check

    private volatile Authenticator _authenticator;
    private readonly LoginGate _gate;
    private readonly LoginLine<Request> _line;
    private readonly Lock _lock = new();

    // Who asked while the check of this user at this source ran, with the same password: all get its answer.
    private readonly Dictionary<(ulong Source, ulong User), List<Request>> _running = [];

    public LoginDesk(Authenticator authenticator, LoginGate gate)
    {
        _authenticator = authenticator;
        _gate = gate;
        _line = new LoginLine<Request>(Places, StayMs, left => CryptographicOperations.ZeroMemory(left.Proof.Secret));
    }

    /// <param name="Owner">Who asks: of several requests of one client the latest counts.</param>
    /// <param name="Done">Gets the answer, on another thread.</param>
    private readonly record struct Request(
        SourceKey Source,
        ulong UserKey,
        LoginProof Proof,
        object Owner,
        Action<LoginCheck, LoginAnswer> Done
    )
    {
        public (ulong Source, ulong User) Pair => (Source.Narrow, UserKey);
    }

    /// <summary>Milliseconds that the slowest password of the file takes: no refusal of a password is answered sooner.</summary>
    public long CommonMs => _authenticator.SlowestMs;

    /// <summary>Whether logins of a kind are checked at all.</summary>
    public bool Serves(LoginKind kind) => _authenticator.Serves(kind);

    /// <summary>Whether the password file has a user.</summary>
    public bool HasUser(string user) => _authenticator.HasUser(user);

    /// <summary>Logins are checked by another authenticator from now on. What the one before checks is still answered.</summary>
    /// <param name="checks">As many run at the same time.</param>
    public void Use(Authenticator authenticator, int checks)
    {
        lock (_lock)
        {
            _authenticator = authenticator;
            _gate.Resize(checks);
        }
    }

    /// <summary>A client asks to be let in, perhaps again.</summary>
    /// <param name="proof">Its secret is owned from here on, and wiped.</param>
    /// <param name="owner">The client's connection.</param>
    /// <param name="done">Gets the answer, on another thread, once; never if the client does not ask again in time.</param>
    public LoginReply Ask(
        SourceKey source,
        LoginProof proof,
        object owner,
        long now,
        Action<LoginCheck, LoginAnswer> done
    )
    {
        var request = new Request(source, _gate.UserOf(proof.Key), proof, owner, done);
        lock (_lock)
        {
            var reply = Ask(request, now);
            if (reply != LoginReply.Accepted)
            {
                CryptographicOperations.ZeroMemory(proof.Secret);
            }
            return reply;
        }
    }

    /// <summary>A check has ended: its source and user may have another one, later if it was refused.</summary>
    public void Ended(LoginCheck check, AuthVerdict verdict, long now)
    {
        if (!check.IsFirst)
        {
            return;
        }
        lock (_lock)
        {
            _gate.Ended(check.Ticket);
            if (verdict == AuthVerdict.Refused)
            {
                _gate.Failed(check.Source, check.User, now);
            }
            StartDue(now);
        }
    }

    private LoginReply Ask(in Request request, long now)
    {
        if (_gate.IsChecking(request.Source, request.UserKey))
        {
            Share(request);
            return LoginReply.BeingChecked;
        }
        if (_gate.Wait(request.Source, request.UserKey, now) > 0)
        {
            return LoginReply.TooEarly;
        }
        if (!_line.Join(request.Source, request.UserKey, now, request))
        {
            return LoginReply.Full;
        }
        StartDue(now);
        return LoginReply.Accepted;
    }

    /// <summary>The request gets the answer of the check that runs, if it is about the same password.</summary>
    private void Share(Request request)
    {
        if (
            !_running.TryGetValue(request.Pair, out var sharers)
            || sharers[0].Proof.Kind != request.Proof.Kind
            || !CryptographicOperations.FixedTimeEquals(sharers[0].Proof.Secret, request.Proof.Secret)
        )
        {
            return;
        }
        var known = sharers.FindIndex(other => ReferenceEquals(other.Owner, request.Owner));
        if (known < 0 && sharers.Count < Sharers)
        {
            sharers.Add(request with { Proof = default });
        }
    }

    private void StartDue(long now)
    {
        long ticket = 0;
        var next = default(Request);
        while (_line.TryNext(_gate, now, ref ticket, ref next))
        {
            var request = next;
            var check = new LoginCheck(ticket, request.Source, request.UserKey, now, IsFirst: true);
            _running[request.Pair] = [request];
            _authenticator.CheckOnPool(
                request.Proof with
                {
                    Secret = [.. request.Proof.Secret], // which it wipes
                },
                answer => Answer(request, check, answer)
            );
        }
    }

    private void Answer(Request request, LoginCheck check, LoginAnswer answer)
    {
        List<Request>? sharers;
        lock (_lock)
        {
            CryptographicOperations.ZeroMemory(request.Proof.Secret);
            _running.Remove(request.Pair, out sharers);
        }
        foreach (var sharer in sharers ?? [request])
        {
            sharer.Done(check, answer);
            check = check with { IsFirst = false };
        }
    }
}

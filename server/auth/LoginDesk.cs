using System.Security.Cryptography;
using System.Text;
using Lightway.Protocol;

namespace Lightway.Server.Auth;

/// <summary>A password check that runs; for <see cref="LoginDesk.Ended"/>.</summary>
public readonly record struct LoginCheck(long Ticket, SourceKey Source, ulong User);

/// <summary>
/// Lets password checks run, of all workers: one at a time per source and per user, none soon after failures, and never
/// more than there are hashing threads, so that none waits until its client has left. A login that is put off costs
/// nothing, as clients repeat their requests. Safe from any thread. Times are milliseconds of the workers' clock.
/// </summary>
public sealed class LoginDesk(Authenticator authenticator, LoginGate gate)
{
    private readonly Lock _lock = new();

    /// <summary>Milliseconds that the slowest password of the file takes: no refusal is answered sooner.</summary>
    public long CommonMs => authenticator.SlowestMs;

    /// <summary>Starts the check of a password, unless the verdict says why not.</summary>
    /// <param name="password">UTF-8; owned from here on, and wiped.</param>
    /// <param name="done">Gets the answer, on another thread; once, whatever happens.</param>
    public LoginVerdict TryCheck(
        SourceKey source,
        string user,
        byte[] password,
        long now,
        Action<LoginCheck, LoginAnswer> done
    )
    {
        var key = gate.UserOf(Encoding.UTF8.GetBytes(user));
        long ticket = 0;
        LoginVerdict verdict;
        lock (_lock)
        {
            verdict = gate.TryStart(source, key, now, ref ticket);
        }
        if (verdict == LoginVerdict.Started)
        {
            var check = new LoginCheck(ticket, source, key);
            authenticator.AuthorizeOnPool(user, password, answer => done(check, answer));
        }
        else
        {
            CryptographicOperations.ZeroMemory(password);
        }
        return verdict;
    }

    /// <summary>A check has ended: its source and user may have another one, later if it was refused.</summary>
    public void Ended(LoginCheck check, AuthVerdict verdict, long now)
    {
        lock (_lock)
        {
            gate.Ended(check.Ticket);
            if (verdict == AuthVerdict.Refused)
            {
                gate.Failed(check.Source, check.User, now);
            }
        }
    }
}

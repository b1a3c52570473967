using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Lightway.Hosting;

namespace Lightway.Server.Auth;

/// <summary>What a check of a login came to; the default value lets nobody in.</summary>
public enum AuthVerdict
{
    /// <summary>The check itself went wrong.</summary>
    Failed = 0,

    Refused,

    Allowed,
}

/// <summary>The answer of a check.</summary>
/// <param name="Error">Why it failed, for the log; null unless it did.</param>
public readonly record struct LoginAnswer(AuthVerdict Verdict, string? Error);

/// <summary>
/// Checks user names and passwords. Immutable, safe from any thread; one check may take a second of CPU, so it must
/// not run on a thread that forwards packets.
/// </summary>
public sealed class Authenticator
{
    // For files without any hash that can be checked: the password of no user (its hash part is missing).
    private const string FallbackSetting = "$6$nobodynobodynobo$";

    private const int MaxSettings = 8; // schemes and costs that are measured
    private const long SlowMs = 50;

    private readonly Lazy<HashingThreads> _hashers;
    private readonly Htpasswd _users;

    // Unknown users are hashed against this setting, so that the time of an answer does not reveal who exists.
    private readonly string _dummy;

    // A hash of each scheme and cost in the file, the most frequent first.
    private readonly string[] _settings;

    private Authenticator(Htpasswd users, int threads)
    {
        _users = users;
        _hashers = new Lazy<HashingThreads>(() => new HashingThreads(threads));
        _settings =
        [
            .. users
                .Hashes.Where(CryptScheme.IsServed)
                .GroupBy(CryptScheme.SettingOf)
                .OrderByDescending(group => group.Count())
                .Select(group => group.First()),
        ];
        _dummy = _settings.FirstOrDefault(FallbackSetting);
    }

    /// <summary>Threads that hash if nobody says how many: half of the processors, at least one.</summary>
    public static int DefaultThreads => Math.Max(1, Environment.ProcessorCount / 2);

    /// <summary>Milliseconds that the slowest hash of the file takes; 0 until <see cref="Measure"/>.</summary>
    public long SlowestMs { get; private set; }

    /// <summary>Number of users in the file.</summary>
    public int UserCount => _users.Count;

    /// <summary>What the operator should know about the file: lines whose users can't log in.</summary>
    public IReadOnlyList<string> Warnings => _users.Unserved;

    /// <summary>
    /// Measures what the checks of the file's schemes and costs take, on the calling thread. Returns what the operator
    /// should know about it.
    /// </summary>
    public IReadOnlyList<string> Measure()
    {
        var warnings = new List<string>();
        foreach (var hash in _settings.Take(MaxSettings))
        {
            var clock = Stopwatch.StartNew();
            _ = LibCrypt.Hash("a password"u8, hash);
            var elapsed = clock.ElapsedMilliseconds;
            SlowestMs = Math.Max(SlowestMs, elapsed);
            if (elapsed > SlowMs)
            {
                warnings.Add(
                    $"a password of the kind {CryptScheme.SettingOf(hash)} takes {elapsed} ms of CPU to check: many clients that log in at once wait for each other; a lower cost is faster: htpasswd -B -C 8 FILE USER"
                );
            }
        }
        return warnings;
    }

    /// <summary>Reads a password file.</summary>
    /// <param name="threads">Threads that hash: as many checks run at the same time.</param>
    /// <exception cref="ConfigurationException">The file cannot be read or a line is wrong; or there is no libcrypt.</exception>
    public static Authenticator Load(string path, int threads)
    {
        byte[] file;
        try
        {
            file = File.ReadAllBytes(path);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"user_db: cannot read \"{path}\": {error.Message}");
        }
        try
        {
            return Parse(file, threads);
        }
        catch (ConfigurationException error)
        {
            throw new ConfigurationException($"user_db: \"{path}\": {error.Message}");
        }
    }

    /// <summary>Reads the bytes of a password file.</summary>
    /// <exception cref="ConfigurationException">A line is wrong, or there is no libcrypt.</exception>
    internal static Authenticator Parse(ReadOnlySpan<byte> file, int threads)
    {
        if (!LibCrypt.IsAvailable)
        {
            throw new ConfigurationException(LibCrypt.Missing);
        }
        return Htpasswd.TryParse(file, out var users, out var problem)
            ? new Authenticator(users, threads)
            : throw new ConfigurationException(problem);
    }

    /// <summary>
    /// Calls <paramref name="done"/> with the answer of <see cref="Authorize"/>, from another thread; once, whatever happens.
    /// </summary>
    /// <param name="password">Owned from here on; wiped before <paramref name="done"/> is called.</param>
    public void AuthorizeOnPool(string user, byte[] password, Action<LoginAnswer> done) =>
        RunOnPool(
            () =>
            {
                try
                {
                    return Authorize(user, password);
                }
                finally
                {
                    CryptographicOperations.ZeroMemory(password);
                }
            },
            done
        );

    /// <summary>Runs a check on a hashing thread; one that throws counts as failed.</summary>
    internal void RunOnPool(Func<bool> check, Action<LoginAnswer> done) =>
        _hashers.Value.Run(() =>
        {
            var answer = new LoginAnswer(AuthVerdict.Failed, null);
            try
            {
                answer = new LoginAnswer(check() ? AuthVerdict.Allowed : AuthVerdict.Refused, null);
            }
#pragma warning disable CA1031 // whatever it was, the client gets an answer and its place is free again
            catch (Exception error)
#pragma warning restore CA1031
            {
                answer = new LoginAnswer(AuthVerdict.Failed, error.Message);
            }
            finally
            {
                done(answer);
            }
        });

    /// <summary>
    /// True only when the file has the user and the password's hash is the one in the file. A user who does not exist,
    /// or whose scheme is not served, costs a hash as well.
    /// </summary>
    /// <param name="password">UTF-8.</param>
    public bool Authorize(string user, ReadOnlySpan<byte> password)
    {
        var known = _users.TryFind(user, out var expected) && CryptScheme.IsServed(expected);
        var setting = known ? expected! : _dummy;
        var actual = LibCrypt.Hash(password, setting);
        return actual is not null
            && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(actual), Encoding.UTF8.GetBytes(setting))
            && known;
    }
}

using System.Diagnostics;
using System.Security.Cryptography;
using System.Text;
using Lightway.Hosting;
using Lightway.Options;

namespace Lightway.Server.Auth;

/// <summary>
/// Checks logins: passwords by a file or a command, tokens by their keys. Immutable, safe from any thread; one check may
/// take a second of CPU, so it must not run on a thread that forwards packets.
/// </summary>
public sealed class Authenticator : IDisposable
{
    // For files without any hash that can be checked: the password of no user (its hash part is missing).
    private const string FallbackSetting = "$6$nobodynobodynobo$";

    private const int MaxSettings = 8; // schemes and costs that are measured
    private const long SlowMs = 50;

    private readonly Lazy<HashingThreads> _hashers;
    private readonly Action<Action> _run; // soon, on another thread
    private readonly Htpasswd? _users;
    private readonly TokenVerifier? _tokens;
    private readonly AuthCommand? _command;

    // Unknown users are hashed against this setting, so that the time of an answer does not reveal who exists.
    private readonly string _dummy;

    // A hash of each scheme and cost in the file, the most frequent first.
    private readonly string[] _settings;

    private Authenticator(
        Htpasswd? users,
        TokenVerifier? tokens,
        AuthCommand? command,
        int threads,
        Action<Action>? run = null
    )
    {
        _users = users;
        _tokens = tokens;
        _command = command;
        _hashers = new Lazy<HashingThreads>(() => new HashingThreads(threads));
        _run = run ?? (action => _hashers.Value.Run(action));
        _settings =
        [
            .. (users?.Hashes ?? [])
                .Where(CryptScheme.IsServed)
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
    public int UserCount => _users?.Count ?? 0;

    /// <summary>What the operator should know about the file: lines whose users can't log in.</summary>
    public IReadOnlyList<string> Warnings => _users?.Unserved ?? [];

    /// <summary>Whether logins of a kind are checked at all.</summary>
    public bool Serves(LoginKind kind) =>
        kind == LoginKind.Token ? _tokens is not null : _users is not null || _command is not null;

    /// <summary>Whether the password file has a user.</summary>
    public bool HasUser(string user) => _users?.TryFind(user, out _) == true;

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
    public static Authenticator Load(string path, int threads) => new(LoadUsers(path), null, null, threads);

    /// <summary>Reads whatever the options name.</summary>
    /// <param name="userDb">Path of the password file; null: none.</param>
    /// <param name="keys">Verify tokens; null: none are served.</param>
    /// <param name="threads">Threads that check: as many checks run at the same time.</param>
    /// <exception cref="ConfigurationException">As above.</exception>
    internal static Authenticator Load(string? userDb, TokenKeys? keys, AuthOptions options, int threads) =>
        new(
            userDb is null ? null : LoadUsers(userDb),
            keys is null ? null : new TokenVerifier(keys, TimeProvider.System),
            options.Command.Length == 0 ? null : new AuthCommand(options.Command, options.CommandTimeout),
            threads
        );

    /// <summary>With parts that are ready, for tests.</summary>
    /// <param name="run">Runs checks; null: hashing threads do.</param>
    internal static Authenticator Of(
        string? file,
        TokenVerifier? tokens,
        AuthCommand? command,
        int threads,
        Action<Action>? run = null
    ) => new(file is null ? null : ParseUsers(Encoding.UTF8.GetBytes(file)), tokens, command, threads, run);

    private static Htpasswd LoadUsers(string path)
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
            return ParseUsers(file);
        }
        catch (ConfigurationException error)
        {
            throw new ConfigurationException($"user_db: \"{path}\": {error.Message}");
        }
    }

    /// <summary>Reads the bytes of a password file.</summary>
    /// <exception cref="ConfigurationException">A line is wrong, or there is no libcrypt.</exception>
    internal static Authenticator Parse(ReadOnlySpan<byte> file, int threads) =>
        new(ParseUsers(file), null, null, threads);

    private static Htpasswd ParseUsers(ReadOnlySpan<byte> file)
    {
        if (!LibCrypt.IsAvailable)
        {
            throw new ConfigurationException(LibCrypt.Missing);
        }
        return Htpasswd.TryParse(file, out var users, out var problem)
            ? users
            : throw new ConfigurationException(problem);
    }

    /// <summary>
    /// Calls <paramref name="done"/> with the answer of <see cref="Check"/>, from another thread; once, whatever happens.
    /// </summary>
    /// <param name="proof">Its secret is owned from here on, and wiped before <paramref name="done"/> is called.</param>
    public void CheckOnPool(LoginProof proof, Action<LoginAnswer> done) =>
        RunOnPool(
            () =>
            {
                try
                {
                    return Check(proof);
                }
                finally
                {
                    CryptographicOperations.ZeroMemory(proof.Secret);
                }
            },
            done
        );

    /// <summary>Runs a check on a hashing thread; one that throws counts as failed.</summary>
    internal void RunOnPool(Func<LoginAnswer> check, Action<LoginAnswer> done) =>
        _run(() =>
        {
            var answer = new LoginAnswer(AuthVerdict.Failed, null);
            try
            {
                answer = check();
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

    /// <summary>Checks a login by whatever is for it: users that are not in the file are the command's, if there is one.</summary>
    public LoginAnswer Check(LoginProof proof)
    {
        if (proof.Kind == LoginKind.Token)
        {
            return _tokens?.Check(proof.Secret) ?? new(AuthVerdict.Refused, null, LoginMeans.Token);
        }
        if (_command is not null && !HasUser(proof.User))
        {
            return _command.Check(proof.User, proof.Secret);
        }
        return new(Authorize(proof.User, proof.Secret) ? AuthVerdict.Allowed : AuthVerdict.Refused, null);
    }

    /// <summary>
    /// True only when the file has the user and the password's hash is the one in the file. A user who does not exist,
    /// or whose scheme is not served, costs a hash as well.
    /// </summary>
    /// <param name="password">UTF-8.</param>
    public bool Authorize(string user, ReadOnlySpan<byte> password)
    {
        var expected = "";
        var known = _users?.TryFind(user, out expected) == true && CryptScheme.IsServed(expected!);
        var setting = known ? expected! : _dummy;
        var actual = LibCrypt.Hash(password, setting);
        return actual is not null
            && CryptographicOperations.FixedTimeEquals(Encoding.UTF8.GetBytes(actual), Encoding.UTF8.GetBytes(setting))
            && known;
    }

    /// <summary>Checks that have been asked for are still made; so the verifier of tokens is left to the garbage collector.</summary>
    public void Dispose()
    {
        if (_hashers.IsValueCreated)
        {
            _hashers.Value.Dispose();
        }
    }
}

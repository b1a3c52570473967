using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server.Auth;
using Lightway.Server.Reload;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Setup;

/// <summary>Reads who may log in, and what users have of their own.</summary>
internal static class ServerUsers
{
    private const int MaxWarnings = 10; // about one file

    /// <summary>Threads that check logins.</summary>
    public static int ThreadsOf(ServerOptions options) =>
        options.LoginChecks > 0 ? options.LoginChecks : Authenticator.DefaultThreads;

    /// <summary>Reads the files of users and keys, and measures what a check takes. Writes warnings about them to the log.</summary>
    /// <exception cref="ConfigurationException">A file can't be read, or its content is refused.</exception>
    public static Authenticator Load(ServerOptions options, ILogger log)
    {
        var keys = options.Auth.TokenKeys is { } file ? TokenKeys.Load(file) : null;
        var authenticator = Authenticator.Load(options.UserDb, keys, options.Auth, ThreadsOf(options));
        Warn("user_db", options.UserDb, authenticator.Warnings, log);
        Warn("user_db", options.UserDb, authenticator.Measure(), log);
        Warn("token_rsa_pub_key_pem", options.Auth.TokenKeys, keys?.Warnings ?? [], log);
        return authenticator;
    }

    /// <exception cref="ConfigurationException">The file of <c>address_map</c> can't be read, or its content is refused.</exception>
    public static UserLimits LoadLimits(ServerOptions options) =>
        new(options.SessionsPerUser, (long)options.SessionIdleLimit.TotalMilliseconds, ReadRules(options));

    private static IReadOnlyList<UserRule> ReadRules(ServerOptions options)
    {
        if (options.Auth.AddressMap is not { } file)
        {
            return [];
        }
        try
        {
            var (rules, error) = UserRules.parse(file, File.ReadAllText(file));
            error ??= UserRules.problem(options.IpPool, options.ReservedAddresses, rules);
            return error is null ? [.. rules] : throw new ConfigurationException(error.ReplaceLineEndings(" "));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"address_map: cannot read \"{file}\": {error.Message}");
        }
    }

    private static void Warn(string option, string? file, IReadOnlyList<string> warnings, ILogger log)
    {
        foreach (var warning in warnings.Take(MaxWarnings))
        {
            ProgramLog.Warning(log, $"{option}: \"{file}\": {warning}");
        }
        if (warnings.Count > MaxWarnings)
        {
            var rest = warnings.Count - MaxWarnings;
            ProgramLog.Warning(log, $"{option}: \"{file}\": the same holds for {rest} more of its lines");
        }
    }
}

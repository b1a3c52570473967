namespace Lightway.Server.Auth;

/// <summary>The hashes of a password file that are served: the schemes of the reference server, recognized by their prefix.</summary>
internal static class CryptScheme
{
    private const int TraditionalLength = 13; // characters: 2 of salt, 11 of hash

    private const int LongestName = 16; // characters of a scheme's name, with its brackets

    private static readonly string[] Prefixes =
    [
        "$2a$", // bcrypt
        "$2b$",
        "$2y$",
        "$5$", // SHA-256 crypt
        "$6$", // SHA-512 crypt
        "$1$", // MD5 crypt
        "$sha1$", // SHA-1 crypt
        "_", // BSDi extended DES
    ];

    /// <summary>
    /// False for $apr1$, {SHA}, plain text and whatever else libcrypt may know: nobody is let in by a scheme that the
    /// operator did not choose.
    /// </summary>
    public static bool IsServed(string hash) =>
        Array.Exists(Prefixes, prefix => hash.StartsWith(prefix, StringComparison.Ordinal)) || IsTraditional(hash);

    /// <summary>Names the scheme of a hash, for the operator. Never shows more of it than the scheme.</summary>
    public static string Describe(string hash)
    {
        var end =
            hash.StartsWith('$') ? hash.IndexOf('$', 1)
            : hash.StartsWith('{') ? hash.IndexOf('}')
            : -1;
        return end is > 0 and < LongestName ? $"the scheme {hash[..(end + 1)]}" : "a password in plain text";
    }

    /// <summary>
    /// What the time of a check depends on: the scheme of a hash and its cost, without the salt. Hashes of one setting take
    /// the same time.
    /// </summary>
    public static string SettingOf(string hash)
    {
        if (IsTraditional(hash))
        {
            return "DES";
        }
        if (hash.StartsWith('_'))
        {
            return hash[..Math.Min(hash.Length, 5)]; // four characters of rounds
        }
        var parts = hash.Split('$');
        var hasCost =
            parts.Length > 3 && (hash.StartsWith("$2") || hash.StartsWith("$sha1$") || parts[2].StartsWith("rounds="));
        return hasCost ? $"${parts[1]}${parts[2]}$" : $"${parts.ElementAtOrDefault(1)}$";
    }

    private static bool IsTraditional(string hash) =>
        hash.Length == TraditionalLength && hash.All(c => char.IsAsciiLetterOrDigit(c) || c is '.' or '/');
}

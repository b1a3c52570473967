using System.Diagnostics.CodeAnalysis;
using System.Text;

namespace Lightway.Server.Auth;

/// <summary>Password file in the manner of Apache's htpasswd: one <c>user:hash</c> per line.</summary>
internal sealed class Htpasswd
{
    private static readonly UTF8Encoding StrictUtf8 = new(
        encoderShouldEmitUTF8Identifier: false,
        throwOnInvalidBytes: true
    );

    private const char ByteOrderMark = '\uFEFF';

    private readonly Dictionary<string, string> _hashes = new(StringComparer.Ordinal);

    private Htpasswd() { }

    /// <summary>Number of different users.</summary>
    public int Count => _hashes.Count;

    /// <summary>Lines whose hash is of a scheme that is not served: nobody can log in as their users.</summary>
    public List<string> Unserved { get; } = [];

    /// <summary>All hashes, in the order in which their users first appear.</summary>
    public IEnumerable<string> Hashes => _hashes.Values;

    public bool TryFind(string user, [NotNullWhen(true)] out string? hash) => _hashes.TryGetValue(user, out hash);

    /// <summary>
    /// Reads a file's bytes: UTF-8 with or without a byte order mark, one <c>user:hash</c> per line, split at the first colon;
    /// the last of two lines for one user wins. Blank lines and lines that start with # are skipped, and so are blanks at the
    /// end of a line. Any other line without a user or a hash refuses the whole file: a typing error must not lock a user out
    /// unnoticed.
    /// </summary>
    /// <param name="error">What is wrong and in which line, counted from 1.</param>
    public static bool TryParse(
        ReadOnlySpan<byte> file,
        [NotNullWhen(true)] out Htpasswd? parsed,
        [NotNullWhen(false)] out string? error
    )
    {
        parsed = null;
        error = null;
        string text;
        try
        {
            text = StrictUtf8.GetString(file);
        }
        catch (DecoderFallbackException)
        {
            error = "not UTF-8 text";
            return false;
        }
        var users = new Htpasswd();
        var lines = new Dictionary<string, int>(StringComparer.Ordinal); // by user
        var number = 0;
        foreach (var whole in Lines(text.TrimStart(ByteOrderMark)))
        {
            number++;
            var line = whole.TrimEnd();
            if (line.Length == 0 || line.StartsWith('#'))
            {
                continue;
            }
            var colon = line.IndexOf(':');
            if (colon <= 0 || colon == line.Length - 1)
            {
                error = $"line {number}: needs user:hash";
                return false;
            }
            users._hashes[line[..colon]] = line[(colon + 1)..];
            lines[line[..colon]] = number;
        }
        if (users.Count == 0)
        {
            error = "no users";
            return false;
        }
        foreach (var (user, hash) in users._hashes)
        {
            if (!CryptScheme.IsServed(hash))
            {
                users.Unserved.Add(
                    $"line {lines[user]}: {CryptScheme.Describe(hash)} is not served, so '{user}' can't log in; run: htpasswd -B FILE {user}"
                );
            }
        }
        parsed = users;
        return true;
    }

    private static IEnumerable<string> Lines(string text)
    {
        using var reader = new StringReader(text);
        while (reader.ReadLine() is { } line)
        {
            yield return line;
        }
    }
}

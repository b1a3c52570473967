using System.Security.Cryptography;
using System.Text;

namespace Lightway.Server.Observe;

/// <summary>
/// The status page: one HTML file without anything from elsewhere. Its policy lets the browser run this file's script and
/// style, known by their hashes, and nothing else (Content Security Policy Level 3).
/// </summary>
internal static class StatusPage
{
    static StatusPage()
    {
        using var stream = typeof(StatusPage).Assembly.GetManifestResourceStream("status.html")!;
        using var reader = new StreamReader(stream, Encoding.UTF8);
        var text = reader.ReadToEnd();
        Html = Encoding.UTF8.GetBytes(text);
        Policy =
            $"default-src 'none'; script-src {HashOf(text, "script")}; style-src {HashOf(text, "style")}; connect-src 'self'; "
            + "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
    }

    public static byte[] Html { get; }

    /// <summary>Value of the header Content-Security-Policy.</summary>
    public static string Policy { get; }

    /// <param name="element">The page has one, without attributes.</param>
    private static string HashOf(string page, string element)
    {
        var start = page.IndexOf($"<{element}>", StringComparison.Ordinal) + element.Length + 2;
        var end = page.IndexOf($"</{element}>", StringComparison.Ordinal);
        var hash = SHA256.HashData(Encoding.UTF8.GetBytes(page[start..end]));
        return $"'sha256-{Convert.ToBase64String(hash)}'";
    }
}

using System.Text;

namespace Lightway.Hosting;

/// <summary>What a PEM file (RFC 7468) is to hold.</summary>
public enum PemContent
{
    Certificate,
    PrivateKey,
}

/// <summary>Reads the certificates and keys that the options name. What is wrong is said with the command that mends it.</summary>
public static class PemFiles
{
    private const byte DerSequence = 0x30; // how a certificate or key starts without PEM armour (X.690)

    /// <param name="option">Name of the option, for the message.</param>
    /// <exception cref="ConfigurationException">The file can't be read, or holds something else.</exception>
    public static byte[] Read(string option, string path, PemContent content)
    {
        byte[] bytes;
        try
        {
            bytes = File.ReadAllBytes(path);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ConfigurationException(
                $"{option}: \"{path}\" does not exist; a relative path starts at the working directory, {Environment.CurrentDirectory}"
            );
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"{option}: cannot read \"{path}\": {error.Message}");
        }
        return Problem(path, bytes, content) is { } problem
            ? throw new ConfigurationException($"{option}: {problem}")
            : bytes;
    }

    /// <summary>What is wrong with the content, in one sentence; null if nothing is to be seen.</summary>
    public static string? Problem(string path, ReadOnlySpan<byte> content, PemContent expected)
    {
        var text = Encoding.Latin1.GetString(content);
        var (label, name, tool) =
            expected == PemContent.Certificate
                ? ("CERTIFICATE-----", "certificate", "x509")
                : ("PRIVATE KEY-----", "private key", "pkey");
        if (expected == PemContent.PrivateKey && text.Contains("ENCRYPTED", StringComparison.Ordinal))
        {
            return $"\"{path}\" is encrypted; run: openssl pkey -in {path} -out {path}.plain && chmod 600 {path}.plain";
        }
        if (HasLabel(text, label))
        {
            return null;
        }
        if (text.Contains("-----BEGIN ", StringComparison.Ordinal))
        {
            return $"\"{path}\" holds no {name} but: {FirstLabel(text)}";
        }
        return content.Length > 0 && content[0] == DerSequence
            ? $"\"{path}\" is DER, not PEM; run: openssl {tool} -inform DER -in {path} -out {path}.pem"
            : $"\"{path}\" is not a PEM file with a {name}";
    }

    /// <summary>A key's label may name its kind: RSA PRIVATE KEY, EC PRIVATE KEY.</summary>
    private static bool HasLabel(string text, string label)
    {
        foreach (var line in text.Split('\n'))
        {
            if (
                line.StartsWith("-----BEGIN ", StringComparison.Ordinal)
                && line.TrimEnd().EndsWith(label, StringComparison.Ordinal)
            )
            {
                return true;
            }
        }
        return false;
    }

    private static string FirstLabel(string text)
    {
        const string begin = "-----BEGIN ";
        var start = text.IndexOf(begin, StringComparison.Ordinal) + begin.Length;
        var end = text.IndexOf("-----", start, StringComparison.Ordinal);
        return end < 0 ? "a cut label" : text[start..end];
    }
}

using System.Security.Cryptography;
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
    private const int MaxLength = 1 << 20; // bytes; a chain of ten certificates has about 20 000

    /// <summary>The file's content. Whoever asks for a key overwrites it with zeros after use: no copy is left.</summary>
    /// <param name="option">Name of the option, for the message.</param>
    /// <exception cref="ConfigurationException">The file can't be read, or holds something else.</exception>
    public static byte[] Read(string option, string path, PemContent content)
    {
        byte[] bytes;
        try
        {
            bytes = Content(path);
        }
        catch (Exception error) when (error is FileNotFoundException or DirectoryNotFoundException)
        {
            throw new ConfigurationException(
                $"{option}: \"{path}\" does not exist; a relative path starts at the working directory, {Environment.CurrentDirectory}"
            );
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new ConfigurationException($"{option}: cannot read \"{path}\": {error.Message}");
        }
        if (Problem(path, bytes, content) is { } problem)
        {
            CryptographicOperations.ZeroMemory(bytes);
            throw new ConfigurationException($"{option}: {problem}");
        }
        return bytes;
    }

    /// <summary>What is wrong with the content, in one sentence; null if nothing is to be seen.</summary>
    public static string? Problem(string path, ReadOnlySpan<byte> content, PemContent expected)
    {
        var isCertificate = expected == PemContent.Certificate;
        var name = isCertificate ? "certificate" : "private key";
        if (!isCertificate && content.IndexOf("ENCRYPTED"u8) >= 0)
        {
            return $"\"{path}\" is encrypted; run: openssl pkey -in {path} -out {path}.plain && chmod 600 {path}.plain";
        }
        if (HasLabel(content, isCertificate ? "CERTIFICATE-----"u8 : "PRIVATE KEY-----"u8))
        {
            return null;
        }
        if (content.IndexOf("-----BEGIN "u8) is var begin and >= 0)
        {
            return $"\"{path}\" holds no {name} but: {Label(content[begin..])}";
        }
        return content.Length > 0 && content[0] == DerSequence
            ? $"\"{path}\" is DER, not PEM; run: openssl {(isCertificate ? "x509" : "pkey")} -inform DER -in {path} -out {path}.pem"
            : $"\"{path}\" is not a PEM file with a {name}";
    }

    /// <summary>The file in an array that the garbage collector does not move, so that no copy of a key stays behind.</summary>
    private static byte[] Content(string path)
    {
        using var file = File.OpenHandle(path);
        var length = RandomAccess.GetLength(file);
        if (length > MaxLength)
        {
            throw new IOException($"it is longer than {MaxLength} bytes");
        }
        var bytes = GC.AllocateUninitializedArray<byte>((int)length, pinned: true);
        var read = 0;
        while (read < bytes.Length)
        {
            var count = RandomAccess.Read(file, bytes.AsSpan(read), read);
            if (count == 0)
            {
                throw new IOException("it became shorter while it was read");
            }
            read += count;
        }
        return bytes;
    }

    /// <summary>A key's label may name its kind: RSA PRIVATE KEY, EC PRIVATE KEY.</summary>
    private static bool HasLabel(ReadOnlySpan<byte> content, ReadOnlySpan<byte> label)
    {
        foreach (var range in content.Split((byte)'\n'))
        {
            var line = content[range].TrimEnd("\r \t"u8);
            if (line.StartsWith("-----BEGIN "u8) && line.EndsWith(label))
            {
                return true;
            }
        }
        return false;
    }

    private static string Label(ReadOnlySpan<byte> begin)
    {
        var label = begin["-----BEGIN ".Length..];
        var end = label.IndexOf("-----"u8);
        return end < 0 ? "a cut label" : Encoding.Latin1.GetString(label[..end]);
    }
}

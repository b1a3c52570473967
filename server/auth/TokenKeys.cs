using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Lightway.Hosting;
using Lightway.Protocol;

namespace Lightway.Server.Auth;

/// <summary>
/// The public keys of a file: PEM blocks (SubjectPublicKeyInfo, RFC 5280, or PKCS#1), or a JSON Web Key Set (RFC 7517).
/// Immutable.
/// </summary>
public sealed class TokenKeys
{
    private const int MaxLength = 1 << 20; // bytes of the file
    private const int MaxKeys = 64; // a token without kid is tried with each of them
    private const string RsaOid = "1.2.840.113549.1.1.1"; // RFC 8017, rsaEncryption
    private const string EcOid = "1.2.840.10045.2.1"; // RFC 5480, id-ecPublicKey
    private const string P256Oid = "1.2.840.10045.3.1.7"; // RFC 5480, secp256r1

    private const string EdDsaRemedy =
        "EdDSA is not served, because .NET does not verify it: sign tokens with RS256 or ES256";

    private readonly List<TokenKey> _keys = [];
    private readonly List<string> _warnings = [];

    private TokenKeys() { }

    public int Count => _keys.Count;

    /// <summary>What the operator should know: keys of the set that have no use here.</summary>
    public IReadOnlyList<string> Warnings => _warnings;

    /// <exception cref="ConfigurationException">The file can't be read, or its content is refused.</exception>
    public static TokenKeys Load(string path)
    {
        try
        {
            using var file = File.OpenRead(path);
            if (file.Length > MaxLength)
            {
                throw new ConfigurationException(
                    $"token_rsa_pub_key_pem: \"{path}\" is longer than {MaxLength} bytes, and no file of keys"
                );
            }
            var content = new byte[file.Length];
            file.ReadExactly(content);
            return Parse(path, content);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            throw new ConfigurationException($"token_rsa_pub_key_pem: cannot read \"{path}\": {error.Message}");
        }
    }

    /// <summary>Reads a file's bytes.</summary>
    /// <exception cref="ConfigurationException">The content is refused; one line says why.</exception>
    public static TokenKeys Parse(string path, ReadOnlySpan<byte> content)
    {
        var keys = new TokenKeys();
        var text = Encoding.UTF8.GetString(content).TrimStart('\uFEFF', ' ', '\t', '\r', '\n');
        try
        {
            if (text.StartsWith('{'))
            {
                keys.ReadSet(text);
            }
            else
            {
                keys.ReadPem(path, text);
            }
        }
        catch (CryptographicException error)
        {
            throw new ConfigurationException($"token_rsa_pub_key_pem: \"{path}\": {error.Message}");
        }
        return keys.Count switch
        {
            0 => throw new ConfigurationException(
                keys._warnings.Count > 0
                    ? $"token_rsa_pub_key_pem: \"{path}\" has no key for RS256 or ES256: {keys._warnings[0]}"
                    : $"token_rsa_pub_key_pem: \"{path}\" has no public key; allowed: a PEM file with PUBLIC KEY blocks (openssl pkey -in KEY -pubout), or a JSON Web Key Set"
            ),
            > MaxKeys => throw new ConfigurationException(
                $"token_rsa_pub_key_pem: \"{path}\" has {keys.Count} keys; allowed: at most {MaxKeys}, remove those that no longer sign"
            ),
            _ => keys,
        };
    }

    /// <summary>
    /// The keys that may have signed a token: those of its <c>kid</c>, and those without one; all if it has none.
    /// </summary>
    internal IEnumerable<TokenKey> For(string? id, TokenAlgorithm algorithm) =>
        _keys.Where(key => key.Algorithm == algorithm && (string.IsNullOrEmpty(id) || key.Id is null || key.Id == id));

    private void ReadPem(string path, string text)
    {
        var rest = text.AsSpan();
        while (PemEncoding.TryFind(rest, out var block))
        {
            var label = rest[block.Label].ToString();
            var pem = rest[block.Location].ToString();
            rest = rest[block.Location.End..];
            if (label == "RSA PUBLIC KEY")
            {
                using var rsa = RSA.Create();
                rsa.ImportFromPem(pem);
                _keys.Add(TokenKey.OfRsa(null, rsa.ExportParameters(includePrivateParameters: false)));
            }
            else if (label == "PUBLIC KEY")
            {
                ReadSubjectPublicKey(pem);
            }
            else
            {
                throw new CryptographicException(
                    label.EndsWith("PRIVATE KEY", StringComparison.Ordinal)
                        ? $"a private key does not belong on a server that only verifies; run: openssl pkey -in {path} -pubout"
                    : label == "CERTIFICATE"
                        ? $"a certificate is not a key; run: openssl x509 -in {path} -pubkey -noout"
                    : $"a block {label}; allowed: PUBLIC KEY and RSA PUBLIC KEY"
                );
            }
        }
    }

    private void ReadSubjectPublicKey(string pem)
    {
        PemEncoding.TryFind(pem, out var block);
        var der = new byte[block.DecodedDataLength];
        Convert.TryFromBase64String(pem[block.Base64Data], der, out _);
        var key = System.Security.Cryptography.X509Certificates.PublicKey.CreateFromSubjectPublicKeyInfo(der, out _);
        switch (key.Oid.Value)
        {
            case RsaOid:
                using (var rsa = RSA.Create())
                {
                    rsa.ImportSubjectPublicKeyInfo(der, out _);
                    _keys.Add(TokenKey.OfRsa(null, rsa.ExportParameters(includePrivateParameters: false)));
                }
                break;
            case EcOid:
                using (var ec = ECDsa.Create())
                {
                    ec.ImportSubjectPublicKeyInfo(der, out _);
                    var point = ec.ExportParameters(includePrivateParameters: false);
                    if (point.Curve.Oid.Value != P256Oid)
                    {
                        throw new CryptographicException(
                            $"a key of the curve {point.Curve.Oid.FriendlyName}; allowed: P-256 (ES256)"
                        );
                    }
                    _keys.Add(TokenKey.OfP256(null, point.Q));
                }
                break;
            case "1.3.101.112" or "1.3.101.113": // RFC 8410 §3: Ed25519, Ed448
                throw new CryptographicException($"an Ed25519 or Ed448 key; {EdDsaRemedy}");
            default:
                throw new CryptographicException(
                    $"a key of the kind {key.Oid.Value}; allowed: RSA (RS256) and P-256 (ES256)"
                );
        }
    }

    private void ReadSet(string text)
    {
        try
        {
            using var json = JsonDocument.Parse(text);
            if (
                !json.RootElement.TryGetProperty("keys", out var list)
                || list.ValueKind != JsonValueKind.Array
                || list.EnumerateArray().Any(key => key.ValueKind != JsonValueKind.Object)
            )
            {
                throw new CryptographicException("JSON, but no JSON Web Key Set: it needs \"keys\", a list of objects");
            }
            foreach (var key in list.EnumerateArray())
            {
                ReadKey(key);
            }
        }
        catch (JsonException error)
        {
            throw new CryptographicException($"line {error.LineNumber + 1}: not valid JSON");
        }
    }

    /// <summary>What is not for verifying RS256 or ES256 is skipped with a warning (RFC 7517 §5).</summary>
    private void ReadKey(JsonElement key)
    {
        var id = Text(key, "kid");
        var name = id is null ? $"key {_keys.Count + _warnings.Count + 1}" : $"key '{Shown(id)}'";
        var algorithm = Text(key, "alg");
        if (key.TryGetProperty("d", out _))
        {
            throw new CryptographicException($"{name} is a private key; leave d, p, q, dp, dq and qi out of the file");
        }
        if (Text(key, "use") is { } use && use != "sig")
        {
            _warnings.Add($"{name} is not for signatures, and has no effect");
            return;
        }
        switch (Text(key, "kty"), Text(key, "crv"))
        {
            case ("RSA", _) when algorithm is null or "RS256":
                _keys.Add(
                    Named(
                        name,
                        () => TokenKey.OfRsa(id, new() { Modulus = Bytes(key, "n"), Exponent = Bytes(key, "e") })
                    )
                );
                break;
            case ("EC", "P-256") when algorithm is null or "ES256":
                _keys.Add(Named(name, () => TokenKey.OfP256(id, new() { X = Bytes(key, "x"), Y = Bytes(key, "y") })));
                break;
            case ("OKP", _):
                _warnings.Add($"{name} has no effect: {EdDsaRemedy}");
                break;
            default:
                _warnings.Add(
                    $"{name} has no effect: it is for {Shown(algorithm ?? Text(key, "crv") ?? Text(key, "kty") ?? "nothing")}, and RS256 and ES256 are served"
                );
                break;
        }
    }

    private static TokenKey Named(string name, Func<TokenKey> create)
    {
        try
        {
            return create();
        }
        catch (Exception error) when (error is CryptographicException or FormatException)
        {
            throw new CryptographicException($"{name}: {error.Message}");
        }
    }

    private static string? Text(JsonElement key, string name) =>
        key.TryGetProperty(name, out var value) && value.ValueKind == JsonValueKind.String ? value.GetString() : null;

    private static byte[] Bytes(JsonElement key, string name) =>
        Base64Url.DecodeFromChars(Text(key, name) ?? throw new FormatException($"\"{name}\" is missing"));

    private static string Shown(string text) =>
        string.Concat(text.Take(64).Select(letter => char.IsControl(letter) ? '?' : letter));
}

using System.Buffers.Text;
using System.Security.Cryptography;
using System.Text;
using System.Text.Json;
using Lightway.Protocol;
using Microsoft.IdentityModel.JsonWebTokens;
using Microsoft.IdentityModel.Tokens;

namespace Lightway.Server.Auth;

/// <summary>
/// Checks tokens (JWT, RFC 7519) by <see cref="TokenRules"/>. Safe from any thread; a check costs a signature's verification,
/// some 50 µs.
/// </summary>
public sealed class TokenVerifier : IDisposable
{
    private const int FingerprintBytes = 6;
    private const int ShownLength = 32; // characters of a token's header that the log may show
    private static readonly JsonWebTokenHandler Handler = new() { MaximumTokenSizeInBytes = TokenRules.MaxBytes };
    private readonly TokenKeys _keys;
    private readonly TimeProvider _clock;
    private readonly InMemoryCryptoProviderCache _providers;
    private readonly TokenValidationParameters _parameters;

    public TokenVerifier(TokenKeys keys, TimeProvider clock)
    {
        _keys = keys;
        _clock = clock;
        _providers = new InMemoryCryptoProviderCache();
        _parameters = new TokenValidationParameters
        {
            // Claims are TokenRules' business.
            ValidateAudience = false,
            ValidateIssuer = false,
            ValidateLifetime = false,
            RequireExpirationTime = false,
            RequireSignedTokens = true,
            ValidAlgorithms = [SecurityAlgorithms.RsaSha256, SecurityAlgorithms.EcdsaSha256],
            CryptoProviderFactory = new CryptoProviderFactory(_providers),
            IssuerSigningKeyResolver = (_, token, id, _) => Candidates((JsonWebToken)token, id),
        };
    }

    /// <param name="token">UTF-8, of any length and content.</param>
    public LoginAnswer Check(ReadOnlySpan<byte> token)
    {
        if (!TokenRules.isWellFormed(token))
        {
            return Refused("it is not a signed token (JWT)");
        }
        try
        {
            return Check(new JsonWebToken(Encoding.ASCII.GetString(token)), token);
        }
        catch (Exception error)
            when (error is ArgumentException or SecurityTokenException or JsonException or FormatException)
        {
            return Refused("it is not a signed token (JWT)");
        }
    }

    public void Dispose() => _providers.Dispose();

    private LoginAnswer Check(JsonWebToken token, ReadOnlySpan<byte> text)
    {
        var algorithm = TokenRules.algorithmOf(token.Alg);
        if (algorithm == TokenAlgorithm.None)
        {
            return Refused($"its algorithm is '{Shown(token.Alg)}'; allowed: RS256 and ES256");
        }
        if (token.TryGetHeaderValue<object>("crit", out _)) // RFC 7515 §4.1.11: whoever does not know them refuses
        {
            return Refused("its header has extensions (crit)");
        }
        if (!_keys.For(token.Kid, algorithm).Any())
        {
            return Refused($"there is no key for {token.Alg} with the kid '{Shown(token.Kid)}'");
        }
        var result = Handler.ValidateTokenAsync(token, _parameters).GetAwaiter().GetResult(); // waits for nothing
        if (!result.IsValid)
        {
            return Refused("its signature is wrong");
        }
        var claims = ClaimsOf(token);
        var now = _clock.GetUtcNow().ToUnixTimeSeconds();
        return TokenRules.verdict(claims, now) switch
        {
            TokenVerdict.Allowed => new(AuthVerdict.Allowed, null, LoginMeans.Token)
            {
                User = UserOf(claims, text),
                ExpiresAt = claims.ExpiresAt,
            },
            TokenVerdict.Expired => Refused($"it expired {now - claims.ExpiresAt} s ago"),
            TokenVerdict.NoExpiry => Refused("it has no expiry (exp)"),
            _ => Refused("it is for an audience (aud)"),
        };
    }

    private IEnumerable<SecurityKey> Candidates(JsonWebToken token, string id) =>
        _keys.For(id, TokenRules.algorithmOf(token.Alg)).Select(key => key.Material);

    private static TokenClaims ClaimsOf(JsonWebToken token)
    {
        using var payload = JsonDocument.Parse(Base64Url.DecodeFromChars(token.EncodedPayload));
        var root = payload.RootElement;
        var expiresAt = ExpiryOf(root);
        return new TokenClaims(
            root.TryGetProperty("aud", out _),
            expiresAt.HasValue,
            expiresAt ?? 0,
            root.TryGetProperty("sub", out var subject) && subject.ValueKind == JsonValueKind.String
                ? subject.GetString()
                : null
        );
    }

    /// <summary>A NumericDate may have a fraction (RFC 7519 §2); null: there is none that is a number.</summary>
    private static long? ExpiryOf(JsonElement payload)
    {
        if (!payload.TryGetProperty("exp", out var expiry) || expiry.ValueKind != JsonValueKind.Number)
        {
            return null;
        }
        return expiry.TryGetInt64(out var whole) ? whole
            : expiry.TryGetDouble(out var seconds) && Math.Abs(seconds) < 1e15 ? (long)Math.Floor(seconds)
            : null;
    }

    private static string UserOf(in TokenClaims claims, ReadOnlySpan<byte> token)
    {
        Span<byte> hash = stackalloc byte[SHA256.HashSizeInBytes];
        SHA256.HashData(claims.Subject is { } subject ? Encoding.UTF8.GetBytes(subject) : token, hash);
        return TokenRules.userOf(claims.Subject, Convert.ToHexStringLower(hash[..FingerprintBytes]));
    }

    private static LoginAnswer Refused(string why) => new(AuthVerdict.Refused, why, LoginMeans.Token);

    private static string Shown(string? text) =>
        string.Concat((text ?? "").Take(ShownLength).Select(letter => char.IsControl(letter) ? '?' : letter));
}

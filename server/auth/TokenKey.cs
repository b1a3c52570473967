using System.Security.Cryptography;
using Lightway.Protocol;
using Microsoft.IdentityModel.Tokens;

namespace Lightway.Server.Auth;

/// <summary>A public key that verifies tokens. Immutable.</summary>
/// <param name="Id">Its <c>kid</c>; null: any token may be signed by it.</param>
/// <param name="Material">As the verifying library takes it: it makes an instance for each thread of it.</param>
internal sealed record TokenKey(string? Id, TokenAlgorithm Algorithm, JsonWebKey Material)
{
    private const int LeastRsaBits = 2048; // RFC 7518 §3.3
    private const int MostRsaBits = 8192; // a check of a longer one takes milliseconds

    /// <exception cref="CryptographicException">It is no key, or too short or long; the message says which.</exception>
    public static TokenKey OfRsa(string? id, RSAParameters key)
    {
        using var rsa = RSA.Create();
        rsa.ImportParameters(new RSAParameters { Modulus = key.Modulus, Exponent = key.Exponent });
        return rsa.KeySize is < LeastRsaBits or > MostRsaBits
            ? throw new CryptographicException(
                $"an RSA key of {rsa.KeySize} bits; allowed: {LeastRsaBits} to {MostRsaBits}"
            )
            : new TokenKey(
                id,
                TokenAlgorithm.Rs256,
                new JsonWebKey
                {
                    Kty = JsonWebAlgorithmsKeyTypes.RSA,
                    N = Base64UrlEncoder.Encode(key.Modulus),
                    E = Base64UrlEncoder.Encode(key.Exponent),
                }
            );
    }

    /// <exception cref="CryptographicException">It is not a point of P-256; the message says so.</exception>
    public static TokenKey OfP256(string? id, ECPoint point)
    {
        using var key = ECDsa.Create(
            new ECParameters
            {
                Curve = ECCurve.NamedCurves.nistP256,
                Q = new ECPoint { X = point.X, Y = point.Y },
            }
        );
        return new TokenKey(
            id,
            TokenAlgorithm.Es256,
            new JsonWebKey
            {
                Kty = JsonWebAlgorithmsKeyTypes.EllipticCurve,
                Crv = JsonWebKeyECTypes.P256,
                X = Base64UrlEncoder.Encode(point.X),
                Y = Base64UrlEncoder.Encode(point.Y),
            }
        );
    }
}

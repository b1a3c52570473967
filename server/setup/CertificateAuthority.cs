using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;

namespace Lightway.Server.Setup;

/// <summary>A certificate and its private key, both PEM; the key as PKCS#8.</summary>
internal sealed record PemPair(string Certificate, string PrivateKey);

/// <summary>
/// Makes the certificates of a new set-up: ECDSA on P-256 with SHA-256, which every Lightway client accepts.
/// </summary>
internal sealed class CertificateAuthority : IDisposable
{
    private const int CaYears = 10;
    private const int ServerDays = 825; // the longest life that common verifiers accept for a server certificate
    private const string ServerAuthentication = "1.3.6.1.5.5.7.3.1"; // id-kp-serverAuth, RFC 5280 §4.2.1.12

    private readonly ECDsa _key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
    private readonly X509Certificate2 _certificate;
    private readonly DateTimeOffset _from;

    /// <param name="now">Certificates are valid from a day earlier, for clients whose clock is slow.</param>
    public CertificateAuthority(DateTimeOffset now)
    {
        _from = now.AddDays(-1);
        var request = new CertificateRequest("CN=Lightway CA", _key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, true, 0, critical: true));
        request.CertificateExtensions.Add(
            new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, critical: true)
        );
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        _certificate = request.CreateSelfSigned(_from, now.AddYears(CaYears));
    }

    /// <summary>The authority's own certificate and key.</summary>
    public PemPair Export() => new(_certificate.ExportCertificatePem(), _key.ExportPkcs8PrivateKeyPem());

    /// <summary>A server certificate for one DNS name, with a key of its own.</summary>
    public PemPair Issue(string serverName)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest($"CN={serverName}", key, HashAlgorithmName.SHA256);
        var names = new SubjectAlternativeNameBuilder();
        names.AddDnsName(serverName);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(false, false, 0, critical: true));
        request.CertificateExtensions.Add(
            new X509KeyUsageExtension(X509KeyUsageFlags.DigitalSignature, critical: true)
        );
        request.CertificateExtensions.Add(
            new X509EnhancedKeyUsageExtension([new Oid(ServerAuthentication)], critical: false)
        );
        request.CertificateExtensions.Add(names.Build());
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, critical: false));
        request.CertificateExtensions.Add(
            X509AuthorityKeyIdentifierExtension.CreateFromCertificate(_certificate, true, false)
        );
        using var certificate = request.Create(_certificate, _from, _from.AddDays(ServerDays), SerialNumber());
        return new(certificate.ExportCertificatePem(), key.ExportPkcs8PrivateKeyPem());
    }

    public void Dispose()
    {
        _certificate.Dispose();
        _key.Dispose();
    }

    // 126 random bits: positive, and well within the 20 bytes of RFC 5280 §4.1.2.2.
    private static byte[] SerialNumber()
    {
        var serial = RandomNumberGenerator.GetBytes(16);
        serial[0] = (byte)((serial[0] & 0x3f) | 0x40);
        return serial;
    }
}

using System.Buffers;
using System.Buffers.Text;
using System.Globalization;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Text;

namespace Lightway.Hosting;

/// <summary>
/// What can be seen in certificates and keys before a peer refuses them, and why the TLS library did not take them.
/// Sentences for the operator, without the option's name in front.
/// </summary>
public static class Certificates
{
    private const int SoonDays = 30;
    private const string AuthorityName = "ca_cert.crt"; // as `lightway-server init` calls it

    // SEQUENCE { OBJECT IDENTIFIER 1.3.101.112 }, 1.3.101.113: the algorithm of a PKCS#8 key, RFC 8410 §3 and §7
    private static ReadOnlySpan<byte> Ed25519 => [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70];
    private static ReadOnlySpan<byte> Ed448 => [0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x71];

    /// <summary>Certificates that are out of date, or soon will be.</summary>
    /// <param name="pem">Content of the file; other things than certificates are skipped.</param>
    public static IReadOnlyList<string> Dates(string path, ReadOnlySpan<byte> pem, DateTimeOffset now)
    {
        var warnings = new List<string>();
        foreach (var certificate in Read(pem))
        {
            if (Date(certificate, now) is { } problem)
            {
                warnings.Add($"\"{path}\": {certificate.Subject} {problem}");
            }
            certificate.Dispose();
        }
        return warnings;
    }

    /// <summary>When a certificate that a peer has sent is valid, and whose it is; null if it can't be read.</summary>
    /// <param name="der">The certificate alone.</param>
    public static (string Subject, string From, string Until)? Validity(ReadOnlySpan<byte> der)
    {
        try
        {
            using var certificate = X509CertificateLoader.LoadCertificate(der);
            return (
                certificate.Subject,
                Day(certificate.NotBefore.ToUniversalTime()),
                Day(certificate.NotAfter.ToUniversalTime())
            );
        }
        catch (CryptographicException)
        {
            return null;
        }
    }

    /// <summary>
    /// Authorities in the chain that do not allow as many authorities below them as there are (RFC 5280 §4.2.1.9): clients
    /// refuse such a chain, and the server itself would not notice. The authority that `init` writes next to the
    /// certificate counts as a part of the chain.
    /// </summary>
    /// <param name="path">Of the server's certificate and its chain.</param>
    public static IReadOnlyList<string> PathLengths(string path, ReadOnlySpan<byte> pem)
    {
        var chain = Read(pem);
        var present = new List<X509Certificate2>(chain);
        present.AddRange(Beside(path));
        var warnings = new List<string>();
        var current = chain.FirstOrDefault();
        var intermediates = new List<string>();
        while (current is not null && intermediates.Count < present.Count && !IsSelfIssued(current))
        {
            var above = present.FirstOrDefault(other => Issued(other, current));
            if (
                above?.Extensions.OfType<X509BasicConstraintsExtension>().FirstOrDefault()
                    is { HasPathLengthConstraint: true, PathLengthConstraint: var allowed }
                && allowed < intermediates.Count
            )
            {
                warnings.Add(
                    allowed == 0
                        ? $"\"{path}\": {above.Subject} allows no authority below it (pathlen 0), but {intermediates[^1]} is one; clients refuse this chain: have {above.Subject} sign the server's certificate itself, or use an authority with a larger pathlen"
                        : $"\"{path}\": {above.Subject} allows {allowed} authorities below it (pathlen), but there are {intermediates.Count}; clients refuse this chain: use an authority with a larger pathlen"
                );
            }
            if (above is not null)
            {
                intermediates.Add(above.Subject);
            }
            current = above;
        }
        present.ForEach(certificate => certificate.Dispose());
        return warnings;
    }

    /// <summary>Why a certificate was not taken, or not with its key; null if nothing is to be seen.</summary>
    public static string? Refusal(string path, ReadOnlySpan<byte> pem)
    {
        var chain = Read(pem);
        try
        {
            foreach (var certificate in chain)
            {
                if (Edwards(certificate.PublicKey.Oid.Value) is { } curve)
                {
                    return $"\"{path}\": {certificate.Subject} has an {curve} key, which this wolfSSL does not take; use a certificate with an ECDSA P-256 or RSA key; run: openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -keyout server.key -out server.csr";
                }
            }
            return
                chain is [var first, .. var others] && others.FirstOrDefault(other => Issued(first, other)) is { } own
                ? $"\"{path}\": the first certificate must be the server's own, but it is that of the authority {first.Subject}; move {own.Subject} to the front"
                : null;
        }
        finally
        {
            chain.ForEach(certificate => certificate.Dispose());
        }
    }

    /// <summary>Why a private key was not taken; null if nothing is to be seen.</summary>
    public static string? KeyRefusal(string path, ReadOnlySpan<byte> pem)
    {
        string? curve = null;
        EachBlock(
            pem,
            "PRIVATE KEY",
            der =>
            {
                var head = der.AsSpan(0, Math.Min(der.Length, 16));
                curve ??=
                    head.IndexOf(Ed25519) >= 0 ? "Ed25519"
                    : head.IndexOf(Ed448) >= 0 ? "Ed448"
                    : null;
            }
        );
        return curve is null
            ? null
            : $"\"{path}\" is an {curve} key, which this wolfSSL does not take; make an ECDSA P-256 key, and have a certificate issued for it; run: openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -out {path}.new && chmod 600 {path}.new";
    }

    private static string? Edwards(string? algorithm) =>
        algorithm switch
        {
            "1.3.101.112" => "Ed25519", // RFC 8410 §3
            "1.3.101.113" => "Ed448",
            _ => null,
        };

    private static string? Date(X509Certificate2 certificate, DateTimeOffset now)
    {
        var (from, until) = (certificate.NotBefore.ToUniversalTime(), certificate.NotAfter.ToUniversalTime());
        if (until < now.UtcDateTime)
        {
            return $"has expired: it was valid until {Day(until)}, and peers refuse it";
        }
        if (from > now.UtcDateTime)
        {
            return $"is not valid before {Day(from)}, and peers refuse it; check this machine's clock";
        }
        var days = (int)(until - now.UtcDateTime).TotalDays;
        return days < SoonDays ? $"expires in {days} {(days == 1 ? "day" : "days")}, on {Day(until)}" : null;
    }

    private static string Day(DateTime time) => time.ToString("yyyy-MM-dd", CultureInfo.InvariantCulture);

    private static bool IsSelfIssued(X509Certificate2 certificate) => Issued(certificate, certificate);

    private static bool Issued(X509Certificate2 issuer, X509Certificate2 certificate) =>
        issuer.SubjectName.RawData.AsSpan().SequenceEqual(certificate.IssuerName.RawData);

    private static List<X509Certificate2> Beside(string path)
    {
        var file = Path.Combine(Path.GetDirectoryName(Path.GetFullPath(path)) ?? "/", AuthorityName);
        try
        {
            return Read(File.ReadAllBytes(file));
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return []; // there need not be one
        }
    }

    /// <summary>Certificates that .NET can read; what it can't is left to the TLS library.</summary>
    private static List<X509Certificate2> Read(ReadOnlySpan<byte> pem)
    {
        var found = new List<X509Certificate2>();
        EachBlock(
            pem,
            "CERTIFICATE",
            der =>
            {
                try
                {
                    found.Add(X509CertificateLoader.LoadCertificate(der));
                }
                catch (CryptographicException)
                {
                    // No sentence about this one: the TLS library reads it as well, and refuses it if it is wrong.
                }
            }
        );
        return found;
    }

    /// <summary>Hands out the content of each PEM block with this label, and overwrites it with zeros afterwards.</summary>
    private static void EachBlock(ReadOnlySpan<byte> pem, string label, Action<byte[]> use)
    {
        while (PemEncoding.TryFindUtf8(pem, out var block))
        {
            if (Ascii.Equals(pem[block.Label], label))
            {
                var der = GC.AllocateUninitializedArray<byte>(block.DecodedDataLength, pinned: true);
                if (Base64.DecodeFromUtf8(pem[block.Base64Data], der, out _, out _) == OperationStatus.Done)
                {
                    use(der);
                }
                CryptographicOperations.ZeroMemory(der);
            }
            pem = pem[block.Location.End..];
        }
    }
}

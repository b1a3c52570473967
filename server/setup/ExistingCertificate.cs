using System.Diagnostics;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Server.Host;

namespace Lightway.Server.Setup;

/// <summary>A certificate that the operator has, or that certbot(1) gets. The files stay where they are.</summary>
/// <param name="Certificate">Absolute path of the PEM file with the chain.</param>
/// <param name="Key">Absolute path of the PEM file with the key.</param>
internal sealed record ExistingCertificate(string Certificate, string Key)
{
    /// <summary>The authorities that a Debian system trusts (package ca-certificates), in one PEM file.</summary>
    public const string SystemAuthorities = "/etc/ssl/certs/ca-certificates.crt";

    private const string CertbotDirectory = "/etc/letsencrypt/live";

    /// <summary>The certificate that the options name; null: one is to be made.</summary>
    /// <exception cref="ConfigurationException">It can't be used, or certbot has not got one.</exception>
    public static ExistingCertificate? Of(InitOptions options)
    {
        if (options.AcmeWebroot is { } webroot)
        {
            return Get(options.ServerName, webroot).Checked(options.ServerName);
        }
        return options.Certificate is { } certificate && options.Key is { } key
            ? new ExistingCertificate(Path.GetFullPath(certificate), Path.GetFullPath(key)).Checked(options.ServerName)
            : null;
    }

    /// <summary>Has certbot get the certificate; it asks its questions on the terminal.</summary>
    private static ExistingCertificate Get(string name, string webroot)
    {
        if (!Directory.Exists(webroot))
        {
            throw new ConfigurationException($"acme-webroot: there is no directory \"{webroot}\"");
        }
        var certbot =
            HostPrograms.Find("certbot")
            ?? throw new ConfigurationException(
                "acme-webroot: certbot is not installed; run: apt-get install certbot, or get a certificate in another way and name it with --certificate FILE --key FILE"
            );
        var start = new ProcessStartInfo(certbot, ["certonly", "--webroot", "-w", webroot, "-d", name]);
        using var process = Process.Start(start)!;
        process.WaitForExit();
        return process.ExitCode == 0
            ? new ExistingCertificate(
                $"{CertbotDirectory}/{name}/fullchain.pem",
                $"{CertbotDirectory}/{name}/privkey.pem"
            )
            : throw new ConfigurationException(
                $"acme-webroot: certbot got no certificate for {name} and ended with code {process.ExitCode}; what it printed says why"
            );
    }

    /// <summary>What the server would refuse at its start, and clients at every handshake, is refused here.</summary>
    private ExistingCertificate Checked(string name)
    {
        FileChecks.Require("certificate", Certificate, FileRule.ReadableByOthers);
        FileChecks.Require("key", Key, FileRule.OwnerOnly);
        try
        {
            using var leaf = X509Certificate2.CreateFromPemFile(Certificate, Key);
            if (!leaf.MatchesHostname(name, allowCommonName: false))
            {
                throw new ConfigurationException(
                    $"server-name: \"{Certificate}\" is not for {name}, but for {Names(leaf)}: name it with --server-name NAME"
                );
            }
        }
        catch (Exception error) when (error is CryptographicException or ArgumentException)
        {
            throw new ConfigurationException($"certificate: \"{Certificate}\", \"{Key}\": {error.Message}");
        }
        return this;
    }

    private static string Names(X509Certificate2 leaf)
    {
        var names = leaf
            .Extensions.OfType<X509SubjectAlternativeNameExtension>()
            .SelectMany(extension => extension.EnumerateDnsNames())
            .ToArray();
        return names.Length > 0 ? string.Join(", ", names) : leaf.Subject;
    }
}

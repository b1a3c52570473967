using System.Security.Cryptography;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Setup;

/// <summary>The server's certificate and key, ready for the transports that it serves.</summary>
internal sealed class ServerTls : IDisposable
{
    private ServerTls() { }

    /// <summary>Of DTLS; null if no datagrams are served.</summary>
    public TlsContext? Datagram { get; private init; }

    /// <summary>Of TLS; null if no streams are served.</summary>
    public TlsContext? Stream { get; private init; }

    /// <param name="insight">Who looks into the sessions; null: nobody.</param>
    /// <param name="device">Who seals their records: see <see cref="TlsContext.ForServer"/>.</param>
    /// <exception cref="ConfigurationException">A file can't be read, or its content is refused.</exception>
    public static ServerTls Load(ServerOptions options, TlsInsight? insight, int device, ILogger log)
    {
        var certificate = PemFiles.Read("server_cert", options.ServerCert, PemContent.Certificate);
        foreach (
            var warning in (string[])
                [
                    .. Certificates.Dates(options.ServerCert, certificate, DateTimeOffset.UtcNow),
                    .. Certificates.PathLengths(options.ServerCert, certificate),
                ]
        )
        {
            ProgramLog.Warning(log, $"server_cert: {warning}");
        }
        var key = PemFiles.Read("server_key", options.ServerKey, PemContent.PrivateKey);
        try
        {
            return new ServerTls
            {
                Datagram = options.Mode == TransportMode.Tcp ? null : Of(Transport.Datagram),
                Stream = options.Mode == TransportMode.Udp ? null : Of(Transport.Stream),
            };
        }
        catch (TlsException error)
        {
            throw new ConfigurationException(
                Certificates.KeyRefusal(options.ServerKey, key) is { } ofKey ? $"server_key: {ofKey}"
                : Certificates.Refusal(options.ServerCert, certificate) is { } ofCertificate
                    ? $"server_cert: {ofCertificate}"
                : $"server_cert \"{options.ServerCert}\", server_key \"{options.ServerKey}\": {error.Message}"
            );
        }
        finally
        {
            CryptographicOperations.ZeroMemory(key); // the library has its own copy
        }
        TlsContext Of(Transport transport) =>
            TlsContext.ForServer(certificate, key, options.EnablePqc, transport, insight, device);
    }

    public void Dispose()
    {
        Datagram?.Dispose();
        Stream?.Dispose();
    }
}

using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Server.Auth;
using Lightway.Server.Setup;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Reload;

/// <summary>
/// What a server is to its clients, and what it allows them: all that a reload replaces as a whole. Immutable. A TLS session
/// keeps what it needs of its context (wolfSSL counts references), so the contexts can be disposed of as soon as no new
/// session is made of them.
/// </summary>
public sealed class ServerIdentity : IDisposable
{
    /// <summary>Of DTLS; null: no datagrams are served.</summary>
    public TlsContext? Tls { get; init; }

    /// <summary>Of TLS; null: no streams are served.</summary>
    public TlsContext? StreamTls { get; init; }

    /// <summary>Decides who may log in.</summary>
    public required Authenticator Authenticator { get; init; }

    /// <summary>Logins that are checked at the same time.</summary>
    public required int LoginChecks { get; init; }

    /// <summary>What users may have.</summary>
    public required UserLimits Limits { get; init; }

    /// <summary>Handshakes per second of one source; 0: any number.</summary>
    public required int HandshakesPerSource { get; init; }

    /// <summary>Connections without a login.</summary>
    public required int HalfOpenLimit { get; init; }

    /// <summary>Sessions of users who are no longer in the password file are ended when this takes effect.</summary>
    public bool EndsRemovedUsers { get; init; }

    /// <summary>Reads the files that the options name, and checks them.</summary>
    /// <param name="insight">Who looks into TLS; null: nobody.</param>
    /// <param name="aeads">Who seals records.</param>
    /// <exception cref="ConfigurationException">A file can't be read, or its content is refused.</exception>
    internal static ServerIdentity Load(ServerOptions options, TlsInsight? insight, PacketAeads aeads, ILogger log)
    {
        var limits = ServerUsers.LoadLimits(options);
        var authenticator = ServerUsers.Load(options, log);
        try
        {
            var tls = ServerTls.Load(options, insight, aeads.Device, log);
            return new ServerIdentity
            {
                Tls = tls.Datagram,
                StreamTls = tls.Stream,
                Authenticator = authenticator,
                LoginChecks = ServerUsers.ThreadsOf(options),
                Limits = limits,
                HandshakesPerSource = options.HandshakesPerSource,
                HalfOpenLimit = options.HalfOpenLimit,
                EndsRemovedUsers = options.Auth.EndRemovedUsers,
            };
        }
        catch
        {
            authenticator.Dispose();
            throw;
        }
    }

    /// <summary>What strangers may cost each worker.</summary>
    public AdmissionLimits AdmissionOf(int workers) => AdmissionLimits.Of(HandshakesPerSource, HalfOpenLimit, workers);

    /// <summary>What the kernel lets a stranger's source send.</summary>
    public GateBudget GateBudget => GateBudget.Of(HandshakesPerSource);

    public void Dispose()
    {
        Tls?.Dispose();
        StreamTls?.Dispose();
        Authenticator.Dispose();
    }
}

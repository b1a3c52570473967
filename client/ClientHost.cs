using System.Net;
using System.Net.Sockets;
using System.Text;
using Lightway.Client.Network;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>Puts a client together from its options, and runs it until a signal or the end of its connection.</summary>
internal static class ClientHost
{
    private const int TunMtu = 1350; // the reference client's

    /// <returns>Exit code.</returns>
    public static int Run(ClientOptions options, ILogger log)
    {
        if (!options.CoreDumps)
        {
            Platform.ForbidCoreDumps(log);
        }
        FileChecks.Require("config_file", options.ConfigFile, FileRule.OwnerOnly); // it holds a password
        ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
        var server = new IPEndPoint(Resolve(options.ServerHost), options.ServerPort);
        using var tls = TlsOf(options, log);
        var offload = OffloadChoice.Of(options.Offload);
        OffloadChoice.WarnOfKernel(offload, log);
        var tun = OpenTun(options, offload);
        var any = server.AddressFamily == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any;
        var socket = UdpSocket.Bind(
            new IPEndPoint(any, 0),
            options.SendBuffer,
            options.ReceiveBuffer,
            options.Fwmark,
            offload.UdpGro
        );
        ClientSession? session = null;
        using var worker = new Worker(
            tun,
            socket,
            offload,
            ids: null,
            log,
            context =>
                session = new ClientSession(
                    SettingsOf(options),
                    context,
                    tls,
                    new InsideAddresses(Ipv4Address.Of(options.TunLocalIp), Ipv4Address.Of(options.TunDnsIp)),
                    new PeerAddress(server),
                    log
                )
        );
        using var ending = session!;
        using var routes = Routes.Install(
            options.RouteMode,
            server.Address,
            tun.Name,
            options.TunPeerIp,
            options.TunDnsIp
        );
        using var metrics = new MetricsFile(options.MetricsFile, [worker.Context.Counters], log);
        using var signals = new StopSignals(worker.Stop);
        session!.Start();
        worker.Run();
        metrics.Write();
        return session.Ended is null ? 0 : Entry.Failed;
    }

    private static DtlsContext TlsOf(ClientOptions options, ILogger log)
    {
        var authority = options.CaCertIsInline
            ? Encoding.UTF8.GetBytes(options.CaCert)
            : PemFiles.Read("ca_cert", options.CaCert, PemContent.Certificate);
        var name = options.CaCertIsInline ? "(inline)" : options.CaCert;
        foreach (var warning in Certificates.Dates(name, authority, DateTimeOffset.UtcNow))
        {
            ProgramLog.Warning(log, $"ca_cert: {warning}");
        }
        try
        {
            return DtlsContext.ForClient(
                authority,
                options.ServerDn,
                options.Cipher == TlsCipher.ChaCha20,
                options.KeyShare == Options.KeyShare.X25519MlKem768
                    ? Tunnel.Tls.KeyShare.X25519MlKem768
                    : Tunnel.Tls.KeyShare.P521MlKem1024,
                options.OutsideMtu
            );
        }
        catch (TlsException error)
        {
            throw new ConfigurationException(
                $"ca_cert: {Certificates.Refusal(name, authority) ?? $"\"{name}\": {error.Message}"}"
            );
        }
    }

    private static TunQueue OpenTun(ClientOptions options, Offload offload)
    {
        var tun = TunQueue.Open(options.TunName, offload);
        TunInterface.SetMtu(tun.Name, TunMtu);
        TunInterface.SetAddresses(tun.Name, Ipv4Address.Of(options.TunLocalIp), Ipv4Address.Of(options.TunPeerIp));
        TunInterface.BringUp(tun.Name);
        return tun;
    }

    private static ConnectionSettings SettingsOf(ClientOptions options) =>
        new()
        {
            Role = Role.Client,
            OutsideMtu = options.OutsideMtu,
            EnableExpresslane = options.EnableExpresslane,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeepaliveIntervalMs = (long)options.KeepaliveInterval.TotalMilliseconds,
            KeepaliveTimeoutMs = (long)options.KeepaliveTimeout.TotalMilliseconds,
            KeepaliveContinuous = options.KeepaliveContinuous,
            Credentials = AuthRequestModule.userPassword(options.User, options.Password),
        };

    private static IPAddress Resolve(string host)
    {
        if (IPAddress.TryParse(host, out var address))
        {
            return address;
        }
        try
        {
            return Dns.GetHostAddresses(host) is [var first, ..]
                ? first
                : throw new IOException($"server: '{host}' has no address");
        }
        catch (SocketException error)
        {
            throw new IOException(
                $"server: '{host}' cannot be resolved ({error.Message}); check the name, and this machine's DNS"
            );
        }
    }
}

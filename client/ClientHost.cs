using System.Net;
using System.Net.Sockets;
using System.Text;
using Lightway.Client.Network;
using Lightway.Hosting;
using Lightway.Hosting.Service;
using Lightway.Hosting.Start;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>Puts a client together from its options, and runs it until a signal or the end of its connection.</summary>
internal static class ClientHost
{
    /// <returns>Exit code.</returns>
    public static int Run(ClientOptions options, ILogger log)
    {
        if (!options.CoreDumps)
        {
            Platform.ForbidCoreDumps(log);
        }
        using var stopping = new CancellationTokenSource();
        using var service = ServiceNotifier.Create(log);
        var hangUp = HangUp(stopping, log);
        using var signals = new StopSignals(
            () =>
            {
                service.Stopping();
                stopping.Cancel();
            },
            () => service.Reload(hangUp)
        );
        try
        {
            return Run(options, log, service, stopping.Token);
        }
        catch (OperationCanceledException)
        {
            return 0; // stopped before there was anything to undo
        }
    }

    /// <summary>What <c>--check-config</c> does besides reading the options: opens every file, as a start does.</summary>
    /// <exception cref="ConfigurationException">A start would fail.</exception>
    /// <exception cref="TlsException">No TLS library can be used.</exception>
    public static void Check(ClientOptions options, ILogger log)
    {
        TlsLook.Check(options.Keylog);
        Load(options, insight: null, log).Dispose();
    }

    /// <summary>Checks what the options name, and reads it; makes no device and no socket.</summary>
    private static TlsContext Load(ClientOptions options, TlsInsight? insight, ILogger log)
    {
        FileChecks.Require("config_file", options.ConfigFile, FileRule.OwnerOnly); // it holds a password
        ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
        RequireRoom(options.OutsideMtu);
        return TlsOf(options, insight, log);
    }

    private static int Run(ClientOptions options, ILogger log, ServiceNotifier service, CancellationToken stopping)
    {
        using var insight = TlsLook.Open(options.Keylog, options.TlsDebug, log);
        using var tls = Load(options, insight, log);
        var offload = OffloadChoice.Of(options.Offload);
        OffloadChoice.WarnOfKernel(offload, log);
        if (options.EnableTunIouring)
        {
            ProgramLog.Note(log, IoUringAnswer.text(offload.TunTso));
        }
        using var network = new HostNetwork(options, log);
        var (servers, unreachable) = Reachable(options, network, stopping);
        network.Close(servers.Select(address => HostNetwork.ServerAt(options, address)));
        // A socket of IPv6 serves both families; hosts without IPv6 can't open one, and have no route to such an address.
        var isDual = servers.Any(address => address.AddressFamily == AddressFamily.InterNetworkV6);
        var isStream = options.Mode == TransportMode.Tcp;
        var longest = isStream
            ? Sizes.MaxPacket
            : Sizes.insideMtu(options.OutsideMtu, isDual, options.EnableExpresslane);
        var tun = TunQueue.Open(options.TunName, offload);
        network.SetUp(Sizes.deviceMtu(granted: 0, longest));
        var socket = isStream
            ? null
            : UdpSocket.Bind(
                new IPEndPoint(isDual ? IPAddress.IPv6Any : IPAddress.Any, 0),
                options.SendBuffer,
                options.ReceiveBuffer,
                options.Fwmark,
                offload.UdpGro
            );
        if (options.EnablePmtud)
        {
            socket?.ForbidFragments();
        }
        ClientSession? session = null;
        using var worker = new Worker(
            tun,
            socket,
            listener: null,
            offload,
            ids: null,
            log,
            context =>
                session = new ClientSession(
                    SettingsOf(options),
                    context,
                    tls,
                    options.Fwmark,
                    new InsideAddresses(Ipv4Address.Of(options.TunLocalIp), Ipv4Address.Of(options.TunDnsIp)),
                    [.. servers.Select(address => PeerOf(address, options.ServerPort, isDual))],
                    log
                )
                {
                    Online = server =>
                    {
                        network.Install(server);
                        service.Status("online");
                    },
                    MtuGranted = mtu => SetMtu(network.Device, tun.Name, mtu, context, log),
                }
        );
        using var ending = session!;
        using var made = network; // given up before the worker, which it calls, and the device
        network.Moved = _ => ending.NetworkChanged();
        using var metrics = new MetricsFile(options.MetricsFile, [worker.Context.Counters], log);
        using var stop = stopping.Register(worker.Stop); // at once, if it is asked for already
        ending.Start();
        service.Ready($"connecting to {options.ServerHost}", () => [worker.Context.Now]);
        worker.Run();
        service.Stopping();
        metrics.Write();
        network.Undo(isOrderly: !ending.HasFailed);
        if (!ending.HasFailed)
        {
            return 0;
        }
        ProgramLog.Fatal(log, EndingText.Of(options, ending.Endings, unreachable));
        return Entry.Failed;
    }

    /// <summary>The addresses of the server that this machine has a route to, and the others.</summary>
    /// <exception cref="IOException">The name can't be resolved, or there is a route to none of its addresses.</exception>
    private static (IReadOnlyList<IPAddress> Servers, IReadOnlyList<string> Unreachable) Reachable(
        ClientOptions options,
        HostNetwork network,
        CancellationToken stopping
    )
    {
        var all = network.Resolve(options, stopping);
        // About marked datagrams, rules of the operator decide, which the look-up does not follow.
        var groups = all.ToLookup(address =>
            options.Fwmark == 0
                ? network.Reaches(address)
                : address.AddressFamily == AddressFamily.InterNetwork || Socket.OSSupportsIPv6
        );
        var servers = groups[true].ToArray();
        var others = groups[false].Select(address => address.ToString()).ToArray();
        return servers.Length > 0
            ? (servers, others)
            : throw new IOException(
                $"server: no route to {string.Join(", ", others)}: check this machine's network, see ip route get {others[0]}"
            );
    }

    private static PeerAddress PeerOf(IPAddress address, int port, bool isDual) =>
        new(new IPEndPoint(isDual ? address.MapToIPv6() : address, port));

    /// <summary>A closed terminal ends the client; a service has no terminal, and goes on.</summary>
    private static Action HangUp(CancellationTokenSource stopping, ILogger log) =>
        StopSignals.HasTerminal
            ? stopping.Cancel
            : () =>
                ProgramLog.Warning(
                    log,
                    "SIGHUP has no effect on a client without a terminal: restart it to have its files read again"
                );

    private static TlsContext TlsOf(ClientOptions options, TlsInsight? insight, ILogger log)
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
            return TlsContext.ForClient(
                authority,
                options.ServerDn,
                options.Cipher == TlsCipher.ChaCha20,
                options.KeyShare == Options.KeyShare.X25519MlKem768
                    ? Tunnel.Tls.KeyShare.X25519MlKem768
                    : Tunnel.Tls.KeyShare.P521MlKem1024,
                options.OutsideMtu,
                options.Mode == TransportMode.Tcp ? Transport.Stream : Transport.Datagram,
                insight
            );
        }
        catch (TlsException error)
        {
            throw new ConfigurationException(
                $"ca_cert: {Certificates.Refusal(name, authority) ?? $"\"{name}\": {EndingText.OfAuthority(error.Message)}"}"
            );
        }
    }

    private static void RequireRoom(int outsideMtu)
    {
        if (outsideMtu < Sizes.minOutsideMtu)
        {
            throw new ConfigurationException(
                $"outside_mtu: {outsideMtu} leaves no room for a packet and what the tunnel puts around it; allowed: {Sizes.minOutsideMtu} to 1500"
            );
        }
    }

    /// <summary>Gives the device the MTU that the server's answer leads to.</summary>
    private static void SetMtu(TunDevice device, string name, int mtu, WorkerContext context, ILogger log)
    {
        if (mtu == context.InsideMtu)
        {
            return;
        }
        try
        {
            device.SetMtu(mtu);
            context.InsideMtu = mtu;
            ProgramLog.MtuChanged(log, name, mtu);
        }
        catch (IOException error)
        {
            ProgramLog.Warning(log, $"the MTU of device {name} stays {context.InsideMtu}, not {mtu}: {error.Message}");
        }
    }

    private static ConnectionSettings SettingsOf(ClientOptions options) =>
        new()
        {
            Role = Role.Client,
            OutsideMtu = options.OutsideMtu,
            EnablePathMtu = options.EnablePmtud,
            PathMtuBase = options.PmtudBaseMtu,
            CopiedTos = options.Tos.Bits,
            EnableExpresslane = options.EnableExpresslane,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeepaliveIntervalMs = (long)options.KeepaliveInterval.TotalMilliseconds,
            KeepaliveTimeoutMs = (long)options.KeepaliveTimeout.TotalMilliseconds,
            KeepaliveContinuous = options.KeepaliveContinuous,
            Credentials = options.Token is { } token
                ? AuthRequestModule.token(token)
                : AuthRequestModule.userPassword(options.User, Encoding.UTF8.GetBytes(options.Password)),
        };
}

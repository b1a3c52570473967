using System.Net;
using System.Net.Sockets;
using System.Text;
using Lightway.Client.Control;
using Lightway.Client.Network;
using Lightway.Client.Sessions;
using Lightway.Hosting;
using Lightway.Hosting.Service;
using Lightway.Hosting.Start;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>
/// Puts a client together from its options, and runs it until a signal or the end of its last connection. Device, UDP socket
/// and worker are made once; connections come and go.
/// </summary>
internal static class ClientHost
{
    /// <returns>Exit code.</returns>
    /// <param name="live">Shows the state; null: nobody looks.</param>
    /// <param name="reread">Reads flags, environment and file again, for SIGHUP.</param>
    public static int Run(ClientOptions options, ILogger log, LiveLine? live, Func<ParseOutcome<ClientOptions>> reread)
    {
        if (!options.CoreDumps)
        {
            Platform.ForbidCoreDumps(log);
        }
        using var stopping = new CancellationTokenSource();
        using var service = ServiceNotifier.Create(log);
        using var insight = TlsLook.Open(options.Keylog, options.TlsDebug, log);
        var reload = new Reload(options, reread, insight, log);
        // A closed terminal ends the client; a service has no terminal, and reads its files again.
        using var signals = new StopSignals(Stop, StopSignals.HasTerminal ? Stop : () => service.Reload(reload.Run));
        try
        {
            return Run(options, log, live, insight, service, reload, stopping.Token);
        }
        catch (OperationCanceledException)
        {
            return 0; // stopped before there was anything to undo
        }

        void Stop()
        {
            service.Stopping();
            stopping.Cancel();
        }
    }

    /// <summary>What <c>--check-config</c> does besides reading the options: opens every file, as a start does. Nobody is asked.</summary>
    /// <exception cref="ConfigurationException">A start would fail.</exception>
    /// <exception cref="TlsException">No TLS library can be used.</exception>
    public static void Check(ClientOptions options, ILogger log)
    {
        TlsLook.Check(options.Keylog);
        CheckFile(options, log);
        var aeads = OffloadChoice.AeadsOf(options.Offload, log);
        foreach (var server in options.Servers)
        {
            RequireRoom(server.OutsideMtu);
            Passwords.Check(server, log);
            TlsOf(server, insight: null, aeads.Device, log).Dispose();
        }
        _ = DeviceMtu(options, options.Servers.Any(IsOverIPv6));

        static bool IsOverIPv6(ClientOptions server) =>
            server.Mode == TransportMode.Udp
            && IPAddress.TryParse(server.ServerHost, out var address)
            && IsIPv6(address);
    }

    private static void CheckFile(ClientOptions options, ILogger log)
    {
        FileChecks.Require("config_file", options.ConfigFile, FileRule.OwnerOnly); // it holds a password
        ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
    }

    private static int Run(
        ClientOptions options,
        ILogger log,
        LiveLine? live,
        TlsInsight? insight,
        ServiceNotifier service,
        Reload reload,
        CancellationToken stopping
    )
    {
        CheckFile(options, log);
        var aeads = OffloadChoice.AeadsOf(options.Offload, log);
        reload.Aeads = aeads;
        var servers = options
            .Servers.Select(server => new ClientServer(LoginOf(server, insight, aeads, log)))
            .ToArray();
        var offload = OffloadChoice.Of(options.Offload);
        OffloadChoice.WarnOfKernel(offload, log);
        if (options.EnableTunIouring)
        {
            ProgramLog.Note(log, IoUringAnswer.text(offload.TunTso));
        }
        using var network = new HostNetwork(options, log);
        var addresses = new ServerAddresses(servers, network, usesMark: options.Fwmark != 0, stopping);
        network.Close(addresses.Allowed);
        var socket = Bind(options, servers, addresses, offload);
        var isDual = socket?.LocalEndPoint.AddressFamily == AddressFamily.InterNetworkV6;
        addresses.Offer(isDual);
        var tun = TunQueue.Open(options.TunName, offload);
        network.SetUp(DeviceMtu(options, addresses.Of(TransportMode.Udp).Any(IsIPv6)));
        Reconnector? created = null;
        using var worker = new Worker(
            tun,
            socket,
            listener: null,
            offload,
            ids: null,
            log,
            context =>
                created = new Reconnector(servers, SettingsOf(options), context, log)
                {
                    Online = session =>
                    {
                        network.Install(session.EndPoint.Address);
                        service.Status("online");
                    },
                    Waiting = () =>
                    {
                        service.Status("waiting for the next try to connect");
                        addresses.Refresh(context, isDual, stopping);
                    },
                    RoundStarts = () =>
                        network.Allow([.. servers.SelectMany(server => server.Addresses).Select(Address).Distinct()]),
                    MtuGranted = mtu =>
                    {
                        if (options.InsideMtu == 0)
                        {
                            SetMtu(network.Device, tun.Name, mtu, context, log);
                        }
                    },
                }
        );
        using var reconnector = created!;
        using var made = network; // given up before the worker, which it calls, and the device
        network.Moved = reconnector.NetworkChanged;
        reload.Ready = logins => worker.Post(() => Use(servers, logins));
        var board = new StatusBoard(reconnector, worker, tun.Name);
        reconnector.Ticked = () => Show(board, live);
        using var status = options.ControlSocket is { } path ? new StatusServer(path, () => board.Latest, log) : null;
        using var metrics = new MetricsFile(options.MetricsFile, [worker.Context.Counters], log);
        using var stop = stopping.Register(worker.Stop); // at once, if it is asked for already
        Footprint.Settle();
        reconnector.Start();
        service.Ready($"connecting to {options.ServerHost}", () => [worker.Context.Now]);
        worker.Run();
        service.Stopping();
        metrics.Write();
        network.Undo(isOrderly: !reconnector.HasFailed);
        if (!reconnector.HasFailed)
        {
            return 0;
        }
        ProgramLog.Fatal(log, EndingText.Of(servers));
        return reconnector.IsLoginRefused ? Entry.LoginRefused : Entry.Failed;
    }

    private static void Use(ClientServer[] servers, IReadOnlyList<ServerLogin> logins)
    {
        for (var i = 0; i < servers.Length; i++)
        {
            servers[i].Use(logins[i]);
        }
    }

    private static void Show(StatusBoard board, LiveLine? live)
    {
        board.Update();
        live?.Show(board.Latest!);
    }

    private static IPAddress Address(PeerAddress peer) => ClientServer.Shown(peer).Address;

    /// <exception cref="ConfigurationException">A file or a value can't be used.</exception>
    internal static ServerLogin LoginOf(ClientOptions options, TlsInsight? insight, PacketAeads aeads, ILogger log)
    {
        RequireRoom(options.OutsideMtu);
        var password = Passwords.Of(options);
        return new ServerLogin(
            options,
            TlsOf(options, insight, aeads.Device, log),
            () => ConnectionOf(options, password, aeads)
        );
    }

    private static TlsContext TlsOf(ClientOptions options, TlsInsight? insight, int device, ILogger log)
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
                insight,
                device
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

    /// <summary>
    /// The socket of all servers over UDP; null if there are none. One of IPv6 serves both families: a name may have addresses
    /// of both, now or later. Hosts without IPv6 can't open one, and have no route to such an address.
    /// </summary>
    private static UdpSocket? Bind(
        ClientOptions options,
        ClientServer[] servers,
        ServerAddresses addresses,
        Offload offload
    )
    {
        var overUdp = Array.FindAll(servers, server => server.Transport == Transport.Datagram);
        if (overUdp.Length == 0)
        {
            return null;
        }
        var needsIPv6 = addresses.Of(TransportMode.Udp).Any(IsIPv6);
        var mayNeedIPv6 = Socket.OSSupportsIPv6 && Array.Exists(overUdp, server => server.IsName);
        UdpSocket socket;
        try
        {
            socket = Bind(options, needsIPv6 || mayNeedIPv6 ? IPAddress.IPv6Any : IPAddress.Any, offload);
        }
        catch (IOException) when (!needsIPv6 && mayNeedIPv6)
        {
            socket = Bind(options, IPAddress.Any, offload);
        }
        if (options.EnablePmtud)
        {
            socket.ForbidFragments();
        }
        return socket;
    }

    private static UdpSocket Bind(ClientOptions options, IPAddress any, Offload offload) =>
        UdpSocket.Bind(
            new IPEndPoint(any, 0),
            options.SendBuffer,
            options.ReceiveBuffer,
            options.Fwmark,
            offload.UdpGro
        );

    /// <summary>The MTU that the device starts with: what the operator wants, or what every server's path has room for.</summary>
    /// <param name="isIPv6">A server over UDP has an IPv6 address.</param>
    /// <exception cref="ConfigurationException">The operator wants more than that.</exception>
    private static int DeviceMtu(ClientOptions options, bool isIPv6)
    {
        var longest = options.Servers.Min(server =>
            server.Mode == TransportMode.Tcp
                ? Sizes.MaxPacket
                : Sizes.insideMtu(server.OutsideMtu, isIPv6, server.EnableExpresslane)
        );
        if (options.InsideMtu > longest)
        {
            throw new ConfigurationException(
                $"inside_mtu: {options.InsideMtu} is too large: with what the tunnel puts around packets, outside_mtu has room for {longest}"
            );
        }
        return options.InsideMtu > 0 ? options.InsideMtu : Sizes.deviceMtu(granted: 0, longest);
    }

    private static bool IsIPv6(IPAddress address) => address.AddressFamily == AddressFamily.InterNetworkV6;

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

    private static ReconnectorSettings SettingsOf(ClientOptions options) =>
        new()
        {
            Policy = new ReconnectPolicy(options.Reconnect, options.ReconnectAttempts),
            Inside = new InsideAddresses(Ipv4Address.Of(options.TunLocalIp), Ipv4Address.Of(options.TunDnsIp)),
            PreferMs = (long)options.PreferredConnectionWaitInterval.TotalMilliseconds,
            DoubtMs = options.KeepaliveContinuous ? 0 : (long)options.TracerPacketTimeout.TotalMilliseconds,
            Mark = options.Fwmark,
        };

    private static ConnectionSettings ConnectionOf(ClientOptions options, string password, PacketAeads aeads) =>
        new()
        {
            Role = Role.Client,
            OutsideMtu = options.OutsideMtu,
            EnablePathMtu = options.EnablePmtud,
            PathMtuBase = options.PmtudBaseMtu,
            CopiedTos = options.Tos.Bits,
            EnableExpresslane = options.EnableExpresslane,
            Aeads = aeads,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeepaliveIntervalMs = (long)options.KeepaliveInterval.TotalMilliseconds,
            KeepaliveTimeoutMs = (long)options.KeepaliveTimeout.TotalMilliseconds,
            KeepaliveContinuous = options.KeepaliveContinuous,
            Credentials = options.Token is { } token
                ? AuthRequestModule.token(token)
                : AuthRequestModule.userPassword(options.User, Encoding.UTF8.GetBytes(password)),
        };
}

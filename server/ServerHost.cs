using System.Net;
using System.Net.Sockets;
using Lightway.Hosting;
using Lightway.Hosting.Service;
using Lightway.Hosting.Start;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Server.Accounting;
using Lightway.Server.Addresses;
using Lightway.Server.Auth;
using Lightway.Server.Control;
using Lightway.Server.Observe;
using Lightway.Server.Reload;
using Lightway.Server.Sessions;
using Lightway.Server.Setup;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Server;

/// <summary>Puts a server together from its options, and runs it until a signal or a failure ends it.</summary>
internal static class ServerHost
{
    /// <param name="parse">Reads the options again, for a reload.</param>
    /// <returns>Exit code.</returns>
    public static int Run(ServerOptions options, Func<ParseOutcome<ServerOptions>> parse, ILogger log)
    {
        if (!options.CoreDumps)
        {
            Platform.ForbidCoreDumps(log);
        }
        using var insight = TlsLook.Open(options.Keylog, options.TlsDebug, log);
        var aeads = OffloadChoice.AeadsOf(options.Offload, log);
        var files = StartFiles.Load(options, insight, aeads, log);
        using var identity = files.Identity;
        using var accounting = AccountingLog.Open(options.Accounting, options.AccountingInterval, log);
        var pool = files.Pool;
        var offload = OffloadChoice.Of(options.Offload);
        OffloadChoice.WarnOfKernel(offload, log);
        if (options.EnableTunIouring)
        {
            ProgramLog.Note(log, IoUringAnswer.text(offload.TunTso));
        }
        var queues = OpenQueues(options, offload, log);
        var count = queues.Length;
        TunInterface.BringUp(queues[0].Name);
        var sockets = options.Mode == TransportMode.Tcp ? [] : BindSockets(options, count, offload, log);
        var address = sockets.Length > 0 ? sockets[0].LocalEndPoint : options.BindAddress;
        var listeners =
            options.Mode == TransportMode.Udp
                ? []
                : Retry.Bind(options.BindAttempts, () => StreamListener.BindGroup(address, count), Thread.Sleep, log);
        if (options.EnablePmtud)
        {
            Array.ForEach(sockets, socket => socket.ForbidFragments());
        }
        var steering = count > 1 ? Steer(queues[0], options.IpPool, pool.Size, log) : null;
        using var gate = Guard(sockets, identity.GateBudget, log);
        var inside = new InsideDirectory(pool.Size, steering);
        var seed = Seeds.Draw();
        var shared = new SharedState
        {
            Settings = SettingsOf(options),
            ConnectionSettings = ConnectionSettingsOf(options, aeads),
            Identity = identity,
            Workers = count,
            Proxies = options.ProxyProtocol
                ? new ProxySources([.. options.ProxyProtocolFrom.Select(NetworkModule.ofIPNetwork)])
                : null,
            Pool = pool,
            Parts = LocalParts.Of(files.Map, pool.Rest, Bound(options.BindAddress.Address)),
            Inside = inside,
            Desk = new LoginDesk(
                identity.Authenticator,
                new LoginGate(LoginLimits.Standard(identity.LoginChecks), seed)
            ),
            Users = new UserSessions(),
            Seed = seed,
            Gate = gate,
            Accounting = accounting,
            Log = log,
        };
        var managers = new List<ConnectionManager>();
        using var workers = new WorkerGroup(
            [
                .. queues.Select(
                    (queue, i) =>
                        new Worker(
                            queue,
                            sockets.ElementAtOrDefault(i),
                            listeners.ElementAtOrDefault(i),
                            offload,
                            new(i, count),
                            log,
                            context =>
                            {
                                var manager = new ConnectionManager(shared, context) { Siblings = managers };
                                managers.Add(manager);
                                return manager;
                            }
                        )
                ),
            ],
            log
        );
        using var steered = steering; // given up before the workers close the device
        using var metrics = new MetricsFile(
            options.MetricsFile,
            [.. workers.All.Select(worker => worker.Context.Counters), .. CountersOf(accounting)],
            log
        );
        var state = new ServingState(shared.Draining);
        var view = new ServerView(workers.All, managers, CountersOf(accounting), pool, state);
        using var endpoint = ServeMetrics(options.MetricsAddress, view, log);
        using var reloader = new Reloader(parse, options, files.Map, identity, insight, aeads, shared, managers, log);
        using var service = ServiceNotifier.Create(log);
        using var signals = new StopSignals(
            () =>
            {
                service.Stopping();
                workers.Stop();
            },
            () =>
            {
                accounting?.Reopen();
                service.Reload(() => _ = reloader.Reload());
            }
        );
        var first = workers.All[0];
        using var commands = new ControlCommands(
            shared,
            workers.All,
            managers,
            new Status(
                shared,
                workers.All,
                managers,
                options.Mode,
                address.ToString(),
                queues[0].Name,
                new OffloadStatus(
                    queues[0].Tso,
                    queues[0].Uso,
                    first.Offload.TunGroTcp,
                    first.Offload.TunGroUdp,
                    first.Offload.MaxSegments,
                    sockets.Length > 0 && sockets[0].IsCoalescing
                )
            ).Answer,
            () =>
            {
                string? refusal = null;
                service.Reload(() => refusal = reloader.Reload());
                return refusal;
            },
            log
        );
        using var control = ControlServer.Start(options.ControlSocket, commands, log);
        ProgramLog.Serving(
            log,
            options.Mode == TransportMode.Both ? "udp and tcp"
                : sockets.Length > 0 ? "udp"
                : "tcp",
            sockets.Length > 0 ? address : listeners[0].LocalEndPoint,
            queues[0].Name,
            first.Context.InsideMtu,
            count,
            queues[0].Tso,
            queues[0].Uso,
            first.Offload.TunGroTcp,
            first.Offload.TunGroUdp,
            first.Offload.MaxSegments,
            sockets.Length > 0 && sockets[0].IsCoalescing
        );
        CheckMtu(queues[0].Name, first.Context.InsideMtu, shared.ConnectionSettings, options, log);
        first.Context.InsideMtuChanged = mtu =>
        {
            ProgramLog.MtuChanged(log, queues[0].Name, mtu);
            CheckMtu(queues[0].Name, mtu, shared.ConnectionSettings, options, log);
        };
        Footprint.Settle();
        service.Ready(
            $"serving {(sockets.Length > 0 ? address : listeners[0].LocalEndPoint)} on device {queues[0].Name}, workers: {count}",
            () => [.. workers.All.Select(worker => worker.Context.Now)]
        );
        state.IsServing = true;
        workers.Run(options.PinWorkers);
        state.IsServing = false;
        service.Stopping(); // a worker may have ended by itself
        metrics.Write();
        managers.ForEach(manager => manager.Dispose());
        ProgramLog.Stopped(log);
        return 0;
    }

    private static Counters[] CountersOf(AccountingLog? accounting) => accounting is null ? [] : [accounting.Counters];

    /// <summary>Serves metrics by HTTP, if that is wanted; else nothing of ASP.NET is loaded.</summary>
    private static IDisposable? ServeMetrics(IPEndPoint? address, ServerView view, ILogger log)
    {
        if (address is null)
        {
            return null;
        }
        if (!IPAddress.IsLoopback(address.Address))
        {
            ProgramLog.Warning(
                log,
                $"metrics_address: whoever reaches {address} can read metrics and status, there is no password: a firewall must keep clients and the Internet out"
            );
        }
        return MetricsEndpoint.Start(address, view);
    }

    /// <summary>None for the wildcard, whose datagrams and connections tell their local addresses, and for IPv6.</summary>
    private static Ipv4Address Bound(IPAddress address) =>
        address.AddressFamily == AddressFamily.InterNetwork && !address.Equals(IPAddress.Any)
            ? Ipv4Address.Of(address)
            : Ipv4Address.None;

    private static UdpSocket[] BindSockets(ServerOptions options, int count, Offload offload, ILogger log) =>
        Retry.Bind(
            options.BindAttempts,
            () =>
                UdpSocket.BindGroup(
                    options.BindAddress,
                    count,
                    options.UdpBufferSize,
                    offload.UdpGro,
                    error => ProgramLog.Warning(log, $"clients that move may have to connect again: {error.Message}")
                ),
            Thread.Sleep,
            log
        );

    /// <summary>Has the kernel drop floods of strangers, if it lets us.</summary>
    private static StrangerGate? Guard(UdpSocket[] sockets, GateBudget budget, ILogger log)
    {
        if (sockets.Length == 0)
        {
            return null;
        }
        var gate = StrangerGate.TryCreate(sockets.Length, budget, out var reason);
        if (gate is not null && sockets.Index().All(socket => socket.Item.TryGuard(gate, socket.Index, out reason)))
        {
            return gate;
        }
        gate?.Dispose();
        ProgramLog.Note(log, $"floods of strangers are dropped here, not by the kernel: {reason}");
        return null;
    }

    /// <summary>Warns if the device takes packets that do not fit into a datagram; they are refused one by one.</summary>
    private static void CheckMtu(
        string device,
        int mtu,
        ConnectionSettings settings,
        ServerOptions options,
        ILogger log
    )
    {
        if (options.Mode == TransportMode.Tcp)
        {
            return;
        }
        var isIPv6 = options.BindAddress.AddressFamily == AddressFamily.InterNetworkV6;
        var longest = Sizes.insideMtu(settings.OutsideMtu, isIPv6, settings.EnableExpresslane);
        if (mtu > longest)
        {
            ProgramLog.Warning(
                log,
                $"device {device} has an MTU of {mtu}, but packets of more than {longest} bytes don't fit into a datagram and are refused: ip link set {device} mtu {longest}"
            );
        }
    }

    private static ServerSettings SettingsOf(ServerOptions options) =>
        new()
        {
            ClientIp = Ipv4Address.Of(options.LightwayClientIp),
            ServerIp = Ipv4Address.Of(options.LightwayServerIp),
            DnsIp = Ipv4Address.Of(options.LightwayDnsIp),
            IcmpUnreachable = options.IcmpUnreachable,
            SweepMs = (long)options.ConnectionAgeExpirationInterval.TotalMilliseconds,
            ReportMs = (long)options.StatisticsReportingInterval.TotalMilliseconds,
        };

    private static ConnectionSettings ConnectionSettingsOf(ServerOptions options, PacketAeads aeads) =>
        new()
        {
            Role = Role.Server,
            EnablePathMtu = options.EnablePmtud,
            CopiedTos = options.Tos.Bits,
            EnableExpresslane = options.EnableExpresslane,
            Aeads = aeads,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeyUpdateMs = (long)options.KeyUpdateInterval.TotalMilliseconds,
        };

    /// <summary>
    /// Opens one queue for each worker. A device that the operator made with a single queue can't have more: then, unless a
    /// number was asked for, there is one worker.
    /// </summary>
    private static TunQueue[] OpenQueues(ServerOptions options, Offload offload, ILogger log)
    {
        var count = options.Workers > 0 ? options.Workers : Environment.ProcessorCount;
        try
        {
            return TunQueue.OpenAll(options.TunName, offload, count);
        }
        catch (IOException error) when (options.Workers == 0 && count > 1)
        {
            var single = TunQueue.OpenAll(options.TunName, offload, 1); // any other cause fails again
            ProgramLog.Warning(log, $"one worker only: {error.Message}");
            return single;
        }
    }

    private static QueueSteering? Steer(TunQueue queue, IPNetwork pool, int addresses, ILogger log)
    {
        var steering = QueueSteering.TryAttach(queue.Fd, Ipv4Address.Of(pool.BaseAddress), addresses, out var reason);
        if (steering is null)
        {
            ProgramLog.Warning(
                log,
                $"the kernel chooses the queue of a flow from inside, some are handed over: {reason}"
            );
        }
        return steering;
    }
}

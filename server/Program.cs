using System.Buffers.Binary;
using System.Net;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Server;
using Lightway.Server.Auth;
using Lightway.Server.Config;
using Lightway.Tunnel;
using Lightway.Tunnel.Loop;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

var outcome = ServerOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
return outcome.Kind == OutcomeKind.Init
    ? Init.Run(outcome.Init, Console.Out, Console.Error)
    : Entry.Run(outcome, "lightway-server", options => Logging.Create(options.LogFormat, options.LogLevel), Serve);

static int Serve(ServerOptions options, ILogger log)
{
    ServerFiles.Require(options);
    var authenticator = Authenticator.Load(options.UserDb);
    ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
    using var tls = DtlsContext.ForServer(
        File.ReadAllBytes(options.ServerCert),
        File.ReadAllBytes(options.ServerKey),
        options.EnablePqc
    );
    var pool = new AddressPool(options.IpPool, options.ReservedAddresses, options.RandomizeIpPool);
    var offload = options.EnableTunOffload
        ? new Offload
        {
            TunTso = !options.DisableTunTso,
            TunGroTcp = !options.DisableTunGroTcp,
            TunGroUdp = !options.DisableTunGroUdp,
            UdpGro = !options.DisableUdpGro,
            MaxSegments = options.DisableUdpGso ? 1 : options.GsoMaxSegments,
        }
        : Offload.None;
    var tun = TunQueue.Open(options.TunName, offload);
    Interface.SetUp(tun.Name);
    var socket = UdpSocket.Bind(
        options.BindAddress,
        options.UdpBufferSize,
        options.UdpBufferSize,
        mark: 0,
        offload.UdpGro
    );
    using var worker = new Worker(tun, socket, offload, log);
    using var manager = new ConnectionManager(
        new ServerSettings
        {
            ClientIp = Number(options.LightwayClientIp),
            ServerIp = Number(options.LightwayServerIp),
            DnsIp = Number(options.LightwayDnsIp),
            SweepMs = (long)options.ConnectionAgeExpirationInterval.TotalMilliseconds,
            ReportMs = (long)options.StatisticsReportingInterval.TotalMilliseconds,
        },
        new ConnectionSettings
        {
            Role = Role.Server,
            EnableExpresslane = options.EnableExpresslane,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeyUpdateMs = (long)options.KeyUpdateInterval.TotalMilliseconds,
        },
        worker,
        tls,
        pool,
        authenticator,
        log
    );
    worker.Attach(manager);
    using var metrics = new MetricsFile(options.MetricsFile, [worker.Context.Counters], log);
    using var signals = new StopSignals(worker.Stop);
    ProgramLog.Serving(
        log,
        socket.LocalEndPoint,
        tun.Name,
        worker.Inside.Mtu,
        tun.Tso,
        tun.Uso,
        worker.Offload.TunGroTcp,
        worker.Offload.TunGroUdp,
        worker.Offload.MaxSegments,
        socket.IsCoalescing
    );
    worker.Run();
    metrics.Write();
    ProgramLog.Stopped(log);
    return 0;
}

static uint Number(IPAddress address) => BinaryPrimitives.ReadUInt32BigEndian(address.GetAddressBytes());

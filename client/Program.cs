using System.Buffers.Binary;
using System.Net;
using System.Net.Sockets;
using System.Text;
using Lightway.Client;
using Lightway.Client.Network;
using Lightway.Hosting;
using Lightway.Options;
using Lightway.Protocol;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;
using KeyShare = Lightway.Tunnel.Tls.KeyShare;

var outcome = ClientOptions.Parse(args, Environment.GetEnvironmentVariable, File.ReadAllText);
return Entry.Run(outcome, "lightway-client", options => Logging.Create(LogFormat.Full, options.LogLevel), Connect);

static int Connect(ClientOptions options, ILogger log)
{
    const int tunMtu = 1350; // the reference client's
    FileChecks.Require("config_file", options.ConfigFile, FileRule.OwnerOnly); // it holds a password
    ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
    var server = new IPEndPoint(Resolve(options.ServerHost), options.ServerPort);
    var ca = options.CaCertIsInline ? Encoding.UTF8.GetBytes(options.CaCert) : File.ReadAllBytes(options.CaCert);
    using var tls = DtlsContext.ForClient(
        ca,
        options.ServerDn,
        options.Cipher == TlsCipher.ChaCha20,
        options.KeyShare == Lightway.Options.KeyShare.X25519MlKem768 ? KeyShare.X25519MlKem768 : KeyShare.P521MlKem1024,
        options.OutsideMtu
    );
    var offload = options.Offload.EnableTunOffload
        ? new Offload
        {
            TunTso = !options.Offload.DisableTunTso,
            TunGroTcp = !options.Offload.DisableTunGroTcp,
            TunGroUdp = !options.Offload.DisableTunGroUdp,
            UdpGro = !options.Offload.DisableUdpGro,
            MaxSegments = options.Offload.DisableUdpGso ? 1 : options.Offload.GsoMaxSegments,
            MaxBurstMicroseconds = (int)options.Offload.GsoMaxBurst.TotalMicroseconds,
        }
        : Offload.None;
    var tun = TunQueue.Open(options.TunName, offload);
    TunInterface.SetMtu(tun.Name, tunMtu);
    TunInterface.SetAddresses(tun.Name, Number(options.TunLocalIp), Number(options.TunPeerIp));
    TunInterface.BringUp(tun.Name);
    var any = server.AddressFamily == AddressFamily.InterNetworkV6 ? IPAddress.IPv6Any : IPAddress.Any;
    var socket = UdpSocket.Bind(
        new IPEndPoint(any, 0),
        options.SendBuffer,
        options.ReceiveBuffer,
        options.Fwmark,
        offload.UdpGro
    );
    using var worker = new Worker(tun, socket, offload, ids: null, log);
    using var session = new ClientSession(
        new ConnectionSettings
        {
            Role = Role.Client,
            OutsideMtu = options.OutsideMtu,
            EnableExpresslane = options.EnableExpresslane,
            ExpresslaneRotationMs = (long)options.ExpresslaneKeysRotationInterval.TotalMilliseconds,
            KeepaliveIntervalMs = (long)options.KeepaliveInterval.TotalMilliseconds,
            KeepaliveTimeoutMs = (long)options.KeepaliveTimeout.TotalMilliseconds,
            KeepaliveContinuous = options.KeepaliveContinuous,
            Credentials = AuthRequestModule.userPassword(options.User, options.Password),
        },
        worker,
        tls,
        new InsideAddresses(Number(options.TunLocalIp), Number(options.TunDnsIp)),
        new PeerAddress(server),
        log
    );
    worker.Attach(session);
    using var routes = Routes.Install(options.RouteMode, server.Address, tun.Name, options.TunPeerIp, options.TunDnsIp);
    using var metrics = new MetricsFile(options.MetricsFile, [worker.Context.Counters], log);
    using var signals = new StopSignals(worker.Stop);
    session.Start();
    worker.Run();
    metrics.Write();
    return session.Ended is null ? 0 : Entry.Failed;
}

static IPAddress Resolve(string host) =>
    IPAddress.TryParse(host, out var address) ? address
    : Dns.GetHostAddresses(host) is [var first, ..] ? first
    : throw new IOException($"server '{host}' has no address");

static uint Number(IPAddress address) => BinaryPrimitives.ReadUInt32BigEndian(address.GetAddressBytes());

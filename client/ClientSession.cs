using System.Net;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>Addresses of the client's own device.</summary>
/// <param name="Local">The device's address.</param>
/// <param name="Dns">Programs on this machine ask this address for names; it stands for the server's DNS address.</param>
public readonly record struct InsideAddresses(Ipv4Address Local, Ipv4Address Dns);

/// <summary>
/// The one connection of a client; it ends the worker when the connection ends. An address of the server that does not
/// answer gives way to the next one. All members run on the worker's thread, unless they say otherwise.
/// </summary>
public sealed partial class ClientSession : IWorkerProgram, IClientEvents, IDisposable
{
    private const long AnswerMs = 3000; // the handshake's first datagram is repeated several times within it
    private const long StreamMs = 15_000; // from connecting to the end of the handshake; DTLS gives up by itself
    private readonly ConnectionSettings _settings;
    private readonly WorkerContext _worker;
    private readonly TlsContext _tls;
    private readonly bool _isStream;
    private readonly uint _mark;
    private readonly InsideAddresses _inside;
    private readonly IReadOnlyList<PeerAddress> _servers;
    private readonly ILogger _log;
    private readonly List<Ending> _endings = [];
    private PeerAddress _server; // the one that is tried, or serves
    private ushort _serverPort;
    private Connection _connection;
    private Stage _stage;
    private long _startedAt;
    private RejectState _rejects = Rejects.none;
    private int _pathMtu; // as logged

    /// <param name="tls">Decides the transport.</param>
    /// <param name="mark">SO_MARK of TCP connections, or 0.</param>
    /// <param name="servers">Addresses of the server, one at least, in the order in which they are tried.</param>
    public ClientSession(
        ConnectionSettings settings,
        WorkerContext worker,
        TlsContext tls,
        uint mark,
        InsideAddresses inside,
        IReadOnlyList<PeerAddress> servers,
        ILogger log
    )
    {
        _settings = settings;
        _worker = worker;
        _tls = tls;
        _isStream = tls.Transport == Transport.Stream;
        _mark = mark;
        _inside = inside;
        _servers = servers;
        _log = log;
        _connection = Create();
    }

    /// <summary>Called on the worker's thread, from its loop, when the connection is online; with the server's address.</summary>
    public Action<IPAddress> Online { get; init; } = static _ => { };

    /// <summary>How each address that was tried has ended. The connection lives, or this side ended it, while it is not among them.</summary>
    public IReadOnlyList<Ending> Endings => _endings;

    /// <summary>No address is left, or the connection that was online is over.</summary>
    public bool HasFailed { get; private set; }

    /// <summary>Called with the MTU that the device should have, once the server has said what its own device has.</summary>
    public Action<int>? MtuGranted { get; init; }

    /// <summary>Sends the first ClientHello. On the worker's thread, or before it runs.</summary>
    public void Start()
    {
        _stage = Stage.Silent;
        _startedAt = _worker.Now;
        _connection.Start(_worker.Now);
    }

    /// <summary>The way to the server has changed: a ping announces the new address. Any thread.</summary>
    public void NetworkChanged() =>
        _worker.Post(() =>
        {
            if (_connection.State == ConnectionState.Online)
            {
                _connection.NetworkChanged(_worker.Now);
            }
        });

    public bool IsReported(ReadOnlySpan<byte> packet) => false; // its sender is this client

    public Connection? Find(ReadOnlySpan<byte> packet)
    {
        if (Ports.isTo(packet, _isStream ? IpProtocol.Tcp : IpProtocol.Udp, _server.IPv4, _serverPort))
        {
            // The route to the server leads into the tunnel: encrypting our own packets would never end.
            _worker.Counters.Add(Counter.TunRejectedPacketToServer);
            return null;
        }
        return _connection;
    }

    public void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (from.Peer != _server)
        {
            _worker.Counters.Add(Counter.UdpParseWireFailed);
            return;
        }
        if (_stage == Stage.Silent)
        {
            _stage = Stage.Answered;
        }
        if (header.Session == SessionId.Rejected)
        {
            OnRejected(now);
        }
        else
        {
            _connection.Receive(header, body, now);
        }
    }

    public void Authenticated(Connection connection, AuthSuccess success)
    {
        connection.Translation = TranslationModule.client(_inside.Local, success.LocalIp, _inside.Dns, success.DnsIp);
        MtuGranted?.Invoke(Sizes.deviceMtu(success.Mtu, connection.InsideMtu));
    }

    public void StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.LinkUp)
        {
            _stage = Stage.LinkUp;
        }
        else if (connection.State == ConnectionState.Online)
        {
            _stage = Stage.Online;
            var server = EndPointOf(_server);
            LogOnline(_log, server, connection.Security);
            _worker.Post(() => Online(server.Address));
        }
    }

    public void Closed(Connection connection, TunnelError reason)
    {
        var ending = new Ending(EndPointOf(_server), reason, _stage, _worker.Now - _startedAt, connection.TlsError);
        _endings.Add(ending);
        // Another address is the same server: it would refuse the login as well.
        if (_stage == Stage.Online || reason == TunnelError.Unauthorized || _endings.Count == _servers.Count)
        {
            HasFailed = true;
            _worker.Stop();
            return;
        }
        _connection.Dispose();
        _connection = Create();
        LogNext(_log, ending.Server, reason, ending.AfterMs, EndPointOf(_server));
        Start();
    }

    public void Stopping() => _connection.Disconnect();

    public void Tick(long now)
    {
        if (_connection.PathMtu is var found and > 0 && found != _pathMtu)
        {
            _pathMtu = found;
            LogPathMtu(_log, found, _connection.InsideMtu);
        }
        (_rejects, var isGone) = Rejects.tick(_rejects, _connection.LastOutsideAt, now);
        if (isGone)
        {
            Closed(_connection, TunnelError.RejectedSession);
        }
        else if (_stage == Stage.Silent && now - _startedAt >= AnswerMs && _endings.Count + 1 < _servers.Count)
        {
            _connection.Disconnect();
            Closed(_connection, TunnelError.TimedOut);
        }
        else if (_isStream && _stage < Stage.LinkUp && now - _startedAt >= StreamMs)
        {
            _connection.Disconnect();
            Closed(_connection, TunnelError.TimedOut);
        }
    }

    public void Dispose() => _connection.Dispose();

    private Connection Create()
    {
        _server = _servers[_endings.Count];
        _serverPort = (ushort)_server.ToEndPoint().Port;
        var path = new OutsideAddress(_server, default);
        return _isStream
            ? Connection.ForClient(
                _settings,
                _worker,
                this,
                new TlsSession(_tls),
                StreamSocket.Connect(_server, _mark),
                path,
                _worker.Now
            )
            : Connection.ForClient(_settings, _worker, this, new DtlsSession(_tls, []), path, _worker.Now);
    }

    /// <summary>An IPv4 address that is mapped into IPv6, for a socket of both families, is shown as IPv4.</summary>
    private static IPEndPoint EndPointOf(PeerAddress peer)
    {
        var endPoint = peer.ToEndPoint();
        return endPoint.Address.IsIPv4MappedToIPv6
            ? new IPEndPoint(endPoint.Address.MapToIPv4(), endPoint.Port)
            : endPoint;
    }

    private void OnRejected(long now)
    {
        _worker.Counters.Add(Counter.UdpRejectedSession);
        if (_connection.State != ConnectionState.Online)
        {
            return;
        }
        (_rejects, var isAsking) = Rejects.rejected(_rejects, now);
        if (isAsking)
        {
            _connection.NetworkChanged(now); // a ping
        }
    }

    [LoggerMessage(Level = LogLevel.Information, Message = "online: {Server} ({Security})")]
    private static partial void LogOnline(ILogger log, IPEndPoint server, string security);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "the path to the server carries {Outside} bytes: packets of up to {Inside} bytes pass whole"
    )]
    private static partial void LogPathMtu(ILogger log, int outside, int inside);

    [LoggerMessage(
        Level = LogLevel.Warning,
        Message = "{Server} gives no connection ({Reason} after {Milliseconds} ms); trying {Next}"
    )]
    private static partial void LogNext(
        ILogger log,
        IPEndPoint server,
        TunnelError reason,
        long milliseconds,
        IPEndPoint next
    );
}

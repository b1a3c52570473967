using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
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
/// The one connection of a client; it ends the worker when the connection ends. All members run on the worker's thread.
/// </summary>
public sealed partial class ClientSession : IWorkerProgram, IClientEvents, IDisposable
{
    private readonly WorkerContext _worker;
    private readonly InsideAddresses _inside;
    private readonly PeerAddress _server;
    private readonly ushort _serverPort;
    private readonly Connection _connection;
    private readonly ILogger _log;
    private RejectState _rejects = Rejects.none;

    public ClientSession(
        ConnectionSettings settings,
        WorkerContext worker,
        DtlsContext tls,
        InsideAddresses inside,
        PeerAddress server,
        ILogger log
    )
    {
        _worker = worker;
        _inside = inside;
        _server = server;
        _serverPort = (ushort)server.ToEndPoint().Port;
        _log = log;
        var path = new OutsideAddress(server, default);
        _connection = Connection.ForClient(settings, worker, this, new DtlsSession(tls, []), path, worker.Now);
    }

    /// <summary>Why the connection ended; null while it lives or if this side ended it.</summary>
    public TunnelError? Ended { get; private set; }

    /// <summary>Sends the first ClientHello. On the worker's thread, or before it runs.</summary>
    public void Start() => _connection.Start(_worker.Now);

    public Connection? Find(ReadOnlySpan<byte> packet)
    {
        if (Udp.isTo(packet, _server.IPv4, _serverPort))
        {
            // The route to the server leads into the tunnel: encrypting our own datagrams would never end.
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
        }
        else if (header.Session == SessionId.Rejected)
        {
            OnRejected(now);
        }
        else
        {
            _connection.Receive(header, body, now);
        }
    }

    public void Authenticated(Connection connection, AuthSuccess success) =>
        connection.Translation = TranslationModule.client(_inside.Local, success.LocalIp, _inside.Dns, success.DnsIp);

    public void StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.Online)
        {
            LogOnline(_log, connection.Path.Peer, connection.Security);
        }
    }

    public void Closed(Connection connection, TunnelError reason)
    {
        Ended = reason;
        LogClosed(_log, connection.Path.Peer, reason, connection.TlsError);
        _worker.Stop();
    }

    public void Stopping() => _connection.Disconnect();

    public void Tick(long now)
    {
        (_rejects, var isGone) = Rejects.tick(_rejects, _connection.LastOutsideAt, now);
        if (isGone)
        {
            Closed(_connection, TunnelError.RejectedSession);
        }
    }

    public void Dispose() => _connection.Dispose();

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
    private static partial void LogOnline(ILogger log, PeerAddress server, string security);

    [LoggerMessage(Level = LogLevel.Error, Message = "connection to {Server} ended: {Reason} (TLS: {Tls})")]
    private static partial void LogClosed(ILogger log, PeerAddress server, TunnelError reason, string tls);
}

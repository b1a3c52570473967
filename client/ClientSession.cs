using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;
using Lightway.Tunnel.Workers;
using Microsoft.Extensions.Logging;

namespace Lightway.Client;

/// <summary>Addresses of the client's own device; numbers, 10.0.0.1 is 0x0A000001.</summary>
/// <param name="Local">The device's address.</param>
/// <param name="Dns">Inside programs ask this one for names; it stands for the server's.</param>
public readonly record struct InsideAddresses(uint Local, uint Dns);

/// <summary>
/// The one connection of a client: translates between the device's addresses and those the server gave, and ends the
/// worker when the connection ends. All members run on the worker's thread.
/// </summary>
public sealed partial class ClientSession : IWorkerProgram, IConnectionOwner, IDisposable
{
    private const long RejectionLimitMs = 3_000; // without an authentic answer
    private readonly Worker _worker;
    private readonly InsideAddresses _inside;
    private readonly OutsideAddress _server;
    private readonly Connection _connection;
    private readonly ILogger _log;
    private AuthSuccess _granted;
    private long _rejectedAt; // when the server first rejected the session, and has not answered since; 0: not

    public ClientSession(
        ConnectionSettings settings,
        Worker worker,
        DtlsContext tls,
        InsideAddresses inside,
        PeerAddress server,
        ILogger log
    )
    {
        (_worker, _inside, _server, _log) = (worker, inside, new OutsideAddress(server, default), log);
        var session = new DtlsSession(tls, []);
        _connection = new Connection(
            settings,
            worker.Context,
            this,
            ProtocolVersion.V1_3,
            SessionId.Empty,
            session,
            _server,
            Worker.Now
        );
    }

    /// <summary>Why the connection ended; null while it lives or if this side ended it.</summary>
    public TunnelError? Ended { get; private set; }

    /// <summary>Sends the first ClientHello. On the worker's thread, or before it runs.</summary>
    public void Start() => _connection.Start(Worker.Now);

    public Connection? Route(Span<byte> packet, bool isPartial)
    {
        if (_connection.State != ConnectionState.Online)
        {
            _worker.Context.Counters.Add(Counter.TunRejectedPacketInvalidState);
            return null;
        }
        var checksum = isPartial ? TransportChecksum.Partial : TransportChecksum.Complete;
        var rewritten =
            Rewrite.source(packet, _granted.LocalIp, checksum)
            && (Rewrite.destinationOf(packet) != _inside.Dns || Rewrite.destination(packet, _granted.DnsIp, checksum));
        if (!rewritten)
        {
            _worker.Context.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return null;
        }
        return _connection;
    }

    public void Dispatch(in WireHeader header, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (from.Peer != _server.Peer)
        {
            _worker.Context.Counters.Add(Counter.UdpParseWireFailed);
        }
        else if (header.Session == SessionId.Rejected)
        {
            Rejected(now);
        }
        else
        {
            _connection.Receive(header, body, now);
        }
    }

    /// <summary>
    /// The server may have lost the session. Anyone can send such a datagram, so it only makes us ask: a server that still
    /// knows us answers the ping, one that does not rejects it too.
    /// </summary>
    private void Rejected(long now)
    {
        _worker.Context.Counters.Add(Counter.UdpRejectedSession);
        if (_connection.State == ConnectionState.Online && _rejectedAt == 0)
        {
            _rejectedAt = now;
            _connection.NetworkChanged(now);
        }
    }

    public void DeliverInside(Connection connection, Span<byte> packet)
    {
        var rewritten =
            Rewrite.destination(packet, _inside.Local, TransportChecksum.Complete)
            && (
                Rewrite.sourceOf(packet) != _granted.DnsIp
                || Rewrite.source(packet, _inside.Dns, TransportChecksum.Complete)
            );
        if (rewritten)
        {
            _worker.Context.ToInside.Append(packet);
        }
        else
        {
            _worker.Context.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
        }
    }

    public void Authenticated(Connection connection, AuthSuccess success) => _granted = success;

    public void StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.Online)
        {
            LogOnline(_log, connection.Path.Peer, connection.Security);
        }
    }

    public void Rescheduled(Connection connection) => _worker.Timers.Schedule(connection);

    public void Closed(Connection connection, TunnelError reason)
    {
        Ended = reason;
        LogClosed(_log, connection.Path.Peer, reason, connection.TlsError);
        _worker.Stop();
    }

    public void Stopping() => _connection.Disconnect();

    public void Tick(long now)
    {
        if (_connection.LastOutsideAt >= _rejectedAt)
        {
            _rejectedAt = 0; // the server has answered: it knows us
        }
        else if (now - _rejectedAt > RejectionLimitMs)
        {
            Closed(_connection, TunnelError.RejectedSession);
        }
    }

    public void AuthRequested(Connection connection, AuthRequest request) { } // a server's business

    public void SessionRotationStarted(Connection connection, ulong pending) { } // a server's business

    public void SessionRotationFinalized(Connection connection, ulong previous) { } // a server's business

    public void Dispose() => _connection.Dispose();

    [LoggerMessage(Level = LogLevel.Information, Message = "online: {Server} ({Security})")]
    private static partial void LogOnline(ILogger log, PeerAddress server, string security);

    [LoggerMessage(Level = LogLevel.Error, Message = "connection to {Server} ended: {Reason} (TLS: {Tls})")]
    private static partial void LogClosed(ILogger log, PeerAddress server, TunnelError reason, string tls);
}

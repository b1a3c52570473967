using System.Net;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel;
using Lightway.Tunnel.Connections;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Client.Sessions;

/// <summary>Addresses of the client's own device.</summary>
/// <param name="Local">The device's address.</param>
/// <param name="Dns">Programs on this machine ask this address for names; it stands for the server's DNS address.</param>
public readonly record struct InsideAddresses(Ipv4Address Local, Ipv4Address Dns);

/// <summary>Who has a session. Called on the worker's thread.</summary>
internal interface ISessionOwner
{
    /// <summary>The server has sent something, or the handshake is complete.</summary>
    void Answered(ClientSession session);

    /// <summary>The server has let this client in.</summary>
    void Online(ClientSession session);

    /// <summary>The connection has ended, not by <see cref="ClientSession.Stop"/>. Dispose of the session.</summary>
    void Ended(ClientSession session, Ending ending);
}

/// <summary>
/// One connection to one address of one server, from its first datagram to its end; another one takes its place then. All
/// members run on the worker's thread.
/// </summary>
internal sealed class ClientSession : IClientEvents, IDisposable
{
    private const long StreamMs = 15_000; // from connecting to the end of the handshake; DTLS gives up by itself
    private readonly WorkerContext _worker;
    private readonly ISessionOwner _owner;
    private readonly InsideAddresses _inside;
    private RejectState _rejects = Rejects.none;
    private bool _hasEnded;

    /// <param name="entry">Which server and which of its addresses.</param>
    /// <param name="mark">SO_MARK of a TCP connection, or 0.</param>
    /// <exception cref="IOException">The system does not provide a socket.</exception>
    public ClientSession(
        ClientServer server,
        RaceEntry entry,
        WorkerContext worker,
        ISessionOwner owner,
        InsideAddresses inside,
        uint mark
    )
    {
        Server = server;
        Entry = entry;
        _worker = worker;
        _owner = owner;
        _inside = inside;
        Peer = server.Addresses[entry.Address];
        Port = (ushort)Peer.ToEndPoint().Port;
        EndPoint = ClientServer.Shown(Peer);
        StartedAt = worker.Now;
        var path = new OutsideAddress(Peer, default);
        if (server.Transport == Transport.Stream)
        {
            var socket = StreamSocket.Connect(Peer, mark);
            var tls = new TlsSession(server.Tls);
            Connection = Connection.ForClient(server.CreateSettings(), worker, this, tls, socket, path, worker.Now);
        }
        else
        {
            var dtls = new DtlsSession(server.Tls, []);
            Connection = Connection.ForClient(server.CreateSettings(), worker, this, dtls, path, worker.Now);
        }
    }

    public ClientServer Server { get; }

    public RaceEntry Entry { get; }

    /// <summary>The server's address as the socket has it: an IPv4 address may be mapped into IPv6.</summary>
    public PeerAddress Peer { get; }

    public ushort Port { get; }

    /// <summary>The server's address as it is shown.</summary>
    public IPEndPoint EndPoint { get; }

    public Connection Connection { get; }

    public Stage Stage { get; private set; }

    /// <summary>Milliseconds of the worker's clock.</summary>
    public long StartedAt { get; }

    /// <inheritdoc cref="StartedAt"/>
    public long OnlineAt { get; private set; }

    /// <summary>The MTU that the server's device has, as it says; 0 if it does not.</summary>
    public int GrantedMtu { get; private set; }

    /// <summary>Sends the first ClientHello, or connects.</summary>
    public void Start() => Connection.Start(_worker.Now);

    /// <summary>Takes a datagram of its server.</summary>
    public void Receive(in WireHeader header, ReadOnlySpan<byte> body, long now)
    {
        if (Stage == Stage.Silent)
        {
            Stage = Stage.Answered;
            _owner.Answered(this);
        }
        if (header.Session == SessionId.Rejected)
        {
            OnRejected(now);
        }
        else
        {
            Connection.Receive(header, body, now);
        }
    }

    /// <summary>Once per second.</summary>
    public void Tick(long now)
    {
        (_rejects, var isGone) = Rejects.tick(_rejects, Connection.LastOutsideAt, now);
        if (isGone)
        {
            End(TunnelError.RejectedSession);
        }
        else if (Server.Transport == Transport.Stream && Stage < Stage.LinkUp && now - StartedAt >= StreamMs)
        {
            End(TunnelError.TimedOut);
        }
    }

    /// <summary>Ends the connection, with a Goodbye if it is far enough. The owner is not called.</summary>
    public void Stop()
    {
        _hasEnded = true;
        Connection.Disconnect();
    }

    public void Dispose() => Connection.Dispose();

    void IClientEvents.Authenticated(Connection connection, AuthSuccess success)
    {
        connection.Translation = TranslationModule.client(_inside.Local, success.LocalIp, _inside.Dns, success.DnsIp);
        GrantedMtu = success.Mtu;
    }

    void IConnectionEvents.StateChanged(Connection connection)
    {
        if (connection.State == ConnectionState.LinkUp)
        {
            Stage = Stage.LinkUp;
            _owner.Answered(this);
        }
        else if (connection.State == ConnectionState.Online)
        {
            Stage = Stage.Online;
            OnlineAt = _worker.Now;
            _owner.Online(this);
        }
    }

    void IConnectionEvents.Closed(Connection connection, TunnelError reason) => Report(reason);

    private void End(TunnelError reason)
    {
        Connection.Disconnect();
        Report(reason);
    }

    private void Report(TunnelError reason)
    {
        if (!_hasEnded)
        {
            _hasEnded = true;
            _owner.Ended(
                this,
                new Ending(EndPoint, reason, Stage, _worker.Now - StartedAt, Connection.TlsError)
                {
                    Refusal = Connection.Refusal,
                    Certificate = Connection.RefusedCertificate,
                }
            );
        }
    }

    private void OnRejected(long now)
    {
        _worker.Counters.Add(Counter.UdpRejectedSession);
        if (Connection.State != ConnectionState.Online)
        {
            return;
        }
        (_rejects, var isAsking) = Rejects.rejected(_rejects, now);
        if (isAsking)
        {
            Connection.NetworkChanged(now); // a ping
        }
    }
}

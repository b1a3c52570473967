using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Connections;

/// <summary>
/// One Lightway association, of either role: an envelope, a secure channel and a packet path, and the state and frames that
/// join them. It owns no socket and no clock: datagrams, packets and the time (milliseconds) come in; what it sends leaves
/// through the worker's batch (inside packets) and control socket (everything else). One thread. No peer can make it throw.
/// </summary>
public sealed partial class Connection : IChannelOwner, ITimed, IDisposable
{
    private readonly WorkerContext _worker;
    private readonly Envelope _envelope;
    private readonly SecureChannel _channel;
    private readonly ControlFrames _frames;
    private readonly PacketPath _packets;
    private readonly ConnectionSide _side;
    private readonly TimerNode _timer;
    private TunnelError _failure; // why it ended; None while it lives
    private int _depth; // entry points on the stack
    private long _packetsSeen; // packets of the peer up to its latest datagram
    private long _now; // set by entry points only

    private Connection(
        ConnectionSettings settings,
        WorkerContext worker,
        Func<Connection, Envelope, ConnectionSide> createSide,
        Func<Connection, Envelope, SecureChannel> createChannel,
        Envelope envelope,
        long now
    )
    {
        _worker = worker;
        _envelope = envelope;
        _now = now;
        CreatedAt = now;
        LastOutsideAt = now;
        _timer = new TimerNode(this);
        _channel = createChannel(this, envelope);
        _frames = new ControlFrames(_channel, worker);
        _packets = new PacketPath(settings, worker, envelope, _channel, _frames, this);
        _side = createSide(this, envelope);
    }

    /// <summary>The worker that it belongs to, for life.</summary>
    public WorkerContext Home => _worker;

    /// <summary>Changes only as <see cref="Lifecycle.canMove"/> allows.</summary>
    public ConnectionState State
    {
        get;
        private set
        {
            if (!Lifecycle.canMove(_side.Role, field, value))
            {
                throw new InvalidOperationException($"a connection can't go from {field} to {value}");
            }
            field = value;
            _packets.IsOpen = value == ConnectionState.Online;
        }
    } = ConnectionState.Connecting;

    /// <summary>Datagram: DTLS over UDP. Stream: TLS over TCP.</summary>
    public Transport Transport => _channel.Transport;

    /// <summary>The peer's address, and ours that it writes to.</summary>
    public ref readonly OutsideAddress Path => ref _envelope.Path;

    /// <summary>Names the session. Of a stream it is never sent, and serves the log and the tables only.</summary>
    public SessionId SessionId => _envelope.Current;

    /// <summary>Empty if no rotation is under way.</summary>
    public SessionId PendingSessionId => _envelope.Pending;

    /// <summary>Server: the address that this client has on the TUN; none until granted.</summary>
    public Ipv4Address InsideAddress { get; set; }

    /// <summary>The addresses that the two ends exchange; unknown until the login.</summary>
    public Translation Translation
    {
        get => _packets.Translation;
        set => _packets.Translation = value;
    }

    /// <summary>Server: half of the ClientHello's random; tells a retransmission from a restarted client.</summary>
    public UInt128 ClientRandom { get; private init; }

    public long CreatedAt { get; }

    /// <summary>The connection has been Online, even if it no longer is.</summary>
    public bool WasOnline { get; private set; }

    /// <summary>For the server's own use.</summary>
    public PeerRecord Record { get; } = new();

    /// <summary>When the last authenticated datagram came.</summary>
    public long LastOutsideAt { get; private set; }

    /// <summary>When the last datagram with a packet for the TUN came; <see cref="long.MinValue"/>: none did.</summary>
    public long LastPacketAt { get; private set; } = long.MinValue;

    /// <summary>Packets and bytes so far. Any thread.</summary>
    public ref readonly Traffic Traffic => ref _packets.Traffic;

    /// <summary>Protocol version of its datagrams.</summary>
    public ushort Version => _envelope.Version;

    public bool IsExpresslaneReady => _packets.Expresslane.IsReady;

    /// <summary>Negotiated suite and group, for the log.</summary>
    public string Security => _channel.Description;

    /// <summary>The last failure of TLS or of the socket in words, for the log.</summary>
    public string TlsError => _channel.ErrorText;

    /// <inheritdoc cref="SecureChannel.RefusedCertificate"/>
    public ReadOnlyMemory<byte> RefusedCertificate => _channel.RefusedCertificate;

    /// <summary>Client: why the server has refused the login, as far as it says so.</summary>
    public AuthRefusal Refusal { get; private set; }

    /// <summary>When <see cref="OnTimer"/> wants to be called; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt => Math.Min(Math.Min(_channel.DueAt, _side.DueAt), _packets.DueAt);

    TimerNode ITimed.Timer => _timer;

    bool IChannelOwner.HasFailed => _failure != TunnelError.None;

    /// <summary>The id is this connection's, now or as soon as the peer has adopted it.</summary>
    public bool Owns(SessionId sessionId) => _envelope.Owns(sessionId);

    /// <summary>Starts the handshake (client), or goes on with the ClientHello that the listener has accepted (server).</summary>
    public void Start(long now)
    {
        EnterCall(now);
        _channel.Start(now);
        LeaveCall();
    }

    /// <summary>Processes one datagram of this connection: its parsed wire header, and the bytes behind it.</summary>
    /// <returns>Number of authenticated frames; 0 means it proves nothing about its sender.</returns>
    public int Receive(in WireHeader header, ReadOnlySpan<byte> body, long now)
    {
        if (State == ConnectionState.Disconnected)
        {
            _worker.Counters.Add(Counter.UdpDataAfterDisconnect);
            return 0;
        }
        if (!_side.AcceptsVersion(header.Version))
        {
            _worker.Counters.Add(Counter.UdpWrongVersionForConn);
            return 0;
        }
        EnterCall(now);
        var frames = header.Expresslane
            ? ReceiveExpresslane(header.Session, body)
            : _channel.Receive(header.Session, body, now);
        LeaveCall(timersMayMove: !header.Expresslane);
        return frames;
    }

    public void OnTimer(long now)
    {
        EnterCall(now);
        _channel.OnTimer(now);
        _packets.OnTimer(now);
        _side.OnTimer(now);
        LeaveCall();
    }

    /// <summary>Call once per superpacket or packet before <see cref="TrySend"/>: inside traffic renews keys.</summary>
    public void BeginInside(long now)
    {
        if (_packets.IsOpen)
        {
            _now = now;
            _packets.Begin(now);
        }
    }

    /// <inheritdoc cref="PacketPath.Hooks"/>
    public PacketHooks? Hooks => _packets.Hooks;

    /// <inheritdoc cref="PacketPath.InsideMtu"/>
    public int InsideMtu => _packets.InsideMtu;

    /// <inheritdoc cref="PacketPath.PathMtu"/>
    public int PathMtu => _packets.PathMtu;

    /// <inheritdoc cref="PacketPath.SplitsPackets"/>
    public bool SplitsPackets => _packets.SplitsPackets;

    /// <inheritdoc cref="PacketPath.TryTranslate"/>
    public bool TryTranslate(Span<byte> packet, TransportChecksum checksum) => _packets.TryTranslate(packet, checksum);

    /// <inheritdoc cref="PacketPath.TrySend"/>
    public SendResult TrySend(Span<byte> buffer, int offset, int length) => _packets.TrySend(buffer, offset, length);

    /// <inheritdoc cref="PacketPath.TrySendSegments"/>
    public bool TrySendSegments(
        in SuperpacketPlan plan,
        ReadOnlySpan<byte> template,
        Span<byte> buffer,
        int offset,
        ref int next
    ) => _packets.TrySendSegments(plan, template, buffer, offset, ref next);

    /// <summary>Server: lets the peer in, or repeats that it is in.</summary>
    public void Grant(AuthSuccess success, long now)
    {
        if (State is not (ConnectionState.LinkUp or ConnectionState.Online))
        {
            return;
        }
        EnterCall(now);
        _frames.Success(success);
        if (State == ConnectionState.LinkUp)
        {
            _channel.Granted(now);
            BecomeOnline();
        }
        LeaveCall();
    }

    /// <summary>Server: turns the peer away.</summary>
    public void Deny(TunnelError reason, long now)
    {
        if (State is ConnectionState.LinkUp or ConnectionState.Online)
        {
            EnterCall(now);
            _frames.Failure(Lifecycle.refusalOf(reason));
            Fail(reason);
            LeaveCall();
        }
    }

    /// <summary>Server: the peer has proved who it is at another address: replies go there, under a new session id.</summary>
    public void MoveTo(in OutsideAddress path, SessionId freshId)
    {
        _envelope.MoveTo(path);
        _side.Rotate(freshId);
    }

    /// <summary>Server: the peer, where it was, has proved that it now writes to this address of ours.</summary>
    public void AnswerFrom(in LocalAddress local) => _envelope.MoveTo(Path with { Local = local });

    /// <summary>Client: the network has changed; a ping announces the new address to the server at once.</summary>
    public void NetworkChanged(long now)
    {
        EnterCall(now);
        _side.OnNetworkChanged(now);
        LeaveCall();
    }

    /// <summary>
    /// Client without continuous keepalives: a packet is on its way to the server, from which nothing has come for so long
    /// that a ping asks whether it is still there.
    /// </summary>
    public void Doubt(long now)
    {
        EnterCall(now);
        _side.OnDoubt(LastOutsideAt, now);
        LeaveCall();
    }

    /// <summary>Client: milliseconds from the latest keepalive ping to its answer; -1 if unknown.</summary>
    public long RoundTripMs => _side is ClientSide client ? client.RoundTripMs : -1;

    /// <summary>Says Goodbye and close_notify if the peer could understand it, best effort. The program is not called.</summary>
    public void Disconnect()
    {
        if (State is ConnectionState.LinkUp or ConnectionState.Authenticating or ConnectionState.Online)
        {
            State = ConnectionState.Disconnecting;
            _envelope.Copies = 1;
            _frames.Goodbye();
            _channel.Close();
        }
        if (State != ConnectionState.Disconnected)
        {
            State = ConnectionState.Disconnected;
            _timer.Release();
        }
    }

    public void Dispose()
    {
        _packets.Dispose();
        _channel.Dispose();
    }

    /// <summary>Keeps the connection alive, and announces a new session id or address.</summary>
    internal void SendPing() => _frames.Ping(_packets.Expresslane);

    /// <summary>Client: asks to be let in.</summary>
    internal void Authenticate(AuthRequest request)
    {
        if (State == ConnectionState.LinkUp)
        {
            State = ConnectionState.Authenticating;
        }
        _frames.Auth(request);
    }

    /// <summary>The login has succeeded: packets pass from now on.</summary>
    internal void BecomeOnline()
    {
        State = ConnectionState.Online;
        WasOnline = true;
        _worker.Counters.Add(Counter.ConnOnline);
        _side.Events.StateChanged(this);
        _packets.Online(_now);
    }

    /// <summary>Ends the connection when the entry point that is on the stack returns. The first reason stays.</summary>
    internal void Fail(TunnelError reason)
    {
        if (_failure == TunnelError.None)
        {
            _failure = reason;
        }
    }

    void IChannelOwner.EnterCall(long now) => EnterCall(now);

    void IChannelOwner.LeaveCall() => LeaveCall();

    void IChannelOwner.Established()
    {
        if (State != ConnectionState.Connecting)
        {
            return; // it has ended meanwhile
        }
        State = ConnectionState.LinkUp;
        _worker.Counters.Add(Counter.ConnLinkUp);
        _side.Events.StateChanged(this);
        _side.OnLinkUp(_now);
    }

    int IChannelOwner.Frames(SessionId session, Span<byte> plaintext, out int consumed)
    {
        var count = 0;
        var length = plaintext.Length;
        var answers = new Answers(_worker.Counters);
        while (!plaintext.IsEmpty && _failure == TunnelError.None)
        {
            Frame frame = default;
            var status = FrameModule.tryParse(plaintext, ref frame);
            if (status == FrameStatus.Insufficient && _channel.Transport == Transport.Stream)
            {
                break; // its rest is on the way
            }
            if (status != FrameStatus.Ok)
            {
                _worker.Counters.Add(
                    status == FrameStatus.Insufficient ? Counter.FrameIncomplete : Counter.FrameUndecodable
                );
                FailIfFatal(Lifecycle.ofFrameStatus(status));
                break; // the rest of this datagram is lost; the next one starts afresh
            }
            count++;
            Process(frame, plaintext.Slice(frame.PayloadOffset, frame.PayloadLength), ref answers);
            plaintext = plaintext[frame.Length..];
        }
        consumed = length - plaintext.Length;
        OnAuthenticated(session, count);
        return count;
    }

    void IChannelOwner.KeysChanging() => _side.Rotate(_worker.Ids.Draw());

    void IChannelOwner.TimersMoved() => _worker.Timers.Schedule(this);

    void IChannelOwner.Failed(TunnelError reason) => Fail(reason);

    private int ReceiveExpresslane(SessionId session, ReadOnlySpan<byte> body)
    {
        var error = _packets.Receive(session, body, out var frames);
        if (error != TunnelError.None)
        {
            FailIfFatal(error);
        }
        OnAuthenticated(session, frames);
        return frames;
    }

    private void Process(in Frame frame, Span<byte> payload, ref Answers answers)
    {
        switch (Lifecycle.accepts(_side.Role, State, frame.Kind))
        {
            case FrameVerdict.Ignore:
                return;
            case FrameVerdict.InvalidState:
                _worker.Counters.Add(Counter.FrameInvalidState);
                FailIfFatal(TunnelError.InvalidState);
                return;
            case FrameVerdict.InvalidMode:
                Fail(TunnelError.InvalidMode);
                return;
        }
        switch (frame.Kind)
        {
            case FrameKind.Data or FrameKind.EncodedData:
                FailIfFatal(_packets.Deliver(frame.Kind, payload));
                break;
            case FrameKind.DataFragment or FrameKind.EncodedDataFragment:
                FailIfFatal(_packets.Reassemble(frame, payload, _now));
                break;
            case FrameKind.Ping when answers.TryGive(FrameKind.Ping):
                _frames.Pong((ushort)frame.Id, _packets.Expresslane);
                break;
            case FrameKind.Pong when frame.Id == ControlFrames.KeepaliveId:
                _side.OnPong(_now);
                _packets.Expresslane.PongReceived(payload, _now);
                break;
            case FrameKind.Pong:
                _packets.Probes?.OnPong((ushort)frame.Id, _now);
                break;
            case FrameKind.ExpresslaneConfig:
                _packets.ConfigReceived(payload, ref answers, _now);
                break;
            case FrameKind.EncodingRequest or FrameKind.EncodingResponse:
                FailIfFatal(_packets.Hooks?.EncodingFrame(frame, State, ref answers) ?? TunnelError.None);
                break;
            case FrameKind.AuthRequest when answers.TryGive(FrameKind.AuthRequest):
                FailIfFatal(_side.OnAuthRequest(payload));
                break;
            case FrameKind.AuthSuccess:
                FailIfFatal(_side.OnAuthSuccess(payload, _now));
                break;
            case FrameKind.AuthFailure:
                Refusal = FrameModule.readAuthRefusal(payload);
                Fail(Lifecycle.ofRefusal(_side.Role, Refusal));
                break;
            case FrameKind.Goodbye:
                Fail(TunnelError.Goodbye);
                break;
        }
    }

    /// <summary>A datagram under this session id has proved to be the peer's, if it held frames.</summary>
    private void OnAuthenticated(SessionId session, int frames)
    {
        if (frames > 0)
        {
            LastOutsideAt = _now;
            if (_packets.Traffic.PacketsIn != _packetsSeen)
            {
                _packetsSeen = _packets.Traffic.PacketsIn;
                LastPacketAt = _now;
            }
            _side.OnAuthenticated(session, frames, _now);
        }
    }

    private void FailIfFatal(TunnelError error)
    {
        if (Lifecycle.isFatal(_channel.Transport, error))
        {
            Fail(error);
        }
    }

    /// <summary>Starts every entry point. The program may call one from within another.</summary>
    private void EnterCall(long now)
    {
        _now = now;
        _depth++;
    }

    /// <summary>Ends every entry point. Only the outermost one reports the end: the program disposes of the connection then.</summary>
    /// <param name="timersMayMove">False after an Expresslane packet: it brings no timer forward.</param>
    private void LeaveCall(bool timersMayMove = true)
    {
        if (--_depth > 0)
        {
            return;
        }
        if (_failure == TunnelError.None)
        {
            if (timersMayMove && _timer.IsLaterThan(DueAt))
            {
                _worker.Timers.Schedule(this);
            }
        }
        else if (State != ConnectionState.Disconnected)
        {
            Disconnect();
            _side.Events.Closed(this, _failure);
        }
    }
}

using System.Runtime.CompilerServices;
using Lightway.Protocol;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Connections;

/// <summary>
/// One Lightway association over UDP, of either role: its DTLS session, its Expresslane, its session ids. It owns no
/// socket and no clock: datagrams, packets and the time (milliseconds) come in, what to send leaves through the worker's
/// batch (inside packets) and socket (everything else). One thread. Nothing a peer sends makes it throw.
/// </summary>
public sealed class Connection : IRecordSink, IDisposable
{
    private const int ClientHandshakeCopies = 3; // the reference's "aggressive" mode: every datagram thrice until Online
    private const int RecordOverhead = 22; // DTLS 1.3 unified header 5, content type 1, tag 16
    private const int FragmentIds = 4096;
    private const int FragmentBytes = 1 << 20;
    private const long FragmentTimeoutMs = 10_000;
    private const ushort KeepaliveId = 0;
    private const ulong OrderMask = (1UL << 38) - 1;

    private readonly ConnectionSettings _settings;
    private readonly WorkerContext _worker;
    private readonly IConnectionOwner _owner;
    private readonly DtlsSession _session;
    private readonly ExpresslaneChannel _expresslane;
    private readonly RetransmissionTimer _retransmission;
    private readonly KeyUpdater _keyUpdater;
    private readonly LoginTimer _login = new();
    private HandshakeJob? _aside; // a server's handshake, if there is somewhere to run it
    private readonly ushort _version;
    private readonly ulong _orderTag; // see TunBatch.Order
    private FragmentTable? _fragments;
    private SessionIds _ids;
    private KeepaliveState _keepalive;
    private TunnelError _failure; // why it ended, if it did
    private bool _failed;
    private BurstRate _burstRate;
    private long _sentInside; // bytes sent since it was told
    private int _longestRun = int.MaxValue; // bytes
    private int _depth; // entry points on the stack
    private bool _intoBatch; // records being made belong to the batch
    private long _now;
    private bool _receiving; // records being made are wolfSSL's own: acknowledgements, its answer to a key update

    /// <param name="version">Protocol version of the first datagram; the connection keeps it for life.</param>
    /// <param name="sessionId">Server: the id drawn for it. Client: <see cref="SessionId.Empty"/>.</param>
    /// <param name="session">Fresh client session, or server session that has accepted a cookie; owned from here on.</param>
    public Connection(
        ConnectionSettings settings,
        WorkerContext worker,
        IConnectionOwner owner,
        ushort version,
        ulong sessionId,
        DtlsSession session,
        in OutsideAddress path,
        long now
    )
    {
        (_settings, _worker, _owner, _version, _session, Path, _now) = (
            settings,
            worker,
            owner,
            version,
            session,
            path,
            now
        );
        (CreatedAt, LastOutsideAt) = (now, now);
        _ids = SessionRotation.create(sessionId);
        _session.Sink = this;
        _orderTag = (ulong)(uint)RuntimeHelpers.GetHashCode(this) << 38;
        _expresslane = new ExpresslaneChannel(
            settings.Role,
            settings.EnableExpresslane,
            settings.ExpresslaneRotationMs,
            SendConfig
        );
        _keepalive = Keepalive.create(
            settings.KeepaliveIntervalMs,
            settings.KeepaliveTimeoutMs,
            settings.KeepaliveContinuous,
            now
        );
        _burstRate = BurstRateModule.create(now);
        _retransmission = new RetransmissionTimer(session);
        _keyUpdater = new KeyUpdater(session, worker.Counters, settings.Role == Role.Server ? settings.KeyUpdateMs : 0);
        if (settings.Role == Role.Server && worker.Pool is { } pool)
        {
            _aside = new HandshakeJob(session, pool, OnHandshakeStep);
        }
    }

    /// <summary>The worker that it belongs to, for life.</summary>
    public WorkerContext Home => _worker;

    public ConnectionState State { get; private set; } = ConnectionState.Connecting;

    /// <summary>Where its datagrams go.</summary>
    public OutsideAddress Path { get; private set; }

    public ulong SessionId => _ids.Current;

    /// <summary>0 if no rotation is under way.</summary>
    public ulong PendingSessionId => _ids.Pending;

    /// <summary>The id is this connection's, now or as soon as the peer has adopted it.</summary>
    public bool Owns(ulong sessionId) =>
        sessionId == _ids.Current || (sessionId == _ids.Pending && PendingSessionId != 0);

    /// <summary>Server: the address this client has on the TUN; 0 until granted.</summary>
    public uint InsideAddress { get; set; }

    public long CreatedAt { get; }

    /// <summary>It has been Online, even if it is no more.</summary>
    public bool WasOnline { get; private set; }

    /// <summary>Server: what told its ClientHello from others.</summary>
    public UInt128 Hello { get; init; }

    /// <summary>When the last authenticated datagram came.</summary>
    public long LastOutsideAt { get; private set; }

    public bool IsExpresslaneReady => _expresslane.IsReady;

    /// <summary>Negotiated suite and group, for the log.</summary>
    public string Security => _session.Description;

    /// <summary>The last DTLS failure in words, for the log.</summary>
    public string TlsError => _session.LastErrorText;

    /// <summary>When the timer queue will call next; the queue's own note.</summary>
    internal long ScheduledAt { get; set; } = long.MaxValue;

    /// <summary>When <see cref="OnTimer"/> wants to be called; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt
    {
        get
        {
            var dtls = _aside is { IsBusy: true } ? long.MaxValue : _retransmission.DueAt;
            var due = Math.Min(Math.Min(dtls, _login.RetryAt), _expresslane.TimerAt);
            if (State != ConnectionState.Online)
            {
                return due;
            }
            return Math.Min(
                due,
                Math.Min(_keyUpdater.DueAt, _settings.Role == Role.Client ? _keepalive.NextAt : long.MaxValue)
            );
        }
    }

    /// <summary>Starts the handshake (client), or goes on with the ClientHello the listener has stored (server).</summary>
    public void Start(long now)
    {
        Enter(now);
        if (_aside is { } aside)
        {
            aside.Start();
        }
        else
        {
            AfterDtls(_session.Handshake(), 0);
        }
        Finish();
    }

    /// <summary>Processes one datagram of this connection.</summary>
    /// <param name="header">Its parsed wire header.</param>
    /// <param name="body">What follows the header.</param>
    /// <returns>Authenticated frames it held; 0 means it proves nothing about its sender.</returns>
    public int Receive(in WireHeader header, ReadOnlySpan<byte> body, long now)
    {
        if (State == ConnectionState.Disconnected)
        {
            _worker.Counters.Add(Counter.UdpDataAfterDisconnect);
            return 0;
        }
        if (_settings.Role == Role.Server && header.Version != _version)
        {
            _worker.Counters.Add(Counter.UdpWrongVersionForConn);
            return 0;
        }
        Enter(now);
        var frames =
            header.Expresslane ? ReceiveExpresslane(header.Session, body)
            : State == ConnectionState.Connecting && _aside is { } aside ? LeaveTo(aside, header.Session, body)
            : ReceiveDtls(body);
        Authentic(header.Session, frames);
        Finish();
        return frames;
    }

    /// <summary>Acts on whatever is due.</summary>
    public void OnTimer(long now)
    {
        Enter(now);
        if (now >= _retransmission.DueAt && _aside is not { IsBusy: true })
        {
            OnDtlsTimer();
        }
        if (now >= _login.RetryAt)
        {
            RetryAuth();
        }
        if (now >= _expresslane.TimerAt)
        {
            _expresslane.Timer(now);
        }
        if (State == ConnectionState.Online)
        {
            if (_keyUpdater.Run(now))
            {
                _retransmission.Repeat(now);
                RotateSession(_worker.Ids.Draw());
            }
            if (_settings.Role == Role.Client)
            {
                Step(Keepalive.tick(_keepalive, now));
            }
        }
        Finish();
    }

    /// <summary>Call once per superpacket or packet before <see cref="TrySend"/>: inside traffic renews keys.</summary>
    public void BeginInside(long now)
    {
        _now = now;
        if (State != ConnectionState.Online)
        {
            return;
        }
        var timerAt = _expresslane.TimerAt;
        _expresslane.InsideTraffic(now);
        if (_expresslane.TimerAt != timerAt)
        {
            _owner.Rescheduled(this); // what it has offered is repeated until it is answered
        }
        if (_worker.MaxBurstMicroseconds > 0)
        {
            _burstRate = BurstRateModule.sent(_burstRate, now, _sentInside);
            _sentInside = 0;
            _longestRun = (int)Math.Min(BurstRateModule.limit(_burstRate, _worker.MaxBurstMicroseconds), int.MaxValue);
        }
    }

    /// <summary>Seals one inside packet into the worker's batch.</summary>
    /// <param name="buffer">Holds the packet with at least <see cref="FrameModule.DataHeaderSize"/> bytes before it, which are overwritten.</param>
    /// <param name="offset">Where the packet starts.</param>
    /// <param name="length">Bytes of the packet.</param>
    public SendResult TrySend(Span<byte> buffer, int offset, int length)
    {
        if (State != ConnectionState.Online)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidState);
            return SendResult.Dropped;
        }
        if (length > _settings.OutsideMtu - FrameModule.DataHeaderSize)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketTooBig);
            return SendResult.Dropped;
        }
        return _expresslane.IsReady
            ? TrySendExpresslane(buffer.Slice(offset, length))
            : TrySendDtls(buffer.Slice(offset - FrameModule.DataHeaderSize, FrameModule.DataHeaderSize + length));
    }

    /// <summary>Server: lets the peer in, or repeats that it is in.</summary>
    public void Grant(AuthSuccess success, long now)
    {
        if (State is not (ConnectionState.LinkUp or ConnectionState.Online))
        {
            return;
        }
        Enter(now);
        var frame = _worker.Frame.Span;
        SendFrame(frame[..FrameModule.writeAuthSuccess(success, frame)]);
        if (State == ConnectionState.LinkUp)
        {
            _keyUpdater.Granted(now);
            BecomeOnline();
        }
        Finish();
    }

    /// <summary>Server: turns the peer away.</summary>
    public void Deny(TunnelError reason, long now)
    {
        if (State is ConnectionState.LinkUp or ConnectionState.Online)
        {
            Enter(now);
            var frame = _worker.Frame.Span;
            SendFrame(frame[..FrameModule.writeAuthFailure(frame)]);
            Fail(reason);
            Finish();
        }
    }

    /// <summary>Server: the peer's address has changed, and it has proved who it is: replies go there, under a new session id.</summary>
    public void MoveTo(in OutsideAddress path, ulong freshId)
    {
        Path = path;
        RotateSession(freshId);
    }

    /// <summary>Server: the peer, where it was, has proved that it now writes to this address of ours.</summary>
    public void AnswerFrom(in LocalAddress local) => Path = Path with { Local = local };

    /// <summary>Client: the network has changed; a ping tells the server the new address at once.</summary>
    public void NetworkChanged(long now)
    {
        Enter(now);
        Step(Keepalive.networkChanged(_keepalive, now));
        Finish();
    }

    /// <summary>Says Goodbye and close_notify if the peer could understand it, best effort. The owner is not called.</summary>
    public void Disconnect()
    {
        if (State is ConnectionState.LinkUp or ConnectionState.Authenticating or ConnectionState.Online)
        {
            State = ConnectionState.Disconnecting;
            var frame = _worker.Frame.Span;
            SendFrame(frame[..FrameModule.writeGoodbye(frame)]);
            _session.Close();
        }
        State = ConnectionState.Disconnected;
    }

    void IRecordSink.SendRecord(ReadOnlySpan<byte> record)
    {
        var length = WireHeaderModule.Size + record.Length;
        if (_receiving && _session.IsEstablished)
        {
            _retransmission.Repeat(_now);
        }
        if (!_intoBatch)
        {
            SendAlone(record, length);
            return;
        }
        // TrySend has made room for a record of the expected length; one of another length may find the socket full.
        if (!_worker.ToOutside.TryReserve(Path, length, _longestRun, out var slot))
        {
            _worker.Counters.Add(Counter.UdpSendFailed);
            return;
        }
        WireHeaderModule.write(_version, WirePayload.Dtls, SessionRotation.outgoing(_ids), slot);
        record.CopyTo(slot[WireHeaderModule.Size..]);
        _worker.ToOutside.Commit(length);
    }

    public void Dispose()
    {
        _fragments = null;
        _expresslane.Dispose();
        if (_aside is { IsBusy: true } aside)
        {
            aside.DisposeSession(); // once the pool has let go of it
        }
        else
        {
            _session.Sink = null;
            _session.Dispose();
        }
    }

    private SendResult TrySendExpresslane(ReadOnlySpan<byte> packet)
    {
        var length = WireHeaderModule.Size + ExpresslanePacket.Overhead + packet.Length;
        if (!_worker.ToOutside.TryReserve(Path, length, _longestRun, out var slot))
        {
            return SendResult.Blocked;
        }
        var session = SessionRotation.outgoing(_ids);
        WireHeaderModule.write(_version, WirePayload.Expresslane, session, slot);
        if (!_expresslane.TrySeal(session, slot[WireHeaderModule.Size..], packet, _worker.Random))
        {
            _worker.Counters.Add(Counter.ExpresslaneEncryptNoKey);
            return SendResult.Dropped;
        }
        _worker.ToOutside.Commit(length);
        _worker.Counters.Add(Counter.ExpresslanePacketsSent);
        _worker.Counters.Add(Counter.TunToClient, packet.Length);
        _sentInside += length;
        return SendResult.Accepted;
    }

    private SendResult TrySendDtls(Span<byte> frame)
    {
        if (
            !_worker.ToOutside.TryReserve(
                Path,
                WireHeaderModule.Size + RecordOverhead + frame.Length,
                _longestRun,
                out _
            )
        )
        {
            return SendResult.Blocked;
        }
        FrameModule.writeDataHeader(frame.Length - FrameModule.DataHeaderSize, frame);
        _intoBatch = true;
        var status = _session.Write(frame);
        _intoBatch = false;
        if (status != DtlsStatus.Done)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketTlsError);
            return SendResult.Dropped;
        }
        _worker.Counters.Add(Counter.DtlsPacketsSent);
        _worker.Counters.Add(Counter.TunToClient, frame.Length - FrameModule.DataHeaderSize);
        _sentInside += frame.Length;
        return SendResult.Accepted;
    }

    private int ReceiveExpresslane(ulong session, ReadOnlySpan<byte> body)
    {
        var plaintext = _worker.ToInside.Tail[..TunBatch.TailRoom];
        switch (_expresslane.Open(session, body, plaintext, out var packet))
        {
            case OpenResult.Opened:
                _worker.Counters.Add(Counter.ExpresslanePacketsReceived);
                _worker.ToInside.Order = _orderTag | (packet.Counter & OrderMask);
                Deliver(plaintext[..packet.Length], packet.IsEncoded);
                _worker.ToInside.Order = 0;
                return 1;
            case OpenResult.Replayed:
                _worker.Counters.Add(Counter.ExpresslaneReplayed);
                return 0;
            case OpenResult.NoKey:
                _worker.Counters.Add(Counter.ExpresslaneDecryptNoKey);
                return 0;
            case OpenResult.Forged:
                _worker.Counters.Add(Counter.ExpresslaneDecryptFailed);
                return 0;
            default:
                _worker.Counters.Add(Counter.ExpresslaneTruncated);
                return 0;
        }
    }

    private int ReceiveDtls(ReadOnlySpan<byte> body)
    {
        if (body.IsEmpty)
        {
            return 0; // legal: a bare header yields no frame
        }
        if (_settings.Role == Role.Client && !_session.IsEstablished)
        {
            if (!PlaintextRecords.AreHarmless(body))
            {
                _worker.Counters.Add(Counter.HandshakeIgnored); // anyone could have sent it
                return 0;
            }
            _retransmission.LearnRoundTrip(_now - CreatedAt);
        }
        _receiving = true;
        var status = _session.Receive(body, _worker.Plaintext.Span, out var length);
        _receiving = false;
        return AfterDtls(status, length);
    }

    private int LeaveTo(HandshakeJob aside, ulong session, ReadOnlySpan<byte> body)
    {
        if (!aside.TryAdd(session, body))
        {
            _worker.Counters.Add(Counter.HandshakeIgnored);
        }
        return 0;
    }

    /// <summary>The pool has made a step of the handshake, and let go of the session until it is asked for another.</summary>
    private void OnHandshakeStep(HandshakeJob aside, long now)
    {
        Enter(now);
        _session.Sink = this;
        foreach (var (record, isRepeated) in aside.Records)
        {
            _receiving = isRepeated;
            ((IRecordSink)this).SendRecord(record);
        }
        _receiving = false;
        aside.Plaintext.CopyTo(_worker.Plaintext.Span);
        Authentic(aside.SessionId, AfterDtls(aside.Status, aside.Plaintext.Length));
        if (State == ConnectionState.Connecting && !_failed)
        {
            aside.Continue();
        }
        else
        {
            _aside = null;
            while (!_failed && aside.TryTake(out var session, out var body))
            {
                Authentic(session, ReceiveDtls(body));
            }
        }
        Finish();
    }

    /// <summary>Frames in the plaintext that a DTLS step left behind, and what its status means.</summary>
    private int AfterDtls(DtlsStatus status, int length)
    {
        if (_session.IsEstablished && State == ConnectionState.Connecting)
        {
            LinkUp();
        }
        var frames = ProcessFrames(_worker.Plaintext.Slice(0, length));
        if (status == DtlsStatus.Closed)
        {
            Fail(TunnelError.TlsPeerClosed);
        }
        else if (status == DtlsStatus.Failed)
        {
            _worker.Counters.Add(Counter.ConnTlsError);
            // In a handshake anyone may have sent what broke it: a server waits for the rest, a client can't go on.
            var reason = _session.FailureReason;
            if (_session.IsEstablished ? Lifecycle.isFatal(Transport.Datagram, reason) : _settings.Role == Role.Client)
            {
                Fail(reason);
            }
        }
        _retransmission.Rearm(_now);
        return frames;
    }

    private int ProcessFrames(Span<byte> plaintext)
    {
        var count = 0;
        while (!plaintext.IsEmpty && !_failed)
        {
            Frame frame = default;
            var status = FrameModule.tryParse(plaintext, ref frame);
            if (status != FrameStatus.Ok)
            {
                // The rest of this datagram is lost; the next one starts afresh.
                _worker.Counters.Add(
                    status == FrameStatus.Insufficient ? Counter.FrameIncomplete : Counter.FrameUndecodable
                );
                FailIfFatal(Lifecycle.ofFrameStatus(status));
                break;
            }
            count++;
            Process(frame, plaintext.Slice(frame.PayloadOffset, frame.PayloadLength));
            plaintext = plaintext[frame.Length..];
        }
        return count;
    }

    private void Process(in Frame frame, Span<byte> payload)
    {
        switch (Lifecycle.accepts(_settings.Role, State, frame.Kind))
        {
            case FrameVerdict.Ignore:
                return;
            case FrameVerdict.InvalidState:
                _worker.Counters.Add(Counter.FrameInvalidState);
                return;
            case FrameVerdict.InvalidMode:
                Fail(TunnelError.InvalidMode);
                return;
        }
        switch (frame.Kind)
        {
            case FrameKind.Data:
                _worker.Counters.Add(Counter.DtlsPacketsReceived);
                Deliver(payload, encoded: false);
                break;
            case FrameKind.EncodedData:
                Deliver(payload, encoded: true);
                break;
            case FrameKind.DataFragment or FrameKind.EncodedDataFragment:
                Reassemble(frame, payload);
                break;
            case FrameKind.Ping:
                Reply(frame);
                break;
            case FrameKind.Pong when frame.Id == KeepaliveId:
                _keepalive = Keepalive.pong(_keepalive);
                _expresslane.PongReceived(payload, _now);
                break;
            case FrameKind.ExpresslaneConfig:
                ExpresslaneConfig config = default!;
                if (FrameModule.tryParseExpresslaneConfig(payload, ref config) == FrameStatus.Ok)
                {
                    _expresslane.ConfigReceived(config, _now);
                }
                break;
            case FrameKind.AuthRequest:
                AuthRequest request = default!;
                var status = AuthRequestModule.tryParse(payload, ref request);
                if (status == FrameStatus.Ok)
                {
                    _owner.AuthRequested(this, request);
                }
                else
                {
                    _worker.Counters.Add(Counter.FrameUndecodable);
                    FailIfFatal(Lifecycle.ofFrameStatus(status));
                }
                break;
            case FrameKind.AuthSuccess:
                Admitted(payload);
                break;
            case FrameKind.AuthFailure:
                Fail(TunnelError.Unauthorized);
                break;
            case FrameKind.Goodbye:
                Fail(TunnelError.Goodbye);
                break;
        }
    }

    private void Deliver(Span<byte> packet, bool encoded)
    {
        if (encoded)
        {
            Fail(TunnelError.CodecMissing);
        }
        else if (State != ConnectionState.Online)
        {
            _worker.Counters.Add(Counter.FrameInvalidState);
        }
        else if (packet.IsEmpty || packet[0] >> 4 != 4)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
        }
        else
        {
            _owner.DeliverInside(this, packet);
        }
    }

    private void Reassemble(in Frame frame, ReadOnlySpan<byte> payload)
    {
        _fragments ??= new FragmentTable(FragmentIds, FragmentBytes, FragmentTimeoutMs);
        var whole = _worker.Reassembled.Span;
        var encoded = frame.Kind == FrameKind.EncodedDataFragment;
        var length = 0;
        switch (
            _fragments.Add(
                (ushort)frame.Id,
                frame.FragmentOffset,
                frame.MoreFragments,
                payload,
                _now,
                whole,
                ref length
            )
        )
        {
            case FragmentStatus.Complete:
                Deliver(whole[..length], encoded);
                break;
            case FragmentStatus.Invalid:
                _worker.Counters.Add(Counter.FragmentInvalid);
                break;
        }
    }

    private void Reply(in Frame ping)
    {
        Span<byte> health = stackalloc byte[16];
        var length = ping.Id == KeepaliveId ? _expresslane.WriteHealth(health) : 0;
        var frame = _worker.Frame.Span;
        SendFrame(frame[..FrameModule.writePong((ushort)ping.Id, health[..length], frame)]);
    }

    private void SendPing()
    {
        Span<byte> health = stackalloc byte[16];
        var frame = _worker.Frame.Span;
        SendFrame(frame[..FrameModule.writePing(KeepaliveId, health[.._expresslane.WriteHealth(health)], frame)]);
    }

    private void SendConfig(ExpresslaneConfig config)
    {
        var frame = _worker.Frame.Span;
        SendFrame(frame[..FrameModule.writeExpresslaneConfig(config, frame)]);
    }

    private void SendFrame(ReadOnlySpan<byte> frame)
    {
        if (_session.Write(frame) != DtlsStatus.Done)
        {
            _worker.Counters.Add(Counter.UdpControlSendFailed);
        }
    }

    private void SendAlone(ReadOnlySpan<byte> record, int length)
    {
        if (length > _worker.Datagram.Length)
        {
            _worker.Counters.Add(Counter.UdpControlSendFailed);
            return;
        }
        var datagram = _worker.Datagram.Slice(0, length);
        WireHeaderModule.write(_version, WirePayload.Dtls, SessionRotation.outgoing(_ids), datagram);
        record.CopyTo(datagram[WireHeaderModule.Size..]);
        var copies =
            _settings.Role == Role.Client && State is ConnectionState.Connecting or ConnectionState.Authenticating
                ? ClientHandshakeCopies
                : 1;
        for (var copy = 0; copy < copies; copy++)
        {
            _worker.Counters.Add(Counter.UdpSends);
            if (_worker.Control.Send(Path, datagram, 0) < 0)
            {
                _worker.Counters.Add(Counter.UdpControlSendFailed); // DTLS repeats what matters
                return;
            }
            _worker.Counters.Add(Counter.UdpDatagramsSent);
            _worker.Counters.Add(Counter.UdpBytesSent, length);
        }
    }

    private void LinkUp()
    {
        State = ConnectionState.LinkUp;
        _worker.Counters.Add(Counter.ConnLinkUp);
        _owner.StateChanged(this);
        if (_settings is { Role: Role.Client, Credentials: { } credentials })
        {
            State = ConnectionState.Authenticating;
            _login.Start(_now);
            SendAuth(credentials);
        }
    }

    private void SendAuth(AuthRequest credentials)
    {
        var frame = _worker.Frame.Span;
        SendFrame(frame[..AuthRequestModule.write(credentials, frame)]);
        _login.Sent(_now);
    }

    private void RetryAuth()
    {
        if (_login.IsTooLate(_now))
        {
            Fail(TunnelError.TimedOut);
        }
        else if (_settings.Credentials is { } credentials)
        {
            SendAuth(credentials);
        }
    }

    private void Admitted(ReadOnlySpan<byte> payload)
    {
        AuthSuccess success = default!;
        if (FrameModule.tryParseAuthSuccess(payload, ref success) != FrameStatus.Ok)
        {
            Fail(TunnelError.InvalidInsideIpConfig);
            return;
        }
        _login.Stop();
        _owner.Authenticated(this, success);
        _keepalive = Keepalive.online(_keepalive, _now);
        BecomeOnline();
    }

    private void BecomeOnline()
    {
        State = ConnectionState.Online;
        WasOnline = true;
        _worker.Counters.Add(Counter.ConnOnline);
        _owner.StateChanged(this);
        _expresslane.Online(_version, _now);
    }

    /// <summary>A datagram under this session id has proved to be the peer's, if it held frames.</summary>
    private void Authentic(ulong headerSession, int frames)
    {
        if (frames == 0)
        {
            return;
        }
        LastOutsideAt = _now;
        if (_settings.Role == Role.Client)
        {
            _ids = new SessionIds(SessionRotation.adopt(_ids.Current, headerSession, frames), _ids.Pending);
            _keepalive = Keepalive.activity(_keepalive, _now);
            return;
        }
        var previous = _ids.Current;
        var received = SessionRotation.received(_ids, headerSession);
        _ids = received.Ids;
        if (received.Event == SessionEvent.Finalized)
        {
            _worker.Counters.Add(Counter.UdpSessionRotationFinalized);
            _owner.SessionRotationFinalized(this, previous);
        }
        else if (received.Event == SessionEvent.Mismatch)
        {
            _worker.Counters.Add(Counter.SessionIdMismatch);
        }
    }

    private void RotateSession(ulong freshId)
    {
        var begun = SessionRotation.start(_ids, freshId);
        if (begun.Started)
        {
            _ids = begun.Ids;
            _worker.Counters.Add(Counter.UdpSessionRotationBegin);
            _owner.SessionRotationStarted(this, freshId);
            SendPing(); // tells the peer the new id within one round trip
        }
    }

    private void OnDtlsTimer()
    {
        var established = _session.IsEstablished;
        if (_retransmission.Fire(_now) != DtlsStatus.Failed)
        {
            return;
        }
        _worker.Counters.Add(established ? Counter.ConnTlsError : Counter.ConnTimedOut);
        if (!established)
        {
            Fail(TunnelError.TimedOut);
        }
    }

    private void Step((KeepaliveState State, KeepaliveAction Action) step)
    {
        _keepalive = step.State;
        if (step.Action == KeepaliveAction.SendPing)
        {
            SendPing();
        }
        else if (step.Action == KeepaliveAction.Close)
        {
            Fail(TunnelError.TimedOut);
        }
    }

    private void FailIfFatal(TunnelError error)
    {
        if (Lifecycle.isFatal(Transport.Datagram, error))
        {
            Fail(error);
        }
    }

    private void Fail(TunnelError reason)
    {
        if (!_failed)
        {
            (_failed, _failure) = (true, reason);
        }
    }

    /// <summary>Starts every entry point. The owner may call one from within another.</summary>
    private void Enter(long now)
    {
        _now = now;
        _depth++;
    }

    /// <summary>Ends every entry point; the outermost tells the owner the next timer, or the end.</summary>
    private void Finish()
    {
        if (--_depth > 0)
        {
            return; // the owner may dispose of a closed connection: nothing of it may be on the stack then
        }
        if (!_failed)
        {
            _owner.Rescheduled(this);
        }
        else if (State != ConnectionState.Disconnected)
        {
            Disconnect();
            _owner.Closed(this, _failure);
        }
    }
}

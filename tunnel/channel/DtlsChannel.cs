using Lightway.Protocol;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Tun;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// A control channel over datagrams: one DTLS session, its handshake, its repetitions and its key updates. Records leave
/// in the connection's envelope, those with packets by the worker's batch, all others alone.
/// </summary>
internal sealed class DtlsChannel : SecureChannel
{
    private readonly DtlsSession _session;
    private readonly WorkerContext _worker;
    private readonly Envelope _envelope;
    private readonly IChannelOwner _owner;
    private readonly bool _isServer;
    private readonly long _createdAt;
    private readonly ControlSink _control;
    private readonly AnswerSink _answers;
    private readonly PacketSink _packets;
    private readonly RetransmissionTimer _retransmission;
    private readonly KeyUpdater _keyUpdater;
    private HandshakeJob? _job; // the server's handshake while it runs on the pool
    private readonly long _recordsPerKey;
    private long _sent; // records with packets, since the latest key update
    private long _received; // records
    private bool _isUp; // the owner knows that the handshake is complete

    /// <param name="session">Fresh client session, or server session that has accepted a cookie; owned from here on.</param>
    /// <param name="keyUpdateMs">Server: period of key updates; 0: none.</param>
    /// <param name="recordsPerKey">Server: records, of one direction, after which the keys change.</param>
    public DtlsChannel(
        DtlsSession session,
        WorkerContext worker,
        Envelope envelope,
        IChannelOwner owner,
        Role role,
        long keyUpdateMs,
        long recordsPerKey,
        long now
    )
    {
        _session = session;
        _worker = worker;
        _envelope = envelope;
        _owner = owner;
        _isServer = role == Role.Server;
        _createdAt = now;
        _control = new ControlSink(this);
        _answers = new AnswerSink(this);
        _packets = new PacketSink(this);
        _retransmission = new RetransmissionTimer(session);
        _keyUpdater = new KeyUpdater(
            session,
            worker.Counters,
            _isServer ? Time.spread(keyUpdateMs, worker.Random.Next()) : 0
        );
        _recordsPerKey = _isServer ? recordsPerKey : long.MaxValue;
        if (_isServer && worker.Pool is { } pool)
        {
            _job = new HandshakeJob(session, pool, OnHandshakeStep);
        }
        session.Sink = _control;
    }

    public override Transport Transport => Transport.Datagram;

    public override long DueAt =>
        Math.Min(_job is { IsBusy: true } ? long.MaxValue : _retransmission.DueAt, _keyUpdater.DueAt);

    public override string Description => _session.Description;

    public override string ErrorText => _session.LastErrorText;

    public override ReadOnlyMemory<byte> RefusedCertificate => _session.Refused;

    public override void Start(long now)
    {
        if (_job is { } job)
        {
            job.Start();
        }
        else
        {
            AfterStep(SessionId.Empty, _session.Handshake(), [], now);
        }
    }

    public override void Send(ReadOnlySpan<byte> frame)
    {
        if (_session.Write(frame) != TlsStatus.Done)
        {
            _worker.Counters.Add(Counter.UdpControlSendFailed);
        }
    }

    public override SendResult TrySendPacket(ReadOnlySpan<byte> dataFrame, byte tos)
    {
        var length = WireHeaderModule.Size + Sizes.RecordOverhead + dataFrame.Length;
        if (!_worker.ToOutside.TryReserve(_envelope.Path, length, tos, out _))
        {
            return SendResult.Blocked;
        }
        _packets.Prepare(length);
        _session.Sink = _packets;
        var status = _session.Write(dataFrame);
        _session.Sink = _control;
        if (status != TlsStatus.Done)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketTlsError);
            return SendResult.Dropped;
        }
        if (++_sent >= _recordsPerKey)
        {
            UseUp(_worker.Now);
            _owner.TimersMoved();
        }
        return SendResult.Accepted;
    }

    public override int Receive(SessionId session, ReadOnlySpan<byte> body, long now)
    {
        if (!_isUp && !PlaintextRecords.AreHarmless(body))
        {
            _worker.Counters.Add(Counter.HandshakeIgnored); // anyone could have sent it
            return 0;
        }
        if (_job is { } job)
        {
            if (!job.TryAdd(session, body))
            {
                _worker.Counters.Add(Counter.HandshakeIgnored);
            }
            return 0;
        }
        if (body.IsEmpty)
        {
            return 0; // legal: a bare header yields no frame
        }
        if (!_isServer && !_session.IsEstablished)
        {
            _retransmission.LearnRoundTrip(now - _createdAt);
        }
        _answers.Now = now;
        _session.Sink = _answers;
        // Most records are one packet, which is decrypted where the TUN batch wants it.
        const int frameAt = TunBatch.FrameRoom - FrameModule.DataHeaderSize;
        var room = _worker.ToInside.Reserve(frameAt + WorkerContext.PlaintextSize)[frameAt..];
        var status = _session.Receive(body, room, out var length);
        _session.Sink = _control;
        var plaintext = room[..length];
        if (!FrameModule.isPacket(plaintext))
        {
            plaintext = _worker.Plaintext.Slice(0, length); // the batch may grow while frames are processed
            room[..length].CopyTo(plaintext);
            room[..length].Clear(); // it may be a key
        }
        if (++_received >= _recordsPerKey && _isUp)
        {
            UseUp(now);
        }
        return AfterStep(session, status, plaintext, now);
    }

    public override void OnTimer(long now)
    {
        if (now >= _retransmission.DueAt && _job is not { IsBusy: true })
        {
            Retransmit(now);
        }
        if (_keyUpdater.Run(now))
        {
            _retransmission.Repeat(now);
            _owner.KeysChanging();
        }
    }

    public override void Granted(long now) => _keyUpdater.Granted(now);

    public override void Close() => _session.Close();

    public override void Dispose()
    {
        if (_job is { IsBusy: true } job)
        {
            job.DisposeSession(); // once the pool has let go of it
        }
        else
        {
            _session.Sink = null;
            _session.Dispose();
        }
    }

    private void UseUp(long now)
    {
        _sent = 0;
        _received = 0;
        _keyUpdater.UsedUp(now);
    }

    private void Retransmit(long now)
    {
        var established = _session.IsEstablished;
        if (_retransmission.Fire(now) != TlsStatus.Failed)
        {
            return;
        }
        _worker.Counters.Add(established ? Counter.ConnTlsError : Counter.ConnTimedOut);
        if (!established)
        {
            _owner.Failed(TunnelError.TimedOut);
        }
    }

    /// <summary>The pool has made a step of the handshake, and let go of the session until it is asked for another.</summary>
    private void OnHandshakeStep(HandshakeJob job, long now)
    {
        _owner.EnterCall(now);
        _session.Sink = _control;
        foreach (var (record, isRepeated) in job.Records)
        {
            if (isRepeated)
            {
                _retransmission.Repeat(now);
            }
            _envelope.Send(record);
        }
        job.Plaintext.CopyTo(_worker.Plaintext.Span);
        AfterStep(job.SessionId, job.Status, _worker.Plaintext.Slice(0, job.Plaintext.Length), now);
        if (!_isUp && !_owner.HasFailed)
        {
            job.Continue();
        }
        else
        {
            _job = null;
            while (!_owner.HasFailed && job.TryTake(out var session, out var body))
            {
                Receive(session, body, now);
            }
        }
        _owner.LeaveCall();
    }

    /// <summary>Hands on the frames that a step left in the plaintext, and acts on its status.</summary>
    private int AfterStep(SessionId session, TlsStatus status, Span<byte> plaintext, long now)
    {
        if (_session.IsEstablished && !_isUp)
        {
            _isUp = true;
            _owner.Established();
        }
        var frames = _owner.Frames(session, plaintext, out _);
        if (status == TlsStatus.Closed)
        {
            _owner.Failed(TunnelError.TlsPeerClosed);
        }
        else if (status == TlsStatus.Failed)
        {
            _worker.Counters.Add(Counter.ConnTlsError);
            // In a handshake anyone may have sent what broke it: a server waits for the rest, a client can't go on. But an
            // alert is the client's own, which refuses this server: Receive lets no unprotected one through.
            var reason = TlsFailure.ReasonOf(_session.LastError);
            var endsHandshake = !_isServer || reason == TunnelError.TlsFatalAlert;
            if (_session.IsEstablished ? Lifecycle.isFatal(Transport.Datagram, reason) : endsHandshake)
            {
                _owner.Failed(reason);
            }
        }
        _retransmission.Rearm(now);
        return frames;
    }

    /// <summary>Records that the connection asked for.</summary>
    private sealed class ControlSink(DtlsChannel channel) : IRecordSink
    {
        public void SendRecord(ReadOnlySpan<byte> record) => channel._envelope.Send(record);
    }

    /// <summary>Records that wolfSSL makes on receipt: acknowledgements, its answer to a key update. They are repeated.</summary>
    private sealed class AnswerSink(DtlsChannel channel) : IRecordSink
    {
        public long Now { private get; set; }

        public void SendRecord(ReadOnlySpan<byte> record)
        {
            if (channel._session.IsEstablished)
            {
                channel._retransmission.Repeat(Now);
            }
            channel._envelope.Send(record);
        }
    }

    /// <summary>Records that hold packets.</summary>
    private sealed class PacketSink(DtlsChannel channel) : IRecordSink
    {
        private int _reserved; // bytes of the slot that waits for the record; 0: it has been used

        public void Prepare(int reserved) => _reserved = reserved;

        public void SendRecord(ReadOnlySpan<byte> record)
        {
            var batch = channel._worker.ToOutside;
            var envelope = channel._envelope;
            var length = WireHeaderModule.Size + record.Length;
            Span<byte> slot;
            if (length == _reserved)
            {
                slot = batch.Reserved;
            }
            // A record of another length may find the socket full.
            else if (!batch.TryReserve(envelope.Path, length, tos: 0, out slot))
            {
                channel._worker.Counters.Add(Counter.UdpSendFailed);
                return;
            }
            _reserved = 0;
            envelope.WriteHeader(WirePayload.Dtls, slot);
            record.CopyTo(slot[WireHeaderModule.Size..]);
            batch.Commit(length);
        }
    }
}

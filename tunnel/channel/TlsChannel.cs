using System.Buffers;
using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// A control channel over a stream: one TLS session on one socket. Frames follow each other without regard to records; any
/// error ends the connection. One thread; the steps of a server's handshake run on the control pool.
/// </summary>
internal sealed class TlsChannel : SecureChannel, IStream
{
    private const int MaxHandshake = 64 * 1024; // bytes that a peer may send before its handshake is complete
    private const int HandshakeChunk = 16 * 1024; // bytes that are read at once until then
    private const int MaxFrameBeforeLogin = 4096; // bytes; a login has at most 1350
    private const int MaxOwnRecords = 16; // that one receive may make the session send: answers to key updates
    private const int KeptCarry = 2048; // bytes; more is given back as soon as it is not needed

    private readonly TlsSession _session;
    private readonly StreamSocket _socket;
    private readonly WorkerContext _worker;
    private readonly Envelope _envelope;
    private readonly IChannelOwner _owner;
    private readonly bool _isServer;
    private readonly KeyUpdater _keyUpdater;
    private readonly StreamLoop _loop;
    private readonly StreamWatch _watch;
    private readonly StreamOutput _output;
    private readonly OwnRecords _ownRecords;
    private byte[] _carry = []; // the beginning of a frame whose rest has not come
    private int _carried; // bytes of it
    private int _handshakeBytes;
    private int _socketError; // errno
    private bool _isConnecting; // client
    private bool _isBusy; // a step of the handshake runs on the pool, which has the session
    private bool _isLoggedIn; // server
    private bool _isDisposed;

    /// <param name="session">Fresh; owned from here on.</param>
    /// <param name="socket">Of a server, accepted; of a client, connecting. Owned from here on.</param>
    /// <param name="keyUpdateMs">Server: period of key updates; 0: none.</param>
    public TlsChannel(
        TlsSession session,
        StreamSocket socket,
        WorkerContext worker,
        Envelope envelope,
        IChannelOwner owner,
        Role role,
        long keyUpdateMs
    )
    {
        _session = session;
        _socket = socket;
        _worker = worker;
        _envelope = envelope;
        _owner = owner;
        _isServer = role == Role.Server;
        _loop = worker.Streams ?? throw new InvalidOperationException("this worker serves no streams");
        _output = new StreamOutput(session, socket, worker, _loop, mayPack: worker.MaxSegments > 1);
        _ownRecords = new OwnRecords(_output);
        _keyUpdater = new KeyUpdater(
            session,
            worker.Counters,
            _isServer ? Time.spread(keyUpdateMs, worker.Random.Next()) : 0
        );
        _watch = _loop.Watch(socket, this);
        session.Sink = _output;
    }

    public override Transport Transport => Transport.Stream;

    public override long DueAt => _keyUpdater.DueAt;

    public override string Description => _session.Description;

    public override string ErrorText =>
        _socketError == 0 ? _session.LastErrorText : StreamSocket.Describe(_socketError);

    public override ReadOnlyMemory<byte> RefusedCertificate => _session.Refused;

    public override void Start(long now)
    {
        _isConnecting = !_isServer;
        if (_isConnecting)
        {
            _watch.Want(Readiness.Write);
        }
    }

    public override void Send(ReadOnlySpan<byte> frame)
    {
        if (!_output.TryAdd(frame, FrameClass.Control))
        {
            _worker.Counters.Add(Counter.TcpControlDropped);
        }
        _watch.MarkDirty();
    }

    public override SendResult TrySendPacket(ReadOnlySpan<byte> dataFrame, byte tos)
    {
        var isTcp = Ipv4.protocol(dataFrame[FrameModule.DataHeaderSize..]) == IpProtocol.Tcp;
        _watch.MarkDirty();
        if (_output.TryAdd(dataFrame, isTcp ? FrameClass.TcpPacket : FrameClass.Packet))
        {
            return SendResult.Accepted;
        }
        _worker.Counters.Add(isTcp ? Counter.TcpShedTcp : Counter.TcpShedOther);
        return SendResult.Dropped;
    }

    /// <summary>A stream has no datagrams.</summary>
    public override int Receive(SessionId session, ReadOnlySpan<byte> body, long now) => 0;

    public override void OnTimer(long now)
    {
        if (_keyUpdater.Run(now))
        {
            _watch.MarkDirty();
        }
    }

    public override void Granted(long now)
    {
        _isLoggedIn = true;
        _keyUpdater.Granted(now);
    }

    public override void Close()
    {
        if (!_isBusy)
        {
            _output.Seal(); // close_notify is the last record
            _session.Close();
            _output.Flush();
        }
    }

    public override void Dispose()
    {
        if (_isDisposed)
        {
            return;
        }
        _isDisposed = true;
        _watch.Dispose();
        _socket.Dispose();
        _output.Dispose();
        if (!_isBusy)
        {
            _session.Sink = null;
            _session.Dispose();
        }
    }

    void IStream.OnReadable(long now)
    {
        var room = _session.IsEstablished ? _loop.Input.Span : _loop.Input.Slice(0, HandshakeChunk);
        var count = _socket.Receive(room);
        _worker.Counters.Add(Counter.TcpReceives);
        if (count == StreamSocket.WouldBlock)
        {
            return;
        }
        _owner.EnterCall(now);
        if (count > 0)
        {
            _worker.Counters.Add(Counter.TcpBytesReceived, count);
            Process(room[..count]);
        }
        else
        {
            Lose(-count);
        }
        _owner.LeaveCall();
    }

    void IStream.OnWritable(long now)
    {
        if (!_isConnecting)
        {
            Flush(now);
            return;
        }
        _isConnecting = false;
        _owner.EnterCall(now);
        if (_socket.TakeError() is var error and not 0)
        {
            Lose(error);
        }
        else
        {
            _watch.Want(Readiness.Read);
            Process([]);
        }
        _owner.LeaveCall();
    }

    void IStream.Flush(long now) => Flush(now);

    private void Flush(long now)
    {
        _output.Flush();
        if (_output.Error != 0)
        {
            _owner.EnterCall(now);
            Lose(_output.Error);
            _owner.LeaveCall();
            return;
        }
        if (!_isBusy && !_isConnecting)
        {
            _watch.Want(_output.IsBlocked ? Readiness.Read | Readiness.Write : Readiness.Read);
        }
    }

    /// <summary>The socket has failed, or its stream has ended (errno 0).</summary>
    private void Lose(int errno)
    {
        _socketError = errno;
        _worker.Counters.Add(errno == 0 ? Counter.TcpEnded : Counter.TcpFailed);
        _owner.Failed(TunnelError.ConnectionLost);
    }

    private void Process(ReadOnlySpan<byte> bytes)
    {
        if (_session.IsEstablished)
        {
            Read(bytes);
            return;
        }
        _handshakeBytes += bytes.Length;
        if (_handshakeBytes > MaxHandshake)
        {
            _worker.Counters.Add(Counter.HandshakeIgnored);
            _owner.Failed(TunnelError.TlsOther);
            return;
        }
        if (_isServer && _worker.Pool is { } pool)
        {
            StepOnPool(pool, bytes.ToArray());
            return;
        }
        var status = _session.Handshake(ref bytes);
        _watch.MarkDirty();
        AfterStep(status, bytes);
    }

    /// <summary>The key exchange and the signature take from 0.1 ms to several: they would hold up everybody's packets.</summary>
    private void StepOnPool(ControlPool pool, byte[] bytes)
    {
        var status = TlsStatus.Failed;
        var left = 0;
        var records = new RecordList();
        _isBusy = true;
        _session.Sink = records;
        _watch.Want(Readiness.None);
        pool(
            () =>
            {
                ReadOnlySpan<byte> stream = bytes;
                status = _session.Handshake(ref stream);
                left = stream.Length;
            },
            now =>
            {
                _isBusy = false;
                _session.Sink = null;
                if (_isDisposed)
                {
                    _session.Dispose();
                    return;
                }
                _session.Sink = _output;
                _watch.Want(Readiness.Read);
                _owner.EnterCall(now);
                _output.SendRecord(records.Bytes);
                _watch.MarkDirty();
                AfterStep(status, bytes.AsSpan(bytes.Length - left));
                _owner.LeaveCall();
            }
        );
    }

    private void AfterStep(TlsStatus status, ReadOnlySpan<byte> rest)
    {
        if (status != TlsStatus.Done)
        {
            Fail(status);
            return;
        }
        if (_session.IsEstablished)
        {
            _session.Sink = _ownRecords;
            _owner.Established();
            Read(rest);
        }
    }

    /// <summary>Decrypts bytes of the stream and processes the frames that are whole.</summary>
    private void Read(ReadOnlySpan<byte> bytes)
    {
        var room = _loop.Plaintext.Span;
        _carry.AsSpan(0, _carried).CopyTo(room);
        var fill = _carried;
        _ownRecords.Restart();
        bool isMore;
        do
        {
            var status = _session.Receive(ref bytes, room[fill..], out var length);
            fill += length;
            isMore = fill == room.Length;
            if (length > 0)
            {
                _owner.Frames(_envelope.Current, room[..fill], out var consumed);
                room[consumed..fill].CopyTo(room);
                fill -= consumed;
            }
            if (status != TlsStatus.Done)
            {
                Fail(status);
                return;
            }
        } while (isMore && !_owner.HasFailed);
        if (_ownRecords.Count > 0)
        {
            _watch.MarkDirty();
        }
        if (_ownRecords.Count > MaxOwnRecords)
        {
            _worker.Counters.Add(Counter.TcpRecordFlood);
            _owner.Failed(TunnelError.TlsOther);
            return;
        }
        Carry(room[..fill]);
    }

    /// <summary>Keeps the beginning of a frame until its rest comes.</summary>
    private void Carry(ReadOnlySpan<byte> beginning)
    {
        if (_isServer && !_isLoggedIn && beginning.Length > MaxFrameBeforeLogin)
        {
            _worker.Counters.Add(Counter.FrameUndecodable);
            _owner.Failed(TunnelError.FieldTooLarge);
            return;
        }
        var isLarge = beginning.Length > KeptCarry;
        if (beginning.Length > _carry.Length || (!isLarge && _carry.Length > KeptCarry))
        {
            _carry = new byte[Math.Max(KeptCarry, beginning.Length)];
        }
        beginning.CopyTo(_carry);
        _carried = beginning.Length;
    }

    private void Fail(TlsStatus status)
    {
        if (status == TlsStatus.Closed)
        {
            _owner.Failed(TunnelError.TlsPeerClosed);
            return;
        }
        _worker.Counters.Add(Counter.ConnTlsError);
        _owner.Failed(TlsFailure.ReasonOf(_session.LastError));
    }

    /// <summary>Keeps the records of a step that runs on the pool.</summary>
    private sealed class RecordList : IRecordSink
    {
        private readonly ArrayBufferWriter<byte> _bytes = new();

        public ReadOnlySpan<byte> Bytes => _bytes.WrittenSpan;

        public void SendRecord(ReadOnlySpan<byte> record) => _bytes.Write(record);
    }

    /// <summary>Counts the records since the last receive.</summary>
    private sealed class OwnRecords(IRecordSink output) : IRecordSink
    {
        public int Count { get; private set; }

        public void Restart() => Count = 0;

        public void SendRecord(ReadOnlySpan<byte> record)
        {
            Count++;
            output.SendRecord(record);
        }
    }
}

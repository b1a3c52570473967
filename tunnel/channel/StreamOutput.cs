using Lightway.Protocol;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>What becomes of a frame when the socket is full; the default value is kept longest.</summary>
internal enum FrameClass
{
    /// <summary>Waits, within a limit.</summary>
    Control = 0,

    /// <summary>An inside packet: waits, within a limit, if there is memory.</summary>
    Packet,

    /// <summary>An inside TCP packet: its sender repeats what is lost, so it does not wait.</summary>
    TcpPacket,
}

/// <summary>
/// What one stream sends: frames are put together, sealed into records as long as TLS allows, and handed to the socket in
/// one call per wake-up. While the socket is full the rest waits here, and new frames are dropped by kind (docs/protocol.md,
/// section 4): TCP inside repeats what is lost, so that its packets give way first. One thread.
/// </summary>
internal sealed class StreamOutput : IRecordSink, IDisposable
{
    private const int Records = 8; // that wait for the socket
    private const int RecordSize = TlsSession.MaxPlaintext + TlsSession.RecordOverhead;
    private const int OwnRecords = 4096; // bytes kept free for what wolfSSL says by itself: alerts, answers to key updates
    private const int SealedAt = TlsSession.MaxPlaintext;
    private const int SealedSize = (Records * RecordSize) + OwnRecords;
    private const int BufferSize = SealedAt + SealedSize;
    private const int WaitingFrames = 64; // that are taken while the socket is full
    private readonly TlsSession _session;
    private readonly StreamSocket _socket;
    private readonly StreamBuffers _buffers;
    private readonly Counters _counters;
    private readonly bool _mayPack;
    private Slab? _buffer; // frames, then sealed records; null while nothing waits
    private int _staged; // bytes of frames that are not sealed yet
    private int _start; // sealed bytes that the socket has taken
    private int _end; // sealed bytes
    private int _waiting; // frames taken while the socket is full

    /// <param name="mayPack">False: a record and a system call for each frame.</param>
    public StreamOutput(TlsSession session, StreamSocket socket, WorkerContext worker, StreamLoop loop, bool mayPack)
    {
        _session = session;
        _socket = socket;
        _buffers = loop.Buffers;
        _counters = worker.Counters;
        _mayPack = mayPack;
    }

    /// <summary>The socket is full: flush again when it is writable.</summary>
    public bool IsBlocked { get; private set; }

    /// <summary>
    /// The errno with which the socket has failed; <see cref="Linux.ENOBUFS"/> if the peer asks for more than it reads. 0: none.
    /// </summary>
    public int Error { get; private set; }

    private int Room => SealedSize - OwnRecords - (_end - _start);

    /// <summary>Takes a whole frame. False: it is dropped, the socket has been full for too long.</summary>
    public bool TryAdd(ReadOnlySpan<byte> frame, FrameClass kind)
    {
        if (Error != 0 || (IsBlocked && (kind == FrameClass.TcpPacket || _waiting == WaitingFrames)))
        {
            return false;
        }
        if (_buffer is null && kind != FrameClass.Control && _buffers.IsExhausted)
        {
            return false;
        }
        _buffer ??= _buffers.Take(BufferSize);
        if (!HasRoomFor(frame.Length))
        {
            Write(); // the rest of it goes on to wait
            if (!HasRoomFor(frame.Length))
            {
                return false;
            }
        }
        while (!frame.IsEmpty)
        {
            var length = Math.Min(frame.Length, TlsSession.MaxPlaintext - _staged);
            frame[..length].CopyTo(_buffer.Span[_staged..]);
            _staged += length;
            frame = frame[length..];
            if (_staged == TlsSession.MaxPlaintext)
            {
                Seal();
            }
        }
        _waiting += IsBlocked ? 1 : 0;
        if (!_mayPack)
        {
            Flush();
        }
        return Error == 0;
    }

    /// <summary>Seals the frames that have been put together.</summary>
    public void Seal()
    {
        if (_staged > 0)
        {
            var staged = _staged;
            _staged = 0; // before the call, which may come back
            _counters.Add(Counter.TcpRecordsSent);
            if (_session.Write(_buffer!.Slice(0, staged)) != TlsStatus.Done)
            {
                Error = Error == 0 ? Linux.EIO : Error;
            }
        }
    }

    /// <summary>Seals what has been put together and sends what waits, as far as the socket takes it.</summary>
    public void Flush()
    {
        if (_buffer is null)
        {
            return;
        }
        Seal();
        Write();
        if (_start == _end && _staged == 0)
        {
            Release();
        }
    }

    /// <summary>A record of the session: sealed frames, or something of its own.</summary>
    public void SendRecord(ReadOnlySpan<byte> record)
    {
        if (Error != 0)
        {
            return;
        }
        _buffer ??= _buffers.Take(BufferSize);
        if (record.Length > SealedSize - _end)
        {
            Compact();
        }
        if (record.Length > SealedSize - _end)
        {
            Error = Linux.ENOBUFS;
            return;
        }
        record.CopyTo(_buffer.Span[(SealedAt + _end)..]);
        _end += record.Length;
    }

    public void Dispose() => Release();

    /// <summary>The records that the frame would fill, and the one that it begins, fit.</summary>
    private bool HasRoomFor(int length) =>
        ((_staged + length) / TlsSession.MaxPlaintext * RecordSize) + RecordSize <= Room;

    private void Write()
    {
        while (_start < _end && Error == 0)
        {
            var sent = _socket.Send(_buffer!.Slice(SealedAt + _start, _end - _start));
            _counters.Add(Counter.TcpSends);
            if (sent < 0)
            {
                if (sent == StreamSocket.WouldBlock)
                {
                    _counters.Add(Counter.TcpSendBlocked, IsBlocked ? 0 : 1);
                    IsBlocked = true;
                    Compact();
                    return;
                }
                Error = -sent;
                return;
            }
            _counters.Add(Counter.TcpBytesSent, sent);
            _start += sent;
        }
        IsBlocked = false;
        _waiting = 0;
        _start = 0;
        _end = 0;
    }

    /// <summary>Moves what waits to the start of its room.</summary>
    private void Compact()
    {
        if (_start > 0)
        {
            _buffer!.Slice(SealedAt + _start, _end - _start).CopyTo(_buffer.Span[SealedAt..]);
            _end -= _start;
            _start = 0;
        }
    }

    private void Release()
    {
        if (_buffer is { } buffer)
        {
            _buffer = null;
            _staged = 0;
            _start = 0;
            _end = 0;
            _buffers.Return(buffer);
        }
    }
}

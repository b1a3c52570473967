using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Packets;

/// <summary>
/// The plugins and the codec of one connection. A connection without any has no such object, and its packets see none of this
/// code. A packet passes each plugin and the codec once: what comes out while the worker's socket is full is kept. One thread.
/// Allocates nothing per packet once its buffers have the size that they need.
/// </summary>
public sealed class PacketHooks : IInsideReplies, IDisposable
{
    private const long RetryMs = 1; // a full socket is tried again, unless packets from the TUN do that
    private readonly Role _role;
    private readonly Transport _transport;
    private readonly PacketPath _path;
    private readonly WorkerContext _worker;
    private readonly ControlFrames _frames;
    private readonly IChannelOwner _owner;
    private readonly IInsidePlugin[] _plugins;
    private readonly int _uncut; // number of plugins that see superpackets; those after them see segments
    private readonly IPacketCodec? _codec;
    private readonly IPacketCodec? _unused; // the codec, on a stream
    private readonly Func<bool> _mayEncode;
    private readonly WaitingPackets _waiting = new();
    private readonly EncodedOutput _encoded;
    private readonly DecodedOutput _decoded;
    private EncodingState _encoding = InsideEncoding.create;
    private byte[] _scratch = []; // an encoded packet while it is decoded
    private byte _tos; // of the packet that was encoded last
    private long _retryAt = long.MaxValue; // what waits for the socket is tried again
    private long _scheduledAt = long.MaxValue; // what the connection's timer knows of

    /// <param name="transport">On a stream only the plugins are used.</param>
    internal PacketHooks(
        Role role,
        Transport transport,
        ConnectionHooks hooks,
        PacketPath path,
        WorkerContext worker,
        ControlFrames frames,
        IChannelOwner owner
    )
    {
        _role = role;
        _transport = transport;
        _path = path;
        _worker = worker;
        _frames = frames;
        _owner = owner;
        _plugins = [.. hooks.Inside];
        var first = Array.FindIndex(_plugins, plugin => plugin.WantsSegments);
        _uncut = first < 0 ? _plugins.Length : first;
        _codec = transport == Transport.Stream ? null : hooks.Codec;
        _unused = transport == Transport.Stream ? hooks.Codec : null;
        _mayEncode = hooks.MayEncode;
        _encoded = new EncodedOutput(this);
        _decoded = new DecodedOutput(path);
    }

    /// <summary>Bytes that an encoded packet may be longer than the packet; 0: there is no codec.</summary>
    internal int CodecOverhead => _codec?.MaxOverhead ?? 0;

    /// <summary>Packets to the peer are encoded: client and server have agreed on it.</summary>
    public bool IsEncoding => _encoding.IsOn;

    /// <summary>When <see cref="OnTimer"/> is due, in ms; <see cref="long.MaxValue"/>: never.</summary>
    internal long DueAt => Math.Min(Math.Min(_encoding.RepeatAt, _codec?.DueAt ?? long.MaxValue), _retryAt);

    /// <summary>
    /// Client: asks the server to have the packets of both ends encoded, or not. <see cref="IsEncoding"/> tells when it has
    /// agreed; it may not. False: nothing was asked, as there is no codec, or the connection is not Online, or a server's.
    /// </summary>
    public bool TryRequestEncoding(bool enable, long now)
    {
        if (_codec is null || _role != Role.Client || !_path.IsOpen)
        {
            return false;
        }
        _owner.EnterCall(now);
        _encoding = InsideEncoding.request(_encoding, enable, now);
        SendRequest();
        _owner.LeaveCall();
        return true;
    }

    void IInsideReplies.Reply(ReadOnlySpan<byte> packet) => _path.Reply(packet);

    public void Dispose()
    {
        foreach (var plugin in _plugins)
        {
            (plugin as IDisposable)?.Dispose();
        }
        (_codec as IDisposable)?.Dispose();
        (_unused as IDisposable)?.Dispose();
    }

    /// <summary>Asks the plugins that see superpackets as they are. Call once per packet or superpacket, before it is cut.</summary>
    /// <param name="segmentSize">gso_size of a superpacket; 0 for a packet.</param>
    /// <returns>False: it is counted, and to be dropped.</returns>
    internal bool Ingress(Span<byte> packet, int segmentSize) =>
        !_path.IsOpen || Accepts(_plugins.AsSpan(0, _uncut), packet, segmentSize);

    /// <summary>As <see cref="PacketPath.TrySend"/>, through the other plugins and the codec.</summary>
    internal SendResult TrySend(Span<byte> buffer, int offset, int length)
    {
        if (!TryFinish())
        {
            return SendResult.Blocked;
        }
        if (!_path.IsOpen)
        {
            return _path.TrySend(buffer, offset, length); // which counts it
        }
        var packet = buffer.Slice(offset, length);
        if (!Accepts(_plugins.AsSpan(_uncut), packet, segmentSize: 0))
        {
            return SendResult.Dropped;
        }
        _tos = _path.TosOf(packet);
        if (_codec is not null && _encoding.IsOn)
        {
            var verdict = _codec.Encode(packet, _encoded, _worker.Now);
            TimersMoved();
            switch (verdict)
            {
                case CodecVerdict.Taken:
                    return SendResult.Accepted;
                case CodecVerdict.Failed:
                    _worker.Counters.Add(Counter.CodecFailed);
                    return SendResult.Dropped;
            }
        }
        if (_waiting.IsEmpty)
        {
            var result = _path.TrySend(buffer, offset, length, _tos, isEncoded: false);
            if (result != SendResult.Blocked)
            {
                return result;
            }
        }
        Keep(packet, isEncoded: false);
        return SendResult.Accepted;
    }

    /// <summary>Sends what waits for the socket. False: it is full.</summary>
    internal bool TryFinish()
    {
        while (!_waiting.IsEmpty)
        {
            var next = _waiting.Oldest;
            var result = _path.TrySend(_waiting.Bytes, next.Offset, next.Length, next.Tos, next.IsEncoded);
            if (result == SendResult.Blocked)
            {
                _retryAt = _worker.Now + RetryMs;
                return false;
            }
            if (result == SendResult.Accepted && next.IsEncoded)
            {
                _worker.Counters.Add(Counter.CodecPacketsSent);
            }
            _waiting.RemoveOldest();
        }
        _retryAt = long.MaxValue;
        return true;
    }

    /// <summary>Asks the plugins about a packet of the peer. False: it is counted, and to be dropped.</summary>
    internal bool Egress(Span<byte> packet)
    {
        if (!Ipv4.isWellFormed(packet))
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return false;
        }
        for (var i = _plugins.Length - 1; i >= 0; i--)
        {
            if (_plugins[i].Egress(packet) == PluginVerdict.Drop)
            {
                _worker.Counters.Add(Counter.InsidePluginDropped);
                return false;
            }
        }
        return true;
    }

    /// <summary>Decodes a packet of the peer, and delivers what comes out.</summary>
    /// <param name="encoded">May lie in the slot that the TUN batch gave last.</param>
    /// <param name="sender">As in <see cref="Tun.TunBatch.Commit"/>.</param>
    /// <param name="counter">As in <see cref="Tun.TunBatch.Commit"/>.</param>
    /// <returns>What ends the connection, or None.</returns>
    internal TunnelError Decode(ReadOnlySpan<byte> encoded, uint sender, ulong counter)
    {
        if (_codec is null)
        {
            return TunnelError.CodecMissing;
        }
        if (!_path.IsOpen)
        {
            _worker.Counters.Add(Counter.FrameInvalidState);
            return TunnelError.None;
        }
        _worker.Counters.Add(Counter.CodecPacketsReceived);
        if (_scratch.Length < encoded.Length)
        {
            _scratch = new byte[Math.Max(Tun.TunBatch.SlotSize, encoded.Length)];
        }
        encoded.CopyTo(_scratch);
        _decoded.Sender = sender;
        _decoded.Counter = counter;
        var copy = _scratch.AsSpan(0, encoded.Length);
        var verdict = _codec.Decode(copy, _decoded, _worker.Now);
        TimersMoved();
        switch (verdict)
        {
            case CodecVerdict.Skipped:
                _decoded.Emit(copy);
                break;
            case CodecVerdict.Failed:
                _worker.Counters.Add(Counter.CodecFailed);
                break;
        }
        return TunnelError.None;
    }

    /// <summary>Processes an encoding request or response. An end without a codec ignores both.</summary>
    /// <returns>What ends the connection, or None.</returns>
    internal TunnelError EncodingFrame(in Frame frame, ConnectionState state, ref Answers answers)
    {
        if (_codec is null && _unused is null)
        {
            return TunnelError.None;
        }
        if (frame.Kind == FrameKind.EncodingResponse)
        {
            _encoding = InsideEncoding.answered(_encoding, frame.Id, frame.Enable);
            return _role == Role.Server ? TunnelError.InvalidMode
                : _transport == Transport.Stream ? TunnelError.InvalidConnectionType
                : TunnelError.None;
        }
        switch (Lifecycle.acceptsEncoding(_role, _transport, state))
        {
            case FrameVerdict.InvalidMode:
                return TunnelError.InvalidMode;
            case FrameVerdict.InvalidConnectionType:
                return TunnelError.InvalidConnectionType;
            case FrameVerdict.InvalidState:
                _worker.Counters.Add(Counter.FrameInvalidState);
                return TunnelError.InvalidState;
        }
        if (answers.TryGive(FrameKind.EncodingRequest))
        {
            Answer(frame.Id, frame.Enable);
        }
        return TunnelError.None;
    }

    /// <summary>Repeats a request that has no answer yet, and sends what the codec or a full socket has kept back.</summary>
    internal void OnTimer(long now)
    {
        if (_codec is not null && _path.IsOpen && now >= _codec.DueAt)
        {
            _decoded.Sender = 0; // after all that has come
            _codec.OnTimer(now, _encoded, _decoded);
            _worker.ToInside.Flush();
            _worker.Post(static () => { }); // wakes the worker, which flushes the batch before it sleeps
        }
        TryFinish();
        _scheduledAt = long.MaxValue;
        var (next, again) = InsideEncoding.timer(_encoding, now);
        _encoding = next;
        if (again)
        {
            SendRequest();
        }
    }

    /// <summary>Has the connection's timer follow a codec that wants to be called earlier.</summary>
    private void TimersMoved()
    {
        var due = DueAt;
        if (due < _scheduledAt)
        {
            _scheduledAt = due;
            _owner.TimersMoved();
        }
    }

    private bool Accepts(ReadOnlySpan<IInsidePlugin> plugins, Span<byte> packet, int segmentSize)
    {
        var view = new InsidePacket(packet, segmentSize, this);
        foreach (var plugin in plugins)
        {
            if (plugin.Ingress(view) == PluginVerdict.Drop)
            {
                _worker.Counters.Add(Counter.InsidePluginDropped);
                return false;
            }
        }
        return true;
    }

    private void Keep(ReadOnlySpan<byte> packet, bool isEncoded)
    {
        if (!_waiting.TryAdd(packet, _tos, isEncoded))
        {
            _worker.Counters.Add(Counter.CodecOutputDropped);
        }
    }

    private void Answer(ulong id, bool enable)
    {
        var (next, verdict) = InsideEncoding.requested(_encoding, id, enable, _mayEncode());
        _encoding = next;
        if (verdict != EncodingVerdict.Ignore)
        {
            _frames.Encoding(FrameKind.EncodingResponse, id, verdict == EncodingVerdict.Agree && enable);
        }
    }

    private void SendRequest() => _frames.Encoding(FrameKind.EncodingRequest, _encoding.Id, _encoding.Enable);

    /// <summary>Takes encoded packets: they leave at once, if the socket is not full.</summary>
    private sealed class EncodedOutput(PacketHooks hooks) : ICodecOutput
    {
        public void Emit(ReadOnlySpan<byte> packet)
        {
            hooks.Keep(packet, isEncoded: true);
            hooks.TryFinish();
        }
    }

    /// <summary>Takes decoded packets, at the place of the encoded one among the packets of its sender.</summary>
    private sealed class DecodedOutput(PacketPath path) : ICodecOutput
    {
        public uint Sender { get; set; }

        public ulong Counter { get; set; }

        public void Emit(ReadOnlySpan<byte> packet) => path.DeliverDecoded(packet, Sender, Counter);
    }
}

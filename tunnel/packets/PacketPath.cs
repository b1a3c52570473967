using Lightway.Protocol;
using Lightway.Segmenter;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tun;

namespace Lightway.Tunnel.Packets;

/// <summary>
/// The part of a connection that runs per packet: inside packets are translated and leave by the Expresslane or the
/// control channel; packets from the peer are decrypted, reassembled and translated, and go to the TUN batch. One thread.
/// Allocates nothing per packet.
/// </summary>
internal sealed partial class PacketPath : IDisposable
{
    private const int TcpHeaders = 40; // bytes of IPv4 and TCP without options: what the MSS leaves out (RFC 9293 section 3.7.1)

    private readonly WorkerContext _worker;
    private readonly Envelope _envelope;
    private readonly SecureChannel _channel;
    private readonly ControlFrames _frames;
    private readonly IChannelOwner _owner;
    private readonly FragmentWriter _fragments;
    private readonly Reassembly _reassembly;
    private readonly uint _number; // tells the packets of this connection from others' in the TUN batch
    private readonly int _insideMtu; // bytes of the longest packet, to a peer over IPv4
    private readonly int _insideMtuIPv6;
    private readonly int _codecOverhead; // bytes that an encoded packet may have more
    private readonly byte _copiedTos; // bits of the TOS byte
    private readonly bool _isStream;
    private bool _isPlain; // packets from the peer pass, and nobody wants to see them
    private Translation _translation;
    private Traffic _traffic;
    private long _now; // of the latest Begin

    public PacketPath(
        ConnectionSettings settings,
        WorkerContext worker,
        Envelope envelope,
        SecureChannel channel,
        ControlFrames frames,
        IChannelOwner owner
    )
    {
        _frames = frames;
        _owner = owner;
        _worker = worker;
        _envelope = envelope;
        _channel = channel;
        _number = worker.NextNumber();
        _isStream = channel.Transport == Transport.Stream;
        if (settings.CreateHooks?.Invoke() is { } hooks)
        {
            Hooks = new PacketHooks(settings.Role, channel.Transport, hooks, this, worker, frames, owner);
            _codecOverhead = Hooks.CodecOverhead;
        }
        var expresslane = settings.EnableExpresslane && !_isStream;
        var outsideMtu = settings.OutsideMtu;
        _insideMtu = _isStream
            ? Sizes.MaxPacket
            : Sizes.insideMtu(outsideMtu, isIPv6: false, expresslane) - _codecOverhead;
        _insideMtuIPv6 = _isStream
            ? Sizes.MaxPacket
            : Sizes.insideMtu(outsideMtu, isIPv6: true, expresslane) - _codecOverhead;
        _copiedTos = settings.CopiedTos;
        Expresslane = new ExpresslaneChannel(
            settings.Role,
            expresslane,
            Time.spread(settings.ExpresslaneRotationMs, worker.Random.Next()),
            settings.ExpresslanePacketsPerKey,
            settings.Aeads,
            frames.Config,
            worker.Random
        );
        if (settings.EnablePathMtu && !_isStream)
        {
            Probes = new PathProbes(settings, worker, envelope, frames, owner);
        }
        _fragments = new FragmentWriter(channel, worker);
        _reassembly = new Reassembly(worker);
    }

    public ExpresslaneChannel Expresslane { get; }

    public ref readonly Traffic Traffic => ref _traffic;

    /// <summary>The connection's plugins and codec; null if it has none.</summary>
    public PacketHooks? Hooks { get; }

    /// <summary>Null: the outside MTU is taken for what the path carries.</summary>
    public PathProbes? Probes { get; }

    /// <summary>The connection is Online: packets pass.</summary>
    public bool IsOpen
    {
        get;
        set
        {
            field = value;
            _isPlain = value && Hooks is null;
        }
    }

    /// <summary>The addresses that the two ends exchange; until they are known, nothing passes.</summary>
    public Translation Translation
    {
        get => _translation;
        set => _translation = value;
    }

    /// <summary>
    /// Bytes of the longest packet that senders should make: its datagram is as long as the outside MTU allows, or what has
    /// been found of the path. Both may change, the address family of the peer, too.
    /// </summary>
    public int InsideMtu =>
        Probes is { } probes ? probes.InsideMtu - _codecOverhead
        : _envelope.Path.Peer.IsOverIPv6 ? _insideMtuIPv6
        : _insideMtu;

    /// <summary>Bytes of the longest outside IP packet that the path carries, as far as found; 0: not found.</summary>
    public int PathMtu => Probes?.Found ?? 0;

    /// <summary>Packets longer than <see cref="InsideMtu"/> are sent as well, each in several datagrams.</summary>
    public bool SplitsPackets => Probes is not null;

    /// <summary>The connection has come Online: its keys and its path are taken care of from now on.</summary>
    public void Online(long now)
    {
        Expresslane.Online(_envelope.Version, now);
        Probes?.Start(now);
    }

    /// <summary>Puts the addresses that the peer expects into a packet from the TUN device. False: counted, and to be dropped.</summary>
    /// <param name="packet">The packet or superpacket; changed in place.</param>
    /// <param name="checksum">State of its transport checksum field.</param>
    public bool TryTranslate(Span<byte> packet, TransportChecksum checksum)
    {
        if (_translation.IsNone)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidState);
            return false;
        }
        if (!TranslationModule.toPeer(_translation, packet, checksum))
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return false;
        }
        if (checksum == TransportChecksum.Complete && Rewrite.mayBeSyn(packet)) // a superpacket is never a SYN
        {
            ClampMss(packet);
        }
        return true;
    }

    /// <summary>Prepares for the segments of one superpacket or packet: renews keys, and limits runs by the worker's rate.</summary>
    public void Begin(long now)
    {
        _now = now;
        var timerAt = Expresslane.TimerAt;
        Expresslane.InsideTraffic(now);
        if (Expresslane.TimerAt != timerAt)
        {
            _owner.TimersMoved(); // an offer of keys is repeated until it is answered
        }
        _worker.ToOutside.Measure(now);
    }

    /// <summary>Encrypts one inside packet into the worker's batch.</summary>
    /// <param name="buffer">Holds the packet with at least <see cref="FrameModule.DataHeaderSize"/> bytes before it, which are overwritten.</param>
    /// <param name="offset">Where the packet starts.</param>
    /// <param name="length">Bytes of the packet.</param>
    public SendResult TrySend(Span<byte> buffer, int offset, int length) =>
        TrySend(buffer, offset, length, TosOf(buffer.Slice(offset, length)), isEncoded: false);

    /// <summary>As the other, for a packet that may have gone through a codec and has no IPv4 header then.</summary>
    /// <param name="tos">TOS byte of its datagram.</param>
    public SendResult TrySend(Span<byte> buffer, int offset, int length, byte tos, bool isEncoded)
    {
        if (!IsOpen)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidState);
            return SendResult.Dropped;
        }
        if (Probes is { } probes && length > probes.WholePacket)
        {
            return length > probes.WholeFrame
                ? TrySendFragments(buffer.Slice(offset, length), probes, tos, isEncoded)
                : TrySendFrame(FrameIn(buffer, offset, length), tos, isEncoded);
        }
        if (Probes is null && length > (isEncoded ? _insideMtu + _codecOverhead : _insideMtu))
        {
            _worker.Counters.Add(Counter.TunRejectedPacketTooBig);
            return SendResult.Dropped;
        }
        return Expresslane.IsReady && (!isEncoded || Expresslane.MarksEncoded)
            ? TrySendExpresslane(buffer.Slice(offset, length), tos, isEncoded)
            : TrySendFrame(FrameIn(buffer, offset, length), tos, isEncoded);
    }

    /// <summary>Decrypts one Expresslane packet and hands it to the TUN batch.</summary>
    /// <param name="session">Session id of the wire header that it came under.</param>
    /// <param name="frames">1 if the packet is authentic, else 0.</param>
    /// <returns>What ends the connection, or None.</returns>
    public TunnelError Receive(SessionId session, ReadOnlySpan<byte> body, out int frames)
    {
        frames = 0;
        var slot = _worker.ToInside.Reserve(TunBatch.SlotSize);
        switch (Expresslane.Open(session, body, slot, out var packet))
        {
            case OpenResult.Opened:
                frames = 1;
                _worker.Counters.Add(Counter.ExpresslanePacketsReceived);
                return packet.IsEncoded
                    ? Decode(slot[..packet.Length], _number, packet.Counter)
                    : DeliverSlot(slot[..packet.Length], _number, packet.Counter);
            case OpenResult.Replayed:
                _worker.Counters.Add(Counter.ExpresslaneReplayed);
                return TunnelError.None;
            case OpenResult.NoKey:
                _worker.Counters.Add(Counter.ExpresslaneDecryptNoKey);
                return TunnelError.None;
            case OpenResult.Forged:
                _worker.Counters.Add(Counter.ExpresslaneDecryptFailed);
                return TunnelError.None;
            default:
                _worker.Counters.Add(Counter.ExpresslaneTruncated);
                return TunnelError.None;
        }
    }

    /// <summary>Hands the packet of a Data or EncodedData frame to the TUN batch.</summary>
    /// <returns>What ends the connection, or None.</returns>
    public TunnelError Deliver(FrameKind kind, Span<byte> packet)
    {
        if (kind == FrameKind.Data && (packet.IsEmpty || packet[0] >> 4 != 4))
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return TunnelError.InvalidInsidePacket;
        }
        _worker.Counters.Add(_isStream ? Counter.TlsPacketsReceived : Counter.DtlsPacketsReceived);
        return kind == FrameKind.EncodedData ? Decode(packet, sender: 0, counter: 0)
            : _isPlain && _worker.ToInside.Holds(packet)
                ? DeliverSlot(packet, sender: 0, counter: 0, TunBatch.FrameRoom)
            : DeliverDecoded(packet, sender: 0, counter: 0);
    }

    /// <summary>Hands a copy of a packet of the peer to the TUN batch.</summary>
    /// <param name="sender">As in <see cref="TunBatch.Commit"/>.</param>
    /// <param name="counter">As in <see cref="TunBatch.Commit"/>.</param>
    /// <returns>What ends the connection, or None.</returns>
    public TunnelError DeliverDecoded(ReadOnlySpan<byte> packet, uint sender, ulong counter)
    {
        var slot = _worker.ToInside.Reserve(packet.Length);
        packet.CopyTo(slot);
        return DeliverSlot(slot, sender, counter);
    }

    /// <summary>Writes a packet into the TUN device as if it had come from the peer, past the plugins.</summary>
    public void Reply(ReadOnlySpan<byte> packet)
    {
        var slot = _worker.ToInside.Reserve(packet.Length);
        packet.CopyTo(slot);
        if (TryTranslateFromPeer(slot))
        {
            _worker.ToInside.Commit(packet.Length, sender: 0, counter: 0);
            _worker.ToInside.Flush();
        }
    }

    /// <summary>Adds a fragment; a packet that is complete goes to the TUN batch.</summary>
    /// <returns>What ends the connection, or None.</returns>
    public TunnelError Reassemble(in Frame frame, ReadOnlySpan<byte> payload, long now)
    {
        if (!_reassembly.TryComplete(frame, payload, now, out var packet))
        {
            return TunnelError.None;
        }
        _worker.Counters.Add(_isStream ? Counter.TlsPacketsReceived : Counter.DtlsPacketsReceived);
        return frame.Kind == FrameKind.EncodedDataFragment
            ? Decode(packet, sender: 0, counter: 0)
            : DeliverSlot(packet, sender: 0, counter: 0);
    }

    /// <summary>When <see cref="OnTimer"/> is due, in ms; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt =>
        Math.Min(
            Math.Min(Expresslane.TimerAt, Expresslane.HealthAt),
            Math.Min(_reassembly.ExpiresAt, Math.Min(Probes?.DueAt ?? long.MaxValue, Hooks?.DueAt ?? long.MaxValue))
        );

    public void OnTimer(long now)
    {
        if (now >= Expresslane.TimerAt)
        {
            Expresslane.Timer(now);
        }
        if (Expresslane.IsHealthDue(now))
        {
            _frames.Ping(Expresslane);
        }
        Probes?.OnTimer(now);
        Hooks?.OnTimer(now);
        _reassembly.Expire(now);
    }

    /// <summary>Processes an offer or an answer of Expresslane keys.</summary>
    /// <param name="payload">Wiped.</param>
    public void ConfigReceived(Span<byte> payload, ref Answers answers, long now)
    {
        ExpresslaneConfig config = default!;
        if (
            FrameModule.tryParseExpresslaneConfig(payload, ref config) == FrameStatus.Ok
            && (config.Ack || answers.TryGive(FrameKind.ExpresslaneConfig))
        )
        {
            payload.Clear(); // a key
            Expresslane.ConfigReceived(config, now);
        }
    }

    /// <summary>The TOS byte of the datagram of a packet that has been translated, and so is well-formed IPv4.</summary>
    public byte TosOf(ReadOnlySpan<byte> packet) => (byte)(packet[Ipv4.TosAt] & _copiedTos);

    public void Dispose()
    {
        _reassembly.Dispose();
        Hooks?.Dispose();
        Expresslane.Dispose();
    }

    /// <summary>A packet with the room for the header of its frame that is before it.</summary>
    private static Span<byte> FrameIn(Span<byte> buffer, int offset, int length) =>
        buffer.Slice(offset - FrameModule.DataHeaderSize, FrameModule.DataHeaderSize + length);

    private SendResult TrySendExpresslane(ReadOnlySpan<byte> packet, byte tos, bool isEncoded)
    {
        var length = WireHeaderModule.Size + ExpresslanePacket.Overhead + packet.Length;
        if (!_worker.ToOutside.TryReserve(_envelope.Path, length, tos, out var slot))
        {
            return SendResult.Blocked;
        }
        _envelope.WriteHeader(WirePayload.Expresslane, slot);
        var flags = isEncoded ? ExpresslanePacket.Encoded : (ushort)0;
        if (!Expresslane.TrySeal(_envelope.Outgoing, slot[WireHeaderModule.Size..], packet, flags, _worker.Random))
        {
            _worker.Counters.Add(Counter.ExpresslaneEncryptNoKey);
            return SendResult.Dropped;
        }
        _worker.ToOutside.Commit(length);
        _worker.Counters.Add(Counter.ExpresslanePacketsSent);
        CountSent(1, packet.Length);
        return SendResult.Accepted;
    }

    private SendResult TrySendFrame(Span<byte> frame, byte tos, bool isEncoded)
    {
        var length = frame.Length - FrameModule.DataHeaderSize;
        if (isEncoded)
        {
            FrameModule.writeEncodedDataHeader(length, frame);
        }
        else
        {
            FrameModule.writeDataHeader(length, frame);
        }
        var result = _channel.TrySendPacket(frame, tos);
        if (result == SendResult.Accepted)
        {
            _worker.Counters.Add(_isStream ? Counter.TlsPacketsSent : Counter.DtlsPacketsSent);
            CountSent(1, length);
        }
        return result;
    }

    private SendResult TrySendFragments(ReadOnlySpan<byte> packet, PathProbes probes, byte tos, bool isEncoded)
    {
        var isIPv6 = _envelope.Path.Peer.IsOverIPv6;
        var payload = Sizes.fragmentPayload(packet.Length, probes.OutsideSize, isIPv6);
        var result = _fragments.TrySend(packet, payload, tos, isEncoded);
        if (result == SendResult.Accepted)
        {
            _worker.Counters.Add(Counter.DtlsPacketsSent);
            CountSent(1, packet.Length);
        }
        return result;
    }

    /// <param name="count">Packets.</param>
    /// <param name="packet">Bytes of each.</param>
    private void CountSent(int count, int packet)
    {
        _worker.Counters.Add(Counter.TunToClient, count * packet);
        _traffic.CountOut(count, packet);
        Probes?.OnSent(packet, _now);
    }

    private TunnelError Decode(ReadOnlySpan<byte> encoded, uint sender, ulong counter) =>
        Hooks is { } hooks ? hooks.Decode(encoded, sender, counter) : TunnelError.CodecMissing;

    /// <summary>Translates the packet in the slot that the TUN batch gave, and commits it there.</summary>
    private TunnelError DeliverSlot(Span<byte> packet, uint sender, ulong counter, int at = 0)
    {
        if (
            (_isPlain || MayPass(packet))
            && TryTranslateFromPeer(packet)
            && (_worker.OutsideEcn == EcnCodepoint.NotEct || TryApplyEcn(packet))
        )
        {
            if (Rewrite.mayBeSyn(packet))
            {
                ClampMss(packet);
            }
            _traffic.CountIn(packet.Length);
            _worker.ToInside.Commit(packet.Length, sender, counter, at);
        }
        return TunnelError.None;
    }

    /// <summary>The connection is Online, and its plugins have nothing against the packet.</summary>
    private bool MayPass(Span<byte> packet)
    {
        if (IsOpen)
        {
            return Hooks?.Egress(packet) != false;
        }
        _worker.Counters.Add(Counter.FrameInvalidState);
        return false;
    }

    /// <summary>Puts the addresses that the TUN device expects into a packet of the peer. False: counted, and to be dropped.</summary>
    private bool TryTranslateFromPeer(Span<byte> packet)
    {
        if (_translation.IsNone)
        {
            _worker.Counters.Add(Counter.TunRejectedPacketNoClientIp);
            return false;
        }
        if (!TranslationModule.fromPeer(_translation, packet))
        {
            _worker.Counters.Add(Counter.TunRejectedPacketInvalidInsidePacket);
            return false;
        }
        return true;
    }

    /// <summary>Tells the answering TCP that no longer segments pass, so that it need not find out.</summary>
    private void ClampMss(Span<byte> packet)
    {
        var mtu = Math.Min(InsideMtu, _worker.InsideMtu);
        if (Rewrite.clampMss(packet, mtu - TcpHeaders) > 0)
        {
            _worker.Counters.Add(Counter.MssClamped);
        }
    }

    /// <summary>
    /// Gives a translated packet the ECN field with which it leaves the tunnel (RFC 6040 section 4.2). False: its sender
    /// does not understand the mark, so the packet is dropped and counted.
    /// </summary>
    private bool TryApplyEcn(Span<byte> packet)
    {
        var outside = _worker.OutsideEcn;
        if (Ecn.isUnexpected(Ecn.ofPacket(packet), outside))
        {
            _worker.Counters.Add(Counter.EcnUnexpected);
        }
        switch (Ecn.apply(packet, outside))
        {
            case EcnOutcome.Drop:
                _worker.Counters.Add(Counter.EcnDropped);
                return false;
            case EcnOutcome.Changed:
                _worker.Counters.Add(Counter.EcnChanged);
                return true;
            default:
                return true;
        }
    }
}

using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Packets;

/// <summary>Outcome of decrypting an Expresslane packet.</summary>
internal enum OpenResult
{
    Truncated = 0,
    Replayed,
    NoKey,
    Forged,
    Opened,
}

/// <summary>An Expresslane packet that has proved to be authentic.</summary>
/// <param name="Length">Bytes of the packet.</param>
/// <param name="Counter">Its place among the packets of its sender.</param>
/// <param name="IsEncoded">It went through a codec. Only version 2 can say so: version 1 does not authenticate the flags.</param>
internal readonly record struct OpenedPacket(int Length, ulong Counter, bool IsEncoded);

/// <summary>
/// The second data path of one connection: AES-256-GCM packets outside DTLS. Holds the ciphers and the replay window and
/// steps the pure key exchange, whose configs it hands to <c>send</c>. One thread.
/// </summary>
/// <param name="packetsPerKey">Packets after which the key changes.</param>
/// <param name="aeads">The library that seals and opens.</param>
/// <param name="random">Source of keys; null: one of its own.</param>
internal sealed class ExpresslaneChannel(
    Role role,
    bool enabled,
    long rotationIntervalMs,
    ulong packetsPerKey,
    PacketAeads aeads,
    Action<ExpresslaneConfig> send,
    RandomPool? random = null
) : IDisposable
{
    private const long HealthMs = 60_000;
    private readonly RandomPool _random = random ?? new RandomPool();
    private readonly ReplayWindow _replay = new();
    private ExpresslaneState _state = ExpresslaneKeys.create(role, enabled, rotationIntervalMs);
    private IPacketAead? _seal;
    private IPacketAead? _open;
    private IPacketAead? _openPrevious;
    private ulong _sent;
    private ulong _received;
    private ulong _usedUpAt = ulong.MaxValue; // value of _sent
    private ulong _judged; // packets, sent and received, at the latest look at the path's health

    /// <summary>Inside packets go this way now.</summary>
    public bool IsReady { get; private set; }

    /// <summary>A packet can be marked as encoded, so that the peer believes it.</summary>
    public bool MarksEncoded => _state.Version == 2;

    public long TimerAt => _state.TimerAt;

    /// <summary>When <see cref="IsHealthDue"/> is to be asked, in ms; <see cref="long.MaxValue"/>: never.</summary>
    public long HealthAt { get; private set; } = long.MaxValue;

    public ExpresslaneStatus Status => _state.Status;

    public void Online(ushort version, long now)
    {
        var fresh = FreshKey();
        Apply(ExpresslaneKeys.online(_state, version, now, fresh), now, fresh);
    }

    /// <param name="config">Its key array is owned from here on.</param>
    public void ConfigReceived(ExpresslaneConfig config, long now)
    {
        var fresh = FreshKey();
        Apply(ExpresslaneKeys.configReceived(_state, config, _sent > 0, now, fresh), now, fresh, config.Key);
    }

    public void Timer(long now) => Apply(ExpresslaneKeys.timer(_state, now), now);

    public void PongReceived(ReadOnlySpan<byte> payload, long now) =>
        Apply(ExpresslaneKeys.pongReceived(_state, payload, _sent, _received, now), now);

    /// <summary>
    /// True when packets have passed for so long without a look at the counters of both ends that the peer must be asked for
    /// its own, by a ping. Idle connections are left alone.
    /// </summary>
    public bool IsHealthDue(long now)
    {
        if (now < HealthAt)
        {
            return false;
        }
        HealthAt = now + HealthMs;
        var isDue = _judged != _sent + _received;
        _judged = _sent + _received;
        return isDue;
    }

    /// <summary>Inside traffic is about to be sent: renews the key when due.</summary>
    public void InsideTraffic(long now)
    {
        if (_sent >= _usedUpAt)
        {
            _usedUpAt += packetsPerKey; // asked for once, and again if nothing comes of it
            _state = ExpresslaneKeys.usedUp(_state);
        }
        if (now >= _state.RotateAt)
        {
            var fresh = FreshKey();
            Apply(ExpresslaneKeys.insideTraffic(_state, now, fresh), now, fresh);
        }
    }

    /// <summary>Keepalive payload: empty unless ready. Returns its bytes.</summary>
    public int WriteHealth(Span<byte> destination) =>
        IsReady ? ExpresslaneHealthModule.write(_sent, _received, destination) : 0;

    /// <summary>Seals one inside packet straight into its place.</summary>
    /// <param name="session">Session id of the wire header.</param>
    /// <param name="body">The datagram after its wire header: overhead and packet, exactly.</param>
    /// <param name="packet">The inside packet.</param>
    /// <param name="flags">0, or <see cref="ExpresslanePacket.Encoded"/>.</param>
    /// <param name="random">Source of the IV.</param>
    /// <returns>False if there is no key or the library failed: nothing may be sent.</returns>
    public bool TrySeal(SessionId session, Span<byte> body, ReadOnlySpan<byte> packet, ushort flags, RandomPool random)
    {
        if (_seal is null)
        {
            return false;
        }
        var counter = ++_sent;
        ExpresslanePacket.writeHeader(counter, packet.Length, flags, body);
        var iv = body.Slice(ExpresslanePacket.IvAt, PacketAeads.IvSize);
        random.FillIv(iv);
        Span<byte> aad = stackalloc byte[ExpresslanePacket.MaxAadSize];
        var aadLength = ExpresslanePacket.writeAad(session, counter, flags, _state.Version, aad);
        return _seal.Seal(
            packet,
            body.Slice(ExpresslanePacket.PayloadAt, packet.Length),
            iv,
            body.Slice(ExpresslanePacket.TagAt, PacketAeads.TagSize),
            aad[..aadLength]
        );
    }

    /// <summary>Opens one packet into <paramref name="plaintext"/>; its counter is spent only if it is authentic.</summary>
    /// <param name="session">Session id of the wire header it came under.</param>
    /// <param name="body">The datagram after its wire header.</param>
    /// <param name="plaintext">Room for the packet, apart from <paramref name="body"/>: a failed attempt must not spoil the second.</param>
    public OpenResult Open(SessionId session, ReadOnlySpan<byte> body, Span<byte> plaintext, out OpenedPacket opened)
    {
        opened = default;
        ExpresslaneView view = default;
        if (!ExpresslanePacket.tryParse(body, ref view) || view.Length > plaintext.Length)
        {
            return OpenResult.Truncated;
        }
        if (!_replay.IsFresh(view.Counter))
        {
            return OpenResult.Replayed;
        }
        if (_open is null)
        {
            return OpenResult.NoKey;
        }
        Span<byte> aad = stackalloc byte[ExpresslanePacket.MaxAadSize];
        aad = aad[..ExpresslanePacket.writeAad(session, view.Counter, view.Flags, _state.Version, aad)];
        var ciphertext = body.Slice(ExpresslanePacket.PayloadAt, view.Length);
        var iv = body.Slice(ExpresslanePacket.IvAt, PacketAeads.IvSize);
        var tag = body.Slice(ExpresslanePacket.TagAt, PacketAeads.TagSize);
        var packet = plaintext[..view.Length];
        if (
            !_open.Open(ciphertext, packet, iv, tag, aad)
            && _openPrevious?.Open(ciphertext, packet, iv, tag, aad) != true
        )
        {
            return OpenResult.Forged;
        }
        if (!_replay.Commit(view.Counter))
        {
            return OpenResult.Replayed;
        }
        _received++;
        var encoded = _state.Version == 2 && (view.Flags & ExpresslanePacket.Encoded) != 0;
        opened = new OpenedPacket(view.Length, view.Counter, encoded);
        return OpenResult.Opened;
    }

    public void Dispose()
    {
        _seal?.Dispose();
        _open?.Dispose();
        _openPrevious?.Dispose();
        Wipe(ExpresslaneKeys.arraysOf(_state));
    }

    private byte[] FreshKey()
    {
        var key = new byte[PacketAeads.KeySize];
        _random.Fill(key);
        return key;
    }

    private void Apply(ExpresslaneStep step, long now, params byte[][] given)
    {
        var discarded = ExpresslaneKeys.discarded(_state, step.State, given);
        _state = step.State;
        if (step.SelfKeyChanged)
        {
            Replace(ref _seal, _state.SelfKey);
            _usedUpAt = _sent + packetsPerKey;
        }
        if (step.PeerKeyChanged)
        {
            Replace(ref _open, _state.PeerKey);
            Replace(ref _openPrevious, _state.PreviousPeerKey);
        }
        IsReady = _state.Ready && _seal is not null;
        HealthAt = !IsReady ? long.MaxValue : Math.Min(HealthAt, now + HealthMs);
        if (step.Ack.IsSome)
        {
            send(step.Ack.Value);
        }
        if (step.Offer.IsSome)
        {
            send(step.Offer.Value);
        }
        Wipe(discarded);
    }

    private static void Wipe(byte[][] keys)
    {
        foreach (var key in keys)
        {
            CryptographicOperations.ZeroMemory(key);
        }
    }

    private void Replace(ref IPacketAead? cipher, byte[]? key)
    {
        cipher?.Dispose();
        // The all-zero key is the protocol's word for "none". Without memory there is none either: packets take the DTLS
        // path, and those from the peer are counted as lost until it does the same.
        cipher = key is null || key.AsSpan().IndexOfAnyExcept((byte)0) < 0 ? null : aeads.TryCreate(key);
    }
}

using Lightway.Protocol;
using Lightway.Tunnel.Hooks;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// Encrypted datagrams on their way out, back to back in runs. A run has one peer and leaves as one UDP_SEGMENT send (Linux
/// 4.18): all its datagrams but the last have the length of the first, the stride; a shorter one closes it. All have one TOS
/// byte, as a send has only one. A run holds at
/// most <c>maxSegments</c> datagrams and the largest UDP payload over IPv4 (65507 bytes; RFC 768), also for IPv6, whose
/// addresses include mapped IPv4 ones, and at most what the batch sends within <c>maxBurstMicroseconds</c> at its recent
/// rate (<see cref="BurstRate"/>). Runs of several peers, and full runs of one, share a system call (sendmmsg). The
/// datagrams of a peer keep their order. The mirror of <see cref="Tun.TunBatch"/>.
/// </summary>
/// <remarks>
/// Nothing that was accepted is lost silently. When the socket is full the batch stays as it is, <see cref="IsBlocked"/>
/// is set, and <see cref="Flush"/> resumes at the first unsent byte once the socket is writable. When the kernel refuses to
/// segment, the same bytes leave one datagram at a time. If it then takes one of them, and its refusal was EIO (no checksum
/// offload on the way out) or EOPNOTSUPP, segmentation goes off for that address family for a minute. EINVAL may be about the
/// path of one peer, so it goes off for that peer, and for the family only after several. If the kernel takes no datagram,
/// the peer's address was to blame (EINVAL: port 0). A single datagram that is refused is counted and skipped. One
/// thread.
/// </remarks>
public sealed class SendBatch : IDisposable
{
    /// <summary>Runs per system call.</summary>
    public const int MaxRuns = 16;

    private const int MaxPayload = 65507;
    private const int LaneSize = 65536 + 320; // no multiple of 4096: starts of lanes don't compete for cache lines
    private const int FullAt = 128 * 1024; // bytes; more would leave the cache before they are sent
    private const int Attempts = 3; // for errors that report an earlier datagram's fate, or a moment's lack of memory

    private readonly IDatagramSender _sender;
    private readonly Counters _counters;
    private readonly int _maxSegments;
    private readonly int _maxBurstMicroseconds;
    private readonly OutsidePlugins? _plugins;
    private readonly Slab _bytes; // a lane for each run
    private readonly DatagramRun[] _runs;
    private readonly State[] _states;
    private Latch _ipv4Latch; // of segmentation: the route may lead over another device a minute later
    private Latch _ipv6Latch;
    private readonly RefusedPeers _refusedPeers = new();
    private int _first; // run not sent, or not sent whole
    private int _used; // runs
    private int _current; // run of the slot reserved last
    private int _reserved; // bytes of that slot
    private int _length; // bytes appended
    private BurstRate _rate = BurstRateModule.create(now: 0);
    private long _appended; // bytes, since the latest Measure
    private int _longestRun = MaxPayload; // bytes

    /// <param name="maxSegments">Datagrams per run; 1: no offload at all, a system call for each.</param>
    /// <param name="maxBurstMicroseconds">See <see cref="Offload.MaxBurstMicroseconds"/>.</param>
    public SendBatch(IDatagramSender sender, Counters counters, int maxSegments, int maxBurstMicroseconds)
        : this(sender, counters, maxSegments, maxBurstMicroseconds, null) { }

    /// <param name="maxSegments">Datagrams per run; 1: no offload at all, a system call for each.</param>
    /// <param name="maxBurstMicroseconds">See <see cref="Offload.MaxBurstMicroseconds"/>.</param>
    /// <param name="plugins">Asked about each datagram before the first attempt to send it; null: there are none.</param>
    internal SendBatch(
        IDatagramSender sender,
        Counters counters,
        int maxSegments,
        int maxBurstMicroseconds,
        OutsidePlugins? plugins
    )
    {
        _maxBurstMicroseconds = maxBurstMicroseconds;
        _plugins = plugins;
        ArgumentOutOfRangeException.ThrowIfLessThan(maxSegments, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(maxSegments, Offload.UdpMaxSegments);
        _sender = sender;
        _counters = counters;
        _maxSegments = maxSegments;
        var lanes = maxSegments == 1 ? 1 : MaxRuns;
        _bytes = new Slab(lanes * LaneSize);
        _runs = new DatagramRun[lanes];
        _states = new State[lanes];
        for (var i = 0; i < lanes; i++)
        {
            _runs[i].Start = i * LaneSize;
        }
    }

    private struct State
    {
        public int Count; // datagrams
        public bool IsClosed; // a shorter datagram was appended: nothing may follow
        public bool IsSingle; // leaves one datagram at a time
        public int Refusal; // errno of the refused segmentation that made it so; 0: none, or its cause is known
        public int Sent; // bytes that the kernel has accepted
    }

    /// <summary>The socket was full at the last flush: wait until it is writable, then flush again.</summary>
    public bool IsBlocked { get; private set; }

    /// <summary>Runs leave segmented over this address family. Any thread.</summary>
    public bool Segments(bool ipv6) => _maxSegments > 1 && LatchOf(ipv6).IsOn;

    /// <summary>Called when the kernel refuses to segment for an address family, and segmentation goes off for it.</summary>
    public Action<CapabilityRefused>? Refused { get; set; }

    /// <summary>The slot that <see cref="TryReserve"/> gave last, until it is committed.</summary>
    public Span<byte> Reserved =>
        _bytes.Slice(_runs[_current].Start + (_current == _used ? 0 : _runs[_current].Length), _reserved);

    /// <summary>Bytes of the first unsent datagram.</summary>
    private int NextDatagram => Math.Min(_runs[_first].Stride, _runs[_first].Length - _states[_first].Sent);

    /// <summary>
    /// Limits the runs that follow by the recent rate of all that was appended, at <paramref name="now"/> ms. Call before the
    /// packets of a wake-up, or more often.
    /// </summary>
    public void Measure(long now)
    {
        if (_maxBurstMicroseconds > 0)
        {
            _rate = BurstRateModule.sent(_rate, now, _appended);
            _appended = 0;
            _longestRun = (int)Math.Min(BurstRateModule.limit(_rate, _maxBurstMicroseconds), MaxPayload);
        }
    }

    /// <summary>
    /// Makes room for a datagram of <paramref name="length"/> bytes, flushing if there is none. The slot becomes part of
    /// the batch with <see cref="Commit"/>; until then it may be reserved again.
    /// </summary>
    /// <param name="tos">See <see cref="DatagramRun"/>.</param>
    /// <returns>False if the socket is full: nothing was reserved, try again after a successful flush.</returns>
    public bool TryReserve(in OutsideAddress path, int length, byte tos, out Span<byte> slot)
    {
        slot = default;
        if (IsBlocked && !Flush())
        {
            return false;
        }
        var run = NewestOf(path.Peer);
        if (run < 0 || !Fits(run, path.Peer, length, tos))
        {
            if ((_used == _runs.Length || _length >= FullAt) && !Flush())
            {
                return false;
            }
            run = _used;
            _runs[run].Path = path;
            _runs[run].Tos = tos;
        }
        _current = run;
        _reserved = length;
        slot = Reserved;
        return true;
    }

    /// <summary>
    /// As the other, for datagrams of one length, one behind the other in one run: as many as it takes, at least one and at
    /// most <paramref name="count"/>.
    /// </summary>
    /// <param name="length">Bytes of each.</param>
    /// <param name="slots">A multiple of <paramref name="length"/>.</param>
    public bool TryReserve(in OutsideAddress path, int length, int count, byte tos, out Span<byte> slots)
    {
        if (!TryReserve(path, length, tos, out slots))
        {
            return false;
        }
        var (used, bytes) = _current == _used ? (0, 0) : (_states[_current].Count, _runs[_current].Length);
        if ((used == 0 || length == _runs[_current].Stride) && MaySegment(path.Peer))
        {
            count = Math.Min(count, Math.Min(_maxSegments - used, (_longestRun - bytes) / length));
            _reserved = Math.Max(count, 1) * length;
            slots = Reserved;
        }
        return true;
    }

    /// <summary>Appends the first <paramref name="count"/> datagrams of those reserved last.</summary>
    /// <param name="length">Bytes of each.</param>
    public void Commit(int length, int count)
    {
        Commit(length);
        _runs[_current].Length += length * (count - 1);
        _states[_current].Count += count - 1;
        Count(length * (count - 1));
    }

    /// <summary>Appends the slot reserved last.</summary>
    public void Commit(int length)
    {
        ref var run = ref _runs[_current];
        ref var state = ref _states[_current];
        if (_current == _used)
        {
            run.Length = 0;
            run.Stride = length;
            state = default;
            _used++;
        }
        run.Length += length;
        state.Count++;
        state.IsClosed = length < run.Stride;
        Count(length);
    }

    private void Count(int bytes)
    {
        _length += bytes;
        _appended += bytes;
    }

    /// <summary>Hands all that waits to the kernel.</summary>
    /// <returns>False if the socket is full; the rest waits.</returns>
    public bool Flush()
    {
        if (_plugins is not null && !IsBlocked) // nothing is appended while the socket is full
        {
            AskPlugins(_plugins);
        }
        IsBlocked = false;
        while (_first < _used)
        {
            if (!SendNext())
            {
                IsBlocked = true;
                _counters.Add(Counter.UdpSendBlocked);
                return false;
            }
        }
        _first = 0;
        _used = 0;
        _length = 0;
        return true;
    }

    /// <summary>Call about once per second: a family that was turned off a minute ago is tried again.</summary>
    public void Tick()
    {
        _ipv4Latch.Tick();
        _ipv6Latch.Tick();
        _refusedPeers.Tick();
    }

    public void Dispose() => _bytes.Dispose();

    /// <summary>Takes the datagrams out that a plugin drops, and runs of which nothing is left.</summary>
    private void AskPlugins(OutsidePlugins plugins)
    {
        for (var i = 0; i < _used; )
        {
            ref var run = ref _runs[i];
            run.Length = plugins.Egress(_bytes.Slice(run.Start, run.Length), run.Stride, out _states[i].Count);
            if (run.Length > 0)
            {
                run.Stride = Math.Min(run.Stride, run.Length);
                i++;
                continue;
            }
            var empty = run; // its lane is used again
            _used--;
            _runs.AsSpan(i + 1, _used - i).CopyTo(_runs.AsSpan(i));
            _states.AsSpan(i + 1, _used - i).CopyTo(_states.AsSpan(i));
            _runs[_used] = empty;
        }
    }

    /// <summary>The only run of the peer that may be appended to without breaking its order; -1: it has none.</summary>
    private int NewestOf(in PeerAddress peer)
    {
        for (var i = _used - 1; i >= _first; i--)
        {
            if (_runs[i].Path.Peer == peer)
            {
                return i;
            }
        }
        return -1;
    }

    private bool Fits(int run, in PeerAddress peer, int length, byte tos) =>
        _states[run] is { IsClosed: false, Sent: 0 }
        && length <= _runs[run].Stride
        && tos == _runs[run].Tos
        && _states[run].Count < _maxSegments
        && _runs[run].Length + length <= _longestRun
        && MaySegment(peer);

    private bool MaySegment(in PeerAddress peer) =>
        LatchOf(peer.IsIPv6).IsOn && (_refusedPeers.IsEmpty || !_refusedPeers.Contains(peer));

    private ref Latch LatchOf(bool v6) => ref v6 ? ref _ipv6Latch : ref _ipv4Latch;

    /// <summary>One send: as many runs as may leave whole, or a datagram of one that may not. False: the socket is full.</summary>
    private bool SendNext()
    {
        var whole = 0;
        while (_first + whole < _used && LeavesWhole(_first + whole))
        {
            whole++;
        }
        for (var attempt = 1; ; attempt++)
        {
            _counters.Add(Counter.UdpSends);
            _counters.Add(Counter.UdpBatchSends);
            var result = whole > 0 ? SendRuns(whole) : SendDatagram();
            if (result >= 0)
            {
                return true;
            }
            ref var state = ref _states[_first];
            var segmented = whole > 0 && _runs[_first].SegmentSize > 0;
            switch (-result)
            {
                case Linux.EAGAIN:
                    return false;
                case Linux.ECONNREFUSED or Linux.ENOBUFS or Linux.EPERM when attempt < Attempts:
                    break;
                case Linux.EIO or Linux.EINVAL or Linux.EOPNOTSUPP when segmented:
                    state.IsSingle = true;
                    state.Refusal = -result;
                    return true; // progress: the same bytes leave one by one
                case Linux.EMSGSIZE when segmented:
                    _counters.Add(Counter.UdpGsoTooBig);
                    state.IsSingle = true;
                    return true;
                default:
                    if (segmented)
                    {
                        state.IsSingle = true; // lose no more than must be
                        return true;
                    }
                    _counters.Add(-result == Linux.EMSGSIZE ? Counter.UdpSendTooBig : Counter.UdpSendFailed);
                    Advance(NextDatagram);
                    return true;
            }
        }
    }

    private bool LeavesWhole(int run) =>
        _states[run] is { IsSingle: false, Sent: 0 } && (_states[run].Count == 1 || MaySegment(_runs[run].Path.Peer));

    private int SendRuns(int count)
    {
        var runs = _runs.AsSpan(_first, count);
        var result = _sender.Send(runs, _bytes.Span);
        var datagrams = 0;
        for (var i = 0; i < result; i++)
        {
            datagrams += _states[_first + i].Count;
            _counters.SegmentsPerRun.Observe(_states[_first + i].Count);
            CountSent(_states[_first + i].Count, runs[i].Length);
            if (runs[i].SegmentSize > 0)
            {
                _counters.Add(Counter.UdpGsoSends);
                _counters.Add(Counter.UdpGsoSegments, _states[_first + i].Count);
            }
        }
        if (result > 0)
        {
            _counters.DatagramsPerSend.Observe(datagrams);
            _first += result;
        }
        return result;
    }

    private int SendDatagram()
    {
        ref var run = ref _runs[_first];
        var length = NextDatagram;
        var result = _sender.Send(run.Path, _bytes.Slice(run.Start + _states[_first].Sent, length), 0, run.Tos);
        if (result >= 0)
        {
            CountSent(1, length);
            _counters.SegmentsPerRun.Observe(1);
            _counters.DatagramsPerSend.Observe(1);
            ref var refusal = ref _states[_first].Refusal;
            if (refusal != 0)
            {
                TurnOff(refusal, run.Path.Peer);
                refusal = 0;
            }
            Advance(length);
        }
        return result;
    }

    private void CountSent(int datagrams, int bytes)
    {
        _counters.Add(Counter.UdpDatagramsSent, datagrams);
        _counters.Add(Counter.UdpBytesSent, bytes);
    }

    private void Advance(int length)
    {
        _states[_first].Sent += length;
        if (_states[_first].Sent == _runs[_first].Length)
        {
            _first++;
        }
    }

    private void TurnOff(int errno, in PeerAddress peer)
    {
        if (errno == Linux.EINVAL && _refusedPeers.TryAdd(peer))
        {
            _counters.Add(Counter.UdpGsoPeerFallbacks);
            return;
        }
        var v6 = peer.IsIPv6;
        LatchOf(v6).TurnOff();
        _counters.Add(Counter.UdpGsoFallbacks);
        Refused?.Invoke(new CapabilityRefused(v6 ? Capability.UdpGsoIPv6 : Capability.UdpGsoIPv4, errno));
    }
}

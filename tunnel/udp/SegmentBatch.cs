namespace Lightway.Tunnel.Udp;

/// <summary>
/// Datagrams of one peer, sealed back to back, that leave in one system call (UDP_SEGMENT, Linux 4.18). All but the last
/// have the length of the first, the stride; a shorter one closes the batch. Bounds: <c>maxSegments</c>, and the largest
/// UDP payload over IPv4 (65507 bytes; RFC 768), for IPv6 too: its addresses include mapped IPv4 ones.
/// </summary>
/// <remarks>
/// Nothing accepted is lost silently. When the socket is full the batch stays as it is, <see cref="IsBlocked"/> is set,
/// and <see cref="Flush"/> resumes at the first unsent byte once the socket is writable. When the kernel refuses to
/// segment, the same bytes leave one datagram at a time. If it then takes one of them, and what it said before was EIO
/// (no checksum offload on the way out), EINVAL or EOPNOTSUPP, segmentation goes off for that address family for a
/// minute; if it takes none, the peer's address was to blame (EINVAL: port 0). A single datagram that is refused is
/// counted and skipped. One thread.
/// </remarks>
public sealed class SegmentBatch : IDisposable
{
    /// <summary>UDP_MAX_SEGMENTS of kernels before 6.9 (128 since; linux/udp.h).</summary>
    public const int MaxSegments = 64;

    private const int MaxPayload = 65507;
    private const int RearmTicks = 60; // the route may lead over another device by then
    private const int Attempts = 3; // for errors that report an earlier datagram's fate, or a moment's lack of memory

    private readonly IDatagramSender _sender;
    private readonly Counters _counters;
    private readonly int _maxSegments;
    private readonly Slab _slots = new(MaxPayload + 1);
    private OutsideAddress _path;
    private int _offIPv4; // segmentation is off for so many ticks
    private int _offIPv6;
    private bool _closed; // a shorter datagram was appended: nothing may follow
    private bool _single; // this batch leaves one datagram at a time
    private int _refusal; // errno of the refused segmentation that made it so; 0: none, or its cause is known
    private int _length; // bytes appended
    private int _sent; // bytes of them that the kernel has accepted

    /// <param name="maxSegments">Datagrams per system call; 1 sends each alone, without UDP_SEGMENT.</param>
    public SegmentBatch(IDatagramSender sender, Counters counters, int maxSegments)
    {
        ArgumentOutOfRangeException.ThrowIfLessThan(maxSegments, 1);
        ArgumentOutOfRangeException.ThrowIfGreaterThan(maxSegments, MaxSegments);
        (_sender, _counters, _maxSegments) = (sender, counters, maxSegments);
    }

    /// <summary>Datagrams waiting.</summary>
    public int Count { get; private set; }

    /// <summary>Bytes of every datagram but the last.</summary>
    public int Stride { get; private set; }

    /// <summary>The socket was full at the last flush: wait until it is writable, then flush again.</summary>
    public bool IsBlocked { get; private set; }

    /// <summary>Called when the kernel refuses to segment for a family: errno, and whether it is IPv6.</summary>
    public Action<int, bool>? SegmentationOff { get; set; }

    /// <summary>
    /// Makes room for a datagram of <paramref name="length"/> bytes, flushing what can't share a system call with it.
    /// The slot becomes part of the batch with <see cref="Commit"/>; until then it may be reserved again.
    /// </summary>
    /// <returns>False if the socket is full: nothing was reserved, try again after a successful flush.</returns>
    public bool TryReserve(in OutsideAddress path, int length, out Span<byte> slot)
    {
        if (Count > 0 && !Fits(path, length) && !Flush())
        {
            slot = default;
            return false;
        }
        if (Count == 0)
        {
            _path = path;
        }
        slot = _slots.Slice(_length, length);
        return true;
    }

    /// <summary>Appends the slot reserved last.</summary>
    public void Commit(int length)
    {
        if (Count == 0)
        {
            Stride = length;
        }
        _closed = length < Stride;
        _length += length;
        Count++;
    }

    /// <summary>Hands all that waits to the kernel.</summary>
    /// <returns>False if the socket is full; the rest waits.</returns>
    public bool Flush()
    {
        IsBlocked = false;
        while (_sent < _length)
        {
            if (!SendNext())
            {
                IsBlocked = true;
                _counters.Add(Counter.UdpSendBlocked);
                return false;
            }
        }
        (Count, Stride, _length, _sent, _closed, _single, _refusal) = (0, 0, 0, 0, false, false, 0);
        return true;
    }

    /// <summary>Call about once a second: a family that was turned off a minute ago is tried again.</summary>
    public void Tick()
    {
        _offIPv4 = Math.Max(0, _offIPv4 - 1);
        _offIPv6 = Math.Max(0, _offIPv6 - 1);
    }

    public void Dispose() => _slots.Dispose();

    private bool Fits(in OutsideAddress path, int length) =>
        !_closed
        && length <= Stride
        && Count < _maxSegments
        && _length + length <= MaxPayload
        && (path.Peer.IsIPv6 ? _offIPv6 : _offIPv4) == 0
        && _sent == 0
        && path.Peer == _path.Peer;

    /// <summary>One send: the whole batch, or its next datagram. False: the socket is full.</summary>
    private bool SendNext()
    {
        var rest = _slots.Slice(_sent, _length - _sent);
        var segmented = !_single && rest.Length > Stride && (_path.Peer.IsIPv6 ? _offIPv6 : _offIPv4) == 0;
        var data = segmented ? rest : rest[..Math.Min(Stride, rest.Length)];
        for (var attempt = 1; ; attempt++)
        {
            var result = _sender.Send(_path, data, segmented ? Stride : 0);
            _counters.Add(Counter.UdpSends);
            _counters.Add(Counter.UdpBatchSends);
            if (result >= 0)
            {
                var datagrams = (data.Length + Stride - 1) / Stride;
                _counters.Add(Counter.UdpDatagramsSent, datagrams);
                _counters.Add(Counter.UdpBytesSent, data.Length);
                if (segmented)
                {
                    _counters.Add(Counter.UdpGsoSends);
                    _counters.Add(Counter.UdpGsoSegments, datagrams);
                }
                else if (_refusal != 0)
                {
                    TurnOff(_refusal);
                    _refusal = 0;
                }
                _sent += data.Length;
                return true;
            }
            switch (-result)
            {
                case Linux.EAGAIN:
                    return false;
                case Linux.ECONNREFUSED or Linux.ENOBUFS or Linux.EPERM when attempt < Attempts:
                    break;
                case Linux.EIO or Linux.EINVAL or Linux.EOPNOTSUPP when segmented:
                    (_single, _refusal) = (true, -result);
                    return true; // progress: the same bytes leave one by one
                case Linux.EMSGSIZE when segmented:
                    _counters.Add(Counter.UdpGsoTooBig);
                    _single = true;
                    return true;
                default:
                    if (segmented)
                    {
                        _single = true; // lose no more than must be
                        return true;
                    }
                    _counters.Add(-result == Linux.EMSGSIZE ? Counter.UdpSendTooBig : Counter.UdpSendFailed);
                    _sent += data.Length;
                    return true;
            }
        }
    }

    private void TurnOff(int errno)
    {
        ref var off = ref _path.Peer.IsIPv6 ? ref _offIPv6 : ref _offIPv4;
        off = RearmTicks;
        _counters.Add(Counter.UdpGsoFallbacks);
        SegmentationOff?.Invoke(errno, _path.Peer.IsIPv6);
    }
}

namespace Lightway.Tunnel;

/// <summary>
/// Frames that another worker has read from its TUN queue, for a connection of this one. The kernel sends a flow out of
/// the queue that last wrote its reverse direction, so this is for a flow's first packets; they are copied. Bounded: when
/// it is full the frame is dropped and counted, as by a full queue of the device. Any thread posts, one reads.
/// </summary>
/// <param name="hasVnetHeader">Frames start with a virtio_net_hdr.</param>
public sealed class Mailbox(bool hasVnetHeader) : IInsideSource, IDisposable
{
    private const int Capacity = 32; // frames
    private const int SlotSize = Tun.TunQueue.MaxFrame + 5; // a multiple of 16
    private readonly Lock _gate = new();
    private readonly int[] _lengths = new int[Capacity];
    private Slab? _frames; // 2 MiB, once it is needed
    private int _head;
    private int _count;

    public bool HasVnetHeader => hasVnetHeader;

    /// <summary>A frame waits. Any thread; may be a moment old.</summary>
    public bool HasFrames => Volatile.Read(ref _count) > 0;

    /// <summary>Called after a post to an empty mailbox. Any thread.</summary>
    public Action? Posted { get; set; }

    /// <summary>False: it is full.</summary>
    public bool TryPost(ReadOnlySpan<byte> frame)
    {
        bool first;
        lock (_gate)
        {
            if (_count == Capacity || frame.Length > SlotSize)
            {
                return false;
            }
            _frames ??= new Slab(Capacity * SlotSize);
            var slot = (_head + _count) % Capacity;
            frame.CopyTo(_frames.Slice(slot * SlotSize, frame.Length));
            _lengths[slot] = frame.Length;
            first = _count++ == 0;
        }
        if (first)
        {
            Posted?.Invoke();
        }
        return true;
    }

    public int Read(Span<byte> buffer)
    {
        lock (_gate)
        {
            if (_count == 0 || _frames is null)
            {
                return -Linux.EAGAIN;
            }
            var length = _lengths[_head];
            _frames.Slice(_head * SlotSize, length).CopyTo(buffer);
            _head = (_head + 1) % Capacity;
            _count--;
            return length;
        }
    }

    public void Dispose() => _frames?.Dispose();
}

using System.Runtime.InteropServices;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Tun;

/// <summary>
/// Frames that another worker has read from its TUN queue for a connection of this one. Where the kernel chooses the queue
/// (<see cref="QueueSteering"/> is off), these are the first packets of a flow, and flows without a reverse direction.
/// They are copied into a ring of 2 MiB, which holds 1600 packets of 1300 bytes or 32 superpackets. When it is full the
/// frame is dropped and counted, as a full queue of the device would do. Any thread posts, one reads.
/// </summary>
/// <param name="hasVnetHeader">Frames start with a virtio_net_hdr.</param>
public sealed class Mailbox(bool hasVnetHeader) : ITunReader, IDisposable
{
    private const int Capacity = 1 << 21; // bytes
    private const int Prefix = sizeof(int); // before each frame: its length
    private const int Skip = -1; // instead of a length: go on at the start
    private readonly Lock _gate = new();
    private Slab? _ring; // allocated by the first post
    private int _head; // where the oldest frame is
    private int _tail; // where the next one goes
    private int _count;

    public bool HasVnetHeader => hasVnetHeader;

    public Counter Reads => Counter.MailboxReads;

    /// <summary>A frame waits. Any thread; the answer may be a moment old.</summary>
    public bool HasFrames => Volatile.Read(ref _count) > 0;

    /// <summary>Called after a post to an empty mailbox. Any thread.</summary>
    public Action? Posted { get; set; }

    /// <summary>False: there is no room.</summary>
    public bool TryPost(ReadOnlySpan<byte> frame)
    {
        bool first;
        lock (_gate)
        {
            _ring ??= new Slab(Capacity);
            var length = SizeOf(frame.Length);
            if (!TryFindRoom(length))
            {
                return false;
            }
            LengthAt(_tail) = frame.Length;
            frame.CopyTo(_ring.Slice(_tail + Prefix, frame.Length));
            _tail += length;
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
            if (_count == 0 || _ring is null)
            {
                return -Linux.EAGAIN;
            }
            if (Capacity - _head < Prefix || LengthAt(_head) == Skip)
            {
                _head = 0;
            }
            var length = LengthAt(_head);
            _ring.Slice(_head + Prefix, length).CopyTo(buffer);
            _head += SizeOf(length);
            _count--;
            return length;
        }
    }

    public void Dispose() => _ring?.Dispose();

    /// <summary>Bytes of a frame in the ring; a multiple of 4, so that prefixes are aligned.</summary>
    private static int SizeOf(int frame) => Prefix + ((frame + 3) & ~3);

    /// <summary>Moves the tail to <paramref name="length"/> contiguous free bytes; false if there are none.</summary>
    private bool TryFindRoom(int length)
    {
        if (_count == 0)
        {
            (_head, _tail) = (0, 0);
        }
        if (_count > 0 && _tail <= _head)
        {
            return length <= _head - _tail;
        }
        if (length <= Capacity - _tail)
        {
            return true;
        }
        if (length > _head)
        {
            return false;
        }
        if (Capacity - _tail >= Prefix)
        {
            LengthAt(_tail) = Skip;
        }
        _tail = 0;
        return true;
    }

    private ref int LengthAt(int offset) => ref MemoryMarshal.AsRef<int>(_ring!.Slice(offset, Prefix));
}

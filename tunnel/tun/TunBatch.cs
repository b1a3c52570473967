using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Tun;

/// <summary>
/// Decrypted packets on their way into the TUN device: the window of one receive. A packet is decrypted into the slot that
/// <see cref="Reserve"/> gives and stays there. <see cref="Flush"/> puts the packets of each connection back into the
/// order in which they were sealed, lets the coalescer find the runs that a TSO or USO superpacket can replace, and writes
/// each superpacket in one system call, gathered where its packets lie. The mirror of <see cref="Udp.SendBatch"/>.
/// </summary>
/// <remarks>
/// Nothing is lost when the kernel refuses a superpacket: its packets are still there and are written one by one. EINVAL
/// (kernels that check the header in another way) turns superpackets of that protocol off for a minute. One thread.
/// </remarks>
public sealed class TunBatch : IDisposable
{
    /// <summary>Packets per window; each write gathers fewer pieces than IOV_MAX (1024).</summary>
    public const int MaxPackets = 512;

    /// <summary>Bytes of a slot that holds any packet of one datagram.</summary>
    public const int SlotSize = 2048;

    /// <summary>Bytes before a packet that is put into a slot together with the header of its frame.</summary>
    public const int FrameRoom = Line;

    private const int ArenaSize = 512 * 1024;
    private const int Line = 16; // alignment of packets

    private readonly ITunWriter _tun;
    private readonly Counters _counters;
    private readonly Coalescer _coalescer = new(MaxPackets);
    private readonly Slab _arena = new(ArenaSize);
    private readonly Slab _header = new(VirtioNetHeaderModule.Size + Coalesce.MaxHeaderLength);
    private readonly IoVector[] _pieces = GC.AllocateUninitializedArray<IoVector>(MaxPackets + 1, pinned: true);
    private readonly Entry[] _entries = new Entry[MaxPackets];
    private readonly int[] _sorted = new int[MaxPackets];
    private readonly bool _tcp;
    private readonly bool _udp;
    private Latch _tcpLatch;
    private Latch _udpLatch;
    private int _count;
    private int _tail; // where the next slot starts
    private bool _disordered;

    /// <param name="tcp">TCP segments may share a superpacket.</param>
    /// <param name="udp">UDP datagrams may share a superpacket.</param>
    public TunBatch(ITunWriter tun, Counters counters, bool tcp, bool udp)
    {
        _tun = tun;
        _counters = counters;
        _tcp = tcp && tun.HasVnetHeader;
        _udp = udp && tun.HasVnetHeader;
    }

    private struct Entry
    {
        public int Offset;
        public int Length;
        public uint Sender;
        public ulong Counter;

        /// <summary>Both are of one sender, and this one was sealed first.</summary>
        public readonly bool IsOlderThan(in Entry other) =>
            Sender == other.Sender && Sender != 0 && Counter < other.Counter;
    }

    /// <summary>Called when the kernel refuses superpackets of a protocol, which are off then.</summary>
    public Action<CapabilityRefused>? Refused { get; set; }

    /// <summary>TCP segments share superpackets. Any thread.</summary>
    public bool MergesTcp => _tcp && _tcpLatch.IsOn;

    /// <summary>UDP datagrams share superpackets. Any thread.</summary>
    public bool MergesUdp => _udp && _udpLatch.IsOn;

    /// <summary>
    /// Makes room for a packet, flushing if there is none. The slot becomes part of the batch with <see cref="Commit"/>;
    /// until then it may be reserved again.
    /// </summary>
    /// <param name="length">Bytes; at most 65535, the longest IPv4 packet.</param>
    public Span<byte> Reserve(int length)
    {
        if (ArenaSize - _tail < length)
        {
            Flush();
        }
        return _arena.Slice(_tail, length);
    }

    /// <summary>The packet starts <see cref="FrameRoom"/> bytes behind the start of the slot that is reserved next or was last.</summary>
    public bool Holds(ReadOnlySpan<byte> packet) =>
        _arena.Span.Overlaps(packet, out var offset) && offset == _tail + FrameRoom;

    /// <summary>Appends the packet in the slot reserved last; the next flush writes it.</summary>
    /// <param name="length">Bytes of the packet.</param>
    /// <param name="sender">Number of the connection that it came from; 0: it follows what came before.</param>
    /// <param name="counter">Its place among the packets of its sender; without meaning for sender 0.</param>
    /// <param name="at">Where in the slot it starts: at its start, or <see cref="FrameRoom"/> bytes behind it.</param>
    public void Commit(int length, uint sender, ulong counter, int at = 0)
    {
        ref var entry = ref _entries[_count];
        entry.Offset = _tail + at;
        entry.Length = length;
        entry.Sender = sender;
        entry.Counter = counter;
        _disordered |= _count > 0 && entry.IsOlderThan(_entries[_count - 1]);
        _count++;
        _tail = (_tail + at + length + Line - 1) & -Line;
        if (_count == MaxPackets || ArenaSize - _tail < SlotSize)
        {
            Flush();
        }
    }

    /// <summary>Writes everything.</summary>
    public void Flush()
    {
        if (_count == 0)
        {
            return;
        }
        _coalescer.MergeTcp = MergesTcp;
        _coalescer.MergeUdp = MergesUdp;
        if (_disordered)
        {
            Sort();
        }
        if (_count > 1 && (_coalescer.MergeTcp || _coalescer.MergeUdp))
        {
            WriteRuns();
        }
        else
        {
            for (var i = 0; i < _count; i++)
            {
                WriteAlone(At(i));
            }
        }
        _count = 0;
        _tail = 0;
        _disordered = false;
    }

    /// <summary>Call about once per second: what was refused a minute ago is tried again.</summary>
    public void Tick()
    {
        _tcpLatch.Tick();
        _udpLatch.Tick();
    }

    public void Dispose()
    {
        _arena.Dispose();
        _header.Dispose();
    }

    /// <summary>Index of the i-th packet to write.</summary>
    private int At(int i) => _disordered ? _sorted[i] : i;

    private ReadOnlySpan<byte> Packet(int index) => _arena.Slice(_entries[index].Offset, _entries[index].Length);

    /// <summary>Insertion sort: it is stable, and quick on packets that are almost sorted.</summary>
    private void Sort()
    {
        for (var i = 0; i < _count; i++)
        {
            var j = i;
            for (; j > 0 && _entries[i].IsOlderThan(_entries[_sorted[j - 1]]); j--)
            {
                _sorted[j] = _sorted[j - 1];
            }
            _sorted[j] = i;
        }
        _counters.Add(Counter.TunReordered);
    }

    private void WriteRuns()
    {
        _coalescer.Reset();
        for (var i = 0; i < _count; i++)
        {
            _coalescer.Add(Packet(At(i)), At(i));
        }
        for (var i = 0; i < _coalescer.Count; i++)
        {
            var run = _coalescer.Run(i);
            if (run.Count == 1 || !TryWriteSuperpacket(i, run))
            {
                for (var index = run.First; index >= 0; index = _coalescer.Next(index))
                {
                    WriteAlone(index);
                }
            }
        }
    }

    private bool TryWriteSuperpacket(int number, in CoalescedRun run)
    {
        if (!(run.IsTcp ? _tcpLatch : _udpLatch).IsOn)
        {
            return false; // refused a moment ago, in this very flush
        }
        _pieces[0] = _header.Vector(0, _coalescer.WriteHeader(number, _header.Span));
        var count = 1;
        for (var index = run.First; index >= 0; index = _coalescer.Next(index))
        {
            ref var entry = ref _entries[index];
            _pieces[count++] = _arena.Vector(entry.Offset + run.HeaderLength, entry.Length - run.HeaderLength);
        }
        _counters.Add(Counter.TunWrites);
        var result = _tun.WriteGathered(_pieces.AsSpan(0, count));
        if (result < 0)
        {
            OnRefused(-result, run.IsTcp);
            return false;
        }
        _counters.Add(Counter.TunSuperpacketsWritten);
        _counters.Add(Counter.TunSegmentsWritten, run.Count);
        CountWritten(run.Count, run.PacketLength + ((run.Count - 1) * run.HeaderLength));
        return true;
    }

    private void OnRefused(int errno, bool isTcp)
    {
        _counters.Add(Counter.TunSuperpacketsRefused);
        if (errno == Linux.EINVAL)
        {
            (isTcp ? ref _tcpLatch : ref _udpLatch).TurnOff();
            _counters.Add(Counter.TunGroFallbacks);
            Refused?.Invoke(
                new CapabilityRefused(isTcp ? Capability.TunTcpSuperpackets : Capability.TunUdpSuperpackets, errno)
            );
        }
    }

    private void WriteAlone(int index)
    {
        _counters.Add(Counter.TunWrites);
        if (_tun.Write(Packet(index)) < 0)
        {
            _counters.Add(Counter.InsideIoSendFailed);
            return;
        }
        CountWritten(1, _entries[index].Length);
    }

    private void CountWritten(int packets, int bytes)
    {
        _counters.Add(Counter.TunPacketsWritten, packets);
        _counters.Add(Counter.TunWriteBytes, bytes);
        _counters.Add(Counter.TunFromClient, bytes);
    }
}

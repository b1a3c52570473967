using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Tun;

/// <summary>Some bytes of a frame: struct iovec (bits/types/struct_iovec.h).</summary>
[StructLayout(LayoutKind.Sequential)]
public readonly struct IoVector(nint address, nint length)
{
    public readonly nint Address = address;
    public readonly nint Length = length;
}

/// <summary>Where packets from outside go: the TUN, or a script in a test.</summary>
public interface IInsideSink
{
    /// <summary>Frames start with a virtio_net_hdr (10 bytes): superpackets can be written.</summary>
    bool HasVnetHeader { get; }

    /// <summary>Writes one plain IP packet in one system call. Returns 0, or -errno.</summary>
    int Write(ReadOnlySpan<byte> packet);

    /// <summary>Writes one frame, gathered from its pieces, in one system call; its first 10 bytes are the virtio_net_hdr.</summary>
    /// <returns>0, or -errno.</returns>
    int WriteGathered(ReadOnlySpan<IoVector> pieces);
}

/// <summary>
/// Opened packets on their way into the TUN: the window of one receive. Packets are opened into <see cref="Tail"/> and
/// stay there; <see cref="Flush"/> puts those of one connection that follow each other back into the order in which they
/// were sealed, lets the coalescer find what a TSO or USO superpacket can replace, and writes each superpacket in one system call, gathered where it lies.
/// </summary>
/// <remarks>
/// Nothing is lost when the kernel refuses a superpacket: its packets are still there and are written one by one. EINVAL
/// (kernels that check the header in another way) turns superpackets of that protocol off, for a while. One thread.
/// </remarks>
public sealed unsafe class TunBatch : IDisposable
{
    /// <summary>Packets of a window; each write gathers fewer pieces than IOV_MAX (1024).</summary>
    public const int MaxPackets = 512;

    /// <summary>Bytes that <see cref="Tail"/> always has: more than any datagram of the protocol.</summary>
    public const int TailRoom = 2048;

    private const int ArenaSize = 512 * 1024;
    private const int RearmTicks = 60; // a refusal may have had a reason that is gone
    private const int Line = 16; // alignment of packets

    private readonly IInsideSink _sink;
    private readonly Counters _counters;
    private readonly Coalescer _coalescer = new(MaxPackets);
    private readonly Slab _arena = new(ArenaSize);
    private readonly Slab _header = new(VirtioNetHeaderModule.Size + Coalesce.MaxHeaderLength);
    private readonly IoVector[] _pieces = GC.AllocateUninitializedArray<IoVector>(MaxPackets + 1, pinned: true);
    private readonly int[] _offsets = new int[MaxPackets];
    private readonly int[] _lengths = new int[MaxPackets];
    private readonly ulong[] _order = new ulong[MaxPackets];
    private readonly int[] _sorted = new int[MaxPackets];
    private readonly bool _tcp;
    private readonly bool _udp;
    private int _tcpOffTicks; // superpackets are off for so many ticks
    private int _udpOffTicks;
    private int _count;
    private int _tail;
    private bool _disordered;

    /// <param name="tcp">TCP segments may share a superpacket.</param>
    /// <param name="udp">UDP datagrams may.</param>
    public TunBatch(IInsideSink sink, Counters counters, bool tcp, bool udp)
    {
        (_sink, _counters) = (sink, counters);
        (_tcp, _udp) = (tcp && sink.HasVnetHeader, udp && sink.HasVnetHeader);
    }

    /// <summary>Called when the kernel refuses a superpacket and its protocol goes off: errno, and whether it was TCP.</summary>
    public Action<int, bool>? SuperpacketsOff { get; set; }

    /// <summary>Where the next packet is best opened: what lies here is not copied again. At least <see cref="TailRoom"/> bytes.</summary>
    public Span<byte> Tail => _arena.Span[_tail..];

    /// <summary>
    /// Where the next packets stand among those of their connection: the upper 26 bits name the connection, the lower 38
    /// count. 0: not known, they follow what came before.
    /// </summary>
    public ulong Order { get; set; }

    /// <summary>Takes a packet; it is written by the next flush.</summary>
    public void Append(ReadOnlySpan<byte> packet)
    {
        var offset = (long)Unsafe.ByteOffset(ref _arena.Span[0], ref MemoryMarshal.GetReference(packet));
        if (offset < _tail || offset > ArenaSize - packet.Length)
        {
            if (packet.Length > ArenaSize - _tail)
            {
                Flush();
            }
            offset = _tail;
            packet.CopyTo(_arena.Span[_tail..]);
        }
        (_offsets[_count], _lengths[_count], _order[_count]) = ((int)offset, packet.Length, Order);
        _disordered |= _count > 0 && IsOlder(Order, _order[_count - 1]);
        _count++;
        _tail = ((int)offset + packet.Length + Line - 1) & -Line;
        if (_count == MaxPackets || ArenaSize - _tail < TailRoom)
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
        (_coalescer.MergeTcp, _coalescer.MergeUdp) = (_tcp && _tcpOffTicks == 0, _udp && _udpOffTicks == 0);
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
        (_count, _tail, _disordered) = (0, 0, false);
    }

    /// <summary>Call about once a second: what was refused a minute ago is tried again.</summary>
    public void Tick()
    {
        _tcpOffTicks = Math.Max(0, _tcpOffTicks - 1);
        _udpOffTicks = Math.Max(0, _udpOffTicks - 1);
    }

    public void Dispose()
    {
        _arena.Dispose();
        _header.Dispose();
    }

    private static bool IsOlder(ulong order, ulong previous) => order < previous && order >> 38 == previous >> 38;

    /// <summary>Index of the i-th packet to write.</summary>
    private int At(int i) => _disordered ? _sorted[i] : i;

    private ReadOnlySpan<byte> Packet(int index) => _arena.Slice(_offsets[index], _lengths[index]);

    /// <summary>Insertion sort: stable, and quick on what is almost sorted.</summary>
    private void Sort()
    {
        for (var i = 0; i < _count; i++)
        {
            var j = i;
            for (; j > 0 && IsOlder(_order[i], _order[_sorted[j - 1]]); j--)
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
        if ((run.IsTcp ? _tcpOffTicks : _udpOffTicks) > 0)
        {
            return false; // refused a moment ago, in this very flush
        }
        _pieces[0] = new IoVector((nint)_header.Pointer, _coalescer.WriteHeader(number, _header.Span));
        var count = 1;
        for (var index = run.First; index >= 0; index = _coalescer.Next(index))
        {
            _pieces[count++] = new IoVector(
                (nint)(_arena.Pointer + _offsets[index] + run.HeaderLength),
                _lengths[index] - run.HeaderLength
            );
        }
        _counters.Add(Counter.TunWrites);
        var result = _sink.WriteGathered(_pieces.AsSpan(0, count));
        if (result < 0)
        {
            Refused(-result, run.IsTcp);
            return false;
        }
        _counters.Add(Counter.TunSuperpacketsWritten);
        _counters.Add(Counter.TunSegmentsWritten, run.Count);
        Written(run.Count, run.PacketLength + ((run.Count - 1) * run.HeaderLength));
        return true;
    }

    private void Refused(int errno, bool isTcp)
    {
        _counters.Add(Counter.TunSuperpacketsRefused);
        if (errno == Linux.EINVAL)
        {
            (isTcp ? ref _tcpOffTicks : ref _udpOffTicks) = RearmTicks;
            _counters.Add(Counter.TunGroFallbacks);
            SuperpacketsOff?.Invoke(errno, isTcp);
        }
    }

    private void WriteAlone(int index)
    {
        _counters.Add(Counter.TunWrites);
        if (_sink.Write(Packet(index)) < 0)
        {
            _counters.Add(Counter.InsideIoSendFailed);
            return;
        }
        Written(1, _lengths[index]);
    }

    private void Written(int packets, int bytes)
    {
        _counters.Add(Counter.TunPacketsWritten, packets);
        _counters.Add(Counter.TunWriteBytes, bytes);
        _counters.Add(Counter.TunFromClient, bytes);
    }
}

using Lightway.Tunnel.Kernel;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Udp;

/// <summary>What the kernel says about a received buffer besides its bytes.</summary>
/// <param name="Local">The address of ours the datagrams were sent to, if the socket is bound to the wildcard.</param>
/// <param name="SegmentSize">Bytes of each datagram in the buffer but the last; 0: it is one datagram.</param>
/// <param name="Overflows">Datagrams dropped since the socket was opened because its buffer was full (modulo 2^32).</param>
/// <param name="Tos">The second byte of their IPv4 headers, or their traffic class: the kernel puts only equal ones together.</param>
public readonly record struct ReceiveControl(LocalAddress Local, int SegmentSize, uint Overflows, byte Tos);

/// <summary>
/// Slots for one recvmmsg(2). With UDP_GRO (linux/udp.h, Linux 5.0) each takes a run of datagrams of one sender, equal in
/// length but for the last; without, one datagram: larger than any that the protocol knows (1553 bytes); a longer one is
/// cut by the kernel and marked. What the accessors return is valid until the next receive.
/// </summary>
public sealed unsafe class ReceiveBatch : IDisposable
{
    private const int SingleCapacity = 64;
    private const int SingleSlotSize = 2048;
    private const int CoalescedCapacity = 16;

    // More than the largest UDP payload (a shorter slot would lose the tail), and no multiple of 4096, so that the first
    // bytes of all slots don't compete for the same lines of the cache.
    private const int CoalescedSlotSize = 65536 + 320;
    private const int MessageSize = 64; // sizeof(struct mmsghdr)
    private const int VectorSize = 16;
    private const int ControlSize = 160; // pktinfo of both families (32 and 40 bytes); UDP_GRO, SO_RXQ_OVFL, TOS (24 each)
    private readonly int _slotSize;
    private readonly Slab _wiring;
    private readonly Slab _slots;

    /// <param name="coalesced">The socket has UDP_GRO on.</param>
    public ReceiveBatch(bool coalesced)
    {
        Capacity = coalesced ? CoalescedCapacity : SingleCapacity;
        _slotSize = coalesced ? CoalescedSlotSize : SingleSlotSize;
        _wiring = new Slab(Capacity * (MessageSize + VectorSize + SocketAddressBytes.Capacity + ControlSize));
        _slots = new Slab(Capacity * _slotSize);
        var vectors = (iovec*)(_wiring.Pointer + (Capacity * MessageSize));
        for (var i = 0; i < Capacity; i++)
        {
            vectors[i].iov_base = _slots.Pointer + (i * _slotSize);
            vectors[i].iov_len = _slotSize;
            var header = Header(i);
            header->msg_iov = vectors + i;
            header->msg_iovlen = 1;
            header->msg_name = Name(i);
            header->msg_control = Control(i);
        }
    }

    /// <summary>Buffers per receive.</summary>
    public int Capacity { get; }

    private mmsghdr* Messages => (mmsghdr*)_wiring.Pointer;

    /// <summary>The bytes of one datagram, or of a run; may be overwritten in place.</summary>
    public Span<byte> Bytes(int i) => new(_slots.Pointer + (i * _slotSize), (int)Messages[i].msg_len);

    public bool IsTruncated(int i) => (Header(i)->msg_flags & Linux.MSG_TRUNC) != 0;

    public PeerAddress Peer(int i) => new(new ReadOnlySpan<byte>(Name(i), (int)(uint)Header(i)->msg_namelen));

    public ReceiveControl ReadControl(int i)
    {
        LocalAddress local = default;
        var segmentSize = 0;
        var overflows = 0u;
        byte tos = 0;
        var left = (long)(uint)Header(i)->msg_controllen;
        for (var cmsg = Control(i); left >= Linux.CmsgHeader; )
        {
            var length = *(long*)cmsg;
            if (length < Linux.CmsgHeader || length > left)
            {
                break;
            }
            var data = cmsg + Linux.CmsgHeader;
            var (level, type, room) = (*(int*)(cmsg + 8), *(int*)(cmsg + 12), length - Linux.CmsgHeader);
            if (level == IPPROTO_IP && type == Linux.IP_PKTINFO && room >= 12)
            {
                local = new LocalAddress(new ReadOnlySpan<byte>(data + 4, 4)); // ipi_spec_dst
            }
            else if (level == IPPROTO_IPV6 && type == Linux.IPV6_PKTINFO && room >= 20)
            {
                local = new LocalAddress(new ReadOnlySpan<byte>(data, 16));
            }
            else if (level == Linux.SOL_UDP && type == Linux.UDP_GRO && room >= 4)
            {
                segmentSize = *(int*)data;
            }
            else if (level == SOL_SOCKET && type == Linux.SO_RXQ_OVFL && room >= 4)
            {
                overflows = *(uint*)data;
            }
            else if (level == IPPROTO_IP && type == Linux.IP_TOS && room >= 1)
            {
                tos = *data; // a byte here, an int when it is sent
            }
            else if (level == IPPROTO_IPV6 && type == Linux.IPV6_TCLASS && room >= 4)
            {
                tos = (byte)*(int*)data;
            }
            var step = (length + 7) & ~7L;
            cmsg += step;
            left -= step;
        }
        return new ReceiveControl(local, segmentSize, overflows, tos);
    }

    /// <summary>Resets what the kernel overwrote in the last receive.</summary>
    internal mmsghdr* Prepare()
    {
        for (var i = 0; i < Capacity; i++)
        {
            var header = Header(i);
            header->msg_namelen = SocketAddressBytes.Capacity;
            header->msg_controllen = ControlSize;
            header->msg_flags = 0;
        }
        return Messages;
    }

    public void Dispose()
    {
        _wiring.Dispose();
        _slots.Dispose();
    }

    /// <summary>A struct mmsghdr starts with its msghdr.</summary>
    private msghdr* Header(int i) => (msghdr*)(Messages + i);

    private byte* Name(int i) =>
        _wiring.Pointer + (Capacity * (MessageSize + VectorSize)) + (i * SocketAddressBytes.Capacity);

    private byte* Control(int i) =>
        _wiring.Pointer + (Capacity * (MessageSize + VectorSize + SocketAddressBytes.Capacity)) + (i * ControlSize);
}

using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// Slots for one recvmmsg(2). What the accessors return is valid until the next receive. Each slot is larger than any
/// datagram the protocol knows (1553 bytes); a longer one is cut by the kernel and marked.
/// </summary>
public sealed unsafe class ReceiveBatch : IDisposable
{
    /// <summary>Datagrams per receive.</summary>
    public const int Capacity = 64;

    /// <summary>Bytes of a slot.</summary>
    public const int SlotSize = 2048;

    private const int MessageSize = 64; // sizeof(struct mmsghdr)
    private const int VectorSize = 16;
    private const int ControlSize = 64;
    private const int NamesAt = Capacity * (MessageSize + VectorSize);
    private const int ControlsAt = NamesAt + (Capacity * SocketAddressBytes.Capacity);
    private readonly Slab _wiring = new(ControlsAt + (Capacity * ControlSize));
    private readonly Slab _slots = new(Capacity * SlotSize);

    public ReceiveBatch()
    {
        var vectors = (iovec*)(_wiring.Pointer + (Capacity * MessageSize));
        for (var i = 0; i < Capacity; i++)
        {
            vectors[i].iov_base = _slots.Pointer + (i * SlotSize);
            vectors[i].iov_len = SlotSize;
            var header = Header(i);
            header->msg_iov = vectors + i;
            header->msg_iovlen = 1;
            header->msg_name = Name(i);
            header->msg_control = Control(i);
        }
    }

    private mmsghdr* Messages => (mmsghdr*)_wiring.Pointer;

    /// <summary>The datagram's bytes; may be overwritten in place.</summary>
    public Span<byte> Datagram(int i) => new(_slots.Pointer + (i * SlotSize), (int)Messages[i].msg_len);

    public bool IsTruncated(int i) => (Header(i)->msg_flags & Linux.MSG_TRUNC) != 0;

    public PeerAddress Peer(int i) => new(new ReadOnlySpan<byte>(Name(i), (int)(uint)Header(i)->msg_namelen));

    /// <summary>The address of ours the datagram was sent to, if the socket is bound to the wildcard.</summary>
    public LocalAddress Local(int i)
    {
        var left = (long)(uint)Header(i)->msg_controllen;
        for (var cmsg = Control(i); left >= Linux.CmsgHeader; )
        {
            var length = *(long*)cmsg;
            if (length < Linux.CmsgHeader || length > left)
            {
                break;
            }
            var (level, type) = (*(int*)(cmsg + 8), *(int*)(cmsg + 12));
            if (level == IPPROTO_IP && type == Linux.IP_PKTINFO && length >= Linux.CmsgHeader + 12)
            {
                return new LocalAddress(new ReadOnlySpan<byte>(cmsg + Linux.CmsgHeader + 4, 4)); // ipi_spec_dst
            }
            if (level == IPPROTO_IPV6 && type == Linux.IPV6_PKTINFO && length >= Linux.CmsgHeader + 20)
            {
                return new LocalAddress(new ReadOnlySpan<byte>(cmsg + Linux.CmsgHeader, 16));
            }
            var step = (length + 7) & ~7L;
            cmsg += step;
            left -= step;
        }
        return default;
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

    private byte* Name(int i) => _wiring.Pointer + NamesAt + (i * SocketAddressBytes.Capacity);

    private byte* Control(int i) => _wiring.Pointer + ControlsAt + (i * ControlSize);
}

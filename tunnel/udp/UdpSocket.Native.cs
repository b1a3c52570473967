using System.Net;
using System.Net.Sockets;
using Lightway.Tunnel.Filters;
using Lightway.Tunnel.Kernel;
using Tmds.Linux;
using static Tmds.Linux.LibC;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// The outside socket: non-blocking, sets DF only on request (IP_PMTUDISC_OMIT), reports and chooses the local address when bound to
/// the wildcard. All structures a send needs are wired once; a send rewrites lengths only.
/// </summary>
public sealed unsafe class UdpSocket : IDatagramSender, IDisposable
{
    private const int Messages = SendBatch.MaxRuns; // per call
    private const int MessageSize = 64; // struct mmsghdr
    private const int PartsAt = Messages * MessageSize; // iovec, name and control of each message
    private const int NameAt = 16;
    private const int ControlAt = NameAt + SocketAddressBytes.Capacity;
    private const int ControlSize = 96; // pktinfo (32 or 40 bytes), UDP_SEGMENT and TOS (24 bytes each)
    private const int PartsSize = ControlAt + ControlSize;
    private bool _forbidsFragments;
    private StrangerGate? _gate;
    private int _gateIndex;
    private readonly Slab _wiring = new(PartsAt + (Messages * PartsSize));

    private UdpSocket(int fd, bool wildcard)
    {
        Fd = fd;
        IsWildcard = wildcard;
        for (var i = 0; i < Messages; i++)
        {
            var parts = PartsOf(i);
            var header = Header(i);
            header->msg_name = parts + NameAt;
            header->msg_iov = (iovec*)parts;
            header->msg_iovlen = 1;
            header->msg_control = parts + ControlAt;
        }
    }

    public int Fd { get; }

    /// <summary>Bound to 0.0.0.0 or [::]: datagrams report the local address that they were sent to.</summary>
    public bool IsWildcard { get; }

    /// <summary>The kernel knows UDP_SEGMENT (Linux 4.18).</summary>
    public bool SupportsSegmentation { get; private init; }

    /// <summary>UDP_GRO is on: one buffer may hold a run of datagrams.</summary>
    public bool IsCoalescing { get; private init; }

    /// <summary>Address and port the socket is bound to.</summary>
    public required IPEndPoint LocalEndPoint { get; init; }

    /// <param name="local">Address and port; port 0 picks one. [::] serves both families.</param>
    /// <param name="sendBuffer">SO_SNDBUF in bytes, by *FORCE if allowed, else as far as sysctls go; 0 keeps the default.</param>
    /// <param name="receiveBuffer">SO_RCVBUF, likewise.</param>
    /// <param name="mark">SO_MARK, or 0.</param>
    /// <param name="coalesce">Receive runs of datagrams as one buffer (UDP_GRO), if the kernel can.</param>
    /// <param name="share">Several sockets of this process share the port (SO_REUSEPORT).</param>
    /// <exception cref="IOException">The address can't be bound.</exception>
    public static UdpSocket Bind(
        IPEndPoint local,
        int sendBuffer,
        int receiveBuffer,
        uint mark,
        bool coalesce,
        bool share = false
    )
    {
        var v6 = local.AddressFamily == AddressFamily.InterNetworkV6;
        var fd = socket(v6 ? AF_INET6 : AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0)
        {
            throw Linux.Failure(Linux.Errno, "socket");
        }
        try
        {
            var wildcard = local.Address.Equals(IPAddress.Any) || local.Address.Equals(IPAddress.IPv6Any);
            Require(fd, IPPROTO_IP, Linux.IP_MTU_DISCOVER, Linux.PMTUDISC_OMIT, "IP_MTU_DISCOVER");
            if (v6)
            {
                Require(fd, IPPROTO_IPV6, Linux.IPV6_V6ONLY, 0, "IPV6_V6ONLY");
                Require(fd, IPPROTO_IPV6, Linux.IPV6_MTU_DISCOVER, Linux.PMTUDISC_OMIT, "IPV6_MTU_DISCOVER");
                Require(fd, IPPROTO_IPV6, Linux.IPV6_RECVPKTINFO, wildcard ? 1 : 0, "IPV6_RECVPKTINFO");
                Require(fd, IPPROTO_IPV6, Linux.IPV6_RECVTCLASS, 1, "IPV6_RECVTCLASS");
            }
            else
            {
                Require(fd, IPPROTO_IP, Linux.IP_PKTINFO, wildcard ? 1 : 0, "IP_PKTINFO");
            }
            Require(fd, IPPROTO_IP, Linux.IP_RECVTOS, 1, "IP_RECVTOS"); // of mapped IPv4 addresses, too
            if (share)
            {
                Require(fd, SOL_SOCKET, Linux.SO_REUSEPORT, 1, "SO_REUSEPORT");
            }
            if (mark != 0)
            {
                Require(fd, SOL_SOCKET, SO_MARK, (int)mark, "SO_MARK");
            }
            _ = Set(fd, SOL_SOCKET, Linux.SO_RXQ_OVFL, 1); // else overflows are not counted
            SetBuffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, sendBuffer);
            SetBuffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, receiveBuffer);
            var name = stackalloc byte[SocketAddressBytes.Capacity];
            var address = new PeerAddress(local);
            address.CopyTo(new Span<byte>(name, SocketAddressBytes.Capacity));
            if (bind(fd, (sockaddr*)name, address.Length) < 0)
            {
                var errno = Linux.Errno;
                var holder = errno == Linux.EADDRINUSE ? PortHolder.Find("udp", local.Port) : null;
                throw Linux.Failure(errno, $"bind UDP {local}{(holder is null ? "" : $" ({holder} has the port)")}");
            }
            socklen_t length = SocketAddressBytes.Capacity;
            if (getsockname(fd, (sockaddr*)name, &length) < 0)
            {
                throw Linux.Failure(Linux.Errno, "getsockname");
            }
            return new UdpSocket(fd, wildcard)
            {
                LocalEndPoint = new PeerAddress(new ReadOnlySpan<byte>(name, SocketAddressBytes.Capacity)).ToEndPoint(),
                // 0 asks whether the option exists without leaving it on for every later send.
                SupportsSegmentation = Set(fd, Linux.SOL_UDP, Linux.UDP_SEGMENT, 0),
                IsCoalescing = coalesce && TurnOnGro(fd),
            };
        }
        catch
        {
            close(fd);
            throw;
        }
    }

    /// <summary>
    /// Binds sockets that share one address. Datagrams with a session id go to the socket whose number is the remainder of
    /// the id; see <see cref="SessionIdSource"/>. Where the kernel takes no such program, its hash of the addresses chooses,
    /// <paramref name="unsteered"/> is called, and a client that moves may have to start again.
    /// </summary>
    /// <exception cref="IOException">The address can't be bound.</exception>
    public static UdpSocket[] BindGroup(
        IPEndPoint local,
        int count,
        int buffer,
        bool coalesce,
        Action<IOException> unsteered
    )
    {
        if (count > 1)
        {
            // Another process of the same user would not be refused, but joined: its group would be this one.
            Bind(local, 0, 0, mark: 0, coalesce: false).Dispose();
        }
        var sockets = new List<UdpSocket>();
        try
        {
            for (var i = 0; i < count; i++)
            {
                var address = i == 0 ? local : sockets[0].LocalEndPoint;
                sockets.Add(Bind(address, buffer, buffer, mark: 0, coalesce, share: count > 1));
            }
            if (count > 1 && !ReusePort.SteerBySession(sockets[0].Fd, count))
            {
                unsteered(Linux.Failure(Linux.Errno, "setsockopt SO_ATTACH_REUSEPORT_CBPF"));
            }
            return [.. sockets];
        }
        catch
        {
            sockets.ForEach(socket => socket.Dispose());
            throw;
        }
    }

    /// <summary>
    /// From now on no datagram is fragmented, here or on its way: DF is set, and a datagram that is too long for the device
    /// fails with EMSGSIZE.
    /// </summary>
    /// <exception cref="IOException">The kernel refuses.</exception>
    public void ForbidFragments()
    {
        if (!TrySetDiscovery(Linux.PMTUDISC_PROBE))
        {
            throw Linux.Failure(Linux.Errno, "setsockopt IP_MTU_DISCOVER");
        }
        _forbidsFragments = true;
    }

    /// <summary>From now on floods of strangers are dropped before they wait in this socket. False: the kernel does not let us.</summary>
    /// <param name="index">The socket's number at the gate.</param>
    public bool TryGuard(StrangerGate gate, int index, out string reason)
    {
        if (!gate.TryAttach(Fd, index, out reason))
        {
            return false;
        }
        (_gate, _gateIndex) = (gate, index);
        return true;
    }

    /// <summary>Datagrams that the gate has dropped since it was put up: those that were not Lightway, and those of floods.</summary>
    public GateDrops DroppedByGate => _gate?.DroppedAt(_gateIndex) ?? default;

    /// <summary>Three system calls instead of one while fragments are forbidden: for handshakes only.</summary>
    public int SendFragmentable(in OutsideAddress path, ReadOnlySpan<byte> datagram)
    {
        if (!_forbidsFragments)
        {
            return Send(path, datagram, segmentSize: 0);
        }
        _ = TrySetDiscovery(Linux.PMTUDISC_OMIT);
        var result = Send(path, datagram, segmentSize: 0);
        _ = TrySetDiscovery(Linux.PMTUDISC_PROBE); // the kernel has accepted it before
        return result;
    }

    public int Send(in OutsideAddress path, ReadOnlySpan<byte> data, int segmentSize, byte tos = 0)
    {
        fixed (byte* bytes = data)
        {
            Fill(0, path, bytes, data.Length, segmentSize, tos);
            while (true)
            {
                var sent = (int)sendmsg(Fd, Header(0), Linux.MSG_DONTWAIT);
                if (sent >= 0)
                {
                    return sent;
                }
                if (Linux.Errno != Linux.EINTR)
                {
                    return -Linux.Errno;
                }
            }
        }
    }

    public int Send(ReadOnlySpan<DatagramRun> runs, ReadOnlySpan<byte> bytes)
    {
        fixed (byte* start = bytes)
        {
            for (var i = 0; i < runs.Length; i++)
            {
                ref readonly var run = ref runs[i];
                Fill(i, run.Path, start + run.Start, run.Length, run.SegmentSize, run.Tos);
            }
            while (true)
            {
                var sent = Linux.sendmmsg(Fd, (mmsghdr*)_wiring.Pointer, (uint)runs.Length, Linux.MSG_DONTWAIT);
                if (sent >= 0)
                {
                    return sent;
                }
                if (Linux.Errno != Linux.EINTR)
                {
                    return -Linux.Errno;
                }
            }
        }
    }

    /// <summary>Receives as many buffers as wait and fit. Returns their count, or -errno (EAGAIN: none waits).</summary>
    public int Receive(ReceiveBatch batch)
    {
        var count = Linux.recvmmsg(Fd, batch.Prepare(), (uint)batch.Capacity, Linux.MSG_DONTWAIT, null);
        return count < 0 ? -Linux.Errno : count;
    }

    public void Dispose()
    {
        close(Fd);
        _wiring.Dispose();
    }

    /// <summary>For both families, if the socket serves both: a mapped IPv4 address goes by the level of IPv4.</summary>
    private bool TrySetDiscovery(int mode) =>
        Set(Fd, IPPROTO_IP, Linux.IP_MTU_DISCOVER, mode)
        && (
            LocalEndPoint.AddressFamily != AddressFamily.InterNetworkV6
            || Set(Fd, IPPROTO_IPV6, Linux.IPV6_MTU_DISCOVER, mode)
        );

    private msghdr* Header(int i) => (msghdr*)(_wiring.Pointer + (i * MessageSize)); // first in struct mmsghdr

    private byte* PartsOf(int i) => _wiring.Pointer + PartsAt + (i * PartsSize);

    private void Fill(int i, in OutsideAddress path, byte* data, int length, int segmentSize, byte tos)
    {
        var parts = PartsOf(i);
        var vector = (iovec*)parts;
        vector->iov_base = data;
        vector->iov_len = length;
        path.Peer.CopyTo(new Span<byte>(parts + NameAt, SocketAddressBytes.Capacity));
        var control = WriteLocalAddress(path.Local, parts + ControlAt);
        if (segmentSize > 0)
        {
            control += WriteControl(parts + ControlAt + control, Linux.SOL_UDP, Linux.UDP_SEGMENT, sizeof(ushort));
            *(ushort*)(parts + ControlAt + control - 8) = (ushort)segmentSize; // data of the last 24-byte cmsg
        }
        if (tos != 0)
        {
            control += WriteTos(path.Peer.IsOverIPv6, tos, parts + ControlAt + control);
        }
        var header = Header(i);
        header->msg_namelen = path.Peer.Length;
        header->msg_controllen = control; // unused control space must not be passed
    }

    private static int WriteLocalAddress(in LocalAddress local, byte* control)
    {
        if (local.Length == 0)
        {
            return 0;
        }
        if (local.Length == 4) // struct in_pktinfo: ifindex 0, spec_dst, addr
        {
            var used = WriteControl(control, IPPROTO_IP, Linux.IP_PKTINFO, 12);
            new Span<byte>(control + Linux.CmsgHeader, 12).Clear();
            local.CopyTo(new Span<byte>(control + Linux.CmsgHeader + 4, 4));
            return used;
        }
        var length = WriteControl(control, IPPROTO_IPV6, Linux.IPV6_PKTINFO, 20); // struct in6_pktinfo: addr, ifindex 0
        new Span<byte>(control + Linux.CmsgHeader, 20).Clear();
        local.CopyTo(new Span<byte>(control + Linux.CmsgHeader, 16));
        return length;
    }

    /// <summary>The kernel reads the level that belongs to the packet, not to the socket: a mapped IPv4 address has IPv4's.</summary>
    private static int WriteTos(bool v6, byte tos, byte* control)
    {
        *(int*)(control + Linux.CmsgHeader) = tos;
        return v6
            ? WriteControl(control, IPPROTO_IPV6, Linux.IPV6_TCLASS, sizeof(int))
            : WriteControl(control, IPPROTO_IP, Linux.IP_TOS, sizeof(int));
    }

    private static int WriteControl(byte* at, int level, int type, int dataLength)
    {
        *(long*)at = Linux.CmsgHeader + dataLength;
        *(int*)(at + 8) = level;
        *(int*)(at + 12) = type;
        return Linux.CmsgHeader + ((dataLength + 7) & ~7);
    }

    /// <summary>Kernels before 5.12 can't report the option's value, and some of them coalesce wrongly: it stays off there.</summary>
    private static bool TurnOnGro(int fd)
    {
        var value = 0;
        socklen_t length = sizeof(int);
        var on =
            Set(fd, Linux.SOL_UDP, Linux.UDP_GRO, 1)
            && getsockopt(fd, Linux.SOL_UDP, Linux.UDP_GRO, &value, &length) == 0
            && value == 1;
        _ = on || Set(fd, Linux.SOL_UDP, Linux.UDP_GRO, 0);
        return on;
    }

    private static void SetBuffer(int fd, int forced, int plain, int bytes)
    {
        if (bytes > 0)
        {
            _ = Set(fd, SOL_SOCKET, forced, bytes) || Set(fd, SOL_SOCKET, plain, bytes);
        }
    }

    private static bool Set(int fd, int level, int option, int value) =>
        setsockopt(fd, level, option, &value, sizeof(int)) == 0;

    private static void Require(int fd, int level, int option, int value, string label)
    {
        if (!Set(fd, level, option, value))
        {
            throw Linux.Failure(Linux.Errno, $"setsockopt {label}");
        }
    }
}

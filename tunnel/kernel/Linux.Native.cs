using System.ComponentModel;
using System.Runtime.InteropServices;
using Tmds.Linux;

namespace Lightway.Tunnel.Kernel;

/// <summary>Numbers from kernel headers and a few calls that Tmds.LibC lacks. C's names, so that one grep finds both sides.</summary>
internal static unsafe partial class Linux
{
    // linux/udp.h
    public const int SOL_UDP = 17;
    public const int UDP_SEGMENT = 103;
    public const int UDP_GRO = 104;

    // asm-generic/socket.h
    public const int SO_REUSEPORT = 15;
    public const int SO_RXQ_OVFL = 40;
    public const int SO_ATTACH_BPF = 50;
    public const int SO_ATTACH_REUSEPORT_CBPF = 51;

    // linux/in.h, linux/in6.h
    public const int IP_TOS = 1;
    public const int IP_RECVTOS = 13;
    public const int IPV6_RECVTCLASS = 66;
    public const int IPV6_TCLASS = 67;
    public const int IP_PKTINFO = 8;
    public const int IP_MTU_DISCOVER = 10;
    public const int IPV6_MTU_DISCOVER = 23;
    public const int IPV6_V6ONLY = 26;
    public const int IPV6_RECVPKTINFO = 49;
    public const int IPV6_PKTINFO = 50;
    public const int PMTUDISC_PROBE = 3; // DF, and ICMP "fragmentation needed" is not believed
    public const int PMTUDISC_OMIT = 5; // no DF, and ICMP "fragmentation needed" is not believed

    // linux/tcp.h
    public const int TCP_NODELAY = 1;
    public const int TCP_KEEPIDLE = 4;
    public const int TCP_KEEPINTVL = 5;
    public const int TCP_KEEPCNT = 6;
    public const int TCP_USER_TIMEOUT = 18;
    public const int TCP_NOTSENT_LOWAT = 25;

    // linux/if_tun.h
    public const int TUNSETIFF = 0x400454CA;
    public const int TUNSETOFFLOAD = 0x400454D0; // argument by value
    public const int TUNGETIFF = unchecked((int)0x800454D2);
    public const int TUNSETVNETHDRSZ = 0x400454D8;
    public const int TUNSETSTEERINGEBPF = unchecked((int)0x800454E0);
    public const ushort IFF_TUN = 0x0001;
    public const ushort IFF_MULTI_QUEUE = 0x0100;
    public const ushort IFF_NO_PI = 0x1000;
    public const ushort IFF_VNET_HDR = 0x4000;
    public const int TUN_F_CSUM = 0x01;
    public const int TUN_F_TSO4 = 0x02;
    public const int TUN_F_TSO6 = 0x04;
    public const int TUN_F_USO4 = 0x20; // Linux 6.2, both USO bits or none
    public const int TUN_F_USO6 = 0x40;

    // net/if.h, linux/sockios.h
    public const int IFNAMSIZ = 16;
    public const short IFF_UP = 0x1;
    public const short IFF_RUNNING = 0x40;
    public const int SIOCGIFFLAGS = 0x8913;
    public const int SIOCSIFFLAGS = 0x8914;
    public const int SIOCGIFMTU = 0x8921;

    // asm-generic/errno*.h
    public const int EPERM = 1;
    public const int EINTR = 4;
    public const int EIO = 5;
    public const int EAGAIN = 11;
    public const int ENOMEM = 12;
    public const int EBUSY = 16;
    public const int EINVAL = 22;
    public const int ENFILE = 23;
    public const int EMFILE = 24;
    public const int EBADFD = 77;
    public const int EMSGSIZE = 90;
    public const int EOPNOTSUPP = 95;
    public const int EADDRINUSE = 98;
    public const int ENOBUFS = 105;
    public const int EINPROGRESS = 115;
    public const int ECONNREFUSED = 111;

    // linux/socket.h
    public const int MSG_TRUNC = 0x20;
    public const int MSG_DONTWAIT = 0x40;
    public const int MSG_NOSIGNAL = 0x4000;

    // cmsghdr (linux/socket.h): u64 length with header, i32 level, i32 type, then the data padded to 8 bytes.
    public const int CmsgHeader = 16;

    [LibraryImport("libc", SetLastError = true)]
    public static partial int recvmmsg(int fd, mmsghdr* messages, uint count, int flags, void* timeout);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int sendmmsg(int fd, mmsghdr* messages, uint count, int flags);

    /// <summary>sched_setaffinity(2); thread 0 is the calling one.</summary>
    [LibraryImport("libc", SetLastError = true)]
    public static partial int sched_setaffinity(int thread, nint maskSize, ulong* mask);

    [LibraryImport("libc", SetLastError = true)]
    public static partial int sched_getaffinity(int thread, nint maskSize, ulong* mask);

    /// <summary>setpriority(2); who 0 is the calling thread.</summary>
    [LibraryImport("libc", SetLastError = true)]
    public static partial int setpriority(int which, int who, int nice);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint syscall(nint number, nint command, void* attributes, nint size);

    [LibraryImport("libc", SetLastError = true)]
    public static partial nint writev(int fd, iovec* vectors, int count);

    /// <summary>errno of the last call on this thread.</summary>
    public static int Errno => Marshal.GetLastPInvokeError();

    /// <summary>An exception for set-up code that names the call and the kernel's reason.</summary>
    /// <param name="errno">Comes first, so that it is read before the text is put together: formatting may make calls of its own.</param>
    /// <param name="what">The call, with its subject.</param>
    public static IOException Failure(int errno, string what) =>
        new($"{what}: {new Win32Exception(errno).Message} (errno {errno})");
}

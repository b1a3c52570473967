/// The Linux calls that the kernel oracle needs, with C's names. Linux x86-64 and arm64; all arguments are blittable.
module Lightway.Specs.Oracles.KernelNative

open System.Runtime.InteropServices

/// linux/sched.h
[<Literal>]
let CLONE_NEWNET = 0x40000000

/// asm-generic/fcntl.h: O_RDWR | O_NONBLOCK | O_CLOEXEC
[<Literal>]
let O_RDWR_NONBLOCK_CLOEXEC = 0x80802

/// linux/if_tun.h
[<Literal>]
let TUNSETIFF = 0x400454CAUL

/// linux/if_tun.h: IFF_TUN | IFF_NO_PI, and no IFF_VNET_HDR: the kernel must segment before this device.
[<Literal>]
let IFF_TUN_NO_PI = 0x1001s

/// linux/sockios.h
[<Literal>]
let SIOCGIFFLAGS = 0x8913UL

[<Literal>]
let SIOCSIFFLAGS = 0x8914UL

[<Literal>]
let SIOCSIFMTU = 0x8922UL

[<Literal>]
let SIOCGIFINDEX = 0x8933UL

[<Literal>]
let SIOCSIFTXQLEN = 0x8943UL

/// linux/if.h: IFF_UP | IFF_RUNNING
[<Literal>]
let IFF_UP_RUNNING = 0x41s

[<Literal>]
let AF_INET = 2

[<Literal>]
let AF_PACKET = 17

[<Literal>]
let SOCK_DGRAM = 2

[<Literal>]
let SOCK_RAW = 3

/// linux/if_packet.h
[<Literal>]
let SOL_PACKET = 263

[<Literal>]
let PACKET_VNET_HDR = 15

/// linux/if_ether.h
[<Literal>]
let ETH_P_IP = 0x0800

[<Literal>]
let ETH_P_IPV6 = 0x86DD

/// asm-generic/poll.h
[<Literal>]
let POLLIN = 1s

[<Literal>]
let EAGAIN = 11

[<Struct; StructLayout(LayoutKind.Sequential)>]
type pollfd =
    { fd: int
      events: int16
      mutable revents: int16 }

[<DllImport("libc", SetLastError = true)>]
extern int unshare(int flags)

[<DllImport("libc", SetLastError = true, EntryPoint = "open")>]
extern int openFile([<MarshalAs(UnmanagedType.LPUTF8Str)>] string path, int flags)

[<DllImport("libc", SetLastError = true)>]
extern int close(int fd)

[<DllImport("libc", SetLastError = true)>]
extern int ioctl(int fd, uint64 request, byte[] argument)

[<DllImport("libc", SetLastError = true)>]
extern int socket(int domain, int kind, int protocol)

[<DllImport("libc", SetLastError = true)>]
extern int setsockopt(int fd, int level, int name, int& value, int length)

[<DllImport("libc", SetLastError = true)>]
extern int bind(int fd, byte[] address, int length)

[<DllImport("libc", SetLastError = true)>]
extern nativeint send(int fd, byte[] bytes, nativeint length, int flags)

[<DllImport("libc", SetLastError = true)>]
extern nativeint read(int fd, byte[] bytes, nativeint length)

[<DllImport("libc", SetLastError = true)>]
extern int poll(pollfd[] fds, uint64 count, int timeoutMs)

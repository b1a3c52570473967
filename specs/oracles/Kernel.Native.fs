/// The Linux calls that the kernel oracles need, with C's names. Linux x86-64 and arm64; all arguments are blittable.
module Lightway.Specs.Oracles.KernelNative

open System
open System.Runtime.InteropServices

/// linux/sched.h
[<Literal>]
let CLONE_NEWNET = 0x40000000

/// linux/sched.h
[<Literal>]
let CLONE_NEWNS = 0x00020000

/// linux/mount.h: MS_REC | MS_PRIVATE
[<Literal>]
let MS_REC_PRIVATE = 0x44000UL

/// asm-generic/fcntl.h: O_RDWR | O_NONBLOCK | O_CLOEXEC
[<Literal>]
let O_RDWR_NONBLOCK_CLOEXEC = 0x80802

/// linux/if_tun.h
[<Literal>]
let TUNSETIFF = 0x400454CAUL

/// linux/if_tun.h: IFF_TUN | IFF_NO_PI, and no IFF_VNET_HDR: the kernel must segment before this device.
[<Literal>]
let IFF_TUN_NO_PI = 0x1001s

/// linux/if_tun.h: IFF_TUN | IFF_NO_PI | IFF_VNET_HDR
[<Literal>]
let IFF_TUN_VNET_HDR = 0x5001s

/// linux/if_tun.h: the same with IFF_NAPI: what is written goes through GRO.
[<Literal>]
let IFF_TUN_VNET_HDR_NAPI = 0x5011s

/// linux/if_tun.h; the argument is the mask itself.
[<Literal>]
let TUNSETOFFLOAD = 0x400454D0UL

/// linux/if_tun.h: TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_USO4 | TUN_F_USO6. USO since Linux 6.2.
[<Literal>]
let TUN_F_CSUM_TSO_USO = 0x67

/// linux/sockios.h
[<Literal>]
let SIOCETHTOOL = 0x8946UL

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
let AF_INET6 = 10

[<Literal>]
let AF_NETLINK = 16

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

/// linux/time.h: moves on with the kernel's tick, together with jiffies.
[<Literal>]
let CLOCK_MONOTONIC_COARSE = 6

[<Struct; StructLayout(LayoutKind.Sequential)>]
type timespec =
    { mutable tv_sec: int64
      mutable tv_nsec: int64 }

[<Struct; StructLayout(LayoutKind.Sequential)>]
type pollfd =
    { fd: int
      events: int16
      mutable revents: int16 }

[<DllImport("libc", SetLastError = true)>]
extern int unshare(int flags)

[<DllImport("libc", SetLastError = true)>]
extern int mount(
    [<MarshalAs(UnmanagedType.LPUTF8Str)>] string source,
    [<MarshalAs(UnmanagedType.LPUTF8Str)>] string target,
    [<MarshalAs(UnmanagedType.LPUTF8Str)>] string filesystem,
    uint64 flags,
    nativeint data
)

[<DllImport("libc", SetLastError = true, EntryPoint = "open")>]
extern int openFile([<MarshalAs(UnmanagedType.LPUTF8Str)>] string path, int flags)

[<DllImport("libc", SetLastError = true)>]
extern int close(int fd)

[<DllImport("libc", SetLastError = true)>]
extern int ioctl(int fd, uint64 request, byte[] argument)

[<DllImport("libc", SetLastError = true, EntryPoint = "ioctl")>]
extern int ioctlValue(int fd, uint64 request, int argument)

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
extern nativeint write(int fd, byte[] bytes, nativeint length)

[<DllImport("libc", SetLastError = true)>]
extern int clock_gettime(int clock, timespec& time)

[<DllImport("libc", SetLastError = true)>]
extern int poll(pollfd[] fds, uint64 count, int timeoutMs)

/// SIOCETHTOOL with `command` (linux/ethtool.h) as what ifr_data points to; the kernel writes its answer there.
let ethtool (control: int) (device: string) (command: byte[]) : int =
    let request = Array.zeroCreate 40
    Text.Encoding.ASCII.GetBytes(device).CopyTo(request, 0)
    let pinned = GCHandle.Alloc(command, GCHandleType.Pinned)

    try
        BitConverter.GetBytes(int64 (pinned.AddrOfPinnedObject())).CopyTo(request, 16)
        ioctl (control, SIOCETHTOOL, request)
    finally
        pinned.Free()

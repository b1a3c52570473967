/// Linux's own software GSO as an oracle: a superpacket is sent through an AF_PACKET socket into a TUN device without
/// offloads, so the kernel must segment it, and the segments are read from the device byte by byte.
/// No routing, no TTL change, no address on the device; all in a network namespace that ends with the thread.
module Lightway.Specs.Oracles.SoftwareGso

open System
open System.Buffers.Binary
open System.IO
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Lightway.Specs.Oracles.KernelNative

/// The kernel or the container does not let us: a skip, not a failure.
exception Refused of call: string * errno: int

let private check (call: string) (result: int) : int =
    if result < 0 then
        raise (Refused(call, Marshal.GetLastPInvokeError()))

    result

/// `struct ifreq` (linux/if.h): 16 bytes of name, then the union.
let private ifreq (name: string) (value: byte[]) =
    let request = Array.zeroCreate 40
    Encoding.ASCII.GetBytes(name).CopyTo(request, 0)
    value.CopyTo(request, 16)
    request

[<Literal>]
let private Device = "oracle"

/// Segments of one superpacket stay in the device's ring until they are read: gso_size 1 needs a long one.
[<Literal>]
let private RingLength = 20_000

[<Literal>]
let private Mtu = 9000

/// No router solicitations among the segments. A kernel without IPv6 has none.
let private silenceIpv6 () =
    let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6"

    if File.Exists setting then
        try
            File.WriteAllText(setting, "1")
        with
        | :? IOException
        | :? UnauthorizedAccessException -> raise (Refused($"write {setting}", Marshal.GetLastPInvokeError()))

/// An open device and a socket for each IP version. Belongs to the thread that made it.
type Kernel private (tun: int, socketV4: int, socketV6: int) =
    let buffer: byte[] = Array.zeroCreate 65536

    let readOne (timeoutMs: int) : byte[] voption =
        let waiting =
            poll (
                [| { fd = tun
                     events = POLLIN
                     revents = 0s } |],
                1UL,
                timeoutMs
            )

        if waiting <= 0 then
            ValueNone
        else
            match int (read (tun, buffer, nativeint buffer.Length)) with
            | length when length >= 0 -> ValueSome buffer[.. length - 1]
            | _ -> ValueNone

    let rec drain (timeoutMs: int) (segments: byte[] list) : byte[] list =
        match readOne timeoutMs with
        | ValueSome segment -> drain 0 (segment :: segments)
        | ValueNone -> List.rev segments

    /// The packets that leave for `frame`, a virtio_net_hdr and a packet; the error number if the kernel refuses it.
    member _.Segment(isV6: bool, frame: byte[]) : Result<byte[] list, int> =
        drain 0 [] |> ignore
        let socket = if isV6 then socketV6 else socketV4

        if int (send (socket, frame, nativeint frame.Length, 0)) < 0 then
            Error(Marshal.GetLastPInvokeError())
        else
            Ok(drain 200 []) // the send is synchronous: the wait is for a kernel that defers it

    static member Open() : Kernel =
        check "unshare" (unshare CLONE_NEWNET) |> ignore
        silenceIpv6 ()

        let tun =
            check "open /dev/net/tun" (openFile ("/dev/net/tun", O_RDWR_NONBLOCK_CLOEXEC))

        let flags = BitConverter.GetBytes IFF_TUN_NO_PI
        check "TUNSETIFF" (ioctl (tun, TUNSETIFF, ifreq Device flags)) |> ignore
        let control = check "socket" (socket (AF_INET, SOCK_DGRAM, 0))

        let set name request (value: byte[]) =
            check name (ioctl (control, request, ifreq Device value)) |> ignore

        set "SIOCSIFTXQLEN" SIOCSIFTXQLEN (BitConverter.GetBytes RingLength)
        set "SIOCSIFMTU" SIOCSIFMTU (BitConverter.GetBytes Mtu)
        set "SIOCSIFFLAGS" SIOCSIFFLAGS (BitConverter.GetBytes IFF_UP_RUNNING)
        let request = ifreq Device [||]
        check "SIOCGIFINDEX" (ioctl (control, SIOCGIFINDEX, request)) |> ignore
        let index = BitConverter.ToInt32(request, 16)
        close control |> ignore

        let packetSocket (protocol: int) =
            let fd = check "socket AF_PACKET" (socket (AF_PACKET, SOCK_RAW, 0))
            let mutable enable = 1
            check "PACKET_VNET_HDR" (setsockopt (fd, SOL_PACKET, PACKET_VNET_HDR, &enable, 4)) |> ignore
            // struct sockaddr_ll: family, protocol in network order, interface index, and 12 bytes that bind ignores.
            let address = Array.zeroCreate 20
            BinaryPrimitives.WriteInt16LittleEndian(Span address, int16 AF_PACKET)
            BinaryPrimitives.WriteUInt16BigEndian(Span(address, 2, 2), uint16 protocol)
            BinaryPrimitives.WriteInt32LittleEndian(Span(address, 4, 4), index)
            check "bind" (bind (fd, address, address.Length)) |> ignore
            fd

        new Kernel(tun, packetSocket ETH_P_IP, packetSocket ETH_P_IPV6)

    interface IDisposable with
        member _.Dispose() =
            for fd in [ socketV4; socketV6; tun ] do
                close fd |> ignore

/// Runs `body` on a thread of its own, as the namespace belongs to the thread. `Refused` comes back as an error text.
let run (body: Kernel -> 'T) : Result<'T, string> =
    let mutable outcome = Error "the thread did not run"
    let mutable failure: exn = null

    let thread =
        Thread(
            (fun () ->
                try
                    use kernel = Kernel.Open()
                    outcome <- Ok(body kernel)
                with
                | Refused(call, errno) ->
                    outcome <- Error $"{call}: {Marshal.GetPInvokeErrorMessage errno} (errno {errno})"
                | error -> failure <- error),
            maxStackSize = 16 * 1024 * 1024
        )

    thread.Start()
    thread.Join()

    if not (isNull failure) then
        raise (AggregateException failure)

    outcome

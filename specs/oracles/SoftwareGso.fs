/// Linux's own software GSO as an oracle: a superpacket is sent through an AF_PACKET socket into a TUN device without
/// offloads, so the kernel must segment it, and the segments are read from the device byte by byte.
/// No routing, no TTL change, no address on the device; all in a network namespace that ends with the thread.
module Lightway.Specs.Oracles.SoftwareGso

open System
open System.Buffers.Binary
open System.IO
open System.Runtime.InteropServices
open Lightway.Specs.Oracles.KernelNative
open Lightway.Specs.Oracles.Namespace

[<Literal>]
let private Device = "oracle"

/// Segments of one superpacket stay in the device's ring until they are read: gso_size 1 needs a long one.
[<Literal>]
let private RingLength = 20_000

[<Literal>]
let private Mtu = 9000

/// The send is synchronous: the wait is for a kernel that defers it.
[<Literal>]
let private PatienceMs = 10_000

/// No router solicitations among the segments. A kernel without IPv6 has none.
let private silenceIpv6 () =
    let setting = "/proc/sys/net/ipv6/conf/default/disable_ipv6"

    if File.Exists setting then
        writeSetting setting "1"

/// An open device and a socket for each IP version. Belongs to the thread that made it.
type Kernel private (tun: int, socketV4: int, socketV6: int) =
    let buffer: byte[] = Array.zeroCreate 65536

    /// Segments, `missing` of which are waited for.
    let rec drain (missing: int) (segments: byte[] list) : byte[] list =
        match readPacket tun buffer (if missing > 0 then PatienceMs else 0) with
        | ValueSome segment -> drain (missing - 1) (segment :: segments)
        | ValueNone -> List.rev segments

    /// The packets that leave for `frame`, a virtio_net_hdr and a packet; the error number if the kernel refuses it.
    /// `expected`: how many there should be. Fewer are waited for, more are returned too.
    member _.Segment(isV6: bool, frame: byte[], expected: int) : Result<byte[] list, int> =
        drain 0 [] |> ignore
        let socket = if isV6 then socketV6 else socketV4

        if int (send (socket, frame, nativeint frame.Length, 0)) < 0 then
            Error(Marshal.GetLastPInvokeError())
        else
            Ok(drain expected [])

    static member Open() : Kernel =
        check "unshare" (unshare CLONE_NEWNET) |> ignore
        silenceIpv6 ()

        let tun = openTun Device IFF_TUN_NO_PI
        let index = bringUp Device RingLength Mtu

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

/// Runs `body` in a network namespace of its own. An error text where the kernel or the container refuses.
let run (body: Kernel -> 'T) : Result<'T, string> = Namespace.run Kernel.Open body

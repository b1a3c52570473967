/// Linux's own GRO as an oracle: packets are written one by one to a TUN device with IFF_NAPI, which merges what it may
/// (net/core/gro.c), routes the outcome to a second TUN device, and there it is read: superpackets as superpackets.
/// In a network namespace that ends with the thread, and a private mount namespace for that namespace's /sys.
module Lightway.Specs.Oracles.KernelGro

open System
open System.Buffers.Binary
open System.Diagnostics
open System.IO
open System.Text
open Lightway.Specs.Oracles.KernelNative
open Lightway.Specs.Oracles.Namespace

[<Literal>]
let private Entrance = "entrance"

[<Literal>]
let private Exit = "exit"

[<Literal>]
let private Mtu = 65535

[<Literal>]
let private RingLength = 5000

/// GRO holds packets for so long after the last one. A batch is written within one tick (4 ms or 10 ms), see
/// `writeAll`.
[<Literal>]
let private FlushMs = 20

/// Packets to these leave by the second device; the first bytes, as many as the prefix has.
let destinations: (int * byte[]) list =
    [ AF_INET, [| 10uy; 2uy |]; AF_INET6, [| 0xfduy; 2uy |] ]

/// A frame of the second device: a virtio_net_hdr without its hdr_len (the length of the kernel's linear part, a hint),
/// and the packet as it was before it was forwarded.
type Frame =
    {
        /// VIRTIO_NET_HDR_F_*: NEEDS_CSUM on superpackets. On singles DATA_VALID, or nothing where GRO did not look at
        /// the checksum or found it wrong.
        Flags: byte
        /// VIRTIO_NET_HDR_GSO_*
        GsoType: byte
        GsoSize: int
        CsumStart: int
        CsumOffset: int
        Packet: byte[]
    }

    /// Offset of a superpacket's payload, which is that of its first segment, as headers are equal. TCP: csum_offset
    /// 16.
    member this.PayloadAt: int =
        if this.CsumOffset = 16 then
            this.CsumStart + int (this.Packet[this.CsumStart + 12] >>> 4) * 4
        else
            this.CsumStart + 8

    /// Not a superpacket, but cut from one that GRO had made, as the singles' checksums were never missing: TCP/IPv4 with
    /// one identification for all and no DF, which no device can be asked to cut (gso_features_check in
    /// net/core/dev.c).
    member this.IsPiece: bool = this.GsoSize = 0 && this.Flags &&& 1uy <> 0uy

    /// Segments in it; 1 for anything but a superpacket.
    member this.Count: int =
        if this.GsoSize = 0 then
            1
        else
            (this.Packet.Length - this.PayloadAt + this.GsoSize - 1) / this.GsoSize

/// Takes apart what a TUN device with IFF_VNET_HDR reads or is given: 10 bytes in the byte order of the machine (little
/// endian on all that we support), and the packet.
let frame (bytes: byte[]) : Frame =
    let word (at: int) =
        int (BinaryPrimitives.ReadUInt16LittleEndian(ReadOnlySpan(bytes, at, 2)))

    { Flags = bytes[0]
      GsoType = bytes[1]
      GsoSize = word 4
      CsumStart = word 6
      CsumOffset = word 8
      Packet = bytes[10..] }

/// A packet before a router took one from its TTL or hop limit (RFC 1812 §5.3.1, RFC 8200 §3).
let private unrouted (packet: byte[]) : byte[] =
    let packet = Array.copy packet

    if packet[0] >>> 4 = 4uy then
        packet[8] <- packet[8] + 1uy
        packet[10] <- 0uy
        packet[11] <- 0uy
        let header = packet[.. int (packet[0] &&& 0x0Fuy) * 4 - 1]
        (ByteSum.word (int (ByteSum.checksum header))).CopyTo(packet, 10)
    else
        packet[7] <- packet[7] + 1uy

    packet

let private settings =
    [ "/proc/sys/net/ipv4/conf/all/rp_filter", "0"
      "/proc/sys/net/ipv4/conf/default/rp_filter", "0"
      "/proc/sys/net/ipv4/ip_forward", "1"
      "/proc/sys/net/ipv6/conf/all/disable_ipv6", "0"
      "/proc/sys/net/ipv6/conf/default/disable_ipv6", "0"
      "/proc/sys/net/ipv6/conf/default/addr_gen_mode", "1" // no address, so no neighbour discovery among the frames
      "/proc/sys/net/ipv6/conf/all/forwarding", "1" ]

/// Feature bits by name (linux/ethtool.h: ETHTOOL_GSSET_INFO, ETHTOOL_GSTRINGS with ETH_SS_FEATURES,
/// ETHTOOL_SFEATURES).
let private enableFeature (device: string) (feature: string) =
    let control = check "socket" (socket (AF_INET, SOCK_DGRAM, 0))

    let ask name (words: int list) (room: int) =
        let command =
            Array.append (words |> List.map BitConverter.GetBytes |> Array.concat) (Array.zeroCreate room)

        check name (ethtool control device command) |> ignore
        command

    let count =
        BitConverter.ToInt32(ask "ETHTOOL_GSSET_INFO" [ 0x37; 0; 1 <<< 4; 0 ] 4, 16)

    let names = ask "ETHTOOL_GSTRINGS" [ 0x1b; 4; count ] (32 * count)

    let name index =
        Encoding.ASCII.GetString(names, 12 + 32 * index, 32).TrimEnd '\000'

    match Seq.init count id |> Seq.tryFind (fun index -> name index = feature) with
    | None -> raise (Refused($"ethtool: no feature {feature}", 95)) // EOPNOTSUPP
    | Some bit ->
        let blocks = (count + 31) / 32

        let masks =
            [ for block in 0 .. blocks - 1 do
                  let mask = if block = bit / 32 then 1 <<< (bit % 32) else 0
                  yield! [ mask; mask ] ] // valid, requested

        ask "ETHTOOL_SFEATURES" ([ 0x3b; blocks ] @ masks) 0 |> ignore

    close control |> ignore

/// RTM_NEWROUTE (linux/rtnetlink.h): a prefix of 16 bits leaves by a device.
let private addRoute (index: int) (family: int, prefix: byte[]) =
    let address =
        Array.append prefix (Array.zeroCreate ((if family = AF_INET then 4 else 16) - 2))

    let attribute (kind: int) (value: byte[]) =
        Array.concat [ BitConverter.GetBytes(int16 (4 + value.Length)); BitConverter.GetBytes(int16 kind); value ]

    // struct rtmsg: destination of 16 bits, RT_TABLE_MAIN, RTPROT_BOOT, RT_SCOPE_LINK, RTN_UNICAST; RTA_DST, RTA_OIF.
    let message =
        Array.concat
            [ [| byte family; 16uy; 0uy; 0uy; 254uy; 3uy; 253uy; 1uy; 0uy; 0uy; 0uy; 0uy |]
              attribute 1 address
              attribute 4 (BitConverter.GetBytes index) ]

    // struct nlmsghdr: RTM_NEWROUTE, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE.
    let request =
        Array.concat
            [ BitConverter.GetBytes(16 + message.Length)
              BitConverter.GetBytes 24s
              BitConverter.GetBytes 0x405s
              Array.zeroCreate 8
              message ]

    let netlink = check "socket AF_NETLINK" (socket (AF_NETLINK, SOCK_RAW, 0))
    check "send RTM_NEWROUTE" (int (send (netlink, request, nativeint request.Length, 0))) |> ignore
    let answer = Array.zeroCreate 512
    check "read RTM_NEWROUTE" (int (read (netlink, answer, nativeint answer.Length))) |> ignore
    close netlink |> ignore

    match BitConverter.ToInt32(answer, 16) with // struct nlmsgerr: 0 or -errno
    | 0 -> ()
    | error -> raise (Refused("RTM_NEWROUTE", -error))

let private tick () =
    let mutable time = Unchecked.defaultof<timespec>
    clock_gettime (CLOCK_MONOTONIC_COARSE, &time) |> ignore
    time

/// Batches written again for one that did not fit into a tick: a machine that needs more is too busy for this oracle.
[<Literal>]
let private MaxAttempts = 2000

/// A protocol for experiments (RFC 3692), which GRO passes on at once.
[<Literal>]
let private MarkerProtocol = 253uy

/// A packet that is unlike any other: `number` is its payload.
let private marker (number: int64) : byte[] =
    let packet =
        Array.append (Convert.FromHexString "4500001C00000000400000000A0100010A020001") (BitConverter.GetBytes number)

    packet[9] <- MarkerProtocol
    (ByteSum.word (int (ByteSum.checksum packet[..19]))).CopyTo(packet, 10)
    packet

/// A router has changed the marker's TTL.
let private isMarker (number: int64) (packet: byte[]) : bool =
    packet.Length = 28
    && packet[0] = 0x45uy
    && packet[9] = MarkerProtocol
    && packet[20..] = BitConverter.GetBytes number

/// Both devices, open. Belongs to the thread that made it.
type Kernel private (entrance: int, exit: int) =
    let buffer: byte[] = Array.zeroCreate (Mtu + 10)
    let mutable marks = 0L

    let ourDestination (packet: byte[]) =
        destinations
        |> List.exists (fun (family, prefix) ->
            let version, at = if family = AF_INET then 4uy, 16 else 6uy, 24
            packet[0] >>> 4 = version && packet[at .. at + 1] = prefix)

    /// GRO merges nothing with what it has held since an earlier tick (`flush_old` in net/core/gro.c), so a batch
    /// counts only if it was written between two ticks. False if it was not.
    let writeAll (packets: byte[] list) : bool =
        let before = tick ()

        while tick () = before do
            ()

        let start = tick ()

        for packet in packets do
            if int (write (entrance, packet, nativeint packet.Length)) <> packet.Length then
                failwith $"the kernel does not take {Convert.ToHexString packet}"

        tick () = start

    /// Adds the frames that come before the marker of this number.
    let rec upTo (number: int64) (clock: Stopwatch) (frames: Frame list) : Frame list =
        match readPacket exit buffer 1000 with
        | ValueNone when clock.Elapsed.TotalSeconds > 60.0 -> failwith "no packet comes through the devices any more"
        | ValueNone -> upTo number clock frames
        | ValueSome bytes ->
            let frame = frame bytes

            if isMarker number frame.Packet then
                frames
            elif ourDestination frame.Packet then
                upTo number clock (frame :: frames)
            else
                upTo number clock frames

    /// Sends a marker in a tick of its own, and waits for it.
    let mark (frames: Frame list) : Frame list =
        marks <- marks + 1L
        writeAll [ Array.append (Array.zeroCreate 10) (marker marks) ] |> ignore
        upTo marks (Stopwatch.StartNew()) frames

    /// Frames for `missing` packets. Of those that the kernel drops none comes, but silence may also be that of a busy
    /// machine. The rest is certain to be there after three markers: the first may be looked at together with the batch, the
    /// second ends what is held, but may overtake it, and the third follows it.
    let rec collect (missing: int) (frames: Frame list) : Frame list =
        if missing <= 0 then
            List.rev frames
        else
            match readPacket exit buffer (3 * FlushMs) with
            | ValueNone -> frames |> mark |> mark |> mark |> List.rev
            | ValueSome bytes ->
                let frame = frame bytes

                if ourDestination frame.Packet then
                    collect (missing - frame.Count) (frame :: frames)
                else
                    collect missing frames

    /// The frames that leave for packets that arrive together.
    member _.Merge(packets: byte[] list) : Frame list =
        let frames = packets |> List.map (Array.append (Array.zeroCreate 10))

        let rec attempt (left: int) =
            if left = 0 then
                failwith "no batch fits into a tick of the kernel: the machine is too busy"

            let isWhole = writeAll frames
            let outcome = collect packets.Length []
            if isWhole then outcome else attempt (left - 1)

        attempt MaxAttempts
        |> List.map (fun frame ->
            { frame with
                Packet = unrouted frame.Packet })

    static member Open() : Kernel =
        check "unshare" (unshare (CLONE_NEWNET ||| CLONE_NEWNS)) |> ignore
        check "mount / private" (mount ("none", "/", null, MS_REC_PRIVATE, 0n)) |> ignore
        check "mount /sys" (mount ("sysfs", "/sys", "sysfs", 0UL, 0n)) |> ignore

        for path, value in settings do
            writeSetting path value

        let entrance = openTun Entrance IFF_TUN_VNET_HDR_NAPI
        let exit = openTun Exit IFF_TUN_VNET_HDR
        check "TUNSETOFFLOAD" (ioctlValue (exit, TUNSETOFFLOAD, TUN_F_CSUM_TSO_USO)) |> ignore
        bringUp Entrance RingLength Mtu |> ignore
        let index = bringUp Exit RingLength Mtu
        List.iter (addRoute index) destinations
        enableFeature Entrance "rx-udp-gro-forwarding"
        enableFeature Exit "tx-tcp-mangleid-segmentation" // or superpackets of one id would be cut before they get there
        writeSetting $"/sys/class/net/{Entrance}/gro_flush_timeout" $"{FlushMs}000000" // ns
        writeSetting $"/sys/class/net/{Entrance}/napi_defer_hard_irqs" "100"
        new Kernel(entrance, exit)

    interface IDisposable with
        member _.Dispose() =
            close entrance |> ignore
            close exit |> ignore

/// Runs `body` in a network namespace of its own. An error text where the kernel or the container refuses.
let run (body: Kernel -> 'T) : Result<'T, string> = Namespace.run Kernel.Open body

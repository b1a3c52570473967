namespace Lightway.Lab

open System
open System.Buffers.Binary
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tun
open Lightway.Tunnel.Udp

/// Frames as a TUN with offload hands them over, for tests and benchmarks.
module Superpackets =
    let private source = Ipv4Address 0xC6336402u // 198.51.100.2

    let private put16 (packet: byte[]) (at: int) (value: uint16) =
        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, at, 2), value)

    let private put32 (packet: byte[]) (at: int) (value: uint32) =
        BinaryPrimitives.WriteUInt32BigEndian(Span(packet, at, 4), value)

    /// virtio_net_hdr, IPv4 header, `transport` header and payload. The checksum field holds the pseudo-header's partial
    /// sum, as NEEDS_CSUM promises.
    let private frame
        protocol
        gsoType
        (destination: Ipv4Address)
        (transport: byte[])
        csumOffset
        (payload: byte[])
        gsoSize
        =
        let vnet: VirtioNetHeader =
            { Flags = VirtioNetHeader.NeedsCsum
              GsoType = gsoType
              HdrLen = uint16 (20 + transport.Length)
              GsoSize = uint16 gsoSize
              CsumStart = 20us
              CsumOffset = uint16 csumOffset }

        let head = Array.zeroCreate VirtioNetHeader.Size
        VirtioNetHeader.write (&vnet, Span head)
        let ip = Array.zeroCreate 20
        let length = transport.Length + payload.Length
        ip[0] <- 0x45uy
        put16 ip 2 (uint16 (20 + length))
        put16 ip 4 0x1234us
        put16 ip 6 0x4000us
        ip[8] <- 64uy
        ip[9] <- protocol
        put32 ip 12 source.Value
        put32 ip 16 destination.Value
        put16 ip 10 (Checksum.complement (Checksum.sum (ReadOnlySpan ip)))
        put16 transport csumOffset (Checksum.pseudoHeaderV4 (source.Value, destination.Value, protocol, length))
        Array.concat [ head; ip; transport; payload ]

    /// One IPv4/TCP superpacket: 20 + 32 bytes of headers (timestamps option), `payload` bytes.
    let tcp (destination: Ipv4Address) (payload: byte[]) (gsoSize: int) : byte[] =
        let header = Array.zeroCreate 32
        put16 header 0 443us
        put16 header 2 50000us
        put32 header 4 1000u
        put32 header 8 2000u
        put16 header 12 0x8018us // data offset 8, PSH and ACK
        put16 header 14 0xFFFFus
        put32 header 20 0x0101080Au
        put32 header 24 1u
        put32 header 28 2u
        frame 6uy VirtioNetHeader.GsoTcpV4 destination header 16 payload gsoSize

    /// One IPv4/UDP superpacket: 20 + 8 bytes of headers.
    let udp (destination: Ipv4Address) (payload: byte[]) (gsoSize: int) : byte[] =
        let header = Array.zeroCreate 8
        put16 header 0 443us
        put16 header 2 50000us
        put16 header 4 (uint16 (8 + payload.Length))
        frame 17uy VirtioNetHeader.GsoUdpL4 destination header 6 payload gsoSize

    /// A well-formed IPv4 packet of `length` bytes, at least 20, of a protocol without a checksum of its own (253, RFC 3692).
    let plain (source: Ipv4Address) (destination: Ipv4Address) (length: int) : byte[] =
        let packet = Array.init length byte
        packet[0] <- 0x45uy
        put16 packet 2 (uint16 length)
        put16 packet 6 0us // no fragment
        packet[9] <- 253uy
        put16 packet 10 0us
        put32 packet 12 source.Value
        put32 packet 16 destination.Value
        put16 packet 10 (~~~(Checksum.sum (ReadOnlySpan(packet, 0, 20))))
        packet

    /// A TCP segment without payload, with these flags and the MSS option: whole, with right checksums.
    let opening (source: Ipv4Address) (destination: Ipv4Address) (flags: byte) (mss: uint16) : byte[] =
        let packet = plain source destination 44
        packet[9] <- 6uy
        put16 packet 10 0us
        put16 packet 10 (~~~(Checksum.sum (ReadOnlySpan(packet, 0, 20))))
        packet[32] <- 0x60uy // 24 bytes of header
        packet[33] <- flags
        put16 packet 36 0us
        packet[40] <- 2uy
        packet[41] <- 4uy
        put16 packet 42 mss
        let pseudo = Checksum.pseudoHeaderV4 (source.Value, destination.Value, 6uy, 24)
        put16 packet 36 (~~~(Checksum.add (pseudo, Checksum.sum (ReadOnlySpan(packet, 20, 24)))))
        packet

    /// The packets of a superpacket.
    let segments (frame: byte[]) : byte[][] =
        let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
        let mutable plan = Unchecked.defaultof<SuperpacketPlan>
        VirtioNetHeader.tryParse (ReadOnlySpan frame, &vnet) |> ignore
        let packet = frame[VirtioNetHeader.Size ..]

        if Superpacket.plan (&vnet, ReadOnlySpan packet, 65535, &plan) <> DropReason.None then
            invalidArg (nameof frame) "no superpacket"

        let template = Array.zeroCreate Segment.MaxHeaderLength
        Segment.prepare (&plan, ReadOnlySpan packet, Span template)

        [| for index in 0 .. plan.SegmentCount - 1 do
               let length = Segment.write (&plan, ReadOnlySpan template, index, Span packet)
               packet[index * plan.GsoSize .. index * plan.GsoSize + length - 1] |]

/// Gives the same frame a number of times, then EAGAIN. The engine cuts a frame where it lies, so only the header needs
/// to be put back before the next time.
[<Sealed>]
type RepeatedFrame(frame: byte[], headerLength: int) =
    let mutable copied = false
    member val Left = 0 with get, set

    interface ITunReader with
        member _.HasVnetHeader = true

        member this.Read(buffer: Span<byte>) : int =
            if this.Left = 0 then
                -11 // EAGAIN
            else
                this.Left <- this.Left - 1

                if copied then
                    ReadOnlySpan(frame, 0, VirtioNetHeader.Size + headerLength).CopyTo buffer
                else
                    ReadOnlySpan(frame).CopyTo buffer
                    copied <- true

                frame.Length

/// Every packet and every datagram belongs to one connection.
[<Sealed>]
type OneRoute(connection: Connection) =
    interface IRouter with
        member _.Find(_packet: ReadOnlySpan<byte>) : Connection = connection
        member _.IsReported(_packet: ReadOnlySpan<byte>) : bool = false

        member _.Dispatch
            (header: inref<WireHeader>, _from: inref<OutsideAddress>, body: ReadOnlySpan<byte>, now: int64)
            =
            connection.Receive(&header, body, now) |> ignore

namespace Lightway.Lab

open System
open System.Buffers.Binary
open Lightway.Segmenter
open Lightway.Tunnel

/// Frames as a TUN with offload hands them over, for tests and benchmarks.
module Superpackets =
    /// virtio_net_hdr and one IPv4/TCP superpacket: 20 + 32 bytes of headers (timestamps option), `payload` bytes.
    /// The checksum field holds the pseudo-header's partial sum, as NEEDS_CSUM promises.
    let tcp (destination: uint32) (payload: byte[]) (gsoSize: int) : byte[] =
        let header = 52
        let frame = Array.zeroCreate (VirtioNetHeader.Size + header + payload.Length)

        let vnet: VirtioNetHeader =
            { Flags = VirtioNetHeader.NeedsCsum
              GsoType = VirtioNetHeader.GsoTcpV4
              HdrLen = uint16 header
              GsoSize = uint16 gsoSize
              CsumStart = 20us
              CsumOffset = 16us }

        VirtioNetHeader.write (&vnet, Span frame)
        let packet = Span(frame, VirtioNetHeader.Size, header + payload.Length)

        let put16 (at: int) (value: uint16) =
            BinaryPrimitives.WriteUInt16BigEndian(Span(frame, VirtioNetHeader.Size + at, 2), value)

        let put32 (at: int) (value: uint32) =
            BinaryPrimitives.WriteUInt32BigEndian(Span(frame, VirtioNetHeader.Size + at, 4), value)

        packet[0] <- 0x45uy
        put16 2 (uint16 packet.Length)
        put16 4 0x1234us
        put16 6 0x4000us
        packet[8] <- 64uy
        packet[9] <- 6uy
        put32 12 0xC6336402u // 198.51.100.2
        put32 16 destination
        put16 10 (Checksum.complement (Checksum.sum (Span.op_Implicit (packet.Slice(0, 20)))))
        put16 20 443us
        put16 22 50000us
        put32 24 1000u
        put32 28 2000u
        put16 32 0x8018us // data offset 8, PSH and ACK
        put16 34 0xFFFFus
        put32 40 0x0101080Au
        put32 44 1u
        put32 48 2u
        put16 36 (Checksum.pseudoHeaderV4 (0xC6336402u, destination, 6uy, packet.Length - 20))
        payload.CopyTo(packet.Slice header)
        frame

/// Gives the same frame a number of times, then EAGAIN. The engine cuts a frame where it lies, so only the header needs
/// to be put back before the next time.
[<Sealed>]
type RepeatedFrame(frame: byte[], headerLength: int) =
    let mutable copied = false
    member val Left = 0 with get, set

    interface IInsideSource with
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

/// Sends every packet to one connection, with the client's address put in.
[<Sealed>]
type OneRoute(connection: Connection, address: uint32) =
    interface IInsideRouter with
        member _.Route(packet: Span<byte>, isPartial: bool) : Connection =
            Rewrite.destination (packet, address, isPartial) |> ignore
            connection

namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Buffers.Binary
open Lightway.Segmenter

/// Inside packets of the programs: each has a number, which its payload carries, with a pattern that depends on it.
[<RequireQualifiedAccess>]
module Cargo =
    /// Bytes of a payload at least: number (4), direction (1).
    let Least = 8

    let private put16 (packet: byte[]) at (value: uint16) =
        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, at, 2), value)

    let private put32 (packet: byte[]) at (value: uint32) =
        BinaryPrimitives.WriteUInt32BigEndian(Span(packet, at, 4), value)

    let private pattern (number: int) (i: int) = byte (number * 7 + i)

    /// direction 1: from a client; 2: to a client.
    let private fill (packet: byte[]) (at: int) (length: int) (number: int) (direction: byte) =
        put32 packet at (uint32 number)
        packet[at + 4] <- direction

        for i in 5 .. length - 1 do
            packet[at + i] <- pattern number i

    let private ipHeader (packet: byte[]) (at: int) (source: Ipv4Address) (destination: Ipv4Address) protocol length =
        packet[at] <- 0x45uy
        put16 packet (at + 2) (uint16 length)
        put16 packet (at + 4) 0x1234us
        put16 packet (at + 6) 0us
        packet[at + 8] <- 64uy
        packet[at + 9] <- protocol
        put32 packet (at + 12) source.Value
        put32 packet (at + 16) destination.Value
        put16 packet (at + 10) (Checksum.complement (Checksum.sum (ReadOnlySpan(packet, at, 20))))

    /// A frame with a virtio_net_hdr and a UDP datagram.
    let datagram
        (source: Ipv4Address)
        (destination: Ipv4Address)
        (payload: int)
        (number: int)
        (direction: byte)
        : byte[] =
        let packet: byte[] = Array.zeroCreate (VirtioNetHeader.Size + 28 + payload)
        let at = VirtioNetHeader.Size
        fill packet (at + 28) payload number direction
        put16 packet (at + 20) 443us
        put16 packet (at + 22) 50000us
        put16 packet (at + 24) (uint16 (8 + payload))
        ipHeader packet at source destination 17uy (28 + payload)

        let pseudo =
            Checksum.pseudoHeaderV4 (source.Value, destination.Value, 17uy, 8 + payload)

        let sum =
            Checksum.add (pseudo, Checksum.sum (ReadOnlySpan(packet, at + 20, 8 + payload)))

        put16 packet (at + 26) (Checksum.udpField (Checksum.complement sum))
        packet

    /// A frame with a superpacket of `count` segments, whose numbers follow each other.
    let superpacket
        (tcp: bool)
        source
        destination
        (payload: int)
        (count: int)
        (number: int)
        (direction: byte)
        : byte[] =
        let header = if tcp then 40 else 28
        let length = header + payload * count
        let packet: byte[] = Array.zeroCreate (VirtioNetHeader.Size + length)
        let at = VirtioNetHeader.Size

        for i in 0 .. count - 1 do
            fill packet (at + header + i * payload) payload (number + i) direction

        put16 packet (at + 20) 443us
        put16 packet (at + 22) 50000us

        if tcp then
            put32 packet (at + 24) 1000u
            put16 packet (at + 32) 0x5010us // 20 bytes of header, ACK
            put16 packet (at + 34) 0xFFFFus
        else
            put16 packet (at + 24) (uint16 (length - 20))

        ipHeader packet at source destination (if tcp then 6uy else 17uy) length
        let field = if tcp then 16 else 6

        put16
            packet
            (at + 20 + field)
            (Checksum.pseudoHeaderV4 (source.Value, destination.Value, (if tcp then 6uy else 17uy), length - 20))

        let vnet: VirtioNetHeader =
            { Flags = VirtioNetHeader.NeedsCsum
              GsoType =
                if tcp then
                    VirtioNetHeader.GsoTcpV4
                else
                    VirtioNetHeader.GsoUdpL4
              HdrLen = uint16 header
              GsoSize = uint16 payload
              CsumStart = 20us
              CsumOffset = uint16 field }

        VirtioNetHeader.write (&vnet, Span packet)
        packet

    let private payloadAt (packet: ReadOnlySpan<byte>) =
        if packet[9] = 6uy then
            20 + 4 * int (packet[32] >>> 4)
        else
            28

    /// The number of an inside packet, or of the first segment of a superpacket.
    let numberOf (packet: ReadOnlySpan<byte>) : int =
        int (BinaryPrimitives.ReadUInt32BigEndian(packet.Slice(payloadAt packet)))

    let source (packet: ReadOnlySpan<byte>) =
        Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(packet.Slice 12))

    let destination (packet: ReadOnlySpan<byte>) =
        Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(packet.Slice 16))

    /// Raises if a packet has changed on its way other than in its addresses.
    let check (packet: ReadOnlySpan<byte>) (direction: byte) : unit =
        let at = payloadAt packet
        let number = numberOf packet
        let length = packet.Length - at

        if int (BinaryPrimitives.ReadUInt16BigEndian(packet.Slice 2)) <> packet.Length then
            raise (Violation $"packet {number} has another length than it says")

        if packet[at + 4] <> direction then
            raise (Violation $"packet {number} has come out where it went in")

        let mutable i = 5

        while i < length do
            if packet[at + i] <> pattern number i then
                raise (Violation $"packet {number} has changed at byte {i} of its payload")

            i <- i + 1

        let sum =
            Checksum.add (
                Checksum.pseudoHeaderV4 (
                    (source packet).Value,
                    (destination packet).Value,
                    packet[9],
                    packet.Length - 20
                ),
                Checksum.sum (packet.Slice 20)
            )

        if Checksum.sum (packet.Slice(0, 20)) <> 0xFFFFus || sum <> 0xFFFFus then
            raise (Violation $"packet {number} has a wrong checksum")

/// Whose each packet is, and what has become of it.
[<Sealed>]
type Ledger() =
    let mutable owners: int[] = Array.zeroCreate 4096
    let mutable sizes: byte[] = Array.zeroCreate 4096 // segments of the frame that begins with this packet
    let mutable states: byte[] = Array.zeroCreate 4096
    let mutable count = 0

    /// Packets that have arrived, of either direction.
    member val Arrived = 0L with get, set

    /// Numbers for `size` packets of one frame; the first one.
    member _.Enter(owner: int, size: int) : int =
        let number = count
        count <- count + size

        while count > owners.Length do
            Array.Resize(&owners, 2 * owners.Length)
            Array.Resize(&sizes, owners.Length)
            Array.Resize(&states, owners.Length)

        for i in number .. count - 1 do
            owners[i] <- owner
            states[i] <- 1uy

        sizes[number] <- byte size
        number

    member _.SizeOf(number: int) : int =
        if number < 0 || number >= count then
            raise (Violation $"packet {number} does not exist")

        int sizes[number]

    /// A packet to a client has been read for this connection.
    member this.Route(number: int, owner: int) : unit =
        for i in number .. number + this.SizeOf number - 1 do
            owners[i] <- owner

    /// A packet has come out at this end.
    member this.Arrive(number: int, owner: int) : unit =
        if number < 0 || number >= count then
            raise (Violation $"packet {number} does not exist")

        if owners[number] <> owner then
            raise (Violation $"packet {number} of {owners[number]} has come out at {owner}")

        if states[number] = 2uy then
            raise (Violation $"packet {number} has come out twice")

        states[number] <- 2uy
        this.Arrived <- this.Arrived + 1L

    member _.HasArrived(number: int) : bool = states[number] = 2uy

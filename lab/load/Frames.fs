namespace Lightway.Lab.Load

open System
open System.Buffers.Binary
open Lightway.Segmenter

/// What packets are offered, in one direction, by all clients together.
type Offer =
    {
        /// Inside bits per second.
        Megabits: float
        /// TCP segments, else UDP datagrams.
        IsTcp: bool
        /// Bytes of payload per segment.
        Payload: int
        /// Segments that one client sends or gets at a time: with more than one they come as a superpacket.
        Segments: int
    }

    /// Bytes of the headers of a packet.
    member this.HeaderLength: int = if this.IsTcp then 40 else 28

    /// Bytes of a frame: virtio_net_hdr, headers, and the payload of all its segments.
    member this.FrameLength: int =
        VirtioNetHeader.Size + this.HeaderLength + this.Payload * this.Segments

    /// Inside bytes of its segments as packets.
    member this.PacketBytes: int = (this.HeaderLength + this.Payload) * this.Segments

    /// Nothing.
    static member None: Offer =
        { Megabits = 0.0
          IsTcp = false
          Payload = 1_200
          Segments = 1 }

    /// Superpackets of the most segments that one send takes, of an MTU of 1350: each client's are full, however many clients
    /// there are.
    static member Tcp(megabits: float) : Offer =
        { Megabits = megabits
          IsTcp = true
          Payload = 1_310
          Segments = 44 }

    /// As a QUIC sender with UDP_SEGMENT: 16 datagrams of 1200 bytes.
    static member UdpBursts(megabits: float) : Offer =
        { Offer.None with
            Megabits = megabits
            Segments = 16 }

    /// As a QUIC sender without UDP_SEGMENT: datagrams of 1200 bytes, one by one.
    static member UdpSingles(megabits: float) : Offer = { Offer.None with Megabits = megabits }

/// Bytes that are due at a rate. What a pause of more than 50 ms left undone is not made up for: the offer is constant, and
/// no burst follows a pause.
[<Sealed>]
type internal Due() =
    let clock = Diagnostics.Stopwatch.StartNew()
    let mutable bytes = 0.0
    let mutable at = 0.0

    member _.Advance(megabits: float) : unit =
        let now = clock.Elapsed.TotalSeconds
        bytes <- bytes + megabits * 1e6 / 8.0 * min (now - at) 0.05
        at <- now

        if megabits = 0.0 then
            bytes <- 0.0

    /// Takes as many if they are due.
    member _.TryTake(count: int) : bool =
        let isDue = bytes >= float count

        if isDue then
            bytes <- bytes - float count

        isDue

/// The first bytes of a frame as a TUN with offload hands it over: the payload may be anything, as the checksum field holds the
/// partial sum of the pseudo-header (NEEDS_CSUM).
[<RequireQualifiedAccess>]
module internal Frames =
    let private put16 (span: Span<byte>, at: int, value: uint16) =
        BinaryPrimitives.WriteUInt16BigEndian(span.Slice at, value)

    let private put32 (span: Span<byte>, at: int, value: uint32) =
        BinaryPrimitives.WriteUInt32BigEndian(span.Slice at, value)

    /// Writes virtio_net_hdr and headers. `sequence`: bytes of the flow before it (TCP).
    let write
        (
            offer: Offer,
            source: Ipv4Address,
            sourcePort: uint16,
            destination: Ipv4Address,
            destinationPort: uint16,
            sequence: uint32,
            frame: Span<byte>
        ) : unit =
        let length = offer.HeaderLength + offer.Payload * offer.Segments
        let protocol = if offer.IsTcp then 6uy else 17uy
        let isSuperpacket = offer.Segments > 1

        let vnet: VirtioNetHeader =
            { Flags = VirtioNetHeader.NeedsCsum
              GsoType =
                if not isSuperpacket then VirtioNetHeader.GsoNone
                elif offer.IsTcp then VirtioNetHeader.GsoTcpV4
                else VirtioNetHeader.GsoUdpL4
              HdrLen = uint16 offer.HeaderLength
              GsoSize = if isSuperpacket then uint16 offer.Payload else 0us
              CsumStart = 20us
              CsumOffset = if offer.IsTcp then 16us else 6us }

        VirtioNetHeader.write (&vnet, frame)
        let packet = frame.Slice VirtioNetHeader.Size
        packet.Slice(0, offer.HeaderLength).Clear()
        packet[0] <- 0x45uy
        put16 (packet, 2, uint16 length)
        put16 (packet, 6, 0x4000us) // DF
        packet[8] <- 64uy
        packet[9] <- protocol
        put32 (packet, 12, source.Value)
        put32 (packet, 16, destination.Value)
        put16 (packet, 10, Checksum.complement (Checksum.sum (Span.op_Implicit (packet.Slice(0, 20)))))
        put16 (packet, 20, sourcePort)
        put16 (packet, 22, destinationPort)

        let sum =
            Checksum.pseudoHeaderV4 (source.Value, destination.Value, protocol, length - 20)

        if offer.IsTcp then
            put32 (packet, 24, sequence)
            put16 (packet, 32, 0x5010us) // 20 bytes of header, ACK
            put16 (packet, 34, 0xFFFFus)
            put16 (packet, 36, sum)
        else
            put16 (packet, 24, uint16 (length - 20))
            put16 (packet, 26, sum)

    let sourceOf (packet: ReadOnlySpan<byte>) : uint32 =
        BinaryPrimitives.ReadUInt32BigEndian(packet.Slice 12)

    let destinationOf (packet: ReadOnlySpan<byte>) : uint32 =
        BinaryPrimitives.ReadUInt32BigEndian(packet.Slice 16)

    let sourcePortOf (packet: ReadOnlySpan<byte>) : uint16 =
        BinaryPrimitives.ReadUInt16BigEndian(packet.Slice 20)

    let protocolOf (packet: ReadOnlySpan<byte>) : byte = packet[9]

/// What both ends of the load know: the inside address that each client has at the server, as the first packet of each has
/// shown, and the bytes that have arrived. One thread writes each array; any reads.
[<Sealed>]
type Register(capacity: int) =
    /// Clients are numbered from 0; the source port of their packets says who they are.
    static let firstPort = 10_000

    let addresses: uint32[] = Array.zeroCreate capacity
    let up: int64[] = Array.zeroCreate capacity
    let down: int64[] = Array.zeroCreate capacity
    let mutable known = 0

    member _.Capacity = capacity

    /// Clients whose address is known.
    member _.Known: int = Threading.Volatile.Read &known

    member _.AddressOf(number: int) : Ipv4Address =
        Ipv4Address(Threading.Volatile.Read &addresses[number])

    /// Inside bytes of each client that have arrived behind the server's TUN.
    member _.Up = up

    /// Inside bytes that each client has received.
    member _.Down = down

    member internal _.PortOf(number: int) : uint16 = uint16 (firstPort + number)

    /// A packet has come through the server's TUN.
    member internal _.Arrived(packet: ReadOnlySpan<byte>) : unit =
        if packet.Length >= 28 then
            let number = int (Frames.sourcePortOf packet) - firstPort

            if number >= 0 && number < capacity then
                up[number] <- up[number] + int64 packet.Length
                let source = Frames.sourceOf packet

                if addresses[number] <> source then
                    if addresses[number] = 0u then
                        Threading.Volatile.Write(&known, known + 1)

                    Threading.Volatile.Write(&addresses[number], source)

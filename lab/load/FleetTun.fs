namespace Lightway.Lab.Load

open System
open System.Collections.Generic
open Lightway.Segmenter
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Tun

/// What a client's TUN device would be, for all clients of a fleet: packets that are due come out of it, by turns, and what is
/// written to it is counted. Client `n` has the address `First` + n at its own end. One thread.
[<Sealed>]
type internal FleetTun(register: Register, sink: Ipv4Address) =
    static let first = 0x0A400001u // 10.64.0.1
    static let again = -11 // EAGAIN

    let due = Due()
    let introductions = Queue<int>()
    let sequences: uint32[] = Array.zeroCreate register.Capacity
    let mutable turn = 0

    static member First: Ipv4Address = Ipv4Address first

    /// The client whose address this is; what is outside the fleet gives a number outside its capacity.
    static member NumberOf(address: uint32) : int = int (address - first)

    static member AddressOf(number: int) : Ipv4Address = Ipv4Address(first + uint32 number)

    member val Offer = Offer.None with get, set

    /// Clients that packets are offered for: the first ones.
    member val Count = 0 with get, set

    /// Frames given out.
    member val Frames = 0L with get, set

    /// One small packet of a client, so that its address behind the server becomes known.
    member _.Introduce(number: int) : unit = introductions.Enqueue number

    /// Makes due what the time is worth.
    member this.Advance() : unit = due.Advance this.Offer.Megabits

    member private this.Write(offer: Offer, number: int, buffer: Span<byte>) : int =
        Frames.write (
            offer,
            FleetTun.AddressOf number,
            register.PortOf number,
            sink,
            9us, // discard
            sequences[number],
            buffer
        )

        sequences[number] <- sequences[number] + uint32 (offer.Payload * offer.Segments)
        this.Frames <- this.Frames + 1L
        offer.FrameLength

    interface ITunReader with
        member _.HasVnetHeader = true

        member this.Read(buffer: Span<byte>) : int =
            let mutable number = 0

            if introductions.TryDequeue &number then
                this.Write({ Offer.None with Payload = 20 }, number, buffer)
            elif this.Count > 0 && due.TryTake this.Offer.PacketBytes then
                turn <- (turn + 1) % this.Count
                this.Write(this.Offer, turn, buffer)
            else
                again

    interface ITunWriter with
        member _.HasVnetHeader = false

        member _.Write(packet: ReadOnlySpan<byte>) : int =
            let number = FleetTun.NumberOf(Frames.destinationOf packet)

            if number >= 0 && number < register.Capacity then
                register.Down[number] <- register.Down[number] + int64 packet.Length

            0

        member _.WriteGathered(_pieces: ReadOnlySpan<IoVector>) : int = -22 // EINVAL: it takes packets only

namespace Lightway.Lab.Load

open System
open System.Net
open System.Runtime.InteropServices
open System.Threading
open Lightway.Lab
open Lightway.Segmenter
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Tun

#nowarn "9" // writes frames by the address of a pinned array

/// The host that all clients talk to, behind the server's TUN device: a TUN device of its own in the server's namespace, whose
/// packets the kernel forwards. It counts what comes and sends what is due to the clients whose addresses are known. One
/// thread.
[<Sealed>]
type Station private (device: TunQueue, register: Register) =
    static let name = "load"
    static let host = Ipv4Address 0x64400002u // 100.64.0.2
    let due = Due()
    let incoming: byte[] = GC.AllocateArray(TunQueue.MaxFrame, pinned = true)
    let outgoing: byte[] = GC.AllocateArray(TunQueue.MaxFrame, pinned = true)
    let start = Marshal.UnsafeAddrOfPinnedArrayElement(outgoing, 0)
    let piece: IoVector[] = Array.zeroCreate 1
    let sequences: uint32[] = Array.zeroCreate register.Capacity
    let loop = OfferLoop()
    let mutable turn = 0
    let mutable refused = 0L
    let mutable sent = 0L

    /// The address that clients send to.
    static member Host: Ipv4Address = host

    /// Makes the device in a server's namespace, and its address.
    static member Open(netns: string, register: Register) : Station =
        let device = Netns.run netns (fun () -> TunQueue.Open(name, Offload()))
        Shell.ip $"-n {netns} addr add 100.64.0.1/24 dev {name}" |> ignore
        Shell.ip $"-n {netns} link set {name} txqueuelen 10000 up" |> ignore
        new Station(device, register)

    /// What is sent to the clients, in turn. Any thread.
    member _.Offer
        with set (value: Offer) = loop.Offer <- value

    /// Inside bytes, and frames that the kernel did not take. Any thread.
    member _.Sent: int64 = Volatile.Read &sent
    member _.Refused: int64 = Volatile.Read &refused

    member private _.Receive() =
        let mutable length = device.Read(Span incoming)

        while length > 0 do
            if length > VirtioNetHeader.Size then
                register.Arrived(ReadOnlySpan(incoming, VirtioNetHeader.Size, length - VirtioNetHeader.Size))

            length <- device.Read(Span incoming)

    member private _.Send() =
        let offer = loop.Offer
        due.Advance offer.Megabits

        while register.Known > 0 && due.TryTake offer.PacketBytes do
            turn <- (turn + 1) % register.Capacity

            while register.AddressOf(turn).IsNone do
                turn <- (turn + 1) % register.Capacity

            Frames.write (
                offer,
                host,
                443us,
                register.AddressOf turn,
                50_000us,
                sequences[turn],
                Span(outgoing, 0, outgoing.Length)
            )

            sequences[turn] <- sequences[turn] + uint32 (offer.Payload * offer.Segments)
            piece[0] <- IoVector(start, nativeint offer.FrameLength)

            if device.WriteGathered(ReadOnlySpan piece) < 0 then
                refused <- refused + 1L
            else
                sent <- sent + int64 offer.PacketBytes

    /// Goes on until `Stop`, on the calling thread.
    member this.Run() : unit =
        loop.Run device.Fd (fun () ->
            this.Receive()
            this.Send())

    /// Ends `Run`. Any thread.
    member _.Stop() : unit = loop.Stop()

    interface IDisposable with
        member _.Dispose() = device.Dispose()

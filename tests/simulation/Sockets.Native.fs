namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Runtime.InteropServices
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Tun
open Lightway.Tunnel.Udp

#nowarn "9" // gathers from the addresses that writev(2) would get

/// errno, as Linux numbers them.
[<RequireQualifiedAccess>]
module Errno =
    [<Literal>]
    let EPERM = 1

    [<Literal>]
    let EIO = 5

    [<Literal>]
    let EAGAIN = 11

    [<Literal>]
    let EINVAL = 22

    [<Literal>]
    let EMSGSIZE = 90

    [<Literal>]
    let EOPNOTSUPP = 95

    [<Literal>]
    let ENOBUFS = 105

    [<Literal>]
    let ECONNREFUSED = 111

/// The socket of one worker of the server.
[<Sealed>]
type ServerSocket(agenda: Agenda, trace: Trace, network: Internet, address: PeerAddress, worker: int) =
    let inbox = Queue<Datagram>()
    let capacity = 512 // datagrams
    let mutable overflows = 0u

    // A path that carries no more is found out by probes.
    let carry (path: PeerAddress) (datagram: ReadOnlySpan<byte>) (mayFragment: bool) limit =
        if mayFragment || datagram.Length + 28 <= limit then
            network.ToHost(path, datagram, address)
        else
            trace.Add(agenda.Now, Mark.Lost, -1, int64 datagram.Length)

    /// Until then nothing can be sent.
    member val FullUntil = Int64.MinValue with get, set
    /// What segmented sends get; 0: they work.
    member val Refusal = 0 with get, set
    /// What the next send gets; 0: it works.
    member val NextError = 0 with get, set
    /// The process is gone: nothing leaves.
    member val IsDead = false with get, set
    /// Bytes of the longest outside packet that the path carries whole.
    member val PathLimit = 65_535 with get, set

    /// Datagrams that were received.
    member val Received = 0L with get, set
    member val Calls = 0L with get, set
    member val Datagrams = 0L with get, set
    member val Bytes = 0L with get, set
    /// Segmented sends that were tried, and were refused.
    member val Segmented = 0L with get, set
    member _.Inbox = inbox
    member _.Overflows = overflows

    member _.Arrive(datagram: Datagram) : unit =
        if inbox.Count = capacity then
            overflows <- overflows + 1u
            trace.Add(agenda.Now, Mark.Overflowed, worker, int64 overflows)
            network.Free datagram
        else
            inbox.Enqueue datagram

    /// As UdpSocket.Receive.
    member this.Receive(batch: ReceiveBatch) : int =
        if inbox.Count = 0 then
            -Errno.EAGAIN
        else
            let messages = ReceivedDatagrams.prepare batch
            let mutable count = 0

            while count < batch.Capacity && inbox.Count > 0 do
                let datagram = inbox.Dequeue()
                ReceivedDatagrams.put messages count datagram.Bytes datagram.Length datagram.From overflows
                network.Free datagram
                count <- count + 1

            this.Received <- this.Received + int64 count
            count

    member private this.Try(path: PeerAddress, data: ReadOnlySpan<byte>, segmentSize: int, mayFragment: bool) : int =
        if agenda.Now < this.FullUntil then
            -Errno.EAGAIN
        elif this.NextError <> 0 then
            let errno = this.NextError
            this.NextError <- 0
            -errno
        elif segmentSize > 0 && this.Refusal <> 0 then
            this.Segmented <- this.Segmented + 1L
            trace.Add(agenda.Now, Mark.Refused, worker, int64 this.Refusal)

            -this.Refusal
        else
            if segmentSize > 0 then
                this.Segmented <- this.Segmented + 1L

            let step = if segmentSize = 0 then data.Length else segmentSize
            let mutable at = 0

            while at < data.Length do
                let length = min step (data.Length - at)
                this.Datagrams <- this.Datagrams + 1L

                if not this.IsDead then
                    carry path (data.Slice(at, length)) mayFragment this.PathLimit

                at <- at + length

            this.Bytes <- this.Bytes + int64 data.Length
            data.Length

    interface IDatagramSender with
        member this.SendFragmentable(path: inref<OutsideAddress>, datagram: ReadOnlySpan<byte>) : int =
            this.Calls <- this.Calls + 1L
            this.Try(path.Peer, datagram, 0, true)

        member this.Send(path: inref<OutsideAddress>, data: ReadOnlySpan<byte>, segmentSize: int, _tos: byte) : int =
            this.Calls <- this.Calls + 1L
            this.Try(path.Peer, data, segmentSize, false)

        // As sendmmsg(2): an error of any but the first run is found again by the next call.
        member this.Send(runs: ReadOnlySpan<DatagramRun>, bytes: ReadOnlySpan<byte>) : int =
            this.Calls <- this.Calls + 1L
            let mutable sent = 0
            let mutable error = 0

            while error = 0 && sent < runs.Length do
                let run = runs[sent]
                let path = run.Path

                let result =
                    this.Try(path.Peer, bytes.Slice(run.Start, run.Length), run.SegmentSize, false)

                if result < 0 then error <- result else sent <- sent + 1

            if sent > 0 then sent else error

/// Where packets come out of a TUN device.
type IArrivals =
    abstract Arrive: packet: ReadOnlySpan<byte> -> unit

/// A TUN queue: frames that wait, and a writer that hands each packet on.
[<Sealed>]
type Device() =
    let frames = Queue<byte[]>()
    let gathered: byte[] = Array.zeroCreate 70_000

    member _.Frames = frames
    member val Arrivals: IArrivals = Unchecked.defaultof<_> with get, set
    /// What superpackets get that are written; 0: they pass.
    member val Refusal = 0 with get, set
    /// What the next plain packet gets; 0: it passes.
    member val NextError = 0 with get, set
    member val Refused = 0L with get, set
    member val Superpackets = 0L with get, set

    interface ITunReader with
        member _.HasVnetHeader = true

        member _.Read(buffer: Span<byte>) : int =
            if frames.Count = 0 then
                -Errno.EAGAIN
            else
                let frame = frames.Dequeue()
                frame.CopyTo buffer
                frame.Length

    interface ITunWriter with
        member _.HasVnetHeader = true

        member this.Write(packet: ReadOnlySpan<byte>) : int =
            if this.NextError <> 0 then
                let errno = this.NextError
                this.NextError <- 0
                -errno
            else
                this.Arrivals.Arrive packet
                0

        member this.WriteGathered(pieces: ReadOnlySpan<IoVector>) : int =
            this.Superpackets <- this.Superpackets + 1L

            if this.Refusal <> 0 then
                this.Refused <- this.Refused + 1L
                -this.Refusal
            else
                let mutable length = 0

                for piece in pieces do
                    Marshal.Copy(piece.Address, gathered, length, int piece.Length)
                    length <- length + int piece.Length

                for packet in Superpackets.segments (Array.sub gathered 0 length) do
                    this.Arrivals.Arrive(ReadOnlySpan packet)

                0

namespace Lightway.Lab

open System
open System.Collections.Generic
open System.Runtime.InteropServices
open Lightway.Segmenter
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Tun

#nowarn "9" // gathers from the addresses that writev(2) would get

/// A TUN inside the process: keeps what is written to it, frame by frame, and fails on request.
[<Sealed>]
type ScriptedTun(hasVnetHeader: bool) =
    let mutable calls = 0

    let outcome (errors: Queue<int>) =
        calls <- calls + 1
        if errors.Count > 0 then -errors.Dequeue() else 0

    /// Frames accepted, oldest first, each with its virtio_net_hdr: ten zeros before a plain packet.
    member val Frames = Queue<byte[]>()
    /// errno of the next writes of superpackets, of plain packets; 0 lets one through.
    member val SuperpacketErrors = Queue<int>()
    member val PlainErrors = Queue<int>()
    /// Accept and forget everything, without allocating.
    member val Discard = false with get, set
    /// Writes that were accepted or refused.
    member _.Calls = calls

    interface ITunWriter with
        member _.HasVnetHeader = hasVnetHeader

        member this.Write(packet: ReadOnlySpan<byte>) : int =
            let result = outcome this.PlainErrors

            if result = 0 && not this.Discard then
                this.Frames.Enqueue(Array.append (Array.zeroCreate VirtioNetHeader.Size) (packet.ToArray()))

            result

        member this.WriteGathered(pieces: ReadOnlySpan<IoVector>) : int =
            let result = outcome this.SuperpacketErrors

            if result = 0 && not this.Discard then
                let frame = ResizeArray<byte>()

                for piece in pieces do
                    let part: byte[] = Array.zeroCreate (int piece.Length)
                    Marshal.Copy(piece.Address, part, 0, part.Length)
                    frame.AddRange part

                this.Frames.Enqueue(frame.ToArray())

            result

/// Finds the packets in the frames that the kernel's GRO made of a batch.
module Lightway.Specs.Oracles.GroGroups

open System.Buffers.Binary
open Lightway.Specs.Oracles.KernelGro

/// Packets that travel together, by their places in the batch, and the frame that carries them.
type Group = { Members: int list; Frame: Frame }

let private word (bytes: byte[]) (at: int) =
    int (BinaryPrimitives.ReadUInt16BigEndian(System.ReadOnlySpan(bytes, at, 2)))

/// A packet without what lies beyond the length in its IP header: the kernel cuts that off.
let private trimmed (packet: byte[]) =
    packet[.. (if packet[0] >>> 4 = 4uy then
                   word packet 2
               else
                   40 + word packet 4)
              - 1]

/// True if a packet is the superpacket's segment, or the piece: addresses, ports, sequence number and payload agree.
/// Not all of its header needs to be: GRO keeps only the first one's urgent pointer, for example.
let private isSegment (frame: Frame) (index: int) (packet: byte[]) : bool =
    let at = frame.CsumStart
    let addresses = if packet[0] >>> 4 = 4uy then 12, 19 else 8, 39

    let same (first: int, last: int) =
        packet[first..last] = frame.Packet[first..last]

    let payloadAt = frame.PayloadAt + index * frame.GsoSize

    let payload =
        if frame.IsPiece then
            frame.Packet[frame.PayloadAt ..]
        else
            frame.Packet[payloadAt .. min (payloadAt + frame.GsoSize) frame.Packet.Length - 1]

    let sequence (bytes: byte[]) =
        (word bytes (at + 4) <<< 16) ||| word bytes (at + 6)

    packet.Length = frame.PayloadAt + payload.Length
    && packet[0] = frame.Packet[0]
    && same addresses
    && same (at, at + 3)
    && packet[frame.PayloadAt ..] = payload
    && (frame.CsumOffset <> 16 || sequence packet = sequence frame.Packet + index * frame.GsoSize)

/// Finds the packets again in the frames that the kernel made of them. Of packets that look alike the earlier comes
/// first; what the kernel dropped is in no group.
let find (packets: byte[] list) (frames: Frame list) : Group list =
    let packets = packets |> List.map trimmed |> Array.ofList
    let isTaken = Array.create packets.Length false

    let take (frame: Frame) (index: int) =
        let isIt (packet: byte[]) =
            if frame.GsoSize = 0 && not frame.IsPiece then
                packet = frame.Packet
            else
                isSegment frame index packet

        match Seq.tryFindIndex id (Seq.map2 (fun packet taken -> not taken && isIt packet) packets isTaken) with
        | None -> failwith $"the kernel made this of something else: %A{frame}"
        | Some found ->
            isTaken[found] <- true
            found

    // Pieces of one superpacket leave one after the other, with one identification. Two such superpackets in a row are
    // taken for one, so the kernel seems to merge more; that hides nothing, as packets like these are never merged by
    // us.
    let belongsTo (group: Group) (frame: Frame) =
        let before = group.Frame.Packet

        let same (first: int) (last: int) =
            before[first..last] = frame.Packet[first..last]

        group.Frame.IsPiece && frame.IsPiece && same 4 5 && same 9 9 && same 12 (frame.CsumStart + 3)

    let add (groups: Group list) (frame: Frame) =
        let members = List.init frame.Count (take frame)

        match groups with
        | group :: rest when belongsTo group frame ->
            { group with
                Members = group.Members @ members }
            :: rest
        | _ -> { Members = members; Frame = frame } :: groups

    frames |> List.fold add [] |> List.sortBy (fun group -> group.Members.Head)

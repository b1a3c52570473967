/// Packets that peers send into the tunnel in one batch: runs that superpackets replace.
module Lightway.Fuzz.CoalesceTargets

open System
open Lightway.Segmenter
open Lightway.Specs.Oracles
open Lightway.Fuzz.Target

/// Packets of a batch.
[<Literal>]
let private Most = 70

let private word (bytes: byte[]) (at: int) = int bytes[at] * 256 + int bytes[at + 1]

let private pseudoHeader (packet: byte[]) (at: int) =
    if at = 40 then
        ByteSum.pseudoHeaderV6 packet packet[6] (packet.Length - at)
    else
        ByteSum.pseudoHeaderV4 packet (packet.Length - at)

/// Lengths and checksums put right, so that what the fuzzer has changed does not keep everything apart.
let private repair (packet: byte[]) : unit =
    let put (at: int) (value: int) = (ByteSum.word value).CopyTo(packet, at)

    let transport (at: int) (protocol: byte) =
        let checksumAt = at + (if protocol = 17uy then 6 else 16)

        if checksumAt + 2 <= packet.Length then
            if protocol = 17uy then
                put (at + 4) (packet.Length - at)

            put checksumAt 0
            let checksum = ByteSum.checksum (Array.append (pseudoHeader packet at) packet[at..])

            put
                checksumAt
                (if protocol = 17uy && checksum = 0us then
                     0xFFFF
                 else
                     int checksum)

    if packet.Length >= 28 && packet[0] = 0x45uy then
        put 2 packet.Length
        put 10 0
        put 10 (int (ByteSum.checksum packet[..19]))
        transport 20 packet[9]
    elif packet.Length >= 48 && packet[0] >>> 4 = 6uy then
        put 4 (packet.Length - 40)
        transport 40 packet[6]

/// Each packet is preceded by a byte whose lowest bit asks for `repair`, and 16 bits of length.
let rec private packetsOf (bytes: byte[]) (left: int) : byte[] list =
    if left = 0 || bytes.Length < 3 then
        []
    else
        let packet = bytes[3 .. 2 + word bytes 1]

        if bytes[0] &&& 1uy <> 0uy then
            repair packet

        packet :: packetsOf bytes[3 + packet.Length ..] (left - 1)

let private coalescer = Coalescer Most

let private membersOf (first: int) =
    first
    |> List.unfold (fun index ->
        if index < 0 then
            None
        else
            Some(index, coalescer.Next index))

/// Without the identification of an atomic datagram (RFC 6864 §4.1).
let private significant (packet: byte[]) =
    let copy = Array.copy packet

    if copy[0] >>> 4 = 4uy && copy[6] &&& 0x40uy <> 0uy then
        Array.fill copy 4 2 0uy
        Array.fill copy 10 2 0uy

    copy

let private checkSuperpacket (packets: byte[][]) (number: int) (run: CoalescedRun) (members: int list) =
    let head = junk (10 + Coalesce.MaxHeaderLength + 8)
    let written = coalescer.WriteHeader(number, Span head)
    require (written = 10 + run.HeaderLength && isJunk head[written..]) "bytes of the header"
    let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
    VirtioNetHeader.tryParse (ReadOnlySpan head, &vnet) |> ignore

    let packet =
        Array.concat (head[10 .. written - 1] :: [ for index in members -> packets[index][run.HeaderLength ..] ])

    require (packet.Length = run.PacketLength && packet.Length <= 65535) "the length of the superpacket"

    let known: NaiveSegmenter.Known =
        { IsV6 = packet[0] >>> 4 = 6uy
          IsUdp = not run.IsTcp
          L4Offset = int vnet.CsumStart
          HeaderLength = run.HeaderLength
          GsoSize = int vnet.GsoSize }

    require
        (List.map significant (NaiveSegmenter.segments known packet) =
            [ for index in members -> significant packets[index] ])
        "cut again, the superpacket is not its packets"

    for index in members do
        let packet = packets[index]

        let covered =
            Array.append (pseudoHeader packet known.L4Offset) packet[known.L4Offset ..]

        require (ByteSum.verifies covered) "a wrong checksum was laundered"

let private batch (bytes: byte[]) =
    let packets = packetsOf bytes Most |> Array.ofList
    coalescer.Reset()
    packets |> Array.iteri (fun index packet -> coalescer.Add(ReadOnlySpan packet, index))

    let runs =
        [ for number in 0 .. coalescer.Count - 1 -> number, coalescer.Run number ]

    let members = [ for _, run in runs -> membersOf run.First ]
    require (List.sort (List.concat members) = [ 0 .. packets.Length - 1 ]) "packets lost or written twice"

    for (number, run), members in List.zip runs members do
        require (run.Count = members.Length && members = List.sort members) "the order of a run"

        if run.Count = 1 then
            require (run.PacketLength = packets[run.First].Length) "the length of a packet"
        else
            checkSuperpacket packets number run members

    let candidates =
        [ for packet in packets -> Coalesce.classify (ReadOnlySpan packet) ]

    kind
        [ magnitude runs.Length
          magnitude (packets.Length - runs.Length)
          yield! [ for candidate in List.truncate 3 candidates -> int candidate.Class ]
          yield! [ for candidate in List.truncate 3 candidates -> candidate.HeaderLength ] ]

let targets =
    [ { Name = "coalesce"
        MaxLength = 6000
        Run = batch } ]

/// Random batches of packets of a few flows, as a sender, a network and an enemy make them. All follows from the seed.
module Lightway.Specs.Traffic

open FsCheck.FSharp
open Lightway.Specs.Generators
open Lightway.Specs.Packets
open Lightway.Specs.Oracles

let private pick (random: System.Random) (items: 'T list) : 'T = items[random.Next items.Length]
let private oneIn (random: System.Random) (count: int) : bool = random.Next count = 0

/// Payload of UDP is found again in the kernel's frames by its bytes, so it is never so short that two packets are
/// likely to have the same.
[<Literal>]
let private ShortestDatagram = 8

let private resized (random: System.Random) (packet: Packet) =
    let length = packet.Payload.Length

    let other =
        pick random [ length / 2; length + 3; random.Next(2 * length + ShortestDatagram) ]

    { packet with
        Payload = filled (Random(random.Next())) (System.Math.Clamp(other, ShortestDatagram, 30000)) }

let private otherFlag (random: System.Random) (packet: Packet) =
    { packet with
        Flags = packet.Flags ^^^ (1 <<< random.Next 12) }

let private otherSequence (random: System.Random) (packet: Packet) =
    { packet with
        Sequence = packet.Sequence + uint32 (random.Next(-200, 200)) }

let private tcpOptions (random: System.Random) =
    filled (Random(random.Next 3)) (4 * pick random [ 0; 0; 1; 3 ])

/// Changes that a sender or a router may make from one packet on.
let private lasting (random: System.Random) (packet: Packet) : Packet =
    match random.Next 10 with
    | 0 ->
        { packet with
            HopLimit = packet.HopLimit - 1 }
    | 1 ->
        { packet with
            TrafficClass = packet.TrafficClass ^^^ (1 <<< random.Next 8) }
    | 2 ->
        { packet with
            FlowLabel = packet.FlowLabel ^^^ (1 <<< random.Next 20) }
    | 3 ->
        { packet with
            Fragment = packet.Fragment ^^^ DontFragment }
    | 4 ->
        { packet with
            Acknowledgement = packet.Acknowledgement + uint32 (1 + random.Next 3000) }
    | 5 ->
        { packet with
            Window = random.Next 65536 }
    | 6 ->
        { packet with
            TcpOptions = tcpOptions random }
    | 7 -> otherFlag random packet
    | 8 -> otherSequence random packet
    | _ -> resized random packet

/// Special properties of a single packet.
let private passing (random: System.Random) (packet: Packet) : Packet =
    match random.Next 18 with
    | 0 ->
        { packet with
            Fragment = packet.Fragment ||| pick random [ 0x2000; 0x8000; 1 + random.Next 0x1FFF ] }
    | 1 ->
        { packet with
            Identification = pick random [ (packet.Identification + random.Next(-2, 3)) &&& 0xFFFF; random.Next 65536 ] }
    | 2 ->
        { packet with
            Options = 1
            Extension = Some(pick random [ 0uy; 60uy ]) }
    | 3 -> otherSequence random packet
    | 4
    | 5 -> otherFlag random packet
    | 6 ->
        { packet with
            Flags = packet.Flags ||| 0x008 } // PSH
    | 7 ->
        { packet with
            Flags = packet.Flags ||| 0x001 } // FIN
    | 8 ->
        { packet with
            Urgent = random.Next 65536 }
    | 9 ->
        { packet with
            TcpOptions = filled (Random(random.Next())) packet.TcpOptions.Length }
    | 10 ->
        { packet with
            TcpOptions = hex "01010101" }
    | 11 -> resized random packet
    | 12 -> { packet with Payload = [||] }
    | 13 ->
        { packet with
            Trailing = 1 + random.Next 8
            IsTrailingSummed = oneIn random 2 }
    | 14 -> { packet with NoChecksum = true }
    | 15 ->
        { packet with
            Spoil = random.Next(1, 0xFFFF) }
    | 16 ->
        { packet with
            SpoilHeader = random.Next(1, 0xFFFF) }
    | _ ->
        { packet with
            SpoilLength = random.Next(-8, 8) }

type private Flow =
    {
        Last: Packet
        Length: int
        /// Identification of the next packet, given this one's.
        Identify: int -> int
    }

let private newFlow (random: System.Random) (number: int) : Flow =
    let template = pick random [ tcp4; tcp6; udp4; udp6 ]

    { Length = pick random [ ShortestDatagram; 100; 100; random.Next(ShortestDatagram, 300); 536; 1200; 1448; 9000 ]
      Identify = pick random [ (fun id -> id + 1); (fun id -> id + 1); id; (fun _ -> random.Next 65536) ]
      Last =
        { template with
            Source =
                Array.append template.Source[.. template.Source.Length - 3] (ByteSum.word (pick random [ 0; number ]))
            SourcePort = pick random [ 10000; 10000 + number ]
            Identification = pick random [ 0; 0xFFF0; random.Next 65536 ]
            Fragment = pick random [ 0; DontFragment; DontFragment ]
            Sequence = pick random [ 0u; 0xFFFFF000u; uint32 (random.Next()) ] + uint32 number
            TcpOptions = tcpOptions random } }

/// The flow's next packet, and the flow after it.
let private step (random: System.Random) (flow: Flow) : Packet * Flow =
    let usual =
        { following flow.Last flow.Length with
            Identification = flow.Identify flow.Last.Identification &&& 0xFFFF }

    let usual = if oneIn random 12 then lasting random usual else usual
    let sent = if oneIn random 10 then passing random usual else usual

    sent,
    { flow with
        Last = (if oneIn random 4 then sent else usual)
        Length = usual.Payload.Length }

/// Loses, repeats or swaps one.
let private disturbed (random: System.Random) (packets: Packet list) : Packet list =
    let place = random.Next packets.Length

    match random.Next 12 with
    | 0 -> List.removeAt place packets
    | 1 -> List.insertAt place packets[place] packets
    | 2 -> packets |> List.removeAt place |> List.insertAt (random.Next packets.Length) packets[place]
    | _ -> packets

/// The packets of one batch: of 1 to `maxFlows` flows, and 1 more than `maxPackets` at most.
let batch (maxFlows: int) (maxPackets: int) (seed: int) : Packet list =
    let random = System.Random seed

    let flows =
        Array.init (1 + random.Next maxFlows) (fun index -> newFlow random (1 + index))

    let mutable current = 0

    [ for _ in 0 .. random.Next maxPackets do
          if oneIn random 3 then
              current <- random.Next flows.Length

          let packet, next = step random flows[current]
          flows[current] <- next
          normal packet ]
    |> disturbed random

/// A receive batch; a counterexample shrinks to the packets that matter.
type Batch = Batch of Packet list

type BatchArbitrary =
    static member Batch() =
        let gen = Gen.choose (0, System.Int32.MaxValue - 1) |> Gen.map (batch 4 79 >> Batch)

        let shrink (Batch packets) =
            let count = packets.Length

            seq {
                if count > 3 then
                    yield Batch(List.truncate (count / 2) packets)
                    yield Batch(List.skip (count / 2) packets)

                if count > 1 then
                    for index in 0 .. count - 1 do
                        yield Batch(List.removeAt index packets)
            }

        Arb.fromGenShrink (gen, shrink)

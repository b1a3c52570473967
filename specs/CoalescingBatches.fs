/// Random batches of packets of a few flows, as a sender, a network and an enemy make them. All follows from the seed.
module Lightway.Specs.CoalescingBatches


open Lightway.Specs.Generators
open Lightway.Specs.Flows

let private pick (random: System.Random) (items: 'T list) : 'T = items[random.Next items.Length]
let private oneIn (random: System.Random) (count: int) : bool = random.Next count = 0

/// Payload of UDP is found again by its bytes, so it is never so short that two packets are likely to have the same.
[<Literal>]
let private ShortestDatagram = 8

let private resized (random: System.Random) (packet: Packet) =
    let length =
        random.Next(ShortestDatagram, 2 * packet.Payload.Length + ShortestDatagram)

    { packet with
        Payload = filled (Random(random.Next())) length }

let private timestamps (random: System.Random) =
    Array.concat [ hex "0101080a"; filled (Random(random.Next 3)) 8 ]

/// What a sender or a router may change from one packet on.
let private lasting (random: System.Random) (packet: Packet) : Packet =
    match random.Next 9 with
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
            Acknowledgement = packet.Acknowledgement + uint32 (random.Next 3000) }
    | 5 ->
        { packet with
            Window = random.Next 65536 }
    | 6 ->
        { packet with
            TcpOptions = timestamps random }
    | 7 ->
        { packet with
            Flags = packet.Flags ^^^ (1 <<< random.Next 12) }
    | _ -> resized random packet

/// What may be special about one packet.
let private passing (random: System.Random) (packet: Packet) : Packet =
    match random.Next 17 with
    | 0 ->
        { packet with
            Fragment = packet.Fragment ||| pick random [ 0x2000; 0x8000; 1 + random.Next 0x1FFF ] }
    | 1 ->
        { packet with
            Identification = (packet.Identification + random.Next(-2, 3)) &&& 0xFFFF }
    | 2 ->
        { packet with
            IpOptions = hex "01010101" }
    | 3 ->
        { packet with
            Extension = Some(pick random [ 0uy; 60uy ], hex "00 010400000000") }
    | 4 ->
        { packet with
            Sequence = packet.Sequence + uint32 (random.Next(-200, 200)) }
    | 5
    | 6
    | 7
    | 8 ->
        { packet with
            Flags = packet.Flags ^^^ (1 <<< random.Next 12) }
    | 9 ->
        { packet with
            Urgent = random.Next 65536 }
    | 10 ->
        { packet with
            TcpOptions = hex "01010101" }
    | 11 -> resized random packet
    | 12 -> { packet with Payload = [||] }
    | 13 ->
        { packet with
            Trailing = 1 + random.Next 8 }
    | 14 -> { packet with Spoilt = NoChecksum }
    | 15 ->
        { packet with
            Spoilt = TransportChecksum }
    | _ ->
        { packet with
            Spoilt = pick random [ TransportChecksum; ShortLength; NetworkChecksum ] }

type private Flow =
    {
        Last: Packet
        Length: int
        /// What the next packet's identification is, after this one's.
        Identify: int -> int
    }

let private newFlow (random: System.Random) (number: int) : Flow =
    let isUdp = oneIn random 2

    { Length = pick random [ ShortestDatagram; 100; 100; 536; 1200; 1448; 1448; 9000 ]
      Identify = pick random [ (fun id -> id + 1); (fun id -> id + 1); id; (fun _ -> random.Next 65536) ]
      Last =
        { plain with
            IsV6 = oneIn random 2
            IsUdp = isUdp
            Flow = (if oneIn random 8 then 0 else number)
            Identification = pick random [ 0; 0xFFF0; random.Next 65536 ]
            Fragment = pick random [ 0; DontFragment; DontFragment ]
            Sequence = pick random [ 0u; 0xFFFFF000u; uint32 (random.Next()) ]
            TcpOptions = (if oneIn random 2 then timestamps random else [||]) } }

/// The flow's next packet, and the flow after it.
let private step (random: System.Random) (flow: Flow) : Packet * Flow =
    let usual =
        { following flow.Last flow.Length with
            Identification = flow.Identify flow.Last.Identification &&& 0xFFFF }

    let usual = if oneIn random 12 then lasting random usual else usual

    let sent = if oneIn random 10 then passing random usual else usual

    sent,
    { flow with
        Last = usual
        Length = usual.Payload.Length }

/// Loses, repeats and swaps a few.
let private disturbed (random: System.Random) (packets: Packet list) : Packet list =
    match random.Next 4, packets.Length with
    | 0, length when length > 2 ->
        let place = random.Next(length - 1)

        match random.Next 3 with
        | 0 -> List.removeAt place packets
        | 1 -> List.insertAt (place + 1) packets[place] packets
        | _ ->
            List.permute
                (fun index ->
                    if index = place then place + 1
                    elif index = place + 1 then place
                    else index)
                packets
    | _ -> packets

/// The packets of one batch: 2 to 40, of 1 to 3 flows.
let batch (seed: int) : Packet list =
    let random = System.Random seed
    let flows = Array.init (1 + random.Next 3) (newFlow random)
    let mutable current = 0

    [ for _ in 1 .. random.Next(2, 41) do
          if oneIn random 3 then
              current <- random.Next flows.Length

          let packet, next = step random flows[current]
          flows[current] <- next
          packet ]
    |> disturbed random

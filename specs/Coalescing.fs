/// What may share a superpacket on its way into the TUN: the inverse of segmentation. The oracle for cutting is the naive
/// segmenter; for what belongs together, a model that sees the descriptions of the packets and never their bytes.
module Lightway.Specs.Coalescing

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Packets
open Lightway.Specs.Superpackets
open Lightway.Specs.Oracles

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<BatchArbitrary>; typeof<ShapeArbitrary>; typeof<SeedArbitrary> ] }

/// What would be written to the TUN in one system call.
type private Frame =
    { Members: int list
      Vnet: VirtioNetHeader
      Packet: byte[] }

let private plain: VirtioNetHeader =
    { Flags = 0uy
      GsoType = 0uy
      HdrLen = 0us
      GsoSize = 0us
      CsumStart = 0us
      CsumOffset = 0us }

let private membersOf (coalescer: Coalescer) (run: CoalescedRun) =
    run.First
    |> List.unfold (fun index ->
        if index < 0 then
            None
        else
            Some(index, coalescer.Next index))

/// Gathers a run as the tunnel engine does: the header, then the payloads as they came.
let private gather (coalescer: Coalescer) (packets: byte[][]) (number: int) : Frame =
    let run = coalescer.Run number
    let members = membersOf coalescer run
    Expect.equal run.Count members.Length "the run has as many packets as it says"

    if run.Count = 1 then
        Expect.equal run.PacketLength packets[run.First].Length "the length of a packet that passes as it is"

        { Members = members
          Vnet = plain
          Packet = packets[run.First] }
    else
        let head = junk (VirtioNetHeader.Size + Coalesce.MaxHeaderLength + 8)
        let written = coalescer.WriteHeader(number, Span head)
        Expect.equal written (VirtioNetHeader.Size + run.HeaderLength) "bytes of virtio_net_hdr and header"
        Expect.all head[written..] ((=) 0xA5uy) "nothing is written beyond the header"
        let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
        VirtioNetHeader.tryParse (ReadOnlySpan head, &vnet) |> ignore
        let payloads = [ for index in members -> packets[index][run.HeaderLength ..] ]

        let packet = Array.concat (head[VirtioNetHeader.Size .. written - 1] :: payloads)

        Expect.equal run.PacketLength packet.Length "the length of the superpacket"

        { Members = members
          Vnet = vnet
          Packet = packet }

let private coalesceWith (coalescer: Coalescer) (packets: byte[] list) : Frame list =
    coalescer.Reset()
    let copies = [| for packet in packets -> Array.copy packet |]

    for index, packet in List.indexed packets do
        let placed = place (index % 5) packet
        coalescer.Add(placed.ReadOnly, index)
        placed.Span.Fill 0xEEuy // the coalescer keeps no packet

    [ for run in 0 .. coalescer.Count - 1 -> gather coalescer copies run ]

let private coalesce (packets: byte[] list) : Frame list =
    coalesceWith (Coalescer(max 1 packets.Length)) packets

let private groups (packets: Packet list) : int list list =
    coalesce (List.map bytesOf packets) |> List.map _.Members

// ---- the model -------------------------------------------------------------------------------------------------------

let private isBarrier (packet: Packet) =
    packet.Fragment &&& 0x3FFF <> 0 || (packet.IsV6 && packet.Options > 0)

let private isMergeable (packet: Packet) =
    not (isBarrier packet)
    && packet.Options = 0
    && packet.Fragment &&& 0x8000 = 0
    && packet.Trailing = 0
    && packet.Spoil = 0
    && packet.SpoilHeader = 0
    && not packet.NoChecksum
    && packet.SpoilLength = 0
    && packet.Payload.Length > 0
    && (packet.IsUdp || packet.Flags &&& 0x0B6 = 0x010) // CWR, URG, RST and SYN clear, ACK set

let private closing = 0x009 // PSH, FIN

let private mayFollow (run: Packet list) (packet: Packet) =
    let first, last = List.head run, List.last run
    let header = if packet.IsV6 then 40 else 20
    let transport = if packet.IsUdp then 8 else 20 + packet.TcpOptions.Length

    let common (packet: Packet) =
        { packet with
            Identification = 0
            Sequence = 0u
            Payload = [||]
            Flags = packet.Flags &&& ~~~closing }

    isMergeable first
    && isMergeable packet
    && common first = common packet
    && last.Payload.Length = first.Payload.Length
    && packet.Payload.Length <= first.Payload.Length
    && last.Flags &&& closing = 0
    && packet.Sequence = (following last).Sequence
    && (packet.IsV6
        || packet.Fragment = DontFragment
        || packet.Identification = (following last).Identification)
    && (not packet.IsUdp || run.Length < 64)
    && header + transport + List.sumBy (fun (p: Packet) -> p.Payload.Length) run + packet.Payload.Length
       <= 65535

/// Runs of a batch, newest first while they are made: a packet joins the newest run of its flow or starts one.
let private model (packets: Packet list) : int list list =
    let flowOf (packet: Packet) =
        packet.Flow, packet.Port, packet.IsV6, packet.IsUdp

    let step (runs, newest) (index, packet) =
        let joined =
            if isBarrier packet then
                None
            else
                Map.tryFind (flowOf packet) newest
                |> Option.filter (fun number -> mayFollow (List.map snd (Map.find number runs)) packet)

        match joined with
        | Some number -> Map.add number (Map.find number runs @ [ index, packet ]) runs, newest
        | None ->
            let number = Map.count runs
            let newest = if isBarrier packet then Map.empty else newest
            Map.add number [ index, packet ] runs, Map.add (flowOf packet) number newest

    let runs, _ = List.fold step (Map.empty, Map.empty) (List.indexed packets)
    [ for KeyValue(_, run) in runs -> List.map fst run ]

// ---- what every frame must be ----------------------------------------------------------------------------------------

let private knownOf (frame: Frame) : NaiveSegmenter.Known =
    { IsV6 = frame.Packet[0] >>> 4 = 6uy
      IsUdp = frame.Vnet.GsoType = VirtioNetHeader.GsoUdpL4
      L4Offset = int frame.Vnet.CsumStart
      HeaderLength = int frame.Vnet.HdrLen
      GsoSize = int frame.Vnet.GsoSize }

/// Without the identification of an atomic datagram, which means nothing (RFC 6864 §4.1), and so without the IPv4
/// checksum over it.
let private significant (packet: byte[]) =
    let copy = Array.copy packet

    if copy[0] >>> 4 = 4uy && copy[6] &&& 0x40uy <> 0uy then
        for at in [ 4; 5; 10; 11 ] do
            copy[at] <- 0uy

    copy

/// What the kernel asks of a superpacket that is written to a TUN device (linux/virtio_net.h, virtio_net_hdr_to_skb).
let private expectValid (frame: Frame) =
    let known = knownOf frame
    let isV6 = frame.Packet[0] >>> 4 = 6uy
    Expect.equal frame.Vnet.Flags VirtioNetHeader.NeedsCsum "NEEDS_CSUM"
    Expect.equal known.L4Offset (if isV6 then 40 else 20) "csum_start"
    Expect.equal frame.Vnet.CsumOffset (if known.IsUdp then 6us else 16us) "csum_offset"
    Expect.isGreaterThan known.GsoSize 0 "gso_size"
    Expect.isGreaterThan (frame.Packet.Length - known.HeaderLength) known.GsoSize "more than one segment"

    if not known.IsUdp then
        Expect.equal frame.Vnet.GsoType (if isV6 then 4uy else 1uy) "gso_type"

    let pseudoHeader =
        (NaiveSegmenter.covered known frame.Packet)[.. (if isV6 then 39 else 11)]

    let field = word frame.Packet (NaiveSegmenter.checksumAt known)
    Expect.equal (field % 65535) (ByteSum.residue pseudoHeader) "a partial sum, not complemented"

    if isV6 then
        Expect.equal (word frame.Packet 4) (frame.Packet.Length - 40) "payload length"
    else
        Expect.equal (word frame.Packet 2) frame.Packet.Length "total length"
        Expect.isTrue (ByteSum.verifies frame.Packet[..19]) "header checksum"

    if known.IsUdp then
        Expect.equal (word frame.Packet (known.L4Offset + 4)) (frame.Packet.Length - known.L4Offset) "UDP length"

let private expectInverse (packets: byte[] list) (frame: Frame) =
    match frame.Members with
    | [ index ] -> Expect.equal frame.Packet packets[index] "a packet alone passes as it is"
    | members ->
        expectValid frame
        let originals = [ for index in members -> significant packets[index] ]
        let cut = NaiveSegmenter.segments (knownOf frame) frame.Packet
        Expect.equal (List.map significant cut) originals "cut again, the superpacket is its packets"

        match Cut.segments Cut.unlimited 0 frame.Vnet frame.Packet with
        | Ok segments -> Expect.equal segments cut "our own segmenter agrees"
        | Error reason -> failtest $"our own segmenter refuses it: {reason}"

let private bytesOfBatch (Batch packets) = List.map bytesOf packets

let private isGood (packet: byte[]) (candidate: Packet) =
    let transport = if packet[0] >>> 4 = 6uy then 40 else 20

    let pseudoHeader =
        if transport = 40 then
            ByteSum.pseudoHeaderV6 packet packet[6] (packet.Length - 40)
        else
            ByteSum.pseudoHeaderV4 packet (packet.Length - 20)

    candidate.Spoil = 0 && ByteSum.verifies (Array.append pseudoHeader packet[transport..])

let private isSorted (numbers: int list) = List.sort numbers = numbers

let private properties =
    [ testPropertyWithConfig config "cut again, every superpacket is byte for byte the packets it replaces"
      <| fun batch ->
          let packets = bytesOfBatch batch
          coalesce packets |> List.iter (expectInverse packets)

      testPropertyWithConfig config "nothing is lost and nothing is written twice"
      <| fun batch ->
          let packets = bytesOfBatch batch
          let written = coalesce packets |> List.collect _.Members
          List.sort written = [ 0 .. packets.Length - 1 ]

      testPropertyWithConfig config "RFC 9293 §3.4: each flow keeps its order, whatever is between its packets"
      <| fun (Batch packets) ->
          let written = groups packets |> List.concat

          packets
          |> List.map (fun packet -> packet.Flow, packet.Port, packet.IsV6, packet.IsUdp)
          |> List.distinct
          |> List.forall (fun (flow, port, isV6, isUdp) ->
              written
              |> List.filter (fun index ->
                  let packet = packets[index]
                  packet.Flow = flow && packet.Port = port && packet.IsV6 = isV6 && packet.IsUdp = isUdp)
              |> isSorted)

      testPropertyWithConfig
          config
          "nothing overtakes a fragment or a packet with an extension header, nor falls behind it"
      <| fun (Batch packets) ->
          let written = groups packets |> List.concat |> Array.ofList

          List.indexed packets
          |> List.filter (fun (_, packet) -> isBarrier packet)
          |> List.forall (fun (index, _) -> Set.ofArray written[.. index - 1] = Set.ofList [ 0 .. index - 1 ])

      testPropertyWithConfig config "runs are those of the model, which never looks at a byte"
      <| fun (Batch packets) -> groups packets = model packets

      testPropertyWithConfig config "RFC 1071: only packets whose checksums are right are merged: nothing is laundered"
      <| fun (Batch packets) ->
          let bytes = List.map bytesOf packets

          coalesce bytes
          |> List.filter (fun frame -> frame.Members.Length > 1)
          |> List.collect _.Members
          |> List.forall (fun index -> isGood bytes[index] packets[index])

      testPropertyWithConfig config "one flipped bit anywhere in a packet's transport takes it out of its run"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let first = if random.Next 2 = 0 then data else datagram
          let packets = train 3 { first with IsV6 = random.Next 2 = 0 } |> List.map bytesOf
          let victim = packets[1]
          let at = random.Next((if victim[0] >>> 4 = 6uy then 40 else 20), victim.Length)
          victim[at] <- victim[at] ^^^ (1uy <<< random.Next 8)

          coalesce packets
          |> List.forall (fun frame -> frame.Members.Length = 1 || not (List.contains 1 frame.Members))

      testPropertyWithConfig config "one changed IPv4 header byte takes a packet out of its run, but in the TTL of all"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let packets = train 3 data |> List.map bytesOf
          let at = random.Next 20
          packets[1][at] <- packets[1][at] ^^^ byte (1 <<< random.Next 8)

          coalesce packets
          |> List.forall (fun frame -> frame.Members.Length = 1 || not (List.contains 1 frame.Members))

      testPropertyWithConfig config "segments of one superpacket come together again as that superpacket"
      <| fun (shape: Shape) ->
          let shape =
              { shape with
                  IpOptions = 0
                  Extensions = []
                  Flags = (shape.Flags &&& 0xF49) ||| 0x010 // no CWR, URG, RST, SYN
                  GsoSize = max shape.GsoSize (shape.PayloadLength / 64 + 1) }

          let superpacket = build shape
          let segments = NaiveSegmenter.segments superpacket.Known superpacket.Packet

          match coalesce segments with
          | [ frame ] when segments.Length > 1 ->
              frame.Packet = superpacket.Packet && frame.Vnet.GsoSize = uint16 shape.GsoSize
          | [ frame ] -> frame.Packet = segments.Head
          | _ -> false

      testPropertyWithConfig config "any bytes pass: what is no packet is written as it came, in order"
      <| fun (Seed seed) ->
          let packets = [ for offset in 0..20 -> snd (mutated (seed / 2 + offset)) ]
          let frames = coalesce packets
          frames |> List.iter (expectInverse packets)
          frames |> List.collect _.Members |> List.sort = [ 0..20 ]

      testPropertyWithConfig config "the batch before leaves no trace"
      <| fun (before: Batch) (after: Batch) ->
          let coalescer = Coalescer 80
          coalesceWith coalescer (bytesOfBatch before) |> ignore
          coalesceWith coalescer (bytesOfBatch after) = coalesce (bytesOfBatch after)

      testPropertyWithConfig
          { config with maxTest = 30 }
          "a thousand flows, more than are told apart at a time: the same laws hold"
      <| fun (Seed seed) ->
          let packets = traffic 1000 1500 seed

          let packets =
              packets
              |> List.map (fun p ->
                  { p with
                      Flow = p.Flow &&& 0xFF
                      Window = p.Flow >>> 8 })

          let bytes = List.map bytesOf packets
          let frames = coalesce bytes
          frames |> List.iter (expectInverse bytes)
          List.sort (List.collect _.Members frames) = [ 0 .. packets.Length - 1 ] ]

// ---- the kernel's table, row by row ----------------------------------------------------------------------------------

/// Three packets in order; `change` has its way with the second.
let private second (change: Packet -> Packet) (first: Packet) =
    match train 3 first with
    | [ a; b; c ] -> [ a; change b; c ]
    | _ -> []

let private row (name: string) (expected: int list list) (packets: Packet list) =
    testCase name
    <| fun () ->
        let bytes = List.map bytesOf packets
        let frames = coalesce bytes
        Expect.equal (List.map _.Members frames) expected "packets of each frame"
        frames |> List.iter (expectInverse bytes)
        Expect.equal (model packets) expected "and so says the model"

let private fragmentable (packet: Packet) = { packet with Fragment = 0 }

let private v6 (packet: Packet) =
    { packet with
        IsV6 = true
        Fragment = 0
        Identification = 0 }

let private withFlags flags (packet: Packet) = { packet with Flags = flags }

let private timestamps (value: byte) =
    [| 1uy; 1uy; 8uy; 10uy; 0uy; 0uy; 0uy; value; 0uy; 0uy; 0uy; 9uy |]

/// Each packet on its own.
let private apart = [ [ 0 ]; [ 1 ]; [ 2 ] ]

let private together = [ [ 0; 1; 2 ] ]

let private networkRows =
    [ row "C-1: in order, one flow" together (train 3 data)
      row "C-1: in order, IPv6" together (train 3 (v6 data))
      row "C-2: DF, identifications fixed" together (second (fun p -> { p with Identification = 100 }) data)
      row
          "C-2: DF, identifications at random (RFC 6864 §4.1)"
          together
          (second (fun p -> { p with Identification = 9 }) data)
      row "C-2: no DF, identifications count up" together (train 3 (fragmentable data))
      row
          "C-2: no DF, identifications wrap"
          together
          (train
              3
              { fragmentable data with
                  Identification = 65534 })
      row "C-2: no DF, identifications fixed" apart
      <| (train 3 (fragmentable data) |> List.map (fun p -> { p with Identification = 100 }))
      row "C-2: no DF, identifications jump" [ [ 0 ]; [ 1; 2 ] ]
      <| (train 3 (fragmentable data)
          |> List.mapi (fun i p ->
              { p with
                  Identification = p.Identification + min i 1 }))
      row "C-3: DF differs" apart (second fragmentable data)
      row "C-3: TTL differs" apart (second (fun p -> { p with Ttl = 63 }) data)
      row "C-3: hop limit differs" apart (second (fun p -> { p with Ttl = 63 }) (v6 data))
      row "C-3: flow label differs" apart (second (fun p -> { p with FlowLabel = 0x80000 }) (v6 data))
      row "C-4: IPv4 options" apart (train 3 { data with Options = 1 })
      row "C-4: IPv4 options end the flow's run" [ [ 0; 1 ]; [ 2 ]; [ 3; 4 ] ]
      <| (train 5 data |> List.mapi (fun i p -> if i = 2 then { p with Options = 1 } else p))
      row "C-4: more fragments" apart (second (fun p -> { p with Fragment = 0x2000 }) data)
      row "C-4: fragment offset" apart (second (fun p -> { p with Fragment = 185 }) data)
      row "C-4: extension header" apart (second (fun p -> { p with Options = 1 }) (v6 data))
      row "C-4: the reserved IPv4 flag" apart (train 3 { data with Fragment = 0xC000 }) ]

let private trafficClassRows =
    [ for bit in 0..7 do
          row $"C-3: bit {bit} of the type of service differs" apart (second (fun p -> { p with Tos = 1 <<< bit }) data)

          row
              $"C-3: bit {bit} of the traffic class differs"
              apart
              (second (fun p -> { p with Tos = 1 <<< bit }) (v6 data)) ]

let private tcpRows =
    [ row "C-5: acknowledgement differs" apart (second (fun p -> { p with Acknowledgement = 78u }) data)
      row "C-5: window differs" apart (second (fun p -> { p with Window = 501 }) data)
      row
          "C-5: equal timestamps"
          together
          (train
              3
              { data with
                  TcpOptions = timestamps 1uy })
      row "C-5: timestamps differ (RFC 7323 §3)" apart
      <| second
          (fun p -> { p with TcpOptions = timestamps 2uy })
          { data with
              TcpOptions = timestamps 1uy }
      row
          "C-5: header lengths differ"
          apart
          (second
              (fun p ->
                  { p with
                      TcpOptions = [| 1uy; 1uy; 1uy; 1uy |] })
              data)
      row "C-6: equal reserved bits" together (train 3 (withFlags 0xE10 data))
      row "C-6: a reserved bit differs" apart (second (withFlags 0x210) data)
      row "C-6: AE differs" apart (second (withFlags 0x110) data)
      row "C-7: urgent pointer differs" apart (second (fun p -> { p with Urgent = 1 }) data)
      row "C-8: PSH on the second" [ [ 0; 1 ]; [ 2 ] ] (second (withFlags 0x018) data)
      row "C-9: PSH on the first" [ [ 0 ]; [ 1; 2 ] ]
      <| (train 3 data |> List.mapi (fun i p -> if i = 0 then withFlags 0x018 p else p))
      row "C-10: FIN with data as the last" together
      <| (train 3 data |> List.mapi (fun i p -> if i = 2 then withFlags 0x011 p else p))
      row "C-10: FIN without data" [ [ 0; 1 ]; [ 2 ] ]
      <| (train 3 data
          |> List.mapi (fun i p ->
              if i = 2 then
                  { withFlags 0x011 p with
                      Payload = [||] }
              else
                  p))
      row "C-11: SYN" apart (second (withFlags 0x012) data)
      row "C-11: RST" apart (second (withFlags 0x014) data)
      row "C-11: URG" apart (second (withFlags 0x030) data)
      row "C-11: no ACK" apart (train 3 (withFlags 0x000 data))
      row "C-12: ECE on all" together (train 3 (withFlags 0x050 data))
      row "C-12: ECE on one" apart (second (withFlags 0x050) data)
      row "C-13: CWR on one (RFC 3168 §6.1.2)" apart (second (withFlags 0x090) data)
      row "C-13: CWR on all" apart (train 3 (withFlags 0x090 data))
      row "C-14: a pure ACK inside a run keeps its place" [ [ 0; 1 ]; [ 2 ]; [ 3; 4 ] ]
      <| (train 4 data
          |> List.insertAt
              2
              { (train 3 data)[2] with
                  Payload = [||] })
      row "C-15: a short segment is the last" [ [ 0; 1 ]; [ 2 ] ]
      <| (let short =
              { (train 2 data)[1] with
                  Payload = Array.zeroCreate 99 }

          [ data; short; following short ])
      row "C-16: a larger segment" [ [ 0; 1 ]; [ 2 ] ]
      <| (train 3 data
          |> List.mapi (fun i p ->
              if i = 2 then
                  { p with
                      Payload = Array.zeroCreate 101 }
              else
                  p))
      row "C-17: a gap" [ [ 0 ]; [ 1 ] ] [ data; following (following data) ]
      row "C-17: an overlap" [ [ 0 ]; [ 1 ] ] [ data; { following data with Sequence = 1099u } ]
      row "C-17: a retransmission" [ [ 0; 1 ]; [ 2; 3 ] ] (train 2 data @ train 2 data)
      row "C-17: out of order" [ [ 0 ]; [ 1 ]; [ 2 ] ] (List.permute (fun i -> (3 - i) % 3) (train 3 data))
      row
          "C-18: the sequence number wraps"
          together
          (train
              3
              { data with
                  Sequence = 0xFFFF_FFFFu - 150u })
      row "C-19: bytes after the IP length" apart (second (fun p -> { p with Trailing = 1 }) data)
      for version, first in [ "IP", data; "IPv6", v6 data ] do
          row $"C-19: bytes after the {version} length that would fill the gap in the sequence numbers" apart
          <| (train 3 first
              |> List.map (fun p ->
                  { p with
                      Payload = p.Payload[..98]
                      Trailing = 1 }))

      row "C-19: bytes after the IPv6 length" apart (second (fun p -> { p with Trailing = 1 }) (v6 data))
      row "C-20: a wrong TCP checksum" apart (second (fun p -> { p with Spoil = 1 }) data)
      row "C-20: a wrong TCP checksum over IPv6" apart (second (fun p -> { p with Spoil = 1 }) (v6 data))
      row "C-20: a wrong IPv4 header checksum" apart (second (fun p -> { p with SpoilHeader = 1 }) data)
      row "C-21: exactly 65535 bytes" [ [ 0..4 ] ]
      <| train
          5
          { data with
              Payload = Array.zeroCreate 13099 }
      row "C-21: one byte more than 65535" [ [ 0..3 ]; [ 4 ] ]
      <| (train
              5
              { data with
                  Payload = Array.zeroCreate 13099 }
          |> List.mapi (fun i p ->
              if i < 4 then
                  p
              else
                  { p with
                      TcpOptions = [||]
                      Payload = Array.zeroCreate 13099 })
          |> List.map (fun p ->
              { p with
                  TcpOptions = [| 1uy; 1uy; 1uy; 1uy |] }))
      row "C-22: 70 segments of TCP" [ [ 0..69 ] ] (train 70 data) ]

/// A datagram whose computed checksum is zero, sent with a zero field.
let private zeroSum =
    let checksum =
        (bytesOf
            { datagram with
                Payload = [| 0uy; 0uy; 1uy |] })[26..27]

    { datagram with
        Payload = Array.append checksum [| 1uy |]
        NoChecksum = true }

/// Ports without a pattern: consecutive ones would spread over the slots too evenly to meet.
let private scattered =
    System.Random(1).GetItems([| 0..40000 |], 400) |> Array.distinct

let private udpRows =
    [ row "C-20: a wrong UDP checksum" apart (second (fun p -> { p with Spoil = 1 }) datagram)
      row "C-22: 64 datagrams, then another superpacket" [ [ 0..63 ]; [ 64..69 ] ] (train 70 datagram)
      row "C-23: equal sizes" together (train 3 datagram)
      row "C-23: equal sizes over IPv6" together (train 3 (v6 datagram))
      row
          "C-23: a short one is the last"
          [ [ 0; 1 ]; [ 2 ] ]
          (second (fun p -> { p with Payload = [| 1uy |] }) datagram)
      row
          "C-23: a larger one"
          [ [ 0 ]; [ 1; 2 ] ]
          (second
              (fun p ->
                  { p with
                      Payload = Array.zeroCreate 101 })
              datagram)
      row "C-24: no checksum (RFC 768)" apart (train 3 { datagram with NoChecksum = true })
      row "C-24: no checksum, where zero would even be right (RFC 768)" apart (train 3 zeroSum)
      row "a UDP length below the IP length" apart (second (fun p -> { p with SpoilLength = -1 }) datagram)
      row "a UDP length beyond the IP length" apart (second (fun p -> { p with SpoilLength = 1 }) datagram)
      row "C-28: 120 flows between the same two hosts" [ for flow in 0..119 -> [ flow; flow + 120; flow + 240 ] ]
      <| [ for packet in train 3 data do
               for port in 0..119 do
                   { packet with Port = scattered[port] } ]
      row "C-25: no payload" apart (second (fun p -> { p with Payload = [||] }) datagram)
      row "C-26: what can't be merged keeps its place" [ [ 0; 1 ]; [ 2 ]; [ 3; 4 ] ]
      <| (train 4 datagram |> List.insertAt 2 { datagram with NoChecksum = true })
      row "C-27: no DF, identifications fixed" apart
      <| (train 3 (fragmentable datagram) |> List.map (fun p -> { p with Identification = 1 }))
      row "C-28: interleaved flows merge each with its own" [ [ 0; 2 ]; [ 1; 3 ] ]
      <| [ data; { datagram with Flow = 2 }; following data; following { datagram with Flow = 2 } ]
      row "C-28: TCP and UDP between the same ports are two flows" [ [ 0; 2 ]; [ 1; 3 ] ]
      <| [ data; datagram; following data; following datagram ]
      row "C-29: after a packet that can't be merged a new run starts" [ [ 0; 1 ]; [ 2 ]; [ 3; 4 ] ]
      <| (train 5 data |> List.mapi (fun i p -> if i = 2 then { p with Spoil = 1 } else p)) ]

let private only (tcp: bool) (udp: bool) =
    let coalescer = Coalescer 6
    coalescer.MergeTcp <- tcp
    coalescer.MergeUdp <- udp

    coalesceWith coalescer (List.map bytesOf (train 3 data @ train 3 { datagram with Flow = 2 }))
    |> List.map _.Members

let private switches =
    [ testCase "TCP switched off passes as it is, UDP is merged"
      <| fun () -> Expect.equal (only false true) [ [ 0 ]; [ 1 ]; [ 2 ]; [ 3; 4; 5 ] ] "runs"

      testCase "UDP switched off passes as it is, TCP is merged"
      <| fun () -> Expect.equal (only true false) [ [ 0; 1; 2 ]; [ 3 ]; [ 4 ]; [ 5 ] ] "runs"

      testCase "ICMP ends nobody's run"
      <| fun () ->
          let icmp =
              hex "4500 001c 0000 4000 4001 0000 0a09 0101 0a08 0002 0800 f7ff 0000 0000"

          let packets = train 3 data |> List.map bytesOf |> List.insertAt 1 icmp
          Expect.equal (coalesce packets |> List.map _.Members) [ [ 0; 2; 3 ]; [ 1 ] ] "runs"

      testCase "an empty packet is written as it came"
      <| fun () -> Expect.equal (coalesce [ [||] ] |> List.map _.Packet) [ [||] ] "frames"

      testCase "nothing is allocated per packet"
      <| fun () ->
          let packets = traffic 4 200 5 |> List.map bytesOf |> Array.ofList
          let coalescer = Coalescer packets.Length
          let head = junk 200

          let batch () =
              coalescer.Reset()

              for index in 0 .. packets.Length - 1 do
                  coalescer.Add(ReadOnlySpan packets[index], index)

              for run in 0 .. coalescer.Count - 1 do
                  if (coalescer.Run run).Count > 1 then
                      coalescer.WriteHeader(run, Span head) |> ignore

          batch ()

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      batch ())

          Expect.equal allocated 0L "bytes" ]

let laws =
    testList
        "Coalescing"
        [ testList "laws" properties
          testList "the kernel's rules" (networkRows @ trafficClassRows @ tcpRows @ udpRows)
          testList "edges" switches ]

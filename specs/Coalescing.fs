/// Packets that may share a superpacket on their way into the TUN: the inverse of segmentation. The oracle for cutting
/// is the naive segmenter; for what belongs together, a model that sees the descriptions of the packets and never their
/// bytes.
module Lightway.Specs.Coalescing

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets
open Lightway.Specs.Packets
open Lightway.Specs.Traffic
open Lightway.Specs.CoalescingCases
open Lightway.Specs.Coalesced
open Lightway.Specs.Oracles

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<BatchArbitrary>; typeof<ShapeArbitrary>; typeof<SeedArbitrary> ] }

let private groups (packets: Packet list) : int list list =
    coalesce (List.map bytesOf packets) |> List.map _.Members

// ---- the model ------------------------------------------------------------------------------------------------------

let private isBarrier (packet: Packet) =
    packet.Fragment &&& 0x3FFF <> 0 || packet.Extension.IsSome

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
    let next = following last 0
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
    && (packet.IsV6 || packet.Fragment = DontFragment || packet.Identification = next.Identification)
    && (if packet.IsUdp then
            run.Length < 64
        else
            packet.Sequence = next.Sequence)
    && header + transport + List.sumBy (fun (p: Packet) -> p.Payload.Length) run + packet.Payload.Length
       <= 65535

/// Runs of a batch, newest first while they are made: a packet joins the newest run of its flow or starts one.
let private model (packets: Packet list) : int list list =
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
            // A barrier may belong to any flow of its source.
            let newest =
                if isBarrier packet then
                    newest |> Map.filter (fun (_, source, _, _, _) _ -> source <> packet.Source)
                else
                    newest

            Map.add number [ index, packet ] runs, Map.add (flowOf packet) number newest

    let runs, _ = List.fold step (Map.empty, Map.empty) (List.indexed packets)
    [ for KeyValue(_, run) in runs -> List.map fst run ]

// ---- what every frame must be ---------------------------------------------------------------------------------------

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

/// The kernel's requirements of a superpacket that is written to a TUN device (linux/virtio_net.h,
/// virtio_net_hdr_to_skb).
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
          |> List.distinctBy flowOf
          |> List.forall (fun one ->
              written |> List.filter (fun index -> flowOf packets[index] = flowOf one) |> isSorted)

      testPropertyWithConfig
          config
          "nothing of its source overtakes a fragment or a packet with an extension header, nor falls behind it"
      <| fun (Batch packets) ->
          let written = groups packets |> List.concat |> Array.ofList

          List.indexed packets
          |> List.filter (fun (_, packet) -> isBarrier packet)
          |> List.forall (fun (index, barrier) ->
              let isOfSource other = packets[other].Source = barrier.Source
              let before = written |> Array.takeWhile ((<>) index) |> Array.filter isOfSource
              Set.ofArray before = Set.ofList (List.filter isOfSource [ 0 .. index - 1 ]))

      testPropertyWithConfig config "runs are those of the model, which never looks at a byte"
      <| fun (Batch packets) -> groups packets = model packets

      testPropertyWithConfig config "RFC 1071: only packets whose checksums are right are merged: nothing is laundered"
      <| fun (Batch packets) ->
          let bytes = List.map bytesOf packets

          coalesce bytes
          |> List.filter (fun frame -> frame.Members.Length > 1)
          |> List.collect _.Members
          |> List.forall (fun index -> isGood bytes[index] packets[index])

      testCase "a packet that does not tell its source ends every run"
      <| fun () ->
          for malformed in [ [||]; [| 0x45uy |]; Array.create 40 0x55uy; Array.create 39 0x60uy ] do
              let four, six = train 2 tcp4 |> List.map bytesOf, train 2 tcp6 |> List.map bytesOf
              let frames = coalesce [ four[0]; six[0]; malformed; four[1]; six[1] ]
              Expect.equal (frames |> List.map _.Members) [ for index in 0..4 -> [ index ] ] $"{malformed.Length} bytes"

      testPropertyWithConfig config "one flipped bit anywhere in a packet's transport takes it out of its run"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let first = [ tcp4; tcp6; udp4; udp6 ][random.Next 4]
          let packets = train 3 first |> List.map bytesOf
          let victim = packets[1]
          let at = random.Next((if victim[0] >>> 4 = 6uy then 40 else 20), victim.Length)
          victim[at] <- victim[at] ^^^ (1uy <<< random.Next 8)

          coalesce packets
          |> List.forall (fun frame -> frame.Members.Length = 1 || not (List.contains 1 frame.Members))

      testPropertyWithConfig config "one changed IPv4 header byte takes a packet out of its run, but in the TTL of all"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let packets = train 3 tcp4 |> List.map bytesOf
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

      testPropertyWithConfig config "any bytes pass: those that are not a packet are written unchanged, in order"
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
          "a thousand flows, more than are distinguished at a time: the same laws hold"
      <| fun (Seed seed) ->
          let packets = batch 1000 1500 seed |> List.map bytesOf
          let frames = coalesce packets
          frames |> List.iter (expectInverse packets)
          List.sort (List.collect _.Members frames) = [ 0 .. packets.Length - 1 ] ]

let private cases =
    [ for case in CoalescingCases.all ->
          testCase case.Title
          <| fun () ->
              let packets = List.map bytesOf case.Packets
              let frames = coalesce packets
              Expect.equal (List.map _.Members frames) case.Groups "packets of each frame"
              frames |> List.iter (expectInverse packets)
              Expect.equal (model case.Packets) case.Groups "and so says the model" ]

let private only (tcp: bool) (udp: bool) =
    let coalescer = Coalescer 6
    coalescer.MergeTcp <- tcp
    coalescer.MergeUdp <- udp

    coalesceWith coalescer (List.map bytesOf (train 3 tcp4 @ train 3 udp4)) |> List.map _.Members

let private switches =
    [ testCase "TCP switched off passes as it is, UDP is merged"
      <| fun () -> Expect.equal (only false true) [ [ 0 ]; [ 1 ]; [ 2 ]; [ 3; 4; 5 ] ] "runs"

      testCase "UDP switched off passes as it is, TCP is merged"
      <| fun () -> Expect.equal (only true false) [ [ 0; 1; 2 ]; [ 3 ]; [ 4 ]; [ 5 ] ] "runs"

      testCase "ICMP ends nobody's run"
      <| fun () ->
          let icmp =
              hex "4500 001c 0000 4000 4001 0000 0a09 0101 0a08 0002 0800 f7ff 0000 0000"

          let packets = train 3 tcp4 |> List.map bytesOf |> List.insertAt 1 icmp
          Expect.equal (coalesce packets |> List.map _.Members) [ [ 0; 2; 3 ]; [ 1 ] ] "runs"

      testCase "an empty packet is written as it came"
      <| fun () -> Expect.equal (coalesce [ [||] ] |> List.map _.Packet) [ [||] ] "frames"

      testCase "nothing is allocated per packet"
      <| fun () ->
          let packets = batch 4 200 5 |> List.map bytesOf |> Array.ofList
          let coalescer = Coalescer packets.Length
          let head = junk 200

          let merge () =
              coalescer.Reset()

              for index in 0 .. packets.Length - 1 do
                  coalescer.Add(ReadOnlySpan packets[index], index)

              for run in 0 .. coalescer.Count - 1 do
                  if (coalescer.Run run).Count > 1 then
                      coalescer.WriteHeader(run, Span head) |> ignore

          merge ()

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      merge ())

          Expect.equal allocated 0L "bytes" ]

let laws =
    testList "Coalescing" [ testList "laws" properties; testList "rules" cases; testList "edges" switches ]

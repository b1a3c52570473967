/// Segments of a superpacket: the rules of RFC 791, 8200, 9293, 768 and 3168.
module Lightway.Specs.Segmentation

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets
open Lightway.Specs.Oracles

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<ShapeArbitrary>; typeof<SeedArbitrary> ] }

let private cutAt (offset: int) (superpacket: Superpacket) =
    match Cut.segments Cut.unlimited offset superpacket.Vnet superpacket.Packet with
    | Ok segments -> segments
    | Error reason -> failwith $"refused: {reason}"

let private cut (superpacket: Superpacket) = cutAt 0 superpacket

let private properties =
    [ testPropertyWithConfig config "the segments are, byte by byte, those of the naive segmenter"
      <| fun (shape: Shape) ->
          let superpacket = build shape
          cut superpacket = NaiveSegmenter.segments superpacket.Known superpacket.Packet

      testPropertyWithConfig
          config
          "the payloads in order are the payload; none exceeds gso_size, all but the last have it"
      <| fun (shape: Shape) ->
          let superpacket = build shape
          let header = superpacket.Known.HeaderLength
          let payloads = cut superpacket |> List.map (fun segment -> segment[header..])

          Array.concat payloads = superpacket.Packet[header..]
          && payloads |> List.rev |> List.tail |> List.forall (fun p -> p.Length = shape.GsoSize)
          && (List.last payloads).Length <= shape.GsoSize

      testPropertyWithConfig config "RFC 1071: a receiver accepts every checksum; RFC 768: UDP never sends zero"
      <| fun (shape: Shape) ->
          let superpacket = build shape

          cut superpacket
          |> List.forall (fun segment ->
              let isHeaderGood =
                  shape.IsV6 || ByteSum.verifies segment[.. int (segment[0] &&& 15uy) * 4 - 1]

              isHeaderGood
              && ByteSum.verifies (NaiveSegmenter.covered superpacket.Known segment)
              && (not shape.IsUdp || word segment (superpacket.Known.L4Offset + 6) <> 0))

      testPropertyWithConfig
          config
          "RFC 6864 §4.2: segments have identifications of their own, one after the other, DF or not"
      <| fun (shape: Shape) ->
          let identifications =
              cut (
                  build
                      { shape with
                          IsV6 = false
                          Extensions = [] }
              )
              |> List.map (fun segment -> word segment 4)

          List.distinct identifications = identifications
          && identifications
             |> List.indexed
             |> List.forall (fun (index, it) -> it = (shape.Identification + index) % 0x10000)

      testPropertyWithConfig
          config
          "RFC 9293 §3.4: each segment's sequence number is where the one before ended, modulo 2^32"
      <| fun (shape: Shape) ->
          let superpacket = build { shape with IsUdp = false }
          let header = superpacket.Known.HeaderLength
          let at = superpacket.Known.L4Offset + 4

          let ranges =
              cut superpacket
              |> List.map (fun segment ->
                  let start = int64 (word segment at) * 65536L + int64 (word segment (at + 2))
                  start, (start + int64 (segment.Length - header)) % 0x1_0000_0000L)

          fst ranges.Head = int64 shape.Sequence
          && ranges |> List.pairwise |> List.forall (fun ((_, ends), (starts, _)) -> ends = starts)

      testPropertyWithConfig
          config
          "where the superpacket lies in memory does not matter, nor is anything around it written"
      <| fun (shape: Shape) (offset: byte) ->
          let superpacket = build shape
          cutAt (int offset) superpacket = cut superpacket

      testPropertyWithConfig config "hdr_len, which the kernel sets to what it likes, does not matter"
      <| fun (shape: Shape) (hdrLen: uint16) ->
          let superpacket = build shape

          cut superpacket =
              cut
                  { superpacket with
                      Vnet =
                          { superpacket.Vnet with
                              HdrLen = hdrLen } }

      testPropertyWithConfig config "bytes beyond the IP length are no part of the packet"
      <| fun (shape: Shape) (beyond: byte[]) ->
          let superpacket = build shape

          cut superpacket =
              cut
                  { superpacket with
                      Packet = Array.append superpacket.Packet beyond }

      testPropertyWithConfig config "the plan says what was built"
      <| fun (shape: Shape) ->
          let superpacket = build shape
          let known = superpacket.Known

          match Cut.plan Cut.unlimited superpacket.Vnet (place 0 superpacket.Packet) with
          | Error _ -> false
          | Ok plan ->
              plan.HeaderLength = known.HeaderLength
              && plan.L4Offset = known.L4Offset
              && plan.PacketLength = superpacket.Packet.Length
              && plan.GsoSize = shape.GsoSize
              && plan.IsV4 = not shape.IsV6
              && plan.IsTcp = not shape.IsUdp
              && plan.SegmentCount = (List.length (cut superpacket))

      testPropertyWithConfig config "header and gso_size beyond the MTU are refused, exactly the MTU is not"
      <| fun (shape: Shape) ->
          let superpacket = build shape
          let needed = superpacket.Known.HeaderLength + shape.GsoSize
          let placed = place 0 superpacket.Packet

          Result.isOk (Cut.plan needed superpacket.Vnet placed)
          && Cut.plan (needed - 1) superpacket.Vnet placed = Error DropReason.OversizedSegment

      testPropertyWithConfig config "every truncation of a superpacket is refused"
      <| fun (shape: Shape) (Seed seed) ->
          let superpacket = build shape
          let kept = seed % superpacket.Packet.Length
          Result.isError (Cut.plan Cut.unlimited superpacket.Vnet (place 3 superpacket.Packet[.. kept - 1])) ]

let private segmentsOf (shape: Shape) = cut (build shape)

let private lengths (header: int) =
    List.map (fun (segment: byte[]) -> segment.Length - header)

let private wordsAt (at: int) =
    List.map (fun (segment: byte[]) -> word segment at)

let private vectors =
    [ testCase "segment counts: header 40, gso_size 100, packets of 40, 41, 140, 141 and 340 bytes"
      <| fun () ->
          let counts =
              [ for length in [ 40; 41; 140; 141; 340 ] -> Superpacket.segmentCount (length - 40, 100) ]

          Expect.equal counts [ 0; 1; 1; 2; 3 ] "counts"
          Expect.equal (Superpacket.segmentCount (100, 0)) 0 "gso_size 0"

      testCase "RFC 9293: payload 250 in 100s, PSH and FIN on the last only, sequence +0, +100, +200"
      <| fun () ->
          let segments = segmentsOf { plainShape with Flags = 0x019 }
          Expect.equal (lengths 40 segments) [ 100; 100; 50 ] "payloads"
          Expect.equal (wordsAt 26 segments) [ 1000; 1100; 1200 ] "sequence"
          Expect.equal (wordsAt 32 segments) [ 0x5010; 0x5010; 0x5019 ] "flags"

      testCase "RFC 3168 §6.1.2: CWR on the first only; ECE, URG, SYN, RST and the reserved bits on all"
      <| fun () ->
          let segments = segmentsOf { plainShape with Flags = 0xFFF }
          Expect.equal (wordsAt 32 segments) [ 0x5FF6; 0x5F76; 0x5F7F ] "flags"

      testCase "the last segment may be full: it is still the last"
      <| fun () ->
          let segments =
              segmentsOf
                  { plainShape with
                      Flags = 0x019
                      PayloadLength = 200 }

          Expect.equal (wordsAt 32 segments) [ 0x5010; 0x5019 ] "flags"

      testCase "RFC 791: identification fffe counts to ffff and 0000, with DF and without"
      <| fun () ->
          for dontFragment in [ true; false ] do
              let segments =
                  segmentsOf
                      { plainShape with
                          Identification = 0xFFFE
                          DontFragment = dontFragment }

              Expect.equal (wordsAt 4 segments) [ 0xFFFE; 0xFFFF; 0 ] $"DF {dontFragment}"

      testCase "RFC 9293 §3.4: sequence ffffff9c counts to 00000000 and 00000064"
      <| fun () ->
          let segments =
              segmentsOf
                  { plainShape with
                      Sequence = 0xFFFF_FF9Cu }

          Expect.equal (wordsAt 24 segments) [ 0xFFFF; 0; 0 ] "high"
          Expect.equal (wordsAt 26 segments) [ 0xFF9C; 0; 0x64 ] "low"

      testCase "odd sizes: gso_size 1001, payload 2003"
      <| fun () ->
          let segments =
              segmentsOf
                  { plainShape with
                      GsoSize = 1001
                      PayloadLength = 2003 }

          Expect.equal (lengths 40 segments) [ 1001; 1001; 1 ] "payloads"

      testCase "RFC 768: UDP of 2500 bytes in 1000s has lengths 1008, 1008, 508"
      <| fun () ->
          let segments =
              segmentsOf
                  { plainShape with
                      IsUdp = true
                      GsoSize = 1000
                      PayloadLength = 2500 }

          Expect.equal (lengths 28 segments) [ 1000; 1000; 500 ] "payloads"
          Expect.equal (wordsAt 24 segments) [ 1008; 1008; 508 ] "UDP length"

      testCase "RFC 8200 §3: payload length counts extension headers, so it is the packet's length less 40"
      <| fun () ->
          let segments =
              segmentsOf
                  { plainShape with
                      IsV6 = true
                      Extensions = [ IpProtocol.HopByHop, 0uy; IpProtocol.Routing, 2uy ] }

          Expect.equal (wordsAt 4 segments) [ 152; 152; 102 ] "8 + 24 + 20 + payload"

      testCase "one segment: the bytes are the superpacket's but for the checksum"
      <| fun () ->
          let superpacket = build { plainShape with PayloadLength = 100 }
          let segment = List.exactlyOne (cut superpacket)
          Array.fill segment 36 2 0uy
          Array.fill superpacket.Packet 36 2 0uy
          Expect.equal segment superpacket.Packet "bytes"

      testCase "the ECN bit of gso_type changes nothing"
      <| fun () ->
          for isV6 in [ false; true ] do
              let shape = { plainShape with IsV6 = isV6 }
              Expect.equal (segmentsOf { shape with EcnBit = true }) (segmentsOf shape) $"IPv6 {isV6}"

      testCase "any number of segments: 1, 2, 63, 64, 65, 127, 128, 129, and 65415 of one byte"
      <| fun () ->
          for count in [ 1; 2; 63; 64; 65; 127; 128; 129 ] do
              let shape =
                  { plainShape with
                      PayloadLength = count * 100 }

              Expect.equal (List.length (segmentsOf shape)) count $"{count}"

          let tiny =
              build
                  { plainShape with
                      GsoSize = 1
                      PayloadLength = 65415 }

          Expect.equal (cut tiny) (NaiveSegmenter.segments tiny.Known tiny.Packet) "gso_size 1"

      testCase "the longest packet of each family: IP length fields at 65535"
      <| fun () ->
          for isV6, payload in [ false, 65535 - 40; true, 65535 - 20 ] do
              let superpacket =
                  build
                      { plainShape with
                          IsV6 = isV6
                          GsoSize = 1360
                          PayloadLength = payload }

              let expected = NaiveSegmenter.segments superpacket.Known superpacket.Packet
              Expect.equal (cut superpacket) expected $"IPv6 {isV6}"

      testCase "an index that the plan does not have writes nothing"
      <| fun () ->
          let superpacket = build plainShape
          let placed = place 7 superpacket.Packet
          let mutable plan = Expect.wantOk (Cut.plan 1500 superpacket.Vnet placed) "planned"
          let template = junk Segment.MaxHeaderLength
          Segment.prepare (&plan, placed.ReadOnly, Span template)

          for index in [ -1; 3; Int32.MaxValue; Int32.MinValue ] do
              Expect.equal (Segment.write (&plan, ReadOnlySpan template, index, placed.Span)) 0 $"{index}"

          Expect.equal placed.Bytes superpacket.Packet "untouched" ]

let private allocation =
    testCase "plan, prepare and write allocate nothing"
    <| fun () ->
        let superpacket =
            build
                { plainShape with
                    GsoSize = 1360
                    PayloadLength = 60_000 }

        let vnet = superpacket.Vnet
        let packet = place 0 superpacket.Packet
        let template = junk Segment.MaxHeaderLength
        let mutable plan = Unchecked.defaultof<SuperpacketPlan>

        let round () =
            superpacket.Packet.CopyTo packet.Span
            let reason = Superpacket.plan (&vnet, packet.ReadOnly, 1500, &plan)
            Segment.prepare (&plan, packet.ReadOnly, Span template)
            let mutable total = 0

            for index in 0 .. plan.SegmentCount - 1 do
                total <- total + Segment.write (&plan, ReadOnlySpan template, index, packet.Span)

            if reason <> DropReason.None || total <= 60_000 then
                failtest "not segmented"

        round ()

        let allocated =
            allocatedBy (fun () ->
                for _ in 1..1000 do
                    round ())

        Expect.equal allocated 0L "bytes for 45 000 segments"

let laws = testList "Segmentation" (properties @ vectors @ [ allocation ])

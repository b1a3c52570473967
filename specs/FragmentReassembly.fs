/// Putting fragmented inside packets together (protocol §4) against a table of single bytes.
module Lightway.Specs.FragmentReassembly

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

type Piece =
    { Id: uint16
      Offset: int
      More: bool
      Payload: byte[] }

/// A table and the buffer that its packets come out in.
type private Subject(capacity, maxBytes, timeoutMs) =
    let dst = junk 65_535
    member val Table = FragmentTable(capacity, maxBytes, timeoutMs)
    member this.BytesHeld = this.Table.BytesHeld

    member this.Add(now, piece: Piece) =
        let mutable length = -1

        let status =
            this.Table.Add(piece.Id, piece.Offset, piece.More, ReadOnlySpan piece.Payload, now, Span dst, &length)

        status,
        (if status = FragmentStatus.Complete then
             dst[.. length - 1]
         else
             [||])

let private add (subject: Subject) now piece = subject.Add(now, piece)

let private roomy () = Subject(4096, 1 <<< 24, 10_000L<ms>)

/// All pieces of a packet, in order, `size` bytes each but the last.
let private cut id (size: int) (packet: byte[]) =
    let last = (packet.Length - 1) / size

    [ for i in 0..last ->
          { Id = id
            Offset = i * size
            More = i < last
            Payload = packet[i * size .. min packet.Length (i * size + size) - 1] } ]

/// A packet's pieces in some order, some of them more than once.
type Delivery = { Packet: byte[]; Pieces: Piece list }

type FragmentArbitrary =
    static member Delivery() =
        gen {
            let! id = Gen.choose (0, 65535)

            let! length =
                Gen.frequency [ 18, Gen.choose (1, 4000); 1, Gen.choose (4000, 65535); 1, Gen.constant 65535 ]

            let! size = Gen.elements [ 8; 16; 64; 1240; 1488; 8192 ]
            let! seed = Gen.choose (0, Int32.MaxValue - 1)
            let packet = filled (Random seed) length

            let pieces =
                cut (uint16 id) (if length > 20_000 then max size 1240 else size) packet

            let! repeats = Gen.listOfLength 4 (Gen.elements pieces)
            let! order = Gen.shuffle (Array.ofList (pieces @ repeats))

            return
                { Packet = packet
                  Pieces = List.ofArray order }
        }
        |> Arb.fromGen

    /// Pieces that overlap, contradict and complete each other, as all ids and offsets are small.
    static member Piece() =
        gen {
            let! id = Gen.choose (1, 3)

            let! offset =
                Gen.frequency [ 30, Gen.choose (0, 5) |> Gen.map ((*) 8); 1, Gen.constant 65528 ]

            let! length =
                Gen.frequency [ 700, Gen.elements [ 8; 16; 24 ]; 300, Gen.choose (0, 30); 1, Gen.constant 40_000 ]

            let! more = Gen.frequency [ 3, Gen.constant true; 1, Gen.constant false ]
            let! seed = Gen.frequency [ 12, Gen.constant 0; 1, Gen.choose (1, 3) ] // contradicting bytes are rare
            let packet = filled (Random(id * 10 + seed)) (offset + length)

            return
                { Id = uint16 id
                  Offset = offset
                  More = more
                  Payload = packet[offset..] }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 1_000
        arbitrary = [ typeof<FragmentArbitrary>; typeof<SeedArbitrary> ] }

/// The rules in the words of §4, byte by byte, without limits of time or memory.
type private Model() =
    let bytes = Dictionary<uint16, Dictionary<int, byte>>()
    let totals = Dictionary<uint16, int>()

    let forget id =
        bytes.Remove id |> ignore
        totals.Remove id |> ignore

    member _.Add(piece: Piece) =
        let known =
            match bytes.TryGetValue piece.Id with
            | true, known -> known
            | _ -> Dictionary()

        bytes[piece.Id] <- known
        let finish = piece.Offset + piece.Payload.Length
        let places = [ piece.Offset .. finish - 1 ]
        let overlaps = places |> List.exists known.ContainsKey

        let repeats =
            places
            |> List.forall (fun at -> known.ContainsKey at && known[at] = piece.Payload[at - piece.Offset])

        let isTotal = totals.ContainsKey piece.Id && totals[piece.Id] = finish

        let invalid =
            piece.Payload.Length = 0
            || finish > 65535
            || (overlaps && not (repeats && piece.More <> isTotal))
            || (not overlaps && totals.ContainsKey piece.Id && finish > totals[piece.Id])
            || (not overlaps && not piece.More && known.Keys |> Seq.exists (fun at -> at >= finish))

        if invalid then
            forget piece.Id
            FragmentStatus.Invalid, [||]
        else
            places |> List.iter (fun at -> known[at] <- piece.Payload[at - piece.Offset])

            if not piece.More then
                totals[piece.Id] <- finish

            if totals.ContainsKey piece.Id && known.Count = totals[piece.Id] then
                let packet = Array.init known.Count (fun at -> known[at])
                forget piece.Id
                FragmentStatus.Complete, packet
            else
                FragmentStatus.Stored, [||]

let private whole =
    [ testPropertyWithConfig
          config
          "§4: pieces in any order, repeated or not, give the packet with the last one missing"
      <| fun (delivery: Delivery) ->
          let table = roomy ()
          let missing = HashSet(delivery.Pieces |> List.map _.Offset)

          delivery.Pieces
          |> List.takeWhile (fun piece ->
              let completes = missing.Remove piece.Offset && missing.Count = 0

              let expected =
                  if completes then
                      FragmentStatus.Complete, delivery.Packet
                  else
                      FragmentStatus.Stored, [||]

              Expect.equal (add table 0L<ms> piece) expected $"offset {piece.Offset}"
              not completes)
          |> ignore

          missing.Count = 0 && table.BytesHeld = 0

      testPropertyWithConfig config "§4: packets with different ids do not disturb each other"
      <| fun (deliveries: Delivery list) (Seed seed) ->
          let table = Subject(4096, Int32.MaxValue, 10_000L<ms>)
          let random = System.Random seed

          let queues =
              deliveries
              |> List.truncate 12
              |> List.mapi (fun i delivery ->
                  let pieces =
                      delivery.Pieces
                      |> List.distinctBy _.Offset
                      |> List.map (fun piece -> { piece with Id = uint16 i })

                  delivery.Packet, Queue pieces)

          let mutable open' = queues
          let mutable right = true

          while not open'.IsEmpty do
              let packet, queue = open'[random.Next open'.Length]
              let status, result = add table 0L<ms> (queue.Dequeue())
              right <- right && (status = FragmentStatus.Complete) = (queue.Count = 0)
              right <- right && (queue.Count > 0 || result = packet)
              open' <- open' |> List.filter (fun (_, queue) -> queue.Count > 0)

          right && table.BytesHeld = 0 ]

let private rules =
    [ testPropertyWithConfig
          { config with
              maxTest = 20_000
              endSize = 60 }
          "§4: any pieces are judged as a table of single bytes would judge them"
      <| fun (pieces: Piece list) ->
          let table = Subject(4096, 1 <<< 24, Time.Never)
          let model = Model()

          pieces
          |> List.iteri (fun i piece ->
              Expect.equal (add table 0L<ms> piece) (model.Add piece) $"piece {i} at {piece.Offset}")

      for name, pieces in
          [ "an empty piece", [ 0, true, 0 ]
            "an overlap", [ 0, true, 16; 8, true, 16 ]
            "a piece behind the last", [ 8, false, 8; 16, true, 8 ]
            "a second last", [ 8, false, 8; 16, false, 8 ]
            "a last before a known piece", [ 16, true, 8; 8, false, 8 ]
            "a piece that ends behind 65535", [ 65528, false, 8 ] ] do
          testCase $"§4: {name} is invalid and discards its id"
          <| fun () ->
              let table = roomy ()
              let packet = filled (Random 1) 65_600

              let piece (offset, more, length) =
                  { Id = 1us
                    Offset = offset
                    More = more
                    Payload = Array.sub packet offset length }

              let statuses = pieces |> List.map (piece >> add table 0L<ms> >> fst)
              Expect.equal (List.last statuses) FragmentStatus.Invalid "invalid"
              Expect.all (List.take (pieces.Length - 1) statuses) ((=) FragmentStatus.Stored) "before"
              Expect.equal table.BytesHeld 0 "discarded"

      testCase "§4: a packet of exactly 65535 bytes is whole, one byte more is invalid"
      <| fun () ->
          let table = roomy ()
          let packet = filled (Random 2) 65_536

          let last length =
              { Id = 1us
                Offset = 65_528
                More = false
                Payload = packet[65_528 .. 65_528 + length - 1] }

          for piece in cut 1us 1240 packet[..65_527] do
              Expect.equal (fst (add table 0L<ms> { piece with More = true })) FragmentStatus.Stored "stored"

          Expect.equal (add table 0L<ms> (last 7)) (FragmentStatus.Complete, packet[..65_534]) "complete"
          Expect.equal (fst (add table 0L<ms> (last 8))) FragmentStatus.Invalid "too long"

      testCase "§4: a packet that does not fit the caller's buffer is invalid, and nothing is written"
      <| fun () ->
          let table = roomy ()
          let dst = junk 99
          let mutable length = -1

          let status =
              table.Table.Add(1us, 0, false, ReadOnlySpan(Array.zeroCreate<byte> 100), 0L<ms>, Span dst, &length)

          Expect.equal (status, length, dst) (FragmentStatus.Invalid, 0, junk 99) "refused" ]

let private limits =
    let first id =
        { Id = id
          Offset = 0
          More = true
          Payload = junk 8 }

    let last id =
        { first id with
            Offset = 8
            More = false }

    [ testPropertyWithConfig config "§10: whatever comes, no more bytes are held than allowed"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let maxBytes = random.Next(0, 300_000)
          let table = Subject(random.Next(0, 20), maxBytes, 50L<ms>)

          Seq.init 300 (fun i ->
              let piece =
                  { Id = uint16 (random.Next 40)
                    Offset = random.Next(0, 8192) / random.Next(1, 100) * 8
                    More = random.Next 4 > 0
                    Payload = junk (random.Next(0, 2000)) }

              add table (milliseconds i) piece |> ignore
              table.BytesHeld <= maxBytes && table.BytesHeld >= 0)
          |> Seq.forall id

      testCase "§10: a packet that is not whole in time is dropped, one in time is not"
      <| fun () ->
          let table = Subject(10, 1 <<< 20, 5_000L<ms>)
          add table 1_000L<ms> (first 1us) |> ignore
          add table 1_001L<ms> (first 2us) |> ignore
          Expect.equal (fst (add table 6_000L<ms> (last 1us))) FragmentStatus.Stored "late: taken for a new packet"
          Expect.equal (fst (add table 6_000L<ms> (last 2us))) FragmentStatus.Complete "in time"
          table.Table.Expire 11_000L<ms>
          Expect.equal table.BytesHeld 0 "nothing is left"

      testCase "§10: the table says when its oldest packet is due to be dropped, and nothing while it is empty"
      <| fun () ->
          let table = Subject(10, 1 <<< 20, 5_000L<ms>)
          Expect.equal table.Table.ExpiresAt Time.Never "empty"
          add table 1_000L<ms> (first 1us) |> ignore
          add table 3_000L<ms> (first 2us) |> ignore
          Expect.equal table.Table.ExpiresAt 6_000L<ms> "the oldest"
          table.Table.Expire(table.Table.ExpiresAt - 1L<ms>)
          Expect.equal table.Table.ExpiresAt 6_000L<ms> "not yet"
          table.Table.Expire table.Table.ExpiresAt
          Expect.equal table.Table.ExpiresAt 8_000L<ms> "the next one"
          Expect.equal (fst (add table 7_000L<ms> (last 2us))) FragmentStatus.Complete "whole"
          Expect.equal table.Table.ExpiresAt Time.Never "empty again"

      testCase "§4: with all places taken, the oldest packet makes room"
      <| fun () ->
          let table = Subject(3, 1 <<< 20, 10_000L<ms>)

          for id in [ 1us; 2us; 3us; 4us ] do
              add table 0L<ms> (first id) |> ignore

          let statuses = [ 2us; 3us; 4us ] |> List.map (last >> add table 0L<ms> >> fst)
          Expect.all statuses ((=) FragmentStatus.Complete) "kept"
          Expect.equal (fst (add table 0L<ms> (last 1us))) FragmentStatus.Stored "1 was dropped"

      testCase "§4: with all memory taken, the oldest packet makes room, and never the one being built"
      <| fun () ->
          let table = Subject(100, 3 * 2048, 10_000L<ms>)

          for id in [ 1us; 2us; 3us ] do
              add table 0L<ms> (first id) |> ignore

          let far =
              { first 1us with
                  Offset = 2048
                  Payload = junk 100 }

          Expect.equal (fst (add table 0L<ms> far)) FragmentStatus.Stored "grows at the cost of 2"
          Expect.equal (fst (add table 0L<ms> (last 3us))) FragmentStatus.Complete "3 was kept"
          Expect.equal (fst (add table 0L<ms> (last 2us))) FragmentStatus.Stored "2 was dropped"

      // Less than a byte per packet, and not 0: a garbage collection may trim the shared pool meanwhile.
      testCase "§4: reassembly in steady state allocates nothing"
      <| fun () ->
          let table = roomy ()
          let pieces = cut 0us 1240 (junk 3500) |> Array.ofList
          let dst = junk 65_535
          let order = [| 1; 0; 2 |]

          let round count =
              let mutable completed = 0
              let mutable length = 0

              for i in 1..count do
                  for at in order do
                      let piece = pieces[at]

                      let status =
                          table.Table.Add(
                              uint16 i,
                              piece.Offset,
                              piece.More,
                              ReadOnlySpan piece.Payload,
                              milliseconds i,
                              Span dst,
                              &length
                          )

                      if status = FragmentStatus.Complete then
                          completed <- completed + 1

              completed

          round 1_000 |> ignore
          let before = GC.GetAllocatedBytesForCurrentThread()
          let completed = round 20_000
          let allocated = GC.GetAllocatedBytesForCurrentThread() - before
          Expect.equal completed 20_000 "packets"
          Expect.isLessThan allocated 20_000L "bytes" ]

let laws = testList "fragments" (whole @ rules @ limits)

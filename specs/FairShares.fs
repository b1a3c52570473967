/// Shares of a worker's time (docs/architecture.md, "Outside to inside"), against a count of what everybody sent and a queue
/// like that of a socket.
module Lightway.Specs.FairShares

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// What happens in one window.
type Window =
    { Length: int64 // ms since the one before; a window is over after 20
      Offers: (int * int) list // by turns: a peer, and how many datagrams it sends
      Overflows: bool
      Empties: bool }

type Course = Course of Window list

type CourseArbitrary =
    static member Course() =
        let offer =
            Gen.zip
                (Gen.frequency [ 6, Gen.choose (0, 2); 1, Gen.choose (3, 7) ])
                (Gen.frequency [ 3, Gen.choose (0, 5); 3, Gen.choose (50, 300) ])

        gen {
            let! chance = Gen.choose (0, 3)

            let window =
                gen {
                    let! length =
                        Gen.frequency
                            [ 8, Gen.choose64 (20L, 25L)
                              1, Gen.choose64 (20L, 700L)
                              1, Gen.choose64 (1_000L, 2_500L) ]

                    let! offers =
                        Gen.choose (0, 6) |> Gen.bind (fun count -> Gen.listOfLength count offer)

                    let! overflows = Gen.choose (0, 3)
                    let! empties = Gen.choose (0, 3)

                    return
                        { Length = length
                          Offers = offers
                          Overflows = overflows < chance
                          Empties = empties > chance }
                }

            let! count = Gen.choose (1, 120)
            let! windows = Gen.listOfLength count window
            return Course windows
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<CourseArbitrary> ] }

/// What became of a window: its time, the allowance, and per peer what it sent and what was opened.
type private Outcome =
    { At: int64
      Allowance: int
      Sent: Map<int, int>
      Opened: Map<int, int> }

    member this.Lost =
        (this.Sent |> Map.values |> Seq.sum) - (this.Opened |> Map.values |> Seq.sum)

let private add (peer: int) (count: int) (counts: Map<int, int>) =
    counts |> Map.change peer (fun before -> Some(Option.defaultValue 0 before + count))

let private follow (Course windows) : Outcome list =
    let share = FairShare()
    let peers: PeerShare[] = Array.zeroCreate 8
    let mutable now = 0L

    [ for window in windows do
          now <- now + window.Length
          share.Begin(milliseconds (int now))
          let allowance = share.Allowance
          let mutable sent = Map.empty
          let mutable opened = Map.empty

          for peer, count in window.Offers do
              for _ in 1..count do
                  sent <- add peer 1 sent
                  opened <- add peer (if share.TryTake &peers[peer] then 1 else 0) opened

          if window.Overflows then
              share.Overflowed()

          if window.Empties then
              share.Emptied()

          { At = now
            Allowance = allowance
            Sent = sent
            Opened = opened } ]

/// Peers that have sent something within a time before each window, that window not included.
let private activeBefore (outcomes: Outcome list) (ms: int64) : int list =
    outcomes
    |> List.mapi (fun number outcome ->
        outcomes
        |> List.take number
        |> List.filter (fun other -> outcome.At - other.At <= ms)
        |> List.collect (fun other -> List.ofSeq other.Sent.Keys)
        |> List.distinct
        |> List.length)

let private silent (Course windows) =
    windows |> List.map (fun window -> { window with Overflows = false }) |> Course

let private laws' =
    [ testPropertyWithConfig config "nothing is dropped before the kernel has dropped something"
      <| fun (course: Course) ->
          follow (silent course)
          |> List.forall (fun outcome -> outcome.Lost = 0 && outcome.Allowance = Int32.MaxValue)

      testPropertyWithConfig config "nothing is dropped while one peer is active"
      <| fun (Course windows) ->
          windows
          |> List.map (fun window ->
              { window with
                  Offers = [ for _, count in window.Offers -> 5, count ] })
          |> Course
          |> follow
          |> List.forall (fun outcome -> outcome.Lost = 0)

      testPropertyWithConfig
          config
          "no peer gets more than the allowance, and nobody else's traffic is a reason to lose anything"
      <| fun (course: Course) ->
          let outcomes = follow course
          let sentBefore = Map.empty :: (outcomes |> List.map _.Sent)

          List.zip outcomes (List.take outcomes.Length sentBefore)
          |> List.forall (fun (outcome, before) ->
              outcome.Sent
              |> Map.forall (fun peer sent ->
                  let earlier = before |> Map.tryFind peer |> Option.defaultValue 0
                  let most = min sent outcome.Allowance

                  if earlier <= outcome.Allowance then
                      outcome.Opened[peer] = most
                  else
                      // Evenly: the part of the window before that was allowed.
                      let part = int64 sent * int64 outcome.Allowance / int64 earlier
                      int64 outcome.Opened[peer] = min part (int64 most)))

      testPropertyWithConfig
          config
          "a peer that has been at or below its share loses nothing: the allowance is never below it"
      <| fun (course: Course) ->
          let outcomes = follow course

          // Those of the last second count, and of the two before if the worker slept in between.
          List.zip outcomes (activeBefore outcomes 3_000L)
          |> List.pairwise
          |> List.forall (fun ((before, _), (outcome, active)) ->
              let opened = before.Opened |> Map.values |> Seq.sum
              outcome.Allowance >= opened / max 1 active)

      testPropertyWithConfig
          config
          "the allowance is an eighth less than the most that one peer got, or the share, or rises"
      <| fun (course: Course) ->
          follow course
          |> List.pairwise
          |> List.forall (fun (before, outcome) ->
              let most = before.Opened |> Map.values |> Seq.fold max 0
              outcome.Allowance >= min before.Allowance most * 7 / 8)

      testPropertyWithConfig config "a second after the last drop, whoever's it was, the allowance is lifted"
      <| fun (Course windows) ->
          let outcomes = follow (Course windows)
          let lost = List.zip windows outcomes

          outcomes
          |> List.forall (fun outcome ->
              let isRecent (window: Window, other: Outcome) =
                  other.At < outcome.At
                  && outcome.At - other.At <= 1_000L + 2_500L // the window that follows the drop ends with the next
                  && (window.Overflows || other.Lost > 0)

              outcome.Allowance = Int32.MaxValue || List.exists isRecent lost) ]

/// Windows of 20 ms in which the peers send this much each, the order turning.
let private steady (offers: int list) (count: int) (overflows: int -> bool) (empties: bool) =
    [ for number in 1..count ->
          { Length = 20L
            Offers = List.indexed offers
            Overflows = overflows number
            Empties = empties } ]

let private examples =
    [ testCase "the shares add up: while the worker never keeps up, all get what was opened in a window, in equal parts"
      <| fun () ->
          let outcomes =
              follow (Course(steady [ 900; 700; 500; 300 ] 100 (fun _ -> true) false))

          let last = List.last outcomes
          Expect.equal last.Allowance (2_400 / 4) "a quarter of what was opened before"
          Expect.equal last.Opened (Map [ 0, 600; 1, 600; 2, 500; 3, 300 ]) "nobody below it loses anything"

      testCase "the first window after an overflow takes an eighth from whoever got most, and nothing from the others"
      <| fun () ->
          let outcomes = follow (Course(steady [ 800; 100 ] 2 ((=) 1) false))
          Expect.equal outcomes[1].Opened (Map [ 0, 700; 1, 100 ]) "opened"

      testCase "what others leave unused goes to the greedy one: within a second it has it all back"
      <| fun () ->
          let course =
              steady [ 800; 10 ] 50 (fun _ -> true) false @ steady [ 800; 10 ] 50 (fun _ -> false) true

          let outcomes = follow (Course course)
          Expect.equal outcomes[49].Opened[0] 405 "half of 810"
          Expect.equal outcomes[99].Lost 0 "all"

      testCase "a queue that is never found empty keeps the pressure up without an overflow"
      <| fun () ->
          let outcomes = follow (Course(steady [ 800; 10 ] 6 ((=) 1) false))

          Expect.isTrue
              (outcomes
               |> List.tail
               |> List.pairwise
               |> List.forall (fun (one, next) -> next.Allowance < one.Allowance))
              "it falls from window to window"

      testCase "a peer that was there in the second before counts, though it is silent in this window"
      <| fun () ->
          let course =
              steady [ 800; 10 ] 1 (fun _ -> true) false @ steady [ 800 ] 45 (fun _ -> true) false

          Expect.equal (List.last (follow (Course course))).Allowance 405 "half"

      testCase "a peer that has been silent for two seconds does not count"
      <| fun () ->
          let course =
              steady [ 800; 10 ] 10 (fun _ -> true) false @ steady [ 800 ] 102 (fun _ -> true) false

          Expect.equal (List.last (follow (Course course))).Allowance Int32.MaxValue "one is left"

      testCase "a window is not over before 20 ms"
      <| fun () ->
          let share = FairShare()
          let peers: PeerShare[] = Array.zeroCreate 2

          let offer () =
              for _ in 1..80 do
                  share.TryTake &peers[0] |> ignore

              share.TryTake &peers[1] |> ignore

          share.Begin 100L<ms>
          offer ()
          share.Overflowed()
          share.Begin 119L<ms>
          Expect.equal share.Allowance Int32.MaxValue "still the first"
          share.Begin 120L<ms>
          Expect.equal share.Allowance 70 "the second"

      testCase
          "a clock that goes back or jumps begins another window, and no allowance outlives it by more than a second"
      <| fun () ->
          let share = FairShare()
          let peers: PeerShare[] = Array.zeroCreate 2
          let times = [ 5_000L; 4_000L; Int64.MaxValue; Int64.MinValue; 0L; 20L; 40L ]

          for time in times do
              share.Begin(time * 1L<ms>)
              share.Overflowed()
              share.TryTake &peers[0] |> ignore
              share.TryTake &peers[1] |> ignore

          for time in 60L..20L..1_100L do
              share.Begin(time * 1L<ms>)
              share.Emptied()

          Expect.equal share.Allowance Int32.MaxValue "lifted"

      testCase "it costs no allocation, and 24 bytes per peer"
      <| fun () ->
          let share = FairShare()
          let peers: PeerShare[] = Array.zeroCreate 4
          let mutable now = 0

          let round () =
              for _ in 1..200 do
                  now <- now + 7
                  share.Begin(milliseconds now)
                  share.Overflowed()

                  for peer in 0..3 do
                      for _ in 0 .. 40 * peer do
                          share.TryTake &peers[peer] |> ignore

          Expect.equal (allocatedBy round) 0L "bytes"
          Expect.equal (Runtime.CompilerServices.Unsafe.SizeOf<PeerShare>()) 24 "bytes of a peer" ]

/// A worker that opens `perMs` datagrams per ms, or drops twenty times as many, behind a queue that loses what does not fit.
/// Each peer sends at its rate (datagrams per ms), in random order. The result: which part of each peer's datagrams was
/// opened, after the first second.
let private simulate (isFair: bool) (rates: float list) (seconds: int) : float list =
    let perMs, room = 100.0, 2_000
    let random = System.Random 11
    let share = FairShare()
    let peers: PeerShare[] = Array.zeroCreate rates.Length
    let sent: int64[] = Array.zeroCreate rates.Length
    let opened: int64[] = Array.zeroCreate rates.Length
    let queue = Queue<int>()
    let mutable lostSince = false

    for now in 1 .. 1_000 * seconds do
        let counts = now > 1_000

        let arrivals =
            [| for peer, rate in List.indexed rates do
                   for _ in 1 .. int (rate * 2.0 * random.NextDouble() + random.NextDouble()) -> peer |]

        random.Shuffle arrivals

        for peer in arrivals do
            if counts then
                sent[peer] <- sent[peer] + 1L

            if queue.Count < room then
                queue.Enqueue peer
            else
                lostSince <- true

        let mutable time = 1.0
        share.Begin(milliseconds now)

        // As the kernel does it, datagrams that were lost are reported with the next that is received.
        if lostSince then
            share.Overflowed()
            lostSince <- false

        while time > 0.0 && queue.Count > 0 do
            let peer = queue.Dequeue()

            if share.TryTake &peers[peer] || not isFair then
                time <- time - 1.0 / perMs

                if counts then
                    opened[peer] <- opened[peer] + 1L
            else
                time <- time - 0.05 / perMs

        if queue.Count = 0 then
            share.Emptied()

    [ for peer in 0 .. rates.Length - 1 -> float opened[peer] / float (max 1L sent[peer]) ]

let private simulations =
    [ for factor in [ 1.5; 2.0; 4.0; 8.0 ] do
          testCase $"beside a peer that sends {factor} times what the worker can open, a modest one keeps 0.94"
          <| fun () ->
              let without = simulate false [ factor * 100.0; 10.0 ] 5
              let fair = simulate true [ factor * 100.0; 10.0 ] 5
              Expect.isLessThan without[1] 0.75 "without the rule"
              Expect.isGreaterThan fair[1] 0.94 "modest"
              // What is left after the modest one, and after dropping, which is a twentieth of opening.
              let possible = (100.0 - 10.0 - 0.05 * (factor - 0.9) * 100.0) / (factor * 100.0)
              Expect.isGreaterThan fair[0] (0.8 * possible) "the greedy one gets what is left"

      testCase "two peers that are as greedy get as much"
      <| fun () ->
          let parts = simulate true [ 100.0; 100.0 ] 5
          Expect.floatClose { absolute = 0.05; relative = 0.05 } parts[0] parts[1] "parts"
          Expect.isGreaterThan (parts[0] + parts[1]) 0.8 "nothing is wasted: 1 is what the worker can do"

      testCase "of three greedy and twenty modest ones the modest keep 0.97 each"
      <| fun () ->
          let parts = simulate true (List.replicate 3 150.0 @ List.replicate 20 1.0) 5
          Expect.all (List.skip 3 parts) (fun part -> part > 0.97) "modest" ]

let laws = testList "fair shares" (laws' @ examples @ simulations)

/// The client's keepalive (protocol §7): laws about whole histories, one entry per ms.
module Lightway.Specs.KeepaliveMachine

open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

type Event =
    | Activity
    | Pong
    | NetworkChanged
    | Suspended
    | Online

type Seen =
    | Came of Event
    | Pinged
    | Closed

/// Intervals of 1 to 40 ms, timeouts of 1 to 120 ms, and what comes at which ms of 400.
type Run =
    { Interval: int64<ms>
      Timeout: int64<ms>
      Events: (int64<ms> * Event) list }

type RunArbitrary =
    static member Run() =
        gen {
            let! interval = Gen.choose (1, 40)
            let! timeout = Gen.choose (1, 120)
            let! count = Gen.choose (0, 12)

            let event =
                Gen.frequency [ 4, Gen.constant Activity; 1, Gen.constant NetworkChanged ]

            let! events =
                Gen.listOfLength count (Gen.zip (Gen.choose (1, 400) |> Gen.map milliseconds) event)

            return
                { Interval = milliseconds interval
                  Timeout = milliseconds timeout
                  Events = List.sortBy fst events }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        arbitrary = [ typeof<RunArbitrary> ] }

let private length = 600L<ms> // of a history

/// Events and actions, in order, of a machine that is ticked every ms.
let private history continuous (run: Run) =
    let seen = List<int64<ms> * Seen>()
    let mutable state = Keepalive.create (run.Interval, run.Timeout, continuous, 0L<ms>)

    let act now action =
        match action with
        | KeepaliveAction.SendPing -> seen.Add(now, Pinged)
        | KeepaliveAction.Close -> seen.Add(now, Closed)
        | _ -> ()

    for now in 0L<ms> .. 1L<ms> .. length do
        for _, event in (0L<ms>, Online) :: run.Events |> List.filter (fun (at, _) -> at = now) do
            seen.Add(now, Came event)

            match event with
            | Activity -> state <- Keepalive.activity (state, now)
            | Pong -> state <- Keepalive.pong state
            | Suspended -> state <- Keepalive.suspend state
            | Online -> state <- Keepalive.online (state, now)
            | NetworkChanged ->
                let struct (next, action) = Keepalive.networkChanged (state, now)
                state <- next
                act now action

        let due = state.NextAt <= now
        let before = state
        let struct (next, action) = Keepalive.tick (state, now)
        Expect.isTrue (due || (next = before && action = KeepaliveAction.None)) "an early tick changes nothing"
        state <- next
        act now action

    List.ofSeq seen

let private pings seen =
    seen |> List.filter (snd >> (=) Pinged) |> List.map fst

let private closes seen =
    seen |> List.filter (snd >> (=) Closed) |> List.map fst

/// The part of a history before the connection ended.
let private alive seen =
    seen |> List.takeWhile (snd >> (<>) Closed)

/// The latest of the things seen before ms `at` that `holds` is true for.
let private latest holds at seen =
    seen |> List.filter (fun (time, what) -> time < at && holds what) |> List.tryLast |> Option.map fst

/// When the timeout was armed that ran at ms `at`: at the first ping after the last sign of life.
let private armedAt at (seen: (int64<ms> * Seen) list) =
    let before = seen |> List.filter (fun (time, _) -> time < at)

    let rest =
        match
            before
            |> List.tryFindIndexBack (fun (_, what) -> what = Came Activity || what = Came NetworkChanged)
        with
        | Some index -> before[index + 1 ..]
        | None -> before

    pings rest |> List.tryHead

let private continuous =
    [ testPropertyWithConfig
          config
          "when all is silent, a ping goes out every interval, and the end comes a timeout after the first"
      <| fun (run: Run) ->
          let seen = history true { run with Events = [] }
          let closeAt = run.Interval + run.Timeout

          let expected =
              [ run.Interval .. run.Interval .. closeAt - 1L<ms> ] |> List.filter (fun at -> at <= length)

          pings seen = expected && closes seen = (if closeAt <= length then [ closeAt ] else [])

      testPropertyWithConfig
          config
          "every ping comes an interval after the last ping or frame, or when the network changes"
      <| fun (run: Run) ->
          let seen = history true run
          let changes = seen |> List.filter (snd >> (=) (Came NetworkChanged)) |> List.map fst

          let stirs what =
              what = Pinged || what = Came Activity || what = Came Online

          pings seen
          |> List.forall (fun at -> List.contains at changes || latest stirs at seen = Some(at - run.Interval))

      testPropertyWithConfig config "no interval of silence passes without a ping, until the end"
      <| fun (run: Run) ->
          let seen = history true run |> alive

          let stop =
              closes (history true run) |> List.tryHead |> Option.defaultValue (length + 1L<ms>)

          let times =
              (seen |> List.filter (fun (_, what) -> what <> Came NetworkChanged) |> List.map fst) @ [ stop ]

          times |> List.pairwise |> List.forall (fun (one, next) -> next - one <= run.Interval)

      testPropertyWithConfig
          config
          "the end comes exactly a timeout after the first ping since the last sign of life, once"
      <| fun (run: Run) ->
          let seen = history true run

          match closes seen with
          | [] -> true
          | [ at ] -> armedAt at seen = Some(at - run.Timeout)
          | _ -> false

      testPropertyWithConfig config "no unanswered ping grows older than a timeout"
      <| fun (run: Run) ->
          let seen = history true run

          let expired at =
              armedAt at seen |> Option.exists (fun armed -> at - armed > run.Timeout)

          let stop = closes seen |> List.tryHead |> Option.defaultValue length
          [ 0L<ms> .. 1L<ms> .. stop ] |> List.forall (expired >> not)

      testPropertyWithConfig config "after the end nothing is asked for, whatever comes"
      <| fun (run: Run) ->
          let late =
              [ Activity; Pong; NetworkChanged; Suspended; Online ] |> List.map (fun event -> 500L<ms>, event)

          let seen = history true { run with Events = run.Events @ late }

          match closes seen with
          | at :: more -> more.IsEmpty && pings seen |> List.forall (fun ping -> ping <= at)
          | [] -> true

      testPropertyWithConfig config "with frames more often than the interval, no ping is sent at all"
      <| fun (run: Run) ->
          let events =
              [ for at in 1L<ms> .. max 1L<ms> (run.Interval - 1L<ms>) .. length -> at, Activity ]

          run.Interval = 1L<ms> || pings (history true { run with Events = events }) = []

      testCase "a pong calls the end off, and the interval goes on"
      <| fun () ->
          let run =
              { Interval = 10L<ms>
                Timeout = 25L<ms>
                Events = [ 12L<ms>, Pong; 12L<ms>, Activity ] }

          let seen = history true run
          Expect.equal (pings seen |> List.truncate 3) [ 10L<ms>; 22L<ms>; 32L<ms> ] "pings"
          Expect.equal (closes seen) [ 47L<ms> ] "25 ms after the ping at 22"

      testCase "an answer at the very ms of the timeout is in time"
      <| fun () ->
          let run =
              { Interval = 10L<ms>
                Timeout = 25L<ms>
                Events = [ 35L<ms>, Activity ] }

          Expect.equal (closes (history true run)) [ 70L<ms> ] "25 ms after the ping at 45" ]

let private otherwise =
    [ testPropertyWithConfig config "not continuous: without a change of network it never pings and never ends"
      <| fun (run: Run) ->
          let events = run.Events |> List.filter (snd >> (=) Activity)
          let seen = history false { run with Events = events }
          pings seen = [] && closes seen = []

      testCase "not continuous: after a change of network it pings at once, then every interval until a pong"
      <| fun () ->
          let run =
              { Interval = 10L<ms>
                Timeout = 60L<ms>
                Events = [ 100L<ms>, NetworkChanged; 125L<ms>, Pong ] }

          let seen = history false run
          Expect.equal (pings seen, closes seen) ([ 100L<ms>; 110L<ms>; 120L<ms> ], []) "and silence after it"

      testCase "not continuous: after a change of network without any answer it ends"
      <| fun () ->
          let run =
              { Interval = 10L<ms>
                Timeout = 60L<ms>
                Events = [ 100L<ms>, NetworkChanged ] }

          Expect.equal (closes (history false run)) [ 160L<ms> ] "a timeout later"

      testCase "suspended it asks for nothing until the network changes or the connection is online again"
      <| fun () ->
          let suspended =
              { Interval = 10L<ms>
                Timeout = 60L<ms>
                Events = [ 15L<ms>, Suspended ] }

          let seen = history true suspended
          Expect.equal (pings seen, closes seen) ([ 10L<ms> ], []) "asleep"

          let woken =
              history
                  true
                  { suspended with
                      Events = suspended.Events @ [ 300L<ms>, NetworkChanged ] }

          Expect.equal
              (pings woken |> List.truncate 3, closes woken)
              ([ 10L<ms>; 300L<ms>; 310L<ms> ], [ 360L<ms> ])
              "network"

          let online =
              history
                  true
                  { suspended with
                      Events = suspended.Events @ [ 300L<ms>, Online ] }

          Expect.equal
              (pings online |> List.truncate 3, closes online)
              ([ 10L<ms>; 310L<ms>; 320L<ms> ], [ 370L<ms> ])
              "online"

      testCase "before the connection is online nothing is asked for"
      <| fun () -> Expect.equal (Keepalive.create (10L<ms>, 60L<ms>, true, 0L<ms>)).NextAt Time.Never "never" ]

let laws = testList "keepalive, §7" (continuous @ otherwise)

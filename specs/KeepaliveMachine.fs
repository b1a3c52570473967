/// The client's keepalive (protocol §7): laws about whole histories, one entry per tenth of a second.
module Lightway.Specs.KeepaliveMachine

open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

[<Measure>]
type tenth

let private tenths (number: int) = int64 number * 1L<tenth>
let private toMs (time: int64<tenth>) : int64<ms> = time * 100L<ms / tenth>

type Event =
    | Activity
    | Pong
    | NetworkChanged
    | Suspended
    | Online
    /// A packet leaves after long silence.
    | Doubted

type Seen =
    | Came of Event
    | Pinged
    | Closed

/// Intervals of up to 4 s, timeouts of up to 12 s, and what comes when within 40 s.
type Run =
    { Interval: int64<tenth>
      Timeout: int64<tenth>
      Events: (int64<tenth> * Event) list }

type RunArbitrary =
    static member Run() =
        gen {
            let! interval = Gen.choose (1, 40)
            let! timeout = Gen.choose (1, 120)
            let! count = Gen.choose (0, 12)

            let event =
                Gen.frequency [ 4, Gen.constant Activity; 1, Gen.constant NetworkChanged ]

            let! events =
                Gen.listOfLength count (Gen.zip (Gen.choose (1, 400) |> Gen.map tenths) event)

            return
                { Interval = tenths interval
                  Timeout = tenths timeout
                  Events = List.sortBy fst events }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        arbitrary = [ typeof<RunArbitrary> ] }

let private length = 600L<tenth> // of a history

/// Events and actions, in order, of a machine that is ticked ten times per second.
let private history continuous (run: Run) =
    let seen = List<int64<tenth> * Seen>()
    let mutable heardAt = 0L<ms>

    let mutable state =
        Keepalive.create (toMs run.Interval, toMs run.Timeout, continuous, 0L<ms>)

    let act now action =
        match action with
        | KeepaliveAction.SendPing -> seen.Add(now, Pinged)
        | KeepaliveAction.Close -> seen.Add(now, Closed)
        | _ -> ()

    for now in 0L<tenth> .. 1L<tenth> .. length do
        let time = toMs now

        for _, event in (0L<tenth>, Online) :: run.Events |> List.filter (fun (at, _) -> at = now) do
            seen.Add(now, Came event)

            match event with
            | Activity ->
                heardAt <- time
                state <- Keepalive.activity (state, time)
            | Doubted ->
                let struct (next, action) = Keepalive.doubted (state, heardAt, time)
                state <- next
                act now action
            | Pong -> state <- Keepalive.pong state
            | Suspended -> state <- Keepalive.suspend state
            | Online -> state <- Keepalive.online (state, time)
            | NetworkChanged ->
                let struct (next, action) = Keepalive.networkChanged (state, time)
                state <- next
                act now action

        let due = state.NextAt <= time
        let before = state
        let struct (next, action) = Keepalive.tick (state, time)
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
let private armedAt at (seen: (int64<tenth> * Seen) list) =
    let before = seen |> List.filter (fun (time, _) -> time < at)

    let rest =
        match
            before
            |> List.tryFindIndexBack (fun (_, what) -> what = Came Activity || what = Came NetworkChanged)
        with
        | Some index -> before[index + 1 ..]
        | None -> before

    pings rest |> List.tryHead

/// Until the end, all pings come when they are due, and at no other time.
let private isOnTime (run: Run) seen =
    let follow (isRight, due, repeat, isAsked) (at, what) =
        let isRight = isRight && (isAsked || at <= due)

        match what with
        | Came NetworkChanged -> isRight, due, 10L<tenth>, true
        | Came Activity
        | Came Online -> isRight, at + run.Interval, run.Interval, false
        | Pinged ->
            let wait = min repeat run.Interval
            isRight && (isAsked || at = due), at + wait, 2L * wait, false
        | _ -> isRight, due, repeat, isAsked

    let isRight, due, _, _ =
        List.fold follow (true, Time.Never / 100L<ms / tenth>, 0L<tenth>, false) (alive seen)

    isRight && (due > length || not (closes seen).IsEmpty)

let private continuous =
    [ testPropertyWithConfig
          config
          "when all is silent, a ping goes out every interval, and the end comes a timeout after the first"
      <| fun (run: Run) ->
          let seen = history true { run with Events = [] }
          let closeAt = run.Interval + run.Timeout

          let expected =
              [ run.Interval .. run.Interval .. closeAt - 1L<tenth> ] |> List.filter (fun at -> at <= length)

          pings seen = expected && closes seen = (if closeAt <= length then [ closeAt ] else [])

      testPropertyWithConfig
          config
          "a ping comes when it is due, and only then: when the network changes, 1, 2, 4, … s later until a frame comes, else every interval"
      <| fun (run: Run) -> isOnTime run (history true run)

      testPropertyWithConfig config "no interval of silence passes without a ping, until the end"
      <| fun (run: Run) ->
          let seen = history true run |> alive

          let stop =
              closes (history true run) |> List.tryHead |> Option.defaultValue (length + 1L<tenth>)

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
          [ 0L<tenth> .. 1L<tenth> .. stop ] |> List.forall (expired >> not)

      testPropertyWithConfig config "after the end nothing is asked for, whatever comes"
      <| fun (run: Run) ->
          let late =
              [ Activity; Pong; NetworkChanged; Suspended; Online; Doubted ]
              |> List.map (fun event -> 500L<tenth>, event)

          let seen = history true { run with Events = run.Events @ late }

          match closes seen with
          | at :: more -> more.IsEmpty && pings seen |> List.forall (fun ping -> ping <= at)
          | [] -> true

      testPropertyWithConfig config "with frames more often than the interval, no ping is sent at all"
      <| fun (run: Run) ->
          let events =
              [ for at in 1L<tenth> .. max 1L<tenth> (run.Interval - 1L<tenth>) .. length -> at, Activity ]

          run.Interval = 1L<tenth> || pings (history true { run with Events = events }) = []

      testCase "a pong calls the end off, and the interval goes on"
      <| fun () ->
          let run =
              { Interval = 10L<tenth>
                Timeout = 25L<tenth>
                Events = [ 12L<tenth>, Pong; 12L<tenth>, Activity ] }

          let seen = history true run
          Expect.equal (pings seen |> List.truncate 3) [ 10L<tenth>; 22L<tenth>; 32L<tenth> ] "pings"
          Expect.equal (closes seen) [ 47L<tenth> ] "2.5 s after the ping at 22"

      testCase "an answer at the very moment of the timeout is in time"
      <| fun () ->
          let run =
              { Interval = 10L<tenth>
                Timeout = 25L<tenth>
                Events = [ 35L<tenth>, Activity ] }

          Expect.equal (closes (history true run)) [ 70L<tenth> ] "2.5 s after the ping at 45" ]

let private otherwise =
    [ testPropertyWithConfig config "not continuous: without a change of network it never pings and never ends"
      <| fun (run: Run) ->
          let events = run.Events |> List.filter (snd >> (=) Activity)
          let seen = history false { run with Events = events }
          pings seen = [] && closes seen = []

      testCase "not continuous: after a change of network it pings at once, then every interval until a pong"
      <| fun () ->
          let run =
              { Interval = 10L<tenth>
                Timeout = 60L<tenth>
                Events = [ 100L<tenth>, NetworkChanged; 125L<tenth>, Pong ] }

          let seen = history false run
          Expect.equal (pings seen, closes seen) ([ 100L<tenth>; 110L<tenth>; 120L<tenth> ], []) "and silence after it"

      testCase "not continuous: after a change of network without any answer it ends"
      <| fun () ->
          let run =
              { Interval = 10L<tenth>
                Timeout = 60L<tenth>
                Events = [ 100L<tenth>, NetworkChanged ] }

          Expect.equal (closes (history false run)) [ 160L<tenth> ] "a timeout later"

      testCase "not continuous: a doubt is asked about at once, and if nothing answers it ends"
      <| fun () ->
          let run =
              { Interval = 10L<tenth>
                Timeout = 25L<tenth>
                Events = [ 100L<tenth>, Doubted; 101L<tenth>, Doubted ] }

          let seen = history false run

          Expect.equal
              (pings seen, closes seen)
              ([ 100L<tenth>; 110L<tenth>; 120L<tenth> ], [ 125L<tenth> ])
              "one ping, and so on"

      testCase "not continuous: about each time of hearing a doubt asks once"
      <| fun () ->
          let run events =
              history
                  false
                  { Interval = 10L<tenth>
                    Timeout = 25L<tenth>
                    Events = events }

          let answered =
              [ 100L<tenth>, Doubted
                105L<tenth>, Pong
                105L<tenth>, Activity
                106L<tenth>, Doubted
                108L<tenth>, Pong ]

          Expect.equal (pings (run answered)) [ 100L<tenth>; 106L<tenth> ] "about two times"

          Expect.equal
              (pings (run (answered @ [ 120L<tenth>, Doubted ])))
              [ 100L<tenth>; 106L<tenth> ]
              "about none again"

      testCase "a doubt asks nothing while the host sleeps, and nothing of a continuous keepalive"
      <| fun () ->
          let run continuous events =
              history
                  continuous
                  { Interval = 500L<tenth>
                    Timeout = 25L<tenth>
                    Events = events }

          Expect.equal (pings (run false [ 50L<tenth>, Suspended; 100L<tenth>, Doubted ])) [] "asleep"
          Expect.equal (pings (run true [ 100L<tenth>, Doubted ])) [ 500L<tenth> ] "continuous"

      testCase
          "after a change of network the ping is repeated 1, 2, 4, … s later, at most an interval, until a frame comes"
      <| fun () ->
          let run interval events =
              { Interval = interval
                Timeout = 600L<tenth>
                Events = (50L<tenth>, NetworkChanged) :: events }

          for isContinuous in [ true; false ] do
              let pings interval events =
                  pings (history isContinuous (run interval events))

              Expect.equal
                  (pings 100L<tenth> [])
                  [ 50L<tenth>
                    60L<tenth>
                    80L<tenth>
                    120L<tenth>
                    200L<tenth>
                    300L<tenth>
                    400L<tenth>
                    500L<tenth>
                    600L<tenth> ]
                  "every 10 s"

              Expect.equal
                  (pings 36_000L<tenth> [])
                  [ 50L<tenth>; 60L<tenth>; 80L<tenth>; 120L<tenth>; 200L<tenth>; 360L<tenth> ]
                  "every hour"

              Expect.equal
                  (pings 36_000L<tenth> [ 70L<tenth>, Activity ])
                  [ 50L<tenth>; 60L<tenth> ]
                  "until a frame comes"

              Expect.equal
                  (pings 100L<tenth> [ 90L<tenth>, NetworkChanged; 95L<tenth>, Activity; 95L<tenth>, Pong ]
                   |> List.filter (fun at -> at < 150L<tenth>))
                  [ 50L<tenth>; 60L<tenth>; 80L<tenth>; 90L<tenth> ]
                  "another change starts again with the first wait"

      testCase "after sleep, pings come every interval again, not as after the change of network before it"
      <| fun () ->
          let run =
              { Interval = 100L<tenth>
                Timeout = 600L<tenth>
                Events = [ 50L<tenth>, NetworkChanged; 65L<tenth>, Suspended; 70L<tenth>, Online ] }

          Expect.equal
              (pings (history true run) |> List.truncate 4)
              [ 50L<tenth>; 60L<tenth>; 170L<tenth>; 270L<tenth> ]
              "pings"

      testCase "not continuous: a ping about a doubt is repeated 1, 2, 4, … s later, too"
      <| fun () ->
          let run =
              { Interval = 36_000L<tenth>
                Timeout = 300L<tenth>
                Events = [ 50L<tenth>, Doubted ] }

          let seen = history false run

          Expect.equal
              (pings seen, closes seen)
              ([ 50L<tenth>; 60L<tenth>; 80L<tenth>; 120L<tenth>; 200L<tenth> ], [ 350L<tenth> ])
              "although the interval is longer than the timeout"

      testCase "suspended it asks for nothing until the network changes or the connection is online again"
      <| fun () ->
          let suspended =
              { Interval = 10L<tenth>
                Timeout = 60L<tenth>
                Events = [ 15L<tenth>, Suspended ] }

          let seen = history true suspended
          Expect.equal (pings seen, closes seen) ([ 10L<tenth> ], []) "asleep"

          let woken =
              history
                  true
                  { suspended with
                      Events = suspended.Events @ [ 300L<tenth>, NetworkChanged ] }

          Expect.equal
              (pings woken |> List.truncate 3, closes woken)
              ([ 10L<tenth>; 300L<tenth>; 310L<tenth> ], [ 360L<tenth> ])
              "network"

          let online =
              history
                  true
                  { suspended with
                      Events = suspended.Events @ [ 300L<tenth>, Online ] }

          Expect.equal
              (pings online |> List.truncate 3, closes online)
              ([ 10L<tenth>; 310L<tenth>; 320L<tenth> ], [ 370L<tenth> ])
              "online"

      testCase "before the connection is online nothing is asked for"
      <| fun () -> Expect.equal (Keepalive.create (10L<ms>, 60L<ms>, true, 0L<ms>)).NextAt Time.Never "never" ]

let laws = testList "keepalive, §7" (continuous @ otherwise)

/// Path MTU discovery (RFC 8899, protocol §9): a machine on a path that is simulated ms by ms, which knows nothing of it.
module Lightway.Specs.PathMtuDiscovery

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators
open Lightway.Specs.PathMtuSimulation

/// A path: what it carries, how long an answer takes, and which probes it loses, by their number from 0.

let private finding =
    [ testPropertyWithConfig config "it settles on exactly what the path carries, and never takes more to be found"
      <| fun setting ->
          let simulation = begun setting (fun _ -> false)
          watch simulation
          simulation.Settle(200L * second) |> ignore
          Expect.equal simulation.State.Size (expected setting) "size"
          Expect.equal simulation.State.Settled (expected setting) "what senders are told"

      testPropertyWithConfig config "so it does if of three probes in a row two are lost, whichever they are"
      <| fun setting ->
          let random = System.Random setting.Seed
          let run = List<bool>()

          let loses number =
              while run.Count <= number do
                  let count = run.Count

                  let mayBeLost = count < 2 || not run[count - 1] || not run[count - 2]
                  run.Add(mayBeLost && random.Next 2 = 0)

              run[number]

          // What is too long is lost anyway, and does not count: only answers that would have come do.
          let simulation = Simulation(setting.Base, setting.Max)
          let mutable heard = 0

          let answerable =
              fun _ ->
                  heard <- heard + 1
                  loses (heard - 1)

          simulation.Path <-
              { Passes = setting.Carries
                Jitter = fun _ -> 0
                Delay = min 300 setting.RoundTrip
                Loses = answerable }

          simulation.Start()
          watch simulation
          simulation.Settle(300L * second) |> ignore
          Expect.equal simulation.State.Size (expected setting) "size"

      testPropertyWithConfig config "any loss may cost time and size, but never makes it settle above the path"
      <| fun setting ->
          let random = System.Random setting.Seed
          let share = random.Next(5, 60)
          let simulation = begun setting (fun _ -> random.Next 100 < share)
          watch simulation
          simulation.Run(1_800L * second)

          simulation.Path <-
              { simulation.Path with
                  Loses = fun _ -> false }

          simulation.Run(1_300L * second)
          Expect.equal simulation.State.Size (expected setting) "found when the losses are over"

      testPropertyWithConfig config "most paths carry the outside MTU: the second probe shows it"
      <| fun setting ->
          let simulation = begun { setting with Carries = 1500 } (fun _ -> false)
          // Before a round-trip time is known, a probe is repeated after a second.
          let took = simulation.Settle(10L * second)
          let roundTrips = if simulation.State.Size = 576 then 1 else 2
          Expect.isLessThanOrEqual (int took) (roundTrips * setting.RoundTrip + 5) "time"
          Expect.isLessThanOrEqual simulation.Probes 2 "probes"

      testPropertyWithConfig
          config
          "until the first search is over, senders are told nothing, and datagrams have the base size"
      <| fun setting ->
          let simulation = Simulation(setting.Base, setting.Max)
          Expect.equal simulation.State.Size setting.Max "not started: the outside MTU"
          Expect.equal simulation.State.NextAt Time.Never "not started: nothing is due"
          simulation.Start()
          Expect.equal simulation.State.Size (min setting.Max (max 576 setting.Base)) "started"
          Expect.equal simulation.State.Settled 0 "told"
          Expect.equal simulation.Seen[0].Probe simulation.State.Size "it is probed at once" ]

let private changes =
    [ testPropertyWithConfig
          config
          "a path that becomes shorter while long datagrams leave is noticed within 500 ms and three time-outs"
      <| fun setting ->
          let setting =
              { setting with
                  Setting.RoundTrip = setting.RoundTrip % 50 }

          let simulation = settled setting
          let random = System.Random setting.Seed
          simulation.Traffic <- simulation.State.Size
          simulation.Run(int64 (random.Next(1, 3_000)) * 1L<ms>)
          let carries = shorter setting random
          let before = simulation.State.Size
          let known = simulation.Probes

          if before > 576 && carries < before then
              simulation.Path <-
                  { simulation.Path with
                      Passes = carries }

              simulation.Run(1_160L<ms>)

              Expect.isTrue
                  (simulation.Seen |> Seq.skip known |> Seq.exists _.IsBlackHole)
                  "noticed before TCP sends for the fourth time"

              Expect.isLessThan simulation.State.Size before "lowered"
              // A base size that does not pass either takes three more time-outs.
              simulation.Run(700L<ms>)
              Expect.isLessThanOrEqual simulation.State.Size carries "what leaves now passes"
              Expect.equal simulation.State.Settled before "nobody is told of a value on its way"
              simulation.Settle(30L * second) |> ignore
              Expect.equal simulation.State.Size carries "found again"
              Expect.equal simulation.State.Settled carries "told"

      testPropertyWithConfig config "a path that becomes longer is found when the raise timer is due, after ten minutes"
      <| fun setting ->
          let simulation = settled setting
          let carries = System.Random(setting.Seed).Next(simulation.State.Size, 1501)

          simulation.Path <-
              { simulation.Path with
                  Passes = carries }

          let before = simulation.State.Size
          simulation.Run(590L * second)
          Expect.equal simulation.State.Size before "not yet"
          watch simulation
          simulation.Run(200L * second)
          Expect.equal simulation.State.Size (min setting.Max carries) "found"
          Expect.equal simulation.State.Settled (min setting.Max carries) "told"

      testPropertyWithConfig
          config
          "an interruption, however long and in whatever phase, is survived with the same result"
      <| fun setting ->
          let simulation = begun setting (fun _ -> false)
          let random = System.Random setting.Seed
          simulation.Traffic <- if random.Next 2 = 0 then 0 else 1400
          simulation.Run(int64 (random.Next(1, 10_000)) * 1L<ms>)
          let path = simulation.Path
          simulation.Path <- { path with Passes = 0 }
          simulation.Run(int64 (random.Next(1, 90_000)) * 1L<ms>)
          simulation.Path <- path
          watch simulation
          simulation.Run(11L * second + 40L * 4L * second)
          Expect.equal simulation.State.Phase PathMtuPhase.Complete "phase"
          Expect.equal simulation.State.Size (expected setting) "size"

      testPropertyWithConfig config "delays of any size change nothing in the end, as long as answers stay in order"
      <| fun setting ->
          let random = System.Random setting.Seed
          let simulation = begun setting (fun _ -> false)
          let often = random.Next(1, 8)

          let jitter _ =
              if random.Next often = 0 then random.Next 4_000 else 0

          simulation.Path <- { simulation.Path with Jitter = jitter }

          simulation.Traffic <- if random.Next 2 = 0 then 0 else 1_000
          watch simulation

          simulation.Check <-
              let check = simulation.Check

              fun () ->
                  check ()

                  if simulation.State.Settled <> 0 && simulation.State.Settled <> expected setting then
                      failtest $"settled on {simulation.State.Settled}"

          simulation.Run(120L * second)
          simulation.Settle(400L * second) |> ignore
          Expect.equal simulation.State.Size (expected setting) "size"

      testPropertyWithConfig config "while nothing at all passes, datagrams do not become longer than the base size"
      <| fun setting ->
          let simulation = settled setting
          simulation.Traffic <- simulation.State.Size
          let before = simulation.State.Size
          simulation.Path <- { simulation.Path with Passes = 0 }
          simulation.Run(60L * second)

          if before > 576 then
              Expect.equal simulation.State.Phase PathMtuPhase.Error "phase"
              Expect.isLessThanOrEqual simulation.State.Size (min before (max 576 setting.Base)) "size"

      testPropertyWithConfig config "on a new path everything is found again, and the old round-trip time is forgotten"
      <| fun setting ->
          let simulation = settled setting
          let random = System.Random setting.Seed
          let carries = random.Next(576, 1501)
          let roundTrip = random.Next(0, 900)

          simulation.Path <-
              { simulation.Path with
                  Passes = carries
                  Delay = roundTrip }

          let known = simulation.Probes
          simulation.Start()
          watch simulation
          Expect.equal simulation.Seen[known].Probe simulation.State.Size "the base size is probed"
          simulation.Settle(200L * second) |> ignore
          Expect.equal simulation.State.Size (min setting.Max carries) "size"

          if carries >= simulation.Seen[known].Probe && simulation.Probes > known + 1 then
              Expect.notEqual simulation.Seen[known + 1].Probe simulation.Seen[known].Probe "not repeated too early"

      testPropertyWithConfig config "sizes that the device itself refuses take no time-outs"
      <| fun setting ->
          let simulation = begun { setting with Carries = 1500 } (fun _ -> false)
          simulation.Device <- max 576 setting.Carries
          simulation.Start()
          let took = simulation.Settle(200L * second)
          Expect.equal simulation.State.Size (min setting.Max simulation.Device) "size"
          Expect.isLessThanOrEqual (int took) ((setting.RoundTrip + 1) * 2 * mostSizes) "a round trip per step" ]

let private limits =
    [ testPropertyWithConfig config "a search takes at most four probes per size"
      <| fun setting ->
          let simulation = settled setting
          Expect.isLessThanOrEqual simulation.Probes (4 * mostSizes) "probes"
          let known = simulation.Probes
          simulation.Run(599L * second)
          Expect.equal simulation.Probes known "none while nothing leaves"
          simulation.Run(300L * second)
          Expect.isLessThanOrEqual (simulation.Probes - known) (4 * mostSizes) "one search, after ten minutes"

      testPropertyWithConfig config "traffic costs at most two probes per second, and one that is short costs none"
      <| fun setting ->
          let simulation =
              settled
                  { setting with
                      Carries = 1500
                      Max = 1500 }

          let known = simulation.Probes
          simulation.Traffic <- 576
          simulation.Run(20L * second)
          Expect.equal simulation.Probes known "short"
          simulation.Traffic <- 577
          simulation.Run(20L * second)
          let probes = simulation.Probes - known
          Expect.isLessThanOrEqual probes 41 "long"
          Expect.isGreaterThanOrEqual probes (20_000 / (500 + 4 * setting.RoundTrip + 50) - 1) "confirmed all the time"

      testPropertyWithConfig config "a path that carries nothing is probed less and less, down to every ten seconds"
      <| fun setting ->
          let simulation = begun setting (fun _ -> true)
          simulation.Run(600L * second)
          Expect.isLessThanOrEqual simulation.Probes 75 "probes in ten minutes"
          Expect.isGreaterThanOrEqual simulation.Probes 55 "it goes on"
          Expect.equal simulation.State.Phase PathMtuPhase.Error "phase"
          Expect.equal simulation.State.Size setting.Max "a peer that answers no probe: as if there were none"

      testPropertyWithConfig config "ids are never 0 and grow by one; they wrap to 1"
      <| fun setting ->
          let simulation = begun setting (fun _ -> false)
          simulation.Traffic <- 1400

          for _ in 1..40 do
              simulation.Run(1L * second)

          for earlier, later in Seq.pairwise simulation.Seen do
              Expect.equal later.Id (earlier.Id + 1us) "the next one"

          Expect.equal simulation.Seen[0].Id 1us "the first one"

      test "the id after 65535 is 1, and its answer counts" {
          let mutable state = (PathMtu.start (PathMtu.create (1280, 1500), 0L<ms>)).State
          let mutable now = 0L<ms>
          let mutable id = 1us
          let mutable ids = 1

          while ids < 70_000 do
              now <- state.NextAt
              let step = PathMtu.tick (state, now)
              state <- step.State
              let next = if id = 65_535us then 1us else id + 1us

              if step.Id <> next then
                  failtest $"{step.Id} after {id}"

              id <- step.Id
              ids <- ids + 1

          let step = PathMtu.pong (state, id, now)
          Expect.equal step.State.Phase PathMtuPhase.Searching "answered"
      }

      testPropertyWithConfig config "an early tick changes nothing, and what is due is never in the past"
      <| fun setting (early: uint16) ->
          let simulation = begun setting (fun number -> number % 3 = 1)
          simulation.Traffic <- if setting.Seed % 2 = 0 then 0 else 1400

          simulation.Check <-
              fun () ->
                  let state = simulation.State

                  if state.NextAt < simulation.Now then
                      failtest $"due {simulation.Now - state.NextAt} ms ago"

                  let at = state.NextAt - 1L<ms> - int64 early * 1L<ms>
                  let step = PathMtu.tick (state, at)

                  if step.Probe <> 0 || step.State <> state then
                      failtest "an early tick did something"

          simulation.Run(20L * second)

      testPropertyWithConfig config "answers to other probes than those that are out change nothing"
      <| fun setting (ids: uint16 list) ->
          let simulation = begun setting (fun number -> number % 4 = 1)

          for id in 0us :: ids do
              simulation.Run(int64 (id % 700us) * 1L<ms>)
              let before = simulation.State
              let outstanding = simulation.Seen |> Seq.map _.Id |> Set.ofSeq

              if not (outstanding.Contains id) then
                  simulation.Pong id
                  Expect.equal simulation.State before $"pong of {id}"

          // An old one, whose size has been dealt with.
          simulation.Settle(200L * second) |> ignore
          let before = simulation.State

          for id in Seq.map _.Id simulation.Seen do
              simulation.Pong id

          Expect.equal simulation.State before "pongs again"

      test "a late answer to an earlier probe of the same size counts: round trips above the time-out are learned" {
          for roundTrip in [ 1_100; 2_500 ] do
              let setting =
                  { Base = 1280
                    Max = 1500
                    Carries = 1400
                    RoundTrip = roundTrip
                    Seed = 0 }

              let simulation = begun setting (fun _ -> false)
              watch simulation
              simulation.Settle(400L * second) |> ignore
              Expect.equal simulation.State.Size 1400 $"with a round trip of {roundTrip} ms"
              Expect.isFalse (simulation.Seen |> Seq.exists _.IsBlackHole) "no time-out is shorter than that"

              let simulation = begun { setting with Carries = 1500 } (fun _ -> false)
              let took = simulation.Settle(60L * second)
              Expect.isLessThanOrEqual (int took) (2 * roundTrip + 5) "the first answer counts, not the latest"
      }

      test "a raise that becomes due while a confirmation is out is done after it" {
          let setting =
              { Base = 1280
                Max = 1500
                Carries = 1400
                RoundTrip = 100
                Seed = 0 }

          let simulation = settled setting
          simulation.Run(simulation.State.NextAt - simulation.Now - 50L<ms>)
          let known = simulation.Probes
          simulation.Traffic <- 1400
          simulation.Run(200L<ms>)
          let sizes = simulation.Seen |> Seq.skip known |> Seq.map _.Probe |> List.ofSeq
          Expect.equal sizes [ 1400; 1500 ] "a confirmation, then the search"
      }

      test "a late answer to a confirmation that was given up ends the alarm at once" {
          let setting =
              { Base = 1280
                Max = 1500
                Carries = 1500
                RoundTrip = 10
                Seed = 0 }

          let simulation = settled setting
          simulation.Traffic <- 1500
          simulation.Run(3L * second)

          simulation.Path <-
              { simulation.Path with
                  Jitter = fun _ -> 1_000 }

          let hasFallen () =
              simulation.Seen |> Seq.exists _.IsBlackHole

          while not (hasFallen ()) do
              simulation.Run(1L<ms>)

          let fallen = simulation.Probes - 1
          Expect.equal simulation.State.Size 1280 "given up, 600 ms after the first of the three"
          simulation.Run(450L<ms>)
          Expect.equal simulation.State.Phase PathMtuPhase.Complete "nothing more to be found"
          Expect.equal simulation.State.Size 1500 "as before"

          Expect.isFalse
              (simulation.Seen |> Seq.skip (fallen + 1) |> Seq.exists (fun seen -> seen.Probe > 1280))
              "without another probe of that size"
      }

      testPropertyWithConfig config "an answer from the old path says nothing about the new one"
      <| fun setting ->
          let simulation = begun setting (fun _ -> true)
          // Whatever is out when the path changes: of the base size, longer, or to get out of the error phase.
          simulation.Run(int64 (setting.Seed % 9_000) * 1L<ms>)
          let known = simulation.Probes
          simulation.Start()
          let before = simulation.State

          for old in simulation.Seen |> Seq.take known |> List.ofSeq do
              simulation.Pong old.Id
              Expect.equal simulation.State before $"pong of {old.Id}"

      test "a satellite path of one second is not taken for a black hole" {
          let setting =
              { Base = 1280
                Max = 1500
                Carries = 1500
                RoundTrip = 1_000
                Seed = 0 }

          let simulation = begun setting (fun _ -> false)
          simulation.Traffic <- 1500
          simulation.Run(120L * second)
          Expect.isFalse (simulation.Seen |> Seq.exists _.IsBlackHole) "none"
          Expect.equal simulation.State.Size 1500 "size"
      }

      testPropertyWithConfig
          config
          "whatever a peer answers, nothing exceeds the outside MTU or falls below the smallest size"
      <| fun setting (ids: uint16 list) ->
          let random = System.Random setting.Seed
          let mutable state = PathMtu.create (setting.Base, setting.Max)
          let mutable now = 0L<ms>
          let mutable last = 1us

          for id in ids @ List.replicate 60 0us do
              now <- now + int64 (random.Next 1_500) * 1L<ms>

              let step =
                  match random.Next 6 with
                  | 0 -> PathMtu.pong (state, id, now)
                  | 1
                  | 2 -> PathMtu.pong (state, last, now)
                  | 3 -> PathMtu.refused (state, last, now)
                  | 4 when random.Next 8 = 0 -> PathMtu.start (state, now)
                  | _ -> PathMtu.tick (PathMtu.carried (state, random.Next 1_600, now), now)

              state <- step.State
              last <- if step.Probe > 0 then step.Id else last
              let least = min 576 setting.Max

              if state.Size > setting.Max || state.Size < least || step.Probe > setting.Max then
                  failtest $"{state.Size}, probing {step.Probe}"

              if state.Settled > setting.Max || (step.Probe > 0 && step.Probe < least) then
                  failtest $"settled {state.Settled}, probing {step.Probe}"

      test "nothing is allocated" {
          let run () =
              let mutable state = (PathMtu.start (PathMtu.create (1280, 1500), 0L<ms>)).State

              for number in 1..1_000 do
                  let now = int64 number * 300L<ms>
                  state <- PathMtu.carried (state, 1400, now)
                  let step = PathMtu.tick (state, now)
                  state <- (PathMtu.pong (step.State, step.Id, now)).State

          run ()
          Expect.equal (allocatedBy run) 0L "bytes"
      }

      test "the vectors of the protocol's description: what a path carries at most, and where it ends" {
          // Sizes there are bytes of the frame: 66 less over IPv4.
          for carries, found in [ 1250, 1250; 1282, 1282; 1284, 1284; 1500, 1434 ] do
              let setting =
                  { Base = 1250 + 66
                    Max = 1500
                    Carries = carries + 66
                    RoundTrip = 20
                    Seed = 0 }

              let simulation = settled setting
              Expect.equal (simulation.State.Size - Sizes.frameOverhead false) found $"of {carries}"
              Expect.equal (simulation.Seen[0].Probe, simulation.Seen[0].Id) (1316, 1us) "the first probe"
      } ]

let laws = testList "Path MTU discovery" (finding @ changes @ limits)

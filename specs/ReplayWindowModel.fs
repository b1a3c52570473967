/// The replay window of Expresslane (protocol §8) against a set of all counters ever accepted. Vectors: §12.
module Lightway.Specs.ReplayWindowModel

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// The rule in its own words: it remembers everything and forgets nothing.
type private Model() =
    let accepted = HashSet<uint64>()
    let mutable high = 0UL

    member _.Accepts(counter: uint64) =
        counter <> 0UL && not (accepted.Contains counter) && (counter > high || high - counter < 8192UL)

    member _.Accept(counter: uint64) =
        accepted.Add counter |> ignore
        high <- max high counter

/// Position of the next counter relative to the highest so far.
type Step =
    | Ahead of uint64
    | Behind of uint64
    | Exactly of uint64

type StepArbitrary =
    static member Step() =
        let upTo limit = Gen.choose (0, limit) |> Gen.map uint64

        Gen.frequency
            [ 6, Gen.constant (Ahead 1UL)
              3, Gen.map Ahead (upTo 70)
              2, Gen.map Ahead (upTo 9000)
              1, Gen.elements [ 63UL; 64UL; 65UL; 127UL; 128UL; 8128UL; 8191UL; 8192UL; 8193UL ] |> Gen.map Ahead
              6, Gen.map Behind (upTo 130)
              2, Gen.map Behind (upTo 9000)
              1, Gen.elements [ 8190UL; 8191UL; 8192UL; 8193UL; 16384UL ] |> Gen.map Behind
              1, Gen.elements [ 0UL; 1UL; 1UL <<< 32; UInt64.MaxValue - 1UL; UInt64.MaxValue ] |> Gen.map Exactly ]
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        endSize = 600
        arbitrary = [ typeof<StepArbitrary> ] }

let private agrees (steps: Step list) =
    let window = ReplayWindow()
    let model = Model()
    let mutable high = 0UL

    steps
    |> List.forall (fun step ->
        let counter =
            match step with
            | Ahead distance -> high + min distance (UInt64.MaxValue - high)
            | Behind distance -> high - min distance high
            | Exactly counter -> counter

        let expected = model.Accepts counter
        let previewed = window.IsFresh counter
        let committed = window.Commit counter

        if expected then
            model.Accept counter
            high <- max high counter

        previewed = expected && committed = expected)

let private accept (window: ReplayWindow) counter = window.Commit counter

let laws =
    testList
        "replay window"
        [ testPropertyWithConfig
              config
              "§8: it accepts what a memory of everything would, for any order of counters"
              agrees

          testProperty "§8: a preview changes nothing"
          <| fun (counters: uint64 list) (previews: uint64 list) ->
              let plain = ReplayWindow()
              let previewed = ReplayWindow()

              counters
              |> List.forall (fun counter ->
                  previews |> List.iter (fun preview -> previewed.IsFresh preview |> ignore)
                  plain.Commit counter = previewed.Commit counter)

          testCase
              "§8: after a jump of any length up to three windows, exactly what is in the window and unseen is fresh"
          <| fun () ->
              for jump in [ 1; 2; 63; 64; 65; 4096; 8127; 8128; 8191; 8192; 8193; 24576 ] do
                  let window = ReplayWindow()

                  for counter in 1UL .. 10_000UL do
                      window.Commit counter |> ignore

                  let high = 10_000UL + uint64 jump
                  Expect.isTrue (window.Commit high) "jump"

                  for counter in 1UL .. high + 1UL do
                      let expected =
                          counter > 10_000UL && counter <> high && (counter > high || high - counter < 8192UL)

                      Expect.equal (window.IsFresh counter) expected $"{counter} after {high}"

          testCase "§12: 1 to 10000 in order are accepted, and none of them twice"
          <| fun () ->
              let window = ReplayWindow()
              Expect.all [ 1UL .. 10_000UL ] (accept window) "first time"
              Expect.all [ 1UL .. 10_000UL ] (accept window >> not) "second time"

          testCase "§12: 100, 98 and 99 are accepted, 98 again is not"
          <| fun () ->
              let window = ReplayWindow()
              Expect.equal (List.map (accept window) [ 100UL; 98UL; 99UL; 98UL ]) [ true; true; true; false ] "in order"

          testCase "§12: 1 is too old after 8202, 11 is not"
          <| fun () ->
              let window = ReplayWindow()

              Expect.equal
                  (List.map (accept window) [ 8202UL; 1UL; 10UL; 11UL ])
                  [ true; false; false; true ]
                  "in order"

          testCase "§12: 0 never is accepted"
          <| fun () ->
              let window = ReplayWindow()
              Expect.equal (List.map (accept window) [ 0UL; 5UL; 0UL ]) [ false; true; false ] "zero"

          testCase "§12: a jump of a million clears old bits"
          <| fun () ->
              let window = ReplayWindow()
              Expect.all [ 1UL .. 9_000UL ] (accept window) "before"
              Expect.isTrue (window.Commit 1_000_000UL) "jump"
              Expect.all [ 1_000_000UL - 8191UL .. 999_999UL ] (accept window) "the whole window behind it"

          testCase "§12: what only was previewed, as it failed to authenticate, is not used up"
          <| fun () ->
              let window = ReplayWindow()
              Expect.isTrue (window.IsFresh 7UL && window.IsFresh 7UL && window.Commit 7UL) "still there"

          testCase "§8: the last counter of all is accepted, once"
          <| fun () ->
              let window = ReplayWindow()
              let last = UInt64.MaxValue
              let counters = [ last - 3UL; last; last; last - 1UL; 1UL ]
              Expect.equal (List.map (accept window) counters) [ true; true; false; true; false ] "at the edge"

          testCase "§8: neither preview nor commit allocates"
          <| fun () ->
              let window = ReplayWindow()

              let round first =
                  for counter in first .. first + 100_000UL do
                      if window.IsFresh counter then
                          window.Commit counter |> ignore

              round 1UL
              Expect.equal (allocatedBy (fun () -> round 200_000UL)) 0L "bytes" ]

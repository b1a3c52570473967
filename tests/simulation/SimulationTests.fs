/// Worlds of many seeds: the engine lives through days of faults.
module Lightway.Tests.SimulationTests

open System
open System.Diagnostics
open Expecto
open Lightway.Tests.Simulation

/// The outcome of a seed. A failure says how to see it again.
let private run (seed: uint64) : Outcome =
    let plan = Plan.ofSeed seed
    use world = new World(plan)

    try
        world.Run()
    with error ->
        let what =
            match error with
            | Violation text -> text
            | _ -> string error

        failwith
            $"""seed {seed} ("{plan.Name}"), event {world.Events}, {world.Agenda.Now - world.Agenda.Start} ms of virtual time: {what}
To see it again: LIGHTWAY_SIMULATION_SEED={seed} Lightway.Tests --filter-test-list Simulation
{plan}
The latest events:
{world.Trace.Latest world.Agenda.Start}"""

/// Seeds that have found something, or break most of the mutants in specs/mutants/engine.txt: between them they have all that
/// a plan may have.
let private kept =
    [ 4UL; 5UL; 18UL; 21UL; 25UL; 28UL; 29UL; 53UL; 54UL; 55UL; 64UL; 71UL; 73UL ]

let private variable (name: string) =
    match Environment.GetEnvironmentVariable name with
    | null
    | "" -> None
    | text -> Some text

let private seconds =
    variable "LIGHTWAY_SIMULATION_SECONDS" |> Option.map float |> Option.defaultValue 60.

let private ofDay (outcome: Outcome) = float outcome.Virtual / 86_400_000.

let tests =
    testSequenced (
        testList
            "Simulation"
            [ match variable "LIGHTWAY_SIMULATION_SEED" with
              | Some seed ->
                  test $"seed {seed}" {
                      let clock = Stopwatch.StartNew()
                      let outcome = run (uint64 seed)
                      printfn $"{outcome}, {clock.Elapsed.TotalSeconds:F1} s"
                  }
              | None ->
                  for seed in kept do
                      test $"seed {seed}" { run seed |> ignore }

                  test "a seed gives the same run each time" {
                      Expect.equal (run 3UL) (run 3UL) "events, counts and the digest of all that happened"
                  }

                  test "new seeds, for as long as LIGHTWAY_SIMULATION_SECONDS says" {
                      let clock = Stopwatch.StartNew()
                      let first = uint64 (Random.Shared.Next(10_000, Int32.MaxValue / 2))
                      let mutable seed = first
                      let mutable all = []

                      while clock.Elapsed.TotalSeconds < seconds do
                          all <- run seed :: all
                          seed <- seed + 1UL

                      let sum (of': Outcome -> int64) = List.sumBy of' all

                      printfn
                          $"simulation: {all.Length} worlds from seed {first}, {List.sumBy ofDay all:F1} days, {sum _.Events} events, {sum _.Handshakes} handshakes, {sum _.Sessions} sessions, {sum _.Packets} packets in {clock.Elapsed.TotalSeconds:F0} s"
                  } ]
    )

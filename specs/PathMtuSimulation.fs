/// Path MTU discovery on a path that is simulated ms by ms.
module Lightway.Specs.PathMtuSimulation

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

type Path =
    {
        Passes: int
        /// More ms for each probe, by its number from 0; answers stay in order.
        Jitter: int -> int
        Delay: int
        Loses: int -> bool
    }

/// One thing that the machine did.
type Seen =
    { At: int64<ms>
      Probe: int
      Id: uint16
      IsBlackHole: bool }

let ofAnswer (struct (at: int64, _: int)) = at * 1L<ms>

type Simulation(baseSize: int, maxSize: int) =
    let answers = PriorityQueue<uint16, struct (int64 * int)>()
    let seen = List<Seen>()
    let mutable state = PathMtu.create (baseSize, maxSize)
    let mutable sent = 0
    let mutable latest = 0L // when the last answer so far comes
    let mutable order = 0

    member val Path =
        { Passes = maxSize
          Jitter = fun _ -> 0
          Delay = 10
          Loses = fun _ -> false } with get, set

    /// Bytes of datagrams that leave in every ms; 0: none do.
    member val Traffic = 0 with get, set
    member val Now = 1_000L<ms> with get, set
    /// Called after every ms.
    member val Check = ignore with get, set
    /// Sizes above this are refused by the device itself.
    member val Device = 65_535 with get, set
    member _.State = state
    /// All probes, oldest first.
    member _.Seen = seen
    member _.Probes = seen.Count

    member private this.Take(step: PathMtuStep) =
        state <- step.State

        if state.NextAt < this.Now then
            failtest $"due {this.Now - state.NextAt} ms before the event"

        if step.IsBlackHole || step.Probe > 0 then
            seen.Add
                { At = this.Now
                  Probe = step.Probe
                  Id = step.Id
                  IsBlackHole = step.IsBlackHole }

        if step.Probe > this.Device then
            this.Take(PathMtu.refused (state, step.Id, this.Now))
        elif step.Probe > 0 then
            if step.Probe <= this.Path.Passes && not (this.Path.Loses sent) then
                let delay = this.Path.Delay + this.Path.Jitter sent
                latest <- max latest (int64 this.Now + int64 delay)
                order <- order + 1
                answers.Enqueue(step.Id, struct (latest, order))

            sent <- sent + 1

    member this.Start() =
        this.Take(PathMtu.start (state, this.Now))

    member this.Pong(id: uint16) =
        this.Take(PathMtu.pong (state, id, this.Now))

    /// Lets `duration` ms pass. Without traffic it goes from event to event, as nothing happens in between.
    member this.Run(duration: int64<ms>) =
        let finish = this.Now + duration

        while this.Now < finish do
            let mutable id = 0us
            let mutable at = struct (0L, 0)

            while answers.TryPeek(&id, &at) && ofAnswer at <= this.Now do
                answers.Dequeue() |> ignore
                this.Pong id

            if this.Traffic > 0 then
                state <- PathMtu.carried (state, this.Traffic, this.Now)

            if state.NextAt <= this.Now then
                this.Take(PathMtu.tick (state, this.Now))

            this.Check()

            let nextAnswer =
                if answers.TryPeek(&id, &at) then
                    ofAnswer at
                else
                    Time.Never

            let next =
                if this.Traffic > 0 then
                    this.Now + 1L<ms>
                else
                    min nextAnswer state.NextAt

            this.Now <- min finish (max (this.Now + 1L<ms>) next)

    /// Lets time pass until it is Complete, at most `limit`; the time that it took.
    member this.Settle(limit: int64<ms>) =
        let started = this.Now

        while this.State.Phase <> PathMtuPhase.Complete && this.Now - started < limit do
            this.Run 1L<ms>

        Expect.equal this.State.Phase PathMtuPhase.Complete "it settles in time"
        this.Now - started

type Setting =
    { Base: int
      Max: int
      Carries: int
      RoundTrip: int
      Seed: int }

type SettingArbitrary =
    static member Setting() =
        gen {
            let! maxSize = Gen.frequency [ 3, Gen.constant 1500; 1, Gen.choose (600, 1500) ]
            let! baseSize = Gen.frequency [ 2, Gen.constant 1280; 1, Gen.choose (60, 1600) ]
            let! carries = Gen.choose (576, 1500)
            let! roundTrip = Gen.frequency [ 3, Gen.choose (0, 150); 1, Gen.choose (150, 900) ]
            let! seed = Gen.choose (0, 1_000_000)

            return
                { Base = baseSize
                  Max = maxSize
                  Carries = carries
                  RoundTrip = roundTrip
                  Seed = seed }
        }
        |> Arb.fromGen

let config =
    { FsCheckConfig.defaultConfig with
        maxTest = 300
        arbitrary = [ typeof<SettingArbitrary> ] }

let second = 1_000L<ms>

/// On the path of the setting, which loses what `loses` says.
let begun (setting: Setting) (loses: int -> bool) =
    let simulation = Simulation(setting.Base, setting.Max)

    simulation.Path <-
        { Passes = setting.Carries
          Jitter = fun _ -> 0
          Delay = setting.RoundTrip
          Loses = loses }

    simulation.Start()
    simulation

/// Ends in Complete with what the path carries.
let settled (setting: Setting) =
    let simulation = begun setting (fun _ -> false)
    simulation.Settle(200L * second) |> ignore
    simulation

/// From then on, what has been found may not be above what the path carries.
let watch (simulation: Simulation) =
    simulation.Check <-
        fun () ->
            match simulation.State.Phase with
            | PathMtuPhase.Searching
            | PathMtuPhase.Complete ->
                if simulation.State.Size > simulation.Path.Passes then
                    failtest $"{simulation.State.Size} of {simulation.Path.Passes} at {simulation.Now}"
            | _ -> ()

let expected (setting: Setting) = min setting.Max setting.Carries

/// Shorter than the base size, or than what it was.
let shorter (setting: Setting) (random: System.Random) =
    random.Next(576, max 577 (expected setting))

/// Halvings of a range of sizes, the first probe of the longest, and the bound of the base and error phases.
let mostSizes = 13

/// Tries inputs, keeps those that lead to a new kind of outcome, and goes on from them.
module Lightway.Fuzz.Engine

open System
open System.Collections.Generic
open System.Diagnostics
open System.Threading
open Lightway.Fuzz.Target

/// An input that no other of its kind could do without.
type Failure = { Input: byte[]; What: string }

/// The watchdog's view of the run: the input in work, and since when. A parser that does not end cannot report itself.
[<AllowNullLiteral>]
type Work(target: string, input: byte[]) =
    member val Since = Stopwatch.GetTimestamp()
    member _.Target = target
    member _.Input = input

let mutable private current: Work = null

/// Calls `stop` once an input is in work for longer than `limit`.
let watch (limit: TimeSpan) (stop: Work -> unit) : IDisposable =
    let look _ =
        let work = Volatile.Read &current

        if not (isNull work) && Stopwatch.GetElapsedTime work.Since > limit then
            stop work

    new Timer(look, null, 1_000, 1_000)

/// Outcome of an input: its kind, or its failure.
let attempt (target: Target) (input: byte[]) : Result<int64, string> =
    Volatile.Write(&current, Work(target.Name, input))

    try
        try
            Ok(target.Run(Array.copy input))
        with
        | Broken what -> Error what
        | error -> Error $"{error.GetType().Name}: {error.Message}\n{error.StackTrace}"
    finally
        Volatile.Write(&current, null)

/// The same failure with fewer bytes: pieces are left out, halves at first, for as long as it still fails.
let shrink (target: Target) (failure: Failure) : Failure =
    let rec smaller (best: Failure) size =
        if size = 0 then
            best
        else
            let shorter =
                seq { 0..size .. best.Input.Length - size }
                |> Seq.tryPick (fun at ->
                    let input = Array.removeManyAt at size best.Input

                    match attempt target input with
                    | Error what -> Some { Input = input; What = what }
                    | Ok _ -> None)

            match shorter with
            | Some found -> smaller found (min size found.Input.Length)
            | None -> smaller best (size / 2)

    smaller failure (failure.Input.Length / 2)

/// Inputs that a pool keeps, so that a long run does not fill the memory.
[<Literal>]
let private MaxKept = 20_000

/// Inputs of a target, and what came of them.
type Pool(target: Target, seeds: byte[] list, seed: int) =
    // A separate sequence for each target: how long the others take changes nothing.
    let random =
        Random(int (kind (seed :: [ for letter in target.Name -> int letter ])))

    let kinds = HashSet<int64>()
    let kept = List<byte[]>()
    let mutable failure: Failure option = None
    let mutable runs = 0L
    let mutable elapsed = TimeSpan.Zero

    let run (input: byte[]) =
        runs <- runs + 1L

        match attempt target input with
        | Ok found ->
            if kinds.Add found then
                if kept.Count < MaxKept then
                    kept.Add input
                else
                    kept[random.Next kept.Count] <- input
        | Error what -> failure <- Some { Input = input; What = what }

    let pick () = kept[random.Next kept.Count]

    do
        for input in [||] :: seeds do
            if failure.IsNone then
                run input

    member _.Target = target
    member _.Runs = runs
    member _.Kinds = kinds.Count
    member _.Elapsed = elapsed
    member _.Failure = failure

    /// Tries inputs for so long, or until one fails.
    member _.Work(slice: TimeSpan) : unit =
        let started = Stopwatch.GetTimestamp()

        while failure.IsNone && Stopwatch.GetElapsedTime started < slice do
            for _ in 1..16 do
                if failure.IsNone then
                    run (Mutation.mutate random target.MaxLength (pick ()) (pick ()))

        elapsed <- elapsed + Stopwatch.GetElapsedTime started

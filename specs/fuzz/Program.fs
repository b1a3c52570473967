/// Fuzzes every parser of bytes from a peer or the kernel for a while. Its last line is `N passed, N failed`, by
/// targets; the exit code is 0 if no input failed.
module Lightway.Fuzz.Program

open System
open System.IO
open Lightway.Fuzz.Target

type private Settings =
    {
        /// For all targets together.
        Time: TimeSpan
        Seed: int
        /// A part of the names of the targets to run.
        Only: string
        /// A file with an input to run once.
        Replay: string option
        /// Folder for failing inputs.
        Output: string
        /// File for the totals, as numbers in one line.
        Summary: string option
    }

let private usage =
    """options: --seconds N    for all targets together (default 60)
         --seed N       start of all random numbers (default 20260801)
         --target TEXT  only targets with TEXT in their name
         --replay FILE  run the input in FILE once; its name, or --target, says at what
         --output DIR   where failing inputs go (default artifacts/fuzz)
         --summary FILE write "passed failed skipped" to FILE"""

let private targets =
    WireTargets.targets
    @ StateTargets.targets
    @ SuperpacketTargets.targets
    @ CoalesceTargets.targets
    @ RewriteTargets.targets
    @ IcmpTargets.targets

let private corpus = Path.Combine(AppContext.BaseDirectory, "corpus")

let private report (settings: Settings) (target: string) (what: string) (input: byte[]) =
    let path = Corpus.save settings.Output target what input
    printfn $"fuzz: {target}: {what}"
    printfn $"fuzz: {input.Length} bytes, kept in {path}; again: Lightway.Fuzz --replay {path}"

/// An input is in work for this long: it never ends.
let private patience = TimeSpan.FromSeconds 10.

let private onHang settings (work: Engine.Work) =
    report settings work.Target $"no end after {patience.TotalSeconds} s" work.Input
    settings.Summary |> Option.iter (fun file -> File.WriteAllText(file, "0 1 0\n"))
    printfn "0 passed, 1 failed"
    exit 1

let private fuzz settings : int =
    use _ = Engine.watch patience (onHang settings)

    let pools =
        [ for target in targets do
              if target.Name.Contains settings.Only then
                  Engine.Pool(target, Corpus.load corpus target.Name, settings.Seed) ]

    if pools |> List.exists (fun pool -> pool.Runs < 2L) then // the empty input, and at least one
        failwith $"{corpus} lacks inputs for some targets"

    printfn $"seed {settings.Seed}, {pools.Length} targets, {settings.Time.TotalSeconds} s"
    // In turns, so that an interrupted run has seen all of them.
    let turns = 4

    for _ in 1..turns do
        for pool in pools do
            pool.Work(settings.Time / float (turns * pools.Length))

    for pool in pools do
        let rate = float pool.Runs / max 0.001 pool.Elapsed.TotalSeconds
        printfn $"{pool.Target.Name, -20} {pool.Runs, 10} runs {rate, 9:F0} per s {pool.Kinds, 6} kinds of outcome"

    for pool in pools do
        match pool.Failure with
        | Some failure ->
            let least = Engine.shrink pool.Target failure
            report settings pool.Target.Name least.What least.Input
        | None -> ()

    let failed = pools |> List.filter _.Failure.IsSome |> List.length
    let passed = pools.Length - failed

    settings.Summary |> Option.iter (fun file -> File.WriteAllText(file, $"{passed} {failed} 0\n"))

    printfn $"{passed} passed, {failed} failed"
    if failed > 0 || pools.IsEmpty then 1 else 0

let private replay settings (path: string) : int =
    let name =
        if settings.Only = "" then
            Corpus.targetOf path
        else
            settings.Only

    match targets |> List.tryFind (fun target -> target.Name = name) with
    | None ->
        let names = targets |> List.map _.Name |> String.concat ", "
        eprintfn $"fuzz: there is no target '{name}'; --target is one of {names}"
        2
    | Some target ->
        let onHang _ =
            printfn $"{name}: no end after {patience.TotalSeconds} s"
            exit 1

        use _ = Engine.watch patience onHang

        match Engine.attempt target (Corpus.read path) with
        | Ok found ->
            printfn $"{name}: passed, kind {found:x16}"
            0
        | Error what ->
            printfn $"{name}: {what}"
            1

let rec private parse settings arguments =
    match arguments with
    | "--seconds" :: value :: rest ->
        parse
            { settings with
                Time = TimeSpan.FromSeconds(float value) }
            rest
    | "--seed" :: value :: rest -> parse { settings with Seed = int value } rest
    | "--target" :: value :: rest -> parse { settings with Only = value } rest
    | "--replay" :: value :: rest -> parse { settings with Replay = Some value } rest
    | "--output" :: value :: rest -> parse { settings with Output = value } rest
    | "--summary" :: value :: rest -> parse { settings with Summary = Some value } rest
    | [] -> Ok settings
    | other :: _ -> Error $"what is {other}?"

[<EntryPoint>]
let main arguments =
    let defaults =
        { Time = TimeSpan.FromSeconds 60.
          Seed = 20260801
          Only = ""
          Replay = None
          Output = Path.Combine("artifacts", "fuzz")
          Summary = None }

    let settings =
        try
            parse defaults (List.ofArray arguments)
        with :? FormatException as error ->
            Error error.Message

    match settings with
    | Ok { Replay = Some path } & Ok settings -> replay settings path
    | Ok settings -> fuzz settings
    | Error message ->
        eprintfn $"fuzz: {message}\n{usage}"
        2

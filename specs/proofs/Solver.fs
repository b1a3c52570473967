/// Asks z3 (https://github.com/Z3Prover/z3), as a program with SMT-LIB 2 on its standard input.
module Lightway.Specs.Proofs.Solver

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open System.Threading

type Answer =
    /// No assignment satisfies the assertions.
    | Unsatisfiable
    /// Values of the constants that were asked for, in their order.
    | Satisfiable of uint64 list
    /// It gave up, or did not understand; the file has the script.
    | Unknown of why: string * file: string

/// z3 is installed.
let isThere () : bool =
    match Environment.GetEnvironmentVariable "PATH" with
    | null -> false
    | path -> path.Split ':' |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, "z3")))

let private number (text: string) : uint64 =
    match text with
    | "true" -> 1UL
    | "false" -> 0UL
    | _ when text.StartsWith "#x" -> Convert.ToUInt64(text.Substring 2, 16)
    | _ when text.StartsWith "#b" -> Convert.ToUInt64(text.Substring 2, 2)
    | _ when text.StartsWith "(- " -> uint64 -(Int64.Parse(text.Substring(3, text.Length - 4)))
    | _ -> UInt64.Parse text

/// z3 is a single thread; more of them than this only wait for each other.
let private places = new SemaphoreSlim 2

/// z3's own unit of work, which unlike time is the same on every machine and under every load: some 10 s.
let private work = 6_000_000

/// Seconds after which z3 ends in any case, should something in it not count its work: far more than a slow and busy
/// machine takes for that much work.
let private limit = 900

let private ask (script: string seq) (command: string) (names: string list) : string =
    let start =
        ProcessStartInfo(
            "z3",
            [ "-in"; "-st"; $"-T:{limit}"; $"rlimit={work}"; "-smt2" ],
            RedirectStandardInput = true,
            RedirectStandardOutput = true,
            UseShellExecute = false
        )

    use solver =
        match Process.Start start with
        | null -> failwith "z3 does not start"
        | started -> started

    let reading = solver.StandardOutput.ReadToEndAsync()
    script |> Seq.iter solver.StandardInput.WriteLine
    solver.StandardInput.WriteLine command

    if not names.IsEmpty then
        let list = String.concat " " names
        solver.StandardInput.WriteLine $"(get-value ({list}))"

    solver.StandardInput.Close()
    let output = reading.Result
    solver.WaitForExit()
    output

/// Checks a script by a command of SMT-LIB or z3; `names` are the constants whose values a satisfying assignment is to show.
/// Also z3's processor time, in seconds.
let check (script: string seq) (command: string) (names: string list) : Answer * float =
    places.Wait()

    let output =
        try
            ask script command names
        finally
            places.Release() |> ignore

    let time = Regex.Match(output, @":total-time +([0-9.]+)")

    let seconds =
        if time.Success then
            Double.Parse((time.Groups.Item 1).Value, Globalization.CultureInfo.InvariantCulture)
        else
            0.0

    let firstLine = output.Split('\n')[0]
    let answer = firstLine.Trim()

    match answer with
    | "unsat" -> Unsatisfiable, seconds
    | "sat" ->
        let values =
            Regex.Matches(output, @"\(\S+ (#x[0-9a-f]+|#b[01]+|true|false|[0-9]+|\(- [0-9]+\))\)")

        Satisfiable [ for found in values -> number (found.Groups.Item 1).Value ], seconds
    | _ ->
        let file = Path.ChangeExtension(Path.GetTempFileName(), "smt2")
        File.WriteAllLines(file, Seq.append script [ command ])
        Unknown((if answer = "" then "no answer" else answer), file), seconds

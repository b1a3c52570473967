/// `Bench`: the end-to-end benchmark's command line and its files in artifacts/bench.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Command

open System
open System.Collections.Generic
open System.Diagnostics
open System.Globalization
open System.IO
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.RegularExpressions
open Lightway.Lab

let private usage =
    """usage: bench [--quick] [--seconds N] [--rounds N] [--cells REGEX] [--offered MBIT] [--congestion NAME]
             [--server-binary PATH] [--client-binary PATH] [--no-yardstick] [--no-verdicts]
       bench --soak MINUTES  bulk TCP both ways, resident memory and checksum errors watched
       bench --list-cells    the names that --cells is matched against
       bench --publish       docs/performance.md from the last run"""

type private Action =
    | Measure
    | Soak of minutes: float
    | ListCells
    | PublishLast

type private Request =
    { Plan: Runner.Plan
      Verdicts: bool
      Action: Action }

let private defaults: Request =
    { Plan =
        { Cells = Regex ""
          Seconds = 3.0
          WarmUp = 1.0
          Rounds = 2
          AeadRounds = Cell.AeadRounds
          OfferedMegabits = 300.0
          Congestion = "cubic"
          OtherServer = None
          OtherClient = None
          Yardstick = true }
      Verdicts = true
      Action = Measure }

let private positive (text: string) =
    match Double.TryParse(text, NumberStyles.Float, CultureInfo.InvariantCulture) with
    | true, value when value > 0.0 && value < 1e6 -> value
    | _ -> invalidArg "" $"{text} is not a positive number"

let private existing (path: string) =
    if File.Exists path then
        Path.GetFullPath path
    else
        invalidArg "" $"{path} does not exist"

let rec private parse (request: Request) (arguments: string list) : Request =
    let plan = request.Plan

    let next changed rest =
        parse { request with Plan = changed } rest

    match arguments with
    | [] -> request
    | "--quick" :: rest ->
        next
            { plan with
                Seconds = 1.0
                WarmUp = 0.5
                Rounds = 1
                AeadRounds = 1 }
            rest
    | "--seconds" :: text :: rest -> next { plan with Seconds = positive text } rest
    | "--rounds" :: text :: rest ->
        next
            { plan with
                Rounds = int (ceil (positive text)) }
            rest
    | "--cells" :: text :: rest -> next { plan with Cells = Regex text } rest
    | "--offered" :: text :: rest ->
        next
            { plan with
                OfferedMegabits = positive text }
            rest
    | "--congestion" :: name :: rest -> next { plan with Congestion = name } rest
    | "--server-binary" :: path :: rest ->
        next
            { plan with
                OtherServer = Some(existing path) }
            rest
    | "--client-binary" :: path :: rest ->
        next
            { plan with
                OtherClient = Some(existing path) }
            rest
    | "--no-yardstick" :: rest -> next { plan with Yardstick = false } rest
    | "--no-verdicts" :: rest -> parse { request with Verdicts = false } rest
    | "--soak" :: text :: rest when positive text > 1.0 ->
        parse
            { request with
                Action = Soak(positive text) }
            rest
    | "--list-cells" :: rest -> parse { request with Action = ListCells } rest
    | "--publish" :: rest -> parse { request with Action = PublishLast } rest
    | argument :: _ -> invalidArg "" $"{argument} is not understood\n{usage}"

let private folder = Path.Combine("artifacts", "bench")

let private json =
    JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

let private write (name: string) (text: string) =
    Directory.CreateDirectory folder |> ignore
    File.WriteAllText(Path.Combine(folder, name), text)

let private measure (plan: Runner.Plan) : Report =
    let machine = Machine.current ()

    if machine.LoadAtStart > 0.5 then
        printfn $"load average {machine.LoadAtStart}: the machine has other work, so take figures as rough"

    let rows = List<Row>()

    Runner.run plan (fun row ->
        rows.Add row
        printfn $"{Table.brief row}")

    let profiles =
        if Profile.isPossible () then
            printfn "Sampling the server"
            Some(Runner.profile plan)
        else
            printfn "perf is not here (apt-get install linux-perf): the chart of costs has no parts by sampling"
            None

    { Machine = machine
      Seconds = plan.Seconds
      WarmUp = plan.WarmUp
      Rounds = plan.Rounds
      OfferedMegabits = plan.OfferedMegabits
      Congestion = plan.Congestion
      Yardstick = if plan.Yardstick then Yardstick.version () else ""
      Other = String.concat ", " (List.choose id [ plan.OtherServer; plan.OtherClient ])
      Rows = List.ofSeq rows
      Profiles = profiles }

let private judge (request: Request) (verdicts: Verdict list) : int =
    verdicts |> List.iter (Verdict.line >> printfn "%s")

    if request.Verdicts && verdicts |> List.exists (fun verdict -> verdict.Holds = Some false) then
        1
    else
        0

let private bench (request: Request) : int =
    let clock = Stopwatch.StartNew()
    let isThere = Yardstick.isThere ()

    if request.Plan.Yardstick && not isThere then
        printfn "wireguard-go and wg are not on the path: no yardstick"

    let report =
        measure
            { request.Plan with
                Yardstick = request.Plan.Yardstick && isThere }

    write "matrix.json" (JsonSerializer.Serialize(report, json))
    let rows = Row.best report.Rows
    let tables = $"{Table.ofResults rows}\n\n{Table.ofBatching rows}\n"
    write "matrix.md" tables
    write "matrix.svg" (Chart.svg rows)
    let profiles = Option.defaultValue [] report.Profiles
    write "matrix.cost.svg" (Cost.svg (MicroResult.read folder) profiles rows)
    printfn $"\n{tables}"

    if not profiles.IsEmpty then
        printfn $"{Cost.table profiles rows}\n"

    let code = judge request (Verdict.all rows @ Verdict.ofAeads report.Rows)
    printfn $"Took {clock.Elapsed.TotalMinutes:F1} min. Files: {folder}/matrix.*"
    code

let private publish () : int =
    let file = Path.Combine(folder, "matrix.json")

    if not (File.Exists file) then
        raise (LabException $"{file} does not exist: run the benchmark first")

    let report = JsonSerializer.Deserialize<Report>(File.ReadAllText file, json)
    Publish.write report (MicroResult.read folder)
    printfn $"docs/performance.md shows the run of {report.Machine.Date}"
    0

/// 0; 1 when a verdict fails or the benchmark cannot run; 2 for wrong arguments; 130 when interrupted.
let run (arguments: string list) : int =
    try
        let request = parse defaults arguments

        match request.Action with
        | Measure -> bench request
        | Soak minutes -> judge request (Soak.run minutes request.Plan.Congestion)
        | PublishLast -> publish ()
        | ListCells ->
            for cell in Cell.all do
                printfn $"{cell.Name}"

            0
    with
    | _ when Topology.IsInterrupted -> 130
    | :? ArgumentException as error ->
        eprintfn $"bench: {error.Message}"
        2
    | error ->
        eprintfn $"bench: {error.Message}"
        1

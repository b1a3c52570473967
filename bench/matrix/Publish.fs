/// docs/performance.md from the last run: prose from a template, every figure from the run's file.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Publish

open System.Globalization
open System.IO
open System.Text.RegularExpressions

let private template = Path.Combine("bench", "matrix", "performance.template.md")
let private target = Path.Combine("docs", "performance.md")

let private machine (report: Report) =
    let machine = report.Machine

    [ "Date", machine.Date
      "Commit", machine.Commit
      "Processor", $"{machine.Cpu}, {machine.Cores} cores"
      "Memory", $"{machine.MemoryGigabytes} GiB"
      "Kernel", machine.Kernel
      "Runtime", machine.Runtime
      "Load average at the start", machine.LoadAtStart.ToString("0.0", CultureInfo.InvariantCulture)
      "TCP", report.Congestion
      "Runs", $"{report.Rounds} of {report.Seconds} s a cell and variant, each after {report.WarmUp} s of warm-up"
      "Datagrams offered", $"{report.OfferedMegabits} Mbit/s"
      "Yardstick", (if report.Yardstick = "" then "none" else report.Yardstick)

      if report.Other <> "" then
          "Other implementation", report.Other ]
    |> List.map (fun (name, value) -> $"| {name} | {value} |")
    |> List.append [ "| | |"; "| --- | --- |" ]
    |> String.concat "\n"

let private verdicts (all: Verdict list) =
    let text (verdict: Verdict) =
        match verdict.Holds with
        | Some true -> $"| {verdict.Text} | yes |"
        | Some false -> $"| {verdict.Text} | **no** |"
        | None -> $"| {verdict.Text} | - |"

    [ "| expectation: measured; limit | holds |"; "| --- | --- |" ] @ List.map text all
    |> String.concat "\n"

/// Replaces `{{name}}`; a name that the template has and nobody knows is an error.
let private fill (values: Map<string, string>) (text: string) =
    Regex.Replace(text, @"\{\{(\w+)\}\}", (fun found -> values[found.Groups[1].Value]))

/// Writes docs/performance.md and its two charts. Precondition: the working directory is the repository's root.
let write (report: Report) (micro: MicroResult list) : unit =
    let rows = Row.best report.Rows
    let profiles = Option.defaultValue [] report.Profiles

    let values =
        Map
            [ "machine", machine report
              "results", Table.ofResults rows
              "batching", Table.ofBatching rows
              "verdicts", verdicts (Verdict.all rows @ Verdict.ofAeads report.Rows)
              "profile", Cost.table profiles rows
              "micro",
              (if micro.IsEmpty then
                   "(Micro has not run.)"
               else
                   MicroResult.table micro) ]

    File.WriteAllText(target, fill values (File.ReadAllText template))
    File.WriteAllText(Path.ChangeExtension(target, ".svg"), Chart.svg rows)
    File.WriteAllText(Path.Combine("docs", "performance-cost.svg"), Cost.svg micro profiles rows)

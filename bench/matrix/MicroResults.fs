namespace Lightway.Bench.Matrix

open System
open System.IO
open System.Text.Json

/// One micro-benchmark of the last run of the target Micro.
type MicroResult =
    { Method: string // name of the method
      Title: string
      Nanoseconds: float } // median of one operation

/// BenchmarkDotNet's brief JSON reports in artifacts/bench/results.
[<RequireQualifiedAccess>]
module MicroResult =
    let private ofJson (benchmark: JsonElement) : MicroResult option =
        let text (name: string) = benchmark.GetProperty(name).GetString()
        let statistics = benchmark.GetProperty "Statistics"
        let title = (text "MethodTitle").Trim '\''

        let title =
            match text "Parameters" with
            | "" -> title
            | parameters -> $"{title} ({parameters})"

        if statistics.ValueKind = JsonValueKind.Object then
            Some
                { Method = text "Method"
                  Title = title
                  Nanoseconds = statistics.GetProperty("Median").GetDouble() }
        else
            None // a benchmark that failed

    let private ofFile (file: string) =
        use document = JsonDocument.Parse(File.ReadAllText file)

        [ for benchmark in document.RootElement.GetProperty("Benchmarks").EnumerateArray() -> ofJson benchmark ]
        |> List.choose id

    /// Of all benchmark classes, in the order of files and benchmarks; empty when Micro has not run.
    let read (folder: string) : MicroResult list =
        let results = Path.Combine(folder, "results")

        if Directory.Exists results then
            Directory.GetFiles(results, "*-report-brief.json")
            |> Array.sortWith (fun a b -> String.CompareOrdinal(a, b))
            |> List.ofArray
            |> List.collect ofFile
        else
            []

    /// A Markdown table.
    let table (results: MicroResult list) : string =
        let line (result: MicroResult) =
            $"| {result.Title} | {result.Nanoseconds:F1} |"

        [ "| step | ns |"; "| --- | --: |" ] @ List.map line results |> String.concat "\n"

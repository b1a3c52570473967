/// What an operator can meet (counters, options, exit codes) is in docs/operations.md.
module Lightway.Tests.DocsTests

open System
open System.IO
open System.Text.RegularExpressions
open Expecto
open Lightway.Hosting
open Lightway.Tunnel.Metrics
open Lightway.Options

let rec private repository (directory: string) : string =
    if File.Exists(Path.Combine(directory, "Lightway.slnx")) then
        directory
    else
        match Path.GetDirectoryName directory with
        | null -> failwith $"no directory above {AppContext.BaseDirectory} has Lightway.slnx"
        | parent -> repository parent

let private operations =
    lazy File.ReadAllText(Path.Combine(repository AppContext.BaseDirectory, "docs", "operations.md"))

/// The names between backticks; `mode: tcp` names `mode`.
let private quoted (page: string) : Set<string> =
    Set [ for found in Regex.Matches(page, "`([^`\n]+)`") -> found.Groups[1].Value.Split(": ")[0] ]

/// Those of `names` that `page` does not have between backticks.
let private missing (page: string) (names: string seq) : string list =
    let present = quoted page
    names |> Seq.filter (present.Contains >> not) |> Seq.distinct |> List.ofSeq

/// Exit codes are the first cell of a row of their table.
let private missingCodes (page: string) (codes: int seq) : int list =
    let table = page.Substring(max 0 (page.IndexOf "| Exit code |"))
    let rows = table.Split '\n' |> Array.takeWhile _.StartsWith('|')

    codes
    |> Seq.filter (fun code -> not (rows |> Array.exists _.StartsWith($"| {code} |")))
    |> List.ofSeq

/// A counter's name, and the reason that some have as a label: `gso_dropped_invalid_hdr_len{reason="fragment"}`.
let private counterNames =
    [ for pair in Counters.Sum [] do
          let name = pair.Key
          yield Regex.Match(name, "^[^{]+").Value

          for label in Regex.Matches(name, "=\"([^\"]+)\"") do
              yield label.Groups[1].Value ]

let private optionNames (names: OptionNames) : string list =
    List.distinct (List.ofSeq names.Keys.Values @ List.ofSeq names.FileOnly.Keys)

let private server = optionNames ServerReading.names
let private client = optionNames ClientReading.names

/// operations.md without one name.
let private without (name: string) : string =
    operations.Value.Replace($"`{name}`", "").Replace($"`{name}: ", "`")

let private codes = [ 0; Entry.Failed; Entry.BadConfiguration; Entry.LoginRefused ]

let tests: Test =
    testList
        "Docs"
        [ test "every counter and every drop reason is in operations.md" {
              Expect.isGreaterThan counterNames.Length 90 "the names are those of the program"
              Expect.contains counterNames "fragment" "reasons are among them"
              Expect.isEmpty (missing operations.Value counterNames) "add these counters"
          }

          test "every metric of the metrics endpoint is in operations.md" {
              let names =
                  [ for name, kind in MetricsTests.families MetricsTests.idleMetrics.Value do
                        if not (name.StartsWith "dotnet_" || name.StartsWith "process_") then
                            if kind = "counter" && not ((quoted operations.Value).Contains name) then
                                name.Substring(0, name.Length - "_total".Length)
                            else
                                name ]

              Expect.isGreaterThan names.Length 200 "the names are those of the program"
              Expect.isEmpty (missing operations.Value names) "add these metrics"
          }

          test "every option of the server is in operations.md" {
              Expect.isGreaterThan server.Length 40 "the names are those of the program"
              Expect.isEmpty (missing operations.Value server) "add these options"
          }

          test "every option of the client is in operations.md" {
              Expect.isGreaterThan client.Length 50 "the names are those of the program"
              Expect.isEmpty (missing operations.Value client) "add these options"
          }

          test "every exit code is in operations.md" {
              Expect.isEmpty (missingCodes operations.Value codes) "add these exit codes"
          }

          test "a counter or an option that the page lacks is found, whichever it is" {
              for name in counterNames @ server @ client do
                  Expect.equal (missing (without name) [ name ]) [ name ] "it is missing"
          }

          test "a name that is only a part of another one, or not between backticks, is missing" {
              let page = "`tun_reads_total` and tun_reads, `mode: udp`"
              Expect.equal (missing page [ "tun_reads"; "mode" ]) [ "tun_reads" ] ""
          }

          test "an exit code that the table lacks is found" {
              let page =
                  "| 7 | elsewhere |\n\n| Exit code | Meaning |\n| --- | --- |\n| 0 | stopped |\n\n| 1 | no |\n"

              Expect.equal (missingCodes page [ 0; 1; 7; 12 ]) [ 1; 7; 12 ] ""
              Expect.equal (missingCodes "" codes) codes ""
          } ]

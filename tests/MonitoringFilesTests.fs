/// The dashboard and the alerts for operators: every metric that they name exists, and the alerts do what their tests say.
module Lightway.Tests.MonitoringFilesTests

open System
open System.Diagnostics
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open Expecto
open Lightway.Tests.MetricsTests

let private root =
    let rec up (folder: string) =
        if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
            folder
        else
            up (Path.GetDirectoryName folder)

    up AppContext.BaseDirectory

let private dashboard =
    lazy (JsonDocument.Parse(File.ReadAllText(Path.Combine(root, "deploy/grafana/lightway.json"))).RootElement)

let private rules =
    lazy File.ReadAllText(Path.Combine(root, "deploy/prometheus/alerts.yml"))

/// The queries of all panels.
let private queries (dashboard: JsonElement) : string list =
    [ for panel in dashboard.GetProperty("panels").EnumerateArray() do
          for target in panel.GetProperty("targets").EnumerateArray() do
              target.GetProperty("expr").GetString() ]

let private expressions (rules: string) : string list =
    [ for line in Regex.Matches(rules, @"^\s*expr: (.+)$", RegexOptions.Multiline) -> line.Groups[1].Value ]

/// Names that PromQL itself has.
let private words =
    set
        [ "sum"
          "by"
          "rate"
          "increase"
          "min"
          "max"
          "topk"
          "histogram_quantile"
          "and"
          "or"
          "unless"
          "on"
          "le" ]

/// The metrics that a query names: words outside of braces, brackets and label lists.
let private metricsIn (query: string) : string list =
    let bare =
        Regex.Replace(Regex.Replace(query, @"\{[^}]*\}|\[[^\]]*\]", ""), @"\b(by|on|without) *\([^)]*\)", "")

    [ for word in Regex.Matches(bare, @"\b[a-z_][a-z0-9_]*\b") do
          if not (words.Contains word.Value) then
              word.Value ]

/// Names of all series of the server: a histogram has three kinds. `up` is Prometheus's own.
let private series =
    lazy
        (set
            [ "up"
              for name, kind in families idleMetrics.Value do
                  if kind = "histogram" then
                      yield! [ name + "_bucket"; name + "_sum"; name + "_count" ]
                  else
                      name ])

let private unknown (queries: string list) : string list =
    queries |> List.collect metricsIn |> List.filter (series.Value.Contains >> not) |> List.distinct

let private run (arguments: string list) : string =
    let info =
        ProcessStartInfo(
            needsProgram "promtool" "prometheus",
            arguments,
            RedirectStandardOutput = true,
            RedirectStandardError = true,
            WorkingDirectory = Path.Combine(root, "deploy/prometheus")
        )

    use running = Process.Start info
    let errors = running.StandardError.ReadToEndAsync()
    let output = running.StandardOutput.ReadToEnd()
    running.WaitForExit()
    Expect.equal running.ExitCode 0 (output + errors.Result)
    output

let tests: Test =
    testList
        "Dashboard and alerts"
        [ test "every metric of the dashboard exists" {
              let queries = queries dashboard.Value
              Expect.isGreaterThan queries.Length 30 "queries"
              Expect.isEmpty (unknown queries) "not there"
          }

          test "every metric of the alerts exists" {
              let expressions = expressions rules.Value
              Expect.isGreaterThan expressions.Length 10 "alerts"
              Expect.isEmpty (unknown expressions) "not there"
          }

          test "a metric that does not exist is found in a query" {
              Expect.equal
                  (unknown [ "sum by (le, reason) (rate(drops_total{a=\"b_total\"}[5m])) / no_such_total > 1e6" ])
                  [ "no_such_total" ]
                  ""
          }

          test "panels do not overlap, and each has a title and says what it shows" {
              let panels = List.ofSeq (dashboard.Value.GetProperty("panels").EnumerateArray())

              let place (panel: JsonElement) name =
                  panel.GetProperty("gridPos").GetProperty(name: string).GetInt32()

              let cells (panel: JsonElement) =
                  [ for x in place panel "x" .. place panel "x" + place panel "w" - 1 do
                        for y in place panel "y" .. place panel "y" + place panel "h" - 1 do
                            x, y ]

              let all = panels |> List.collect cells
              Expect.equal (List.distinct all).Length all.Length "cells"
              Expect.all all (fun (x, _) -> x < 24) "within the width of the grid"

              for panel in panels do
                  for name in [ "title"; "description" ] do
                      Expect.isNotEmpty (panel.GetProperty(name).GetString()) name
          }

          test "promtool accepts the alerts" {
              Expect.stringContains (run [ "check"; "rules"; "alerts.yml" ]) "13 rules found" "all of them"
          }

          test "the alerts fire for what they are about, and not for a server in good order" {
              Expect.stringContains (run [ "test"; "rules"; "alerts.test.yml" ]) "SUCCESS" "tests of the alerts"

              let tests =
                  File.ReadAllText(Path.Combine(root, "deploy/prometheus/alerts.test.yml"))

              for alert in Regex.Matches(rules.Value, @"- alert: (\w+)") do
                  let name = alert.Groups[1].Value
                  Expect.equal (Regex.Matches(tests, $@"alertname: {name}\b").Count >= 2) true $"{name} has both"
          } ]

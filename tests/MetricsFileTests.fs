/// The file that the counters are written to, in a directory where others may have put links.
module Lightway.Tests.MetricsFileTests

open System.Collections.Generic
open System.IO
open System.Text.Json
open Expecto
open Lightway.Hosting
open Lightway.Tunnel.Metrics
open Microsoft.Extensions.Logging.Abstractions

let private isCounters (path: string) =
    isNull (FileInfo(path).LinkTarget)
    && JsonSerializer.Deserialize<Dictionary<string, int64>>(File.ReadAllText path).Count > 90

/// Writes the counters to `metrics` in a directory of its own that also has a file of somebody else, `theirs`.
let private write (prepare: string -> string -> unit) (check: string -> string -> unit) =
    let directory = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        let metrics = Path.Combine(directory.FullName, "metrics")
        let theirs = Path.Combine(directory.FullName, "theirs")
        File.WriteAllText(theirs, "theirs")
        prepare metrics theirs
        use file = new MetricsFile(metrics, [| new Counters() |], NullLogger.Instance)
        file.Write()
        Expect.equal (File.ReadAllText theirs) "theirs" "the other file is as it was"
        check metrics theirs
        Expect.equal (Directory.GetFiles(directory.FullName).Length) 2 "and nothing is left over"
    finally
        directory.Delete true

let private expectWritten metrics _ =
    Expect.isTrue (isCounters metrics) "the counters are in a file of their own"

let tests: Test =
    testSequenced (
        testList
            "Metrics file"
            [ test "it is written, and replaced" {
                  write (fun metrics _ -> File.WriteAllText(metrics, "old")) expectWritten
              }

              test "a link in its place is replaced, and what it points to stays" {
                  write (fun metrics theirs -> File.CreateSymbolicLink(metrics, theirs) |> ignore) expectWritten
              }

              test "a link in the place of the file that it is first written to is not followed" {
                  write
                      (fun metrics theirs -> File.CreateSymbolicLink(metrics + ".new", theirs) |> ignore)
                      expectWritten
              } ]
    )

/// The log on standard output, in each of the operator's formats.
module Lightway.Tests.LoggingTests

open System
open System.IO
open System.Text.Json
open System.Text.RegularExpressions
open Expecto
open Lightway.Hosting
open Lightway.Options
open Microsoft.Extensions.Logging

/// What a program prints that logs one line.
let private printed (format: LogFormat) : string =
    let before = Console.Out
    use output = new StringWriter()
    let shared = TextWriter.Synchronized output
    Console.SetOut shared

    let text () =
        lock shared (fun () -> output.ToString())

    try
        (use factory = Logging.Create(format, Lightway.Options.LogLevel.Info)
         factory.CreateLogger("lightway-server").LogWarning "a line"
         // The end of the factory waits 1.5 s for the thread that writes, and no longer.
         Lightway.Lab.Wait.until (TimeSpan.FromSeconds 30.) (fun () -> (text ()).EndsWith '\n') |> ignore)

        text ()
    finally
        Console.SetOut before

let private time = Regex @"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"

/// The time in a line: in UTC, and of this moment.
let private expectTime (text: string) =
    let found = time.Match text
    Expect.isTrue found.Success $"a time of RFC 3339 in: {text}"

    let at =
        DateTimeOffset.Parse(found.Value, Globalization.CultureInfo.InvariantCulture)

    Expect.isLessThan (abs (DateTimeOffset.UtcNow - at).TotalMinutes) 1. "now, in UTC"

let tests =
    testList
        "Logging"
        [ for format in [ LogFormat.Full; LogFormat.Json; LogFormat.Pretty ] do
              test $"{format}: each line has its time in UTC, as RFC 3339 writes it" { expectTime (printed format) }

          test "json: a line is one JSON object with time, level, category and message" {
              let line = (printed LogFormat.Json).Trim()
              Expect.isFalse (line.Contains '\n') "one line"
              use parsed = JsonDocument.Parse line

              let field (name: string) =
                  parsed.RootElement.GetProperty(name).GetString()

              expectTime (field "Timestamp")
              Expect.equal (field "LogLevel") "Warning" "level"
              Expect.equal (field "Category") "lightway-server" "category"
              Expect.equal (field "Message") "a line" "message"
          }

          test "compact: no time" { Expect.isFalse (time.IsMatch(printed LogFormat.Compact)) "no time" } ]

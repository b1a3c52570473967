/// Who may touch the files that the programs trust.
module Lightway.Tests.FileChecksTests

open System
open System.IO
open Expecto
open Lightway.Hosting

/// Mode bits as written in octal: `mode "600"`.
let private mode (octal: string) : UnixFileMode = enum (Convert.ToInt32(octal, 8))

/// Runs `body` with a directory that is gone afterwards. Its parents pass the checks: the temporary one is sticky.
let private withDirectory (body: string -> unit) =
    let directory = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        body directory.FullName
    finally
        directory.Delete true

let private problem path rule = FileChecks.Problem(path, rule)

let tests: Test =
    testList
        "File checks"
        [ for octal, rule, refused in
              [ "600", FileRule.OwnerOnly, None
                "400", FileRule.OwnerOnly, None
                "640", FileRule.OwnerOnly, Some "chmod 600"
                "604", FileRule.OwnerOnly, Some "chmod 600"
                "610", FileRule.OwnerOnly, Some "chmod 600"
                "644", FileRule.ReadableByOthers, None
                "755", FileRule.ReadableByOthers, None
                "664", FileRule.ReadableByOthers, Some "chmod go-w"
                "646", FileRule.ReadableByOthers, Some "chmod go-w" ] do
              test $"mode {octal} for {rule}" {
                  withDirectory (fun directory ->
                      let file = Path.Combine(directory, "file")
                      File.WriteAllText(file, "")
                      File.SetUnixFileMode(file, mode octal)

                      match problem file rule, refused with
                      | null, None -> ()
                      | NonNull message, Some command ->
                          for part in [ file; octal; $"{command} {file}" ] do
                              Expect.stringContains message part ""
                      | message, _ -> failtestf "%s" message)
              }

          test "a link is judged by what it points to" {
              withDirectory (fun directory ->
                  let file = Path.Combine(directory, "file")
                  let link = Path.Combine(directory, "link")
                  File.WriteAllText(file, "")
                  File.SetUnixFileMode(file, mode "644")
                  File.CreateSymbolicLink(link, file) |> ignore
                  Expect.stringContains (problem link FileRule.OwnerOnly) file ""
                  File.SetUnixFileMode(file, mode "600")
                  Expect.isNull (problem link FileRule.OwnerOnly) "")
          }

          test "a directory that everyone may write to is refused, however far up, unless it is sticky" {
              withDirectory (fun directory ->
                  let below =
                      Directory.CreateDirectory(Path.Combine(directory, "open", "below")).FullName

                  let file = Path.Combine(below, "file")
                  File.WriteAllText(file, "")
                  File.SetUnixFileMode(file, mode "600")
                  let opened = Path.Combine(directory, "open")
                  File.SetUnixFileMode(opened, mode "777")
                  Expect.stringContains (problem file FileRule.OwnerOnly) $"chmod o-w {opened}" ""
                  File.SetUnixFileMode(opened, mode "1777")
                  Expect.isNull (problem file FileRule.OwnerOnly) "")
          }

          test "what is missing or no file is refused by name" {
              withDirectory (fun directory ->
                  for path in [ directory; Path.Combine(directory, "none") ] do
                      Expect.equal (problem path FileRule.OwnerOnly) $"\"{path}\" does not exist or is not a file" "")
          }

          test "the error names the option" {
              let error =
                  Expect.throwsC (fun () -> FileChecks.Require("server_key", "/none", FileRule.OwnerOnly)) _.Message

              Expect.stringStarts error "server_key: " ""
          } ]

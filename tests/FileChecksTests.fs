/// Who may touch the files that the programs trust.
module Lightway.Tests.FileChecksTests

open System
open System.IO
open Expecto
open Lightway.Hosting
open Lightway.Lab
open Lightway.Tests.Checks

/// Mode bits as written in octal: `mode "600"`.
let private mode (octal: string) : UnixFileMode = enum (Convert.ToInt32(octal, 8))

/// Runs `body` with a directory that is gone afterwards. Its parents pass the checks: the temporary one is sticky.
let private withDirectory (body: string -> unit) =
    let directory = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        body directory.FullName
    finally
        directory.Delete true

let private secretIn directory name =
    let file = Path.Combine(directory, name)
    File.WriteAllText(file, "")
    File.SetUnixFileMode(file, mode "600")
    file

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

          test "a directory that others may write to is refused, however far up, unless it is sticky" {
              withDirectory (fun directory ->
                  let below =
                      Directory.CreateDirectory(Path.Combine(directory, "open", "below")).FullName

                  let file = Path.Combine(below, "file")
                  File.WriteAllText(file, "")
                  File.SetUnixFileMode(file, mode "600")
                  let opened = Path.Combine(directory, "open")
                  File.SetUnixFileMode(opened, mode "777")
                  Expect.stringContains (problem file FileRule.OwnerOnly) $"chmod go-w {opened}" ""
                  File.SetUnixFileMode(opened, mode "757")
                  Expect.stringContains (problem file FileRule.OwnerOnly) $"chmod o-w {opened}" ""
                  File.SetUnixFileMode(opened, mode "1777")
                  Expect.isNull (problem file FileRule.OwnerOnly) "")
          }

          test "a directory that its group may write to is refused, unless it is sticky" {
              withDirectory (fun directory ->
                  let file = secretIn directory "file"
                  File.SetUnixFileMode(directory, mode "770")
                  Expect.stringContains (problem file FileRule.OwnerOnly) $"chmod g-w {directory}" ""
                  File.SetUnixFileMode(directory, mode "1770")
                  Expect.isNull (problem file FileRule.OwnerOnly) "")
          }

          test "a directory behind a link in the middle of a path is checked, and so is the one that has the link" {
              withDirectory (fun directory ->
                  let below name =
                      Directory.CreateDirectory(Path.Combine(directory, name)).FullName

                  let real, links = below "real", below "links"
                  secretIn real "file" |> ignore
                  Directory.CreateSymbolicLink(Path.Combine(links, "way"), "../real") |> ignore
                  let path = Path.Combine(links, "way", "file")
                  Expect.isNull (problem path FileRule.OwnerOnly) "both are closed"

                  for opened in [ real; links ] do
                      File.SetUnixFileMode(opened, mode "777")
                      Expect.stringContains (problem path FileRule.OwnerOnly) $"chmod go-w {opened}" ""
                      File.SetUnixFileMode(opened, mode "755"))
          }

          test "links that lead in a circle are refused" {
              withDirectory (fun directory ->
                  let link = Path.Combine(directory, "link")
                  File.CreateSymbolicLink(link, link) |> ignore
                  Expect.stringContains (problem link FileRule.OwnerOnly) link "")
          }

          test "a file, a directory or a link of another user is refused: that user may change it" {
              needsRoot ()

              withDirectory (fun directory ->
                  let below = Directory.CreateDirectory(Path.Combine(directory, "below")).FullName
                  let file = secretIn below "file"
                  let link = Path.Combine(directory, "link")
                  File.CreateSymbolicLink(link, file) |> ignore
                  Expect.isNull (problem link FileRule.OwnerOnly) "all is root's"

                  for owned in [ file; below; link ] do
                      Shell.run "chown" [ "-h"; "12345"; owned ] |> ignore

                      for rule in [ FileRule.OwnerOnly; FileRule.ReadableByOthers ] do
                          let message = problem link rule
                          Expect.stringContains message $"\"{owned}\" belongs to user 12345" "who"
                          Expect.stringEnds message $"; run: chown -h root {owned}" "the remedy"

                      Shell.run "chown" [ "-h"; "root"; owned ] |> ignore)
          }

          for octal, isInside, isTaken in
              [ "440", true, true
                "400", true, true
                "444", true, false
                "460", true, false
                "440", false, false ] do
              let place = if isInside then "in" else "outside"

              test $"mode {octal} {place} the directory of systemd's credentials: taken is {isTaken}" {
                  withDirectory (fun directory ->
                      let credentials =
                          Directory.CreateDirectory(Path.Combine(directory, "credentials")).FullName

                      let other =
                          Directory.CreateDirectory(Path.Combine(directory, "credentials-not")).FullName

                      let file = secretIn (if isInside then credentials else other) "key"
                      File.SetUnixFileMode(file, mode octal)
                      File.SetUnixFileMode(credentials, mode "550")
                      let message = FileChecks.Problem(file, FileRule.OwnerOnly, credentials)
                      Expect.equal (isNull message) isTaken "")
              }

          for owner, group, octal, isTaken in
              [ 0, 4321, "640", true
                0, 4321, "440", true
                0, 4321, "600", false // it could not read it
                0, 4322, "640", false
                0, 4321, "660", false
                0, 4321, "644", false
                4321, 4321, "640", false
                4321, 4321, "600", true ] do
              test
                  $"a service of user and group 4321, a secret of {owner}:{group} with mode {octal}: taken is {isTaken}" {
                  needsRoot ()

                  withDirectory (fun directory ->
                      let program = Path.Combine(directory, "program")
                      File.SetUnixFileMode(directory, mode "711")

                      Shell.run "cp" [ "-r"; Path.GetDirectoryName(Programs.OfThisBuild().Client) + "/."; program ]
                      |> ignore

                      let file = Path.Combine(directory, "client.yaml")
                      // The password of a client: the first thing that it does is to check this file, then the authority.
                      File.WriteAllText(file, "server: 192.0.2.1:1\nuser: me\npassword: secret\nca_cert: /none\n")
                      Shell.run "chown" [ $"{owner}:{group}"; file ] |> ignore
                      File.SetUnixFileMode(file, mode octal)

                      let struct (code, _, error) =
                          Shell.tryRun
                              "setpriv"
                              [ "--reuid=4321"
                                "--regid=4321"
                                "--clear-groups"
                                Path.Combine(program, "lightway-client")
                                "--config-file"
                                file ]

                      Expect.equal code 2 error

                      if isTaken then
                          Expect.stringContains error "ca_cert: \"/none\" does not exist" "the next step"
                      elif owner = 0 && group = 4321 && octal <> "600" then
                          Expect.stringContains error $"run: chgrp 4321 {file} && chmod 640 {file}" "the remedy"
                      else
                          Expect.stringContains error file "which file")
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

/// `--check-config` and `--generate`, as an operator runs them: exit codes, and what is opened and what is not.
module Lightway.Tests.CheckConfigTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Server.Setup

/// Runs `body` with a set-up that `init` wrote.
let private withSetUp = SetUps.withPort 27690

let private server = lazy Programs.OfThisBuild().Server
let private client = lazy Programs.OfThisBuild().Client

let private check (program: Lazy<string>) (file: string) (flags: string list) =
    let struct (code, output, error) =
        Shell.tryRun program.Value ([ "--check-config"; "--config-file"; file ] @ flags)

    code, output, error

let private add (file: string) (text: string) = File.AppendAllText(file, text)

/// A file whose check fails, with one line that names what is wrong.
let private refused name (program: Lazy<string>) (yaml: string) (prepare: string -> unit) (says: string list) =
    test $"{name} is found" {
        withSetUp (fun directory ->
            prepare directory
            let code, output, error = check program (Path.Combine(directory, yaml)) []
            Expect.equal code 2 $"exit code\n{output}\n{error}"
            Expect.equal output "" "standard output"
            let line = error.TrimEnd().Split('\n') |> Array.last

            for part in says do
                Expect.stringContains line (part.Replace("DIR", directory)) error)
    }

let private write (name: string) (text: string) (directory: string) =
    File.WriteAllText(Path.Combine(directory, name), text)

let private files =
    testList
        "Files"
        [ for program, yaml in [ server, "server.yaml"; client, "client.yaml" ] do
              test $"what init writes passes, and so does the report itself: {yaml}" {
                  withSetUp (fun directory ->
                      let file = Path.Combine(directory, yaml)
                      let code, report, error = check program file []
                      Expect.equal (code, error) (0, "") "it passes"
                      Expect.stringContains report $"mode: udp   # {file}:" "the report"
                      let again = Path.Combine(directory, "again.yaml")
                      let mode = UnixFileMode.UserRead ||| UnixFileMode.UserWrite
                      File.WriteAllText(again, report)
                      File.SetUnixFileMode(again, mode)

                      let password =
                          [ if yaml = "client.yaml" then
                                "--password=x" ]

                      let code, second, error = check program again password
                      Expect.equal (code, error) (0, "") "it has every option, and no warning"

                      // The first line names the file. Comments say where values come from.
                      let values (report: string) =
                          [ for line in report.Split '\n' |> Array.skip 1 -> line.Split("   # ")[0] ]

                      Expect.equal (values second) (values report) "the same values")
              }

          for program, yaml in [ server, "server.yaml"; client, "client.yaml" ] do
              test $"a library for AES-GCM that is asked for by name must be there: {yaml}" {
                  withSetUp (fun directory ->
                      let run (aead: string) =
                          Shell.tryRun
                              "env"
                              [ "LIGHTWAY_IPSEC_MB=/nowhere/libIPSec_MB.so"
                                program.Value
                                "--check-config"
                                "--config-file"
                                Path.Combine(directory, yaml)
                                $"--aead={aead}" ]

                      let struct (code, _, error) = run "ipsec-mb"
                      Expect.equal code 2 $"exit code\n{error}"

                      Expect.stringContains
                          error
                          "aead: ipsec-mb can't be used: LIGHTWAY_IPSEC_MB names '/nowhere/libIPSec_MB.so', which can't be loaded"
                          "the reason"

                      for aead in [ "auto"; "wolfcrypt" ] do
                          let struct (code, _, error) = run aead
                          Expect.equal (code, error) (0, "") aead)
              }

          test "a check opens no device and no port: both may be in use" {
              withSetUp (fun directory ->
                  use taken = new UdpClient(IPEndPoint(IPAddress.Loopback, 0))
                  let port = (taken.Client.LocalEndPoint :?> IPEndPoint).Port
                  let file = Path.Combine(directory, "server.yaml")

                  let code, _, error =
                      check server file [ $"--bind-address=127.0.0.1:{port}"; "--tun-name=lo" ]

                  Expect.equal (code, error) (0, "") "it passes")
          }

          test "warnings go to standard error, and do not fail it" {
              withSetUp (fun directory ->
                  let file = Path.Combine(directory, "server.yaml")
                  add file "colour: blue\naccept_unknowns: true\n"
                  let code, output, error = check server file []
                  Expect.equal code 0 error
                  Expect.stringStarts error "warning: colour: not a known option" ""
                  Expect.isFalse (output.Contains "colour") "the report")
          }

          refused
              "a key that does not belong to the certificate"
              server
              "server.yaml"
              (fun directory ->
                  let options = File.ReadAllText(Path.Combine(directory, "ca.key"))
                  write "server.key" options directory)
              [ "server_cert"; "server_key"; "does not belong" ]

          refused "a user without a hash" server "server.yaml" (write "users.htpasswd" "me\n") [ "user_db"; "line 1" ]

          refused
              "a map of parts that is not there"
              server
              "server.yaml"
              (fun directory -> add (Path.Combine(directory, "server.yaml")) "ip_map: DIR/none\n")
              [ "ip_map"; "none" ]

          refused
              "a map with a part outside the pool"
              server
              "server.yaml"
              (fun directory ->
                  write "map" "192.0.2.1: 10.126.0.0/24\n" directory
                  add (Path.Combine(directory, "server.yaml")) $"ip_map: {directory}/map\n")
              [ "ip_map"; "10.126.0.0/24"; "ip_pool" ]

          refused
              "a key file that others may read"
              server
              "server.yaml"
              (fun directory -> File.SetUnixFileMode(Path.Combine(directory, "server.key"), enum<UnixFileMode> 0o644))
              [ "server_key"; "chmod" ]

          refused
              "a key log in a directory that does not exist"
              server
              "server.yaml"
              (fun directory -> add (Path.Combine(directory, "server.yaml")) $"keylog: {directory}/none/keys\n")
              [ "keylog"; "DIR/none/keys"; "directory" ]

          refused
              "an authority that is not a certificate"
              client
              "client.yaml"
              (write "ca_cert.crt" "none\n")
              [ "ca_cert"; "not a PEM file" ]

          refused
              "a later server's authority"
              client
              "client.yaml"
              (fun directory ->
                  add
                      (Path.Combine(directory, "client.yaml"))
                      $"servers:\n  - server: 127.0.0.1:1\n  - server: 127.0.0.1:2\n    ca_cert: {directory}/none.crt\n")
              [ "ca_cert"; "DIR/none.crt" ]

          refused
              "a later server's password file that others may read"
              client
              "client.yaml"
              (fun directory ->
                  write "pw" "secret\n" directory
                  File.SetUnixFileMode(Path.Combine(directory, "pw"), enum<UnixFileMode> 0o644)

                  add
                      (Path.Combine(directory, "client.yaml"))
                      "servers:\n  - server: 127.0.0.1:1\n  - server: 127.0.0.1:2\n    user: other\n    password_file: pw\n")
              [ "password_file"; "DIR/pw"; "chmod" ]

          refused
              "a later server's MTU without room"
              client
              "client.yaml"
              (fun directory ->
                  add
                      (Path.Combine(directory, "client.yaml"))
                      "servers:\n  - server: 127.0.0.1:1\n  - server: 127.0.0.1:2\n    outside_mtu: 150\n")
              [ "outside_mtu"; "150" ]

          refused
              "an MTU of the device that does not fit"
              client
              "client.yaml"
              (fun directory -> add (Path.Combine(directory, "client.yaml")) "inside_mtu: 1500\n")
              [ "inside_mtu"; "1500"; "too large" ]

          test "a password that a start would ask for is a warning, and nobody is asked" {
              withSetUp (fun directory ->
                  let file = Path.Combine(directory, "client.yaml")
                  add file "servers:\n  - server: 127.0.0.1:1\n  - server: 127.0.0.1:2\n    user: other\n"
                  let code, output, error = check client file []
                  Expect.equal code 0 error

                  let warning =
                      Expect.wantSome (Array.tryExactlyOne (error.TrimEnd().Split '\n')) "one line"

                  Expect.stringStarts warning "warning: password: missing for other at 127.0.0.1" ""
                  Expect.stringContains output "127.0.0.1:2" "the report has both servers")
          }

          refused
              "an MTU without room"
              client
              "client.yaml"
              (fun directory -> add (Path.Combine(directory, "client.yaml")) "outside_mtu: 150\n")
              [ "outside_mtu"; "150" ] ]

let private generated =
    testList
        "Generated files"
        [ test "a new file is for its owner only, and an existing one is left alone" {
              withSetUp (fun directory ->
                  let file = Path.Combine(directory, "new.yaml")

                  let write () =
                      Shell.tryRun client.Value [ "--generate"; "yaml"; "-c"; file ]

                  let struct (code, output, error) = write ()
                  Expect.equal (code, output, error) (0, "", "") "written"
                  Expect.equal (int (File.GetUnixFileMode file)) 0o600 "mode"
                  let text = File.ReadAllText file
                  Expect.stringContains text "\n#password:\n" ""
                  let struct (code, _, error) = write ()
                  Expect.equal code 2 "the second time"
                  Expect.stringContains error $"config_file: cannot write \"{file}\"" ""
                  Expect.equal (File.ReadAllText file) text "it is as it was")
          }

          for program in [ server; client ] do
              test $"a schema needs no file: {program.Value |> Path.GetFileName}" {
                  let struct (code, output, error) =
                      Shell.tryRun program.Value [ "--generate"; "jsonschema" ]

                  Expect.equal (code, error) (0, "") ""
                  Expect.stringContains output "\"$schema\"" ""
              } ]

let tests: Test = testList "Check" [ files; generated ]

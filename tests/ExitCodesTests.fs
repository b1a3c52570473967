/// Each exit code that docs/operations.md has, by a run of the program that an operator would start.
module Lightway.Tests.ExitCodesTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Server.Setup
open Lightway.Tests.Checks

/// A set-up that `init` wrote, in a folder of its own.
let private withSetUp = SetUps.withPort

type private Program =
    | Server
    | Client

    member this.Path =
        let programs = Programs.OfThisBuild()
        if this = Server then programs.Server else programs.Client

    member this.Yaml = if this = Server then "server.yaml" else "client.yaml"

/// What is started, what was changed before, and how it ends: the code, where its last line is, and what that says.
type private Case =
    {
        Name: string
        Program: Program
        /// DIR is the set-up's folder.
        Arguments: string list
        Prepare: string -> unit
        Code: int
        OnError: bool
        Says: string list
    }

let private case program name arguments prepare code onError says =
    { Name = name
      Program = program
      Arguments = arguments
      Prepare = prepare
      Code = code
      OnError = onError
      Says = says }

let private withFile program =
    [ "--config-file"; $"DIR/{(program: Program).Yaml}" ]

let private set (program: Program) (key: string) (value: string) (directory: string) =
    let file = Path.Combine(directory, program.Yaml)

    let others =
        File.ReadAllLines file |> Array.filter (fun line -> not (line.StartsWith(key + ":")))

    File.WriteAllLines(file, Array.append others [| $"{key}: {value}" |])

let private delete (name: string) (directory: string) =
    File.Delete(Path.Combine(directory, name))

let private write (name: string) (text: string) (directory: string) =
    File.WriteAllText(Path.Combine(directory, name), text)

let private cases =
    [ for program in [ Server; Client ] do
          case program "--help" [ "--help" ] ignore 0 false []
          case program "--version" [ "--version" ] ignore 0 false []
          case program "an option that does not exist" [ "--no-such-option" ] ignore 2 true [ "no-such-option" ]
          case program "a file that does not exist" [ "--config-file"; "DIR/none.yaml" ] ignore 2 true [ "none.yaml" ]

          case
              program
              "a file that is not YAML"
              (withFile program)
              (write program.Yaml "a: [\n")
              2
              true
              [ program.Yaml ]

          case
              program
              "a value that cannot be"
              (withFile program)
              (set program "log_level" "loud")
              2
              true
              [ "log_level"; "loud" ]

          case
              program
              "a file that others may read"
              (withFile program)
              (fun directory ->
                  let name = if program = Server then "server.key" else program.Yaml
                  File.SetUnixFileMode(Path.Combine(directory, name), enum<UnixFileMode> 0o644))
              2
              true
              [ "chmod" ]

      case Server "no key file" (withFile Server) (delete "server.key") 2 true [ "server_key" ]
      case Server "no user file" (withFile Server) (delete "users.htpasswd") 2 true [ "user_db" ]
      case
          Server
          "a user file without a hash"
          (withFile Server)
          (write "users.htpasswd" "me\n")
          2
          true
          [ "user_db"; "line 1" ]
      case Server "mode tcp" (withFile Server) (set Server "mode" "tcp") 2 true [ "mode" ]
      case Client "no authority" (withFile Client) (delete "ca_cert.crt") 2 true [ "ca_cert" ]
      case
          Client
          "an authority that is no certificate"
          (withFile Client)
          (write "ca_cert.crt" "none\n")
          2
          true
          [ "ca_cert" ]
      case Client "an MTU without room" (withFile Client) (set Client "outside_mtu" "150") 2 true [ "outside_mtu" ]
      case
          Client
          "a name that does not resolve"
          (withFile Client)
          (set Client "server" "none.invalid:27690")
          1
          false
          [ "none.invalid" ]
      case Server "a set-up that is there already" [ "init"; "DIR" ] ignore 2 true [ "DIR" ] ]

let private run (start: Case) : unit =
    withSetUp 27690 (fun directory ->
        start.Prepare directory
        let put (text: string) = text.Replace("DIR", directory)

        let struct (code, output, error) =
            Shell.tryRun start.Program.Path (start.Arguments |> List.map put)

        let context = $"\n{output}\n{error}"
        Expect.equal code start.Code $"exit code{context}"

        if start.Code = 0 then
            Expect.isNotEmpty (output.Trim()) "it is printed"
        else
            let text = if start.OnError then error else output
            let line = text.TrimEnd().Split('\n') |> Array.last

            for part in start.Says do
                Expect.stringContains line (put part) $"the line{context}"

            if start.OnError then
                Expect.equal (error.TrimEnd().Split('\n').Length) 1 $"one line{context}")

let private blocked =
    test "lightway-server: a port that another process has: code 1, and the last line of the log says so" {
        needsRoot ()
        use taken = new UdpClient(IPEndPoint(IPAddress.Loopback, 0))
        let port = (taken.Client.LocalEndPoint :?> IPEndPoint).Port

        withSetUp port (fun directory ->
            set Server "bind_address" $"127.0.0.1:{port}" directory
            set Server "tun_name" "lwcodes" directory

            let struct (code, output, error) =
                Shell.tryRun Server.Path [ "--config-file"; Path.Combine(directory, "server.yaml") ]

            Expect.equal code 1 $"exit code\n{output}\n{error}"
            let last = output.TrimEnd().Split('\n') |> Array.last
            Expect.stringContains last "Address already in use" "the last line")
    }

let tests =
    testList
        "Exit codes"
        [ for start in cases do
              let name = Path.GetFileName start.Program.Path
              test $"{name}: {start.Name}: code {start.Code}" { run start }

          blocked ]

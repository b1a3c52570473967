/// The commands of the documents, as they stand there, in namespaces: what an operator gets who follows them.
module Lightway.Tests.WalkthroughTests

open System
open System.IO
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private root =
    let rec up (folder: string) =
        if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
            folder
        else
            up (Path.GetDirectoryName folder)

    up AppContext.BaseDirectory

/// The commands of the code blocks below a heading, in order.
let private commandsBelow (page: string) (heading: string) : string list =
    let lines = File.ReadAllLines(Path.Combine(root, page)) |> List.ofArray

    let section =
        match List.skipWhile ((<>) heading) lines with
        | [] -> failtestf "%s has no heading %s" page heading
        | _ :: rest -> rest |> List.takeWhile (fun line -> not (Regex.IsMatch(line, "^#+ ")))

    [ let mutable isCode = false

      for line in section do
          if line.Trim().StartsWith "```" then
              isCode <- not isCode
          elif isCode && line.Trim() <> "" then
              line.Trim() ]

let private readme = lazy commandsBelow "README.md" "## Run a server"

let private isOf (program: string) (command: string) =
    command.Contains($"{program} --config-file")

/// The commands up to the one that starts the program, that one, and those after it.
let private around (program: string) (commands: string list) =
    match List.tryFindIndex (isOf program) commands with
    | Some index -> List.take index commands, commands[index], List.skip (index + 1) commands
    | None -> failtestf "no command starts %s in %A" program commands

/// Not a command of the installed server.
let private isInstallation (command: string) =
    not (command.Contains "lightway-server init" || command.Contains "setup-host")

/// What a command changes outside the namespaces of the network is in mounts of its own: /etc, /opt, /usr/local/bin. There
/// any user may open /dev/net/tun, as on a usual machine.
let private sandbox =
    [ "set -e"
      "cp -a /etc copy; mount -t tmpfs tmpfs /etc; cp -a copy/. /etc; rm -rf copy"
      "mkdir bin; mount --bind /usr/local/bin bin; mount -t tmpfs tmpfs /usr/local/bin; ln -s $PWD/bin/* /usr/local/bin/"
      "mount -t tmpfs tmpfs /opt"
      "mount -t tmpfs tmpfs /run"
      "mount -t tmpfs tmpfs /dev/net; mknod -m 666 /dev/net/tun c 10 200"
      "unset LIGHTWAY_WOLFSSL" ]

/// Starts a shell that runs `commands` and becomes `program`.
let private start (netns: string) (name: string) (folder: string) (commands: string list) (program: string) =
    let script = Path.Combine(folder, $"{name}.sh")
    File.WriteAllLines(script, [ $"cd {folder}" ] @ sandbox @ commands @ [ $"exec {program}" ])
    Child.Start netns name "unshare" [ "--mount"; "sh"; script ] (Path.Combine(folder, $"{name}.log"))

/// What `build.fsx -t Publish` leaves: both programs, each with its library.
let private publish (folder: string) =
    let programs = Programs.OfThisBuild()

    for name, program in [ "server", programs.Server; "client", programs.Client ] do
        let target = Path.Combine(folder, "artifacts", "publish", name)
        Directory.CreateDirectory target |> ignore
        Shell.run "cp" [ "-r"; Path.GetDirectoryName program + "/."; target ] |> ignore

        match Environment.GetEnvironmentVariable "LIGHTWAY_WOLFSSL" with
        | null
        | "" -> ()
        | library -> File.Copy(library, Path.Combine(target, "libwolfssl.so"))

let private wait = TimeSpan.FromSeconds 90.

/// Runs a server by its document, and a client by the README: the client reaches the remote through the tunnel only,
/// because the server forwards, and the remote answers because the server translates addresses.
let private follow (serverCommands: string list) (check: Child -> unit) =
    needsRoot ()
    use topology = Topology.Create()
    Shell.inside topology.Server "sysctl" [ "-q"; "-w"; "net.ipv4.ip_forward=0" ] |> ignore
    Shell.ip $"-n {topology.RemoteHost} route del {Topology.Pool}" |> ignore
    Shell.ip $"-n {topology.Server} route add default via {Topology.Remote} dev remote" |> ignore

    let folder name =
        Directory.CreateDirectory(Path.Combine(topology.Folder, name)).FullName

    let here, there = folder "server", folder "client"
    publish here
    publish there

    let before, program, after =
        around "lightway-server" (List.filter (isOf "lightway-client" >> not) serverCommands)

    use server = start topology.Server "server" here before program
    server.Await wait "it serves" (fun () -> server.Log.Contains "serving ")

    for command in after do
        Shell.inside topology.Server "sh" [ "-c"; command ] |> ignore

    // What the README says of the client: two files are copied, and two values are edited. The name is one of examples.
    for file in [ "client.yaml"; "ca_cert.crt" ] do
        File.Copy($"/proc/{server.Pid}/root/etc/lightway/{file}", Path.Combine(there, file))

    let file = Path.Combine(there, "client.yaml")

    let edited =
        File.ReadAllText(file).Replace("vpn.example.com", Topology.ServerOutside).Replace("/etc/lightway", there)

    File.WriteAllText(file, edited)
    let install, _, _ = around "lightway-server" readme.Value
    let install = List.filter isInstallation install
    let _, clientProgram, _ = around "lightway-client" readme.Value
    use client = start topology.Client "client" there install clientProgram

    client.Await wait "the remote answers" (fun () ->
        let struct (code, _, _) =
            Shell.tryRun "ip" [ "-n"; topology.Client; "route"; "get"; Topology.Remote ]

        server.HasExited || (code = 0 && Transfer.ping topology.Client Topology.Remote 1 56 = 1))

    Expect.isFalse server.HasExited server.LogTail
    check server

/// The lines of the status of a process that name its user and its capabilities (proc_pid_status(5)).
let private identity (child: Child) =
    [ for line in File.ReadAllLines $"/proc/{child.Pid}/status" do
          if line.StartsWith "Uid:" || line.StartsWith "CapPrm:" then
              line.Split '\t' |> Array.item 1 ]

let tests: Test =
    testSequenced (
        testList
            "Walkthrough"
            [ test "README, Run a server: a client reaches the Internet through it" {
                  follow readme.Value (fun server ->
                      Expect.equal (List.head (identity server)) "0" "root runs the server")
              }

              test "operations, Running: the same with a device that survives restarts" {
                  let before, program, _ = around "lightway-server" readme.Value

                  let before =
                      before |> List.filter (fun command -> not (command.Contains "setup-host"))

                  let device = commandsBelow "docs/operations.md" "## Running"
                  follow (before @ device @ [ program ]) ignore
              }

              test "operations, Without root: the same without root and without a capability" {
                  let install, _, _ = around "lightway-server" readme.Value
                  let install = List.filter isInstallation install
                  let section = commandsBelow "docs/operations.md" "### Without root"

                  follow (install @ section) (fun server ->
                      let runs = server.Pid
                      // runuser(1) waits for the server, its only child.
                      let child = File.ReadAllText($"/proc/{runs}/task/{runs}/children").Trim()
                      let status = File.ReadAllText $"/proc/{child}/status"
                      Expect.stringContains status "Name:\tlightway-server" "the program"
                      Expect.isFalse (Regex.IsMatch(status, @"Uid:\t0\t")) status
                      Expect.isTrue (Regex.IsMatch(status, @"CapPrm:\t0+\n")) status)
              } ]
    )

/// What systemd is told: readiness, reloads, the end, and that all workers come by.
module Lightway.Tests.ServiceTests

open System
open System.Collections.Generic
open System.IO
open System.Net.Sockets
open System.Text
open System.Threading
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Hosting.Service
open Lightway.Lab
open Lightway.Options
open Lightway.Tests.Checks
open Microsoft.Extensions.Logging.Abstractions

let private read (variables: (string * string) list) =
    let known = dict variables

    ServiceManager.read
        (Func<_, _>(fun name ->
            match known.TryGetValue name with
            | true, value -> value
            | _ -> null))
        42

/// A socket as systemd has it, and what came in, line by line.
type private Manager(path: string) =
    let socket =
        new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified)

    let lines = List<string>()

    let thread =
        Thread(fun () ->
            let buffer: byte[] = Array.zeroCreate 4096

            try
                while true do
                    let length = socket.Receive buffer
                    lock lines (fun () -> lines.AddRange(Encoding.UTF8.GetString(buffer, 0, length).Split '\n'))
            with :? SocketException ->
                ())

    do
        socket.Bind(UnixDomainSocketEndPoint path)
        thread.IsBackground <- true
        thread.Start()

    member _.Lines = lock lines (fun () -> List.ofSeq lines)

    member this.Count line =
        this.Lines |> Seq.filter ((=) line) |> Seq.length

    member this.Has(line: string) =
        this.Lines |> List.exists _.StartsWith(line)

    interface IDisposable with
        member _.Dispose() =
            socket.Dispose()
            thread.Join 1000 |> ignore

let private withManager (body: string -> Manager -> unit) =
    let folder = Directory.CreateTempSubdirectory "lightway-tests-"
    let path = Path.Combine(folder.FullName, "notify")

    try
        use manager = new Manager(path)
        body path manager
    finally
        folder.Delete true

let private notifier path watchdogMs =
    new ServiceNotifier(
        { Socket = path
          WatchdogMs = watchdogMs },
        NullLogger.Instance
    )

let private seconds (count: float) = TimeSpan.FromSeconds count

/// How many lines have come of all that were sent before: a line of our own is behind them.
let private countAll (path: string) (manager: Manager) (line: string) : int =
    use own = notifier path 0L
    let mark = $"mark {Guid.NewGuid()}"
    own.Status mark
    Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Has $"STATUS={mark}")) "all is read"
    manager.Count line

let private environment =
    testList
        "Environment"
        [ for name, variables, socket, watchdog in
              [ "nothing", [], "", 0L
                "a path", [ "NOTIFY_SOCKET", "/run/systemd/notify" ], "/run/systemd/notify", 0L
                "an abstract socket", [ "NOTIFY_SOCKET", "@a/b" ], "\000a/b", 0L
                "a vsock", [ "NOTIFY_SOCKET", "vsock:2:1234" ], "", 0L
                "an empty name", [ "NOTIFY_SOCKET", "@" ], "", 0L
                "a path that no socket can have", [ "NOTIFY_SOCKET", "/" + String('x', 107) ], "", 0L
                "a watchdog", [ "WATCHDOG_USEC", "30000000"; "WATCHDOG_PID", "42" ], "", 30_000L
                "a watchdog of whoever runs", [ "WATCHDOG_USEC", "30000000" ], "", 30_000L
                "the parent's watchdog", [ "WATCHDOG_USEC", "30000000"; "WATCHDOG_PID", "41" ], "", 0L
                "no time", [ "WATCHDOG_USEC", "-1" ], "", 0L
                "too short a time", [ "WATCHDOG_USEC", "999" ], "", 0L
                "a time beyond all", [ "WATCHDOG_USEC", "18446744073709551615" ], "", int64 Int32.MaxValue ] do
              test name {
                  Expect.equal
                      (read variables)
                      { Socket = socket
                        WatchdogMs = watchdog }
                      ""
              } ]

let private laws =
    testList
        "Watchdog"
        [ testProperty "all is well if and only if no worker was silent for longer than half the time"
          <| fun (PositiveInt half) (silences: NonNegativeInt list) (NonNegativeInt start) ->
              let manager =
                  { Socket = ""
                    WatchdogMs = 2L * int64 half }

              let now = int64 start
              let seen = [| for NonNegativeInt silence in silences -> now - int64 silence |]

              let expected =
                  silences |> List.forall (fun (NonNegativeInt silence) -> silence <= half)

              ServiceManager.isAlive manager (ReadOnlySpan seen) now = expected

          testProperty "a service whose workers come by is heard of in time, even if every second look is missed"
          <| fun (PositiveInt time) ->
              let manager =
                  { Socket = ""
                    WatchdogMs = int64 time + 3L }

              let period = ServiceManager.period manager
              period >= 1L && 2L * period <= manager.WatchdogMs

          test "a status with line breaks is one line: it can't pass for another message" {
              Expect.equal (ServiceManager.message "READY=1" "a\nSTOPPING=1\r\nb") "READY=1\nSTATUS=a STOPPING=1 b" ""
          } ]

let private messages =
    testList
        "Messages"
        [ test "ready, reloading, ready again, stopping" {
              withManager (fun path manager ->
                  use service = notifier path 0L
                  service.Ready("serving", (fun () -> failwith "there is no watchdog"))

                  service.Reload(fun () ->
                      Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Has "RELOADING=1")) "")

                  service.Stopping()
                  Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Has "STOPPING=1")) "sent"

                  let names = [ for line in manager.Lines -> (line.Split '=')[0] ]

                  Expect.equal
                      names
                      [ "READY"; "STATUS"; "RELOADING"; "MONOTONIC_USEC"; "READY"; "STOPPING" ]
                      "in this order")
          }

          test "a reload that fails leaves the service ready" {
              withManager (fun path manager ->
                  use service = notifier path 0L
                  Expect.throws (fun () -> service.Reload(fun () -> failwith "no")) ""
                  Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Count "READY=1" = 1)) "")
          }

          test "a socket with an abstract name" {
              let name = $"lightway-tests-{Environment.ProcessId}"
              use manager = new Manager("\000" + name)

              use service =
                  new ServiceNotifier(read [ "NOTIFY_SOCKET", "@" + name ], NullLogger.Instance)

              service.Status "fine"
              Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Count "STATUS=fine" = 1)) ""
          }

          test "the watchdog is fed while all workers come by, and no longer when one does not" {
              withManager (fun path manager ->
                  let mutable isStuck = false
                  let looks = ref 0 // since a worker is stuck
                  let stuckAt = Environment.TickCount64

                  use service = notifier path 400L

                  service.Ready(
                      "",
                      fun () ->
                          [| Environment.TickCount64
                             (if Volatile.Read &isStuck then
                                  Interlocked.Increment looks |> ignore
                                  stuckAt - 1000L
                              else
                                  Environment.TickCount64) |]
                  )

                  Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Count "WATCHDOG=1" >= 5)) "fed"
                  Volatile.Write(&isStuck, true)

                  let awaitLooks count =
                      let haveBeen () = Volatile.Read &looks.contents >= count
                      Expect.isTrue (Wait.until (seconds 30.) haveBeen) "it looks at the workers"

                  awaitLooks 1 // what it had to send before has left
                  let fed = countAll path manager "WATCHDOG=1"
                  awaitLooks 5
                  Expect.equal (countAll path manager "WATCHDOG=1") fed "one worker is stuck")
          }

          test "nobody listens: nothing happens" {
              use service = notifier "/run/lightway-tests-none" 100L
              service.Ready("", (fun () -> [||]))
              service.Reload ignore
              service.Stopping()
          } ]

let private programs =
    [ for program in [ "server"; "client" ] do
          test $"{program}: ready, watchdog, reload and end, and no watchdog while it is stopped (SIGSTOP)" {
              needsRoot ()
              use topology = Topology.Create()

              let settings: Settings =
                  { Expresslane = true
                    Offload = true
                    ServerKeys = []
                    ClientKeys = [] }

              let paths = Programs.OfThisBuild()
              use vpn = new Vpn(topology, paths, settings)
              let socket = Path.Combine(topology.Folder, "notify")
              use manager = new Manager(socket)

              let netns, path =
                  if program = "server" then
                      topology.Server, paths.Server
                  else
                      vpn.StartServer()
                      topology.Client, paths.Client

              let arguments =
                  [ $"NOTIFY_SOCKET={socket}"
                    "WATCHDOG_USEC=1000000"
                    path
                    "--config-file"
                    Path.Combine(vpn.Folder, $"{program}.yaml") ]

              use child =
                  Child.Start netns program "env" arguments (Path.Combine(topology.Folder, "service.log"))

              let await what line count =
                  child.Await (seconds 60.) what (fun () -> manager.Count line >= count)

              await "it is ready" "READY=1" 1
              await "it feeds the watchdog" "WATCHDOG=1" 4
              child.Signal Netns.Signal.Hangup
              await "it has reloaded" "READY=1" 2
              Expect.isTrue (manager.Has "RELOADING=1") "said before"

              if program = "client" then
                  await "it is online" "STATUS=online" 1

              child.Signal Netns.Signal.Stop

              /// All its threads (proc_pid_stat(5): the state is behind the name).
              let isStopped () =
                  try
                      Directory.GetDirectories $"/proc/{child.Pid}/task"
                      |> Array.forall (fun task ->
                          let stat = File.ReadAllText(Path.Combine(task, "stat"))
                          stat.Substring(stat.LastIndexOf ')' + 2).StartsWith 'T')
                  with :? IOException ->
                      false // a thread has ended meanwhile

              Expect.isTrue (Wait.until (seconds 30.) isStopped) "it is stopped"
              let fed = countAll socket manager "WATCHDOG=1"
              Thread.Sleep 1000
              Expect.equal (countAll socket manager "WATCHDOG=1") fed "a stopped process says nothing"
              child.Signal Netns.Signal.Continue
              await "it feeds the watchdog again" "WATCHDOG=1" (fed + 1)
              Expect.isTrue (child.Stop()) "it ends in order"
              Expect.isTrue (Wait.until (seconds 30.) (fun () -> manager.Has "STOPPING=1")) "said"
          } ]

let tests: Test =
    testSequenced (testList "Service" ([ environment; laws; messages ] @ programs))

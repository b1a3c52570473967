/// The control socket: its file, what its peers may cost, and what the commands do to the tables of a server in memory.
module Lightway.Tests.ControlTests

open System
open System.Diagnostics
open System.IO
open System.Net.Sockets
open System.Runtime.InteropServices
open System.Text
open System.Text.Json
open System.Threading
open System.Threading.Tasks
open Expecto
open Microsoft.Extensions.Logging.Abstractions
open Lightway.Hosting
open Lightway.Lab
open Lightway.Options
open Lightway.Protocol
open Lightway.Server.Control
open Lightway.Tunnel.Metrics
open Lightway.Tests.OptionRuns
open Lightway.Tests.Sites

let private withFolder (body: string -> unit) =
    let folder = Directory.CreateTempSubdirectory "lightway-tests-"

    try
        body folder.FullName
    finally
        folder.Delete true

let private withPath (body: string -> unit) =
    withFolder (fun folder -> body (Path.Combine(folder, "control.sock")))

let private connect (path: string) =
    let socket =
        new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified, ReceiveTimeout = 60_000)

    socket.Connect(UnixDomainSocketEndPoint path)
    socket

/// The mode bits that new files of this process do not get (umask(2)).
[<DllImport("libc")>]
extern int private umask(int mask)

/// A socket file that nobody listens at, as a killed process leaves it.
let private leaveDead (path: string) =
    let dead =
        new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)

    dead.Bind(UnixDomainSocketEndPoint path)
    GC.SuppressFinalize dead // .NET would remove the file
    dead.SafeHandle.Dispose()

/// All that a peer gets, until the connection ends.
let private readAll (socket: Socket) =
    let buffer: byte[] = Array.zeroCreate 65536
    use all = new MemoryStream()
    let mutable isOpen = true

    while isOpen do
        let count =
            try
                socket.Receive buffer
            with :? SocketException as error when error.SocketErrorCode = SocketError.ConnectionReset ->
                0

        all.Write(buffer, 0, count)
        isOpen <- count > 0

    Encoding.UTF8.GetString(all.ToArray())

/// The lines of an answer.
let private ask (path: string) (request: string) =
    use socket = connect path
    socket.Send(Encoding.UTF8.GetBytes(request + "\n")) |> ignore
    (readAll socket).Split('\n', StringSplitOptions.RemoveEmptyEntries)

let private refusalOf (lines: string[]) =
    Expect.hasLength lines 1 "one line"
    use answer = JsonDocument.Parse lines[0]
    Expect.isFalse (answer.RootElement.GetProperty("ok").GetBoolean()) "refused"
    answer.RootElement.GetProperty("error").GetString()

/// A site with a control socket, whose worker is a thread that runs what is posted.
type private Controlled(site: Site, path: string, reload: unit -> string) =
    let ending = new CancellationTokenSource()

    let noStatus () : StatusAnswer =
        failwith "the tables in memory have no status"

    let commands =
        new ControlCommands(site.Shared, [||], site.Managers, Func<_> noStatus, Func<_> reload, NullLogger.Instance)

    let server = ControlServer.Start(path, commands, NullLogger.Instance)

    /// The longest time that the worker was held up by one posted action, in ms.
    member val LongestMs = 0.0 with get, set

    /// Asks while the calling thread is the worker.
    member this.Ask(request: string) =
        let asking = Task.Run(fun () -> ask path request)

        while not asking.IsCompleted do
            let clock = Stopwatch.StartNew()
            site.RunPosted()
            this.LongestMs <- max this.LongestMs clock.Elapsed.TotalMilliseconds
            Thread.Sleep 1

        asking.Result

    interface IDisposable with
        member _.Dispose() =
            server.Dispose()
            commands.Dispose()
            ending.Dispose()

let private withSite (body: Site -> Controlled -> string -> unit) =
    withPath (fun path ->
        use site = new Site(Limits(Handshakes = 0))
        use controlled = new Controlled(site, path, fun () -> null)
        body site controlled path)

let private join (site: Site) (number: int) (user: string) =
    let guest =
        new Guest(site, at $"198.51.{number / 200}.{1 + number % 200}" 4000, user, "secret")

    guest.Reach ConnectionState.Online
    guest

let private file =
    testList
        "File"
        [ test "only its owner may use the socket, from its first moment on, and it is gone at the end" {
              withPath (fun path ->
                  using (ControlSocket.Open path) (fun _ ->
                      Expect.equal (FileChecks.Octal(File.GetUnixFileMode path)) "0600" "mode"
                      use peer = connect path
                      Expect.isTrue peer.Connected "it listens")

                  Expect.isFalse (File.Exists path) "removed")
          }

          test "the umask does not open it" {
              withPath (fun path ->
                  let before = umask 0

                  try
                      use _ = ControlSocket.Open path
                      Expect.equal (FileChecks.Octal(File.GetUnixFileMode path)) "0600" "mode"
                  finally
                      umask before |> ignore)
          }

          test "the socket of a dead server is replaced" {
              withPath (fun path ->
                  leaveDead path
                  Expect.isTrue (File.Exists path) "left behind"
                  use _ = ControlSocket.Open path
                  use peer = connect path
                  Expect.isTrue peer.Connected "the new one listens")
          }

          test "the socket of a server that runs is not touched" {
              withPath (fun path ->
                  use _ = ControlSocket.Open path

                  let refused =
                      Expect.throwsC (fun () -> ControlSocket.Open path |> ignore) (fun error -> error)

                  Expect.isTrue (refused :? ConfigurationException) "one line for the operator"
                  Expect.stringContains refused.Message "a server that runs" ""
                  use peer = connect path
                  Expect.isTrue peer.Connected "it still listens")
          }

          test "a server whose backlog is full runs all the same" {
              withPath (fun path ->
                  use full =
                      new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)

                  full.Bind(UnixDomainSocketEndPoint path)
                  full.Listen 0

                  let peers =
                      [ for _ in 1..4 do
                            let peer =
                                new Socket(
                                    AddressFamily.Unix,
                                    SocketType.Stream,
                                    ProtocolType.Unspecified,
                                    Blocking = false
                                )

                            try
                                peer.Connect(UnixDomainSocketEndPoint path)
                            with :? SocketException ->
                                ()

                            peer ]

                  Expect.throwsT<ConfigurationException> (fun () -> ControlSocket.Open path |> ignore) "refused"
                  peers |> List.iter _.Dispose())
          }

          for what, make in
              [ "a file", (fun path -> File.WriteAllText(path, "mine"))
                "a directory", (fun path -> Directory.CreateDirectory path |> ignore)
                "a link to a socket", (fun path -> File.CreateSymbolicLink(path, "elsewhere") |> ignore) ] do
              test $"{what} in its place stays, and is named" {
                  withPath (fun path ->
                      make path

                      let refused =
                          Expect.throwsC (fun () -> ControlSocket.Open path |> ignore) (fun error -> error)

                      Expect.isTrue (refused :? ConfigurationException) "one line for the operator"
                      Expect.stringContains refused.Message path "it names the path"
                      Expect.stringContains refused.Message "not a socket" "and what is wrong"
                      Expect.isTrue (Path.Exists path || not (isNull (FileInfo(path).LinkTarget))) "it stays")
              }

          test "what somebody else has put in its place stays at the end" {
              withPath (fun path ->
                  using (ControlSocket.Open path) (fun _ ->
                      File.Delete path
                      File.WriteAllText(path, "mine"))

                  Expect.equal (File.ReadAllText path) "mine" "a file"
                  File.Delete path

                  using (ControlSocket.Open path) (fun _ ->
                      File.Move(path, path + ".old")
                      leaveDead path)

                  Expect.isTrue (File.Exists path) "another one's socket")
          }

          test "a directory that others may write to is refused, and nothing is left in it" {
              withFolder (fun folder ->
                  let directory = Directory.CreateDirectory(Path.Combine(folder, "open")).FullName
                  File.SetUnixFileMode(directory, enum<UnixFileMode> 0o777)
                  let path = Path.Combine(directory, "control.sock")

                  let refused =
                      Expect.throwsC (fun () -> ControlSocket.Open path |> ignore) (fun error -> error)

                  Expect.stringContains refused.Message "chmod go-w" "the remedy"
                  Expect.isEmpty (Directory.GetFileSystemEntries directory) "nothing is left")
          }

          test "a directory that is missing is made; one whose parent is missing, too, is named" {
              withFolder (fun folder ->
                  let path = Path.Combine(folder, "run", "control.sock")
                  using (ControlSocket.Open path) (fun _ -> Expect.isTrue (File.Exists path) "made")
                  let deep = Path.Combine(folder, "no", "run", "control.sock")

                  let refused =
                      Expect.throwsC (fun () -> ControlSocket.Open deep |> ignore) (fun error -> error)

                  Expect.stringContains refused.Message (Path.Combine(folder, "no")) "named")
          }

          test "of servers that start at the same time one gets the socket of a dead one" {
              withPath (fun path ->
                  for _ in 1..20 do
                      leaveDead path

                      let attempts =
                          [| for _ in 1..4 ->
                                 Task.Run(fun () ->
                                     try
                                         ControlSocket.Open path |> Some
                                     with :? ConfigurationException ->
                                         None) |]

                      Task.WaitAll(Array.map (fun task -> task :> Task) attempts)
                      let winners = attempts |> Array.choose _.Result
                      Expect.hasLength winners 1 "one"
                      use peer = connect path
                      Expect.isTrue peer.Connected "and it can be reached"
                      winners |> Array.iter (fun winner -> (winner :> IDisposable).Dispose()))
          } ]

let private peers =
    testList
        "Peers"
        [ for request in
              [ "nonsense"
                ""
                "[]"
                "{}"
                "{\"command\":7}"
                "{\"command\":null}"
                "{\"command\":\"\\ud800\"}"
                String('[', 4000)
                "{\"command\":\"status\"" ] do
              test $"a request that is not one is refused: {request.Substring(0, min 30 request.Length)}" {
                  withSite (fun _ controlled _ ->
                      Expect.stringContains (refusalOf (controlled.Ask request)) "a request is a JSON object" "")
              }

          test "a command that nobody knows, and one that lacks something, is refused by name" {
              withSite (fun _ controlled _ ->
                  expectAll (refusalOf (controlled.Ask """{"command":"stop"}""")) [ "status"; "drain" ]
                  expectAll (refusalOf (controlled.Ask """{"command":"kick"}""")) [ "target" ]

                  for deadline in [ "-1"; "1.5"; "\"5m\""; "1e300"; "99999999999999999" ] do
                      let request = $"{{\"command\":\"drain\",\"deadline_ms\":{deadline}}}"
                      expectAll (refusalOf (controlled.Ask request)) [ "deadline_ms" ])
          }

          test "a line that is too long is refused, however long it is" {
              withSite (fun site controlled path ->
                  use peer = connect path
                  let block = Array.create 65536 (byte 'x')

                  try
                      for _ in 1..100 do
                          peer.Send block |> ignore
                  with :? SocketException ->
                      () // it does not read on

                  Expect.stringContains (readAll peer) "at most 4096 bytes" "the reason"
                  Expect.hasLength (controlled.Ask """{"command":"sessions"}""") 1 "others are served"
                  ignore site)
          }

          test "a peer that does not finish its request is let go after five seconds" {
              withSite (fun _ _ path ->
                  use peer = connect path
                  let clock = Stopwatch.StartNew()
                  use stop = new CancellationTokenSource()

                  let writing =
                      Task.Run(fun () ->
                          try
                              for letter in "{\"command\":\"sessions\"}" do
                                  if not stop.IsCancellationRequested then
                                      peer.Send [| byte letter |] |> ignore
                                      Thread.Sleep 500
                          with :? SocketException ->
                              ())

                  Expect.equal (readAll peer) "" "no answer"
                  stop.Cancel()
                  writing.Wait()
                  // Five seconds after its last letter it would be later than that.
                  Expect.isLessThan clock.Elapsed.TotalSeconds 14.0 "let go"
                  Expect.isGreaterThan clock.Elapsed.TotalSeconds 4.0 "not at once")
          }

          test "a thousand connections that say nothing: those beyond the limit are told, and later ones are served" {
              withSite (fun _ controlled path ->
                  let isServed () =
                      match controlled.Ask """{"command":"sessions"}""" with
                      | [| line |] -> line.Contains "\"ok\":true"
                      | _ -> false

                  let isRefused (peer: Socket) =
                      peer.Poll(TimeSpan.FromMilliseconds 100., SelectMode.SelectRead)
                      && (readAll peer).Contains "commands are being served"

                  // After five seconds the first ones are let go, and others take their places: all must have come by
                  // then, which a busy machine may miss, but not each time.
                  let rec refused (left: int) : int =
                      let clock = Stopwatch.StartNew()
                      let peers = [ for _ in 1..1000 -> connect path ]
                      (List.last peers).Poll(TimeSpan.FromSeconds 5., SelectMode.SelectRead) |> ignore
                      let isInTime = clock.Elapsed.TotalSeconds < 4.5

                      let count =
                          peers |> List.filter (fun peer -> isInTime && isRefused peer) |> List.length

                      peers |> List.iter _.Dispose()
                      Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isServed) "served"
                      if isInTime || left = 0 then count else refused (left - 1)

                  Expect.equal (refused 9) (1000 - 32) "told at once")
          } ]

let private sessions =
    testList
        "Commands"
        [ test "250 sessions are listed, each once, in slices that hold packets up for milliseconds only" {
              withSite (fun site controlled _ ->
                  let guests =
                      [ for number in 0..249 -> join site number (if number % 2 = 0 then "me" else "you") ]

                  use linkedUp = new Guest(site, at "203.0.113.1" 4000, null)
                  linkedUp.Reach ConnectionState.LinkUp
                  site.Advance 3_000L
                  let lines = controlled.Ask """{"command":"sessions"}"""
                  Expect.hasLength lines 251 "all of them, and the end"
                  Expect.stringContains lines[250] "\"sessions\":250" "the number"

                  let shown =
                      [ for line in Array.take 250 lines -> ControlText.Read<SessionLine> line ]

                  let ids = shown |> List.map _.Session |> Set

                  Expect.equal
                      ids
                      (Set [ for guest in guests -> string guest.Connection.SessionId ])
                      "the ids that the clients have"

                  let first = shown |> List.find (fun line -> line.Peer = "198.51.0.1:4000")
                  Expect.equal (first.User, first.Inside, first.Transport) ("me", "10.125.0.1", "udp") ""
                  Expect.isGreaterThanOrEqual first.IdleMs 3_000L "idle"
                  Expect.stringContains first.Cipher "TLS" "suite"
                  let since = DateTimeOffset.Parse first.Since
                  Expect.isLessThan (abs (DateTimeOffset.UtcNow - since).TotalSeconds) 60.0 "since"

                  // A busy machine may hold the thread up, but not each time.
                  let rec longest (left: int) : float =
                      if controlled.LongestMs < 100.0 || left = 0 then
                          controlled.LongestMs
                      else
                          controlled.LongestMs <- 0.0
                          controlled.Ask """{"command":"sessions"}""" |> ignore
                          longest (left - 1)

                  Expect.isLessThan (longest 9) 100.0 "ms of the worker at once"
                  guests |> List.iter (fun guest -> (guest :> IDisposable).Dispose()))
          }

          test "kick ends the session with an id, tells its client, and counts it" {
              withSite (fun site controlled _ ->
                  use one = join site 1 "me"
                  use two = join site 2 "me"
                  let id = one.Connection.SessionId
                  let answer = controlled.Ask $"{{\"command\":\"kick\",\"target\":\"{id}\"}}"
                  Expect.stringContains (Array.exactlyOne answer) "\"kicked\":1" "how many"
                  one.Receive()
                  Expect.equal one.End.Closed (ValueSome TunnelError.Goodbye) "its client knows"
                  Expect.equal site.Counters[Counter.ConnKicked] 1L "counted"
                  Expect.hasLength (controlled.Ask """{"command":"sessions"}""") 2 "the other one goes on"
                  Expect.equal two.End.Closed ValueNone "unharmed"

                  Expect.contains
                      (List.ofSeq site.Log)
                      $"session {id}: closed, 198.51.0.2:4000: ended by the operator (kick)"
                      "a line of the log")
          }

          test "kick ends all sessions of a user, and nobody else's; one that does not exist is none" {
              withSite (fun site controlled _ ->
                  let guests =
                      [ for number in 0..149 -> join site number (if number < 140 then "me" else "you") ]

                  let kick (target: string) =
                      controlled.Ask(JsonSerializer.Serialize {| command = "kick"; target = target |})
                      |> Array.exactlyOne

                  for nobody in [ "m"; "ME"; "0000000000000000"; "ffffffffffffffff"; "\u0000"; String('x', 3000) ] do
                      Expect.stringContains (kick nobody) "\"kicked\":0" "nobody"

                  Expect.stringContains (kick "me") "\"kicked\":140" "all of them"
                  Expect.stringContains (kick "me") "\"kicked\":0" "once"
                  Expect.hasLength (controlled.Ask """{"command":"sessions"}""") 11 "the other user's go on"
                  Expect.equal site.Counters[Counter.ConnKicked] 140L "counted"
                  guests |> List.iter (fun guest -> (guest :> IDisposable).Dispose()))
          }

          test "reload says what is wrong, and whether all is well" {
              withPath (fun path ->
                  use site = new Site()
                  let mutable problem = "user_db: \"/etc/users\" does not exist"
                  use controlled = new Controlled(site, path, fun () -> problem)
                  let request = """{"command":"reload"}"""
                  Expect.equal (refusalOf (controlled.Ask request)) problem "the reason"
                  problem <- null
                  Expect.stringContains (Array.exactlyOne (controlled.Ask request)) "\"ok\":true" "done")
          } ]

let private drain =
    let begin' (controlled: Controlled) (deadlineMs: int) =
        let answer =
            controlled.Ask $"{{\"command\":\"drain\",\"deadline_ms\":{deadlineMs}}}"

        Expect.stringContains (Array.exactlyOne answer) "\"ok\":true" "begun"

    let isDrained (site: Site) =
        site.Log |> Seq.exists (fun line -> line.StartsWith "drained: ")

    testList
        "Drain"
        [ test "a new client is told after its handshake, and its password is not even checked" {
              withSite (fun site controlled _ ->
                  use old = join site 1 "me"
                  let checks = site.Counters[Counter.AuthChecks]
                  begin' controlled 60_000
                  use late = new Guest(site, at "203.0.113.7" 4000, "me", "secret")
                  late.Connection.Start late.End.Now

                  let isTold () =
                      late.Pump()
                      site.RunPosted()
                      late.Receive()
                      late.End.Closed = ValueSome TunnelError.Goodbye

                  Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isTold) "at once"
                  Expect.equal site.Counters[Counter.ConnRefusedDraining] 1L "counted"

                  let isChecked () =
                      site.RunPosted()
                      site.Counters[Counter.AuthChecks] > checks

                  Expect.isFalse (Wait.until (TimeSpan.FromMilliseconds 500.) isChecked) "no check"
                  Expect.isFalse (isDrained site) "the old session goes on"
                  let sent = site.Wire.Calls
                  site.Dispatch(old.From, old.Ping())
                  Expect.equal (site.Wire.Calls - sent) 1 "and is answered"
                  Expect.isTrue site.Shared.Draining.HasBegun "not ready")
          }

          test "a client that starts again is a new session; that which it had goes on" {
              withSite (fun site controlled _ ->
                  use old = join site 1 "me"
                  begin' controlled 60_000
                  use again = new Guest(site, old.From, "me", "secret")
                  again.Connection.Start again.End.Now

                  let isTold () =
                      again.Pump()
                      site.RunPosted()
                      again.Receive()
                      again.End.Closed = ValueSome TunnelError.Goodbye

                  Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isTold) "refused"
                  Expect.equal site.Counters[Counter.ConnRefusedDraining] 1L "counted"
                  Expect.hasLength (controlled.Ask """{"command":"sessions"}""") 2 "the old one")
          }

          test "a handshake that had begun before the drain is completed, and its client gets in" {
              withSite (fun site controlled _ ->
                  use early = new Guest(site, at "203.0.113.7" 4000, "me", "secret")
                  early.Connection.Start early.End.Now

                  while site.Counters[Counter.ConnCreated] = 0L do
                      for datagram in early.Take() do
                          site.Dispatch(early.From, datagram)

                      if site.Counters[Counter.ConnCreated] = 0L then
                          early.Receive()

                  begin' controlled 60_000
                  site.Advance 1_100L
                  Expect.isFalse (isDrained site) "it is waited for"

                  let isOnline () =
                      site.RunPosted()
                      early.Pump()
                      early.Connection.State = ConnectionState.Online

                  Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isOnline) "in")
          }

          test "the server ends at the tick after the last session has gone, whoever still knocks" {
              withSite (fun site controlled _ ->
                  use last = join site 1 "me"
                  begin' controlled 60_000
                  site.Advance 1_100L
                  Expect.isFalse (isDrained site) "one is left"
                  use knocking = new Guest(site, at "203.0.113.7" 4000, null)
                  knocking.Connection.Start knocking.End.Now

                  for datagram in knocking.Take() do
                      site.Dispatch(knocking.From, datagram)

                  knocking.Receive()

                  for datagram in knocking.Take() do
                      site.Dispatch(knocking.From, datagram)

                  Expect.equal site.Counters[Counter.ConnRefusedDraining] 1L "somebody knocks"
                  last.Connection.Disconnect()

                  for datagram in last.Take() do
                      site.Dispatch(last.From, datagram)

                  site.Advance 1_100L
                  Expect.contains (List.ofSeq site.Log) "drained: 0 sessions are left, and the server ends" "ended")
          }

          test "the deadline ends it; a later drain may move the deadline" {
              withSite (fun site controlled _ ->
                  use _ = join site 1 "me"
                  begin' controlled 3_600_000
                  site.Advance 1_100L
                  Expect.isFalse (isDrained site) "not yet"
                  begin' controlled 5_000
                  site.Advance 4_900L
                  Expect.isFalse (isDrained site) "sooner than before, but not yet"
                  site.Advance 100L
                  Expect.contains (List.ofSeq site.Log) "drained: 1 sessions are left, and the server ends" "ended")
          } ]

let private texts =
    testList
        "Texts"
        [ test "columns are aligned, and the last one is not padded" {
              Expect.equal
                  (ControlText.Columns [| [| "a"; "bb"; "c" |]; [| "aaa"; "b"; "ccc" |] |])
                  "a    bb  c\naaa  b   ccc\n"
                  ""
          }

          test "durations and sizes have the units that people read" {
              let durations =
                  [ 0L; 999L; 59_999L; 60_000L; 3_599_000L; 3_600_000L; 90_000_000L ] |> List.map ControlText.Duration

              Expect.equal durations [ "0s"; "0s"; "59s"; "1m 0s"; "59m 59s"; "1h 0m"; "1d 1h" ] ""

              let sizes =
                  [ 0L; 1023L; 1024L; 1_610_612_736L; Int64.MaxValue ] |> List.map ControlText.Bytes

              Expect.equal sizes [ "0 B"; "1023 B"; "1.0 KiB"; "1.5 GiB"; "8.0 EiB" ] ""
          }

          test "a user's name can't write to the operator's terminal" {
              let session =
                  SessionLine(
                      "0123456789abcdef",
                      "me\u001b[2J\n",
                      "192.0.2.1:1",
                      "10.0.0.1",
                      "-",
                      0L,
                      "udp",
                      "x",
                      1L,
                      2L
                  )

              let text = ControlText.Sessions [| session |]
              Expect.isFalse (text.Contains '\u001b') "no escape"
              Expect.hasLength (text.TrimEnd().Split '\n') 2 "a heading and a line"
          } ]

let private commandLine =
    let parse (argv: string list) =
        ServerOptions.Parse(Array.ofList argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

    testList
        "Command line"
        [ for name, command in
              [ "status", ControlCommand.Status
                "sessions", ControlCommand.Sessions
                "reload", ControlCommand.Reload
                "drain", ControlCommand.Drain ] do
              test $"{name} needs nothing, and takes a socket and --json" {
                  let plain = parse [ name ]
                  Expect.equal plain.Kind OutcomeKind.Control ""

                  Expect.equal
                      plain.Control
                      { Command = command
                        Socket = "/run/lightway-server/control.sock"
                        Json = false
                        Target = ""
                        Deadline = TimeSpan.FromMinutes 5L }
                      "defaults"

                  let given = (parse [ name; "--control-socket"; "/x"; "--json" ]).Control
                  Expect.equal (given.Socket, given.Json) ("/x", true) "given"
                  Expect.equal (parse [ name; "--help" ]).Kind OutcomeKind.Help "a page of its own"
                  expectAll (refusal (parse [ name; "--nonsense" ])) [ "--nonsense" ]
                  expectAll (refusal (parse [ name; "--control-socket"; "" ])) [ "control-socket" ]

                  expectAll
                      (refusal (parse [ name; "--control-socket=" + String('x', 108) ]))
                      [ "control-socket"; "107 bytes" ]
              }

          test "kick needs whom, and drain takes a deadline" {
              Expect.equal (parse [ "kick"; "me"; "--json" ]).Control.Target "me" ""
              expectAll (refusal (parse [ "kick" ])) [ "SESSION_OR_USER" ]
              expectAll (refusal (parse [ "kick"; "" ])) [ "target" ]
              expectAll (refusal (parse [ "kick"; "a\nb" ])) [ "target" ]
              Expect.equal (parse [ "drain"; "--deadline"; "90s" ]).Control.Deadline (TimeSpan.FromSeconds 90L) ""
              expectAll (refusal (parse [ "drain"; "--deadline"; "90" ])) [ "deadline"; "units" ]
          }

          test "control_socket is a path that a socket may have" {
              expectAll (refusal (OptionRuns.server [ "--control-socket"; String('ü', 54) ] [] least)) [ "107 bytes" ]
              Expect.isNull (run (OptionRuns.server [] [] least)).ControlSocket "off by default"
          } ]

let tests =
    testSequenced (testList "Control" [ file; peers; sessions; drain; texts; commandLine ])

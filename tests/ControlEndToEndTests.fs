/// The operator's commands against the server's program, with clients in namespaces of their own. Needs root.
module Lightway.Tests.ControlEndToEndTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.Json
open System.Threading.Tasks
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Server.Control
open Lightway.Tests.Checks

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [ "reconnect", "false" ] }

let private patience = TimeSpan.FromSeconds 60.

/// A server with a control socket, and its commands.
type private Site(topology: Topology, vpn: Vpn) =
    let path = Path.Combine(vpn.Folder, "control.sock")

    do vpn.SetServer [ "control_socket", path ]

    member _.Topology = topology
    member _.Vpn = vpn
    member _.Path = path

    /// Exit code, standard output and error of a command.
    member _.Run(arguments: string list) =
        let struct (code, output, error) =
            Shell.tryRun
                (Programs.OfThisBuild().Server)
                ([ List.head arguments; "--control-socket"; path ] @ List.tail arguments)

        code, output, error

    /// Output of a command that must succeed.
    member this.Output(arguments: string list) =
        let code, output, error = this.Run arguments
        Expect.equal (code, error) (0, "") $"%A{arguments}"
        output

    member this.Sessions =
        [ for line in (this.Output [ "sessions"; "--json" ]).Split('\n', StringSplitOptions.RemoveEmptyEntries) do
              match ControlText.Read<SessionLine> line with
              | session when not (isNull session.Session) -> session
              | _ -> () ]

    member this.Status = ControlText.Read<StatusAnswer>(this.Output [ "status"; "--json" ])

    member this.Counter(name: string) = vpn.Read().Counters[name]

    /// Starts the server, and waits until it takes commands, a moment after it serves.
    member _.StartServer() =
        vpn.StartServer()

        let isListening () =
            use socket =
                new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)

            try
                socket.Connect(UnixDomainSocketEndPoint path)
                true
            with :? SocketException ->
                false

        vpn.Server.Await patience "it takes commands" isListening

let private withSite (keys: (string * string) list) (body: Site -> unit) =
    needsRoot ()
    use topology = Topology.Create()

    use vpn =
        new Vpn(topology, Programs.OfThisBuild(), { settings with ServerKeys = keys })

    let site = Site(topology, vpn)
    site.StartServer()
    body site

/// Of a RawClient: none that the kernel may have given to the client's own socket (ip_local_port_range).
let private port = 20_000

let private ends (child: Child) =
    Expect.isTrue (child.WaitForExit patience) $"{child.Name} has ended"
    child.ExitCode

let private remote (site: Site) =
    { Netns = site.Topology.RemoteHost
      Address = Topology.Remote }

let tests =
    testSequenced (
        testList
            "Control, end to end"
            [ test "status and sessions show what the server does, for people and for scripts" {
                  withSite [ "workers", "2" ] (fun site ->
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()

                      Transfer.download (remote site) site.Topology.Client (megabytes 5L) |> ignore
                      let isCounted () = site.Status.Sessions = 1
                      Expect.isTrue (Wait.until patience isCounted) "one session"
                      let status = site.Status
                      Expect.equal status.Mode "udp" "mode"
                      Expect.equal status.Address $"{Topology.ServerOutside}:27690" "address"
                      Expect.equal (status.Device, status.Mtu) (site.Vpn.Device, 1350) "device"
                      Expect.equal status.Workers.Count 2 "workers"
                      Expect.equal (status.Workers |> Seq.sumBy _.Sessions) 1 "their sessions"
                      Expect.isTrue (status.Offload.TunTso && status.Offload.UdpGsoSegments > 1) "offload"
                      Expect.isFalse status.IsDraining "not draining"
                      Expect.equal status.Pid site.Vpn.Server.Pid "its process"
                      Expect.isGreaterThan status.Totals["tun_to_client"] (megabytes 5L) "bytes"
                      Expect.equal status.AddressesAssigned 1 "addresses"
                      let session = List.exactlyOne site.Sessions
                      Expect.equal session.User site.Vpn.User "user"
                      Expect.stringStarts session.Peer Topology.ClientOutside "peer"
                      Expect.stringStarts session.Inside "10.125." "inside address"
                      let page = site.Output [ "status" ]

                      for line in
                          [ "serving       udp 192.0.2.1:27690"
                            "device        lightway, MTU 1350"
                            "draining      no"
                            "sessions      1, of 1 connections" ] do
                          Expect.stringContains page line "the page"

                      let rows = (site.Output [ "sessions" ]).TrimEnd().Split '\n'
                      Expect.hasLength rows 2 "a heading and a line"
                      Expect.equal (rows[0].IndexOf "USER") (rows[1].IndexOf site.Vpn.User) "a column")
              }

              test "a worker that works has a load" {
                  withSite [ "workers", "1" ] (fun site ->
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()

                      let transfer =
                          Task.Run(fun () ->
                              Transfer.pacedDownload (remote site) site.Topology.Client (megabytes 400L) 60_000_000u)

                      let isBusy () = site.Status.Workers[0].Load > 0.02
                      Expect.isTrue (Wait.until patience isBusy) "busy"
                      expectIntact transfer.Result (megabytes 400L)
                      let isIdle () = site.Status.Workers[0].Load < 0.02
                      Expect.isTrue (Wait.until patience isIdle) "idle")
              }

              test "a client that is kicked gets a Goodbye and ends" {
                  withSite [] (fun site ->
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()
                      let session = List.exactlyOne site.Sessions
                      Expect.equal (site.Output [ "kick"; "nobody" ]) "0 sessions were ended\n" "nobody"
                      Expect.equal (site.Output [ "kick"; session.Session ]) "1 session was ended\n" "one"
                      Expect.equal (ends site.Vpn.Client) 1 "the client's exit code"
                      site.Vpn.Client.AwaitLog "Goodbye" "its reason"
                      Expect.equal (site.Counter "conn_kicked") 1L "counted"
                      Expect.isEmpty site.Sessions "gone"
                      use first = new RawClient(site.Topology.Client, port, site.Vpn)
                      use second = new RawClient(site.Topology.Client, port + 1, site.Vpn)
                      Expect.isTrue (first.Connect() && second.Connect()) "two more"
                      Expect.equal (site.Output [ "kick"; site.Vpn.User ]) "2 sessions were ended\n" "of a user")
              }

              test "a drain lets a running download complete, refuses new clients at once, and ends with code 0" {
                  withSite [ "mode", "both"; "workers", "2" ] (fun site ->
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()

                      let transfer =
                          Task.Run(fun () ->
                              Transfer.pacedDownload (remote site) site.Topology.Client (megabytes 40L) 8_000_000u)

                      Expect.stringContains (site.Output [ "drain"; "--deadline"; "2m" ]) "within 2m 0s" "the answer"
                      Expect.isTrue site.Status.IsDraining "status says so"

                      // Over UDP: told after the handshake. Over TCP: nobody listens.
                      use late = new RawClient(site.Topology.Client, port, site.Vpn)
                      late.Connection.Start Environment.TickCount64

                      let isRefused () =
                          late.Connection.State = ConnectionState.Disconnected

                      // Sooner than the ten seconds after which whoever does not log in is sent away.
                      Expect.isTrue (late.RunUntil(TimeSpan.FromSeconds 9., isRefused)) "UDP"

                      let dial () =
                          Netns.run site.Topology.Client (fun () ->
                              use socket =
                                  new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)

                              try
                                  socket.Connect(IPEndPoint(IPAddress.Parse Topology.ServerOutside, 27690))
                                  SocketError.Success
                              with :? SocketException as error ->
                                  error.SocketErrorCode)

                      let isClosed () = dial () = SocketError.ConnectionRefused
                      Expect.isTrue (Wait.until patience isClosed) "TCP"
                      Expect.isGreaterThanOrEqual (site.Counter "conn_refused_draining") 1L "counted"
                      expectIntact transfer.Result (megabytes 40L)
                      Expect.isFalse site.Vpn.Server.HasExited "the session goes on"
                      Expect.isTrue (site.Vpn.Client.Stop()) "the client leaves"
                      Expect.equal (ends site.Vpn.Server) 0 "the server's exit code"
                      site.Vpn.Server.AwaitLog "drained: 0 sessions are left" "and its line"
                      Expect.isFalse (File.Exists site.Path) "its socket is gone")
              }

              test "this project's client that is refused tries its next address within moments, and says why" {
                  withSite [] (fun site ->
                      use first = new RawClient(site.Topology.Client, port, site.Vpn)
                      Expect.isTrue (first.Connect()) "an old session keeps the server up"
                      site.Output [ "drain" ] |> ignore
                      site.Vpn.LaunchClient()
                      Expect.equal (ends site.Vpn.Client) 1 "exit code"
                      site.Vpn.Client.AwaitLog "Goodbye" "the reason"

                      // By its own log: the start of .NET is not in it.
                      let times =
                          [ for line in site.Vpn.Client.Log.Split '\n' do
                                match DateTimeOffset.TryParse((line.Split ' ')[0]) with
                                | true, time -> time
                                | _ -> () ]

                      Expect.isLessThan (List.last times - times.Head).TotalSeconds 8.0 "seconds")
              }

              test "the deadline of a drain ends the sessions that are left, with a Goodbye" {
                  withSite [] (fun site ->
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()
                      let clock = Stopwatch.StartNew()
                      site.Output [ "drain"; "--deadline"; "3s" ] |> ignore
                      Expect.equal (ends site.Vpn.Server) 0 "the server's exit code"
                      Expect.isGreaterThan clock.Elapsed.TotalSeconds 2.5 "not before"
                      Expect.equal (ends site.Vpn.Client) 1 "the client's"
                      site.Vpn.Client.AwaitLog "Goodbye" "it was told")
              }

              test "SIGTERM ends a server that drains at once" {
                  withSite [] (fun site ->
                      use client = new RawClient(site.Topology.Client, port, site.Vpn)
                      Expect.isTrue (client.Connect()) "a session"
                      site.Output [ "drain"; "--deadline"; "1h" ] |> ignore
                      Expect.isTrue (site.Vpn.Server.Stop()) "ended"
                      Expect.equal site.Vpn.Server.ExitCode 0 "exit code")
              }

              test "after kill -9 the next server takes the socket over; a second one next to it does not start" {
                  withSite [] (fun site ->
                      site.Vpn.Server.Signal Netns.Signal.Kill
                      Expect.isTrue (site.Vpn.Server.WaitForExit patience) "killed"
                      Expect.isTrue (File.Exists site.Path) "its socket is left behind"
                      let code, _, error = site.Run [ "status" ]
                      Expect.equal code 1 "nobody listens"
                      Expect.stringContains error "no server listens" "and that is said"
                      site.StartServer()
                      let running = site.Vpn.Server
                      Expect.equal site.Status.Pid running.Pid "the new one answers"

                      site.Vpn.SetServer [ "bind_address", $"\"{Topology.ServerOutside}:27691\""; "tun_name", "other" ]
                      site.Vpn.LaunchServer()
                      Expect.equal (ends site.Vpn.Server) 2 "the second one's exit code"
                      site.Vpn.Server.AwaitLog "the socket of a server that runs" "its reason"
                      Expect.equal site.Status.Pid running.Pid "the first one still answers"
                      Expect.isTrue (running.Stop()) "and ends"
                      Expect.isFalse (File.Exists site.Path) "with its socket")
              }

              test "another user cannot command the server, and wrong commands have code 2" {
                  withSite [] (fun site ->
                      for folder in [ site.Topology.Folder; site.Vpn.Folder ] do
                          Shell.run "chmod" [ "a+x"; folder ] |> ignore

                      let struct (code, _, error) =
                          Shell.tryRun
                              "setpriv"
                              [ "--reuid"
                                "65534"
                                "--clear-groups"
                                Programs.OfThisBuild().Server
                                "status"
                                "--control-socket"
                                site.Path ]

                      Expect.equal code 1 "another user"
                      Expect.stringContains error "permission denied" "and that is said"
                      let code, _, _ = site.Run [ "reload" ]
                      Expect.equal code 0 "reload"
                      let code, output, _ = site.Run [ "reload"; "--json" ]
                      Expect.equal code 0 "the same for scripts"

                      Expect.isTrue
                          ((JsonDocument.Parse output).RootElement.GetProperty("ok").GetBoolean())
                          "the answer as it came"

                      let code, _, _ = site.Run [ "status"; "--nonsense" ]
                      Expect.equal code 2 "usage"

                      let struct (code, _, error) =
                          Shell.tryRun (Programs.OfThisBuild().Server) [ "status"; "--control-socket"; "/nowhere/x" ]

                      Expect.equal code 1 "no server"
                      Expect.stringContains error "control_socket: /nowhere/x" "the remedy")
              } ]
    )

/// The real client when its servers go away, come back, or were never there: it stays, and so do its device and routes.
module Lightway.Tests.ReconnectTests

open System
open System.Diagnostics
open System.IO
open System.Net.Sockets
open System.Text.Json
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

let private patience = TimeSpan.FromSeconds 60.

/// The timeout is longer than a busy machine holds a server up that is there.
let private settings keys : Settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [ "keepalive_interval", "500ms"; "keepalive_timeout", "5s" ] @ keys }

let private withVpn keys (body: Topology -> Vpn -> unit) =
    needsRoot ()
    use topology = Topology.Create()
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings keys)
    body topology vpn

/// Index of the client's device: it stays the same only if the device does.
let private deviceIndex (topology: Topology) (vpn: Vpn) =
    Shell.ip $"-n {topology.Client} -o link show dev {vpn.Device}" |> _.Split(':') |> Array.head

/// The last line of the client's log.
let private lastLine (client: Child) =
    client.Log.TrimEnd().Split('\n') |> Array.last

let private ends (client: Child) code (parts: string list) =
    Expect.isTrue (client.WaitForExit patience) "it ends"
    Expect.equal client.ExitCode code "exit code"

    for part in parts do
        Expect.stringContains (lastLine client) part "the last line"

let private carriesPing (topology: Topology) =
    Transfer.ping topology.Client Topology.Remote 1 56 = 1

/// Takes the password out of the client's file.
let private withoutPassword (vpn: Vpn) =
    let file = Path.Combine(vpn.Folder, "client.yaml")

    File.WriteAllLines(file, File.ReadAllLines file |> Array.filter (fun line -> not (line.StartsWith "password:")))

let private count (client: Child) (text: string) =
    client.Log.Split('\n') |> Array.filter _.Contains(text) |> Array.length

let private losses =
    testList
        "losses"
        [ test
              "the server is killed for 20 s: the client is back by itself, over UDP and TCP, with the device and the routes it had; meanwhile nothing leaves in the clear" {
              let keys = [ "route_mode", "default" ]

              withSite (settings (keys @ [ "kill_switch", "true"; "mode", "udp" ])) (fun overUdp ->
                  withSite (settings (keys @ [ "mode", "tcp" ])) (fun overTcp ->
                      let sites = [ overUdp, Uplink overUdp; overTcp, Uplink overTcp ]

                      let before =
                          [ for site, uplink in sites do
                                site.Vpn.SetServer [ "mode", "both" ]
                                site.Vpn.StartServer()
                                speak site Topology.Remote
                                await "what is in the clear is seen on the uplink" (fun () -> uplink.Remote > 2L)
                                site.Vpn.LaunchClient()
                                site.AwaitOnline site.Vpn.Client
                                Expect.stringContains site.ServerRoute $"via {site.Gateway}" "the way to the server"
                                deviceIndex site.Topology site.Vpn, site.Routes, uplink.Remote, uplink.Other ]

                      for site, _ in sites do
                          site.Vpn.Server.Signal Netns.Signal.Kill
                          Expect.isTrue (site.Vpn.Server.WaitForExit patience) "the server is dead"

                      let clock = Stopwatch.StartNew()

                      while clock.Elapsed < TimeSpan.FromSeconds 20. do
                          for site, _ in sites do
                              speak site Topology.Remote

                          Thread.Sleep 200

                      for site, _ in sites do
                          site.Vpn.StartServer()

                      for (site, uplink), (device, routes, remote, other) in List.zip sites before do
                          // After 20 s the wait is 12 s on average, and 32 s at most; the next one 60 s.
                          site.Vpn.Client.Await (TimeSpan.FromSeconds 120.) "it is back" (fun () -> site.CarriesPing)
                          Expect.equal uplink.Remote remote "no packet to the remote in the clear"
                          Expect.equal uplink.Other other "nor any other packet of IPv4"
                          Expect.equal (deviceIndex site.Topology site.Vpn) device "the same device"
                          expectRoutes site routes
                          let connections () = count site.Vpn.Client "online: "
                          Wait.until patience (fun () -> connections () >= 2) |> ignore
                          Expect.equal (connections ()) 2 "two connections"
                          Expect.isGreaterThanOrEqual (count site.Vpn.Client "trying again in") 2 "it said so"
                          let counters = (site.Vpn.ReadClients() |> Option.get |> List.head).Counters

                          Expect.isGreaterThan
                              counters["tun_rejected_packet_no_connection"]
                              0L
                              "packets were dropped meanwhile"

                          Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                          Expect.equal site.Vpn.Client.ExitCode 0 "exit code"))
          }

          test "the server is restarted in order: its goodbye makes the client try again at once" {
              withVpn [] (fun topology vpn ->
                  vpn.Start()
                  Expect.isTrue (vpn.Server.Stop()) "it stops"

                  vpn.Client.Await patience "it has heard" (fun () ->
                      vpn.Client.Log.Contains "(Goodbye): trying again")

                  vpn.StartServer()
                  vpn.Client.Await patience "it is back" (fun () -> carriesPing topology))
          }

          test "reconnect: false: the end of the connection is the end of the program" {
              withVpn [ "reconnect", "false" ] (fun _ vpn ->
                  vpn.Start()
                  Expect.isTrue (vpn.Server.Stop()) "it stops"
                  ends vpn.Client 1 [ "has ended the connection"; "(Goodbye)" ])
          }

          test "reconnect_attempts: the client ends after that many failed rounds in a row" {
              withVpn [ "reconnect_attempts", "1"; "mode", "tcp" ] (fun _ vpn ->
                  vpn.SetServer [ "mode", "both" ]
                  vpn.Start()
                  Expect.isTrue (vpn.Server.Stop()) "it stops"
                  ends vpn.Client 1 [ "no TCP connection"; "(ConnectionLost)" ]
                  Expect.equal (count vpn.Client "trying again in") 1 "one wait")
          }

          test "a login that is refused later ends the client" {
              withVpn [] (fun _ vpn ->
                  vpn.Start()
                  Expect.isTrue (vpn.Server.Stop()) "it stops"
                  let users = Path.Combine(vpn.Folder, "users.htpasswd")
                  File.WriteAllText(users, File.ReadAllText(users).Replace(vpn.User, "somebody-else"))
                  vpn.StartServer()
                  ends vpn.Client 3 [ "user: "; vpn.User; "(Unauthorized)" ])
          }

          test
              "mode default: the tunnel's routes stay, and the route to the server too, so that connecting does not lead into it" {
              withVpn [ "route_mode", "default" ] (fun topology vpn ->
                  let gateway = Topology.ServerOutside
                  Shell.ip $"-n {topology.Client} route add default via {gateway}" |> ignore
                  vpn.StartServer()
                  vpn.LaunchClient()

                  let isThere () = carriesPing topology

                  vpn.Client.Await patience "it is online" isThere
                  let routes = Shell.ip $"-n {topology.Client} route show"
                  Expect.stringContains routes "0.0.0.0/1" "routes"
                  vpn.Server.Signal Netns.Signal.Kill

                  vpn.Client.Await patience "it has noticed" (fun () ->
                      vpn.Client.Log.Contains "(TimedOut): trying again")

                  Expect.equal (Shell.ip $"-n {topology.Client} route show") routes "they stay"
                  vpn.StartServer()
                  vpn.Client.Await patience "it is back" isThere

                  Wait.until patience (fun () -> Shell.ip $"-n {topology.Client} route show" = routes) |> ignore
                  Expect.equal (Shell.ip $"-n {topology.Client} route show") routes "as before"
                  Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"

                  Expect.isFalse
                      ((Shell.ip $"-n {topology.Client} route show").Contains "0.0.0.0/1")
                      "none is left behind")
          } ]

/// Adds a list of servers to the client's file; the keys of the file serve what the entries do not say.
let private setServers (vpn: Vpn) (entries: (string * string) list list) =
    let file = Path.Combine(vpn.Folder, "client.yaml")

    let lines =
        [ "servers:"
          for entry in entries do
              for i, (key, value) in List.indexed entry do
                  (if i = 0 then "  - " else "    ") + $"{key}: {value}" ]

    File.AppendAllLines(file, lines)

/// Seconds from the client's first line, when it has loaded its library, to the one that says that it is online.
let private timeToOnline (vpn: Vpn) =
    vpn.LaunchClient()
    vpn.Client.Await patience "it is online" (fun () -> vpn.Client.Log.Contains "online: ")

    let timeOf (text: string) =
        vpn.Client.Log.Split('\n')
        |> Array.find _.Contains(text)
        |> fun line -> DateTimeOffset.Parse(line.Split(' ')[0])

    (timeOf "online: " - timeOf "wolfSSL").TotalSeconds

let private servers =
    testList
        "servers"
        [ test "servers that are dead, refuse the login or the connection, and a good one: online in less than 2 s" {
              withVpn [] (fun topology vpn ->
                  // The first one is a host that swallows everything.
                  Shell.ip $"-n {topology.Client} route add 192.0.2.77/32 dev lo" |> ignore
                  vpn.SetServer [ "mode", "both" ]
                  vpn.StartServer()

                  setServers
                      vpn
                      [ [ "server", "\"192.0.2.77:27690\"" ]
                        [ "server", $"\"{Topology.ServerOutside}:27690\""; "user", vpn.User; "password", "wrong" ]
                        [ "server", $"\"{Topology.ServerOutside}:9\""; "mode", "tcp" ]
                        [ "server", $"\"{Topology.ServerOutside}:27690\""; "mode", "tcp" ] ]

                  // A machine that is busy with other tests may hold starts up, but not each of them.
                  let rec start (earlier: float list) =
                      let seconds = timeToOnline vpn

                      if seconds >= 2. && earlier.Length < 9 then
                          Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"

                          // Each refusal makes a server look at the next login later: a new one has seen none.
                          Expect.isTrue (vpn.Server.Stop()) "it stops"
                          vpn.StartServer()
                          start (seconds :: earlier)
                      else
                          Expect.isLessThan seconds 2. $"seconds; before it was %A{earlier}"

                  start []

                  vpn.Client.AwaitLog "192.0.2.1:9 gives no connection (ConnectionLost" "the third"
                  Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"
                  Expect.equal vpn.Client.ExitCode 0 "exit code")
          }

          test "no server can be used: the last line has the reason of each" {
              withVpn [] (fun _ vpn ->
                  vpn.SetServer [ "mode", "both" ]
                  vpn.StartServer()

                  setServers
                      vpn
                      [ [ "server", $"\"{Topology.ServerOutside}:27690\""; "server_dn", "other.example.com" ]
                        [ "server", $"\"{Topology.ServerOutside}:9\""; "mode", "tcp" ]
                        [ "server", "nowhere.invalid:27690" ] ]

                  vpn.LaunchClient()
                  ends vpn.Client 1 [ "none of 3"; "1. server_dn"; "2. server: no TCP"; "3. "; "nowhere.invalid" ])
          }

          test "with an interval the preferred server wins, though another one is online before it" {
              withVpn [ "preferred_connection_wait_interval", "10s" ] (fun topology vpn ->
                  vpn.SetServer [ "mode", "both"; "bind_address", "\"0.0.0.0:27690\"" ]
                  vpn.StartServer()

                  setServers
                      vpn
                      [ [ "server", "\"192.0.2.9:27690\"" ]
                        [ "server", $"\"{Topology.ServerOutside}:27690\""; "mode", "tcp" ] ]

                  // The first one's datagrams are repeated for six seconds, for which a busy machine may be too late.
                  let rec start (left: int) =
                      let before = vpn.Read()
                      let clock = Stopwatch.StartNew()
                      vpn.LaunchClient()

                      // The second one has logged in by now; the first one's address appears only then.
                      vpn.Server.Await patience "the second is online" (fun () ->
                          vpn.Read().Since before "conn_online" = 1L)

                      let waits = not (vpn.Client.Log.Contains "online: ")
                      Shell.ip $"-n {topology.Server} addr add 192.0.2.9/24 dev outside" |> ignore
                      let isInTime = clock.Elapsed.TotalSeconds < 5.

                      if isInTime || left = 0 then
                          Expect.isTrue waits "it waits"
                          vpn.Client.Await patience "one of them" (fun () -> vpn.Client.Log.Contains "online: ")
                          vpn.Client.AwaitLog "online: 192.0.2.9:27690" "the first"

                          vpn.Server.Await patience "the second hears a goodbye" (fun () ->
                              vpn.Read().Since before "conn_client_closed" = 1L)

                          Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"
                      else
                          Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"
                          Expect.isTrue (vpn.Server.Stop()) "it stops"
                          Shell.ip $"-n {topology.Server} addr del 192.0.2.9/24 dev outside" |> ignore
                          vpn.StartServer()
                          start (left - 1)

                  start 9)
          }

          test "when the server in use is lost, another one takes over, and the route to the server follows" {
              withVpn [ "route_mode", "default" ] (fun topology vpn ->
                  let gateway = "192.0.2.254"

                  for address in [ gateway; "192.0.2.9" ] do
                      Shell.ip $"-n {topology.Server} addr add {address}/24 dev outside" |> ignore

                  Shell.ip $"-n {topology.Client} addr flush dev outside" |> ignore
                  Shell.ip $"-n {topology.Client} addr add {Topology.ClientOutside}/32 dev outside" |> ignore
                  Shell.ip $"-n {topology.Client} route add {gateway} dev outside" |> ignore
                  Shell.ip $"-n {topology.Client} route add default via {gateway}" |> ignore
                  vpn.SetServer [ "mode", "both"; "bind_address", "\"0.0.0.0:27690\"" ]
                  vpn.StartServer()

                  setServers
                      vpn
                      [ [ "server", "\"192.0.2.9:27690\"" ]
                        [ "server", $"\"{Topology.ServerOutside}:27690\""; "mode", "tcp" ] ]

                  vpn.SetClient [ "preferred_connection_wait_interval", "10s" ]
                  vpn.LaunchClient()

                  let routeTo (address: string) =
                      Shell.ip $"-n {topology.Client} route show"
                      |> _.Split('\n')
                      |> Array.exists _.StartsWith($"{address} via {gateway}")

                  vpn.Client.Await patience "the first one" (fun () -> routeTo "192.0.2.9")
                  vpn.Client.AwaitLog "online: 192.0.2.9" "the preferred one"
                  Expect.isFalse (routeTo Topology.ServerOutside) "no route to the other one"
                  Shell.ip $"-n {topology.Server} addr del 192.0.2.9/24 dev outside" |> ignore

                  vpn.Client.Await patience "the other one" (fun () ->
                      vpn.Client.Log.Contains $"online: {Topology.ServerOutside}:27690")

                  vpn.Client.Await patience "its route, and no other one" (fun () ->
                      routeTo Topology.ServerOutside && not (routeTo "192.0.2.9"))

                  vpn.Client.Await patience "the tunnel carries packets" (fun () -> carriesPing topology)

                  Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it")
          } ]

let private client = Programs.OfThisBuild().Client

let private status =
    testList
        "status"
        [ test "status tells how the client is, in words and as JSON; nobody else may ask" {
              needsRoot ()
              use topology = Topology.Create()
              let socket = Path.Combine(topology.Folder, "control.sock")

              use vpn =
                  new Vpn(topology, Programs.OfThisBuild(), settings [ "control_socket", socket ])

              vpn.Start()

              let ask arguments =
                  Shell.tryRun client ([ "status"; "--control-socket"; socket ] @ arguments)

              let mutable text = ""

              // As of the latest second: the Expresslane is there a moment after the login.
              vpn.Client.Await patience "it is online" (fun () ->
                  let struct (code, output, _) = ask []
                  text <- output
                  code = 0 && output.Contains "online" && output.Contains "Expresslane")

              for part in
                  [ $"{Topology.ServerOutside}:27690"; "udp"; "session"; "Expresslane"; "MTU"; "reconnects"; "GSO" ] do
                  Expect.stringContains text part "the page"

              // Nothing promises that the host has sent a packet of its own by now.
              vpn.Client.Await patience "pings" (fun () -> Transfer.ping topology.Client Topology.Remote 2 56 = 2)
              let mutable answer = JsonElement()

              let hasTraffic () =
                  match ask [ "--json" ] with
                  | struct (0, json, _) ->
                      answer <- JsonDocument.Parse(json).RootElement
                      let traffic = answer.GetProperty "traffic"

                      [ "bytes_sent"; "bytes_received" ]
                      |> List.forall (fun (name: string) -> traffic.GetProperty(name).GetInt64() >= 2L * 84L)
                  | _ -> false

              vpn.Client.Await patience "its traffic is shown" hasTraffic
              Expect.isTrue (answer.GetProperty("ok").GetBoolean()) "ok"
              Expect.equal (answer.GetProperty("state").GetString()) "online" "state"
              let connection = answer.GetProperty "connection"
              Expect.equal (connection.GetProperty("session").GetString().Length) 16 "session"
              Expect.isTrue (connection.GetProperty("expresslane").GetBoolean()) "expresslane"
              Expect.equal (answer.GetProperty("reconnects").GetInt32()) 0 "reconnects"

              let mode = File.GetUnixFileMode socket
              Expect.equal mode (UnixFileMode.UserRead ||| UnixFileMode.UserWrite) "the socket's mode"

              // What is not a request gets an answer, and harms nobody.
              use peer =
                  new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified)

              peer.Connect(UnixDomainSocketEndPoint socket)
              peer.Send(Text.Encoding.ASCII.GetBytes "hello\n") |> ignore
              let buffer: byte[] = Array.zeroCreate 4096
              let length = peer.Receive buffer
              Expect.stringContains (Text.Encoding.UTF8.GetString(buffer, 0, length)) "\"ok\":false" "refused"

              let isWaiting () =
                  let struct (_, output, _) = ask []
                  output.Contains "until the next try" && output.Contains "no longer answers"

              // The first wait is of a second or two, which a busy machine may miss; each later one is longer.
              let rec lose (left: int) =
                  vpn.Server.Signal Netns.Signal.Kill
                  Expect.isTrue (vpn.Server.WaitForExit patience) "the server is dead"

                  if not (Wait.until (TimeSpan.FromSeconds 20.) isWaiting) then
                      Expect.isGreaterThan left 0 "it waits"
                      vpn.StartServer()
                      vpn.Client.Await patience "it is back" (fun () -> carriesPing topology)
                      lose (left - 1)

              lose 3

              // A socket that a killed client has left behind is not in the way.
              vpn.Client.Signal Netns.Signal.Kill
              Expect.isTrue (vpn.Client.WaitForExit patience) "killed"
              let struct (code, _, error) = ask []
              Expect.equal code 1 "exit code"
              Expect.stringContains error "no client listens" "why"
              vpn.StartServer()
              vpn.StartClient()
              vpn.AwaitOnline()
              Expect.isTrue (vpn.Client.Stop()) "SIGTERM ends it"
              Expect.isFalse (File.Exists socket) "the socket is gone"
              let struct (code, _, error) = ask []
              Expect.equal code 1 "exit code"
              Expect.stringContains error "control_socket" "what to do"
          }

          test "on a terminal one line shows the state below the log; elsewhere there is none" {
              withVpn [] (fun topology vpn ->
                  vpn.StartServer()
                  let config = Path.Combine(vpn.Folder, "client.yaml")
                  let log = Path.Combine(vpn.Folder, "terminal.log")
                  let arguments = [ "-qefc"; $"{client} --config-file {config}"; "/dev/null" ]
                  use terminal = Child.Start topology.Client "client" "script" arguments log

                  terminal.Await patience "the line" (fun () -> terminal.Log.Contains "online 192.0.2.1:27690  up ")

                  terminal.AwaitLog "INFO lightway-client: online: " "the log"
                  Expect.isTrue (terminal.Stop()) "it ends"
                  await "the client behind it is gone" (fun () -> (clientIn topology.Client).IsNone)
                  vpn.StartClient()
                  vpn.AwaitOnline()
                  Expect.isFalse (vpn.Client.Log.Contains "up 0 b/s") "no line in a file")
          } ]

let private setUp =
    testList
        "set-up"
        [ test "password_file: the password is read from it, without its line break" {
              withVpn [] (fun _ vpn ->
                  let file = Path.Combine(vpn.Folder, "password")
                  File.WriteAllText(file, vpn.Password + "\n")
                  File.SetUnixFileMode(file, UnixFileMode.UserRead)
                  withoutPassword vpn
                  vpn.SetClient [ "password_file", "password" ]
                  vpn.Start())
          }

          test "password_file: a credential of systemd is found in the directory that systemd names" {
              withServer (fun site ->
                  let credentials = Path.Combine(site.Topology.Folder, "credentials")
                  Directory.CreateDirectory(credentials, enum<UnixFileMode> 0o700) |> ignore
                  let file = Path.Combine(credentials, "vpn-password")
                  File.WriteAllText(file, site.Vpn.Password)
                  File.SetUnixFileMode(file, UnixFileMode.UserRead)
                  withoutPassword site.Vpn
                  site.Vpn.SetClient [ "password_file", "\"$CREDENTIALS_DIRECTORY/vpn-password\"" ]
                  site.AwaitOnline(site.LaunchBehind [ "env"; $"CREDENTIALS_DIRECTORY={credentials}" ])

                  // Without systemd there is no such directory.
                  let client = site.LaunchBehind [ "env"; "-u"; "CREDENTIALS_DIRECTORY" ]
                  Expect.equal (ClientSite.ends client) 2 "exit code"
                  client.AwaitLog "LoadCredential=" "what to do")
          }

          test "password_file: one that others may read is refused, code 2" {
              withVpn [] (fun _ vpn ->
                  let file = Path.Combine(vpn.Folder, "password")
                  File.WriteAllText(file, vpn.Password)
                  File.SetUnixFileMode(file, enum<UnixFileMode> 0o644)
                  withoutPassword vpn
                  vpn.SetClient [ "password_file", file ]
                  vpn.LaunchClient()
                  Expect.isTrue (vpn.Client.WaitForExit patience) "it ends"
                  Expect.equal vpn.Client.ExitCode 2 "exit code"
                  vpn.Client.AwaitLog $"password_file: \"{file}\"" "which"
                  vpn.Client.AwaitLog "chmod 600" "what to do")
          }

          test "without a password and without a terminal, the client says where to write it, code 2" {
              withVpn [] (fun _ vpn ->
                  withoutPassword vpn
                  vpn.LaunchClient()
                  Expect.isTrue (vpn.Client.WaitForExit patience) "it ends"
                  Expect.equal vpn.Client.ExitCode 2 "exit code"
                  vpn.Client.AwaitLog "password: missing" "what"
                  vpn.Client.AwaitLog "password_file" "what to do")
          }

          test "on a terminal the client asks for the password, and shows nothing of it" {
              withVpn [] (fun topology vpn ->
                  vpn.StartServer()
                  withoutPassword vpn
                  let config = Path.Combine(vpn.Folder, "client.yaml")
                  let log = Path.Combine(vpn.Folder, "terminal.log")

                  let typed = Path.Combine(vpn.Folder, "typed")
                  File.WriteAllText(typed, "")

                  let script =
                      $"tail -n +1 -f {typed} | script -qefc '{client} --config-file {config}' /dev/null"

                  use terminal = Child.Start topology.Client "client" "sh" [ "-c"; script ] log
                  terminal.Await patience "it asks" (fun () -> terminal.Log.Contains "Password of ")

                  // It waits for keys: until then the terminal shows what is typed.
                  terminal.Await patience "nothing is shown" (fun () ->
                      match clientIn topology.Client with
                      | Some pid ->
                          let line = Shell.run "readlink" [ $"/proc/{pid}/fd/0" ]
                          let struct (_, settings, _) = Shell.tryRun "stty" [ "-F"; line.Trim(); "-a" ]
                          let words = settings.Split([| ' '; '\n' |])
                          Array.contains "-echo" words && Array.contains "-icanon" words
                      | None -> false)

                  File.AppendAllText(typed, vpn.Password + "\r")
                  terminal.Await patience "it is online" (fun () -> terminal.Log.Contains "online: ")
                  Expect.stringContains terminal.Log $"Password of {vpn.User} at " "it asked"
                  Expect.isFalse (terminal.Log.Contains vpn.Password) "no echo"
                  terminal.Stop() |> ignore)
          }

          test "inside_mtu: the device has it, also after the server has said what its own has" {
              withVpn [ "inside_mtu", "1280" ] (fun topology vpn ->
                  vpn.Start()
                  let link = Shell.ip $"-n {topology.Client} -o link show dev {vpn.Device}"
                  Expect.stringContains link "mtu 1280 " "the device")
          }

          test "inside_mtu: more than there is room for is refused with the limit, code 2" {
              withVpn [ "inside_mtu", "1450" ] (fun _ vpn ->
                  vpn.LaunchClient()
                  Expect.isTrue (vpn.Client.WaitForExit patience) "it ends"
                  Expect.equal vpn.Client.ExitCode 2 "exit code"
                  vpn.Client.AwaitLog "inside_mtu: 1450 is too large" "what"
                  vpn.Client.AwaitLog "has room for 1416" "the limit")
          } ]

let tests = testSequenced (testList "Reconnect" [ losses; servers; status; setUp ])

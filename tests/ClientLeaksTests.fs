/// Nothing leaves the client's machine in the clear: IPv6 beside the tunnel, and the kill switch.
module Lightway.Tests.ClientLeaksTests

open System
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

let private elsewhere = "2001:db8:ffff::1"

/// The default route of IPv6, by the server's host.
let private addDefaultIPv6 (site: Site) =
    addIPv6 site
    site.Ip "-6 route add default via 2001:db8:1::1" |> ignore

/// The last routes that a client makes: those of IPv6 into nowhere.
let private awaitBlock (site: Site) =
    await "IPv6 is blocked" (fun () -> (site.Ip "-6 route show").Contains "8000::/1")

let private expectRoutes6 (site: Site) (routes: string) =
    Wait.until patience (fun () -> site.Ip "-6 route show" = routes) |> ignore
    Expect.equal (site.Ip "-6 route show") routes "routes"

let private ipv6 =
    testList
        "IPv6"
        [ test "with a dual-stack uplink no packet of IPv6 leaves while the client runs, and they do again afterwards" {
              withServer (fun site ->
                  addDefaultIPv6 site
                  let uplink = Uplink site
                  speak site elsewhere
                  await "they are counted" (fun () -> uplink.IPv6 > 2L)
                  let routes = site.Ip "-6 route show"
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  awaitBlock site
                  let before = uplink.IPv6
                  speak site elsewhere
                  Expect.equal uplink.IPv6 before "none leaves"
                  site.Vpn.Client.Signal Netns.Signal.Kill
                  Expect.isTrue (site.Vpn.Client.WaitForExit patience) "killed"
                  speak site elsewhere
                  Expect.equal uplink.IPv6 before "nor after it was killed"
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  speak site elsewhere
                  await "they leave again" (fun () -> uplink.IPv6 > before)
                  expectRoutes6 site routes)
          }

          test
              "a server that is reached over IPv6 keeps its way while IPv6 is blocked, by routes and by the kill switch" {
              withSite settings (fun site ->
                  addDefaultIPv6 site
                  site.Vpn.SetServer [ "bind_address", "\"[::]:27690\"" ]
                  site.Vpn.StartServer()
                  let server = "2001:db8:2::1" // behind the gateway
                  Shell.ip $"-n {site.Topology.Server} addr add {server}/128 dev remote nodad" |> ignore
                  site.Vpn.SetClient [ "server", $"\"[{server}]:27690\""; "kill_switch", "true" ]
                  let uplink = Uplink site
                  let routes = site.Ip "-6 route show"
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  let way = site.Ip $"-6 route show {server}"
                  Expect.stringContains way "via 2001:db8:1::1 dev outside" "the way to the server"
                  awaitBlock site
                  let before = uplink.IPv6
                  speak site elsewhere
                  Expect.equal uplink.IPv6 before "no IPv6 but the tunnel's own, which is not counted"
                  site.Ip $"-6 route del {server} via 2001:db8:1::1 dev outside" |> ignore
                  await "the route is put back" (fun () -> site.Ip $"-6 route show {server}" = way)
                  await "the tunnel carries packets" (fun () -> site.CarriesPing)
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  expectRoutes6 site routes)
          }

          test "allow_ipv6_outside lets IPv6 pass beside the tunnel, and a warning says so" {
              withServer (fun site ->
                  addDefaultIPv6 site
                  let uplink = Uplink site
                  site.Vpn.SetClient [ "allow_ipv6_outside", "true" ]
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  let before = uplink.IPv6
                  speak site elsewhere
                  await "it passes" (fun () -> uplink.IPv6 > before)

                  for part in [ "2001:db8:1::2"; "outside"; "allow_ipv6_outside" ] do
                      site.Vpn.Client.AwaitLog part "the warning")
          } ]

/// Tables of nftables in the client's namespace.
let private tables (site: Site) =
    Shell.inside site.Topology.Client "nft" [ "list"; "tables" ]

let private reset (site: Site) =
    Shell.tryRun "ip" [ "netns"; "exec"; site.Topology.Client; Programs.OfThisBuild().Client; "reset" ]

let private killSwitch =
    testList
        "kill switch"
        [ test
              "closed from the start on: also when the server dies, after kill -9, and at the next start; reset opens it" {
              withServer (fun site ->
                  let uplink = Uplink site
                  speak site Topology.Remote
                  await "packets in the clear are counted" (fun () -> uplink.Remote > 2L)

                  let expectNothing what =
                      let before = uplink.Remote
                      speak site Topology.Remote
                      Expect.equal uplink.Remote before $"nothing in the clear {what}"

                  site.Vpn.SetClient
                      [ "kill_switch", "true"
                        "reconnect", "false"
                        "server", "vpn.test:27690"
                        "keepalive_interval", "300ms"
                        "keepalive_timeout", "5s" ] // a server that waits for a processor is not dead

                  withHosts site [ $"{Topology.ServerOutside} vpn.test" ] (fun () ->
                      site.Vpn.LaunchClient()
                      site.AwaitOnline site.Vpn.Client)

                  site.Vpn.Server.Signal Netns.Signal.Kill
                  expectNothing "while the server is dead"
                  Expect.equal (ends site.Vpn.Client) 1 "the client gives up"
                  site.Vpn.Client.AwaitLog "kill switch: stays closed" "says so"
                  expectNothing "after the client has given up"

                  // Nobody resolves the name any more: its addresses are remembered.
                  site.Vpn.StartServer()
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Client.AwaitLog "vpn.test is taken to have" "says so"
                  let struct (code, _, errors) = reset site
                  Expect.equal code 1 "reset does not disturb a client that lives"
                  Expect.stringContains errors "stop it" "and says what to do"
                  site.Vpn.Client.Signal Netns.Signal.Kill
                  Expect.isTrue (site.Vpn.Client.WaitForExit patience) "killed"
                  expectNothing "after kill -9"

                  site.Vpn.SetClient [ "server", "other.test:27690" ]
                  site.Vpn.LaunchClient()
                  Expect.equal (ends site.Vpn.Client) 1 "another name cannot be resolved"
                  site.Vpn.Client.AwaitLog "lightway-client reset" "names the remedy"
                  expectNothing "after that"

                  let before = uplink.Remote
                  let struct (code, output, _) = reset site
                  Expect.equal code 0 "reset"
                  Expect.stringContains output "opened the kill switch" "says what it did"
                  speak site Topology.Remote
                  await "packets pass again" (fun () -> uplink.Remote > before)
                  Expect.equal (tables site) "" "no table is left"

                  let struct (code, _, errors) =
                      Shell.tryRun
                          "ip"
                          ([ "netns"
                             "exec"
                             site.Topology.Client
                             "setpriv"
                             "--bounding-set=-all"
                             "--inh-caps=-all" ]
                           @ [ Programs.OfThisBuild().Client; "reset" ])

                  Expect.equal code 1 "without privileges it does not say that nothing is left"
                  Expect.stringContains errors "CAP_NET_ADMIN" "but what it needs"
                  let struct (code, output, _) = reset site
                  Expect.equal (code, output.Trim()) (0, "nothing was left behind") "a second time")
          }

          test
              "the same over TCP; an orderly end opens it; only the client's own datagrams reach the server, and tables of others stay" {
              withSite settings (fun site ->
                  site.Vpn.SetServer [ "mode", "both" ]
                  site.Vpn.StartServer()
                  Shell.inside site.Topology.Client "nft" [ "add table inet theirs" ] |> ignore
                  site.Vpn.SetClient [ "kill_switch", "true"; "mode", "tcp" ]
                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client

                  let canPing (user: string list) =
                      let line = user @ [ "ping"; "-n"; "-c"; "1"; "-W"; "1"; Topology.ServerOutside ]

                      let struct (code, _, _) =
                          Shell.tryRun "ip" ([ "netns"; "exec"; site.Topology.Client ] @ line)

                      code = 0

                  Expect.isFalse (canPing []) "a ping to the server is not the tunnel's"

                  let send (user: string list) =
                      let script = $"exec 3<>/dev/tcp/{Topology.ServerOutside}/27690 && printf x >&3"
                      let line = user @ [ "bash"; "-c"; script ]

                      let struct (code, _, _) =
                          Shell.tryRun "ip" ([ "netns"; "exec"; site.Topology.Client ] @ line)

                      code = 0

                  Expect.isTrue (send []) "the client's user may connect there"

                  Expect.isFalse
                      (send [ "setpriv"; "--reuid"; "12345"; "--clear-groups" ])
                      "another user may not, not even to the server's port"

                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  Expect.equal (tables site) "table inet theirs\n" "that of others"
                  await "all passes" (fun () -> canPing []))
          }

          test "DHCP passes it, and in mode lan local networks do, also while the server is dead; nothing else does" {
              withServer (fun site ->
                  let uplink = Uplink site
                  let local = "192.168.77.1" // behind the gateway
                  Shell.ip $"-n {site.Topology.Server} addr add {local}/32 dev remote" |> ignore

                  site.Vpn.SetClient
                      [ "kill_switch", "true"
                        "route_mode", "lan"
                        "keepalive_interval", "300ms"
                        "keepalive_timeout", "1s" ]

                  site.Vpn.LaunchClient()
                  site.AwaitOnline site.Vpn.Client
                  site.Vpn.Server.Signal Netns.Signal.Kill

                  site.Vpn.Client.Await patience "it has noticed" (fun () ->
                      site.Vpn.Client.Log.Contains "(TimedOut): trying again")

                  Netns.run site.Topology.Client (fun () ->
                      use socket = new UdpClient(IPEndPoint(IPAddress.Any, 68), EnableBroadcast = true)
                      // SO_BINDTODEVICE, as DHCP clients do (asm-generic/socket.h)
                      socket.Client.SetRawSocketOption(1, 25, ReadOnlySpan "outside\000"B)
                      socket.Send([| 1uy |], 1, IPEndPoint(IPAddress.Broadcast, 67)) |> ignore)

                  Wait.until patience (fun () -> uplink.Dhcp > 0L) |> ignore
                  Expect.equal uplink.Dhcp 1L "DHCP"
                  await "a local network" (fun () -> Transfer.ping site.Topology.Client local 1 56 = 1)
                  speak site Topology.Remote
                  Expect.equal uplink.Remote 0L "nothing to the remote in the clear"
                  Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
                  Expect.equal (tables site) "" "no table is left")
          }

          test "without an nft(8) that can be run: code 1, and its name" {
              withServer (fun site ->
                  site.Vpn.SetClient [ "kill_switch", "true" ]

                  let client =
                      site.LaunchBehind
                          [ "unshare"
                            "--mount"
                            "sh"
                            "-c"
                            "mount --bind /dev/null /usr/sbin/nft && exec \"$@\""
                            "sh" ]

                  Expect.equal (ends client) 1 "exit code"
                  client.AwaitLog "nft" "names the program")
          } ]

let tests = testSequenced (testList "Client leaks" [ ipv6; killSwitch ])

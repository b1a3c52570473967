/// The client's routes: which ones it wants, and the kernel's table, read and changed over netlink.
module Lightway.Tests.ClientRoutesTests

open System
open System.Net
open System.Net.Sockets
open Expecto
open FsCheck
open Lightway.Client.Network
open Lightway.Lab
open Lightway.Options
open Lightway.Tests.Checks
open Microsoft.Extensions.Logging.Abstractions

let private address (text: string) = IPAddress.Parse text
let private network (text: string) = IPNetwork.Parse text
let private tun = 9

let private route destination (gateway: string) device metric protocol =
    let gateway =
        match gateway with
        | "" -> null
        | gateway -> address gateway

    Route(network destination, gateway, device, metric, protocol)

let private static' = 4uy // RTPROT_STATIC

/// A route as text, with what tells it from others.
let private show (route: Route) =
    $"{route} {route.Device} {route.Metric} {route.Protocol}"

let private unreachable destination metric =
    Route(network destination, null, 0, metric, RoutePlan.Protocol, true, null)

let private wishes mode server way =
    { Mode = mode
      Server = address server
      Way = way
      LocalWay = way
      LocalWay6 = null
      Device = tun
      TunPeer = address "100.64.0.5"
      TunDns = address "100.64.0.1"
      BlocksIPv6 = true }

let private wanted wishes =
    RoutePlan.wanted wishes |> Seq.map show |> List.ofSeq

let private way = route "0.0.0.0/0" "192.0.2.254" 2 100u static'
let private way6 = route "::/0" "fe80::1" 3 1024u static'

let private everything =
    [ "100.64.0.1/32 9 0 76"; "0.0.0.0/1 via 100.64.0.5 9 0 76"; "128.0.0.0/1 via 100.64.0.5 9 0 76" ]

let private blocked =
    [ "unreachable ::/1 0 1024 76"; "unreachable 8000::/1 0 1024 76" ]

let private server =
    [ "203.0.113.9/32 via 192.0.2.254 2 0 76"; "unreachable 203.0.113.9/32 0 4294967294 76" ]

let private local =
    [ for network in [ "192.168.0.0/16"; "172.16.0.0/12"; "10.0.0.0/8"; "169.254.0.0/16"; "224.0.0.0/24" ] do
          $"{network} via 192.0.2.254 2 0 76" ]

let private plan =
    testList
        "plan"
        [ test "mode default: the server keeps its way, or has none; then all goes into the tunnel, and IPv6 nowhere" {
              Expect.equal (wanted (wishes RouteMode.Default "203.0.113.9" way)) (server @ everything @ blocked) ""
          }

          test "mode lan: local networks keep their way as well" {
              Expect.equal
                  (wanted (wishes RouteMode.Lan "203.0.113.9" way))
                  (server @ local @ everything @ blocked)
                  "of IPv4 alone"

              Expect.equal
                  (wanted
                      { wishes RouteMode.Lan "203.0.113.9" way with
                          LocalWay6 = way6 })
                  (server @ local @ [ "fc00::/7 via fe80::1 3 1024 76" ] @ everything @ blocked)
                  "of both"
          }

          test "allow_ipv6_outside: IPv6 is left alone" {
              Expect.equal
                  (wanted
                      { wishes RouteMode.Default "203.0.113.9" way with
                          BlocksIPv6 = false })
                  (server @ everything)
                  ""
          }

          test "mode noexec: none" { Expect.isEmpty (wanted (wishes RouteMode.NoExec "203.0.113.9" way)) "" }

          test "a server with an IPv6 address keeps its way, too, though IPv6 goes nowhere else" {
              let server =
                  [ "2001:db8::1/128 via fe80::1 3 1024 76"; "unreachable 2001:db8::1/128 0 4294967294 76" ]

              let wishes =
                  { wishes RouteMode.Default "2001:db8::1" way6 with
                      LocalWay = null }

              Expect.equal (wanted wishes) (server @ everything @ blocked) "mode default"

              Expect.equal
                  (wanted { wishes with Mode = RouteMode.Lan })
                  (server @ everything @ blocked)
                  "no way of IPv4 or IPv6 outside: no local networks"
          }

          test "the way to an address is the most specific route, then the one with the lowest metric" {
              let table =
                  [ way
                    route "0.0.0.0/0" "192.0.2.253" 3 50u static'
                    route "203.0.0.0/8" "192.0.2.1" 4 900u static'
                    route "203.0.113.9/32" "192.0.2.2" 5 0u RoutePlan.Protocol
                    route "203.0.113.0/24" "100.64.0.5" tun 0u static'
                    Route(network "203.0.113.0/24", null, 0, 0u, static', true, null) ]

              let way (text: string) =
                  (RoutePlan.wayTo (table, address text, tun)).Device

              Expect.equal (way "203.0.113.9") 4 "neither its own routes nor its own device"
              Expect.equal (way "198.51.100.1") 3 "metric 50 before 100"
              Expect.isNull (box (RoutePlan.wayTo (table, address "2001:db8::1", tun))) "none of this family"
              Expect.isNull (box (RoutePlan.wayTo ([], address "203.0.113.9", tun))) "an empty table"
          }

          test "a route is present only as it is wanted" {
              let own = route "10.0.0.0/8" "192.0.2.1" 2 0u RoutePlan.Protocol
              let isPresent table = RoutePlan.isPresent (table, own)
              Expect.isTrue (isPresent [ way; route "10.0.0.0/8" "192.0.2.1" 2 0u RoutePlan.Protocol ]) "the same"

              for other in
                  [ route "10.0.0.0/9" "192.0.2.1" 2 0u RoutePlan.Protocol
                    route "10.0.0.0/8" "192.0.2.2" 2 0u RoutePlan.Protocol
                    route "10.0.0.0/8" "" 2 0u RoutePlan.Protocol
                    route "10.0.0.0/8" "192.0.2.1" 3 0u RoutePlan.Protocol
                    route "10.0.0.0/8" "192.0.2.1" 2 1u RoutePlan.Protocol
                    unreachable "10.0.0.0/8" 0u
                    route "10.0.0.0/8" "192.0.2.1" 2 0u static' ] do
                  Expect.isFalse (isPresent [ other ]) (show other)

              let onLoopback =
                  Route(network "::/1", null, 1, 1024u, RoutePlan.Protocol, true, null)

              Expect.isTrue
                  (RoutePlan.isPresent ([ onLoopback ], unreachable "::/1" 1024u))
                  "the kernel gives unreachable routes of IPv6 a device"
          }

          test "a path is another one with another device, gateway or source" {
              let path (gateway: string) device (source: string) =
                  Route(network "203.0.113.9/32", address gateway, device, 0u, 0uy, false, address source)

              let first = path "192.0.2.1" 2 "192.0.2.9"
              Expect.isTrue (RoutePlan.isSamePath (first, path "192.0.2.1" 2 "192.0.2.9")) "the same"
              Expect.isFalse (RoutePlan.isSamePath (first, path "192.0.2.2" 2 "192.0.2.9")) "gateway"
              Expect.isFalse (RoutePlan.isSamePath (first, path "192.0.2.1" 3 "192.0.2.9")) "device"
              Expect.isFalse (RoutePlan.isSamePath (first, path "192.0.2.1" 2 "192.0.2.8")) "source"
              Expect.isFalse (RoutePlan.isSamePath (first, null)) "none"
          } ]

let private order =
    let addresses (text: string) =
        text.Split ' ' |> Array.map address |> List.ofArray

    testList
        "order of addresses"
        [ test "RFC 8305 §4: families alternate, the first address stays first, each family keeps its order" {
              for given, expected in
                  [ "2001:db8::1 2001:db8::2 192.0.2.1 192.0.2.2", "2001:db8::1 192.0.2.1 2001:db8::2 192.0.2.2"
                    "192.0.2.1 192.0.2.2 2001:db8::1", "192.0.2.1 2001:db8::1 192.0.2.2"
                    "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3", "2001:db8::1 192.0.2.1 192.0.2.2 192.0.2.3"
                    "192.0.2.1 192.0.2.1 192.0.2.1", "192.0.2.1" ] do
                  Expect.sequenceEqual (AddressOrder.alternate (addresses given)) (addresses expected) given

              Expect.isEmpty (AddressOrder.alternate []) "none"
          }

          testProperty "no address is lost, none is repeated" (fun (NonNull(bytes: (bool * byte)[])) ->
              let given =
                  [ for isIPv6, last in bytes do
                        address (if isIPv6 then $"2001:db8::{last:x}" else $"192.0.2.{last}") ]

              let result = AddressOrder.alternate given |> List.ofSeq
              Expect.equal (set (List.map string result)) (set (List.map string given)) "the same addresses"
              Expect.equal result.Length (List.distinct given).Length "each once") ]

/// Everything that reading finds in a datagram: routes and errors.
let private readAll (datagram: byte[]) =
    let found = ResizeArray<string>()
    let mutable rest = ReadOnlySpan datagram
    let mutable message = NetlinkMessage()

    while NetlinkFormat.TryTake(&rest, 7u, &message) do
        let route = RouteMessage.Read(message.Body)

        if isNull (box route) then
            found.Add $"error {NetlinkFormat.ErrorOf message.Body}"
        else
            found.Add(show route)

    List.ofSeq found

let private written (route: Route) =
    let buffer: byte[] = Array.zeroCreate NetlinkFormat.MaxSize

    let length =
        RouteMessage.Write(buffer.AsSpan(), RouteMessage.RTM_NEWROUTE, 0us, 7u, route)

    buffer[.. length - 1]

let private messages =
    testList
        "messages"
        [ test "what is written is read back" {
              for route in
                  [ way
                    route "203.0.113.9/32" "" 2 0u 76uy
                    route "2001:db8::/32" "fe80::1" 3 1024u 4uy
                    route "::/0" "" 1 1u 2uy
                    route "10.0.0.0/8" "fe80::1" 2 0u 76uy ] do
                  Expect.equal (readAll (written route)) [ show route ] (show route)
                  Expect.equal (readAll (Array.append (written route) (written way))) [ show route; show way ] "two"
          }

          test "an answer to another question is passed over" {
              let other = written way
              other[8] <- 6uy // nlmsg_seq
              Expect.equal (readAll (Array.append other (written way))) [ show way ] ""
          }

          testProperty "damaged bytes never raise" (fun (NonNull(changes: (uint16 * byte)[])) (cut: uint16) ->
              let bytes = Array.append (written way) (written (route "::/0" "fe80::1" 2 5u 76uy))

              for at, value in changes do
                  bytes[int at % bytes.Length] <- value

              readAll bytes[.. int cut % bytes.Length] |> ignore) ]

/// A namespace with a device `d0` that has an address of each family; runs the body inside.
let private inNamespace (body: string -> int -> unit) =
    needsRoot ()
    use topology = Topology.Create()
    let netns = topology.RemoteHost

    for command in
        [ "link add d0 type veth peer name d1"
          "link set d1 up"
          "addr add 192.0.2.1/24 dev d0"
          "addr add 2001:db8::1/64 dev d0 nodad"
          "link set d0 up" ] do
        Shell.ip $"-n {netns} {command}" |> ignore

    // The kernel makes routes of its own a moment after links are up.
    let isSettled () =
        let routes = Shell.ip $"-n {netns} -6 route show"
        [ "d0"; "d1"; "server" ] |> List.forall (fun device -> routes.Contains $"fe80::/64 dev {device} ")

    Wait.until (TimeSpan.FromSeconds 10.) isSettled |> ignore
    Netns.run netns (fun () -> body netns (Netlink.IndexOf "d0"))

/// Whoever listens for changes of the network has taken all news: of sockets with groups, of protocol 0, no bytes wait
/// (/proc/net/netlink: address, protocol, port, groups, bytes).
let private isHeard (netns: string) : bool =
    (Shell.inside netns "cat" [ "/proc/net/netlink" ]).Split('\n', StringSplitOptions.RemoveEmptyEntries)
    |> Array.skip 1
    |> Array.map (fun line -> line.Split(' ', StringSplitOptions.RemoveEmptyEntries))
    |> Array.forall (fun fields -> fields[1] <> "0" || fields[3] = "00000000" || fields[4] = "0")

let private table =
    testSequenced (
        testList
            "table"
            [ test "routes of both families are added, listed, found, replaced and removed" {
                  inNamespace (fun _ device ->
                      use table = new RouteTable()

                      for family, destination, first, second, inside in
                          [ AddressFamily.InterNetwork, "203.0.113.0/24", "192.0.2.2", "192.0.2.3", "203.0.113.9"
                            AddressFamily.InterNetworkV6,
                            "2001:db8:9::/48",
                            "2001:db8::2",
                            "2001:db8::3",
                            "2001:db8:9::9" ] do
                          let made gateway =
                              route destination gateway device 5u RoutePlan.Protocol

                          let own () =
                              table.List family |> Seq.filter RoutePlan.isOwn |> Seq.map show |> List.ofSeq

                          Expect.isNull (box (table.Find(address inside))) "not there yet"
                          Expect.equal (table.Add(made first)) RouteAddition.Added "added"
                          Expect.equal (own ()) [ show (made first) ] "listed"
                          Expect.equal (string (table.Find(address inside)).Gateway) first "found"
                          Expect.equal (table.Add(made first)) RouteAddition.TakenByAnother "it is there already"
                          table.Replace(made second)
                          Expect.equal (own ()) [ show (made second) ] "replaced"
                          table.Remove(made first)
                          Expect.equal (own ()) [ show (made second) ] "another way: it stays"
                          table.Remove(route destination second device 5u static')
                          Expect.equal (own ()) [ show (made second) ] "another protocol: it stays"
                          table.Remove(made second)
                          Expect.isEmpty (own ()) "removed"
                          table.Remove(made second) // gone already: no error

                      Expect.equal (Netlink.NameOf device) "d0" "the name of an index"
                      Expect.isNull (Netlink.NameOf 999999) "no such index"
                      Expect.equal (Netlink.IndexOf "nothing") 0 "no such name")
              }

              test "the list is what ip(8) shows: other tables and other kinds of route are not in it" {
                  inNamespace (fun netns device ->
                      for command in
                          [ "route add 10.1.0.0/16 via 192.0.2.2 metric 7"
                            "route add 10.2.0.0/16 via 192.0.2.2 table 100"
                            "route add blackhole 10.3.0.0/16"
                            "route add 10.4.0.0/16 nexthop via 192.0.2.3 dev d0 nexthop via 192.0.2.4 dev d0"
                            "route add 10.5.0.0/16 via inet6 2001:db8::2 dev d0" ] do
                          Shell.ip $"-n {netns} {command}" |> ignore

                      use table = new RouteTable()

                      let listed =
                          table.List AddressFamily.InterNetwork
                          |> Seq.filter (fun route -> route.Device = device)
                          |> Seq.map (fun route -> $"{route} {route.Metric}")
                          |> List.ofSeq

                      Expect.equal
                          listed
                          [ "10.1.0.0/16 via 192.0.2.2 7"
                            "10.4.0.0/16 via 192.0.2.3 0"
                            "10.5.0.0/16 via 2001:db8::2 0"
                            "192.0.2.0/24 0" ]
                          "the first way of several")
              }

              test "a table of thousands of routes is listed as a whole" {
                  inNamespace (fun netns device ->
                      let file = IO.Path.GetTempFileName()

                      IO.File.WriteAllLines(
                          file,
                          [ for i in 0..4999 -> $"route add 10.{i / 250}.{i % 250}.0/24 via 192.0.2.2" ]
                      )

                      Shell.run "ip" [ "-n"; netns; "-batch"; file ] |> ignore
                      IO.File.Delete file
                      use table = new RouteTable()

                      let count =
                          table.List AddressFamily.InterNetwork
                          |> Seq.filter (fun route -> route.Device = device && string route.Gateway = "192.0.2.2")
                          |> Seq.length

                      Expect.equal count 5000 "routes")
              }

              test
                  "routes for another server take the place of those for the one before it; at the end all are as before" {
                  inNamespace (fun netns _ ->
                      Shell.ip $"-n {netns} tuntap add dev tun9 mode tun" |> ignore
                      Shell.ip $"-n {netns} addr add 100.64.0.6 peer 100.64.0.5 dev tun9" |> ignore
                      Shell.ip $"-n {netns} link set tun9 up" |> ignore
                      Shell.ip $"-n {netns} route add default via 192.0.2.2" |> ignore

                      let shown () =
                          Shell.ip $"-n {netns} route show" + Shell.ip $"-n {netns} -6 route show"

                      let before = shown ()

                      let settings =
                          RouteSettings(
                              RouteMode.Default,
                              "tun9",
                              address "100.64.0.5",
                              address "100.64.0.1",
                              true,
                              false,
                              0u
                          )

                      let routes = new Routes(settings, NullLogger.Instance)
                      routes.Install(address "203.0.113.9")
                      let first = shown ()
                      Expect.stringContains first "203.0.113.9 via 192.0.2.2 dev d0" "the first server"

                      routes.Allow [ address "203.0.113.9"; address "203.0.113.10"; address "203.0.113.11" ]
                      let both = shown ()

                      for server in [ 9; 10; 11 ] do
                          Expect.stringContains both $"203.0.113.{server} via 192.0.2.2 dev d0" "in between"

                      routes.Install(address "203.0.113.10")

                      Expect.equal
                          (shown().Split '\n' |> Array.sort)
                          (first.Replace("203.0.113.9", "203.0.113.10").Split '\n' |> Array.sort)
                          "the second server"

                      routes.Dispose()
                      Expect.equal (shown ()) before "at the end")
              }

              test
                  "a move tells whether this machine's address is another one; a route that nobody's path needs is no move" {
                  inNamespace (fun netns _ ->
                      let ip (arguments: string) =
                          Shell.ip $"-n {netns} {arguments}" |> ignore

                      ip "addr add 192.0.2.9/24 dev d0"
                      ip "route add default via 192.0.2.2 src 192.0.2.1"
                      let moves = Collections.Concurrent.ConcurrentQueue<bool>()

                      let settings =
                          RouteSettings(
                              RouteMode.NoExec,
                              "nothing",
                              address "100.64.0.5",
                              address "100.64.0.1",
                              true,
                              false,
                              0u
                          )

                      use routes = new Routes(settings, NullLogger.Instance)
                      routes.Moved <- (fun isAddressNew -> moves.Enqueue isAddressNew)
                      let server = address "203.0.113.9"
                      routes.Allow [ server ]
                      ip "route replace default via 192.0.2.2 src 192.0.2.9"
                      routes.Install server
                      Expect.equal (List.ofSeq moves) [ true ] "another source while the connection was made"
                      moves.Clear()
                      ip "route replace default via 192.0.2.2 src 192.0.2.1"

                      Wait.until (TimeSpan.FromSeconds 30.) (fun () -> not moves.IsEmpty) |> ignore

                      routes.Allow [ server ]
                      moves.Clear()
                      routes.Install server
                      Expect.isEmpty moves "no change"

                      let moved what (expected: bool list) (change: unit -> unit) =
                          moves.Clear()
                          change ()

                          if expected.IsEmpty then
                              Wait.until (TimeSpan.FromSeconds 30.) (fun () -> isHeard netns) |> ignore
                              Threading.Thread.Sleep 300 // for what follows from it
                          else
                              Wait.until (TimeSpan.FromSeconds 30.) (fun () -> not moves.IsEmpty) |> ignore

                          Expect.equal (List.ofSeq moves) expected what

                      moved "another gateway" [ false ] (fun () ->
                          ip "route replace default via 192.0.2.3 src 192.0.2.1")

                      moved "another source" [ true ] (fun () ->
                          ip "route replace default via 192.0.2.3 src 192.0.2.9")

                      moved "a route to elsewhere" [] (fun () -> ip "route add 198.18.0.0/15 via 192.0.2.4")
                      moved "no way" [] (fun () -> ip "route del default")

                      moved "the same way again" [ false ] (fun () ->
                          ip "route add default via 192.0.2.3 src 192.0.2.9"))
              }

              test "a refused route is an error that names the route, the kernel's reason and a remedy" {
                  inNamespace (fun _ device ->
                      use table = new RouteTable()
                      let impossible = route "10.0.0.0/8" "198.18.0.1" device 0u RoutePlan.Protocol

                      let refusal =
                          try
                              table.Add impossible |> ignore
                              ""
                          with :? IO.IOException as error ->
                              error.Message

                      for part in [ "10.0.0.0/8 via 198.18.0.1 dev d0"; "errno 101"; "route_mode: noexec" ] do
                          Expect.stringContains refusal part "the message")
              } ]
    )

let tests = testList "Client routes" [ plan; order; messages; table ]

/// The client's machine changes its network under a download; the real programs in namespaces.
module Lightway.Tests.ClientMovesTests

open System
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

/// A second way to the server, by an interface of its own: 203.0.113.0/30, used when the first way is gone.
let private addSecondWay (site: Site) =
    let client, server = site.Topology.Client, site.Topology.Server

    for command in
        [ $"link add second netns {client} type veth peer name second netns {server}"
          $"-n {client} addr add 203.0.113.2/30 dev second"
          $"-n {server} addr add 203.0.113.1/30 dev second"
          $"-n {client} link set second up"
          $"-n {server} link set second up"
          $"-n {client} route add default via 203.0.113.1 metric 500" ] do
        Shell.ip command |> ignore

/// The first way, as the site has made it.
let private restoreFirstWay (site: Site) =
    site.Ip "link set outside up" |> ignore

    for address in [ site.Gateway; site.OtherGateway ] do
        site.Ip $"route replace {address} dev outside" |> ignore

    site.Ip $"route replace default via {site.Gateway}" |> ignore

let private remote (site: Site) =
    { Netns = site.Topology.RemoteHost
      Address = Topology.Remote }

/// A download of 2.5 s during which `change` runs: it arrives as it was sent, and nobody waits for a second.
let private steadyDuring (site: Site) (change: unit -> unit) (undo: unit -> unit) =
    let length = megabytes 10

    let transfer () =
        use timer = new Timer((fun _ -> change ()), null, 1000, Timeout.Infinite)
        Transfer.pacedDownload (remote site) site.Topology.Client length 4_000_000u

    expectSteady undo transfer length

let private handshakes (site: Site) =
    site.Vpn.Server.Log.Split "online" |> Array.length

let private tests' =
    [ test "a download survives a change of this machine's address: no new handshake, no pause of a second" {
          withServer (fun site ->
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client
              let before = handshakes site

              let change () =
                  site.Ip "addr add 192.0.2.77/32 dev outside" |> ignore
                  site.Ip $"addr del {Topology.ClientOutside}/32 dev outside" |> ignore
                  restoreFirstWay site

              let undo () =
                  site.Ip $"addr replace {Topology.ClientOutside}/32 dev outside" |> ignore

                  Shell.tryRun "ip" [ "-n"; site.Topology.Client; "addr"; "del"; "192.0.2.77/32"; "dev"; "outside" ]
                  |> ignore

                  restoreFirstWay site

              steadyDuring site change undo
              Expect.equal (handshakes site) before "no new handshake"

              Expect.stringContains
                  site.Vpn.Client.Log
                  "the network has changed: server 192.0.2.1 via 192.0.2.254 dev outside from 192.0.2.77"
                  "says so")
      }

      test "a download survives a change of the interface: no new handshake, no pause of a second" {
          withServer (fun site ->
              addSecondWay site
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client
              let before = handshakes site

              let change () =
                  site.Ip "link set outside down" |> ignore

              let undo () = restoreFirstWay site
              steadyDuring site change undo
              Expect.equal (handshakes site) before "no new handshake"
              Expect.stringContains site.ServerRoute "via 203.0.113.1 dev second" "the way to the server")
      }

      test "a client that makes no routes announces a new address as well" {
          withServer (fun site ->
              site.Vpn.SetClient [ "route_mode", "noexec"; "keepalive_interval", "1h" ]
              site.Vpn.LaunchClient()
              site.Vpn.Client.Await patience "it is online" (fun () -> site.Vpn.Client.Log.Contains "online: ")
              site.Ip "addr add 192.0.2.77/32 dev outside" |> ignore
              site.Ip $"addr del {Topology.ClientOutside}/32 dev outside" |> ignore
              restoreFirstWay site
              await "the server sees it" (fun () -> site.Vpn.Server.Log.Contains "to 192.0.2.77:"))
      }

      test "while the link is down, the tunnel's own datagrams do not get into the tunnel" {
          withServer (fun site ->
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client
              site.Ip "link set outside down" |> ignore
              await "the kernel has taken the routes away" (fun () -> site.ServerRoute = "")
              let before = (site.Vpn.ReadClients() |> Option.get).Head
              Expect.equal (Transfer.ping site.Topology.Client Topology.Remote 20 56) 0 "nothing gets through"
              let after = (site.Vpn.ReadClients() |> Option.get).Head
              Expect.isGreaterThanOrEqual (after.Since before "tun_packets_read") 20L "they come to the client"
              Expect.equal (after.Since before "tun_rejected_packet_to_server") 0L "but its datagrams do not come back"
              Expect.isLessThan (after.Since before "tun_packets_read") 200L "no loop"
              restoreFirstWay site
              await "the tunnel carries packets" (fun () -> site.CarriesPing))
      } ]

let tests = testSequenced (testList "Client moves" tests')

/// The client's machine changes its network under a download; the real programs in namespaces.
module Lightway.Tests.ClientMovesTests

open System.Diagnostics
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

/// A download of 1 GB, which takes 5 s at least, during which `change` runs: it arrives as it was sent, and nobody waits for a
/// second.
let private steadyDuring (site: Site) (what: string) (change: unit -> unit) (undo: unit -> unit) =
    let length = megabytes 1000L

    let transfer () =
        use timer = new Timer((fun _ -> change ()), null, 1000, Timeout.Infinite)

        let result =
            Transfer.pacedDownload (remote site) site.Topology.Client length 200_000_000u

        printfn $"{what}: {result.LongestWait.TotalMilliseconds:F0} ms without a byte, {result.Seconds:F1} s in all"
        result

    expectSteady undo transfer length

/// Counted by the server's lines, of which the first one may come a moment after the client is online.
let private handshakes (site: Site) =
    site.Vpn.Server.AwaitLog ": online, " "the first login"
    site.Vpn.Server.Log.Split "online" |> Array.length

let private tests' =
    [ test "a download of 1 GB survives a change of this machine's address: no new handshake, no pause of a second" {
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

              steadyDuring site "another address" change undo
              Expect.equal (handshakes site) before "no new handshake"

              site.Vpn.Client.AwaitLog
                  "the network has changed: server 192.0.2.1 via 192.0.2.254 dev outside from 192.0.2.77"
                  "says so")
      }

      test "a download of 1 GB survives a change of the interface: no new handshake, no pause of a second" {
          withServer (fun site ->
              addSecondWay site
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client
              let before = handshakes site

              let change () =
                  site.Ip "link set outside down" |> ignore

              let undo () = restoreFirstWay site
              steadyDuring site "another interface" change undo
              Expect.equal (handshakes site) before "no new handshake"
              Expect.stringContains site.ServerRoute "via 203.0.113.1 dev second" "the way to the server")
      }

      test "over TCP a new address means a new connection, at once; a new way with the same address does not" {
          withSite settings (fun site ->
              site.Vpn.SetServer [ "mode", "both" ]
              site.Vpn.StartServer()
              site.Vpn.SetClient [ "mode", "tcp" ]
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client

              let connections () =
                  site.Vpn.Client.Log.Split("online: ").Length - 1

              site.Ip $"route replace default via {site.OtherGateway}" |> ignore
              await "the route follows" (fun () -> site.ServerRoute.Contains site.OtherGateway)
              await "the tunnel carries packets" (fun () -> site.CarriesPing)
              Expect.equal (connections ()) 1 "the same connection"
              site.Ip "addr add 192.0.2.77/32 dev outside" |> ignore
              let clock = Stopwatch.StartNew()
              site.Ip $"addr del {Topology.ClientOutside}/32 dev outside" |> ignore
              restoreFirstWay site
              await "another connection" (fun () -> connections () = 2)
              await "the tunnel carries packets" (fun () -> site.CarriesPing)
              // Long before keepalives would have noticed: 60 s.
              Expect.isLessThan clock.Elapsed.TotalSeconds 30. "seconds"
              site.Vpn.Client.AwaitLog "192.0.2.1:27690 was lost: the network has changed" "says why")
      }

      test "a client that makes no routes announces a new address as well" {
          withServer (fun site ->
              site.Vpn.SetClient [ "route_mode", "noexec"; "keepalive_interval", "1h" ]
              site.Vpn.LaunchClient()
              site.Vpn.Client.Await patience "it is online" (fun () -> site.Vpn.Client.Log.Contains "online: ")
              site.Ip "addr add 192.0.2.77/32 dev outside" |> ignore
              site.Ip $"addr del {Topology.ClientOutside}/32 dev outside" |> ignore
              restoreFirstWay site

              let isSeen =
                  Wait.until patience (fun () -> site.Vpn.Server.Log.Contains "to 192.0.2.77:")

              Expect.isTrue isSeen $"the server sees it. {site.Vpn.Client.LogTail}\n{site.Vpn.Server.LogTail}")
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
              await "the tunnel carries packets" (fun () -> site.CarriesPing)
              let before = (site.Vpn.ReadClients() |> Option.get).Head
              Thread.Sleep 1000
              let after = (site.Vpn.ReadClients() |> Option.get).Head
              Expect.isLessThan (after.Since before "tun_packets_read") 200L "no loop when the link is up again either"
              Expect.isLessThan (after.CpuSeconds - before.CpuSeconds) 0.5 "seconds of CPU time in a second")
      } ]

let tests = testSequenced (testList "Client moves" tests')

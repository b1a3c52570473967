/// `setup-host` with the kernel: what it does to a namespace, what a client gets then, and what is left after --undo. Needs
/// root.
module Lightway.Tests.HostSetUpTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private patience = TimeSpan.FromSeconds 60.

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [] }

/// Runs `setup-host` in a namespace: exit code, output, error.
let private setUpIn (netns: string) (file: string) (arguments: string list) =
    let struct (code, output, error) =
        Shell.tryRun
            "ip"
            ([ "netns"; "exec"; netns; Programs.OfThisBuild().Server; "setup-host"; "-c"; file ] @ arguments)

    code, output, error

/// All that a set-up may change in a namespace, and what it may not.
let private stateOf (netns: string) =
    let run program arguments = Shell.inside netns program arguments

    let state =
        [ run "ip" [ "-d"; "address" ]
          run "ip" [ "route"; "show"; "table"; "all" ]
          run "nft" [ "list"; "ruleset" ]
          run "sysctl" [ "net.ipv4.ip_forward" ]
          run "ethtool" [ "-k"; "remote" ] ]
        |> String.concat "\n"

    // The numbers of devices are new in each run, and the kernel looks at carriers up to a second later.
    Regex.Replace(state, @"(?m)^\d+: |NO-CARRIER,|state \w+|numqueues \d+| linkdown", "")

/// A server's namespace as a usual host is: a default route, no forwarding, rules of somebody else. Nobody else knows the
/// way to the clients' network.
let private withHost (clients: int) (body: Topology -> Vpn -> (string list -> int * string * string) -> unit) =
    needsRoot ()
    use topology = Topology.Create clients
    Shell.inside topology.Server "sysctl" [ "-q"; "-w"; "net.ipv4.ip_forward=0" ] |> ignore
    Shell.ip $"-n {topology.RemoteHost} route del {Topology.Pool}" |> ignore
    Shell.ip $"-n {topology.Server} route add default via {Topology.Remote} dev remote" |> ignore

    let others =
        [ "add table inet others"
          "add chain inet others input { type filter hook input priority 0; }"
          "add rule inet others input tcp dport 9 drop" ]

    for rule in others do
        Shell.inside topology.Server "nft" (List.ofArray (rule.Split ' ')) |> ignore

    // Carriers come up, and IPv6 addresses are checked for duplicates, for a second or two. There is one device for each
    // client, and one for the remote.
    let isSettled () =
        let addresses = Shell.inside topology.Server "ip" [ "address" ]

        Regex.Matches(addresses, @"\bstate UP\b").Count = clients + 1
        && not (addresses.Contains "tentative")

    Expect.isTrue (Wait.until patience isSettled) "the devices are ready"
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn (setUpIn topology.Server (Path.Combine(vpn.Folder, "server.yaml")))

let private must (code: int, output: string, error: string) =
    Expect.equal (code, error) (0, "") "it succeeds"
    output

/// Whether a TCP connection to a port of the server's host is accepted within two seconds.
let private accepts (topology: Topology) (client: string) (port: int) =
    use listening =
        Netns.run topology.Server (fun () ->
            let socket =
                new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)

            socket.Bind(IPEndPoint(IPAddress.Parse Topology.ServerInside, port))
            socket.Listen()
            socket)

    Netns.run client (fun () ->
        use socket =
            new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)

        socket.ConnectAsync(IPEndPoint(IPAddress.Parse Topology.ServerInside, port)).Wait(TimeSpan.FromSeconds 2.))

/// The inside address of each client of the server, in the order of the log.
let private insideAddresses (vpn: Vpn) =
    [ for found in Regex.Matches(vpn.Server.Log, @"inside address ([0-9.]+)") -> found.Groups[1].Value ]

let tests =
    testSequenced (
        testList
            "Host set-up"
            [ test "a server without root serves on a prepared host: NAT, isolation; and --undo leaves it as it was" {
                  withHost 2 (fun topology vpn setUp ->
                      let before = stateOf topology.Server
                      vpn.ServerUser <- Some 65534
                      let script = must (setUp [ "--print"; "--user"; "nobody" ])
                      Expect.stringContains script "masquerade" "the script"
                      Expect.equal (stateOf topology.Server) before "--print changes nothing"

                      must (setUp [ "--apply"; "--user"; "nobody" ]) |> ignore
                      let prepared = stateOf topology.Server
                      Expect.notEqual prepared before "--apply does"
                      must (setUp [ "--apply"; "--user"; "nobody" ]) |> ignore
                      Expect.equal (stateOf topology.Server) prepared "a second time changes nothing more"

                      vpn.LaunchServer()
                      vpn.Server.Await patience "it serves" (fun () -> vpn.Server.Log.Contains "serving ")
                      vpn.StartClient()
                      vpn.AwaitOnline()
                      Expect.isFalse (vpn.Server.Log.Contains "don't fit") "the MTU fits"

                      let remote =
                          { Netns = topology.RemoteHost
                            Address = Topology.Remote }

                      expectIntact (Transfer.download remote topology.Client (megabytes 20L)) (megabytes 20L)

                      // The clients know the way to each other.
                      let first, second = topology.Clients[0], topology.Clients[1]

                      for client in [ first; second ] do
                          Shell.ip $"-n {client} route add {Topology.Pool} dev {vpn.Device}" |> ignore

                      vpn.Server.Await patience "both are in its log" (fun () -> (insideAddresses vpn).Length >= 2)
                      let addresses = insideAddresses vpn
                      Expect.hasLength addresses 2 "two clients"

                      /// Answers to pings from the first client to either address: one of them is its own.
                      let pings () =
                          [ for address in addresses -> Transfer.ping first address 2 56 ] |> List.sum

                      let soon condition meaning =
                          Expect.isTrue (Wait.until patience condition) meaning

                      Expect.equal (pings ()) 0 "clients are kept apart"
                      soon (fun () -> Transfer.ping first Topology.ServerInside 1 56 = 1) "the host answers a ping"
                      soon (fun () -> accepts topology first 53) "and DNS"
                      Expect.isFalse (accepts topology first 8080) "and nothing else"

                      must (
                          setUp [ "--apply"; "--user"; "nobody"; "--allow-client-to-client"; "--allow-client-to-host" ]
                      )
                      |> ignore

                      soon (fun () -> pings () >= 2) "unless the operator allows it"
                      soon (fun () -> accepts topology first 8080) "unless the operator allows it"

                      for client in vpn.Clients do
                          client.Stop() |> ignore

                      Expect.isTrue (vpn.Server.Stop()) "the server ends"
                      must (setUp [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before"
                      Expect.stringContains (must (setUp [ "--undo" ])) "nothing was set up" "once only"
                      Expect.equal (stateOf topology.Server) before "as before")
              }

              test "what --print shows does what --apply does" {
                  withHost 1 (fun topology _ setUp ->
                      let before = stateOf topology.Server
                      let script = Path.Combine(topology.Folder, "script")
                      File.WriteAllText(script, must (setUp [ "--print"; "--user"; "nobody" ]))
                      must (setUp [ "--apply"; "--user"; "nobody" ]) |> ignore
                      let applied = stateOf topology.Server
                      must (setUp [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before"
                      Shell.inside topology.Server "sh" [ "-e"; script ] |> ignore
                      Expect.equal (stateOf topology.Server) applied "the same")
              }

              test "a device that the operator has made is used, and is as before after --undo" {
                  withHost 1 (fun topology vpn setUp ->
                      let queues =
                          if Environment.ProcessorCount > 1 then
                              " multi_queue"
                          else
                              ""

                      Shell.ip $"-n {topology.Server} tuntap add dev {vpn.Device} mode tun{queues}" |> ignore
                      Shell.ip $"-n {topology.Server} link set {vpn.Device} mtu 1400 up" |> ignore
                      Shell.ip $"-n {topology.Server} address add 203.0.113.200/32 dev {vpn.Device}" |> ignore
                      let before = stateOf topology.Server
                      must (setUp [ "--apply" ]) |> ignore
                      let prepared = stateOf topology.Server
                      Expect.stringContains prepared "mtu 1350" "the MTU"
                      Expect.stringContains prepared "10.125.0.2/16" "the address"
                      must (setUp [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before")
              }

              test "a step that fails is named, nothing after it is done, and --undo takes back the rest" {
                  withHost 1 (fun topology vpn _ ->
                      let before = stateOf topology.Server

                      let folder =
                          Directory.CreateDirectory(Path.Combine(topology.Folder, "bin")).FullName

                      let nft = Path.Combine(folder, "nft")
                      File.WriteAllText(nft, "#!/bin/sh\necho no such rule >&2\nexit 1\n")
                      Shell.run "chmod" [ "755"; nft ] |> ignore
                      let file = Path.Combine(vpn.Folder, "server.yaml")

                      let struct (code, _, error) =
                          Shell.tryRun
                              "ip"
                              [ "netns"
                                "exec"
                                topology.Server
                                "env"
                                "PATH=" + folder + ":" + Environment.GetEnvironmentVariable "PATH"
                                Programs.OfThisBuild().Server
                                "setup-host"
                                "--apply"
                                "-c"
                                file ]

                      Expect.equal code 1 "failed"
                      Expect.stringContains error "nft -f -" "the step"
                      Expect.stringContains error "no such rule" "the reason"
                      Expect.stringContains error "--undo" "the remedy"
                      let state = stateOf topology.Server
                      Expect.stringContains state "net.ipv4.ip_forward = 0" "nothing is forwarded without rules"
                      Expect.stringContains state vpn.Device "what was done before is there"
                      must (setUpIn topology.Server file [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before")
              }

              test "two servers on one host: what they share goes with the second one" {
                  withHost 1 (fun topology vpn setUp ->
                      let before = stateOf topology.Server
                      let other = Path.Combine(vpn.Folder, "other.yaml")
                      let text = File.ReadAllText(Path.Combine(vpn.Folder, "server.yaml"))

                      File.WriteAllText(
                          other,
                          text.Replace("tun_name: lightway", "tun_name: other").Replace("10.125.", "10.126.")
                      )

                      let setUpOther = setUpIn topology.Server other
                      must (setUp [ "--apply" ]) |> ignore
                      must (setUpOther [ "--apply" ]) |> ignore
                      must (setUp [ "--undo" ]) |> ignore
                      let state = stateOf topology.Server
                      Expect.stringContains state "net.ipv4.ip_forward = 1" "the other one still forwards"
                      Expect.stringContains state "lightway_other" "by its rules"
                      Expect.isFalse (state.Contains "lightway_lightway") "the first one's are gone"
                      must (setUpOther [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before")
              }

              test "MTU and NAT as the operator wants them; without a default route the rest is done, and that is said" {
                  withHost 1 (fun topology _ setUp ->
                      Shell.ip $"-n {topology.Server} route del default" |> ignore
                      let before = stateOf topology.Server
                      let said = must (setUp [ "--apply"; "--mtu"; "1280"; "--no-nat" ])
                      Expect.stringContains said "no default route" "what is not done"
                      let state = stateOf topology.Server
                      Expect.stringContains state "mtu 1280" "the MTU"
                      Expect.isFalse (state.Contains "masquerade") "no NAT"
                      Expect.stringContains state "ip saddr != 10.125.0.0/16 drop" "but the other rules"
                      Expect.stringContains state "net.ipv4.ip_forward = 1" "and forwarding"
                      must (setUp [ "--apply" ]) |> ignore
                      let state = stateOf topology.Server
                      Expect.stringContains state "mtu 1350" "by default"
                      Expect.stringContains state "masquerade" "by default"
                      must (setUp [ "--undo" ]) |> ignore
                      Expect.equal (stateOf topology.Server) before "as before")
              }

              test "without root, with a device of another kind: one line, and nothing is changed" {
                  withHost 1 (fun topology vpn setUp ->
                      let before = stateOf topology.Server

                      for folder in [ topology.Folder; vpn.Folder ] do
                          Shell.run "chmod" [ "a+x"; folder ] |> ignore

                      let file = Path.Combine(vpn.Folder, "server.yaml")
                      Shell.run "chmod" [ "a+r"; file ] |> ignore

                      let asNobody action =
                          let struct (code, output, error) =
                              Shell.tryRun
                                  "ip"
                                  [ "netns"
                                    "exec"
                                    topology.Server
                                    "setpriv"
                                    "--reuid"
                                    "65534"
                                    "--clear-groups"
                                    Programs.OfThisBuild().Server
                                    "setup-host"
                                    action
                                    "-c"
                                    file ]

                          code, output, error

                      let refused (code: int, _: string, error: string) (words: string list) =
                          Expect.equal code 2 error
                          Expect.hasLength (error.TrimEnd().Split '\n') 1 "one line"

                          for word in words do
                              Expect.stringContains error word "the reason"

                          Expect.equal (stateOf topology.Server) before "nothing is changed"

                      refused (asNobody "--apply") [ "root" ]
                      Expect.stringContains (must (asNobody "--print")) "masquerade" "but anybody may see it"
                      refused (setUp [ "--apply"; "--user"; "no-such-user" ]) [ "useradd" ]
                      refused (setUp [ "--apply"; "--uplink"; "nowhere" ]) [ "nowhere"; "--uplink" ]
                      vpn.SetServer [ "tun_name", "remote" ]
                      refused (setUp [ "--apply" ]) [ "remote"; "not a TUN device" ])
              } ]
    )

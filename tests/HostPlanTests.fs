/// What `setup-host` decides, against a model of a host that obeys its commands.
module Lightway.Tests.HostPlanTests

open System
open System.Net
open Expecto
open Lightway.Options
open Lightway.Server.Host
open Lightway.Tests.OptionRuns

let private request: HostRequest =
    { Device = "lightway"
      Address = IPAddress.Parse "10.125.0.2"
      Pool = IPNetwork.Parse "10.125.0.0/16"
      Mtu = 1350
      MultiQueue = true
      Owner = "vpn"
      OwnerId = 999u
      SocketBuffer = 15_728_640L
      WantsUdpSuperpackets = true
      Uplink = "eth0"
      Nat = true
      ClientToClient = false
      ClientToHost = false }

/// A host on which nothing has been done.
let private bare: HostFacts =
    { IsRoot = true
      Missing = []
      Device = None
      IsUplinkThere = true
      Sysctls = Map [ "net.ipv4.ip_forward", 0L; "net.core.rmem_max", 212_992L; "net.core.wmem_max", 212_992L ]
      GroForwarding = "off"
      HasTable = false }

/// A TUN device as ip(8) makes it.
let private fresh: HostDevice =
    { IsTun = true
      IsPersistent = true
      IsMultiQueue = true
      Owner = 999L
      Mtu = 1500
      TxQueueLen = 500
      IsUp = false
      Addresses = []
      HasPoolRoute = false }

/// The host after a command. Fails on a command that is not of this server's own things.
let private obey (request: HostRequest) (facts: HostFacts) (step: HostStep) : HostFacts =
    let device = request.Device

    let onDevice (change: HostDevice -> HostDevice) =
        { facts with
            Device = Some(change facts.Device.Value) }

    match List.ofSeq step.Command with
    | [] -> facts
    | "ip" :: "tuntap" :: "add" :: "dev" :: name :: "mode" :: "tun" :: rest when name = device && facts.Device.IsNone ->
        { facts with
            Device =
                Some
                    { fresh with
                        IsMultiQueue = List.contains "multi_queue" rest
                        Owner = if List.contains "user" rest then 999L else -1L } }
    | [ "ip"; "link"; "set"; "dev"; name; "mtu"; mtu ] when name = device ->
        onDevice (fun found -> { found with Mtu = int mtu })
    | [ "ip"; "link"; "set"; "dev"; name; "txqueuelen"; length ] when name = device ->
        onDevice (fun found -> { found with TxQueueLen = int length })
    | [ "ip"; "link"; "set"; "dev"; name; "up" ] when name = device ->
        onDevice (fun found ->
            { found with
                IsUp = true
                // The kernel makes the route of an address, net/ipv4/fib_frontend.c.
                HasPoolRoute = found.HasPoolRoute || List.contains "10.125.0.2/16" found.Addresses })
    | [ "ip"; "link"; "set"; "dev"; name; "down" ] when name = device ->
        onDevice (fun found ->
            { found with
                IsUp = false
                HasPoolRoute = false })
    | [ "ip"; "address"; "add"; address; "dev"; name ] when name = device ->
        onDevice (fun found ->
            { found with
                Addresses = found.Addresses @ [ address ]
                HasPoolRoute = found.HasPoolRoute || (found.IsUp && address = "10.125.0.2/16") })
    | [ "ip"; "address"; "del"; address; "dev"; name ] when name = device ->
        onDevice (fun found ->
            { found with
                Addresses = List.except [ address ] found.Addresses
                HasPoolRoute = found.HasPoolRoute && address <> "10.125.0.2/16" })
    | [ "ip"; "route"; "add"; _; "dev"; name ] when name = device && not facts.Device.Value.HasPoolRoute ->
        onDevice (fun found -> { found with HasPoolRoute = true })
    | [ "ip"; "route"; "del"; _; "dev"; name ] when name = device && facts.Device.Value.HasPoolRoute ->
        onDevice (fun found -> { found with HasPoolRoute = false })
    | [ "ip"; "link"; "delete"; "dev"; name ] when name = device -> { facts with Device = None }
    | [ "sysctl"; "-q"; "-w"; setting ] ->
        let parts = setting.Split '='
        let name, value = parts[0], int64 parts[1]
        Expect.isTrue (facts.Sysctls.ContainsKey name) "a setting that the host has"

        { facts with
            Sysctls = facts.Sysctls.Add(name, value) }
    | [ "ethtool"; "-K"; "eth0"; "rx-udp-gro-forwarding"; value ] -> { facts with GroForwarding = value }
    | [ "nft"; "-f"; "-" ] when step.Input = HostPlan.rules request -> { facts with HasTable = true }
    | [ "nft"; "delete"; "table"; "inet"; "lightway_lightway" ] when facts.HasTable -> { facts with HasTable = false }
    | other -> failtestf "nobody asked for %A" other

let private apply request facts =
    match HostPlan.apply (request, facts) with
    | Ok(struct (steps, record)) -> List.fold (obey request) facts steps, steps, record
    | Error problem -> failtestf "refused: %s" problem

let private undo (request: HostRequest) record facts =
    HostPlan.undo (request.Device, record, facts) |> List.fold (obey request) facts

/// Hosts of all kinds that a set-up may find.
let private hosts =
    [ for device in
          [ None
            Some fresh
            Some { fresh with Mtu = 1350; IsUp = true }
            Some
                { fresh with
                    TxQueueLen = 10_000
                    Addresses = [ "192.0.2.1/24"; "10.125.0.2/16" ]
                    IsUp = true
                    HasPoolRoute = true }
            Some
                { fresh with
                    Addresses = [ "192.0.2.1/24" ]
                    IsUp = true } ] do
          for forward in [ 0L; 1L ] do
              for buffer in [ 212_992L; 15_728_640L; 99_999_999L ] do
                  for gro in [ "on"; "off"; null ] do
                      for missing in [ []; [ "ethtool" ] ] do
                          { bare with
                              Device = device
                              Sysctls =
                                  bare.Sysctls.Add("net.ipv4.ip_forward", forward).Add("net.core.rmem_max", buffer)
                              GroForwarding = if missing = [] then gro else null
                              Missing = missing } ]

let private requests =
    [ request
      { request with
          ClientToClient = true
          ClientToHost = true }
      { request with Address = null }
      { request with
          Address = IPAddress.Parse "192.0.2.77" }
      { request with
          SocketBuffer = 0L
          WantsUdpSuperpackets = false }
      { request with Nat = false }
      { request with Uplink = null } ]

let private plan =
    testList
        "Plan"
        [ test "a host that was set up is as wanted: a second time only the table is replaced, by the same" {
              for request in requests do
                  for host in hosts do
                      let after, _, _ = apply request host
                      let again, steps, _ = apply request after
                      Expect.equal again after "nothing changes"

                      let commands =
                          steps
                          |> List.filter (fun step -> step.Command.Count > 0)
                          |> List.map (fun step -> step.Command[0])

                      Expect.equal commands [ "nft" ] "one step"
          }

          test "what is set up is there: queues, owner, MTU, queue length, address, route, forwarding, buffers" {
              for host in hosts do
                  let after, _, _ = apply request host
                  let device = after.Device.Value
                  Expect.equal (device.Mtu, device.TxQueueLen, device.IsUp) (1350, 10_000, true) "the link"
                  Expect.contains device.Addresses "10.125.0.2/16" "the address"
                  Expect.isTrue device.HasPoolRoute "the route"
                  Expect.equal (device.IsMultiQueue, device.Owner) (true, 999L) "the device"
                  Expect.equal after.Sysctls["net.ipv4.ip_forward"] 1L "forwarding"
                  Expect.isGreaterThanOrEqual after.Sysctls["net.core.rmem_max"] 15_728_640L "never lowered"
                  Expect.isTrue after.HasTable "the table"

              for address in [ null; IPAddress.Parse "192.0.2.77" ] do
                  let after, _, _ = apply { request with Address = address } bare
                  Expect.isTrue after.Device.Value.HasPoolRoute "a route without an address of the pool"
          }

          test "what was set up, once or twice, is taken back, and the host is as before" {
              for request in requests do
                  for host in hosts do
                      let after, _, record = apply request host
                      Expect.equal (undo request record after) host "once"
                      let again, _, second = apply request after
                      Expect.equal (undo request (HostPlan.merge (record, second)) again) host "twice"
          }

          test "what was set up in two parts is taken back to the beginning" {
              for host in hosts do
                  let first =
                      { request with
                          Mtu = 1280
                          SocketBuffer = 1_000_000L }

                  let middle, _, one = apply first host
                  let after, _, two = apply request middle
                  Expect.equal (undo request (HostPlan.merge (one, two)) after) host "as before the first one"
          }

          test "what somebody has changed since stays" {
              let after, _, record =
                  apply
                      { request with Owner = null }
                      { bare with
                          Device = Some { fresh with Owner = -1L } }

              let changed =
                  { after with
                      Device =
                          Some
                              { after.Device.Value with
                                  Mtu = 1400
                                  TxQueueLen = 77 }
                      Sysctls = after.Sysctls.Add("net.core.rmem_max", 50_000_000L)
                      GroForwarding = "off"
                      HasTable = false }

              let back = undo request record changed
              Expect.equal (back.Device.Value.Mtu, back.Device.Value.TxQueueLen) (1400, 77) "the link"
              Expect.equal back.Sysctls["net.core.rmem_max"] 50_000_000L "a setting"
              Expect.equal back.Sysctls["net.core.wmem_max"] 212_992L "the others are taken back"
              Expect.isEmpty back.Device.Value.Addresses "so is the address"
          }

          test "without a record nothing is taken back" {
              for host in hosts do
                  Expect.isEmpty (HostPlan.undo ("lightway", [], host)) "no step"
          }

          test "while another server is set up, the settings of the host stay, and go with the last one" {
              let record before since =
                  [ { Key = "sysctl:net.core.rmem_max"
                      Before = before
                      Since = since } ]

              for first, second in [ record "1" "5", record "5" "9"; record "5" "9", record "1" "5" ] do
                  Expect.equal (HostPlan.handOver (first, second)) (record "1" "9") "whichever goes first"

              let table =
                  { Key = "table"
                    Before = "-"
                    Since = "x" }

              Expect.equal (HostPlan.handOver (record "1" "5", [ table ])) (table :: record "1" "5") "added"
              Expect.equal (List.filter HostPlan.isShared (table :: record "1" "5")) (record "1" "5") "what is shared"
          }

          test "a device that does not fit is refused, with the remedy" {
              let refusal (device: HostDevice) =
                  match HostPlan.apply (request, { bare with Device = Some device }) with
                  | Ok _ -> failtest "not refused"
                  | Error problem -> problem

              expectAll (refusal { fresh with IsTun = false }) [ "not a TUN device"; "tun_name" ]
              expectAll (refusal { fresh with IsPersistent = false }) [ "ends"; "ip link delete dev lightway" ]
              expectAll (refusal { fresh with IsMultiQueue = false }) [ "one queue"; "ip link delete dev lightway" ]
              expectAll (refusal { fresh with Owner = 5L }) [ "user vpn"; "ip link delete dev lightway" ]
              expectAll (refusal { fresh with Owner = -1L }) [ "user vpn" ]

              match HostPlan.apply (request, { bare with IsUplinkThere = false }) with
              | Ok _ -> failtest "not refused"
              | Error problem -> expectAll problem [ "eth0"; "--uplink" ]
          }

          test "before there is a default route, all is done but what concerns the uplink, and that is said" {
              let facts =
                  { bare with
                      IsUplinkThere = false
                      GroForwarding = null }

              let after, steps, _ = apply { request with Uplink = null } facts
              let known, _, _ = apply request bare
              Expect.equal (after.Device, after.Sysctls, after.HasTable) (known.Device, known.Sysctls, true) "all else"

              let remarks =
                  steps |> List.filter (fun step -> step.Command.Count = 0) |> List.map _.Reason

              expectAll (List.exactlyOne remarks) [ "no default route"; "--uplink" ]
          }

          test "what is missing is named, with the package that has it" {
              for facts, words in
                  [ { bare with IsRoot = false }, [ "root"; "--print" ]
                    { bare with Missing = [ "nft" ] }, [ "apt-get install nftables" ]
                    { bare with Missing = [ "ip" ] }, [ "apt-get install iproute2" ]
                    { bare with Missing = [ "sysctl" ] }, [ "apt-get install procps" ] ] do
                  expectAll (HostPlan.obstacle facts) words

              Expect.isNull (HostPlan.obstacle { bare with Missing = [ "ethtool" ] }) "not needed"

              let _, steps, _ =
                  apply
                      request
                      { bare with
                          Missing = [ "ethtool" ]
                          GroForwarding = null }

              Expect.exists steps (fun step -> step.Command.Count = 0 && step.Reason.Contains "ethtool") "a remark"
          }

          test "devices have tables of their own, by names that nft takes" {
              let names = [ "a-b"; "a_b"; "a.b"; "a_mb"; "a__b"; "a_pb"; "ab"; "0" ]
              let tables = names |> List.map HostPlan.tableOf
              Expect.equal (List.distinct tables).Length names.Length "different"

              for table in tables do
                  Expect.isTrue (table |> Seq.forall (fun c -> Char.IsAsciiLetterOrDigit c || c = '_')) table
          }

          test "names that a program would take for something else are not plain" {
              for name in [ "lightway"; "a-b.c_d"; "tun0"; "7" ] do
                  Expect.isTrue (HostPlan.isPlainName name) name

              for name in [ ""; "-x"; "."; ".."; "a*"; "a\"b"; "a$b"; "a b"; "tun%d"; "a;b"; "a'b"; "ü"; "a\n" ] do
                  Expect.isFalse (HostPlan.isPlainName name) name
          } ]

let private script =
    let linesOf command input =
        HostPlan.lines
            { Reason = "Why."
              Command = Array.ofList command
              Input = input }
        |> List.ofSeq

    testList
        "Script"
        [ test "a step is a comment and a command that a shell reads as the same words" {
              Expect.equal (linesOf [ "ip"; "link"; "set"; "x" ] "") [ "# Why."; "ip link set x" ] "plain"

              Expect.equal
                  (linesOf [ "a"; "b c"; "d'e"; ""; "$x"; "*" ] "")
                  [ "# Why."; "a 'b c' 'd'\\''e' '' '$x' '*'" ]
                  "quoted"

              Expect.equal (linesOf [] "") [ "# Why." ] "a remark"

              Expect.equal
                  (linesOf [ "nft"; "-f"; "-" ] "one\ntwo\n")
                  [ "# Why."; "nft -f - <<'END'"; "one"; "two"; "END" ]
                  ""
          }

          test "a record is read as it was written, and nothing else is taken for one" {
              for host in hosts do
                  let _, _, record = apply request host
                  Expect.equal (HostPlan.read (HostPlan.write record)) record "the same"

              for text in [ ""; "\n\n"; "a b"; "a b c d"; "\u0000" ] do
                  Expect.isEmpty (HostPlan.read text) text
          }

          test "the rules isolate clients and the host, unless they are allowed" {
              let rules = HostPlan.rules request
              Expect.stringContains rules "iifname \"lightway\" oifname \"lightway\" drop" "clients"
              Expect.stringContains rules "hook input" "the host"

              let open' =
                  HostPlan.rules
                      { request with
                          ClientToClient = true
                          ClientToHost = true }

              Expect.isFalse (open'.Contains "oifname \"lightway\" drop") "clients are allowed"
              Expect.isFalse (open'.Contains "hook input") "the host is allowed"

              let routed = HostPlan.rules { request with Nat = false }
              Expect.isFalse (routed.Contains "masquerade") "no NAT, if the operator routes"
              Expect.stringContains routed "ip saddr != 10.125.0.0/16 drop" "forged addresses"
              Expect.stringContains routed "iifname \"lightway\" oifname \"lightway\" drop" "clients"

              for text in [ rules; open' ] do
                  Expect.stringContains text "ip saddr 10.125.0.0/16 oifname != \"lightway\" masquerade" "NAT"
                  Expect.stringContains text "ip saddr != 10.125.0.0/16 drop" "forged addresses"
          } ]

let private reading =
    testList
        "Reading"
        [ test "the uplink is the device of the default route with the lowest metric" {
              let heading =
                  "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT"

              let route device destination metric mask =
                  $"{device}\t{destination}\t0100A8C0\t0003\t0\t0\t{metric}\t{mask}\t0\t0\t0"

              let lines =
                  [ heading
                    route "wlan0" "00000000" 600 "00000000"
                    route "eth0" "00000000" 100 "00000000"
                    route "tun0" "00000000" 0 "00000080" // 0.0.0.0/1
                    route "eth1" "0000A8C0" 0 "00FFFFFF" ]

              Expect.equal (HostReader.DefaultUplinkIn(String.Join("\n", lines))) "eth0" "the lowest metric"

              for none in
                  [ ""; heading; heading + "\n\n"; String.Join("\n", [ heading; lines[3]; lines[4]; "nonsense" ]) ] do
                  Expect.isNull (HostReader.DefaultUplinkIn none) "no default route"
          }

          test "a feature that can't be changed is not known" {
              let output value =
                  $"Features for eth0:\nrx-gro-list: off\nrx-udp-gro-forwarding: {value}\nhw-tc: off [fixed]\n"

              Expect.equal (HostReader.GroForwardingIn(output "off")) "off" ""
              Expect.equal (HostReader.GroForwardingIn(output "on")) "on" ""
              Expect.isNull (HostReader.GroForwardingIn(output "off [fixed]")) "fixed"
              Expect.isNull (HostReader.GroForwardingIn "") "no ethtool"
          }

          test "the MTU is the recommended one, or what fits the uplink" {
              let server mode bind =
                  let expresslane = if mode = "tcp" then "false" else "true"

                  let flags =
                      [ "--mode"; mode; "--bind-address"; bind; "--enable-expresslane"; expresslane ]

                  run (OptionRuns.server flags [] least)

              let udp = server "udp" "0.0.0.0:1"

              let found =
                  [ for mtu in [ 9000; 1500; 1420; 576; 60 ] -> SetUpHost.MtuFor(mtu, udp) ]

              Expect.equal found [ 1350; 1350; 1336; 492; 68 ] "84 bytes are around a packet"
              Expect.equal (SetUpHost.MtuFor(1400, server "udp" "[::]:1")) 1296 "104 over IPv6"
              Expect.equal (SetUpHost.MtuFor(576, server "tcp" "0.0.0.0:1")) 1350 "a stream carries any length"
          } ]

let private commandLine =
    let parse (argv: string list) =
        ServerOptions.Parse(Array.ofList ("setup-host" :: argv), Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

    test "the command line needs one action and a file" {
        let least: HostOptions =
            { Action = HostAction.Apply
              ConfigFile = "x"
              Uplink = null
              User = null
              Mtu = 0
              Nat = true
              ClientToClient = false
              ClientToHost = false }

        Expect.equal (parse [ "--apply"; "-c"; "x" ]).Host least "the defaults"

        for flags, wanted in
            [ [ "--user"; "vpn" ], { least with User = "vpn" }
              [ "--uplink"; "eth0" ], { least with Uplink = "eth0" }
              [ "--mtu"; "1280" ], { least with Mtu = 1280 }
              [ "--no-nat" ], { least with Nat = false }
              [ "--allow-client-to-client" ], { least with ClientToClient = true }
              [ "--allow-client-to-host" ], { least with ClientToHost = true } ] do
            Expect.equal (parse ([ "--apply"; "-c"; "x" ] @ flags)).Host wanted $"{flags}"

        for argv, words in
            [ [ "-c"; "x" ], [ "--print" ]
              [ "--print"; "--apply"; "-c"; "x" ], [ "--undo" ]
              [ "--print" ], [ "--config-file" ]
              [ "--print"; "-c"; "x"; "--user"; "-rf" ], [ "user" ]
              [ "--print"; "-c"; "x"; "--uplink"; "e\"0" ], [ "uplink" ]
              [ "--print"; "-c"; "x"; "--mtu"; "67" ], [ "mtu"; "68" ] ] do
            expectAll (refusal (parse argv)) words

        Expect.equal (parse [ "--help" ]).Kind OutcomeKind.Help "a page of its own"
    }

let tests = testList "Host plan" [ plan; script; reading; commandLine ]

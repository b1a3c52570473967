/// Offload that is switched off, refused or handed over by another user, and workers: the real programs in real
/// namespaces. Whatever is out of use, the same bytes arrive. Needs root.
module Lightway.Tests.OffloadTests

open System
open System.Text.RegularExpressions
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = [ "workers", "1" ]
      ClientKeys = [] }

/// A set-up of its own for one test, in which nothing may arrive with a wrong checksum.
let private withVpn clientCount settings (body: Topology -> Vpn -> unit) =
    needsRoot ()
    use topology = Topology.Create clientCount
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

    for netns in topology.Server :: topology.RemoteHost :: topology.Clients do
        Expect.equal (checksumErrors netns) 0L $"InCsumErrors of {netns}"

let private remote (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

/// TCP both ways, one after the other, byte for byte.
let private expectTcp (topology: Topology) length =
    expectIntact (Transfer.download (remote topology) topology.Client length) length
    expectIntact (Transfer.upload (remote topology) topology.Client length) length

/// UDP in bursts both ways, one after the other, whole datagrams.
let private expectUdp (topology: Topology) =
    for isDownload in [ true; false ] do
        let result = Transfer.udpBursts (remote topology) topology.Client isDownload 30
        Expect.equal result.Corrupt 0 "datagrams altered"
        Expect.equal result.Arrived result.Sent "datagrams that arrived"

/// What both programs counted while `body` ran: growth by program and name.
let private during (vpn: Vpn) (body: unit -> unit) : string -> string -> int64 =
    let read () =
        [ "server", vpn.Read(); "client", vpn.ReadClients().Value.Head ]

    let before = read ()
    body ()
    let after = Map(read ())

    fun program name ->
        let earlier = before |> List.find (fun (name, _) -> name = program) |> snd
        after[program].Since earlier name

let private programs = [ "server"; "client" ]

/// The counters that show whether an offload was in use.
let private uses =
    [ "superpackets_read"; "tun_superpackets_written"; "udp_gso_sends"; "udp_gro_receives" ]

/// Whether an offload is in use with a switch: Some true, Some false, or None where it depends on the other end's sends.
let private isInUse switch traffic counter =
    match switch, traffic, counter with
    | "disable_tun_tso", _, "superpackets_read"
    | "disable_tun_gro_tcp", "TCP", "tun_superpackets_written"
    | "disable_tun_gro_udp", "UDP", "tun_superpackets_written"
    | "disable_udp_gso", _, "udp_gso_sends"
    | "disable_udp_gro", _, "udp_gro_receives" -> Some false
    | "disable_udp_gso", _, "udp_gro_receives" -> None // a veth pair hands over what was sent in one piece
    | _ -> Some true

let private switches =
    [ for switch in
          [ "none"
            "disable_tun_tso"
            "disable_tun_gro_tcp"
            "disable_tun_gro_udp"
            "disable_udp_gso"
            "disable_udp_gro" ] do
          test $"switched off on both sides: {switch}; the other offloads are in use, TCP and UDP arrive" {
              if Environment.OSVersion.Version < System.Version(6, 2) then
                  skiptest "a TUN device knows UDP superpackets since Linux 6.2"

              let keys = if switch = "none" then [] else [ switch, "true" ]

              let settings =
                  { settings with
                      ServerKeys = settings.ServerKeys @ keys
                      ClientKeys = keys }

              withVpn 1 settings (fun topology vpn ->
                  vpn.Start()

                  for traffic, send in
                      [ "TCP", (fun () -> expectTcp topology (megabytes 20L)); "UDP", (fun () -> expectUdp topology) ] do
                      let growth = during vpn send

                      for program in programs do
                          for counter in uses do
                              let label = $"{traffic}, {program}: {counter}"

                              match isInUse switch traffic counter with
                              | Some true -> Expect.isGreaterThan (growth program counter) 0L label
                              | Some false -> Expect.equal (growth program counter) 0L label
                              | None -> ())
          } ]

let private ethtool (netns: string) (arguments: string list) =
    Shell.inside netns "ethtool" ("-K" :: arguments) |> ignore

let private ends (topology: Topology) = [ topology.Server; topology.Client ]

let private refusals =
    [ test "devices outside without checksum offload or segmentation, both directions" {
          withVpn 1 settings (fun topology vpn ->
              for netns in ends topology do
                  [ "tx"; "tso"; "gso"; "tx-udp-segmentation" ]
                  |> List.collect (fun feature -> [ feature; "off" ])
                  |> fun features -> ethtool netns ("outside" :: features)

              vpn.Start()
              expectTcp topology (megabytes 20L)
              expectUdp topology)
      }

      test "TUN devices without checksum offload or segmentation, both directions" {
          withVpn 1 settings (fun topology vpn ->
              vpn.Start()

              for netns in ends topology do
                  ethtool netns [ vpn.Device; "tx"; "off"; "tso"; "off" ]

              let growth =
                  during vpn (fun () ->
                      expectTcp topology (megabytes 20L)
                      expectUdp topology)

              for program in programs do
                  Expect.equal (growth program "superpackets_read") 0L $"{program}: the kernel cut them"
                  Expect.isGreaterThan (growth program "udp_gso_sends") 0L $"{program}: they left together again")
      }

      test "a path too small for the datagrams, both directions" {
          withVpn 1 settings (fun topology vpn ->
              for netns in ends topology do
                  Shell.ip $"-n {netns} link set outside mtu 1300" |> ignore

              vpn.Start()
              let growth = during vpn (fun () -> expectTcp topology (megabytes 20L))

              for program in programs do
                  // EMSGSIZE; EINVAL of older kernels.
                  let refused = growth program "udp_gso_too_big" + growth program "udp_gso_fallbacks"
                  Expect.isGreaterThan refused 0L $"{program}: segments refused"
                  Expect.equal (growth program "udp_send_too_big") 0L $"{program}: datagrams lost for it")
      }

      test "segments so small that a superpacket has more than 128 of them, both directions" {
          withVpn 1 settings (fun topology vpn ->
              vpn.Start()
              // What either end offers to take, the other one may send at most: 76 bytes and the timestamps.
              Shell.ip $"-n {topology.Client} route replace {Topology.RemoteNetwork} dev {vpn.Device} advmss 88"
              |> ignore

              Shell.ip $"-n {topology.RemoteHost} route replace {Topology.Pool} via {Topology.ServerInside} advmss 88"
              |> ignore

              let growth = during vpn (fun () -> expectTcp topology (megabytes 10L))

              for program in programs do
                  let mean many one =
                      growth program many / max 1L (growth program one)

                  Expect.isGreaterThan (mean "segments_built" "superpackets_read") 128L $"{program}: segments a read"

                  Expect.isGreaterThan
                      (mean "tun_segments_written" "tun_superpackets_written")
                      16L
                      $"{program}: a write")
      } ]

let private user = 65534 // nobody; any that is not root

/// A persistent device that belongs to the user, with its address, as an operator makes it.
let private makeDevice (topology: Topology) (vpn: Vpn) (flags: string) =
    for command in
        [ $"tuntap add dev {vpn.Device} mode tun user {user}{flags}"
          $"addr add 10.125.0.2/16 dev {vpn.Device}"
          $"link set {vpn.Device} mtu 1350 txqueuelen 10000 up" ] do
        Shell.ip $"-n {topology.Server} {command}" |> ignore

let private serve (vpn: Vpn) =
    vpn.LaunchServer()

    vpn.Server.Await (TimeSpan.FromSeconds 60.) "it serves" (fun () -> vpn.Server.Log.Contains "serving ")

let private stop (child: Child) =
    Expect.isTrue (child.Stop()) $"the {child.Name} ends by itself"

/// `CapEff` of a process (proc_pid_status(5)).
let private capabilities (child: Child) =
    Regex.Match(IO.File.ReadAllText $"/proc/{child.Pid}/status", @"CapEff:\s*([0-9a-f]+)").Groups[1].Value

let private withoutPrivilege keys (body: Topology -> Vpn -> unit) =
    let settings = { settings with ServerKeys = keys }

    withVpn 1 settings (fun topology vpn ->
        let program = Programs.OfThisBuild().Server

        match Shell.tryRun "setpriv" [ "--reuid"; string user; "--clear-groups"; "test"; "-x"; program ] with
        | struct (0, _, _) -> ()
        | _ -> skiptest $"user {user} may not run {program}"

        vpn.ServerUser <- Some user
        body topology vpn)

let private unprivileged =
    [ for name, keys, flags, workers in
          [ "one queue, one worker", [ "workers", "1" ], "", 1
            "one queue, as many workers as it has", [], "", 1
            "two workers", [ "workers", "2" ], " multi_queue", 2 ] do
          test $"a device of the server's user, no capability: {name}" {
              withoutPrivilege keys (fun topology vpn ->
                  makeDevice topology vpn flags
                  serve vpn
                  Expect.equal (capabilities vpn.Server) "0000000000000000" "CapEff"
                  vpn.Server.AwaitLog $"workers {workers};" "workers"

                  if List.isEmpty keys && Environment.ProcessorCount > 1 then
                      vpn.Server.AwaitLog "one worker only" "the log says why"

                  vpn.StartClient()
                  vpn.AwaitOnline()
                  let growth = during vpn (fun () -> expectTcp topology (megabytes 20L))

                  for counter in uses do
                      Expect.isGreaterThan (growth "server" counter) 0L counter)
          }

      test "a device of the server's user serves again, with offload and without" {
          withoutPrivilege [ "workers", "1" ] (fun topology vpn ->
              makeDevice topology vpn ""

              for offload in [ true; false ] do
                  vpn.SetServer [ "enable_tun_offload", (if offload then "true" else "false") ]
                  serve vpn
                  vpn.StartClient()
                  vpn.AwaitOnline()
                  let growth = during vpn (fun () -> expectTcp topology (megabytes 10L))
                  let superpackets = growth "server" "superpackets_read"
                  Expect.equal (superpackets > 0L) offload "superpackets came from the TUN"
                  stop vpn.Client
                  stop vpn.Server)
      }

      test "a device of the user that is not up: the server ends and names the command that brings it up" {
          withoutPrivilege [ "workers", "1" ] (fun topology vpn ->
              makeDevice topology vpn ""
              Shell.ip $"-n {topology.Server} link set {vpn.Device} down" |> ignore
              vpn.LaunchServer()
              Expect.isTrue (vpn.Server.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
              Expect.equal vpn.Server.ExitCode 1 "exit code"
              vpn.Server.AwaitLog $"SIOCSIFFLAGS {vpn.Device}" "what failed"
              vpn.Server.AwaitLog $"ip link set {vpn.Device} up" "the remedy")
      }

      test "without a device of its own, the user's server ends and names the remedy" {
          withoutPrivilege [ "workers", "1" ] (fun _ vpn ->
              vpn.LaunchServer()
              Expect.isTrue (vpn.Server.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
              Expect.equal vpn.Server.ExitCode 1 "exit code"
              vpn.Server.AwaitLog "CAP_NET_ADMIN, or a persistent device of this user" "the remedy")
      } ]

let private twoWorkers =
    { settings with
        ServerKeys = [ "workers", "2" ]
        ClientKeys = [ "keepalive_interval", "1s" ] }

/// The workers that the server's log names for these events, newest first: the remainders of session ids
/// (SessionIdSource).
let private workersOf (vpn: Vpn) (events: string) =
    Regex.Matches(vpn.Server.Log, $@"session [0-9a-f]{{8}}([0-9a-f]{{8}}): ({events})")
    |> Seq.map (fun found -> Convert.ToUInt32(found.Groups[1].Value, 16) % 2u)
    |> Seq.rev
    |> List.ofSeq

/// The kernel's hash says which worker has a new client. Until both have one, the clients start again, from other ports.
let private startOnBoth (vpn: Vpn) =
    vpn.Start()

    let mutable attempts = 1

    /// The lines come a moment after the clients are online.
    let inUse () =
        let count = vpn.Clients.Length

        Wait.until (TimeSpan.FromSeconds 30.) (fun () -> (workersOf vpn "online").Length >= attempts * count)
        |> ignore

        workersOf vpn "online" |> List.truncate count |> Set

    // Four clients have one worker in one of eight cases: always so, in one of 10^18 runs.
    while (inUse ()).Count < 2 && attempts < 20 do
        List.iter stop vpn.Clients
        vpn.StartClient()
        vpn.AwaitOnline()
        attempts <- attempts + 1

    Expect.equal (inUse ()) (Set [ 0u; 1u ]) "workers that have clients"

let private workers =
    [ test "two workers, four clients at once, both directions" {
          withVpn 4 twoWorkers (fun topology vpn ->
              startOnBoth vpn
              let length = megabytes 15L

              let transfers =
                  [ for netns in topology.Clients do
                        for transfer in [ Transfer.download; Transfer.upload ] do
                            Netns.start netns (fun () -> transfer (remote topology) netns length) ]

              for transfer in transfers do
                  expectIntact (transfer.GetAwaiter().GetResult()) length)
      }

      test "two workers: a client that moves from address to address keeps its session and its worker" {
          withVpn 1 twoWorkers (fun topology vpn ->
              vpn.Start()
              let client = topology.Client
              let length = megabytes 40L

              let start () =
                  Netns.start client (fun () -> Transfer.pacedDownload (remote topology) client length 20_000_000u)

              let mutable download = start ()
              let count name = vpn.Read().Counters[name]
              let addresses = [ for host in [ 2; 71; 72; 73; 74 ] -> $"192.0.2.{host}/24" ]

              for move, (left, taken) in List.indexed (List.pairwise addresses) do
                  if download.IsCompleted then
                      expectIntact (download.GetAwaiter().GetResult()) length
                      download <- start ()

                  Shell.ip $"-n {client} addr del {left} dev outside" |> ignore
                  Shell.ip $"-n {client} addr add {taken} dev outside" |> ignore

                  let isOver =
                      Wait.until (TimeSpan.FromSeconds 60.) (fun () ->
                          count "udp_session_rotation_finalized" > int64 move)

                  Expect.isTrue isOver $"the server followed to {taken} and changed the session id"

              expectIntact (download.GetAwaiter().GetResult()) length
              Expect.isGreaterThanOrEqual (count "udp_conn_recovered_via_session") 4L "moves"
              Expect.equal (count "conn_created") 1L "still the first connection"
              Expect.hasLength (workersOf vpn @"online|moved" |> Set.ofList) 1 "workers that have had the session")
      } ]

let tests =
    testSequenced (testList "Offload" (switches @ refusals @ unprivileged @ workers))

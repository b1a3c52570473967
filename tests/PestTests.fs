/// Pests against a real server in namespaces: what they cost others, by the server's own counters and by what honest clients
/// get. Needs root.
module Lightway.Tests.PestTests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Text
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open Expecto
open Lightway.Lab
open Lightway.Lab.Pests
open Lightway.Server.Auth
open Lightway.Tests.Checks

let private settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [] }

/// Addresses that the first and the second namespace have besides their own: 256 networks /24 each.
let private manyAddresses = [ "198.18.0.0/16"; "198.19.0.0/16" ]

let private address (netns: int) (network: int) (host: int) =
    IPAddress.Parse $"198.{18 + netns}.{network}.{host}"

/// A server, the pest in the first namespace, and in the second, which has other networks, whoever suffers.
type private Site(keys: (string * string) list) =
    let topology = Topology.Create 2

    let vpn =
        new Vpn(topology, Programs.OfThisBuild(), { settings with ServerKeys = keys })

    let target = lazy (Target.Read(Path.Combine(vpn.Folder, "client.yaml")))

    do
        for netns, network, gateway in
            [ topology.Clients[0], manyAddresses[0], Topology.ClientOutside
              topology.Clients[1], manyAddresses[1], "203.0.113.6" ] do
            Shell.ip $"-n {netns} route add local {network} dev lo" |> ignore
            Shell.ip $"-n {topology.Server} route add {network} via {gateway}" |> ignore

    member _.Topology = topology
    member _.Vpn = vpn
    member _.Target = target.Value

    member _.Remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    member _.Honest = topology.Clients[1]

    /// Gives the server other users, all with one password and a bcrypt hash of this cost; the CPU seconds of one check.
    member _.SetUsers (users: string list) (password: string) (cost: int) : float =
        let before = Environment.CpuUsage.TotalTime

        let hash =
            LibCrypt.Hash(ReadOnlySpan(Encoding.UTF8.GetBytes password), $"$2b${cost:D2}$abcdefghijklmnopqrstuu")

        Expect.isNotNull hash "libcrypt has bcrypt"
        let lines = users |> List.map (fun user -> $"{user}:{hash}")
        File.WriteAllLines(Path.Combine(vpn.Folder, "users.htpasswd"), lines)
        (Environment.CpuUsage.TotalTime - before).TotalSeconds

    member _.Start (kind: string) (plan: Plan) : Task<Tally> =
        Pest.start topology.Client kind target.Value plan

    /// How long a login takes that comes from the second namespace; none if it is not in after `patience`.
    member this.Login(patience: TimeSpan) : TimeSpan voption =
        Netns.run this.Honest (fun () ->
            use crowd = new Crowd(target.Value)
            let guest = crowd.Join()

            crowd.RunUntil(patience, (fun () -> guest.LoginTime.IsSome || guest.Closed.IsSome)) |> ignore

            guest.LoginTime)

    /// Resident memory of the server in MB (VmRSS, proc_pid_status(5)).
    member _.Megabytes: float =
        let status = File.ReadAllText $"/proc/{vpn.Server.Pid}/status"
        float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

    member _.Descriptors: int =
        Directory.GetFileSystemEntries($"/proc/{vpn.Server.Pid}/fd").Length

    /// Connections that the server has.
    member _.Connections: int64 =
        let counters = vpn.Read().Counters
        counters["conn_created"] - counters["conn_closed"]

    interface IDisposable with
        member _.Dispose() =
            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

let private withServer keys (body: Site -> unit) =
    needsRoot ()
    use site = new Site(keys)
    site.Vpn.StartServer()
    body site

let private plan (rate: float) (seconds: float) =
    { Plan.Standard with
        Rate = rate
        Duration = TimeSpan.FromSeconds seconds }

let private result (task: Task<'result>) = task.GetAwaiter().GetResult()

let private expectWithin (limit: float) (login: TimeSpan voption) =
    match login with
    | ValueSome time -> Expect.isLessThan time.TotalSeconds limit "seconds until it was online"
    | ValueNone -> failtest "a client that does everything right is not online"

/// Clients that log in at once, each with an address and a user of its own. One that is turned away, or has waited for its
/// patience, starts again without a word to the server. Ends when all are in, or when it is over; the number that are in.
let private logIn (site: Site) (password: string) (users: string list) (patience: TimeSpan) (isOver: unit -> bool) =
    Netns.run site.Honest (fun () ->
        use crowd = new Crowd(site.Target)

        let join number =
            crowd.Join(address 1 number 1, users[number], password, false)

        let guests = Array.init users.Length join
        let hasBeenIn = Array.create users.Length false

        let step () =
            for number in 0 .. users.Length - 1 do
                if guests[number].LoginTime.IsSome then
                    hasBeenIn[number] <- true
                elif guests[number].Closed.IsSome || guests[number].Age > patience then
                    crowd.Remove guests[number]
                    guests[number] <- join number

            Array.forall id hasBeenIn || isOver ()

        crowd.RunUntil(TimeSpan.FromMinutes 2.0, step) |> ignore
        hasBeenIn |> Array.filter id |> Array.length)

/// True once so much time has passed since this was called.
let private after (limit: TimeSpan) : unit -> bool =
    let clock = Stopwatch.StartNew()
    fun () -> clock.Elapsed > limit

let private strangers =
    [ test "100 000 ClientHellos per second from one host: a client of another network is online within 3 s" {
          withServer [] (fun site ->
              let flood = site.Start "hello" (plan 120_000.0 5.0)
              Thread.Sleep 1_000
              let login = site.Login(TimeSpan.FromSeconds 5.0)
              let tally = result flood
              expectWithin 3.0 login
              Expect.isGreaterThan tally.Sent 250_000L "it was a flood"
              Expect.equal (site.Vpn.Read().Counters["conn_created"]) 1L "nothing is kept of the hellos")
      }

      test
          "half-open handshakes from one host have a share of the places only, and a client of another network is in within 2 s" {
          withServer [ "half_open_limit", "512" ] (fun site ->
              let flood = site.Start "half-open" (plan 1_000.0 4.5)
              Thread.Sleep 3_000
              let standing = site.Connections
              let login = site.Login(TimeSpan.FromSeconds 5.0)
              let tally = result flood
              expectWithin 2.0 login
              Expect.isGreaterThan tally.Sent 50L "handshakes were begun"
              Expect.isLessThanOrEqual standing 128L "a quarter of the places at most")
      }

      test "half-open handshakes from 200 networks never exceed the limit, and a client of another one is in within 2 s" {
          withServer [ "half_open_limit", "512" ] (fun site ->
              let sources = [ for network in 0..199 -> address 0 network 1 ]

              let flood =
                  site.Start
                      "half-open"
                      { plan 1_000.0 6.0 with
                          Sources = sources }

              Thread.Sleep 4_000
              let standing = site.Connections
              let before = site.Megabytes
              let login = site.Login(TimeSpan.FromSeconds 5.0)
              let tally = result flood
              expectWithin 2.0 login
              Expect.isGreaterThan tally.Sent 1_000L "more handshakes were begun than there are places"
              Expect.isLessThanOrEqual standing 512L "places"

              Expect.isLessThan
                  (site.Megabytes - before)
                  30.0
                  "MB of growth while the places were taken again and again")
      }

      test "handshakes without a login end after 10 s, and their places are free" {
          withServer [] (fun site ->
              result (site.Start "link-up" (plan 20.0 1.0)) |> ignore
              Expect.isGreaterThan (site.Vpn.Read().Counters["conn_link_up"]) 10L "complete handshakes"
              let isEmpty () = site.Connections = 0L
              Expect.isTrue (Wait.until (TimeSpan.FromSeconds 14.0) isEmpty) "all are gone")
      }

      for cost in [ 10; 12 ] do
          test
              $"wrong passwords from one host, bcrypt cost {cost}: few of them are checked, and five of five clients of other networks get in" {
              needsRoot ()
              use site = new Site([])
              let honest = [ for number in 1..4 -> $"user{number}" ] @ [ site.Target.User ]
              site.SetUsers honest "right" cost |> ignore
              site.Vpn.StartServer()
              let flood = site.Start "login" (plan 100.0 6.0)
              Thread.Sleep 1_500

              let count =
                  logIn site "right" honest (TimeSpan.FromSeconds 30.0) (after (TimeSpan.FromSeconds 5.0))

              let tally = result flood
              Expect.isGreaterThan tally.Sent 100L "wrong passwords"
              Expect.equal count 5 "of five who have the right one, within 5 s"
              let refused = site.Vpn.Read().Counters["conn_rejected_access_denied"]
              Expect.isLessThanOrEqual refused 20L "wrong passwords that were checked"
          }

      // Clients wait for 30 s, so with a hash of a second a check that waits in line is often for one that has left. Here both
      // times are shorter. The limit is the server's CPU time: other programs on the machine change the rest.
      test "80 clients at once after a restart get in, and hardly any check is for one that has left" {
          needsRoot ()
          use site = new Site([])
          let users = [ for number in 1..80 -> $"user{number}" ]
          let hash = site.SetUsers users "right" 11
          site.Vpn.StartServer()
          let before = site.Vpn.Server.CpuSeconds
          let limit = 1.3 * 80.0 * hash + 5.0

          let isSpent () =
              site.Vpn.Server.CpuSeconds - before > limit

          let count = logIn site "right" users (TimeSpan.FromSeconds 4.0) isSpent
          Expect.equal count 80 $"of 80, for {limit:F1} s of CPU, {hash:F3} s each and 5 s for all handshakes"
      } ]

/// The pests of this list share a server with one worker and a client in either namespace.
let private insiders =
    let site =
        lazy
            (let site = new Site([ "workers", "1" ])
             site.Vpn.Start()
             site)

    /// Runs one, and shows what became of it: the tally, and the growth of a counter.
    let pest title kind (plan: Plan) (check: Site -> Tally -> (string -> int64) -> unit) =
        test title {
            needsRoot ()
            let site = site.Value
            let before = site.Vpn.Read()
            let descriptors, megabytes = site.Descriptors, site.Megabytes
            let tally = result (site.Start kind plan)
            let after = site.Vpn.Read()
            Expect.isGreaterThan tally.Sent 0L "it was a pest"
            check site tally (after.Since before)
            Expect.equal site.Descriptors descriptors "descriptors of the server"
            Expect.isLessThan (site.Megabytes - megabytes) 40.0 "MB of growth"
        }

    testSequenced (
        testList
            "on one server"
            [ test
                  "a client that sends its own datagrams through its tunnel to the server makes no loop; a download goes on" {
                  needsRoot ()
                  let site = site.Value
                  let before = site.Vpn.Read()
                  let pest = site.Start "self" (plan 200.0 3.0)

                  let download =
                      Netns.run site.Honest (fun () ->
                          Transfer.pacedDownload site.Remote site.Honest (megabytes 30L) 15_000_000u)

                  let tally = result pest
                  expectIntact download (megabytes 30L)
                  let after = site.Vpn.Read()
                  Expect.isGreaterThan tally.Sent 300L "datagrams of its own"

                  Expect.isGreaterThanOrEqual
                      (after.Since before "udp_source_inside")
                      tally.Sent
                      "each is dropped and counted"

                  Expect.equal (after.Since before "udp_conn_recovered_via_session") 0L "no connection moved"

                  Expect.equal
                      (NetworkCounters.deviceDrops site.Topology.Server site.Vpn.Device)
                      0L
                      "the TUN queue never was full"

                  Thread.Sleep 1_000
                  let quiet = site.Vpn.Read()
                  Expect.isLessThan (quiet.Since after "tun_reads") 100L "reads of the TUN in the second after it"
              }

              pest
                  "a client that alternates between two ports moves, and the log has one line of it"
                  "flap"
                  (plan 1_000.0 1.5)
                  (fun site tally growth ->
                      Expect.isGreaterThan (growth "udp_conn_recovered_via_session") 100L "it moved"
                      let isMove (line: string) = line.Contains "moved from"
                      let lines = site.Vpn.Server.Log.Split '\n' |> Array.filter isMove
                      Expect.isLessThanOrEqual lines.Length 1 "lines"

                      Expect.isLessThanOrEqual
                          (growth "udp_session_rotation_begin")
                          tally.Sent
                          "at most one new session id per datagram")

              pest
                  "a peer without a login that alternates between two ports moves nowhere"
                  "flap-link-up"
                  (plan 1_000.0 1.5)
                  (fun _ _ growth ->
                      Expect.equal (growth "udp_conn_recovered_via_session") 0L "moves"
                      Expect.equal (growth "udp_session_rotation_begin") 0L "new session ids")

              pest "a datagram of 286 pings is answered once" "pings" (plan 500.0 1.5) (fun _ tally growth ->
                  Expect.isLessThanOrEqual tally.Answers (tally.Sent + 4L) "answers"
                  Expect.isGreaterThan (growth "frame_repeated") (200L * tally.Sent) "the other pings are counted")

              pest
                  "fragments of packets that never become whole cost a worker its budget and no more"
                  "fragments"
                  { plan 1_000.0 3.0 with
                      Clients = 24
                      Sources = [ for network in 0..23 -> address 0 network 9 ] }
                  (fun _ tally growth ->
                      Expect.isGreaterThan tally.Sent 500L "datagrams, of 100 fragments each"
                      Expect.isGreaterThan (growth "fragment_over_budget") 0L "the budget was reached")

              pest
                  "datagrams of 64 KiB are counted, and nothing comes of them"
                  "jumbo"
                  (plan 400.0 1.5)
                  (fun _ _ growth ->
                      Expect.isGreaterThan (growth "udp_recv_truncated") 0L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "random bytes are counted, and nothing comes of them"
                  "garbage"
                  (plan 50_000.0 1.5)
                  (fun _ tally growth ->
                      Expect.equal tally.Answers 0L "answers"
                      Expect.isGreaterThan (growth "udp_parse_wire_failed") 10_000L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "random bytes behind a right header get few answers, and nothing comes of them"
                  "header"
                  (plan 50_000.0 1.5)
                  (fun _ tally growth ->
                      Expect.isLessThan tally.Answers 1_000L "answers"
                      Expect.isGreaterThan (growth "drops_total") 10_000L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "authentic datagrams that are sent again reach nobody and move nothing"
                  "replay"
                  (plan 5_000.0 1.5)
                  (fun _ tally growth ->
                      Expect.isGreaterThan tally.Sent 2_000L "repetitions"
                      Expect.equal (growth "tun_packets_written") (int64 Insider.ReplayedPackets) "packets, once each"
                      Expect.isGreaterThan (growth "expresslane_replayed") 0L "repetitions on Expresslane are counted"
                      Expect.equal (growth "udp_conn_recovered_via_session") 0L "moves"
                      Expect.equal (growth "udp_session_rotation_begin") 0L "new session ids")

              pest
                  "datagrams under a client's own session that are not authentic are counted, and nothing comes of them"
                  "greedy"
                  { plan 400_000.0 1.5 with Burst = 46 }
                  (fun _ tally growth ->
                      Expect.isGreaterThan tally.Sent 100_000L "a flood"
                      Expect.isGreaterThan (growth "expresslane_decrypt_failed") 10_000L "counted"
                      Expect.equal (growth "tun_packets_written") 0L "packets")

              test "after all of them a download is as it was sent, and the server ends in order" {
                  needsRoot ()
                  use site = site.Value
                  expectIntact (Transfer.download site.Remote site.Honest (megabytes 30L)) (megabytes 30L)
                  Expect.isTrue (site.Vpn.Server.Stop()) "it ends by itself"
                  Expect.equal site.Vpn.Server.ExitCode 0 "exit code"
              } ]
    )

/// Every sentence in quotation marks in the last column of a table is the name of a test, or the beginning of one.
let private documented =
    test "each test that docs/security.md names exists" {
        let rec root (folder: string) =
            if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
                folder
            else
                root (Path.GetDirectoryName folder)

        let root = root AppContext.BaseDirectory
        let page = File.ReadAllText(Path.Combine(root, "docs", "security.md"))

        let sources =
            [ for folder in [ "tests"; "specs" ] do
                  for file in Directory.GetFiles(Path.Combine(root, folder), "*.fs") do
                      File.ReadAllText file ]
            |> String.concat "\n"

        let names =
            [ for line in page.Split '\n' do
                  if line.StartsWith '|' then
                      for found in Regex.Matches(line.TrimEnd('|', ' ').Split('|') |> Array.last, "“([^”]+)”") do
                          found.Groups[1].Value ]

        Expect.isGreaterThan names.Length 20 "tests are named"
        Expect.isEmpty (names |> List.filter (sources.Contains >> not)) "names without a test"
    }

let tests =
    testSequenced (testList "Pests" [ testList "strangers" strangers; insiders; documented ])

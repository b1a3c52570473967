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

/// Gives the server users with one password and a bcrypt hash of this cost.
let private setUsers (site: Site) (users: string list) (password: string) (cost: int) =
    let hash =
        LibCrypt.Hash(ReadOnlySpan(Encoding.UTF8.GetBytes password), $"$2b${cost:D2}$abcdefghijklmnopqrstuu")

    Expect.isNotNull hash "libcrypt has bcrypt"
    site.SetUsers users hash

let private siteWith keys =
    new Site({ settings with ServerKeys = keys })

let private withServer keys (body: Site -> unit) =
    needsRoot ()
    use site = siteWith keys
    site.Vpn.StartServer()
    body site

let private plan (rate: float) (seconds: float) =
    { Plan.Standard with
        Rate = rate
        Duration = TimeSpan.FromSeconds seconds }

let private result (task: Task<'result>) = task.GetAwaiter().GetResult()

let private patience = TimeSpan.FromSeconds 30.0

/// The server's counters when nothing waits at its socket any more: hardly a datagram comes within half a second.
let private settled (site: Site) : Reading =
    let mutable last = site.Vpn.Read()

    let isQuiet () =
        let before = last
        Thread.Sleep 500
        last <- site.Vpn.Read()
        (last.Since before "udp_datagrams_received") < 20L

    Wait.until patience isQuiet |> ignore
    last

let private expectWithin (limit: float) (login: TimeSpan voption) =
    match login with
    | ValueSome time -> Expect.isLessThan time.TotalSeconds limit "seconds until it was online"
    | ValueNone -> failtest "a client that does everything right is not online"

let private strangers =
    [ test "100 000 ClientHellos per second from one host: a client of another network is online within 3 s" {
          withServer [] (fun site ->
              /// The machine may have no time for as many; then there is another flood, and another login.
              let rec flood attempts : Tally =
                  let before = site.Vpn.Read()
                  let flooding = site.Start "hello" (plan 120_000.0 5.0)
                  Thread.Sleep 1_000
                  let login = site.Login(TimeSpan.FromSeconds 5.0)
                  let tally = result flooding
                  expectWithin 3.0 login
                  Expect.equal (site.Vpn.Read().Since before "conn_created") 1L "nothing is kept of the hellos"

                  if tally.Sent <= 250_000L && attempts > 1 then
                      flood (attempts - 1)
                  else
                      tally

              let tally = flood 4
              Expect.isGreaterThan tally.Sent 250_000L "it was a flood")
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
              let sources = [ for network in 0..199 -> Site.Address 0 network 1 ]
              use stop = new CancellationTokenSource()

              let flood =
                  site.Start
                      "half-open"
                      { plan 1_000.0 50.0 with
                          Sources = sources
                          Stop = stop.Token }

              Thread.Sleep 4_000
              // As long as it takes until the places are taken again and again.
              let areTaken () =
                  site.Vpn.Read().Counters["conn_created"] > 2_000L

              Wait.until patience areTaken |> ignore
              let standing = site.Connections
              let before = site.Megabytes
              let login = site.Login(TimeSpan.FromSeconds 5.0)
              Thread.Sleep 2_000
              stop.Cancel()
              let tally = result flood
              expectWithin 2.0 login
              Expect.isGreaterThan tally.Sent 1_000L "more handshakes were begun than there are places"
              Expect.isLessThanOrEqual standing 512L "places"

              Expect.isLessThan
                  (site.Megabytes - before)
                  30.0
                  "MB of growth while the places were taken again and again")
      }

      test
          "half-open handshakes from one network, with limits as they are by default: a client of another network is in within 2 s" {
          withServer [] (fun site ->
              use stop = new CancellationTokenSource()

              let flood =
                  site.Start
                      "half-open"
                      { plan 400.0 50.0 with
                          Sources = [ for host in 1..250 -> Site.Address 0 7 host ]
                          Stop = stop.Token }

              Thread.Sleep 10_000
              Wait.until patience (fun () -> site.Connections > 500L) |> ignore
              let standing = site.Connections
              let login = site.Login(TimeSpan.FromSeconds 5.0)
              Thread.Sleep 2_000
              stop.Cancel()
              let tally = result flood
              expectWithin 2.0 login
              Expect.isGreaterThan tally.Sent 500L "handshakes were begun"
              Expect.isGreaterThan standing 500L "and stand"
              Expect.isLessThanOrEqual standing 1024L "a quarter of the places at most")
      }

      // The server ends each handshake after 60 s: there is as much time for all of this.
      test "a client is online within 2 s while 10 000 half-open handshakes stand and 200 per second go on" {
          withServer [ "half_open_limit", "12000" ] (fun site ->
              use stop = new CancellationTokenSource()

              let flood =
                  site.Start
                      "half-open"
                      { plan 200.0 58.0 with
                          Ahead = 10_000
                          Stop = stop.Token
                          Sources = [ for network in 0..249 -> Site.Address 0 network 1 ] }

              let doStand () = site.Connections >= 10_000L
              let areReady = Wait.until (TimeSpan.FromSeconds 45.0) doStand
              Expect.isTrue areReady "10 000 stand"
              let before = site.Vpn.Read()
              let clock = Stopwatch.StartNew()

              let logins =
                  [ for _ in 1..8 do
                        Thread.Sleep 400
                        site.Login(TimeSpan.FromSeconds 5.0) ]

              let perSecond =
                  float (site.Vpn.Read().Since before "conn_created") / clock.Elapsed.TotalSeconds

              Expect.isTrue (doStand ()) "they still stand"
              stop.Cancel()
              result flood |> ignore
              Expect.isGreaterThan perSecond 160.0 "handshakes per second meanwhile, the logins among them"
              List.iter (expectWithin 2.0) logins)
      }

      test "handshakes without a login end after 10 s, and their places are free" {
          withServer [] (fun site ->
              let complete () =
                  site.Vpn.Read().Counters["conn_link_up"]

              // Twenty at once, which have three seconds; a busy machine may need more of them.
              for _ in 1..5 do
                  if complete () <= 10L then
                      result (site.Start "link-up" { plan 0.0 3.0 with Ahead = 20 }) |> ignore

              Expect.isGreaterThan (complete ()) 10L "complete handshakes"

              let areOver () =
                  let counters = site.Vpn.Read().Counters
                  counters["conn_closed"] >= counters["conn_link_up"]

              Expect.isTrue (Wait.until (TimeSpan.FromSeconds 14.0) areOver) "all of them have ended"
              // A handshake that was cut short may be among them.
              let isEmpty () = site.Connections = 0L
              Expect.isTrue (Wait.until (TimeSpan.FromSeconds 75.0) isEmpty) "all are gone")
      }

      for cost in [ 10; 12 ] do
          test
              $"wrong passwords from one host, bcrypt cost {cost}: few of them are checked, and five of five clients of other networks get in" {
              needsRoot ()
              use site = siteWith []
              let honest = [ for number in 1..4 -> $"user{number}" ] @ [ site.Target.User ]
              setUsers site honest "right" cost
              site.Vpn.StartServer()
              let flood = site.Start "login" (plan 100.0 6.0)
              Thread.Sleep 1_500

              let struct (arrivals, _) =
                  site.Rush "right" honest (TimeSpan.FromSeconds 30.0) (TimeSpan.FromSeconds 5.0)

              let tally = result flood
              Expect.isGreaterThan tally.Sent 100L "wrong passwords"
              Expect.equal arrivals.Online 5 "of five who have the right one, within 5 s"
              let refused = site.Vpn.Read().Counters["conn_rejected_access_denied"]
              Expect.isLessThanOrEqual refused 20L "wrong passwords that were checked"
          }

      // `Bench pests --kinds restart` is the same with a hash of a second and the patience of real clients, 30 s. Here both
      // times are shorter.
      test
          "80 clients at once after a restart get in within 80 checks and 10 s, and hardly any check is for one that has left" {
          needsRoot ()
          use site = siteWith [ "login_checks", "1" ]
          let users = [ for number in 1..80 -> $"user{number}" ]
          setUsers site users "right" 11
          site.Vpn.StartServer()

          let struct (arrivals, checks) =
              site.Rush "right" users (TimeSpan.FromSeconds 4.0) (TimeSpan.FromMinutes 2.0)

          Expect.equal arrivals.Online 80 $"of 80, after {arrivals.Seconds:F1} s"

          Expect.isLessThan
              arrivals.Seconds
              (80.0 * checks.Each + 10.0)
              $"seconds, with one hashing thread and {checks.Each:F3} s per check"

          Expect.isLessThanOrEqual checks.Count 84L "checks, one for each and few in vain"
      } ]

/// The pests of this list share a server with one worker and a client in either namespace.
let private insiders =
    let site =
        lazy
            (let site = siteWith [ "workers", "1" ]
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
            let after = settled site
            Expect.isGreaterThan tally.Sent 0L "it was a pest"
            check site tally (after.Since before)
            Wait.until patience (fun () -> site.Descriptors = descriptors) |> ignore
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
                  let pest = site.Start "self" (plan 200.0 5.0)

                  let download =
                      Netns.run site.Honest (fun () ->
                          Transfer.pacedDownload site.Remote site.Honest (megabytes 30L) 15_000_000u)

                  let tally = result pest
                  expectIntact download (megabytes 30L)

                  let areCounted () =
                      (site.Vpn.Read().Since before "udp_source_inside") >= tally.Sent

                  Wait.until patience areCounted |> ignore
                  let after = settled site
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
                  (plan 1_000.0 4.0)
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
                  (plan 1_000.0 4.0)
                  (fun _ _ growth ->
                      Expect.equal (growth "udp_conn_recovered_via_session") 0L "moves"
                      Expect.equal (growth "udp_session_rotation_begin") 0L "new session ids")

              pest "a datagram of 286 pings is answered once" "pings" (plan 500.0 4.0) (fun _ tally growth ->
                  Expect.isLessThanOrEqual tally.Answers (tally.Sent + 4L) "answers"
                  Expect.isGreaterThan (growth "frame_repeated") (200L * tally.Sent) "the other pings are counted")

              pest
                  "fragments of packets that never become whole cost a worker its budget and no more"
                  "fragments"
                  { plan 1_000.0 5.0 with
                      Clients = 24
                      Sources = [ for network in 0..23 -> Site.Address 0 network 9 ] }
                  (fun _ tally growth ->
                      Expect.isGreaterThan tally.Sent 500L "datagrams, of 100 fragments each"
                      Expect.isGreaterThan (growth "fragment_over_budget") 0L "the budget was reached")

              pest
                  "datagrams of 64 KiB are counted, and nothing comes of them"
                  "jumbo"
                  (plan 400.0 4.0)
                  (fun _ _ growth ->
                      Expect.isGreaterThan (growth "udp_recv_truncated") 0L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "random bytes are counted, and nothing comes of them"
                  "garbage"
                  (plan 50_000.0 4.0)
                  (fun _ tally growth ->
                      Expect.equal tally.Answers 0L "answers"
                      Expect.isGreaterThan (growth "udp_gate_noise") 10_000L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "random bytes behind a right header get few answers, and nothing comes of them"
                  "header"
                  (plan 50_000.0 4.0)
                  (fun _ tally growth ->
                      Expect.isLessThan tally.Answers 1_000L "answers"
                      Expect.isGreaterThan (growth "drops_total") 10_000L "counted"
                      Expect.equal (growth "conn_created") 0L "connections")

              pest
                  "authentic datagrams that are sent again reach nobody and move nothing"
                  "replay"
                  (plan 5_000.0 4.0)
                  (fun _ tally growth ->
                      Expect.isGreaterThan tally.Sent 2_000L "repetitions"
                      Expect.equal (growth "tun_packets_written") (int64 Insider.ReplayedPackets) "packets, once each"
                      Expect.isGreaterThan (growth "expresslane_replayed") 0L "repetitions on Expresslane are counted"
                      Expect.equal (growth "udp_conn_recovered_via_session") 0L "moves"
                      Expect.equal (growth "udp_session_rotation_begin") 0L "new session ids")

              pest
                  "datagrams under a client's own session that are not authentic are counted, and nothing comes of them"
                  "greedy"
                  { plan 400_000.0 4.0 with Burst = 46 }
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
    test "each test that docs/security.md and docs/protocol.md name exists" {
        let rec root (folder: string) =
            if File.Exists(Path.Combine(folder, "Lightway.slnx")) then
                folder
            else
                root (Path.GetDirectoryName folder)

        let root = root AppContext.BaseDirectory

        let page =
            [ for name in [ "security.md"; "protocol.md" ] -> File.ReadAllText(Path.Combine(root, "docs", name)) ]
            |> String.concat "\n"

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

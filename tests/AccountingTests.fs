/// Accounting: lines about sessions whose numbers are those of the kernel, and what happens when nobody takes them. And the
/// statistics of what sessions are used for.
module Lightway.Tests.AccountingTests

open System
open System.Buffers
open System.IO
open System.Net
open System.Net.Sockets
open System.Text
open System.Text.Json
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Accounting
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Udp
open Lightway.Tests.Checks
open Lightway.Tests.Sites

let private text (line: JsonElement) (name: string) = line.GetProperty(name).GetString()
let private number (line: JsonElement) (name: string) = line.GetProperty(name).GetInt64()

/// Whole lines: the last one may be about to be written.
let private linesOf (file: string) : JsonElement list =
    if File.Exists file then
        let text = File.ReadAllText file

        [ for line in text[.. text.LastIndexOf('\n')].Split('\n', StringSplitOptions.RemoveEmptyEntries) ->
              JsonDocument.Parse(line).RootElement ]
    else
        []

let private patience = TimeSpan.FromSeconds 30.

let private withVpn offload keys (body: Topology -> Vpn -> string -> unit) =
    needsRoot ()
    use topology = Topology.Create()
    let file = Path.Combine(topology.Folder, "accounting.jsonl")

    let keys =
        if List.exists (fun (key, _) -> key = "accounting") keys then
            keys
        else
            ("accounting", file) :: keys

    let settings =
        { Expresslane = true
          Offload = offload
          ServerKeys = keys
          ClientKeys = [] }

    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn file

/// Packets and bytes that a program has written to its TUN device, which the kernel counts as received.
let private written (netns: string) (device: string) : int64 * int64 =
    let json = Shell.run "ip" [ "-n"; netns; "-s"; "-j"; "link"; "show"; "dev"; device ]

    let received =
        JsonDocument.Parse(json).RootElement[0].GetProperty("stats64").GetProperty "rx"

    number received "packets", number received "bytes"

let private remoteOf (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

let private transfer (topology: Topology) =
    let remote = remoteOf topology
    Expect.equal (Transfer.ping topology.Client Topology.Remote 3 700) 3 "pings"
    let lengths = Array.init 500 (fun i -> 8 + (i * 37) % 1_300)
    Expect.equal (Transfer.udpEcho remote topology.Client lengths).Arrived 500 "datagrams"
    expectIntact (Transfer.download remote topology.Client (megabytes 5L)) (megabytes 5L)
    expectIntact (Transfer.upload remote topology.Client (megabytes 5L)) (megabytes 5L)

let private files =
    testSequenced (
        testList
            "file"
            [ test "the line at the end of a session has exactly what the kernel has counted at both devices" {
                  withVpn false [] (fun topology vpn file ->
                      vpn.Start()
                      transfer topology

                      let counts () =
                          written topology.Server vpn.Device, written topology.Client vpn.Device

                      // The last packets of the TCP connections may still be on the way.
                      let rec settled last quiet =
                          if quiet = 4 then
                              last
                          else
                              Thread.Sleep 500
                              let now = counts ()
                              settled now (if now = last then quiet + 1 else 0)

                      let received, sent = settled (counts ()) 0
                      vpn.Client.Stop() |> ignore

                      vpn.Server.Await patience "the line is there" (fun () -> not (linesOf file).IsEmpty)

                      let line = Seq.exactlyOne (linesOf file)
                      Expect.equal (text line "event", text line "reason") ("stop", "Goodbye") "the end"
                      Expect.equal (number line "packets_in", number line "bytes_in") received "from the client"
                      Expect.equal (number line "packets_out", number line "bytes_out") sent "to the client"
                      Expect.isGreaterThan (number line "bytes_out") 5_000_000L "with the download"
                      Expect.equal (text line "user") vpn.User "user"
                      Expect.stringStarts (text line "source") "192.0.2.2:" "source"
                      Expect.stringStarts (text line "inside") "10.125." "inside address"
                      Expect.equal (text line "session").Length 32 "its name"
                      let start = DateTime.Parse(text line "start").ToUniversalTime()
                      let time = DateTime.Parse(text line "time").ToUniversalTime()

                      Expect.isLessThan
                          (abs ((time - start).TotalSeconds - line.GetProperty("seconds").GetDouble()))
                          0.01
                          "seconds"

                      Expect.equal
                          (File.GetUnixFileMode file)
                          (UnixFileMode.UserRead ||| UnixFileMode.UserWrite)
                          "for its owner only")
              }

              test "with offload it agrees with the server's counters; lines in between only grow, under one name" {
                  withVpn true [ "accounting_interval", "1s" ] (fun topology vpn file ->
                      vpn.Start()
                      transfer topology
                      vpn.Server.Await patience "three lines" (fun () -> (linesOf file).Length >= 3)
                      vpn.Client.Stop() |> ignore

                      vpn.Server.Await patience "the last line" (fun () ->
                          linesOf file |> List.exists (fun line -> text line "event" = "stop"))

                      let lines = linesOf file

                      // A line is counted once it is written.
                      vpn.Server.Await patience "lines are counted" (fun () ->
                          vpn.Read().Counters["accounting_records"] >= int64 lines.Length)

                      let counters = vpn.Read().Counters
                      let last = List.last lines
                      Expect.equal (number last "bytes_in") counters["tun_from_client"] "from the client"
                      Expect.equal (number last "bytes_out") counters["tun_to_client"] "to the client"
                      Expect.equal (number last "packets_in") counters["tun_packets_written"] "packets"
                      Expect.equal counters["accounting_records"] (int64 lines.Length) "lines that were counted"
                      Expect.equal counters["accounting_lost"] 0L "none lost"

                      Expect.equal
                          (lines |> List.map (fun line -> text line "event") |> List.countBy id |> List.map fst)
                          [ "interim"; "stop" ]
                          "the end is last"

                      Expect.hasLength (lines |> List.distinctBy (fun line -> text line "session")) 1 "one name"

                      for name in [ "bytes_in"; "bytes_out"; "packets_in"; "packets_out" ] do
                          let values = lines |> List.map (fun line -> number line name)
                          Expect.equal values (List.sort values) $"{name} grows")
              }

              test "a session that the server ends, by stopping, has its line" {
                  withVpn true [] (fun _ vpn file ->
                      vpn.Start()
                      Expect.isTrue (vpn.Server.Stop()) "an orderly end"
                      let line = Seq.exactlyOne (linesOf file)
                      Expect.equal (text line "reason") "the server stops" "why")
              }

              test "after SIGHUP, lines go to the file that has the name then" {
                  withVpn true [ "accounting_interval", "200ms" ] (fun _ vpn file ->
                      vpn.Start()
                      vpn.Server.Await patience "lines" (fun () -> not (linesOf file).IsEmpty)
                      File.Move(file, file + ".1")
                      vpn.Server.Signal Netns.Signal.Hangup

                      vpn.Server.Await patience "a new file" (fun () -> File.Exists file && not (linesOf file).IsEmpty)

                      let count = (linesOf (file + ".1")).Length
                      let grown = (linesOf file).Length
                      vpn.Server.Await patience "it grows" (fun () -> (linesOf file).Length > grown)
                      Expect.equal (linesOf (file + ".1")).Length count "the old one does not")
              }

              test "a full disk costs lines, one line of the log and nothing else" {
                  withVpn true [ "accounting", "/dev/full"; "accounting_interval", "100ms" ] (fun topology vpn _ ->
                      vpn.Start()

                      expectIntact
                          (Transfer.download (remoteOf topology) topology.Client (megabytes 20L))
                          (megabytes 20L)

                      vpn.Server.Await patience "lost lines" (fun () -> vpn.Read().Counters["accounting_lost"] > 3L)

                      vpn.Server.AwaitLog "/dev/full: No space left on device" "why"
                      let said = vpn.Server.Log.Split '\n' |> Array.filter _.Contains("accounting: ")
                      Expect.stringContains (Seq.exactlyOne said) "/dev/full: No space left on device" "why")
              }

              test "a file that can't be opened is refused at start" {
                  withVpn true [ "accounting", "/nowhere/at/all" ] (fun _ vpn _ ->
                      vpn.LaunchServer()
                      Expect.isTrue (vpn.Server.WaitForExit(TimeSpan.FromSeconds 20.)) "it ends"
                      Expect.equal vpn.Server.ExitCode 2 "exit code"

                      Expect.stringContains
                          vpn.Server.Log
                          "accounting: \"/nowhere/at/all\" can't be opened: No such file or directory"
                          "the line")
              } ]
    )

let private sockets =
    test "a reader at a Unix socket may come, go and come again" {
        needsRoot ()
        let path = Path.Combine(Path.GetTempPath(), Path.GetRandomFileName())

        withVpn true [ "accounting", $"unix:{path}"; "accounting_interval", "100ms" ] (fun _ vpn _ ->
            vpn.Start()

            let read () =
                use reader =
                    new Socket(AddressFamily.Unix, SocketType.Dgram, ProtocolType.Unspecified)

                reader.ReceiveTimeout <- 30_000
                reader.Bind(UnixDomainSocketEndPoint path)
                let buffer: byte[] = Array.zeroCreate 4096
                let line = Encoding.UTF8.GetString(buffer, 0, reader.Receive buffer)
                Expect.stringEnds line "\n" "a line"
                let line = JsonDocument.Parse(line).RootElement
                Expect.equal (text line "event", text line "user") ("interim", vpn.User) "whole"
                reader.Dispose()
                File.Delete path

            let lost () = vpn.Read().Counters["accounting_lost"]
            vpn.Server.Await patience "nobody reads" (fun () -> lost () > 0L)
            read ()

            vpn.Server.Await patience "it can write" (fun () -> vpn.Server.Log.Contains "can be written again")

            let before = lost ()
            vpn.Server.Await patience "the reader is gone" (fun () -> lost () > before)
            read ())
    }

let private entries =
    test "what a user's name contains, a line of accounting is one JSON object on one line" {
        for user in [ "me"; "a\"b\\c"; "x\ny\tz"; "\u2028é\u0000"; "{}" ] do
            let entry =
                AccountingEntry(
                    DateTime.UnixEpoch.AddSeconds 90.,
                    null,
                    user,
                    "00ff",
                    PeerAddress(IPEndPoint.Parse "[2001:db8::1]:99"),
                    Ipv4Address 0x0A7D0007u,
                    DateTime.UnixEpoch,
                    Traffic()
                )

            let line = ArrayBufferWriter<byte>()
            entry.Write line
            let written = Encoding.UTF8.GetString line.WrittenSpan
            Expect.equal (written.IndexOf '\n') (written.Length - 1) "one line"
            let json = JsonDocument.Parse(written).RootElement
            Expect.equal (text json "user") user "the name"
            Expect.equal (text json "source", text json "inside") ("[2001:db8::1]:99", "10.125.0.7") "addresses"
            Expect.equal (text json "time", text json "event") ("1970-01-01T00:01:30.000Z", "interim") "time"
            Expect.equal (json.GetProperty("seconds").GetDouble()) 90. "seconds"
    }

/// A client sends a packet.
let private sendPacket (guest: Guest) =
    let packet = Superpackets.plain Inside.Client Inside.Remote 112
    let buffer = Array.append (Array.zeroCreate 16) packet
    guest.Connection.BeginInside guest.End.Now
    guest.Connection.TrySend(Span buffer, 16, packet.Length) |> ignore
    guest.End.Context.ToOutside.Flush() |> ignore
    guest.Pump()

let private statistics =
    test "the report knows which sessions had packets and which only keepalives, within 5, 15 and 60 minutes" {
        use site = new Site()
        use quiet = new Guest(site, at "198.51.100.7" 4000, "me", "secret")
        use busy = new Guest(site, at "198.51.100.8" 4000, "you", "secret")
        quiet.Reach ConnectionState.Online
        busy.Reach ConnectionState.Online

        let report minutes =
            // Each report is of the state before it.
            site.Advance(int64 minutes * 60_000L)
            site.RunPosted()
            site.Log |> Seq.filter _.Contains("within 5/15/60 min") |> Seq.last

        sendPacket busy
        Expect.stringContains (report 1) "1/1/1 active, 1/1/1 standby; 2 sessions since start" "at first"
        Expect.stringContains (report 5) "0/1/1 active, 0/1/1 standby" "after six minutes"
        site.Dispatch(quiet.From, quiet.Ping())
        sendPacket busy
        Expect.stringContains (report 6) "0/1/1 active, 0/1/1 standby" "a ping is no packet"
        Expect.stringContains (report 10) "0/0/1 active, 0/0/1 standby" "after sixteen"
        Expect.stringContains (report 50) "0/0/0 active, 0/0/0 standby" "after an hour"
    }

let private labels =
    test "handshakes and logins are counted with their labels, and errors by what they end" {
        use site = new Site()
        use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
        guest.Reach ConnectionState.Online

        use refusing =
            new Guest(site, at "198.51.100.8" 4000, "me", "secret", TestCertificate.strangerTls ())

        refusing.Connection.Start refusing.End.Now
        refusing.Pump()

        let counted =
            [ for pair in site.Manager.Book.Counts.All do
                  (pair.Key.Name, pair.Key.First, pair.Key.Third), pair.Value ]
            |> Map

        let cipher =
            site.Manager.Book.Counts.All
            |> Array.pick (fun pair ->
                if pair.Key.Name = "conn_online" then
                    Some pair.Key.First
                else
                    None)

        Expect.equal
            counted
            (Map
                [ ("conn_created", "1.3", ""), 2L
                  ("conn_link_up", cipher, "DTLSv1.3"), 1L
                  ("conn_online", cipher, "DTLSv1.3"), 1L
                  ("conn_tls_error", "true", ""), 1L ])
            "counters"

        Expect.stringContains cipher "AES" "a suite"
        let book = site.Manager.Book

        let total (histogram: Lightway.Tunnel.Metrics.Histogram) =
            Seq.init (histogram.Bounds.Count + 1) histogram.Read |> Seq.sumBy (fun struct (count, _) -> count)

        Expect.equal (total book.ToLinkUp, total book.ToOnline) (1L, 1L) "times"
    }

let tests: Test =
    testList "Accounting" [ files; testSequenced sockets; entries; statistics; labels ]

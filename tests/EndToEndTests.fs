/// The real programs in real namespaces: TUN devices, veth, TCP and UDP through the tunnel. Needs root.
module Lightway.Tests.EndToEndTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

/// How packets travel.
type private Way =
    | Expresslane
    | Dtls
    | Tls

let private settingsOf way offload =
    let keys = if way = Tls then [ "mode", "tcp" ] else []

    { Expresslane = (way = Expresslane)
      Offload = offload
      ServerKeys = keys
      ClientKeys = keys }

let private settings expresslane offload =
    settingsOf (if expresslane then Expresslane else Dtls) offload

/// Bytes that no peer sends, until `stop`; over UDP some are nearly right. Counts the attempts.
let private pestOf way (sent: int ref) (stop: CancellationToken) : unit =
    let random = Random 5
    let server = IPEndPoint(IPAddress.Parse Topology.ServerOutside, 27690)

    if way = Tls then
        while not stop.IsCancellationRequested do
            use socket =
                new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)

            let bytes: byte[] = Array.zeroCreate (random.Next(1, 3000))
            random.NextBytes bytes

            match random.Next 4 with
            | 0 when bytes.Length > 40 ->
                Text.Encoding.ASCII.GetBytes("GET / HTTP/1.1\r\nHost: vpn\r\n\r\n").CopyTo(bytes, 0)
            | 1 when bytes.Length > 5 -> [| 22uy; 3uy; 1uy; 2uy; 0uy; 1uy |].CopyTo(bytes, 0)
            | _ -> ()

            try
                socket.Connect server
                socket.Send bytes |> ignore
                // Some are cut off, the others leave in order.
                socket.LingerState <- LingerOption(random.Next 2 = 0, 0)
            with :? SocketException ->
                ()

            Interlocked.Increment sent |> ignore
            Thread.Sleep 5
    else
        use socket =
            new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

        while not stop.IsCancellationRequested do
            let datagram: byte[] = Array.zeroCreate (random.Next 1500)
            random.NextBytes datagram

            // From nothing right to nearly right: magic, version, session, kind of body.
            if datagram.Length >= 17 then
                if random.Next 4 > 0 then
                    [| 0x48uy; 0x65uy; 1uy; byte (random.Next 5); 0uy; byte (random.Next 2); 0uy; 0uy |]
                        .CopyTo(datagram, 0)

                match random.Next 4 with
                | 0 -> Array.Clear(datagram, 8, 8)
                | 1 -> Array.Fill(datagram, 0xFFuy, 8, 8)
                | _ -> ()

                datagram[16] <- [| 22uy; 0x2Fuy; 21uy; datagram[16] |][random.Next 4]

            socket.SendTo(datagram, server) |> ignore
            let count = Interlocked.Increment sent

            if count % 16 = 0 then
                Thread.Sleep 1

/// A topology with one set-up in it; both end with it.
type private Site(settings: Settings) =
    let topology = Topology.Create()
    let vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    member _.Topology = topology
    member _.Vpn = vpn

    member _.Remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    /// The client's end of the tunnel, as the remote sees it: only the client's own address inside its namespace.
    member _.Client = topology.Client

    interface IDisposable with
        member _.Dispose() =
            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

let private patience = TimeSpan.FromSeconds 30.

let private withSite settings (body: Site -> unit) =
    needsRoot ()
    use site = new Site(settings)
    body site

/// What every mode must carry. The tests of one mode share a site, in this order; the last one closes it.
let private mode way offload =
    let path =
        match way with
        | Expresslane -> "Expresslane"
        | Dtls -> "DTLS"
        | Tls -> "TLS over TCP"

    let name = $"""{path}, offload {if offload then "on" else "off"}"""

    let site =
        lazy
            (let site = new Site(settingsOf way offload)
             site.Vpn.Start()
             site)

    let step title (body: Site -> unit) =
        test title {
            needsRoot ()
            body site.Value
        }

    /// Lengths around what the tunnel's MTU of 1350 allows: 1322 fits one packet, more is fragmented by IP.
    let lengths = Array.init 2_000 (fun i -> 8 + (i * 37) % 1_800)

    testSequenced (
        testList
            name
            [ step "ping, small and as large as the MTU" (fun site ->
                  for length, title in [ 56, "small"; 1322, "1350 bytes" ] do
                      let areAnswered () =
                          Transfer.ping site.Client Topology.Remote 5 length = 5

                      Expect.isTrue (Wait.until patience areAnswered) title)

              step "TCP download, byte for byte, by the path of this mode" (fun site ->
                  let before = site.Vpn.Read()
                  expectIntact (Transfer.download site.Remote site.Client (megabytes 60L)) (megabytes 60L)
                  let after = site.Vpn.Read()

                  for counted, counter in
                      [ Expresslane, "expresslane_packets_sent"; Dtls, "dtls_packets_sent"; Tls, "tls_packets_sent" ] do
                      if way = counted then
                          Expect.isGreaterThan (after.Since before counter) 40_000L "the path"
                      else
                          Expect.equal (after.Since before counter) 0L "another path"

                  let superpackets = after.Since before "superpackets_read"

                  if offload then
                      Expect.isGreaterThan superpackets 0L "superpackets came from the TUN"
                  else
                      Expect.equal superpackets 0L "no superpackets"

                  match way, offload with
                  | Tls, true ->
                      let perRecord =
                          after.Since before "tls_packets_sent" / after.Since before "tcp_records_sent"

                      Expect.isGreaterThan perRecord 4L "records hold many packets"
                  | Tls, false ->
                      // A packet is counted before its record: the last one may be between the two.
                      let isEachAlone () =
                          let after = site.Vpn.Read()
                          after.Since before "tcp_records_sent" >= after.Since before "tls_packets_sent"

                      Expect.isTrue (Wait.until (TimeSpan.FromSeconds 5.) isEachAlone) "a record for each packet"
                  | _, true -> Expect.isGreaterThan (after.Since before "udp_gso_sends") 0L "the kernel cut datagrams"
                  | _, false -> Expect.equal (after.Since before "udp_gso_sends") 0L "one datagram per send")

              step "TCP upload, byte for byte" (fun site ->
                  expectIntact (Transfer.upload site.Remote site.Client (megabytes 60L)) (megabytes 60L))

              step "both TCP directions at once" (fun site ->
                  let up =
                      Netns.start site.Client (fun () -> Transfer.upload site.Remote site.Client (megabytes 20L))

                  expectIntact (Transfer.download site.Remote site.Client (megabytes 20L)) (megabytes 20L)
                  expectIntact (up.GetAwaiter().GetResult()) (megabytes 20L))

              step "UDP to the remote, whole datagrams of many lengths" (fun site ->
                  let result = Transfer.udpOneWay site.Remote site.Client lengths
                  Expect.equal result.Corrupt 0 "none altered"
                  Expect.equal result.Arrived result.Sent "none lost")

              step "UDP both ways, whole datagrams of many lengths" (fun site ->
                  let result = Transfer.udpEcho site.Remote site.Client lengths
                  Expect.equal result.Corrupt 0 "none altered"
                  Expect.equal result.Arrived result.Sent "none lost")

              step "garbage from everywhere during a download changes nothing" (fun site ->
                  let before = site.Vpn.Read()
                  use stop = new CancellationTokenSource()
                  let sent = ref 0
                  let pest = Netns.start site.Client (fun () -> pestOf way sent stop.Token)

                  let isSent () =
                      pest.IsCompleted || Volatile.Read &sent.contents > 20

                  Expect.isTrue (Wait.until patience isSent) "garbage is sent"
                  let atStart = Volatile.Read &sent.contents
                  expectIntact (Transfer.download site.Remote site.Client (megabytes 60L)) (megabytes 60L)
                  stop.Cancel()
                  pest.GetAwaiter().GetResult()
                  Expect.isGreaterThan sent.Value atStart "garbage was sent during the download"

                  let isCounted counter () =
                      site.Vpn.Read().Since before counter > 0L

                  let expected =
                      if way = Tls then
                          [ "conn_tls_error", "not TLS" ]
                      else
                          [ "udp_gate_noise", "by the kernel's program: not ours, and versions"
                            "udp_parse_wire_failed", "rejects"
                            "udp_rejected_session", "unknown sessions" ]

                  for counter, meaning in expected do
                      Expect.isTrue (Wait.until patience (isCounted counter)) $"counted: {meaning}"

                  let after = site.Vpn.Read()
                  Expect.equal (after.Since before "conn_online") 0L "nobody logged in"

                  if way <> Tls then
                      Expect.equal (after.Since before "conn_created") 0L "no connection came of it")

              step "no packet arrived with a wrong checksum at either end" (fun site ->
                  Expect.equal (checksumErrors site.Topology.RemoteHost) 0L "remote"
                  Expect.equal (checksumErrors site.Topology.Client) 0L "client"
                  Expect.equal (checksumErrors site.Topology.Server) 0L "server")

              step "SIGTERM ends both programs cleanly, and the server hears the goodbye" (fun site ->
                  use site = site
                  Expect.isTrue (site.Vpn.Client.Stop()) "the client ends by itself"
                  Expect.equal site.Vpn.Client.ExitCode 0 "client's exit code"
                  site.Vpn.Server.AwaitLog "Goodbye" "the goodbye"
                  Expect.isTrue (site.Vpn.Server.Stop()) "the server ends by itself"
                  Expect.equal site.Vpn.Server.ExitCode 0 "server's exit code") ]
    )

let private ends (child: Child) =
    Expect.isTrue (child.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
    child.ExitCode

let private incidents =
    testSequenced (
        testList
            "incidents"
            [ test "a wrong password is refused on both sides; the next client is served" {
                  withSite
                      { settings true true with
                          ClientKeys = [ "password", "wrong" ] }
                      (fun site ->
                          site.Vpn.StartServer()
                          site.Vpn.LaunchClient()
                          Expect.equal (ends site.Vpn.Client) 3 "exit code"
                          site.Vpn.Client.AwaitLog "Unauthorized" "the client says why"
                          site.Vpn.Server.AwaitLog "wrong user or password" "the server says why"
                          site.Vpn.SetClient [ "password", site.Vpn.Password ]
                          site.Vpn.StartClient()
                          site.Vpn.AwaitOnline())
              }

              test "a server that is killed and started again serves; the old client notices and ends" {
                  let impatient = [ "keepalive_interval", "1s"; "reconnect", "false" ]

                  withSite
                      { settings true true with
                          ClientKeys = impatient }
                      (fun site ->
                          site.Vpn.Start()
                          site.Vpn.Server.Signal Netns.Signal.Kill
                          Expect.isTrue (site.Vpn.Server.WaitForExit patience) "killed"
                          site.Vpn.StartServer()
                          Expect.equal (ends site.Vpn.Client) 1 "the client whose session is gone ends with an error"
                          site.Vpn.Client.AwaitLog "RejectedSession" "and says why"
                          site.Vpn.StartClient()
                          site.Vpn.AwaitOnline()
                          expectIntact (Transfer.download site.Remote site.Client (megabytes 5L)) (megabytes 5L))
              }

              test "a client whose address changes keeps its session and its connections" {
                  withSite
                      { settings true true with
                          ClientKeys = [ "keepalive_interval", "1s" ] }
                      (fun site ->
                          site.Vpn.Start()
                          let client = site.Topology.Client
                          let before = site.Vpn.Read()

                          let download =
                              Netns.start client (fun () ->
                                  Transfer.pacedDownload site.Remote site.Client (megabytes 40L) 20_000_000u)

                          let hasBegun () =
                              download.IsCompleted || site.Vpn.Read().Since before "tun_to_client" > megabytes 4L

                          Expect.isTrue (Wait.until patience hasBegun) "the download has begun"
                          Shell.ip $"-n {client} addr del {Topology.ClientOutside}/24 dev outside" |> ignore
                          Shell.ip $"-n {client} addr add 192.0.2.77/24 dev outside" |> ignore
                          expectIntact (download.GetAwaiter().GetResult()) (megabytes 40L)

                          // If the download was over before the address changed, the next keepalive tells it.
                          for counter, meaning in
                              [ "udp_conn_recovered_via_session", "the server followed"
                                "udp_session_rotation_finalized", "the session id was changed" ] do
                              let isCounted () = site.Vpn.Read().Counters[counter] > 0L
                              Expect.isTrue (Wait.until patience isCounted) meaning

                          let counters = site.Vpn.Read().Counters
                          Expect.equal counters["conn_created"] 1L "still the first connection")
              }

              test "a path without checksum offload or UDP segmentation carries the same bytes" {
                  withSite (settings true true) (fun site ->
                      Shell.inside
                          site.Topology.Server
                          "ethtool"
                          [ "-K"; "outside"; "tx"; "off"; "tx-udp-segmentation"; "off" ]
                      |> ignore

                      site.Vpn.Start()
                      expectIntact (Transfer.download site.Remote site.Client (megabytes 30L)) (megabytes 30L)
                      Expect.equal (checksumErrors site.Topology.Client) 0L "checksums")
              }

              test "a smaller MTU on the outside fragments or falls back, and loses nothing" {
                  withSite (settings true true) (fun site ->
                      Shell.ip $"-n {site.Topology.Server} link set outside mtu 1300" |> ignore
                      site.Vpn.Start()
                      expectIntact (Transfer.download site.Remote site.Client (megabytes 10L)) (megabytes 10L))
              }

              for kind, key, keyShare in
                  [ "P-256", "false", "p521mlkem1024"
                    "post-quantum", "true", "x25519mlkem768"
                    "post-quantum", "true", "p521mlkem1024" ] do
                  test $"{kind} groups on the server: a client with a {keyShare} key share comes online" {
                      withSite
                          { settings true true with
                              ServerKeys = [ "enable_pqc", key ]
                              ClientKeys = [ "keyshare", keyShare; "cipher", "chacha20" ] }
                          (fun site -> site.Vpn.Start())
                  }

              test "a key file that others may read is refused with a remedy and exit code 2" {
                  withSite (settings true true) (fun site ->
                      File.SetUnixFileMode(
                          Path.Combine(site.Vpn.Folder, "server.key"),
                          UnixFileMode.UserRead ||| UnixFileMode.OtherRead
                      )

                      site.Vpn.LaunchServer()
                      Expect.equal (ends site.Vpn.Server) 2 "exit code"
                      site.Vpn.Server.AwaitLog "chmod 600" "the remedy")
              }

              test "an invalid certificate is refused and the log says why" {
                  withSite (settings true true) (fun site ->
                      File.WriteAllText(Path.Combine(site.Vpn.Folder, "server.crt"), "not a certificate")
                      site.Vpn.LaunchServer()
                      Expect.equal (ends site.Vpn.Server) 2 "exit code"
                      let reason = "server.crt\" is not a PEM file with a certificate"
                      site.Vpn.Server.AwaitLog "server_cert: " "which option"
                      site.Vpn.Server.AwaitLog reason "which file, and why")
              }

              test "a key that belongs to another certificate is refused, and the line names both files" {
                  withSite (settings true true) (fun site ->
                      let file name = Path.Combine(site.Vpn.Folder, name)
                      File.Copy(file "ca_cert.crt", file "server.crt", overwrite = true)
                      site.Vpn.LaunchServer()
                      Expect.equal (ends site.Vpn.Server) 2 "exit code"

                      for part in [ "server.crt"; "server.key"; "does not belong to the certificate" ] do
                          site.Vpn.Server.AwaitLog part "the line")
              } ]
    )

let tests =
    testSequenced (
        testList
            "End to end"
            [ for way in [ Expresslane; Dtls; Tls ] do
                  for offload in [ true; false ] do
                      mode way offload
              incidents ]
    )

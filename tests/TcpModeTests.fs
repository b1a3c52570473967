/// TCP mode: the real server, with the real clients and with peers that say what the protocol does not allow. Needs root.
module Lightway.Tests.TcpModeTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open System.Text
open System.Text.RegularExpressions
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tests.Checks

let private patience = TimeSpan.FromSeconds 30.
let private serverAt = IPEndPoint(IPAddress.Parse Topology.ServerOutside, 27690)
let private clientIp = "10.125.0.5" // lightway_client_ip, as init writes it

/// A topology and a set-up in TCP mode.
type private Site(clients: int, serverKeys: (string * string) list, clientKeys: (string * string) list) =
    let inTcpMode (keys: (string * string) list) =
        if List.exists (fst >> (=) "mode") keys then
            keys
        else
            ("mode", "tcp") :: keys

    let topology = Topology.Create clients

    let vpn =
        new Vpn(
            topology,
            Programs.OfThisBuild(),
            { Expresslane = false
              Offload = true
              ServerKeys = inTcpMode serverKeys
              ClientKeys = inTcpMode clientKeys }
        )

    let opened = ResizeArray<StreamPeer>()

    member _.Topology = topology
    member _.Vpn = vpn

    member _.Remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    member _.Counter(name: string) : int64 = vpn.Read().Counters[name]

    /// A peer in the client's namespace, connected.
    member _.Peer(?server: IPEndPoint) : StreamPeer =
        let peer = new StreamPeer(topology.Client, defaultArg server serverAt)
        opened.Add peer
        peer

    member this.LoggedIn() : StreamPeer =
        let peer = this.Peer()
        Expect.isTrue (peer.Login(vpn.User, vpn.Password)) "it is logged in"
        peer

    /// What the server has open, but for files: the runtime opens its libraries when they are needed.
    member _.Open: string list =
        [ for entry in DirectoryInfo($"/proc/{vpn.Server.Pid}/fd").GetFileSystemInfos() do
              if not (isNull entry.LinkTarget) && entry.LinkTarget.Contains ":[" then
                  entry.LinkTarget ]
        |> List.sort

    member this.Descriptors: int = this.Open.Length

    /// Resident memory of the server in MB (VmRSS, proc_pid_status(5)).
    member _.Megabytes: float =
        let status = File.ReadAllText $"/proc/{vpn.Server.Pid}/status"
        float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

    interface IDisposable with
        member _.Dispose() =
            for peer in opened do
                (peer :> IDisposable).Dispose()

            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

let private withSite clients serverKeys clientKeys (body: Site -> unit) =
    needsRoot ()
    use site = new Site(clients, serverKeys, clientKeys)
    body site

let private withServer serverKeys (body: Site -> unit) =
    withSite 1 (("handshakes_per_source", "100000") :: serverKeys) [] (fun site ->
        site.Vpn.StartServer()
        body site)

let private ends (child: Child) =
    Expect.isTrue (child.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
    child.ExitCode

/// A ClientHello of .NET, as it leaves.
let private clientHello =
    lazy
        (use listener = new TcpListener(IPAddress.Loopback, 0)
         listener.Start()
         use client = new TcpClient()
         client.Connect(listener.LocalEndpoint :?> IPEndPoint)
         use accepted = listener.AcceptTcpClient()
         use tls = new Security.SslStream(client.GetStream())
         let _attempt = tls.AuthenticateAsClientAsync "vpn.example.com"
         let bytes: byte[] = Array.zeroCreate 4096
         let count = accepted.GetStream().Read(bytes, 0, bytes.Length)
         accepted.Close()
         bytes[.. count - 1])

let private http =
    Encoding.ASCII.GetBytes "GET / HTTP/1.1\r\nHost: vpn.example.com\r\n\r\n"

/// What a peer does, and the counter that tells of it. Each ends its own connection only.
let private misdeeds: (string * string * (Site -> unit)) list =
    let raw act = fun (site: Site) -> act (site.Peer())

    let known act =
        fun (site: Site) ->
            let peer = site.Peer()
            peer.Handshake()
            act peer

    let inside act =
        fun (site: Site) -> act (site.LoggedIn())

    let random = Random 7

    [ "an HTTP request", "conn_tls_error", raw _.SendRaw(http)
      "random bytes",
      "conn_tls_error",
      raw (fun peer ->
          let bytes: byte[] = Array.zeroCreate 3000
          random.NextBytes bytes
          peer.SendRaw bytes)
      "a connection that is closed at once", "tcp_ended", raw _.End()
      "a connection that is reset at once", "tcp_failed", raw _.Reset()
      "half a ClientHello, and the end",
      "tcp_ended",
      raw (fun peer ->
          peer.SendRaw clientHello.Value[.. clientHello.Value.Length / 2]
          peer.End())
      "a ClientHello byte by byte, then a reset",
      "tcp_failed",
      raw (fun peer ->
          for octet in clientHello.Value do
              peer.SendRaw [| octet |]

          Thread.Sleep 100
          peer.Reset())
      "the end after the handshake", "tcp_ended", known _.End()
      "close_notify after the handshake", "conn_client_closed", known _.Shutdown()
      "a frame of an unknown kind before the login", "frame_undecodable", known _.Send([| 99uy |])
      "a packet before the login",
      "frame_invalid_state",
      known _.Send(StreamPeer.Data(Echo.request clientIp Topology.Remote 1 8))
      "a frame of 65 535 bytes before the login",
      "frame_undecodable",
      known (fun peer ->
          peer.Send [| byte FrameKind.Data; 0xFFuy; 0xFFuy |]

          try
              for _ in 1..100 do
                  peer.Send(Array.zeroCreate 100)
          with :? IOException ->
              () // it has been closed meanwhile
      )
      "an HTTP request inside TLS", "frame_undecodable", known _.Send(http)
      "a wrong password",
      "conn_rejected_access_denied",
      (fun site ->
          let peer = site.Peer()
          Expect.isFalse (peer.Login(site.Vpn.User, "wrong")) "refused")
      "an IPv6 packet",
      "tun_rejected_packet_invalid_inside_packet",
      inside _.Send(StreamPeer.Data(Array.append [| 0x60uy |] (Array.zeroCreate 59)))
      "an empty packet", "tun_rejected_packet_invalid_inside_packet", inside _.Send(StreamPeer.Data [||])
      "a frame of an unknown kind", "frame_undecodable", inside _.Send([| 99uy |])
      "a frame that only servers send",
      "conn_closed",
      known _.Send(Array.append [| byte FrameKind.AuthSuccess |] (Array.zeroCreate 104))
      "the end after the login", "tcp_ended", inside _.End()
      "a reset after the login", "tcp_failed", inside _.Reset()
      "close_notify after the login", "conn_client_closed", inside _.Shutdown()
      "Goodbye", "conn_client_closed", inside _.Send([| byte FrameKind.Goodbye |]) ]

let private badInput =
    testSequenced (
        testList
            "bad input"
            [ test "each ends its own connection, has a counter, and nobody else notices" {
                  withServer [ "workers", "1" ] (fun site ->
                      let honest = site.LoggedIn()
                      Expect.isTrue (honest.IsAnswered()) "before"
                      let descriptors = site.Open

                      for title, counter, act in misdeeds do
                          let before = site.Counter counter
                          let closed = site.Counter "conn_closed"
                          act site

                          let isCounted =
                              Wait.until patience (fun () ->
                                  site.Counter counter > before && site.Counter "conn_closed" > closed)

                          Expect.isTrue isCounted $"{title}: {counter} counts it, and the connection ends"
                          Expect.equal (site.Counter counter) (before + 1L) $"{title}: once"
                          Expect.isTrue (honest.IsAnswered()) $"{title}: the others are served"

                      let left () = List.except descriptors site.Open

                      Expect.isTrue
                          (Wait.until patience (left >> List.isEmpty))
                          $"""open: {String.Join(", ", left ())}""")
              }

              test "a packet of 65 535 bytes is taken whatever its bytes come in" {
                  withServer [] (fun site ->
                      let peer = site.LoggedIn()
                      // Within one frame: 65 535 bytes that are no packet, in pieces of 1 to 997 bytes, and a ping behind them.
                      let frame = StreamPeer.Data(Array.append [| 0x45uy |] (Array.zeroCreate 65_534))
                      let bytes = Array.append frame (StreamPeer.Ping 0us)
                      let mutable at = 0
                      let mutable length = 1

                      while at < bytes.Length do
                          let count = min length (bytes.Length - at)
                          peer.Send bytes[at .. at + count - 1]
                          at <- at + count
                          length <- length % 997 + 31

                      Expect.isTrue (peer.Await(FrameKind.Pong).IsSome) "the ping behind it is answered"
                      Expect.equal (site.Counter "tls_packets_received") 1L "it was read as one packet")
              }

              test "key updates without end are not answered without end" {
                  withServer [] (fun site ->
                      let authority = File.ReadAllBytes(Path.Combine(site.Vpn.Folder, "ca_cert.crt"))
                      use peer = new RestlessPeer(site.Topology.Client, serverAt, authority)
                      Expect.isTrue (peer.Login(site.Vpn.User, site.Vpn.Password)) "logged in"
                      peer.UpdateKeys 2_000

                      let isEnded () =
                          site.Counter "tcp_record_flood" = 1L && site.Counter "conn_closed" = 1L

                      Expect.isTrue (Wait.until patience isEnded) "the connection is ended, and counted"
                      Expect.isTrue (site.LoggedIn().IsAnswered()) "others are served")
              }

              test "5 000 records of one byte are read to the last" {
                  withServer [] (fun site ->
                      let peer = site.LoggedIn()

                      for _ in 1..5_000 do
                          peer.Send [| byte FrameKind.NoOp |]

                      Expect.isTrue (peer.IsAnswered()) "the ping behind them is answered")
              }

              test "10 000 connections that come and go: descriptors and memory are as before" {
                  withServer [] (fun site ->
                      let connect count =
                          Netns.run site.Topology.Client (fun () ->
                              for i in 1..count do
                                  use socket =
                                      new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp)

                                  socket.Connect serverAt

                                  match i % 4 with
                                  | 0 -> ()
                                  | 1 -> socket.LingerState <- LingerOption(true, 0)
                                  | 2 -> socket.Send(http) |> ignore
                                  | _ -> socket.Send(clientHello.Value) |> ignore)

                      let settle () =
                          let read () =
                              let counters = site.Vpn.Read().Counters
                              counters["tcp_accepted"], counters["conn_created"], counters["conn_closed"]

                          /// Nothing comes any more: some may wait to be accepted.
                          let isEmpty () =
                              let accepted, created, closed = read ()
                              Thread.Sleep 1_500
                              created = closed && read () = (accepted, created, closed)

                          Expect.isTrue (Wait.until (TimeSpan.FromSeconds 60.) isEmpty) "all of them have ended"

                      connect 2_000 // what a server allocates once
                      settle ()
                      let descriptors, megabytes = site.Descriptors, site.Megabytes
                      connect 10_000
                      settle ()
                      Wait.until patience (fun () -> site.Descriptors = descriptors) |> ignore
                      Expect.equal site.Descriptors descriptors "descriptors of the server"
                      Expect.isLessThan (site.Megabytes - megabytes) 32.0 "growth of its memory in MB"
                      Expect.isTrue (site.LoggedIn().IsAnswered()) "it serves")
              } ]
    )

let private address (text: string) =
    (IPAddress.Parse text).GetAddressBytes()

let private port (number: int) = [| byte (number >>> 8); byte number |]

let private signature =
    [| 0x0Duy; 0x0Auy; 0x0Duy; 0x0Auy; 0uy; 0x0Duy; 0x0Auy; 0x51uy; 0x55uy; 0x49uy; 0x54uy; 0x0Auy |]

/// A header of version 2: command PROXY or LOCAL, family and transport, the rest.
let private binary command family (rest: byte[]) =
    Array.concat [ signature; [| 0x20uy ||| command; family |]; port rest.Length; rest ]

let private proxies =
    testSequenced (
        testList
            "PROXY protocol"
            [ test "the client is the one that the header names: versions 1 and 2, IPv4 and IPv6, or none" {
                  withServer [ "proxy_protocol", "true" ] (fun site ->
                      let tlv = [| 0x04uy; 0uy; 3uy; 0uy; 0uy; 0uy |] // PP2_TYPE_NOOP

                      for header, expected in
                          [ Encoding.ASCII.GetBytes "PROXY TCP4 203.0.113.9 192.0.2.1 4242 443\r\n", "203.0.113.9:4242"
                            Encoding.ASCII.GetBytes "PROXY TCP6 2001:db8::9 2001:db8::1 4243 443\r\n",
                            "[2001:db8::9]:4243"
                            Encoding.ASCII.GetBytes "PROXY UNKNOWN\r\n", Topology.ClientOutside
                            binary
                                1uy
                                0x11uy
                                (Array.concat [ address "203.0.113.9"; address "192.0.2.1"; port 4244; port 443; tlv ]),
                            "203.0.113.9:4244"
                            binary
                                1uy
                                0x21uy
                                (Array.concat [ address "2001:db8::9"; address "2001:db8::1"; port 4245; port 443 ]),
                            "[2001:db8::9]:4245"
                            binary 0uy 0uy [||], Topology.ClientOutside ] do
                          let peer = site.Peer()
                          peer.SendRaw header
                          let online = site.Counter "conn_online"
                          Expect.isTrue (peer.Login(site.Vpn.User, site.Vpn.Password)) expected
                          Expect.isTrue (peer.IsAnswered()) expected
                          Expect.equal (site.Counter "conn_online") (online + 1L) expected

                          Expect.isTrue
                              (Wait.until patience (fun () -> site.Vpn.Server.Log.Contains $"online, {expected}"))
                              $"the log names {expected}"

                          peer.Shutdown())
              }

              test "a header that is wrong, cut or late ends the connection; each has a counter" {
                  withServer [ "proxy_protocol", "true" ] (fun site ->
                      let expect counter (act: StreamPeer -> unit) =
                          let before = site.Counter counter
                          let peer = site.Peer()
                          act peer

                          Expect.isTrue
                              (Wait.until patience (fun () -> site.Counter counter = before + 1L))
                              $"{counter} counts it"

                      expect "proxy_header_wrong" _.SendRaw(clientHello.Value)
                      expect "proxy_header_wrong" _.SendRaw(http)
                      expect "proxy_header_wrong" _.SendRaw(binary 1uy 0x11uy (Array.zeroCreate 600))

                      expect "proxy_header_cut" (fun peer ->
                          peer.SendRaw signature
                          peer.End())

                      let clock = Diagnostics.Stopwatch.StartNew()
                      expect "proxy_header_late" _.SendRaw(signature) // and never more
                      Expect.isGreaterThan clock.Elapsed.TotalSeconds 4.0 "not before 5 s"
                      Expect.equal (site.Counter "conn_created") 0L "none of them cost more")
              }

              test "only the networks of proxy_protocol_from begin with a header" {
                  withServer [ "proxy_protocol", "true"; "proxy_protocol_from", "198.18.0.0/15" ] (fun site ->
                      Expect.isTrue (site.LoggedIn().IsAnswered()) "a client without a proxy")
              } ]
    )

let private families =
    testSequenced (
        testList
            "families and transports"
            [ test "[::] serves both families, and mode both serves both transports, by one port and one pool" {
                  withSite
                      1
                      [ "bind_address", "\"[::]:27690\""; "mode", "both"; "handshakes_per_source", "100000" ]
                      [ "server", "\"[2001:db8:1::1]:27690\"" ]
                      (fun site ->
                          let outside netns text =
                              Shell.ip $"-n {netns} addr add {text}/64 dev outside nodad" |> ignore

                          outside site.Topology.Server "2001:db8:1::1"
                          outside site.Topology.Client "2001:db8:1::2"
                          site.Vpn.Start()
                          let length = megabytes 20L
                          expectIntact (Transfer.download site.Remote site.Topology.Client length) length
                          Expect.isTrue (site.LoggedIn().IsAnswered()) "TCP over IPv4, at the same time"
                          let v6 = site.Peer(IPEndPoint(IPAddress.Parse "2001:db8:1::1", 27690))
                          Expect.isTrue (v6.Login(site.Vpn.User, site.Vpn.Password)) "another one over IPv6"
                          Expect.isTrue (site.Vpn.Client.Stop()) "the client ends"

                          for server in [ "\"[2001:db8:1::1]:27690\""; $"\"{Topology.ServerOutside}:27690\"" ] do
                              site.Vpn.SetClient [ "mode", "udp"; "server", server ]
                              site.Vpn.StartClient()
                              site.Vpn.AwaitOnline()
                              expectIntact (Transfer.upload site.Remote site.Topology.Client length) length
                              Expect.isTrue (site.Vpn.Client.Stop()) "the client ends"

                          let counters = site.Vpn.Read().Counters
                          Expect.isGreaterThan counters["tls_packets_sent"] 10_000L "by TCP"
                          Expect.isGreaterThan counters["dtls_packets_received"] 10_000L "by UDP"
                          Expect.isTrue (v6.IsAnswered()) "TCP sessions live on")
              } ]
    )

let private parts =
    testSequenced (
        testList
            "ip_map"
            [ test
                  "the clients of a local address get inside addresses of its part, over UDP and TCP; the others never do" {
                  let second = "192.0.2.99"

                  withSite
                      1
                      [ "bind_address", "\"0.0.0.0:27690\""
                        "mode", "both"
                        "handshakes_per_source", "100000"
                        "ip_map", $"{{{second}: 10.125.77.0/30}}" ]
                      []
                      (fun site ->
                          Shell.ip $"-n {site.Topology.Server} addr add {second}/24 dev outside" |> ignore
                          site.Vpn.StartServer()
                          let address = IPEndPoint(IPAddress.Parse second, 27690)

                          // The part has four addresses; there is no fall-back to the rest of the pool.
                          for number in 1..5 do
                              let isIn = site.Peer(address).Login(site.Vpn.User, site.Vpn.Password)
                              Expect.equal isIn (number <= 4) $"client {number} of the second address"

                          Expect.isTrue (site.LoggedIn().IsAnswered()) "the first address has addresses of its own"
                          site.Vpn.SetClient [ "mode", "udp" ]
                          site.Vpn.StartClient()
                          site.Vpn.AwaitOnline()

                          let inside () =
                              [ for line in Regex.Matches(site.Vpn.Server.Log, @"inside address (\S+)") ->
                                    line.Groups[1].Value.StartsWith "10.125.77." ]

                          Wait.until patience (fun () -> (inside ()).Length >= 6) |> ignore

                          Expect.equal
                              (inside ())
                              [ true; true; true; true; false; false ]
                              "parts, in the order of the logins"

                          Expect.equal (site.Counter "conn_rejected_no_free_ip") 1L "the fifth was refused")
              }

              test "over UDP, too" {
                  withSite
                      1
                      [ "bind_address", "\"[::]:27690\""
                        "mode", "udp"
                        "ip_map", $"{{{Topology.ServerOutside}: 10.125.77.0/24}}" ]
                      [ "mode", "udp" ]
                      (fun site ->
                          site.Vpn.Start()
                          site.Vpn.Server.AwaitLog "inside address 10.125.77." "its part")
              } ]
    )

let private incidents =
    testSequenced (
        testList
            "incidents"
            [ test "a wrong password is refused on both sides; the next client is served" {
                  withSite 1 [] [ "password", "wrong" ] (fun site ->
                      site.Vpn.StartServer()
                      site.Vpn.LaunchClient()
                      Expect.equal (ends site.Vpn.Client) 3 "exit code"
                      site.Vpn.Client.AwaitLog "Unauthorized" "the client says why"
                      site.Vpn.Server.AwaitLog "wrong user or password" "the server says why"
                      site.Vpn.SetClient [ "password", site.Vpn.Password ]
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline())
              }

              test "a server that is killed and started again serves; the old client notices at once and ends" {
                  withSite 1 [] [ "reconnect", "false" ] (fun site ->
                      site.Vpn.Start()
                      site.Vpn.Server.Signal Netns.Signal.Kill
                      Expect.isTrue (site.Vpn.Server.WaitForExit(TimeSpan.FromSeconds 30.)) "killed"
                      Expect.equal (ends site.Vpn.Client) 1 "the client ends with an error"
                      site.Vpn.Client.AwaitLog "ConnectionLost" "and says why"
                      site.Vpn.StartServer()
                      site.Vpn.StartClient()
                      site.Vpn.AwaitOnline()
                      expectIntact (Transfer.download site.Remote site.Topology.Client (megabytes 5L)) (megabytes 5L))
              }

              test "a server of UDP only refuses the connection, and the client says what to do" {
                  withSite 1 [ "mode", "udp" ] [] (fun site ->
                      site.Vpn.StartServer()
                      site.Vpn.LaunchClient()
                      Expect.equal (ends site.Vpn.Client) 1 "exit code"

                      for part in [ "Connection refused"; "mode tcp or both" ] do
                          site.Vpn.Client.AwaitLog part "the last line")
              }

              test "key updates every 2 s during a transfer" {
                  withSite 1 [ "key_update_interval", "2s" ] [] (fun site ->
                      site.Vpn.Start()
                      let length = megabytes 30L

                      let download =
                          Netns.start site.Topology.Client (fun () ->
                              Transfer.pacedDownload site.Remote site.Topology.Client length 5_000_000u)

                      expectIntact (download.GetAwaiter().GetResult()) length
                      Expect.isGreaterThan (site.Counter "key_update_complete") 1L "updates were answered")
              }

              test "a client that stops reading costs four others nothing, and goes on when it reads again" {
                  withSite 5 [] [] (fun site ->
                      site.Vpn.Start()
                      let stalled = site.Topology.Clients[4]
                      let length = megabytes 40L

                      let slow =
                          Netns.start stalled (fun () -> Transfer.pacedDownload site.Remote stalled length 8_000_000u)

                      Thread.Sleep 1_000
                      site.Vpn.Clients[4].Signal Netns.Signal.Stop
                      let megabytes = site.Megabytes

                      let others =
                          [ for netns in List.take 4 site.Topology.Clients ->
                                Netns.start netns (fun () -> Transfer.download site.Remote netns length) ]

                      for other in others do
                          expectIntact (other.GetAwaiter().GetResult()) length

                      // Less than the 20 s after which the transfer would end.
                      let isShed () = site.Counter "tcp_shed_tcp" > 0L
                      Wait.until (TimeSpan.FromSeconds 10.) isShed |> ignore
                      Expect.isGreaterThan (site.Counter "tcp_send_blocked") 0L "its socket was full"
                      Expect.isGreaterThan (site.Counter "tcp_shed_tcp") 0L "its packets were dropped"
                      Expect.isLessThan (site.Megabytes - megabytes) 64.0 "growth of the server's memory in MB"
                      site.Vpn.Clients[4].Signal Netns.Signal.Continue
                      expectIntact (slow.GetAwaiter().GetResult()) length)
              }

              test "logins that have to wait for each other are not sent again, and none is lost" {
                  // All of one source and one user: one check at a time, and a failure delays the next one.
                  withServer [] (fun site ->
                      let wrong = site.Peer()
                      wrong.Handshake()
                      let right = [ for _ in 1..8 -> site.Peer() ]

                      for peer in right do
                          peer.Handshake()

                      wrong.Send(StreamPeer.Auth(site.Vpn.User, "wrong"))

                      for peer in right do
                          peer.Send(StreamPeer.Auth(site.Vpn.User, site.Vpn.Password))

                      for peer in right do
                          Expect.isTrue (peer.Await(FrameKind.AuthSuccess).IsSome) "let in"

                      Expect.isTrue (wrong.Await(FrameKind.AuthFailure).IsSome) "refused, whether it was first or last"

                      // The wrong one cost a check of its own; whoever asked while a right one ran got its answer.
                      let checks = site.Counter "auth_checks"
                      Expect.isGreaterThanOrEqual checks 2L "the wrong password and the right one"
                      Expect.isLessThanOrEqual checks 9L "no login was checked twice")
              }

              test "200 clients at the same time get the answers to their own packets" {
                  withServer [] (fun site ->
                      let peers =
                          [ for i in 1..200 ->
                                let request = Echo.request clientIp Topology.Remote i (8 + i)
                                struct (site.LoggedIn(), request) ]

                      for struct (peer, request) in peers do
                          peer.Send(StreamPeer.Data request)

                      for struct (peer, request) in peers do
                          let answer = Expect.wantSome (peer.Await FrameKind.Data) "an answer"
                          Expect.isTrue (Echo.isAnswer request answer) "its own answer"

                      Expect.equal (site.Counter "conn_online") 200L "all at the same time"
                      Expect.equal (site.Counter "conn_closed") 0L "all live")
              } ]
    )

let tests =
    testSequenced (testList "TCP mode" [ badInput; proxies; families; parts; incidents ])

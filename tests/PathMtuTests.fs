/// Path MTU discovery: in memory, where the test drops what is too long, and the real programs with a router between them,
/// which need root.
module Lightway.Tests.PathMtuTests

open System
open System.Collections.Generic
open System.Net
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Udp
open Lightway.Tests.Checks

/// A pair on a path that carries `carries.Value` bytes, and keeps the size of everything that it carried.
type private Line(expresslane: bool, ?baseMtu: int, ?maxSegments: int) =
    let pair =
        new Pair(expresslane, defaultArg maxSegments 64, pathMtu = true, ?pathMtuBase = baseMtu)

    let carried = List<int>()
    let mutable tooLong = 0
    member _.Pair = pair
    member val Carries = 1500 with get, set
    /// Bytes of the IP and UDP headers.
    member val Headers = 28 with get, set
    member _.Carried = carried
    /// Datagrams that were too long for the path.
    member _.TooLong = tooLong

    member this.Pump() =
        pair.Pump(fun datagram ->
            let mayFragment =
                pair.Client.Wire.Fragmentable.Contains datagram || pair.Server.Wire.Fragmentable.Contains datagram

            let size = datagram.Length + this.Headers
            let isLost = size > this.Carries && not mayFragment

            if isLost then tooLong <- tooLong + 1 else carried.Add size

            isLost)

    /// Lets time pass, 10 ms at a time.
    member this.Wait(milliseconds: int) =
        for _ in 1 .. milliseconds / 10 do
            pair.Advance 10L
            this.Pump()

    member this.Connect() =
        pair.StartClient()
        this.Pump()
        Expect.equal pair.Client.Connection.State ConnectionState.Online "online"

    interface IDisposable with
        member _.Dispose() = (pair :> IDisposable).Dispose()

let private on expresslane carries =
    let line = new Line(expresslane, Carries = carries)
    line.Connect()
    line

/// Both ends know the path.
let private settled expresslane carries =
    let line = on expresslane carries
    line.Wait 60_000
    Expect.equal line.Pair.Client.Connection.PathMtu carries "found by the client"
    Expect.equal line.Pair.Server.Connection.PathMtu carries "found by the server"
    line

/// Plain packet as the TUN hands it over.
let private single (packet: byte[]) =
    Array.append (Array.zeroCreate VirtioNetHeader.Size) packet

let private feed (side: End) (frame: byte[]) =
    use path =
        new InsidePath(RepeatedFrame(frame, 52, Left = 1), side.Context, OneRoute side.Connection)

    Expect.isTrue (path.Drain side.Now) "the socket is not full"

let private down length =
    Superpackets.plain Inside.Remote Inside.Assigned length

let private withDontFragment (packet: byte[]) =
    let packet = Array.copy packet
    packet[Ipv4.FragmentWordAt] <- 0x40uy
    packet[Ipv4.ChecksumAt] <- 0uy
    packet[Ipv4.ChecksumAt + 1] <- 0uy
    let sum = Checksum.complement (Checksum.sum (ReadOnlySpan(packet, 0, 20)))
    packet[Ipv4.ChecksumAt] <- byte (sum >>> 8)
    packet[Ipv4.ChecksumAt + 1] <- byte sum
    packet

let private mtuOf (packet: byte[]) = (int packet[26] <<< 8) + int packet[27]

let private modes = [ true, "Expresslane"; false, "DTLS" ]

let private memory =
    [ for expresslane, mode in modes do
          for carries in [ 1500; 1492; 1300; 1000; 577 ] do
              test $"{mode}: both ends find a path of {carries}, and nothing longer leaves from then on" {
                  use line = settled expresslane carries
                  let pair = line.Pair
                  let inside = Sizes.insideMtu (carries, false, expresslane)
                  let lost = line.TooLong

                  for side in [ pair.Server; pair.Client ] do
                      Expect.equal side.Connection.InsideMtu inside "what senders are told"
                      let counters = side.Context.Counters
                      Expect.isGreaterThan counters[Counter.PathMtuProbes] 0L "probes"
                      Expect.equal counters[Counter.PathMtuChanges] 1L "changes"
                      Expect.equal counters[Counter.PathMtuBlackHoles] 0L "black holes"

                  for length in [ 20; inside - 1; inside; inside + 1; 1431; 1500 ] do
                      let sent = down length
                      feed pair.Server (single sent)
                      line.Pump()

                      Expect.equal
                          (Seq.last pair.Client.Delivered)
                          (Superpackets.plain Inside.Remote Inside.Client length)
                          $"{length} bytes to the client"

                      let sent = Superpackets.plain Inside.Client Inside.Remote length
                      feed pair.Client (single sent)
                      line.Pump()

                      Expect.equal
                          (Seq.last pair.Server.Delivered)
                          (Superpackets.plain Inside.Assigned Inside.Remote length)
                          $"{length} bytes to the server"

                  Expect.equal line.TooLong lost "datagrams that were too long"
                  // DTLS puts 69 bytes around a packet.
                  let split =
                      [ inside + 1; 1431; 1500 ] |> List.filter (fun length -> length > carries - 69)

                  let counters = pair.Server.Context.Counters
                  Expect.equal counters[Counter.TunPacketsFragmented] (int64 split.Length) "packets in fragments"
                  Expect.isGreaterThanOrEqual counters[Counter.FragmentsSent] (2L * int64 split.Length) "fragments"
                  Expect.equal counters[Counter.TunRejectedPacketTooBig] 0L "drops"
              }

          test $"{mode}: packets and segments that are too long pass, and their senders hear what would pass whole" {
              use line = settled expresslane 1300
              let pair = line.Pair
              let inside = Sizes.insideMtu (1300, false, expresslane)
              let packet = withDontFragment (down 1400)
              feed pair.Server (single packet)
              let error = Seq.exactlyOne pair.Server.Delivered
              Expect.equal (error[20..21], mtuOf error) ([| 3uy; 4uy |], inside) "fragmentation needed"
              line.Pump()
              Expect.equal pair.Client.Delivered.Count 1 "and it arrived"

              pair.Client.Delivered.Clear()
              let payload = Array.init 30_000 byte
              feed pair.Server (Superpackets.tcp Inside.Assigned payload 1300)
              Expect.equal pair.Server.Delivered.Count 2 "one error about a superpacket"
              Expect.equal (mtuOf pair.Server.Delivered[1]) inside "with the same value"
              line.Pump()

              let arrived =
                  pair.Client.Delivered |> Seq.map (fun packet -> packet[52..]) |> Array.concat

              Expect.equal arrived payload "every byte, in order"

              // Without DF there is no error: the packet is split.
              feed pair.Server (single (down 1400))
              Expect.equal pair.Server.Delivered.Count 2 "no error"
          }

          test $"{mode}: the MSS of a SYN follows the path" {
              use line = settled expresslane 1300
              let pair = line.Pair
              let mss = uint16 (Sizes.insideMtu (1300, false, expresslane) - 40)
              feed pair.Server (single (Superpackets.opening Inside.Remote Inside.Assigned 0x02uy 1460us))
              line.Pump()
              let expected = Superpackets.opening Inside.Remote Inside.Client 0x02uy mss
              Expect.equal (Seq.last pair.Client.Delivered) expected "lowered"
          }

          test
              $"{mode}: a path that becomes shorter is noticed within 1.2 s of traffic, and costs no error until it is known" {
              use line = settled expresslane 1500
              let pair = line.Pair
              let inside = Sizes.insideMtu (1500, false, expresslane)
              let packet = single (withDontFragment (down inside))
              let counters = pair.Server.Context.Counters

              let run ms =
                  for _ in 1 .. ms / 10 do
                      feed pair.Server packet
                      line.Wait 10

              run 3_000
              Expect.equal pair.Client.Delivered.Count 300 "every packet"
              Expect.equal counters[Counter.PathMtuBlackHoles] 0L "nothing wrong"
              line.Carries <- 1300
              run 1_200
              Expect.equal counters[Counter.PathMtuBlackHoles] 1L "noticed"
              pair.Client.Delivered.Clear()
              run 200
              Expect.equal pair.Client.Delivered.Count 20 "every packet passes again"
              Expect.isEmpty pair.Server.Delivered "no error yet: what passes is not known"
              run 6_000
              Expect.equal pair.Client.Delivered.Count 620 "no packet is lost while it is looked for"
              Expect.equal pair.Server.Connection.PathMtu 1300 "found"
              let errors = pair.Server.Delivered |> Seq.map mtuOf |> Seq.distinct |> List.ofSeq
              Expect.equal errors [ Sizes.insideMtu (1300, false, expresslane) ] "errors have the value found"
          }

          test $"{mode}: no byte is allocated per packet that is split, over 100 000 packets" {
              use line = settled expresslane 1300
              let pair = line.Pair
              pair.Server.Wire.Discard <- true

              let source =
                  RepeatedFrame(Superpackets.tcp Inside.Assigned (Array.zeroCreate 60_000) 1300, 52)

              use path =
                  new InsidePath(source, pair.Server.Context, OneRoute pair.Server.Connection)

              let run superpackets =
                  source.Left <- superpackets

                  while source.Left > 0 do
                      path.Drain pair.Server.Now |> ignore

              run 200
              let split = pair.Server.Context.Counters[Counter.TunPacketsFragmented]

              let allocated = allocatedByEach 3 (fun () -> run 800)
              let count = pair.Server.Context.Counters[Counter.TunPacketsFragmented] - split
              Expect.isGreaterThan count 100_000L "packets"
              Expect.equal allocated 0L "bytes allocated"
          }

      test "the first search takes two round trips on a path that carries the outside MTU" {
          use line = on true 1500
          line.Wait 20
          Expect.equal line.Pair.Client.Connection.PathMtu 1500 "found"
          Expect.equal line.Pair.Client.Context.Counters[Counter.PathMtuProbes] 2L "probes"
      }

      test "before the end of the first search long packets are split, and nobody is told of a limit" {
          use line = on true 1300
          let pair = line.Pair
          feed pair.Server (single (withDontFragment (down 1400)))
          line.Pump()
          Expect.equal pair.Client.Delivered.Count 1 "it arrives"
          Expect.isEmpty pair.Server.Delivered "no error"
          Expect.equal pair.Server.Connection.InsideMtu (Sizes.insideMtu (1500, false, true)) "the outside MTU's"
          Expect.equal pair.Server.Connection.PathMtu 0 "nothing found yet"
      }

      test "a probe that this machine refuses to send (EMSGSIZE) takes no time-out" {
          use line = on true 1500
          let pair = line.Pair
          line.Wait 20
          let device = 1400
          let before = pair.Client.Context.Counters[Counter.UdpControlSendFailed]
          pair.Client.Wire.Refuses <- device - 28
          pair.Client.Connection.NetworkChanged pair.Client.Now
          line.Wait 2_000
          Expect.equal pair.Client.Connection.PathMtu device "found"
          Expect.isGreaterThan pair.Client.Context.Counters[Counter.UdpControlSendFailed] before "refused"
      }

      test "a client that moves: the server looks for the new path, once per second at most" {
          use line = settled true 1500
          let pair = line.Pair
          let counters = pair.Server.Context.Counters
          line.Carries <- 1300
          let before = counters[Counter.PathMtuProbes]

          for port in 50_000..50_099 do
              let path =
                  OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, port)), LocalAddress())

              pair.Server.Connection.MoveTo(&path, pair.Server.Context.Ids.Draw())

          line.Wait 20
          Expect.isLessThanOrEqual (counters[Counter.PathMtuProbes] - before) 2L "probes"
          line.Wait 60_000
          Expect.equal pair.Server.Connection.PathMtu 1300 "found"
          Expect.equal pair.Client.Connection.PathMtu 1500 "the client's own way is not probed while nothing leaves"
      }

      test "a client that moves to an address of the other family: sizes follow" {
          for expresslane in [ true; false ] do
              use line = settled expresslane 1400
              let server = line.Pair.Server.Connection
              Expect.equal server.InsideMtu (Sizes.insideMtu (1400, false, expresslane)) "over IPv4"
              line.Headers <- 48

              let path =
                  OutsideAddress(PeerAddress(IPEndPoint(IPAddress.IPv6Loopback, 50_000)), LocalAddress())

              server.MoveTo(&path, line.Pair.Server.Context.Ids.Draw())
              line.Wait 60_000
              Expect.equal server.PathMtu 1400 "over IPv6"
              Expect.equal server.InsideMtu (Sizes.insideMtu (1400, true, expresslane)) "over IPv6"
              let lost = line.TooLong
              line.Carried.Clear()

              for length in [ server.InsideMtu - 1 .. server.InsideMtu + 30 ] do
                  feed line.Pair.Server (single (down length))
                  line.Pump()

                  Expect.equal
                      (Seq.last line.Pair.Client.Delivered)
                      (Superpackets.plain Inside.Remote Inside.Client length)
                      $"{length} bytes"

              Expect.equal line.TooLong lost "none is too long"
              Expect.equal (Seq.max line.Carried) 1400 "the longest"
      }

      test "the first probe has the base size: the option's, as a frame, or an IP packet of 1280 bytes" {
          for option, expected in [ None, 1280; Some 1250, 1316; Some 1000, 1066; Some 68, 576; Some 65_535, 1500 ] do
              use line = new Line(false, ?baseMtu = option)
              line.Connect()
              Expect.contains (List.ofSeq line.Carried) expected $"base {option}"
      }

      test "a socket that is full in the middle of a packet's fragments: the packet waits, and arrives once" {
          use line = new Line(true, Carries = 1300, maxSegments = 1)
          line.Connect()
          line.Wait 60_000
          let server = line.Pair.Server
          let source = RepeatedFrame(single (down 1400), 52, Left = 1)
          use path = new InsidePath(source, server.Context, OneRoute server.Connection)
          server.Wire.Errors.Enqueue 11 // EAGAIN for the first fragment, when the second one needs its place
          Expect.isFalse (path.Drain server.Now) "full"
          Expect.isTrue path.IsPending "it waits"
          Expect.equal server.Context.Counters[Counter.FragmentsSent] 1L "one fragment is ready"
          Expect.isTrue (path.Drain server.Now) "writable again"
          line.Pump()

          Expect.equal
              (Seq.exactlyOne line.Pair.Client.Delivered)
              (Superpackets.plain Inside.Remote Inside.Client 1400)
              "the packet"

          Expect.equal server.Context.Counters[Counter.TunPacketsFragmented] 1L "counted once"
          line.Wait 11_000
          Expect.equal line.Pair.Client.Context.Counters[Counter.FragmentInvalid] 0L "the rest is forgotten"
      }

      test "pongs that answer nothing change nothing" {
          use line = settled true 1300
          let pair = line.Pair
          let frame: byte[] = Array.zeroCreate Frame.PingHeaderSize

          for id in 0us .. 999us do
              let length = Frame.writePong (id * 65us + 1us, ReadOnlySpan.Empty, Span frame)
              pair.ClientSession.Write(ReadOnlySpan(frame, 0, length)) |> ignore

          line.Pump()
          line.Wait 2_000
          Expect.equal pair.Server.Connection.PathMtu 1300 "as before"
          Expect.equal pair.Server.Connection.State ConnectionState.Online "no error"
      }

      test "without the option, no probe leaves and pongs are ignored" {
          use pair = new Pair(true, 64)
          pair.Connect()

          for _ in 1..200 do
              pair.Advance 100L
              pair.Pump()

          Expect.equal pair.Client.Context.Counters[Counter.PathMtuProbes] 0L "client"
          Expect.equal pair.Server.Context.Counters[Counter.PathMtuProbes] 0L "server"
          Expect.isFalse pair.Server.Connection.SplitsPackets "packets that do not fit are dropped"
      } ]

let private sockets =
    [ for local, address, family in
          [ IPAddress.Any, IPAddress.Loopback, "IPv4"
            IPAddress.IPv6Any, IPAddress.IPv6Loopback, "IPv6"
            IPAddress.IPv6Any, IPAddress.Loopback.MapToIPv6(), "IPv4 from a socket of both families" ] do
          test $"{family}: a socket that forbids fragments makes none, but for handshakes, before and after" {
              needsRoot ()
              use topology = Topology.Create()
              let netns = topology.RemoteHost
              Shell.ip $"-n {netns} link set lo mtu 1400" |> ignore

              let results =
                  Netns.run netns (fun () ->
                      use socket = UdpSocket.Bind(IPEndPoint(local, 0), 0, 0, 0u, false)
                      let peer = PeerAddress(IPEndPoint(address, socket.LocalEndPoint.Port))
                      let path = OutsideAddress(peer, LocalAddress())

                      let send length segment =
                          let data: byte[] = Array.zeroCreate length
                          min 0 ((socket :> IDatagramSender).Send(&path, ReadOnlySpan data, segment, 0uy))

                      let loose = send 1460 0
                      socket.ForbidFragments()
                      let fits = if family = "IPv6" then 1352 else 1372

                      let before =
                          [ send fits 0; send (fits + 1) 0; send (2 * fits) fits; send (2 * fits + 2) (fits + 1) ]

                      let data: byte[] = Array.zeroCreate 1460
                      let fragmentable = min 0 (socket.SendFragmentable(&path, ReadOnlySpan data))
                      [ loose ] @ before @ [ fragmentable; send (fits + 1) 0; send fits 0 ])

              Expect.equal results [ 0; 0; -90; 0; -90; 0; -90; 0 ] "EMSGSIZE is 90"

              if family <> "IPv6" then
                  let made = (NetworkCounters.snmp netns)["Ip.FragOKs"]
                  Expect.equal made 2L "the two long ones that were allowed"
          } ]

/// What makes the router between client and server carry less.
type private Shortening =
    /// Longer packets are dropped without a word: a black hole.
    | Silent
    /// Longer packets are answered with ICMP "fragmentation needed" if they have DF, and fragmented if not.
    | Reported

let private shorten (topology: Topology) (way: Shortening) (carries: int) =
    match way with
    | Silent ->
        for command in
            [ [ "add"; "table"; "ip"; "path" ]
              [ "add"; "chain"; "ip"; "path"; "long"; "{ type filter hook forward priority 0; }" ]
              [ "add"; "rule"; "ip"; "path"; "long"; "ip"; "length"; ">"; string carries; "counter"; "drop" ] ] do
            Shell.inside topology.Router "nft" command |> ignore
    | Reported ->
        for address, device in [ Topology.ClientOutside, "client"; Topology.ServerOutside, "server" ] do
            Shell.ip $"-n {topology.Router} route replace {address}/32 dev {device} mtu lock {carries}"
            |> ignore

let private withVpn expresslane (body: Topology -> Vpn -> 'T) : 'T =
    needsRoot ()
    use topology = Topology.CreateRouted()

    // Datagrams are cut before they leave: a veth device would hand a whole run to the router as one packet.
    for netns in [ topology.Client; topology.Server ] do
        Shell.ip $"-n {netns} link set outside gso_max_segs 1" |> ignore

    let settings =
        { Expresslane = expresslane
          Offload = true
          ServerKeys = [ "enable_pmtud", "true" ]
          ClientKeys = [ "enable_pmtud", "true" ] }

    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

/// IP fragments that any kernel on the way has made or put together again (RFC 4293).
let private fragments (topology: Topology) =
    [ for netns in [ topology.Client; topology.Router; topology.Server ] do
          let counters = NetworkCounters.snmp netns

          for name in [ "Ip.FragCreates"; "Ip.FragOKs"; "Ip.ReasmReqds" ] do
              if counters[name] <> 0L then
                  $"{netns} {name} {counters[name]}" ]

let private remote (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

let private awaitPath (vpn: Vpn) (carries: int) =
    vpn.Client.Await (TimeSpan.FromSeconds 60.) $"the client finds {carries}" (fun () ->
        vpn.Client.Log.Contains $"carries {carries} bytes")

let private paths =
    [ for expresslane, mode in modes do
          for way in [ Silent; Reported ] do
              test $"{mode}: a path of 1300 ({way}) is found, and TCP passes both ways without a fragment" {
                  withVpn expresslane (fun topology vpn ->
                      shorten topology way 1300
                      vpn.Start()
                      awaitPath vpn 1300
                      // Without DF, packets of the device's MTU are split both ways, and nobody hears of it.
                      // One by one: ping(8) hardly waits for the last of several.
                      let ping =
                          [ "-n"; "-c"; "1"; "-W"; "10"; "-M"; "dont"; "-s"; "1322"; Topology.Remote ]

                      for _ in 1..5 do
                          let output = Shell.inside topology.Client "ping" ping
                          Expect.stringContains output "1 packets transmitted, 1 received" "long packets without DF"
                          Expect.isFalse (output.Contains "Frag needed") "no error"

                      let split = (vpn.ReadClients().Value.Head).Counters["tun_packets_fragmented"]
                      Expect.equal split 5L "split by the client"
                      let length = megabytes 30L
                      expectIntact (Transfer.download (remote topology) topology.Client length) length
                      expectIntact (Transfer.upload (remote topology) topology.Client length) length
                      Expect.equal (fragments topology) [] "IP fragments outside"

                      Expect.isTrue
                          (Wait.until (TimeSpan.FromSeconds 60.) (fun () ->
                              vpn.Read().Counters["path_mtu_changes"] >= 1L))
                          "the server has found the path, too")
              }

          for way, isDownload in [ Silent, true; Silent, false; Reported, true ] do
              let direction = if isDownload then "download" else "upload"

              test
                  $"{mode}: a path that shrinks from 1500 to 1300 ({way}) during a {direction} stops it for less than 3 s" {
                  let longestWait () =
                      withVpn expresslane (fun topology vpn ->
                          vpn.Start()
                          awaitPath vpn 1500

                          let read () =
                              if isDownload then
                                  vpn.Read().Counters
                              else
                                  (vpn.ReadClients().Value.Head).Counters

                          Expect.isTrue
                              (Wait.until (TimeSpan.FromSeconds 60.) (fun () -> read()["path_mtu_changes"] >= 1L))
                              "the end that sends knows the path"

                          let changes = read()["path_mtu_changes"]
                          let length = megabytes 120L
                          let rate = 12_000_000u // ten seconds

                          let transfer =
                              if isDownload then
                                  Transfer.pacedDownload
                              else
                                  Transfer.pacedUpload

                          let running =
                              Netns.start topology.Client (fun () ->
                                  transfer (remote topology) topology.Client length rate)

                          Thread.Sleep 3_000
                          shorten topology way 1300
                          let result = running.GetAwaiter().GetResult()
                          expectIntact result length
                          Expect.equal (fragments topology) [] "IP fragments outside"

                          Expect.isTrue
                              (Wait.until (TimeSpan.FromSeconds 60.) (fun () -> read()["path_mtu_changes"] > changes))
                              "the end that sends has found another path MTU"

                          let counters = read ()
                          Expect.isGreaterThan counters["path_mtu_black_holes"] 0L "noticed by the sender"

                          Expect.isGreaterThan
                              counters["tun_packets_fragmented"]
                              0L
                              "long packets were split meanwhile"

                          printfn
                              $"{mode}, {way}, {direction}: {result.LongestWait.TotalSeconds:F2} s without a byte, {result.Seconds:F1} s in all"

                          result.LongestWait.TotalSeconds)

                  // A busy machine may hold up one transfer; then a second one must not wait.
                  let first = longestWait ()

                  if first >= 3.0 then
                      Expect.isLessThan (longestWait ()) 3.0 $"seconds without a byte; the first time it was {first:F2}"
              } ]

let tests =
    testList "Path MTU" [ testList "in memory" (memory @ sockets); testSequenced (testList "through a router" paths) ]

/// Packets that do not fit into a datagram: their senders hear about it, and TCP is told before. In memory, and the real
/// programs in real namespaces, which need root.
module Lightway.Tests.MtuTests

open System
open System.Buffers.Binary
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Paths
open Lightway.Tests.Checks

let private connected expresslane outsideMtu =
    let pair = new Pair(expresslane, 64, outsideMtu = outsideMtu)
    pair.Connect()
    pair

/// The TUN has this frame once, or several times.
let private feed (pair: Pair) (frame: byte[]) times =
    use path =
        new InsidePath(RepeatedFrame(frame, 52, Left = times), pair.Server.Context, OneRoute pair.Server.Connection)

    pair.Server.Wire.Datagrams.Clear()
    Expect.isTrue (path.Drain pair.Server.Now) "the socket is not full"

/// A plain packet as the TUN hands it over.
let private single (packet: byte[]) =
    Array.append (Array.zeroCreate VirtioNetHeader.Size) packet

let private withDontFragment (packet: byte[]) =
    packet[Ipv4.FragmentWordAt] <- 0x40uy
    packet[Ipv4.ChecksumAt] <- 0uy
    packet[Ipv4.ChecksumAt + 1] <- 0uy
    let sum = Checksum.complement (Checksum.sum (ReadOnlySpan(packet, 0, 20)))
    BinaryPrimitives.WriteUInt16BigEndian(Span(packet, Ipv4.ChecksumAt, 2), sum)
    packet

let private toClient length =
    Superpackets.plain Inside.Remote Inside.Assigned length

/// IPv4, and ICMP "fragmentation needed" about `packet`, whose sender gets it from where the packet went.
let private expectNeeded (error: byte[]) (packet: byte[]) mtu =
    let quoted = min packet.Length 548
    Expect.equal (Checksum.sum (ReadOnlySpan(error, 0, 20))) 0xFFFFus "IP checksum"
    Expect.equal (Checksum.sum (ReadOnlySpan(error, 20, error.Length - 20))) 0xFFFFus "ICMP checksum"
    Expect.equal error[20..21] [| 3uy; 4uy |] "type and code"
    Expect.equal (int (BinaryPrimitives.ReadUInt16BigEndian(ReadOnlySpan(error, 26, 2)))) mtu "MTU of the next hop"
    Expect.equal error[12..15] packet[16..19] "from where the packet went"
    Expect.equal error[16..19] packet[12..15] "to the sender"
    Expect.equal error[28..] packet[.. quoted - 1] "the packet as it came from the TUN"

let private memory =
    [ for expresslane, mode in [ true, "Expresslane"; false, "DTLS" ] do
          for outsideMtu in [ 1500; 1400 ] do
              let mtu = Sizes.insideMtu (outsideMtu, false, expresslane)

              test
                  $"{mode}, outside MTU {outsideMtu}: the longest packet makes the longest datagram, a longer one an error" {
                  use pair = connected expresslane outsideMtu
                  let counters = pair.Server.Context.Counters
                  Expect.equal pair.Server.Connection.InsideMtu mtu "what fits"
                  feed pair (single (withDontFragment (toClient mtu))) 1
                  let lengths = [ for datagram in pair.Server.Wire.Datagrams -> datagram.Length + 28 ]
                  Expect.equal lengths [ outsideMtu ] "bytes of the outside IP packet"
                  Expect.isEmpty pair.Server.Delivered "no error"

                  let packet = withDontFragment (toClient (mtu + 1))
                  feed pair (single packet) 1
                  Expect.isEmpty pair.Server.Wire.Datagrams "nothing leaves"
                  expectNeeded (Seq.exactlyOne pair.Server.Delivered) packet mtu
                  Expect.equal counters[Counter.IcmpErrorsSent] 1L "counted"
                  Expect.equal counters[Counter.TunRejectedPacketTooBig] 1L "a drop"
              }

              test $"{mode}, outside MTU {outsideMtu}: a superpacket whose segments do not fit makes one error" {
                  use pair = connected expresslane outsideMtu
                  let payload = Array.init 30_000 byte
                  let fits = Superpackets.tcp Inside.Assigned payload (mtu - 52)
                  feed pair fits 1
                  Expect.equal (pair.Server.Wire.Datagrams |> Seq.map _.Length |> Seq.max) (outsideMtu - 28) "it fits"
                  let tooLong = Superpackets.tcp Inside.Assigned payload (mtu - 51)
                  feed pair tooLong 1
                  Expect.isEmpty pair.Server.Wire.Datagrams "nothing leaves"
                  expectNeeded (Seq.exactlyOne pair.Server.Delivered) tooLong[VirtioNetHeader.Size ..] mtu
              }

          test $"{mode}: the MSS of a SYN is lowered to what fits, on both ways, and no other packet is touched" {
              use pair = connected expresslane 1400
              let mss = uint16 (Sizes.insideMtu (1400, false, expresslane) - 40)
              let counters = pair.Server.Context.Counters

              for flags, option, expected in
                  [ 0x02uy, 1460us, mss; 0x12uy, 1460us, mss; 0x02uy, 900us, 900us; 0x10uy, 1460us, 1460us ] do
                  let down = Superpackets.opening Inside.Remote Inside.Assigned flags option
                  feed pair (single down) 1
                  pair.Pump()
                  let arrived = Seq.last pair.Client.Delivered
                  Expect.equal arrived (Superpackets.opening Inside.Remote Inside.Client flags expected) "to the client"

                  // The client of this pair lowers what it sends, too: another one might not.
                  let up = Superpackets.opening Inside.Client Inside.Remote flags option
                  let buffer = Array.append (Array.zeroCreate 16) up
                  let client = pair.Client.Connection
                  client.BeginInside pair.Client.Now
                  Expect.equal (client.TrySend(Span buffer, 16, up.Length)) SendResult.Accepted "accepted, untranslated"
                  pair.Client.Context.ToOutside.Flush() |> ignore
                  pair.Pump()
                  let arrived = Seq.last pair.Server.Delivered

                  Expect.equal
                      arrived
                      (Superpackets.opening Inside.Assigned Inside.Remote flags expected)
                      "to the server"

              Expect.equal counters[Counter.MssClamped] 4L "counted at the server, both ways"
          }

      test "no error about a packet without DF: its sender does not look for the MTU" {
          use pair = connected true 1500
          feed pair (single (toClient 1500)) 1
          Expect.isEmpty pair.Server.Wire.Datagrams "nothing leaves"
          Expect.isEmpty pair.Server.Delivered "no error"
          Expect.equal pair.Server.Context.Counters[Counter.TunRejectedPacketTooBig] 1L "a drop"
      }

      test "each sender gets a few errors per second, and the rest is counted" {
          use pair = connected true 1500
          let counters = pair.Server.Context.Counters
          let packet = single (withDontFragment (toClient 1500))
          feed pair packet 60
          Expect.isLessThan counters[Counter.IcmpErrorsSent] 30L "errors"
          Expect.equal (counters[Counter.IcmpErrorsSent] + counters[Counter.IcmpErrorsSuppressed]) 60L "all counted"
          Expect.equal (int64 pair.Server.Delivered.Count) counters[Counter.IcmpErrorsSent] "what the TUN got"
      } ]

/// Every datagram of a handshake, either way.
let private handshake (keyShare: KeyShare) outsideMtu =
    let pair = new Pair(false, 64, keyShare = keyShare, outsideMtu = outsideMtu)
    let lengths = ResizeArray<int>()
    pair.StartClient()

    pair.Pump(fun datagram ->
        if pair.Client.Connection.State = ConnectionState.Connecting then
            lengths.Add datagram.Length

        false)

    pair, List.ofSeq lengths

let private handshakes =
    [ for keyShare, group in [ KeyShare.P521MlKem1024, "SecP521r1MLKEM1024"; KeyShare.X25519MlKem768, "X25519MLKEM768" ] do
          for outsideMtu in [ 1500; 1280 ] do
              test
                  $"{keyShare}, outside MTU {outsideMtu}: no datagram of the handshake exceeds 1200 bytes, long packets pass later" {
                  let pair, lengths = handshake keyShare outsideMtu
                  use pair = pair
                  Expect.equal pair.Client.Connection.State ConnectionState.Online "it succeeds"
                  Expect.stringContains pair.Client.Connection.Security group "the group that was asked for"
                  Expect.isGreaterThan lengths.Length 5 "datagrams"
                  let most = min 1200 (outsideMtu - 44) + WireHeader.Size
                  Expect.isLessThanOrEqual (List.max lengths) most "bytes with the wire header"
                  Expect.isGreaterThan (List.max lengths) 1000 "not needlessly short"

                  feed pair (single (toClient pair.Server.Connection.InsideMtu)) 1
                  pair.Pump()
                  Expect.equal pair.Client.Delivered.Count 1 "a packet as long as may be"
              } ]

/// What ping(8) says about one packet with DF of this many bytes of payload.
let private pingOnce (netns: string) (address: string) (payload: int) =
    let arguments =
        [ "netns"; "exec"; netns; "ping"; "-n"; "-c"; "1"; "-W"; "1"; "-M"; "do" ]

    let struct (_, output, errors) =
        Shell.tryRun "ip" (arguments @ [ "-s"; string payload; address ])

    output + errors

/// The same, until it says this; each time the kernel has forgotten what it has learned of the path.
let private expectPing (netns: string) (address: string) (payload: int) (expected: string) (meaning: string) =
    let answer = ref ""

    let isSaid () =
        forgetPaths netns
        answer.Value <- pingOnce netns address payload
        answer.Value.Contains expected

    Wait.until (TimeSpan.FromSeconds 30.) isSaid |> ignore
    Expect.stringContains answer.Value expected meaning

let private deviceMtu (netns: string) (device: string) =
    int (Regex.Match(Shell.ip $"-n {netns} link show {device}", @"mtu (\d+)").Groups[1].Value)

/// Fragments that the kernel of a namespace has made (RFC 4293, ipSystemStatsOutFragCreates).
let private fragments (netns: string) =
    let line =
        Regex.Match(Shell.inside netns "nstat" [ "-asz"; "IpFragCreates" ], @"IpFragCreates +(\d+)")

    int64 line.Groups[1].Value

let private expectBothWays (topology: Topology) length =
    let remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    let forget () =
        List.iter forgetPaths [ topology.Client; topology.RemoteHost ]

    expectSteady forget (fun () -> Transfer.download remote topology.Client length) length
    expectSteady forget (fun () -> Transfer.upload remote topology.Client length) length

let private withVpn expresslane offload clientKeys (body: Topology -> Vpn -> unit) =
    needsRoot ()
    use topology = Topology.Create()

    let settings =
        { Expresslane = expresslane
          Offload = offload
          ServerKeys = []
          ClientKeys = clientKeys }

    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

let private path =
    [ for expresslane, offload, mode in
          [ true, true, "Expresslane"; true, false, "Expresslane without offload"; false, true, "DTLS" ] do
          for outsideMtu in [ 1400; 1280 ] do
              test
                  $"{mode}: over a path of MTU {outsideMtu} TCP passes both ways without a stall above 1 s, and no datagram is fragmented" {
                  withVpn expresslane offload [ "outside_mtu", string outsideMtu ] (fun topology vpn ->
                      for netns in [ topology.Client; topology.Server ] do
                          Shell.ip $"-n {netns} link set outside mtu {outsideMtu}" |> ignore

                      vpn.Start()
                      let mtu = Sizes.insideMtu (outsideMtu, false, expresslane)
                      Expect.equal (deviceMtu topology.Client vpn.Device) mtu "the client's device"
                      expectBothWays topology (megabytes 100L)
                      Expect.equal (fragments topology.Client) 0L "fragments of the client"
                      Expect.equal (fragments topology.Server) 0L "fragments of the server"
                      let expected = $"message too long, mtu={mtu}"
                      expectPing topology.Client Topology.Remote 1472 expected "a longer packet"
                      expectPing topology.Client Topology.Remote (mtu - 28) " 0% packet loss" "fits")
              }

          test
              $"{mode}: the server's device has an MTU of 9000; a warning says so, and TCP passes both ways without a stall above 1 s" {
              withVpn expresslane offload [] (fun topology vpn ->
                  vpn.StartServer()
                  Shell.ip $"-n {topology.Server} link set {vpn.Device} mtu 9000" |> ignore
                  let mtu = Sizes.insideMtu (1500, false, expresslane)
                  let warning = $"ip link set {vpn.Device} mtu {mtu}"

                  vpn.Server.Await (TimeSpan.FromSeconds 30.) "the MTU is noticed" (fun () ->
                      vpn.Server.Log.Contains "MTU of 9000 from now on" && vpn.Server.Log.Contains warning)

                  vpn.StartClient()
                  vpn.AwaitOnline()
                  Expect.equal (deviceMtu topology.Client vpn.Device) mtu "the client's device"
                  expectBothWays topology (megabytes 100L)
                  let client = string (NetworkErrorTests.addressAtRemote topology)
                  expectPing topology.RemoteHost client 1472 $"(mtu = {mtu})" "the remote hears what fits"
                  expectPing topology.RemoteHost client (mtu - 28) " 0% packet loss" "fits"

                  Expect.isGreaterThan (vpn.Read().Counters["icmp_errors_sent"]) 0L "counted")
          }

      test "the client refuses an outside MTU that leaves no room for packets, and says what would" {
          withVpn true true [ "outside_mtu", "171" ] (fun _ vpn ->
              vpn.LaunchClient()
              Expect.isTrue (vpn.Client.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
              Expect.equal vpn.Client.ExitCode 2 "exit code"
              vpn.Client.AwaitLog "outside_mtu: 171" "which option"
              vpn.Client.AwaitLog "172 to 1500" "what is allowed")
      } ]

let tests =
    testList "MTU" (memory @ handshakes @ [ testSequenced (testList "path" path) ])

/// The client's program in memory: what it makes of packets and datagrams, without device, socket or thread.
module Lightway.Tests.ClientSessionTests

open System
open System.Net
open Expecto
open Lightway.Client
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging.Abstractions

let private server = IPEndPoint(IPAddress.Parse "203.0.113.9", 27690)
let private serverIp = Ipv4Address.Of server.Address

/// A UDP packet in the clear.
let private udp (destination: Ipv4Address) (port: int) : byte[] =
    let packet = Superpackets.plain Inside.Client destination 60
    packet[9] <- IpProtocol.Udp
    packet[22] <- byte (port >>> 8)
    packet[23] <- byte port
    packet

let private withSessionTo (servers: IPEndPoint list) (body: ClientSession -> End -> unit) =
    use own = new End(Role.Client, 64)
    own.Context.Now <- own.Now

    use tls = TestCertificate.clientTls ()

    use session =
        new ClientSession(
            ConnectionSettings(Role = Role.Client),
            own.Context,
            tls,
            0u,
            InsideAddresses(Inside.Client, Ipv4Address.None),
            [| for server in servers -> PeerAddress server |],
            NullLogger.Instance
        )

    body session own

let private withSession = withSessionTo [ server ]

let private second = IPEndPoint(IPAddress.Parse "2001:db8::9", 27690)

/// The worker's tick, this much later.
let private tick (session: ClientSession) (own: End) (milliseconds: int64) =
    own.Now <- own.Now + milliseconds
    own.Context.Now <- own.Now
    session.Tick own.Now

/// A datagram of the server that means nothing.
let private answer (session: ClientSession) (own: End) (from: IPEndPoint) =
    let header =
        { Version = ProtocolVersion.V1_3
          Aggressive = false
          Expresslane = false
          Session = SessionId.Empty }

    let path = OutsideAddress(PeerAddress from, LocalAddress())
    session.Dispatch(&header, &path, ReadOnlySpan<byte>.Empty, own.Now)

let tests =
    testList
        "ClientSession"
        [ test "a packet to the server's own address and port, on its way back into the tunnel, is dropped and counted" {
              withSession (fun session own ->
                  let dropped () =
                      own.Context.Counters[Counter.TunRejectedPacketToServer]

                  Expect.isNull (session.Find(ReadOnlySpan(udp serverIp 27690))) "a datagram of its own"
                  let later = udp serverIp 9
                  later[7] <- 5uy // fragment offset
                  Expect.isNull (session.Find(ReadOnlySpan later)) "a later fragment of one"
                  Expect.equal (dropped ()) 2L "counted"

                  for packet in
                      [ udp serverIp 53
                        udp (Ipv4Address.Of(IPAddress.Parse "203.0.113.10")) 27690
                        Superpackets.plain Inside.Client serverIp 60 ] do
                      Expect.isNotNull (session.Find(ReadOnlySpan packet)) "all else goes through the tunnel"

                  Expect.equal (dropped ()) 2L "nothing else is counted"

                  // As the engine asks: the packet goes nowhere.
                  let frame =
                      Array.append (Array.zeroCreate VirtioNetHeader.Size) (udp serverIp 27690)

                  use path = new InsidePath(RepeatedFrame(frame, 60, Left = 1), own.Context, session)
                  Expect.isTrue (path.Drain own.Now) "not blocked"
                  Expect.equal own.Wire.Calls 0 "nothing is sent"
                  Expect.equal (dropped ()) 3L "counted")
          }

          test "an address that does not answer within 3 s gives way to the next one" {
              withSessionTo [ second; server ] (fun session own ->
                  session.Start()
                  Expect.isGreaterThan own.Wire.Datagrams.Count 0 "a ClientHello"
                  own.Wire.Datagrams.Clear()
                  tick session own 2_999L
                  Expect.isEmpty session.Endings "not yet"
                  tick session own 1L
                  let ending = Seq.exactlyOne session.Endings

                  Expect.equal
                      (ending.Server, ending.Reason, ending.Stage)
                      (second, TunnelError.TimedOut, Stage.Silent)
                      "how the first one ended"

                  Expect.isGreaterThan own.Wire.Datagrams.Count 0 "a ClientHello to the next one"

                  Expect.equal
                      (session.Find(ReadOnlySpan(udp serverIp 9))).Path.Peer
                      (PeerAddress server)
                      "its address"

                  tick session own 60_000L
                  Expect.hasLength session.Endings 1 "the last one has all the time of a handshake"
                  answer session own second
                  Expect.equal own.Context.Counters[Counter.UdpParseWireFailed] 1L "the first one is a stranger now"
                  Expect.isFalse session.HasFailed "it goes on")
          }

          test "an address that answers is not left because of the time" {
              withSessionTo [ second; server ] (fun session own ->
                  session.Start()
                  answer session own second
                  tick session own 60_000L
                  Expect.isEmpty session.Endings "it stays")
          }

          test "an address whose handshake fails gives way to the next one; after the last one the session has failed" {
              withSessionTo [ second; server ] (fun session own ->
                  let connection () =
                      session.Find(ReadOnlySpan(udp serverIp 9))

                  session.Start()
                  let first = connection ()
                  answer session own second
                  first.Disconnect()
                  session.Closed(first, TunnelError.TlsCaMissing)
                  Expect.isFalse session.HasFailed "there is another one"
                  Expect.notEqual (connection ()) first "a new connection"
                  (connection ()).Disconnect()
                  session.Closed(connection (), TunnelError.TimedOut)
                  Expect.isTrue session.HasFailed "none is left"

                  Expect.equal
                      [ for ending in session.Endings -> ending.Reason, ending.Stage ]
                      [ TunnelError.TlsCaMissing, Stage.Answered; TunnelError.TimedOut, Stage.Silent ]
                      "how they ended")
          }

          test "a refused login is the end: another address is the same server" {
              withSessionTo [ second; server ] (fun session _ ->
                  session.Start()
                  let connection = session.Find(ReadOnlySpan(udp serverIp 9))
                  connection.Disconnect()
                  session.Closed(connection, TunnelError.Unauthorized)
                  Expect.isTrue session.HasFailed "it ends"
                  Expect.hasLength session.Endings 1 "the other one was not tried")
          }

          test "a packet to the server by way of an IPv6 socket is recognized as well" {
              let mapped = IPEndPoint(server.Address.MapToIPv6(), server.Port)

              withSessionTo [ mapped ] (fun session _ ->
                  Expect.isNull (session.Find(ReadOnlySpan(udp serverIp 27690))) "a datagram of its own")
          } ]

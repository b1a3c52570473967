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

let private withSession (body: ClientSession -> End -> unit) =
    use own = new End(Role.Client, 64)

    use tls = TestCertificate.clientTls ()

    use session =
        new ClientSession(
            ConnectionSettings(Role = Role.Client),
            own.Context,
            tls,
            InsideAddresses(Inside.Client, Ipv4Address.None),
            PeerAddress server,
            NullLogger.Instance
        )

    body session own

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
          } ]

/// Whose datagram it is, and who moves.
module Lightway.Tests.ManagerTests

open System
open System.Buffers.Binary
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Metrics
open Lightway.Tests.Sites

let tests =
    testList
        "ConnectionManager"
        [ test "a datagram from an address of the clients' network is dropped and counted, and moves nobody" {
              use site = new Site()
              let home = at "198.51.100.7" 4000
              use guest = new Guest(site, home, "secret")
              guest.Reach ConnectionState.Online

              // Its own pool address, another client's, and one mapped into IPv6, as a dual-stack socket sees it.
              for address in [ "10.125.0.1"; "10.125.9.9"; "::ffff:10.125.0.1" ] do
                  let sent = site.Wire.Calls
                  site.Dispatch(at address 27690, guest.Ping())
                  Expect.equal (site.Wire.Calls - sent) 0 "no answer"

              Expect.equal site.Counters[Counter.UdpSourceInside] 3L "counted"
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 0L "not moved"
              site.Dispatch(at "203.0.113.5" 4000, guest.Ping())
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 1L "from outside it moves"
          }

          test "a datagram of another version than the first one of its connection is dropped and counted" {
              use site = new Site()
              let home = at "198.51.100.7" 4000
              use guest = new Guest(site, home, "secret")
              guest.Reach ConnectionState.Online
              let ping = guest.Ping()
              ping[3] <- 2uy // 1.2 instead of 1.3
              let sent = site.Wire.Calls
              site.Dispatch(home, ping)
              Expect.equal site.Counters[Counter.UdpWrongVersionForConn] 1L "counted"
              Expect.equal (site.Wire.Calls - sent) 0 "no answer"
              ping[3] <- 3uy
              site.Dispatch(home, ping)
              Expect.equal (site.Wire.Calls - sent) 1 "the same one of the right version is answered"
          }

          for name, tls in [ "authority", TestCertificate.strangerTls; "name", TestCertificate.otherNameTls ] do
              test
                  $"a handshake that the client refuses, because of another {name}, leaves one line at the server, at once" {
                  use site = new Site()
                  use guest = new Guest(site, at "198.51.100.7" 4000, "me", "secret", tls ())
                  guest.Connection.Start guest.End.Now
                  guest.Pump()
                  Expect.isTrue guest.End.Closed.IsSome "the client has ended"
                  Expect.equal site.Counters[Counter.ConnClosed] 1L "the server's connection has ended, too"

                  Expect.equal
                      (List.ofSeq site.Log)
                      [ "198.51.100.7:4000: closed without a login: TlsFatalAlert, the client refuses the handshake and its log says why (received alert fatal error (wolfSSL error -313))" ]
                      "lines"
              }

          for what, hasRecord, hasAlert in
              [ "nothing", false, false
                "a record that looks protected", true, false
                "an unprotected alert", false, true
                "an unprotected alert behind a record that looks protected", true, true ] do
              test $"a handshake succeeds though somebody sends, in the name of the client: {what}" {
                  use site = new Site()
                  use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
                  guest.Connection.Start guest.End.Now

                  // Until the hello with the cookie has been answered: the server waits for the client's Finished.
                  while site.Counters[Counter.ConnCreated] = 0L do
                      for datagram in guest.Take() do
                          site.Dispatch(guest.From, datagram)

                      if site.Counters[Counter.ConnCreated] = 0L then
                          guest.Receive()

                  for epoch in 0..3 do
                      for length in [ 4; 24; 40 ] do
                          let record =
                              Array.append
                                  [| byte (0x2C + epoch); 0uy; 1uy; 0uy; byte length |]
                                  (Array.create length 0x5Auy)

                          // RFC 8446 section 6: fatal, handshake_failure.
                          let alert =
                              Array.concat [ [| 21uy; 254uy; 253uy |]; Array.zeroCreate 8; [| 0uy; 2uy; 2uy; 40uy |] ]

                          let header: byte[] = Array.zeroCreate WireHeader.Size
                          WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, SessionId.Empty, Span header)

                          let records =
                              Array.append (if hasRecord then record else [||]) (if hasAlert then alert else [||])

                          site.Dispatch(guest.From, Array.append header records)

                  Expect.equal site.Counters[Counter.ConnClosed] 0L "the connection lives"

                  let isOnline () =
                      site.RunPosted()
                      guest.Pump()
                      guest.Connection.State = ConnectionState.Online

                  let isIn = Wait.until (TimeSpan.FromSeconds 30.) isOnline
                  Expect.isTrue isIn "the client gets in"
              }

          test "a peer that is not logged in moves nowhere, draws no session id and writes no line" {
              use site = new Site()
              use guest = new Guest(site, at "198.51.100.7" 4000, null)
              guest.Reach ConnectionState.LinkUp

              let lines = site.Log.Count
              let sent = site.Wire.Calls

              for port in [ 4001; 4002; 4001; 4002 ] do
                  // A NoOp frame, authentic, under the session id that the server's handshake datagrams showed.
                  guest.Session.Write(ReadOnlySpan [| 1uy |]) |> ignore
                  let datagram = List.head (guest.Take())
                  BinaryPrimitives.WriteUInt64BigEndian(Span(datagram, 8, 8), guest.ServerSession.Value)
                  site.Dispatch(at "198.51.100.7" port, datagram)

              Expect.equal site.Counters[Counter.UdpMoveBeforeLogin] 4L "counted"
              Expect.equal site.Counters[Counter.UdpSessionRotationBegin] 0L "no rotation"
              Expect.equal (site.Wire.Calls - sent) 0 "no answer"
              Expect.equal (site.Log.Count - lines) 0 "no line"
          }

          test "datagrams that leave without a connection are counted as sent, too: cookies and rejects" {
              use site = new Site()
              use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
              guest.Connection.Start guest.End.Now
              site.Dispatch(guest.From, List.head (guest.Take()))
              Expect.equal site.Counters[Counter.HandshakeCookiesSent] 1L "a cookie"
              let unknown: byte[] = Array.zeroCreate WireHeader.Size
              WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, SessionId 7UL, Span unknown)
              site.Dispatch(at "203.0.113.5" 4000, unknown)
              Expect.equal site.Counters[Counter.UdpRejectedSession] 1L "a reject"
              Expect.equal site.Counters[Counter.UdpDatagramsSent] 2L "datagrams"

              Expect.equal
                  site.Counters[Counter.UdpBytesSent]
                  (Seq.sumBy (Array.length >> int64) site.Wire.Datagrams)
                  "bytes"

              site.Wire.Errors.Enqueue 11 // EAGAIN
              site.Dispatch(at "203.0.113.5" 4000, unknown)
              Expect.equal site.Counters[Counter.UdpDatagramsSent] 2L "this one has not left"
              Expect.equal site.Counters[Counter.UdpControlSendFailed] 1L "and is counted so"
          }

          for payload in [ WirePayload.Dtls; WirePayload.Expresslane ] do
              test $"what a stranger sends that is no ClientHello is counted: {payload}" {
                  use site = new Site()
                  let garbage = Array.create 100 0x5Auy
                  WireHeader.write (ProtocolVersion.V1_3, payload, SessionId.Empty, Span garbage)
                  site.Dispatch(at "203.0.113.5" 4000, garbage)
                  Expect.equal site.Counters[Counter.HandshakeIgnored] 1L "dropped"
              }

          test "a datagram that is nobody's is counted once, also if a handshake runs beside a connection" {
              use site = new Site()
              let home = at "198.51.100.7" 4000
              use first = new Guest(site, home, "secret")
              first.Reach ConnectionState.Online
              use second = new Guest(site, home, "secret")
              second.Connection.Start second.End.Now

              while site.Counters[Counter.ConnCreated] = 1L do
                  for datagram in second.Take() do
                      site.Dispatch(home, datagram)

                  second.Receive()

              for session in [ first.ServerSession; SessionId.Empty ] do
                  let before = site.Counters[Counter.ExpresslaneTruncated]
                  let garbage = Array.create 20 0x5Auy
                  WireHeader.write (ProtocolVersion.V1_3, WirePayload.Expresslane, session, Span garbage)
                  site.Dispatch(home, garbage)
                  Expect.equal (site.Counters[Counter.ExpresslaneTruncated] - before) 1L $"{session}"
          }

          test "all clients that have a cookie when its secret changes get in, for a minute" {
              use site = new Site()

              let guests =
                  [ for host in 7..10 -> new Guest(site, at $"198.51.100.{host}" 4000, "secret") ]

              let hellos =
                  [ for guest in guests do
                        guest.Connection.Start guest.End.Now

                        for datagram in guest.Take() do
                            site.Dispatch(guest.From, datagram)

                        guest.Receive()
                        guest.From, guest.Take() ]

              let show (from, datagrams) =
                  for datagram in datagrams do
                      site.Dispatch(from, datagram)

              site.Advance 3_600_000L
              List.iter show hellos[..1]
              Expect.equal site.Counters[Counter.ConnCreated] 2L "the secret changes with the first of them"
              site.Advance 59_999L
              show hellos[2]
              Expect.equal site.Counters[Counter.ConnCreated] 3L "a minute later"
              site.Advance 1L
              show hellos[3]
              Expect.equal site.Counters[Counter.ConnCreated] 3L "and no longer"

              for guest in guests do
                  (guest :> System.IDisposable).Dispose()
          }

          test "a packet for an address that no client has is answered with host unreachable, if the option says so" {
              let packet address =
                  Lightway.Lab.Superpackets.plain Lightway.Lab.Inside.Remote (Ipv4Address address) 100

              use silent = new Site()
              Expect.isEmpty (silent.FromTun(packet 0x0A7D0909u)) "off by default"
              use site = new Site(Limits(IcmpUnreachable = true))
              let asked = packet 0x0A7D0909u // 10.125.9.9
              let error = Seq.exactlyOne (site.FromTun asked)
              Expect.equal error[20..21] [| 3uy; 1uy |] "host unreachable"
              Expect.equal error[12..15] asked[16..19] "from the address that nobody has"
              Expect.equal error[16..19] asked[12..15] "to the sender"
              Expect.equal site.Counters[Counter.IcmpErrorsSent] 1L "counted"
              Expect.isEmpty (site.FromTun(packet 0xC6336401u)) "not for addresses outside the pool"
          }

          test "a client that alternates between two ports moves each time, with one line per minute" {
              use site = new Site()
              use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
              guest.Reach ConnectionState.Online

              let moves count =
                  for i in 1..count do
                      guest.From <- at "198.51.100.7" (4000 + i % 2)
                      site.Dispatch(guest.From, guest.Ping())
                      guest.Pump()

              let lines () =
                  site.Log |> Seq.filter _.Contains("moved from") |> Seq.length

              moves 50
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 50L "all moves are made"
              Expect.equal (lines ()) 1 "one line"
              Expect.equal site.Counters[Counter.UdpMoveNotLogged] 49L "the rest is counted"
              site.Advance 60_000L
              moves 2
              Expect.equal (lines ()) 2 "another a minute later"
          } ]

module Lightway.Tests.ConnectionTests

open System
open System.Net
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Client
open Lightway.Tunnel
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// A packet of the client, as the client has it.
let packet (length: int) =
    Superpackets.plain Inside.Client Inside.Remote length

/// The same packet as the server has it.
let atServer (packet: byte[]) =
    Superpackets.plain Inside.Assigned Inside.Remote packet.Length

/// Sends an inside packet from one end.
let send (side: End) (bytes: byte[]) =
    let buffer = Array.append (Array.zeroCreate 16) bytes
    side.Connection.BeginInside side.Now
    Expect.equal (side.Connection.TrySend(Span buffer, 16, bytes.Length)) SendResult.Accepted "accepted"
    Expect.isTrue (side.Context.ToOutside.Flush()) "sent"

let connected expresslane =
    let pair = new Pair(expresslane, 64)
    pair.Connect()
    pair

/// A datagram with an Expresslane packet of version 1 in it.
let expresslaneV1 (key: byte[]) (session: SessionId) (inner: byte[]) : byte[] =
    let datagram: byte[] =
        Array.zeroCreate (WireHeader.Size + ExpresslanePacket.Overhead + inner.Length)

    WireHeader.write (ProtocolVersion.V1_3, WirePayload.Expresslane, session, Span datagram) |> ignore
    let body = Span(datagram).Slice WireHeader.Size
    ExpresslanePacket.writeHeader (1UL, inner.Length, 0us, body)
    let aad: byte[] = Array.zeroCreate ExpresslanePacket.MaxAadSize
    let aadLength = ExpresslanePacket.writeAad (session, 1UL, 0us, 1uy, Span aad)
    use cipher = new WolfCryptAead(ReadOnlySpan key)

    Expect.isTrue
        (cipher.Seal(
            ReadOnlySpan inner,
            body.Slice(ExpresslanePacket.PayloadAt),
            Span.op_Implicit (body.Slice(ExpresslanePacket.IvAt, PacketAeads.IvSize)),
            body.Slice(ExpresslanePacket.TagAt, PacketAeads.TagSize),
            ReadOnlySpan(aad, 0, aadLength)
        ))
        "sealed"

    datagram

let junk = Random 7

/// One packet each way.
let exchange (pair: Pair) =
    let up = packet 1350
    let down = Superpackets.plain Inside.Remote Inside.Assigned 77
    Expect.isTrue (pair.Server.Connection.TryTranslate(Span down, TransportChecksum.Complete)) "translated"
    Expect.isTrue (pair.Client.Connection.TryTranslate(Span up, TransportChecksum.Complete)) "translated"
    let before = pair.Server.Delivered.Count, pair.Client.Delivered.Count
    send pair.Client up
    send pair.Server down
    pair.Pump()

    Expect.equal
        (pair.Server.Delivered.Count, pair.Client.Delivered.Count)
        (fst before + 1, snd before + 1)
        "one packet each way"

    Expect.equal (Seq.last pair.Server.Delivered) (atServer up) "up"
    Expect.equal (Seq.last pair.Client.Delivered) (Superpackets.plain Inside.Remote Inside.Client 77) "down"

/// A handshake whose first step the pool has been asked for, and has not made.
let private begun () =
    let steps = Steps()
    let pair = new Pair(true, 64, steps)
    pair.StartClient()

    while steps.Count = 0 do
        pair.ToServer(pair.Client.Wire.Datagrams.Dequeue()) |> ignore

        if pair.Server.Wire.Datagrams.Count > 0 then
            pair.Client.Wire.Datagrams.Clear() // the other copies of the first ClientHello
            pair.ToClient(pair.Server.Wire.Datagrams.Dequeue()) |> ignore

    steps, pair

let private onPool =
    testList
        "handshake on the pool"
        [ for expresslane, mode in [ true, "Expresslane"; false, "DTLS" ] do
              test $"{mode}: steps made on other threads lead to the same connection" {
                  use pair = new Pair(expresslane, 64, Steps())
                  pair.Connect()
                  exchange pair
              }

          test "what arrives during a step waits for it, and no timer touches the session" {
              let steps, pair = begun ()
              use pair = pair
              let server = pair.Server.Connection
              Expect.isGreaterThan pair.Client.Wire.Datagrams.Count 0 "copies and fragments are on their way"
              pair.Server.Wire.Datagrams.Clear()

              while pair.Client.Wire.Datagrams.Count > 0 do
                  Expect.equal (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) 0 "no frame"

              Expect.equal server.DueAt Int64.MaxValue "no timer"
              pair.AdvanceServer 5_000L
              Expect.equal pair.Server.Wire.Datagrams.Count 0 "nothing is sent meanwhile"
              Expect.equal steps.Count 1 "one step at a time"
              pair.Pump()
              Expect.equal pair.Client.Connection.State ConnectionState.Online "online without a retransmission"
              exchange pair
          }

          test "a 13th waiting handshake datagram is dropped and counted" {
              let steps, pair = begun ()
              use pair = pair
              let header = Array.concat [ [| 0x48uy; 0x65uy; 1uy; 3uy |]; Array.zeroCreate 12 ]
              pair.Client.Wire.Datagrams.Clear()

              for i in 1..100 do
                  pair.ToServer(Array.append header [| byte i |]) |> ignore

              Expect.equal pair.Server.Context.Counters[Counter.HandshakeIgnored] 88L "twelve wait"
              Expect.equal steps.Count 1 "for one step"

              let mutable turns = 0

              while turns < 1_000 && pair.Client.Connection.State <> ConnectionState.Online do
                  pair.Pump()
                  pair.AdvanceForReal 20L
                  turns <- turns + 1

              Expect.equal pair.Client.Connection.State ConnectionState.Online "and the handshake goes on"
          }

          test "a handshake takes 256 datagrams and no more, however often it asks for them" {
              let steps, pair = begun ()
              use pair = pair
              let header = Array.concat [ [| 0x48uy; 0x65uy; 1uy; 3uy |]; Array.zeroCreate 12 ]
              pair.Client.Wire.Datagrams.Clear()

              for i in 1..400 do
                  // An unprotected handshake record of one byte.
                  let record =
                      Array.concat [ [| 22uy; 254uy; 253uy |]; Array.zeroCreate 9; [| 1uy; byte i |] ]

                  pair.ToServer(Array.append header record) |> ignore

                  while steps.Count > 0 do
                      steps.RunNext pair.Server.Now

              Expect.equal pair.Server.Context.Counters[Counter.HandshakeIgnored] 144L "the rest is dropped"
              Expect.equal pair.Server.Connection.State ConnectionState.Connecting "and the limit on time ends it"
          }

          test "a connection that ends during a step leaves nothing behind" {
              let steps, pair = begun ()
              use pair = pair
              let server = pair.Server.Connection
              server.Disconnect()
              server.Dispose()
              pair.Server.Wire.Datagrams.Clear()
              steps.RunNext pair.Server.Now
              Expect.equal steps.Count 0 "no further step"
              Expect.equal pair.Server.Wire.Datagrams.Count 0 "nothing is sent"
              Expect.equal server.State ConnectionState.Disconnected "over"
          } ]

let tests =
    testList
        "Connection"
        [ onPool

          for expresslane, mode in [ true, "Expresslane"; false, "DTLS" ] do
              test $"{mode}: packets cross both ways byte for byte" {
                  use pair = connected expresslane
                  Expect.equal pair.Client.Granted.Value.LocalIp (Ipv4Address 0x0A7D0005u) "the address of the grant"

                  Expect.equal
                      pair.Client.Connection.SessionId
                      pair.Server.Connection.SessionId
                      "the session id is adopted"

                  exchange pair
              }

              test $"{mode}: a replayed datagram delivers nothing" {
                  use pair = connected expresslane
                  send pair.Client (packet 100)
                  let datagram = pair.Client.Wire.Datagrams.Peek()
                  pair.Pump()
                  Expect.equal (pair.ToServer datagram) 0 "no frame"
                  Expect.equal pair.Server.Delivered.Count 1 "delivered once"
                  exchange pair
              }

              test $"{mode}: any change of a datagram's body makes it worthless, and the connection goes on" {
                  use pair = connected expresslane

                  for _ in 1..200 do
                      send pair.Client (packet 300)
                      let datagram = pair.Client.Wire.Datagrams.Dequeue()
                      let at = 16 + junk.Next(datagram.Length - 16)
                      datagram[at] <- datagram[at] ^^^ byte (1 <<< junk.Next 8)
                      Expect.equal (pair.ToServer datagram) 0 $"byte {at} changed: no frame"

                  Expect.equal pair.Server.Delivered.Count 0 "nothing delivered"
                  exchange pair
              }

              test $"{mode}: 20 000 datagrams of garbage, cut or random, change nothing" {
                  use pair = connected expresslane
                  send pair.Client (packet 300)
                  let real = pair.Client.Wire.Datagrams.Dequeue()

                  for _ in 1..20_000 do
                      let datagram =
                          match junk.Next 3 with
                          | 0 -> real[.. junk.Next real.Length - 1]
                          | 1 ->
                              Array.append
                                  real[..15]
                                  (let b = Array.zeroCreate (junk.Next 1484) in
                                   junk.NextBytes b
                                   b)
                          | _ ->
                              (let b = Array.zeroCreate (junk.Next 1500) in
                               junk.NextBytes b
                               b)

                      Expect.equal (pair.ToServer datagram) 0 "no frame"

                  pair.Pump()
                  exchange pair
              }

          for seed in 1..4 do
              let place, steps =
                  if seed % 2 = 0 then
                      "on the pool", Some(Steps())
                  else
                      "inline", None

              test
                  $"the handshake ({place}), the login and the key exchange survive the loss of a quarter of all datagrams (seed {seed})" {
                  use pair = new Pair(true, 64, ?steps = steps)
                  let random = Random seed
                  let lose _ = random.Next 4 = 0
                  pair.StartClient()

                  let ready () =
                      pair.Client.Connection.IsExpresslaneReady && pair.Server.Connection.IsExpresslaneReady

                  let mutable steps = 0

                  while steps < 3_000 && pair.Client.Closed.IsNone && (isNull pair.Server.Connection || not (ready ())) do
                      pair.Pump lose
                      pair.AdvanceForReal 20L
                      steps <- steps + 1

                  pair.Pump()

                  Expect.equal
                      pair.Client.Connection.State
                      ConnectionState.Online
                      $"online; {pair.Client.Closed} {pair.Client.Connection.TlsError}"

                  exchange pair
              }

          test "a peer that never answers is given up, not waited for" {
              use pair = new Pair(true, 64)
              pair.StartClient()

              for _ in 1..300 do
                  pair.Pump(fun _ -> true)
                  pair.Advance 100L

              Expect.equal pair.Client.Closed (ValueSome TunnelError.TimedOut) "timed out"
          }

          test "a wrong password ends the connection on both sides, with a reason" {
              use pair = new Pair(true, 64)
              pair.Server.Password <- "another"
              pair.StartClient()
              pair.Pump()
              Expect.equal pair.Client.Closed (ValueSome TunnelError.Unauthorized) "client"
              Expect.equal pair.Server.Closed (ValueSome TunnelError.AccessDenied) "server"
          }

          test "a lost reply to the login is repeated" {
              use pair = new Pair(true, 64)
              pair.StartClient()
              // Everything the server sends after its connection has come Online is lost, once.
              pair.Pump(fun _ ->
                  not (isNull pair.Server.Connection) && pair.Server.Connection.State = ConnectionState.Online)

              Expect.equal pair.Client.Connection.State ConnectionState.Authenticating "still asking"

              for _ in 1..20 do
                  pair.Advance 100L
                  pair.Pump()

              Expect.equal pair.Client.Connection.State ConnectionState.Online "let in"
              exchange pair
          }

          test "goodbye ends the other side" {
              use pair = connected true
              pair.Client.Connection.Disconnect()
              pair.Pump()
              Expect.equal pair.Server.Closed (ValueSome TunnelError.Goodbye) "said goodbye"
          }

          test "a client that moves proves itself, gets a new session id, and packets follow it" {
              use pair = connected true
              let first = pair.Server.Connection.SessionId

              let moved =
                  OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 40001)), LocalAddress())

              send pair.Client (packet 100)
              Expect.isGreaterThan (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) 0 "authentic"
              pair.Server.Connection.MoveTo(&moved, SessionIdSource(0, 1).Draw())
              pair.Pump()
              Expect.equal pair.Server.Connection.Path.Peer moved.Peer "replies go to the new address"
              Expect.notEqual pair.Client.Connection.SessionId first "the client has adopted the new id"
              exchange pair
              Expect.equal pair.Server.Connection.SessionId pair.Client.Connection.SessionId "the rotation is complete"
              Expect.equal (List.ofSeq pair.Server.Finalized) [ first ] "the old id is given back"
              exchange pair
          }

          test "a datagram that comes after the session id has changed does not lead the client back to the id before" {
              for expresslane in [ true; false ] do
                  use pair = connected expresslane
                  let down = Superpackets.plain Inside.Remote Inside.Assigned 77

                  Expect.isTrue
                      (pair.Server.Connection.TryTranslate(Span down, TransportChecksum.Complete))
                      "translated"

                  send pair.Server down
                  let late = pair.Server.Wire.Datagrams.Dequeue()

                  let moved =
                      OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 40001)), LocalAddress())

                  send pair.Client (packet 100)
                  Expect.isGreaterThan (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) 0 "authentic"
                  pair.Server.Connection.MoveTo(&moved, SessionIdSource(0, 1).Draw())
                  pair.Pump()
                  exchange pair
                  let second = pair.Server.Connection.SessionId
                  Expect.equal pair.Client.Connection.SessionId second "the rotation is complete"
                  Expect.isGreaterThan (pair.ToClient late) 0 "what is late is authentic"
                  Expect.equal pair.Client.Connection.SessionId second "the client stays with the new id"
                  exchange pair
          }

          test "a ping about a change of network that is lost is sent again a second later" {
              use pair = connected true
              pair.Client.Connection.NetworkChanged pair.Client.Now
              Expect.equal pair.Client.Wire.Datagrams.Count 1 "one ping"
              pair.Client.Wire.Datagrams.Clear()
              pair.Advance 999L
              Expect.equal pair.Client.Wire.Datagrams.Count 0 "not earlier"
              pair.Advance 1L
              Expect.equal pair.Client.Wire.Datagrams.Count 1 "again"
              Expect.isGreaterThan (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) 0 "authentic"
              pair.Pump()
              pair.Advance 5_000L
              Expect.equal pair.Client.Wire.Datagrams.Count 0 "it has been answered"
          }

          test "a datagram may hold several records: DTLS" {
              use pair = connected false
              let packets = [ packet 100; packet 1000; packet 40 ]
              List.iter (send pair.Client) packets
              let datagrams = List.ofSeq pair.Client.Wire.Datagrams
              pair.Client.Wire.Datagrams.Clear()
              Expect.equal datagrams.Length 3 "one record each"

              let joined =
                  Array.concat (datagrams[0] :: [ for rest in datagrams[1..] -> rest[WireHeader.Size ..] ])

              Expect.equal (pair.ToServer joined) 3 "frames"
              pair.Server.Context.ToInside.Flush()
              Expect.equal (List.ofSeq pair.Server.Delivered) (List.map atServer packets) "all of them, in order"
          }

          test "the server looks at the health of the Expresslane by itself, once per minute with traffic" {
              use pair = connected true
              exchange pair

              /// Datagrams that the server sends by itself in a minute.
              let minute () =
                  pair.AdvanceServer 60_000L
                  let count = pair.Server.Wire.Datagrams.Count
                  pair.Pump()
                  count

              Expect.equal (minute ()) 1 "a ping"
              Expect.equal (minute ()) 0 "none when it is idle"
              exchange pair
              Expect.equal (minute ()) 1 "again"
          }

          test "without memory for another session handshakes are ignored, and the server goes on" {
              use server = new End(Role.Server, 64)

              let tls = TlsContext.ForServer(TestCertificate.authority, TestCertificate.key, true)

              use listener = new DtlsListener(tls, server.Context, server.Now)
              tls.Dispose() // wolfSSL has no memory: it makes no further session
              use pair = new Pair(true, 1)
              pair.StartClient()
              let path = pair.ClientPath

              let hello () =
                  let datagram = pair.Client.Wire.Datagrams.Dequeue()
                  listener.TryAccept(ProtocolVersion.V1_3, &path, ReadOnlySpan(datagram, 16, datagram.Length - 16), 0L)

              Expect.isNull (hello ()) "a cookie request"
              pair.Client.Wire.Datagrams.Clear()
              pair.ToClient(server.Wire.Datagrams.Dequeue()) |> ignore
              let mutable accepted: DtlsSession = null

              while isNull accepted && pair.Client.Wire.Datagrams.Count > 0 do
                  accepted <- hello ()

              use accepted = accepted
              Expect.isNotNull accepted "the session that it had"
              let ignored = server.Context.Counters[Counter.HandshakeIgnored]
              use other = new Pair(true, 1)
              other.StartClient()
              let datagram = other.Client.Wire.Datagrams.Dequeue()

              Expect.isNull
                  (listener.TryAccept(ProtocolVersion.V1_3, &path, ReadOnlySpan(datagram, 16, datagram.Length - 16), 0L))
                  "ignored"

              Expect.equal server.Context.Counters[Counter.HandshakeIgnored] (ignored + 1L) "counted"
          }

          test "an unprotected alert, alone or behind other records, does not end a client that waits for its server" {
              use pair = new Pair(true, 64)
              pair.StartClient()

              let record kind (body: byte[]) =
                  Array.concat
                      [ [| kind; 0xFEuy; 0xFDuy; 0uy; 0uy; 0uy; 0uy; 0uy; 0uy; 0uy; 9uy; 0uy; byte body.Length |]
                        body ]

              let alert = record 21uy [| 2uy; 40uy |]
              let header = Array.concat [ [| 0x48uy; 0x65uy; 1uy; 3uy |]; Array.zeroCreate 12 ]

              for before in [ [||]; record 26uy [| 0uy; 0uy |]; record 23uy [| 1uy; 2uy |]; record 20uy [| 1uy |] ] do
                  Expect.equal (pair.ToClient(Array.concat [ header; before; alert ])) 0 "no frame"

              pair.Pump()
              Expect.equal pair.Client.Connection.State ConnectionState.Online "online all the same"
          }

          test "a cookie that was on its way when the secret changed is still good" {
              use pair = new Pair(true, 64)
              pair.StartClient()
              // The cookie request reaches the client; its answer reaches a listener that has changed its secret meanwhile.
              let hello = pair.Client.Wire.Datagrams.Dequeue()
              pair.Client.Wire.Datagrams.Clear()
              pair.ToServer hello |> ignore
              pair.ToClient(pair.Server.Wire.Datagrams.Dequeue()) |> ignore
              pair.Server.Now <- pair.Server.Now + 60L * 60_000L + 1L
              pair.Pump()
              Expect.equal pair.Client.Connection.State ConnectionState.Online "online"
          }

          test "several records in one datagram: every packet reaches the TUN as it was" {
              use pair = connected false
              let packets = [ for i in 0..5 -> packet (70 + i) ]

              let records =
                  [ for bytes in packets do
                        send pair.Client bytes
                        pair.Client.Wire.Datagrams.Dequeue() ]

              let joined =
                  Array.concat (Array.take 16 records.Head :: [ for record in records -> record[16..] ])

              Expect.equal (pair.ToServer joined) packets.Length "frames"
              Expect.equal (List.ofSeq pair.Server.Delivered) (List.map atServer packets) "byte for byte"
          }

          test "frames that share a datagram, fragments among them, reach the TUN whole" {
              use pair = connected false
              let packets = [ for i in 1..12 -> packet (20 + i) ]
              let long = packet 1_600

              let data (packet: byte[]) =
                  let frame = Array.zeroCreate (3 + packet.Length)
                  Frame.writeData (ReadOnlySpan packet, Span frame) |> ignore
                  frame

              let fragment offset length more =
                  let frame = Array.zeroCreate (7 + length)

                  Frame.writeFragment (9us, offset, more, ReadOnlySpan(long, offset, length), Span frame) |> ignore

                  frame

              let write frames =
                  pair.ClientSession.Write(ReadOnlySpan(Array.concat frames)) |> ignore

              write (fragment 0 800 true :: List.map data packets[..5])
              write (List.map data packets[6..7] @ [ fragment 800 800 false ] @ List.map data packets[8..])
              pair.Pump()
              let sent = packets[..7] @ [ long ] @ packets[8..]
              Expect.equal (List.ofSeq pair.Server.Delivered) (List.map atServer sent) "every packet, in order"
          }

          test "one datagram with hundreds of pings gets one answer; the rest is counted" {
              use pair = connected false
              let ping: byte[] = Array.zeroCreate 5
              let length = Frame.writePing (7us, ReadOnlySpan<byte>.Empty, Span ping)
              let count = 280

              pair.ClientSession.Write(ReadOnlySpan(Array.concat (List.replicate count ping[.. length - 1])))
              |> ignore

              let answers = pair.Server.Wire.Calls
              Expect.equal (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) count "frames"
              Expect.equal (pair.Server.Wire.Calls - answers) 1 "one answer"
              Expect.equal pair.Server.Context.Counters[Counter.FrameRepeated] (int64 count - 1L) "counted"
              exchange pair
          }

          test "of many logins in one datagram of a client that is in, one is answered" {
              use pair = connected false
              let frame: byte[] = Array.zeroCreate 200

              let length =
                  AuthRequest.write (AuthRequest.userPassword ("me", "secret"B), Span frame)

              let count = 1_300 / length

              pair.ClientSession.Write(ReadOnlySpan(Array.concat (List.replicate count frame[.. length - 1])))
              |> ignore

              Expect.isGreaterThan count 5 "several fit"
              let answers = pair.Server.Wire.Calls
              Expect.equal (pair.ToServer(pair.Client.Wire.Datagrams.Dequeue())) count "frames"
              Expect.equal (pair.Server.Wire.Calls - answers) 1 "one answer"
              exchange pair
          }

          test "fragments that never complete cost memory for ten seconds, not for the life of the connection" {
              use pair = connected false
              let frame: byte[] = Array.zeroCreate 64

              for id in 1us .. 16us do
                  let length =
                      Frame.writeFragment (id, 65_528, true, ReadOnlySpan(Array.create 7 1uy), Span frame)

                  pair.ClientSession.Write(ReadOnlySpan(frame, 0, length)) |> ignore

              pair.Pump()
              let held () = pair.Server.Context.FragmentBytes
              Expect.isGreaterThan (held ()) 900_000L "held"
              pair.AdvanceServer 9_000L
              Expect.isGreaterThan (held ()) 900_000L "still held"
              pair.AdvanceServer 2_000L
              Expect.equal (held ()) 0L "given back without another fragment"
          }

          test "a worker holds no more fragments than its budget, whoever sends them" {
              use pair = connected false
              let frame: byte[] = Array.zeroCreate 64
              pair.Server.Context.FragmentBytes <- int64 WorkerContext.FragmentBudget

              let length =
                  Frame.writeFragment (1us, 0, true, ReadOnlySpan(Array.create 16 1uy), Span frame)

              pair.ClientSession.Write(ReadOnlySpan(frame, 0, length)) |> ignore
              pair.Pump()
              Expect.equal pair.Server.Context.Counters[Counter.FragmentOverBudget] 1L "counted"
              exchange pair
          }

          for name, frame, fatal in
              [ "of an unknown kind", [| 0x7Fuy; 1uy; 2uy |], false
                "that ends early", [| 5uy; 0xFFuy; 0xFFuy; 1uy |], false
                "with an inside packet that is not IPv4", [| 5uy; 0uy; 2uy; 0x60uy; 0uy |], false
                "that only a server may send", Array.append [| 6uy |] (Array.zeroCreate 104), false
                "of a codec that is not there", [| 16uy; 0uy; 1uy; 0x45uy |], true
                "with a login of an unknown method", [| 4uy; 99uy |], true ] do
              let cost = if fatal then "its own connection" else "one datagram"

              test $"a frame {name} is counted, and costs {cost} only" {
                  use pair = connected false

                  let drops () =
                      Counters.Sum [ pair.Server.Context.Counters ]
                      |> Seq.pick (fun c -> if c.Key = "drops_total" then Some c.Value else None)

                  let before = drops ()
                  pair.ClientSession.Write(ReadOnlySpan frame) |> ignore
                  pair.Pump()
                  Expect.isEmpty pair.Server.Delivered "nothing delivered"

                  if fatal then
                      Expect.isTrue pair.Server.Closed.IsSome "closed"
                  else
                      Expect.equal pair.Server.Closed ValueNone "still open"
                      exchange pair

                      if frame[0] <> 6uy then
                          Expect.equal (drops ()) (before + 1L) "one drop"
              } ]

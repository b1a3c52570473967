/// Plugins and codecs of embedding programs, in two connections joined in memory; the sample's among them.
module Lightway.Tests.HooksTests

open System
open System.Collections.Generic
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Samples.Hooks
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Hooks
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tun
open Lightway.Tunnel.Udp

[<Literal>]
let private Mss = 1200

let private payload length =
    Array.init length (fun i -> byte (i * 7 + i / 251))

let private connected expresslane (hooks: Role -> ConnectionHooks) =
    let pair = new Pair(expresslane, 64, hooks = hooks)
    pair.Connect()
    pair

/// Reads these frames, each with its virtio_net_hdr, then EAGAIN.
type private Frames(frames: byte[] list) =
    let waiting = Queue<byte[]> frames

    interface ITunReader with
        member _.HasVnetHeader = true

        member _.Read(buffer: Span<byte>) : int =
            match waiting.TryDequeue() with
            | true, frame ->
                ReadOnlySpan(frame).CopyTo buffer
                frame.Length
            | _ -> -11 // EAGAIN

let private pathOf (own: End) (reader: ITunReader) =
    own.Context.InsideMtu <- 1350
    new InsidePath(reader, own.Context, OneRoute own.Connection)

/// Sends the frames from one end's TUN until its socket has taken all of them.
let private send (own: End) (frames: byte[] list) =
    use path = pathOf own (Frames frames)
    let mutable turns = 0

    while not (path.Drain own.Now) do
        turns <- turns + 1
        Expect.isLessThan turns 10_000 "it ends"

let private single (packet: byte[]) =
    Array.append (Array.zeroCreate VirtioNetHeader.Size) packet

/// A superpacket, a datagram of another protocol, and a UDP superpacket, as the server's TUN has them.
let private toClient =
    [ Superpackets.tcp Inside.Assigned (payload 30_000) Mss
      single (Superpackets.plain Inside.Remote Inside.Assigned 700)
      Superpackets.udp Inside.Assigned (payload 9_000) Mss ]

let private fromClient =
    [ for length in [ 20; 500; 1_300 ] -> single (Superpackets.plain Inside.Client Inside.Remote length) ]

let private counter (own: End) (name: Counter) = own.Context.Counters[name]

/// What both ends deliver of the same traffic.
let private exchange (pair: Pair) =
    send pair.Server toClient
    send pair.Client fromClient
    pair.Pump()
    List.ofSeq pair.Client.Delivered, List.ofSeq pair.Server.Delivered

/// The same, without any hooks.
let private stock expresslane =
    use pair = new Pair(expresslane, 64)
    pair.Connect()
    exchange pair

let private contains (part: byte[]) (whole: byte[]) =
    whole.AsSpan().IndexOf(ReadOnlySpan part) >= 0

/// A plugin that writes down what it sees and does what it is told.
type private Recorder
    (name: string, log: ResizeArray<string * int * int>, wantsSegments: bool, verdict: byte[] -> PluginVerdict) =
    interface IInsidePlugin with
        member _.WantsSegments = wantsSegments

        member _.Ingress(packet: inref<InsidePacket>) =
            log.Add($"{name} out", packet.Bytes.Length, packet.SegmentSize)
            verdict (packet.Bytes.ToArray())

        member _.Egress(packet: Span<byte>) =
            log.Add($"{name} in", packet.Length, 0)
            verdict (packet.ToArray())

let private accept (_: byte[]) = PluginVerdict.Accept

let private only (role: Role) (hooks: ConnectionHooks) (at: Role) =
    if at = role then hooks else ConnectionHooks()

let private plugins (list: IInsidePlugin list) =
    ConnectionHooks(Inside = Array.ofList list)

let private xor (_: Role) =
    ConnectionHooks(Codec = XorCodec 0x5Auy)

let private askFor enable (pair: Pair) =
    Expect.isTrue (pair.Client.Connection.Hooks.TryRequestEncoding(enable, pair.Client.Now)) "asked"
    pair.Pump()

let private isEncoding (own: End) = own.Connection.Hooks.IsEncoding

let private modes = [ true, "Expresslane"; false, "DTLS" ]

let private samples =
    [ for expresslane, mode in modes do
          test $"{mode}: the samples, at both ends: the same packets arrive, encoded on the way, and are counted" {
              let counters = Dictionary<Role, CounterPlugin>()

              let hooks role =
                  counters[role] <- CounterPlugin()
                  ConnectionHooks(Inside = [| counters[role] |], Codec = XorCodec 0x5Auy)

              use pair = connected expresslane hooks
              Expect.isFalse (isEncoding pair.Client || isEncoding pair.Server) "off at first"
              askFor true pair
              Expect.isTrue (isEncoding pair.Client && isEncoding pair.Server) "agreed"
              Expect.equal (exchange pair) (stock expresslane) "as without hooks"
              // 25 and 8 segments, and the packet between them.
              Expect.equal (counter pair.Server Counter.CodecPacketsSent) 34L "encoded by the server"
              Expect.equal (counter pair.Client Counter.CodecPacketsReceived) 34L "decoded by the client"
              Expect.equal (counter pair.Client Counter.CodecPacketsSent) 3L "encoded by the client"
              let toPeer = counters[Role.Server].ToPeer
              Expect.equal (toPeer.Packets, toPeer.Superpackets, toPeer.Tcp, toPeer.Udp) (34L, 2L, 25L, 8L) "server"
              Expect.equal toPeer.Bytes (int64 (30_052 + 700 + 9_028)) "bytes, superpackets once"
              let fromPeer = counters[Role.Client].FromPeer
              Expect.equal (fromPeer.Packets, fromPeer.Superpackets) (34L, 0L) "client"
              Expect.equal fromPeer.Bytes (int64 (30_000 + 25 * 52 + 700 + 9_000 + 8 * 28)) "bytes of packets"
              Expect.equal counters[Role.Server].FromPeer.Packets 3L "from the client"
              askFor false pair
              let sent = counter pair.Server Counter.CodecPacketsSent
              send pair.Server toClient
              Expect.equal (counter pair.Server Counter.CodecPacketsSent) sent "no longer encoded"
          }

          test $"{mode}: without a request the codec is not asked" {
              use pair = connected expresslane xor
              Expect.equal (exchange pair) (stock expresslane) "as without hooks"
              Expect.equal (counter pair.Server Counter.CodecPacketsSent) 0L "encoded"
          }

          for encodes in [ true; false ] do
              test
                  $"{mode}: a full socket costs no packet, and none passes a plugin or the codec twice; codec: {encodes}" {
                  let log = ResizeArray()

                  let hooks role =
                      ConnectionHooks(
                          Inside =
                              (if role = Role.Server then
                                   [| Recorder("a", log, true, accept) |]
                               else
                                   [||]),
                          Codec = XorCodec 1uy
                      )

                  use pair = connected expresslane hooks
                  let expected, _ = stock expresslane
                  askFor encodes pair

                  for errno in List.replicate 40 11 do
                      pair.Server.Wire.Errors.Enqueue errno

                  send pair.Server toClient
                  Expect.equal pair.Server.Wire.Errors.Count 0 "the socket was full 40 times"
                  pair.Pump()
                  Expect.equal (List.ofSeq pair.Client.Delivered) expected "every packet, in order, once"
                  Expect.hasLength log 34 "packets that the plugin saw"

                  Expect.equal
                      (counter pair.Server Counter.CodecPacketsSent)
                      (if encodes then 34L else 0L)
                      "packets that the codec made"
              }

          test $"{mode}: hooks allocate nothing per packet" {
              let hooks _ =
                  ConnectionHooks(Inside = [| CounterPlugin() |], Codec = XorCodec 0x5Auy)

              use pair = connected expresslane hooks
              askFor true pair
              pair.Server.Wire.Discard <- true

              let source =
                  RepeatedFrame(Superpackets.tcp Inside.Assigned (payload 60_000) Mss, 52)

              use path = pathOf pair.Server source

              let run count =
                  source.Left <- count

                  while source.Left > 0 do
                      path.Drain pair.Server.Now |> ignore

              run 200

              Expect.equal (Checks.allocatedByEach 3 (fun () -> run 500)) 0L "bytes"
          }

          test $"{mode}: nothing of an encoded packet is sent as it is" {
              let seen = ResizeArray<byte[]>()

              let codec =
                  { new IPacketCodec with
                      member _.MaxOverhead = 1

                      member _.Encode(packet, output, now) =
                          XorCodec(0x5Auy).Encode(packet, output, now)

                      member _.Decode(encoded, output, now) =
                          seen.Add(encoded.ToArray())
                          XorCodec(0x5Auy).Decode(encoded, output, now) }

              use pair = connected expresslane (fun _ -> ConnectionHooks(Codec = codec))
              askFor true pair
              send pair.Server toClient
              pair.Pump()
              Expect.hasLength seen 34 "encoded packets"
              Expect.isFalse (Seq.exists (contains (payload 100)) seen) "the payload, unchanged"
              Expect.isTrue (Seq.exists (contains (payload 100)) pair.Client.Delivered) "and decoded"
          } ]

let private inside =
    [ test "plugins are asked in their order on the way out, and in the reverse order on the way in" {
          let log = ResizeArray()
          let names = [ "a"; "b"; "c" ]

          use pair =
              connected true (only Role.Client (plugins [ for name in names -> Recorder(name, log, false, accept) ]))

          send pair.Client [ single (Superpackets.plain Inside.Client Inside.Remote 100) ]
          send pair.Server [ single (Superpackets.plain Inside.Remote Inside.Assigned 200) ]
          pair.Pump()

          Expect.equal
              (List.ofSeq log)
              [ "a out", 100, 0
                "b out", 100, 0
                "c out", 100, 0
                "c in", 200, 0
                "b in", 200, 0
                "a in", 200, 0 ]
              "calls"
      }

      test "a plugin sees a superpacket once; one that wants segments, and those after it, see segments" {
          let log = ResizeArray()

          use pair =
              connected
                  true
                  (only
                      Role.Server
                      (plugins
                          [ Recorder("a", log, false, accept)
                            Recorder("b", log, true, accept)
                            Recorder("c", log, false, accept) ]))

          send pair.Server [ Superpackets.tcp Inside.Assigned (payload 2_500) Mss ]

          Expect.equal
              (List.ofSeq log)
              [ "a out", 2_552, Mss
                "b out", 1_252, 0
                "c out", 1_252, 0
                "b out", 1_252, 0
                "c out", 1_252, 0
                "b out", 152, 0
                "c out", 152, 0 ]
              "calls"
      }

      test "a packet that a plugin drops is counted, does not get to those after it, and the rest passes" {
          let log = ResizeArray()

          let small (packet: byte[]) =
              if packet.Length < 500 then
                  PluginVerdict.Drop
              else
                  PluginVerdict.Accept

          use pair =
              connected
                  true
                  (only Role.Client (plugins [ Recorder("a", log, false, small); Recorder("b", log, false, accept) ]))

          send pair.Client fromClient // 20, 500 and 1300 bytes
          pair.Pump()
          Expect.equal [ for packet in pair.Server.Delivered -> packet.Length ] [ 500; 1_300 ] "out"
          Expect.equal (counter pair.Client Counter.InsidePluginDropped) 1L "counted"

          Expect.equal
              [ for name, length, _ in log do
                    if name = "b out" then
                        length ]
              [ 500; 1_300 ]
              "b"

          send
              pair.Server
              [ for length in [ 30; 600 ] -> single (Superpackets.plain Inside.Remote Inside.Assigned length) ]

          pair.Pump()
          Expect.equal [ for packet in pair.Client.Delivered -> packet.Length ] [ 600 ] "in"
          Expect.equal (counter pair.Client Counter.InsidePluginDropped) 2L "counted"
      }

      test "a superpacket that a plugin drops is gone as a whole; a dropped segment is the only one that is" {
          for wantsSegments, arrive in [ false, 0; true, 2 ] do
              let log = ResizeArray()

              let drop (packet: byte[]) =
                  if packet.Length > 2_000 || packet.Length < 200 then
                      PluginVerdict.Drop
                  else
                      PluginVerdict.Accept

              use pair =
                  connected true (only Role.Server (plugins [ Recorder("a", log, wantsSegments, drop) ]))

              send pair.Server [ Superpackets.tcp Inside.Assigned (payload 2_500) Mss ]
              pair.Pump()
              Expect.equal pair.Client.Delivered.Count arrive "segments"
              Expect.equal (counter pair.Server Counter.InsidePluginDropped) 1L "counted"
      }

      test "payload that a plugin changes in a superpacket arrives with right checksums" {
          let changing =
              { new IInsidePlugin with
                  member _.Ingress(packet) =
                      packet.Bytes[52] <- 0xEEuy
                      packet.Bytes[52 + Mss] <- 0xDDuy
                      PluginVerdict.Accept

                  member _.Egress _ = PluginVerdict.Accept }

          use pair = connected true (only Role.Server (plugins [ changing ]))
          send pair.Server [ Superpackets.tcp Inside.Assigned (payload 2_400) Mss ]
          pair.Pump()
          let changed = payload 2_400
          changed[0] <- 0xEEuy
          changed[Mss] <- 0xDDuy

          Expect.equal
              [ for packet in pair.Client.Delivered -> packet ]
              (use other = new Pair(true, 64)
               other.Connect()
               send other.Server [ Superpackets.tcp Inside.Assigned changed Mss ]
               other.Pump()
               List.ofSeq other.Client.Delivered)
              "as if they had been sent so"
      }

      test "a plugin's reply comes out of the TUN with the addresses that it expects, and no other plugin sees it" {
          let log = ResizeArray()

          let answering =
              { new IInsidePlugin with
                  member _.Ingress(packet) =
                      // The client's address is the same on both sides of the tunnel at the client only.
                      let reply = Superpackets.plain Inside.Client Inside.Remote 60
                      packet.Reply(ReadOnlySpan reply)
                      PluginVerdict.Drop

                  member _.Egress _ = PluginVerdict.Accept }

          use pair =
              connected true (only Role.Server (plugins [ Recorder("a", log, false, accept); answering ]))

          send pair.Server [ single (Superpackets.plain Inside.Remote Inside.Assigned 100) ]
          pair.Pump()
          Expect.equal pair.Client.Delivered.Count 0 "dropped"
          let reply = Expect.wantSome (Seq.tryExactlyOne pair.Server.Delivered) "one reply"
          Expect.equal reply (Superpackets.plain Inside.Assigned Inside.Remote 60) "from the address that was asked"
          Expect.equal (List.ofSeq log) [ "a out", 100, 0 ] "calls"
      }

      test "plugins and codecs that are disposable go with their connection" {
          let mutable gone = 0

          let plugin =
              { new IInsidePlugin with
                  member _.Ingress(_packet) = PluginVerdict.Accept
                  member _.Egress _ = PluginVerdict.Accept
                interface IDisposable with
                    member _.Dispose() = gone <- gone + 1 }

          let pair = connected true (only Role.Client (plugins [ plugin ]))
          Expect.equal gone 0 "while it lives"
          (pair :> IDisposable).Dispose()
          Expect.equal gone 1 "afterwards"
      } ]

let private encoding =
    [ test "a request that is lost is repeated after 500 ms, and not before" {
          use pair = connected false xor
          Expect.isTrue (pair.Client.Connection.Hooks.TryRequestEncoding(true, pair.Client.Now)) "asked"
          Expect.equal pair.Client.Wire.Datagrams.Count 1 "one datagram"
          pair.Client.Wire.Datagrams.Clear()
          pair.Client.Advance 499L
          Expect.equal pair.Client.Wire.Datagrams.Count 0 "not yet"
          pair.Client.Advance 1L
          pair.Pump()
          Expect.isTrue (isEncoding pair.Client && isEncoding pair.Server) "agreed"
          pair.Client.Advance 9_000L
          Expect.equal pair.Client.Wire.Datagrams.Count 0 "not again"
      }

      test "a request whose answer is lost is repeated and answered again" {
          use pair = connected false xor
          Expect.isTrue (pair.Client.Connection.Hooks.TryRequestEncoding(true, pair.Client.Now)) "asked"

          for datagram in List.ofSeq pair.Client.Wire.Datagrams do
              pair.ToServer datagram |> ignore

          pair.Client.Wire.Datagrams.Clear()
          Expect.isTrue (isEncoding pair.Server) "the server has agreed"
          pair.Server.Wire.Datagrams.Clear()
          Expect.isFalse (isEncoding pair.Client) "the client does not know"
          pair.Client.Advance 500L
          pair.Pump()
          Expect.isTrue (isEncoding pair.Client) "agreed"
      }

      test "a server may turn a request down; the next one it may grant" {
          let mutable may = false

          let hooks _ =
              ConnectionHooks(Codec = XorCodec 1uy, MayEncode = (fun () -> may))

          use pair = connected true hooks
          askFor true pair
          Expect.isFalse (isEncoding pair.Client || isEncoding pair.Server) "refused"
          may <- true
          askFor true pair
          Expect.isTrue (isEncoding pair.Client && isEncoding pair.Server) "granted"
      }

      test "an end without a codec ignores requests and ends a connection whose peer encodes all the same" {
          let lacking = only Role.Client (xor Role.Client)
          use pair = connected true lacking
          askFor true pair
          Expect.isFalse (isEncoding pair.Client) "no answer"
          Expect.equal pair.Server.Connection.State ConnectionState.Online "ignored"
          let frame: byte[] = Array.zeroCreate 103
          Frame.writeEncodedData (ReadOnlySpan(payload 100), Span frame) |> ignore
          pair.ClientSession.Write(ReadOnlySpan frame) |> ignore
          pair.Pump()
          Expect.equal pair.Server.Closed (ValueSome TunnelError.CodecMissing) "ended"
      }

      test "only a client that is Online and has a codec can ask" {
          use pair = connected true (only Role.Client (ConnectionHooks()))
          Expect.isFalse (pair.Client.Connection.Hooks.TryRequestEncoding(true, pair.Client.Now)) "no codec"
          use pair = connected true xor
          Expect.isFalse (pair.Server.Connection.Hooks.TryRequestEncoding(true, pair.Server.Now)) "a server"
          pair.Client.Connection.Disconnect()
          Expect.isFalse (pair.Client.Connection.Hooks.TryRequestEncoding(true, pair.Client.Now)) "not Online"
          use stock = new Pair(true, 64)
          stock.Connect()
          Expect.isNull stock.Client.Connection.Hooks "a stock connection has no hooks"
      }

      test "a server that gets a response is ended, and so is a client that gets a request" {
          let frame kind =
              let frame: byte[] = Array.zeroCreate 10
              Frame.writeEncoding (kind, 1UL, true, Span frame) |> ignore
              frame

          use pair = connected true xor
          pair.ClientSession.Write(ReadOnlySpan(frame FrameKind.EncodingResponse)) |> ignore
          pair.Pump()
          Expect.equal pair.Server.Closed (ValueSome TunnelError.InvalidMode) "the server"
          use pair = connected true xor
          pair.ServerSession.Write(ReadOnlySpan(frame FrameKind.EncodingRequest)) |> ignore
          pair.Pump()
          Expect.equal pair.Client.Closed (ValueSome TunnelError.InvalidMode) "the client"
      }

      test "what a codec has no use for is counted and dropped, and what it skips passes as it is" {
          let picky =
              { new IPacketCodec with
                  member _.MaxOverhead = 0

                  member _.Encode(packet, _output, _now) =
                      if packet.Length = 500 then CodecVerdict.Failed
                      elif packet.Length = 20 then CodecVerdict.Taken // and nothing comes of it
                      else CodecVerdict.Skipped

                  member _.Decode(_encoded, _output, _now) = CodecVerdict.Failed }

          use pair = connected true (fun _ -> ConnectionHooks(Codec = picky))
          askFor true pair
          send pair.Client fromClient
          pair.Pump()
          Expect.equal [ for packet in pair.Server.Delivered -> packet.Length ] [ 1_300 ] "skipped"
          Expect.equal (counter pair.Client Counter.CodecFailed) 1L "failed"
          let frame: byte[] = Array.zeroCreate 103
          Frame.writeEncodedData (ReadOnlySpan(payload 100), Span frame) |> ignore
          pair.ClientSession.Write(ReadOnlySpan frame) |> ignore
          pair.Pump()
          Expect.equal (counter pair.Server Counter.CodecFailed) 1L "not decoded"
          Expect.equal pair.Server.Connection.State ConnectionState.Online "and no reason to end"
      }

      test "a codec may make several packets of one, and one that it has kept back" {
          let held = ResizeArray<byte[]>()

          let hoarding =
              { new IPacketCodec with
                  member _.MaxOverhead = 0

                  member _.Encode(packet, output, _now) =
                      held.Add(packet.ToArray())

                      if held.Count = 3 then
                          for packet in Seq.rev held do
                              output.Emit(ReadOnlySpan packet)

                      CodecVerdict.Taken

                  member _.Decode(_encoded, _output, _now) = CodecVerdict.Skipped }

          use pair = connected true (fun _ -> ConnectionHooks(Codec = hoarding))
          askFor true pair
          send pair.Client fromClient
          pair.Pump()
          Expect.equal [ for packet in pair.Server.Delivered -> packet.Length ] [ 1_300; 500; 20 ] "all three"
      }

      test "a codec may keep packets back, encoded and decoded, until its timer is due" {
          let codec () =
              let encoded, decoded = ResizeArray<byte[]>(), ResizeArray<byte[]>()
              let mutable due = Int64.MaxValue

              { new IPacketCodec with
                  member _.MaxOverhead = 0
                  member _.DueAt = due

                  member _.Encode(packet, _output, now) =
                      encoded.Add(packet.ToArray())
                      due <- min due (now + 20L)
                      CodecVerdict.Taken

                  member _.Decode(packet, _output, now) =
                      decoded.Add(packet.ToArray())
                      due <- min due (now + 30L)
                      CodecVerdict.Taken

                  member _.OnTimer(_now, toPeer, toTun) =
                      for packet in encoded do
                          toPeer.Emit(ReadOnlySpan packet)

                      for packet in decoded do
                          toTun.Emit(ReadOnlySpan packet)

                      encoded.Clear()
                      decoded.Clear()
                      due <- Int64.MaxValue }

          for expresslane, _ in modes do
              use pair = connected expresslane (fun _ -> ConnectionHooks(Codec = codec ()))
              askFor true pair
              send pair.Client fromClient
              pair.Client.Advance 19L
              pair.Client.Context.ToOutside.Flush() |> ignore
              Expect.equal pair.Client.Wire.Datagrams.Count 0 "kept back"
              pair.Client.Wire.Errors.Enqueue 11
              pair.Client.Advance 1L
              Expect.isFalse (pair.Client.Context.ToOutside.Flush()) "the socket is full"
              Expect.isTrue (pair.Client.Context.ToOutside.Flush()) "sent"
              Expect.equal pair.Client.Wire.Datagrams.Count 3 "all"
              pair.Pump()
              pair.Server.Advance 29L
              Expect.equal pair.Server.Delivered.Count 0 "kept back"
              pair.Server.Advance 1L
              Expect.equal [ for packet in pair.Server.Delivered -> packet.Length ] [ 20; 500; 1_300 ] "delivered"
      }

      test "what a timer emits beyond a full batch is tried again" {
          let hoard = ResizeArray<byte[]>()
          let mutable due = Int64.MaxValue

          let codec =
              { new IPacketCodec with
                  member _.MaxOverhead = 0
                  member _.DueAt = due

                  member _.Encode(packet, _output, now) =
                      hoard.Add(packet.ToArray())
                      due <- now + 5L
                      CodecVerdict.Taken

                  member _.Decode(_encoded, _output, _now) = CodecVerdict.Skipped

                  member _.OnTimer(_now, toPeer, _toTun) =
                      for packet in hoard do
                          toPeer.Emit(ReadOnlySpan packet)

                      due <- Int64.MaxValue }

          use pair = connected true (fun _ -> ConnectionHooks(Codec = codec))
          askFor true pair
          // More than the 16 runs of a batch: lengths grow, so each packet needs a run of its own.
          send pair.Client [ for i in 0..39 -> single (Superpackets.plain Inside.Client Inside.Remote (100 + i)) ]

          for _ in 1..200 do
              pair.Client.Wire.Errors.Enqueue 11

          pair.Client.Advance 5L
          Expect.isLessThan pair.Client.Wire.Errors.Count 200 "the socket was full"
          pair.Client.Wire.Errors.Clear()
          pair.Client.Advance 1L
          pair.Client.Context.ToOutside.Flush() |> ignore
          pair.Pump()
          Expect.equal [ for packet in pair.Server.Delivered -> packet.Length ] [ 100..139 ] "all, in order"
      }

      test "decoded packets are checked as all are: no packet, no harm" {
          let lying =
              { new IPacketCodec with
                  member _.MaxOverhead = 0
                  member _.Encode(_packet, _output, _now) = CodecVerdict.Skipped

                  member _.Decode(_encoded, output, _now) =
                      output.Emit(ReadOnlySpan [||])
                      output.Emit(ReadOnlySpan(payload 1))
                      output.Emit(ReadOnlySpan(Array.create 40 0x60uy))
                      CodecVerdict.Taken }

          use pair = connected true (fun _ -> ConnectionHooks(Codec = lying))
          let frame: byte[] = Array.zeroCreate 103
          Frame.writeEncodedData (ReadOnlySpan(payload 100), Span frame) |> ignore
          pair.ClientSession.Write(ReadOnlySpan frame) |> ignore
          pair.Pump()
          Expect.equal pair.Server.Delivered.Count 0 "delivered"

          Expect.equal (counter pair.Server Counter.TunRejectedPacketInvalidInsidePacket) 3L "counted"
      }

      test "what a codec makes while the socket is full is kept up to a limit; the rest is counted" {
          let copies = 1000

          let copying =
              { new IPacketCodec with
                  member _.MaxOverhead = 0

                  member _.Encode(packet, output, _now) =
                      for _ in 1..copies do
                          output.Emit packet

                      CodecVerdict.Taken

                  member _.Decode(_encoded, _output, _now) = CodecVerdict.Skipped }

          use pair = connected true (fun _ -> ConnectionHooks(Codec = copying))
          askFor true pair

          for _ in 1..2000 do
              pair.Client.Wire.Errors.Enqueue 11 // EAGAIN

          send pair.Client [ single (Superpackets.plain Inside.Client Inside.Remote 1_300) ]
          pair.Pump()
          let dropped = int (counter pair.Client Counter.CodecOutputDropped)
          Expect.isGreaterThan dropped 0 "dropped"
          Expect.isGreaterThan pair.Server.Delivered.Count 400 "half a MiB"
          Expect.equal (pair.Server.Delivered.Count + dropped) copies "all are accounted for"
      }

      for expresslane, mode in modes do
          test
              $"{mode}: with path MTU discovery, encoded packets that are too long for one datagram arrive in fragments" {
              use pair = new Pair(expresslane, 64, pathMtu = true, hooks = xor)

              let pump () =
                  pair.Pump(fun datagram ->
                      datagram.Length > 1280 - 28
                      && not (pair.Client.Wire.Fragmentable.Contains datagram)
                      && not (pair.Server.Wire.Fragmentable.Contains datagram))

              pair.StartClient()
              pump ()
              pair.Client.Connection.Hooks.TryRequestEncoding(true, pair.Client.Now) |> ignore
              pump ()
              Expect.isTrue (isEncoding pair.Client) "agreed"
              let lengths = [ 1_150..4..1_350 ]

              send
                  pair.Client
                  [ for length in lengths -> single (Superpackets.plain Inside.Client Inside.Remote length) ]

              pair.Client.Context.ToOutside.Flush() |> ignore
              pump ()
              Expect.equal (List.sort [ for packet in pair.Server.Delivered -> packet.Length ]) lengths "all arrive"
              Expect.isGreaterThan (counter pair.Client Counter.TunPacketsFragmented) 0L "some in fragments"
              let all = int64 lengths.Length
              Expect.equal (counter pair.Client Counter.CodecPacketsSent) all "encoded"
              Expect.equal (counter pair.Server Counter.CodecPacketsReceived) all "decoded"
              use other = new Pair(expresslane, 64, pathMtu = true)
              other.Connect()

              Expect.equal
                  pair.Client.Connection.InsideMtu
                  (other.Client.Connection.InsideMtu - 1)
                  "what senders are told"
          }

      test "packets may be shorter by what the codec adds" {
          use pair = connected true xor
          use other = new Pair(true, 64)
          other.Connect()
          Expect.equal pair.Server.Connection.InsideMtu (other.Server.Connection.InsideMtu - 1) "server"
          Expect.equal pair.Client.Connection.InsideMtu (other.Client.Connection.InsideMtu - 1) "client"
      } ]

/// A plugin that changes and drops datagrams, and keeps what it has seen.
type private Outside(verdict: byte[] -> PluginVerdict, mask: byte, log: ResizeArray<string>, name: string) =
    let change (datagram: Span<byte>) =
        log.Add name

        for i in 0 .. datagram.Length - 1 do
            datagram[i] <- datagram[i] ^^^ mask

        verdict (datagram.ToArray())

    interface IOutsidePlugin with
        member _.Ingress(datagram: Span<byte>) = change datagram
        member _.Egress(datagram: Span<byte>) = change datagram

let private pathTo (port: int) =
    OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, port)), LocalAddress())

/// Datagrams of a few peers, some of equal length, in a batch whose socket is full now and then: what arrives, and what was
/// appended.
let private throughBatch (seed: int) (plugins: IOutsidePlugin list) =
    let random = Random seed
    let wire = Wire()
    let counters = Counters()

    use batch =
        new SendBatch(
            wire,
            counters,
            (if random.Next 4 = 0 then 1 else 64),
            0,
            OutsidePlugins(Array.ofList plugins, counters)
        )

    let sent = ResizeArray<byte[]>()

    for number in 0 .. random.Next 200 do
        let path = pathTo (1000 + random.Next 3)
        let length = if random.Next 5 = 0 then 20 + random.Next 200 else 220

        let datagram =
            Array.init length (fun i -> if i = 0 then byte number else byte (number * i))

        if random.Next 10 = 0 then
            wire.Errors.Enqueue 11 // EAGAIN

        if random.Next 30 = 0 then
            wire.Errors.Enqueue 22 // EINVAL: sent one by one

        let mutable slot = Span<byte>.Empty
        let mutable isReserved = false

        while not isReserved do
            isReserved <- batch.TryReserve(&path, length, 0uy, &slot)

            if isReserved then
                ReadOnlySpan(datagram).CopyTo slot
                batch.Commit length
                sent.Add(Array.append (BitConverter.GetBytes(path.Peer.GetHashCode())) datagram)

        if random.Next 20 = 0 then
            batch.Flush() |> ignore

    while not (batch.Flush()) do
        ()

    [ for datagram in sent -> datagram[4..] ], List.ofSeq wire.Datagrams, counters

let private outside =
    [ test "datagrams of a batch pass the outside plugins once each, however full the socket is" {
          for seed in 1..300 do
              let log = ResizeArray()
              let isKept (datagram: byte[]) = datagram[0] % 3uy <> 1uy

              let drop (datagram: byte[]) =
                  if isKept datagram then
                      PluginVerdict.Accept
                  else
                      PluginVerdict.Drop

              let mutable refused = 0
              let sent, arrived, counters = throughBatch seed [ Outside(drop, 0x5Auy, log, "a") ]
              let changed = sent |> List.map (Array.map (fun value -> value ^^^ 0x5Auy))
              let kept = List.filter isKept changed
              refused <- changed.Length - kept.Length
              Expect.equal log.Count sent.Length $"{seed}: each was seen once"
              // A datagram that EINVAL refuses alone is counted and skipped, as always.
              let lost = int counters[Counter.UdpSendFailed]
              Expect.equal (arrived.Length + lost) kept.Length $"{seed}: number"
              Expect.equal counters[Counter.OutsidePluginDropped] (int64 refused) $"{seed}: counted"

              if lost = 0 then
                  Expect.equal (List.sort arrived) (List.sort kept) $"{seed}: bytes"
      }

      test "outside plugins are asked in reverse order on the way out, and in order on the way in" {
          let log = ResizeArray()

          let plugins: IOutsidePlugin list =
              [ for name in [ "a"; "b" ] -> Outside((fun _ -> PluginVerdict.Accept), 0uy, log, name) ]

          throughBatch 1 plugins |> ignore
          Expect.equal (List.ofSeq log |> List.truncate 2) [ "b"; "a" ] "out"
          log.Clear()
          let counters = Counters()
          let all = OutsidePlugins(Array.ofList plugins, counters)
          Expect.isTrue (all.Ingress(Span(payload 10))) "accepted"
          Expect.equal (List.ofSeq log) [ "a"; "b" ] "in"
      }

      for expresslane, mode in modes do
          test $"{mode}: outside plugins see every datagram that a worker sends, those of handshakes too" {
              let log = ResizeArray()
              let plugin = Outside((fun _ -> PluginVerdict.Accept), 0uy, log, "a")
              use pair = new Pair(expresslane, 64, serverPlugins = [ plugin ])
              pair.Connect()
              let handshake = log.Count
              Expect.isGreaterThan handshake 3 "cookie, flight, login"
              Expect.equal (exchange pair) (stock expresslane) "as without plugins"
              Expect.isGreaterThanOrEqual (log.Count - handshake) 34 "packets"
          }

      test "what may be fragmented on its way still may, with outside plugins" {
          let fragmentable plugins =
              use pair = new Pair(true, 64, pathMtu = true, serverPlugins = plugins)
              pair.StartClient()
              pair.Pump()
              pair.Server.Wire.Fragmentable.Count

          let log = ResizeArray()
          let plugin = Outside((fun _ -> PluginVerdict.Accept), 0uy, log, "a")
          let without = fragmentable []
          Expect.isGreaterThan without 0 "the handshake's"
          Expect.equal (fragmentable [ plugin ]) without "the same"
      }

      test "what a plugin makes of a datagram that comes in is what is handled, and what it drops is not" {
          use sending = new UdpClient(IPEndPoint(IPAddress.Loopback, 0))
          use receiving = UdpSocket.Bind(IPEndPoint(IPAddress.Loopback, 0), 0, 0, 0u, true)
          let log = ResizeArray()

          let drop (datagram: byte[]) =
              if datagram.Length = 50 then
                  PluginVerdict.Drop
              else
                  PluginVerdict.Accept

          use context =
              new WorkerContext(receiving, ScriptedTun false, Offload.None, null, [| Outside(drop, 0x77uy, log, "a") |])

          let seen = ResizeArray<byte[]>()

          let router =
              { new IRouter with
                  member _.Find _ = null
                  member _.IsReported _ = false

                  member _.Dispatch(_header, _from, body, _now) = seen.Add(body.ToArray()) }

          use path = new OutsidePath(receiving, context, router)
          let header: byte[] = Array.zeroCreate WireHeader.Size

          WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, SessionId 7UL, Span header)

          let bodies = [ for length in [ 100; 34; 0; 100; 300 ] -> payload length ]

          for body in bodies do
              let datagram = Array.append header body |> Array.map (fun value -> value ^^^ 0x77uy)
              sending.Send(datagram, datagram.Length, receiving.LocalEndPoint) |> ignore

          let isDone () =
              path.Drain 0L
              log.Count = bodies.Length

          Expect.isTrue (Wait.until (TimeSpan.FromSeconds 30.) isDone) "all have come"
          Expect.equal (List.ofSeq seen) (bodies |> List.filter (fun body -> body.Length <> 34)) "handled"
          Expect.equal context.Counters[Counter.OutsidePluginDropped] 1L "counted"
      } ]

let tests = testList "Hooks" (samples @ inside @ encoding @ outside)

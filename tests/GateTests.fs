/// The program that drops floods in the kernel, on real sockets on loopback. Needs CAP_BPF.
module Lightway.Tests.GateTests

open System
open System.Net
open System.Net.Sockets
open System.Threading
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tests.Checks
open Lightway.Tunnel.Filters
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Udp

let private datagram (session: SessionId) =
    let bytes: byte[] = Array.zeroCreate 100
    WireHeader.write (ProtocolVersion.V1_2, WirePayload.Dtls, session, Span bytes)
    bytes

/// A budget of `datagrams` at once, and one per hour after that.
let private once (datagrams: int) : GateBudget =
    let hour = 3_600_000_000_000L

    { IntervalNs = hour
      BurstNs = (int64 datagrams - 1L) * hour }

/// What waits at a socket, in datagrams.
let private drain (socket: UdpSocket) =
    use batch = new ReceiveBatch(socket.IsCoalescing)

    let rec more (count: int) =
        match socket.Receive batch with
        | received when received <= 0 -> count
        | received ->
            count
            + List.sum
                [ for i in 0 .. received - 1 do
                      let length = batch.Bytes(i).Length
                      let size = batch.ReadControl(i).SegmentSize
                      if size > 0 then (length + size - 1) / size else 1 ]
            |> more

    more 0

let private patience = TimeSpan.FromSeconds 30.

/// Sends to a guarded group of sockets, and takes what comes through. Even over loopback a datagram may take a moment: all
/// have arrived when as many were received or dropped as were sent.
type private Traffic(gate: StrangerGate, sockets: UdpSocket[]) =
    let received: int[] = Array.zeroCreate sockets.Length
    let mutable sent = 0

    let isOver () =
        let dropped =
            [ for i in 0 .. sockets.Length - 1 -> gate.DroppedAt(i).Noise + gate.DroppedAt(i).OverLimit ]

        int64 (Array.sum received) + List.sum dropped >= int64 sent

    /// The first one.
    member _.Socket = sockets[0]

    member _.SendTo(target: IPEndPoint, from: Socket, bytes: byte[]) =
        from.SendTo(bytes, target) |> ignore
        sent <- sent + 1

    member this.Send(from: Socket, bytes: byte[]) =
        this.SendTo(sockets[0].LocalEndPoint, from, bytes)

    /// Datagrams of 100 bytes in one send.
    member _.SendRun(from: UdpSocket, run: byte[]) =
        let path = OutsideAddress(PeerAddress sockets[0].LocalEndPoint, LocalAddress())
        Expect.isGreaterThan (from.Send(&path, ReadOnlySpan run, 100)) 0 "sent"
        sent <- sent + run.Length / 100

    /// How many of the datagrams since the last time have come through to each socket.
    member _.Take() : int list =
        let before = List.ofArray received

        let take () =
            for i in 0 .. sockets.Length - 1 do
                received[i] <- received[i] + drain sockets[i]

            isOver ()

        Wait.until patience take |> ignore
        List.map2 (-) (List.ofArray received) before

let private withGate (local: IPAddress) (count: int) (budget: GateBudget) body =
    needsRoot ()

    let sockets =
        UdpSocket.BindGroup(IPEndPoint(local, 0), count, 4_000_000, true, raise)

    let mutable reason = ""

    use gate =
        match StrangerGate.TryCreate(count, budget, &reason) with
        | null -> failtest $"no gate: {reason}"
        | gate -> gate

    try
        for i in 0 .. count - 1 do
            if not (sockets[i].TryGuard(gate, i, &reason)) then
                failtest $"not on socket {i}: {reason}"

        body gate (Traffic(gate, sockets))
    finally
        for socket in sockets do
            (socket :> IDisposable).Dispose()

let private sender (address: string) =
    let address = IPAddress.Parse address

    let socket = new Socket(address.AddressFamily, SocketType.Dgram, ProtocolType.Udp)

    socket.Bind(IPEndPoint(address, 0))
    socket

let tests =
    testList
        "Gate"
        [ test "what is not Lightway is dropped and counted, whatever is wrong with it" {
              withGate IPAddress.Loopback 1 (once 1_000_000) (fun gate traffic ->
                  use stranger = sender "127.0.0.1"
                  let whole = datagram (SessionId 7UL)

                  let noise =
                      [ yield! [ for length in 0..15 -> whole[.. length - 1] ]
                        [| 0uy; yield! whole[1..] |]
                        [| whole[0]; 0x66uy; yield! whole[2..] |]
                        [| yield! whole[..1]; 1uy; 0uy; yield! whole[4..] |]
                        [| yield! whole[..1]; 1uy; 4uy; yield! whole[4..] |]
                        [| yield! whole[..1]; 0uy; 2uy; yield! whole[4..] |]
                        [| yield! whole[..1]; 2uy; 2uy; yield! whole[4..] |] ]

                  for bytes in noise do
                      traffic.Send(stranger, bytes)

                  let good =
                      [ for version in [ 0x0101us; 0x0102us; 0x0103us ] do
                            let bytes: byte[] = Array.zeroCreate 16
                            WireHeader.write (version, WirePayload.Expresslane, SessionId.Empty, Span bytes)
                            bytes ]

                  for bytes in good do
                      traffic.Send(stranger, bytes)

                  Expect.equal (traffic.Take()) [ good.Length ] "the good ones are here"
                  Expect.equal (gate.DroppedAt(0).Noise) (int64 noise.Length) "the others are counted"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 0L "nothing is a flood")
          }

          test "a source has its budget, and another source has its own" {
              withGate IPAddress.Loopback 1 (once 50) (fun gate traffic ->
                  use greedy = sender "127.0.0.1"
                  use modest = sender "127.0.0.2"

                  for i in 1UL .. 1_000UL do
                      traffic.Send(greedy, datagram (SessionId(i % 7UL)))

                  Expect.equal (traffic.Take()) [ 50 ] "the budget"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 950L "the rest is counted"

                  for _ in 1..50 do
                      traffic.Send(modest, datagram SessionId.Empty)

                  Expect.equal (traffic.Take()) [ 50 ] "all of the other's")
          }

          test "an admitted session is never in the way of it, until it is forgotten" {
              withGate IPAddress.Loopback 1 (once 3) (fun gate traffic ->
                  use client = sender "127.0.0.1"
                  let session = SessionId 0xFEDCBA9876543210UL
                  gate.Admit session

                  for _ in 1..500 do
                      traffic.Send(client, datagram SessionId.Empty)
                      traffic.Send(client, datagram session)

                  Expect.equal (traffic.Take()) [ 503 ] "all of the session's, three of the others"
                  gate.Forget session
                  traffic.Send(client, datagram session)
                  Expect.equal (traffic.Take()) [ 0 ] "a stranger again"
                  gate.Admit(SessionId 0x76543210FEDCBA98UL)
                  traffic.Send(client, datagram session)
                  Expect.equal (traffic.Take()) [ 0 ] "another id than the admitted one")
          }

          test "of IPv6 a /64 is one source" {
              withGate IPAddress.IPv6Loopback 1 (once 10) (fun gate traffic ->
                  use stranger = sender "::1"

                  for _ in 1..25 do
                      traffic.Send(stranger, datagram SessionId.Empty)

                  Expect.equal (traffic.Take()) [ 10 ] "the budget"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 15L "the rest")
          }

          test "on a socket of both families an IPv4 address is a source of its own" {
              withGate IPAddress.IPv6Any 1 (once 10) (fun _ traffic ->
                  let port = traffic.Socket.LocalEndPoint.Port

                  for address in [ "127.0.0.1"; "127.0.0.2"; "::1" ] do
                      use stranger = sender address
                      let target = IPEndPoint((stranger.LocalEndPoint :?> IPEndPoint).Address, port)

                      let target =
                          if target.AddressFamily = AddressFamily.InterNetwork then
                              IPEndPoint(IPAddress.Loopback, port)
                          else
                              target

                      for _ in 1..25 do
                          traffic.SendTo(target, stranger, datagram SessionId.Empty)

                      Expect.equal (traffic.Take()) [ 10 ] $"of {address}")
          }

          test "a run of datagrams costs as many as it holds" {
              withGate IPAddress.Loopback 1 (once 100) (fun gate traffic ->
                  use flood = UdpSocket.Bind(IPEndPoint(IPAddress.Loopback, 0), 0, 0, 0u, false)
                  let run = Array.concat (List.replicate 40 (datagram SessionId.Empty))

                  for _ in 1..10 do
                      traffic.SendRun(flood, run)

                  // The first three runs begin within the budget.
                  Expect.equal (traffic.Take()) [ 120 ] "a run is never divided"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 280L "the rest is counted")
          }

          test "a budget comes back with time, and none is no limit" {
              let budget =
                  { IntervalNs = 20_000_000L
                    BurstNs = 0L }

              withGate IPAddress.Loopback 1 budget (fun gate traffic ->
                  use stranger = sender "127.0.0.1"

                  let flood count =
                      for _ in 1..count do
                          traffic.Send(stranger, datagram SessionId.Empty)

                      List.sum (traffic.Take())

                  Expect.isLessThan (flood 100) 50 "one per 20 ms"
                  Thread.Sleep 30
                  Expect.isGreaterThan (flood 100) 0 "earned"
                  gate.Use(GateBudget.Of 0)
                  Thread.Sleep 30 // what it owes
                  Expect.equal (flood 1_000) 1_000 "no limit"
                  gate.Use(once 1)
                  Expect.isLessThan (flood 100) 3 "and one again")
          }

          test "each socket of a group counts for itself, and shares sessions and budgets" {
              withGate IPAddress.Loopback 3 (once 30) (fun gate traffic ->
                  use stranger = sender "127.0.0.1"

                  for i in 1UL .. 300UL do
                      traffic.Send(stranger, datagram (SessionId i))

                  Expect.equal (List.sum (traffic.Take())) 30 "one budget"
                  let dropped = [ for i in 0..2 -> gate.DroppedAt(i).OverLimit ]
                  Expect.equal (List.sum dropped) 270L "counted"
                  Expect.all dropped (fun count -> count > 50L) "by each"
                  gate.Admit(SessionId 8UL)
                  traffic.Send(stranger, datagram (SessionId 8UL))
                  Expect.equal (traffic.Take()) [ 0; 0; 1 ] "the session's datagram at its worker")
          }

          test "the kernel's count of drops is that of the gate, in buffers, as long as the socket is never full" {
              withGate IPAddress.Loopback 1 (once 1) (fun gate traffic ->
                  use stranger = sender "127.0.0.1"

                  use flood =
                      UdpSocket.Bind(IPEndPoint(IPAddress.Parse "127.0.0.2", 0), 0, 0, 0u, false)

                  let run = Array.concat (List.replicate 40 (datagram SessionId.Empty))

                  for _ in 1..10 do
                      traffic.SendRun(flood, run)
                      traffic.Send(stranger, datagram SessionId.Empty)
                      traffic.Send(stranger, [| 1uy |])

                  Expect.equal (traffic.Take()) [ 41 ] "a run and a datagram come through"
                  let dropped = GateDrops(10L, 9L * 40L + 9L, 9L + 9L + 10L)
                  Wait.until patience (fun () -> gate.DroppedAt 0 = dropped) |> ignore
                  Expect.equal (gate.DroppedAt 0) dropped "dropped"
                  gate.Admit(SessionId 7UL)
                  traffic.Send(stranger, datagram (SessionId 7UL))
                  use batch = new ReceiveBatch(true)
                  let received = ref 0

                  let isThere () =
                      received.Value <- traffic.Socket.Receive batch
                      received.Value > 0

                  Wait.until patience isThere |> ignore
                  Expect.equal received.Value 1 "one that tells"
                  Expect.equal (batch.ReadControl(0).Overflows) 28u "as the kernel counts")
          } ]

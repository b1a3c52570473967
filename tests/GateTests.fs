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

/// A budget of so many datagrams at once, and one per hour later.
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

        body gate sockets
    finally
        for socket in sockets do
            (socket :> IDisposable).Dispose()

let private sender (address: string) =
    let address = IPAddress.Parse address

    let socket = new Socket(address.AddressFamily, SocketType.Dgram, ProtocolType.Udp)

    socket.Bind(IPEndPoint(address, 0))
    socket

let private send (from: Socket) (target: UdpSocket) (bytes: byte[]) =
    from.SendTo(bytes, target.LocalEndPoint) |> ignore

let tests =
    testList
        "Gate"
        [ test "what is not Lightway is dropped and counted, whatever is wrong with it" {
              withGate IPAddress.Loopback 1 (once 1_000_000) (fun gate sockets ->
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
                      send stranger sockets[0] bytes

                  let good =
                      [ for version in [ 0x0101us; 0x0102us; 0x0103us ] do
                            let bytes: byte[] = Array.zeroCreate 16
                            WireHeader.write (version, WirePayload.Expresslane, SessionId.Empty, Span bytes)
                            bytes ]

                  for bytes in good do
                      send stranger sockets[0] bytes

                  Expect.equal (drain sockets[0]) good.Length "the good ones are here"
                  Expect.equal (gate.DroppedAt(0).Noise) (int64 noise.Length) "the others are counted"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 0L "nothing is a flood")
          }

          test "a source has its budget, and another source has its own" {
              withGate IPAddress.Loopback 1 (once 50) (fun gate sockets ->
                  use greedy = sender "127.0.0.1"
                  use modest = sender "127.0.0.2"

                  for i in 1UL .. 1_000UL do
                      send greedy sockets[0] (datagram (SessionId(i % 7UL)))

                  Expect.equal (drain sockets[0]) 50 "the budget"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 950L "the rest is counted"

                  for _ in 1..50 do
                      send modest sockets[0] (datagram SessionId.Empty)

                  Expect.equal (drain sockets[0]) 50 "all of the other's")
          }

          test "an admitted session is never in the way of it, until it is forgotten" {
              withGate IPAddress.Loopback 1 (once 3) (fun gate sockets ->
                  use client = sender "127.0.0.1"
                  let session = SessionId 0xFEDCBA9876543210UL
                  gate.Admit session

                  for _ in 1..500 do
                      send client sockets[0] (datagram SessionId.Empty)
                      send client sockets[0] (datagram session)

                  Expect.equal (drain sockets[0]) 503 "all of the session's, three of the others"
                  gate.Forget session
                  send client sockets[0] (datagram session)
                  Expect.equal (drain sockets[0]) 0 "a stranger again"
                  gate.Admit(SessionId 0x76543210FEDCBA98UL)
                  send client sockets[0] (datagram session)
                  Expect.equal (drain sockets[0]) 0 "another id than the admitted one")
          }

          test "of IPv6 a /64 is one source" {
              withGate IPAddress.IPv6Loopback 1 (once 10) (fun gate sockets ->
                  use stranger = sender "::1"

                  for _ in 1..25 do
                      send stranger sockets[0] (datagram SessionId.Empty)

                  Expect.equal (drain sockets[0]) 10 "the budget"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 15L "the rest")
          }

          test "on a socket of both families an IPv4 address is a source of its own" {
              withGate IPAddress.IPv6Any 1 (once 10) (fun _ sockets ->
                  let port = sockets[0].LocalEndPoint.Port

                  for address in [ "127.0.0.1"; "127.0.0.2"; "::1" ] do
                      use stranger = sender address
                      let target = IPEndPoint((stranger.LocalEndPoint :?> IPEndPoint).Address, port)

                      let target =
                          if target.AddressFamily = AddressFamily.InterNetwork then
                              IPEndPoint(IPAddress.Loopback, port)
                          else
                              target

                      for _ in 1..25 do
                          stranger.SendTo(datagram SessionId.Empty, target) |> ignore

                      Expect.equal (drain sockets[0]) 10 $"of {address}")
          }

          test "a run of datagrams costs as many as it holds" {
              withGate IPAddress.Loopback 1 (once 100) (fun gate sockets ->
                  use flood = UdpSocket.Bind(IPEndPoint(IPAddress.Loopback, 0), 0, 0, 0u, false)
                  let run = Array.concat (List.replicate 40 (datagram SessionId.Empty))

                  let path = OutsideAddress(PeerAddress sockets[0].LocalEndPoint, LocalAddress())

                  for _ in 1..10 do
                      Expect.isGreaterThan (flood.Send(&path, ReadOnlySpan run, 100)) 0 "sent"

                  // The first three runs begin within the budget.
                  Expect.equal (drain sockets[0]) 120 "a run is never divided"
                  Expect.equal (gate.DroppedAt(0).OverLimit) 280L "the rest is counted")
          }

          test "a budget comes back with time, and none is no limit" {
              let budget =
                  { IntervalNs = 20_000_000L
                    BurstNs = 0L }

              withGate IPAddress.Loopback 1 budget (fun gate sockets ->
                  use stranger = sender "127.0.0.1"

                  let flood count =
                      for _ in 1..count do
                          send stranger sockets[0] (datagram SessionId.Empty)

                      drain sockets[0]

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
              withGate IPAddress.Loopback 3 (once 30) (fun gate sockets ->
                  use stranger = sender "127.0.0.1"

                  for i in 1UL .. 300UL do
                      send stranger sockets[0] (datagram (SessionId i))

                  Expect.equal (List.sum [ for socket in sockets -> drain socket ]) 30 "one budget"
                  let dropped = [ for i in 0..2 -> gate.DroppedAt(i).OverLimit ]
                  Expect.equal (List.sum dropped) 270L "counted"
                  Expect.all dropped (fun count -> count > 50L) "by each"
                  gate.Admit(SessionId 8UL)
                  send stranger sockets[0] (datagram (SessionId 8UL))
                  Expect.equal (drain sockets[2]) 1 "the session's datagram at its worker")
          }

          test "the kernel's count of drops is that of the gate, in buffers, as long as the socket is never full" {
              withGate IPAddress.Loopback 1 (once 1) (fun gate sockets ->
                  use stranger = sender "127.0.0.1"

                  use flood =
                      UdpSocket.Bind(IPEndPoint(IPAddress.Parse "127.0.0.2", 0), 0, 0, 0u, false)

                  let run = Array.concat (List.replicate 40 (datagram SessionId.Empty))

                  let path = OutsideAddress(PeerAddress sockets[0].LocalEndPoint, LocalAddress())

                  for _ in 1..10 do
                      Expect.isGreaterThan (flood.Send(&path, ReadOnlySpan run, 100)) 0 "a run"
                      send stranger sockets[0] (datagram SessionId.Empty)
                      send stranger sockets[0] [| 1uy |]

                  Expect.equal (gate.DroppedAt 0) (GateDrops(10L, 9L * 40L + 9L, 9L + 9L + 10L)) "dropped"
                  drain sockets[0] |> ignore
                  gate.Admit(SessionId 7UL)
                  send stranger sockets[0] (datagram (SessionId 7UL))
                  use batch = new ReceiveBatch(true)
                  Expect.equal (sockets[0].Receive batch) 1 "one that tells"
                  Expect.equal (batch.ReadControl(0).Overflows) 28u "as the kernel counts")
          } ]

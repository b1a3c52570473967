module Lightway.Tests.WorkerTests

#nowarn "9" // a pointer for ioctl(2)

open System
open System.Collections.Generic
open System.Net
open System.Net.Sockets
open Expecto
open Microsoft.FSharp.NativeInterop
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tests.Checks
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Filters
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tun
open Lightway.Tunnel.Udp

let private EAGAIN = 11

let private frame seed =
    let payload: byte[] = Array.zeroCreate 20_000
    Random(seed).NextBytes payload
    Superpackets.tcp (Ipv4Address 0x0A7D0010u) payload 1298

let private read (source: ITunReader) =
    let buffer: byte[] = Array.zeroCreate 65_545

    match source.Read(Span buffer) with
    | length when length < 0 -> Error -length
    | length -> Ok buffer[.. length - 1]

/// A datagram of a session, as much of it as the kernel looks at.
let private datagram (session: SessionId) =
    let bytes: byte[] = Array.zeroCreate 20
    WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, session, Span bytes)
    bytes

/// How many datagrams each socket gets, until as many as are expected have come: on a busy machine the kernel takes its time,
/// on loopback too.
let private waiting (expected: int) (sockets: UdpSocket[]) : int list =
    use batch = new ReceiveBatch(false)
    let counts: int[] = Array.zeroCreate sockets.Length

    let haveCome () =
        for i in 0 .. sockets.Length - 1 do
            counts[i] <- counts[i] + max 0 (sockets[i].Receive batch)

        Array.sum counts >= expected

    Wait.until (TimeSpan.FromSeconds 30.) haveCome |> ignore
    List.ofArray counts

let private withGroup count (body: UdpSocket[] -> Socket -> unit) =
    let sockets =
        UdpSocket.BindGroup(IPEndPoint(IPAddress.Loopback, 0), count, 0, false, raise)

    use sender =
        new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

    try
        sender.Connect sockets[0].LocalEndPoint
        body sockets sender
    finally
        for socket in sockets do
            (socket :> IDisposable).Dispose()

let private steering =
    [ test "a session id says which worker drew it, and is none of the reserved values" {
          for workers in [ 1; 2; 3; 7 ] do
              for worker in 0 .. workers - 1 do
                  let source = SessionIdSource(worker, workers)

                  for _ in 1..200 do
                      let id = source.Draw()
                      Expect.equal (int (uint32 id.Value % uint32 workers)) worker "its worker"
                      Expect.isFalse (SessionId.isReserved id) "a session"
      }

      test "the kernel gives a datagram to the worker that drew its session id, wherever it comes from" {
          withGroup 3 (fun sockets _ ->
              for worker in 0..2 do
                  let source = SessionIdSource(worker, 3)

                  for _ in 1..20 do
                      // A socket of its own each time: another port, as after a move.
                      use sender =
                          new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

                      sender.SendTo(datagram (source.Draw()), sockets[0].LocalEndPoint) |> ignore

                  let expected = List.init 3 (fun i -> if i = worker then 20 else 0)
                  Expect.equal (waiting 20 sockets) expected $"all with worker {worker}")
      }

      test "a client without a session stays with one worker, chosen by its address; clients spread" {
          withGroup 2 (fun sockets sender ->
              for _ in 1..10 do
                  sender.Send(datagram SessionId.Empty) |> ignore

              Expect.containsAll [ [ 10; 0 ]; [ 0; 10 ] ] [ waiting 10 sockets ] "one worker"

              for _ in 1..60 do
                  use other =
                      new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

                  other.SendTo(datagram SessionId.Empty, sockets[0].LocalEndPoint) |> ignore

              let counts = waiting 60 sockets
              Expect.equal (List.sum counts) 60 "none lost"
              Expect.all counts (fun count -> count > 5) "both have some")
      }

      test "a datagram too short for a session id harms nobody" {
          withGroup 2 (fun sockets sender ->
              for length in 0..15 do
                  sender.Send(Array.zeroCreate<byte> length) |> ignore

              Expect.equal (List.sum (waiting 16 sockets)) 16 "each arrives somewhere")
      }

      test "a second group at the same address is refused, though the kernel would let it join" {
          withGroup 2 (fun sockets _ ->
              let taken = sockets[0].LocalEndPoint

              let refusal =
                  try
                      UdpSocket.BindGroup(taken, 2, 0, false, raise) |> ignore
                      "no refusal"
                  with :? IO.IOException as error ->
                      error.Message

              // The kernel's own reason, and who has the port: this very process.
              Expect.stringStarts refusal $"bind UDP {taken} (" "the call and its subject"
              Expect.stringContains refusal $"process {Environment.ProcessId}, has the port)" "the holder"
              Expect.stringEnds refusal "Address already in use (errno 98)" "the reason")
      }

      test "a device that is renamed or moved to another namespace keeps its queue; one that is deleted is an error" {
          needsRoot ()

          let one, two =
              $"lw-ren-a-{Environment.ProcessId}", $"lw-ren-b-{Environment.ProcessId}"

          for netns in [ one; two ] do
              Shell.run "ip" [ "netns"; "add"; netns ] |> ignore

          try
              Netns.run one (fun () ->
                  let ip arguments =
                      Shell.run "ip" ("-n" :: one :: arguments) |> ignore

                  use queue = TunQueue.Open("lwold", Offload.None)
                  Expect.equal (queue.QueryMtu()) 1500 "as made"
                  ip [ "link"; "set"; "lwold"; "mtu"; "1400" ]
                  Expect.equal (queue.QueryMtu()) 1400 "as set"
                  ip [ "link"; "set"; "lwold"; "name"; "lwnew" ]
                  ip [ "link"; "set"; "lwnew"; "mtu"; "1300" ]
                  Expect.equal (queue.QueryMtu()) 1300 "under its new name"
                  ip [ "link"; "set"; "lwnew"; "netns"; two ]
                  Expect.equal (queue.QueryMtu()) 1300 "the last answer"
                  Shell.run "ip" [ "-n"; two; "link"; "del"; "lwnew" ] |> ignore
                  Expect.throwsT<IO.IOException> (fun () -> queue.QueryMtu() |> ignore) "deleted")
          finally
              for netns in [ one; two ] do
                  Shell.run "ip" [ "netns"; "del"; netns ] |> ignore
      }

      test
          "a device that another process has is refused, also if the kernel would let us join; a persistent one that is free is not" {
          needsRoot ()
          let netns = $"lw-use-{Environment.ProcessId}"
          Shell.run "ip" [ "netns"; "add"; netns ] |> ignore

          let refusal count =
              try
                  for queue in TunQueue.OpenAll("lwuse", Offload.None, count) do
                      queue.Dispose()

                  "no refusal"
              with :? IO.IOException as error ->
                  error.Message

          try
              Netns.run netns (fun () ->
                  let queues = TunQueue.OpenAll("lwuse", Offload.None, 2)
                  TunInterface.BringUp "lwuse"

                  for count in [ 1; 2 ] do
                      Expect.stringContains (refusal count) "another process has it" $"{count} queues"

                  for queue in queues do
                      queue.Dispose()

                  Shell.run "ip" [ "-n"; netns; "tuntap"; "add"; "lwuse"; "mode"; "tun"; "multi_queue" ] |> ignore
                  Shell.run "ip" [ "-n"; netns; "link"; "set"; "lwuse"; "up" ] |> ignore
                  Expect.equal (refusal 2) "no refusal" "free"
                  Expect.equal (refusal 2) "no refusal" "and free again a moment later"
                  Expect.stringContains (refusal 1) "multi_queue" "one queue of a device for several")
          finally
              Shell.run "ip" [ "netns"; "del"; netns ] |> ignore
      }

      test
          "where the kernel takes no program to steer by, its hash of the addresses chooses, and the operator is warned" {
          needsRoot ()
          let netns = $"lw-hash-{Environment.ProcessId}"
          Shell.run "ip" [ "netns"; "add"; netns ] |> ignore

          try
              Netns.run netns (fun () ->
                  Shell.run "ip" [ "-n"; netns; "link"; "set"; "lo"; "up" ] |> ignore
                  // The kernel's bound on the size of such a program; per namespace since Linux 6.9.
                  Shell.inside netns "sysctl" [ "-qw"; "net.core.optmem_max=64" ] |> ignore
                  let told = ResizeArray<string>()

                  let sockets =
                      UdpSocket.BindGroup(
                          IPEndPoint(IPAddress.Loopback, 0),
                          2,
                          0,
                          false,
                          (fun e -> told.Add e.Message)
                      )

                  try
                      Expect.equal told.Count 1 "told"
                      Expect.stringContains told[0] "SO_ATTACH_REUSEPORT_CBPF" "what failed"
                      let source = SessionIdSource(1, 2)

                      for _ in 1..60 do
                          use sender =
                              new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

                          sender.SendTo(datagram (source.Draw()), sockets[0].LocalEndPoint) |> ignore

                      let counts = waiting 60 sockets
                      Expect.equal (List.sum counts) 60 "none lost"
                      Expect.all counts (fun count -> count > 5) "both have some"
                  finally
                      for socket in sockets do
                          (socket :> IDisposable).Dispose())
          finally
              Shell.run "ip" [ "netns"; "delete"; netns ] |> ignore
      } ]

/// Queues of the device lwqueues in a namespace, where 10.125.0.0/24 leads into it.
let private withQueuesOf (openAll: unit -> TunQueue[]) (body: TunQueue[] -> unit) =
    needsRoot ()
    let netns = $"lw-queues-{Environment.ProcessId}"
    Shell.run "ip" [ "netns"; "add"; netns ] |> ignore

    try
        Netns.run netns (fun () ->
            let queues = openAll ()

            try
                Shell.ip $"-n {netns} addr add 10.125.0.1/24 dev lwqueues" |> ignore
                Shell.ip $"-n {netns} link set lwqueues up" |> ignore
                body queues
            finally
                for queue in queues do
                    (queue :> IDisposable).Dispose())
    finally
        Shell.run "ip" [ "netns"; "delete"; netns ] |> ignore

let private withQueues =
    withQueuesOf (fun () -> TunQueue.OpenAll("lwqueues", Offload.None, 2))

/// One datagram to the host inside.
let private sendTo (host: int) =
    use sender =
        new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

    sender.SendTo([| 1uy |], IPEndPoint(IPAddress.Parse $"10.125.0.{host}", 9)) |> ignore

/// How many of some flows to a host come out of each queue.
let private someFlowsTo (flows: int) host (queues: TunQueue[]) : int list =
    for _ in 1..flows do
        sendTo host

    let rec count (queue: TunQueue) found =
        match read queue with
        | Ok packet when packet[0] >>> 4 = 4uy && packet[19] = byte host -> count queue (found + 1)
        | Ok _ -> count queue found // IPv6 looks for routers
        | Error _ -> found

    let counts: int[] = Array.zeroCreate queues.Length

    let haveCome () =
        for i, queue in Array.indexed queues do
            counts[i] <- count queue counts[i]

        Array.sum counts >= flows

    Wait.until (TimeSpan.FromSeconds 30.) haveCome |> ignore
    List.ofArray counts

let private flowsTo = someFlowsTo 20

let private queueSteering =
    [ test "a packet from inside comes out of its connection's queue, also when the connection has changed" {
          withQueues (fun queues ->
              let mutable reason = ""
              let network = Ipv4Address 0x0A7D0000u
              use steering = QueueSteering.TryAttach(queues[0].Fd, network, 256, &reason)
              Expect.isNotNull steering reason
              steering.Set(5, 1)
              steering.Set(6, 0)
              Expect.equal (flowsTo 5 queues) [ 0; 20 ] "the second worker's"
              Expect.equal (flowsTo 6 queues) [ 20; 0 ] "the first worker's"
              steering.Set(5, 0)
              Expect.equal (flowsTo 5 queues) [ 20; 0 ] "handed to another client"
              Expect.equal (List.sum (flowsTo 99 queues)) 20 "nobody's: dropped by whoever reads it")
      }

      test "without steering flows spread, and after it again" {
          withQueues (fun queues ->
              let spread () =
                  // Of 200 hashes, one queue gets 50 or fewer in one of 10^12 runs.
                  let counts = someFlowsTo 200 5 queues
                  Expect.equal (List.sum counts) 200 "none lost"
                  Expect.all counts (fun count -> count > 50) $"both have some: {counts}"

              spread ()
              let mutable reason = ""

              let steering =
                  QueueSteering.TryAttach(queues[0].Fd, Ipv4Address 0x0A7D0000u, 256, &reason)

              Expect.isNotNull steering reason
              Expect.equal (flowsTo 5 queues) [ 20; 0 ] "unknown addresses go to the first"
              (steering :> IDisposable).Dispose()
              spread ())
      }

      test "a pool too large for a table is reported" {
          withQueues (fun queues ->
              let mutable reason = ""

              Expect.isNull
                  (QueueSteering.TryAttach(queues[0].Fd, Ipv4Address 0x0A000000u, 1 <<< 24, &reason))
                  "no steering"

              Expect.stringContains reason "addresses" "why")
      } ]

let private frameHeader =
    test "frames of a device that was left with a longer vnet header start with ten bytes" {
        let openAll () =
            let first = TunQueue.Open("lwqueues", Offload(), true)
            let size = NativePtr.stackalloc<int> 1
            NativePtr.write size 12 // virtio_net_hdr_mrg_rxbuf, as QEMU sets it
            let set = Tmds.Linux.LibC.ioctl (first.Fd, 0x400454D8, NativePtr.toVoidPtr size) // TUNSETVNETHDRSZ
            Expect.equal set 0 "as somebody left it"
            [| first; TunQueue.Open("lwqueues", Offload(), true) |]

        withQueuesOf openAll (fun queues ->
            sendTo 5

            let rec found (queue: TunQueue) =
                match read queue with
                | Ok frame when frame[VirtioNetHeader.Size] >>> 4 = 4uy -> [ frame ]
                | Ok _ -> found queue // IPv6 looks for routers
                | Error _ -> []

            let mutable frames = []

            let haveCome () =
                frames <- frames @ List.collect found (List.ofArray queues)
                not frames.IsEmpty

            Wait.until (TimeSpan.FromSeconds 30.) haveCome |> ignore

            match frames with
            | [ frame ] ->
                Expect.equal frame.Length (VirtioNetHeader.Size + 20 + 8 + 1) "length"
                Expect.equal frame[VirtioNetHeader.Size + 19] 5uy "destination"
            | others -> failtest $"{others.Length} frames")
    }

let private forwarding =
    [ test "frames leave the mailbox as they came, in order; the first of them rings" {
          use mailbox = new Mailbox(true)
          let rings = ref 0
          mailbox.Posted <- fun () -> rings.Value <- rings.Value + 1
          Expect.equal (read mailbox) (Error EAGAIN) "empty"
          let frames = [ for seed in 1..3 -> frame seed ]

          for frame in frames do
              Expect.isTrue (mailbox.TryPost(ReadOnlySpan frame)) "room"

          Expect.equal rings.Value 1 "one ring for all"
          Expect.equal [ for _ in 1..3 -> read mailbox ] (List.map Ok frames) "in order"
          Expect.equal (read mailbox) (Error EAGAIN) "empty again"
          Expect.isTrue (mailbox.TryPost(ReadOnlySpan(frame 4))) "room"
          Expect.equal rings.Value 2 "the next one rings again"
      }

      test "a full mailbox takes nothing, and works again when it was read" {
          use mailbox = new Mailbox(true)
          let mutable posted = 0

          while mailbox.TryPost(ReadOnlySpan(frame posted)) do
              posted <- posted + 1

          Expect.equal posted (2097152 / ((frame 0).Length + 4 + 3 &&& ~~~3)) "2 MiB"
          Expect.equal (read mailbox) (Ok(frame 0)) "the oldest"
          Expect.isTrue (mailbox.TryPost(ReadOnlySpan(frame posted))) "room again"
          Expect.equal [ for _ in 1..posted -> read mailbox ] [ for i in 1..posted -> Ok(frame i) ] "all, in order"
          Expect.equal (read mailbox) (Error EAGAIN) "empty"
      }

      testProperty "whatever is posted and read, a mailbox is a queue that loses only what it has refused"
      <| fun (seed: int) ->
          use mailbox = new Mailbox(true)
          let random = Random seed
          let model = Queue<byte[]>()
          let mutable waiting = 0
          let mutable right = true

          for _ in 1..150 do
              // Runs of posts and of reads: the ring fills, wraps and empties at ever other places.
              for _ in 1 .. random.Next 60 do
                  let frame: byte[] =
                      Array.zeroCreate (
                          if random.Next 8 = 0 then
                              random.Next 65_546
                          else
                              1 + random.Next 1_400
                      )

                  random.NextBytes(Span(frame, 0, min 8 frame.Length))

                  if mailbox.TryPost(ReadOnlySpan frame) then
                      model.Enqueue frame
                      waiting <- waiting + frame.Length
                  else
                      // Never refused while half of it is empty: a largest frame fits in the rest however it lies.
                      right <- right && waiting > (1 <<< 20) - 65_546

              for _ in 1 .. random.Next 60 do
                  match read mailbox with
                  | Ok frame ->
                      right <- right && model.Count > 0 && frame = model.Dequeue()
                      waiting <- waiting - frame.Length
                  | Error _ -> right <- right && model.Count = 0

          right && mailbox.HasFrames = (model.Count > 0)

      test "a superpacket that another worker read leaves through its connection's worker" {
          use pair = new Pair(true, 64)
          pair.Connect()
          use other = new End(Role.Server, 64)

          let route = OneRoute pair.Server.Connection

          use read =
              new InsidePath(RepeatedFrame(frame 1, 52, Left = 1), other.Context, route)

          Expect.isTrue (read.Drain 0L) "the socket is not full"
          Expect.equal other.Context.Counters[Counter.TunForwarded] 1L "forwarded"
          Expect.equal other.Wire.Calls 0 "not sent by the worker that read it"

          use forwarded =
              new InsidePath(pair.Server.Context.Mailbox, pair.Server.Context, route)

          Expect.isTrue (forwarded.Drain 0L) "the socket is not full"
          pair.Pump(fun _ -> false)
          let payload = pair.Client.Delivered |> Seq.collect (Array.skip 52) |> Array.ofSeq
          Expect.equal payload (Array.skip 62 (frame 1)) "the client has the payload"
      }

      test "what a full mailbox can't take is a counted drop" {
          use other = new End(Role.Server, 64)
          use pair = new Pair(true, 64)
          pair.Connect()

          use read =
              new InsidePath(RepeatedFrame(frame 1, 52, Left = 120), other.Context, OneRoute pair.Server.Connection)

          for _ in 1..2 do // each reads 64 at most
              Expect.isTrue (read.Drain 0L) "the socket is not full"

          Expect.equal other.Context.Counters[Counter.TunForwarded] 104L "forwarded"
          Expect.equal other.Context.Counters[Counter.TunForwardDropped] 16L "dropped"
      } ]

let tests =
    testList "Workers" (steering @ frameHeader :: queueSteering @ forwarding)

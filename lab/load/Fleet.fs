namespace Lightway.Lab.Load

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Net
open System.Runtime.InteropServices
open System.Text
open System.Threading
open Lightway.Lab
open Lightway.Lab.Pests
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// What a fleet has done so far.
[<Struct>]
type FleetState =
    {
        Online: int
        Handshaking: int
        /// Logins that have succeeded.
        Logins: int64
        /// Connections that have ended other than by `Churn`.
        Lost: int64
        /// Milliseconds from the first datagram to the login, of all logins together.
        LoginMs: int64
    }

/// Sends by one socket for all clients: an engine tells its connections apart by their peers, and here all have the same one. So
/// each has its own address as the peer, and the sender puts the two where they belong.
[<Sealed>]
type internal FleetSender(socket: UdpSocket, server: PeerAddress) =
    let copies: DatagramRun[] = Array.zeroCreate SendBatch.MaxRuns

    let real (path: OutsideAddress) : OutsideAddress =
        let mutable bytes = BinaryPrimitives.ReverseEndianness path.Peer.IPv4.Value

        OutsideAddress(server, LocalAddress(MemoryMarshal.AsBytes(ReadOnlySpan<uint32> &bytes)))

    /// Of the client that has this address outside.
    static member PathOf(outside: uint32) : OutsideAddress =
        OutsideAddress(PeerAddress.Of(false, 0UL, uint64 outside, 1us), LocalAddress())

    interface IDatagramSender with
        member _.Send(path, data, segmentSize, tos) =
            let path = real path
            (socket :> IDatagramSender).Send(&path, data, segmentSize, tos)

        member _.Send(runs: ReadOnlySpan<DatagramRun>, bytes: ReadOnlySpan<byte>) =
            for i in 0 .. runs.Length - 1 do
                copies[i] <- runs[i]
                copies[i].Path <- real copies[i].Path

            (socket :> IDatagramSender).Send(ReadOnlySpan(copies, 0, runs.Length), bytes)

/// Clients by the thousand on one thread: the engine's own connections, batches, timers and paths, without TUN devices. All share
/// one socket and differ by their address (IP_PKTINFO): client n has the n-th address of 198.18.0.0/16, each in another /24
/// than its neighbours. The calling thread's namespace must have that network as local: `ip route add local 198.18.0.0/16 dev lo`.
[<Sealed>]
type Fleet(target: Target, register: Register, sink: Ipv4Address, userOf: int -> string, expresslane: bool) =
    static let network = 0xC6120000u // 198.18.0.0
    static let handshakesAtOnce = 64
    static let bufferBytes = 8 <<< 20

    static let outsideOf (number: int) =
        network + (uint32 (number % 256) <<< 8) + 1u + uint32 (number / 256)

    static let numberOf (outside: uint32) =
        int ((outside >>> 8) &&& 0xFFu) + 256 * (int (outside &&& 0xFFu) - 1)

    let socket =
        UdpSocket.Bind(IPEndPoint(IPAddress.Any, 0), bufferBytes, bufferBytes, 0u, true)

    let tun = FleetTun(register, sink)

    let context =
        new WorkerContext(
            FleetSender(socket, PeerAddress target.Server),
            tun,
            Offload(TunGroTcp = false, TunGroUdp = false),
            null,
            Now = Environment.TickCount64
        )

    let tls =
        TlsContext.ForClient(ReadOnlySpan target.Ca, null, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

    let connections: Connection[] = Array.zeroCreate register.Capacity
    let startedAt: int64[] = Array.zeroCreate register.Capacity
    let isStarting: bool[] = Array.zeroCreate register.Capacity
    let waiting = Queue<int>()
    let ended = Queue<int>()
    let mutable asked = 0 // clients that have been put into the queue, ever
    let mutable wanted = 0 // by other threads
    let mutable churn = 0.0 // per second, by other threads
    let loop = OfferLoop()
    let mutable churnDue = 0.0
    let mutable churnAt = Environment.TickCount64
    let mutable churnTurn = 0
    let mutable introducedAt = 0L
    let mutable handshaking = 0
    let mutable online = 0
    let mutable logins = 0L
    let mutable lost = 0L
    let mutable loginMs = 0L

    let leave (number: int) =
        let connection = connections[number]

        if not (isNull connection) then
            connections[number] <- null

            if isStarting[number] then
                isStarting[number] <- false
                handshaking <- handshaking - 1
            elif connection.WasOnline then
                online <- online - 1

            connection.Dispose()

    let eventsOf (number: int) =
        { new IClientEvents with
            member _.Authenticated(connection, success) =
                connection.Translation <-
                    Translation.client (FleetTun.AddressOf number, success.LocalIp, success.DnsIp, success.DnsIp)
          interface IConnectionEvents with
              member _.StateChanged(connection) =
                  if connection.State = ConnectionState.Online then
                      isStarting[number] <- false
                      handshaking <- handshaking - 1
                      online <- online + 1
                      logins <- logins + 1L
                      loginMs <- loginMs + context.Now - startedAt[number]
                      tun.Introduce number

              // It is on the stack: it goes when the step is over.
              member _.Closed(_, _) =
                  lost <- lost + 1L
                  ended.Enqueue number }

    let settingsOf (number: int) =
        ConnectionSettings(
            Role = Role.Client,
            EnableExpresslane = expresslane,
            Credentials = AuthRequest.userPassword (userOf number, Encoding.UTF8.GetBytes target.Password)
        )

    let start (number: int) (now: int64) =
        let path = FleetSender.PathOf(outsideOf number)
        startedAt[number] <- now
        isStarting[number] <- true
        handshaking <- handshaking + 1

        let connection =
            Connection.ForClient(
                settingsOf number,
                context,
                eventsOf number,
                new DtlsSession(tls, ReadOnlySpan<byte>.Empty),
                &path,
                now
            )

        connections[number] <- connection
        connection.Start now

    let router =
        { new IRouter with
            member _.Find(packet) =
                connections[FleetTun.NumberOf(Frames.sourceOf packet)]

            member _.IsReported _ = false

            member _.Dispatch(header, from, body, now) =
                let number = numberOf from.Local.IPv4.Value

                if number >= 0 && number < connections.Length then
                    let connection = connections[number]

                    if not (isNull connection) then
                        connection.Receive(&header, body, now) |> ignore }

    let outside = new OutsidePath(socket, context, router)
    let inside = new InsidePath(tun, context, router)

    /// Ends those that have ended, and queues them again.
    let bury () =
        let mutable number = 0

        while ended.TryDequeue &number do
            leave number
            waiting.Enqueue number

    let startSome (now: int64) =
        while asked < Volatile.Read &wanted do
            waiting.Enqueue asked
            asked <- asked + 1

        let mutable number = 0

        // A few per step: the packets of the others go on meanwhile.
        let mutable budget = 4

        while budget > 0 && handshaking < handshakesAtOnce && waiting.TryDequeue &number do
            start number now
            budget <- budget - 1

    /// Some say Goodbye and come again as new clients.
    let replaceSome (now: int64) =
        churnDue <- min 64.0 (churnDue + Volatile.Read &churn * float (now - churnAt) / 1000.0)
        churnAt <- now

        while churnDue >= 1.0 do
            churnDue <- churnDue - 1.0

            if asked > 0 then
                churnTurn <- (churnTurn + 1) % asked
                let connection = connections[churnTurn]

                if not (isNull connection) && connection.State = ConnectionState.Online then
                    connection.Disconnect()
                    leave churnTurn
                    waiting.Enqueue churnTurn

    /// Packets may be lost: whose address is not known yet says it again.
    let introduce (now: int64) =
        if now - introducedAt >= 500L then
            introducedAt <- now

            if register.Known < online then
                for number in 0 .. asked - 1 do
                    if
                        register.AddressOf(number).IsNone
                        && not (isNull connections[number])
                        && connections[number].State = ConnectionState.Online
                    then
                        tun.Introduce number

    let step () =
        let now = Environment.TickCount64
        context.Now <- now
        outside.Drain now
        context.Timers.Run now
        bury ()
        replaceSome now
        startSome now
        introduce now
        tun.Offer <- loop.Offer
        tun.Count <- online
        tun.Advance()
        inside.Drain now |> ignore // a full socket: the rest is due later

    /// Clients that there should be; those that are missing come, 64 at a time. Any thread.
    member _.Want(count: int) : unit =
        if count > register.Capacity then
            invalidArg (nameof count) $"{count} are more than the register's {register.Capacity}"

        Volatile.Write(&wanted, count)

    /// Clients per second that leave and come again as new ones. Any thread.
    member _.Churn
        with set (rate: float) = Volatile.Write(&churn, rate)

    /// What the clients send, in turn. Any thread.
    member _.Offer
        with set (value: Offer) = loop.Offer <- value

    /// Any thread; the numbers may be a moment apart.
    member _.State: FleetState =
        { Online = Volatile.Read &online
          Handshaking = Volatile.Read &handshaking
          Logins = Volatile.Read &logins
          Lost = Volatile.Read &lost
          LoginMs = Volatile.Read &loginMs }

    /// The engine's counters that are not zero.
    member _.Counters: (string * int64) list =
        [ for pair in Counters.Sum [ context.Counters ] do
              if pair.Value > 0L then
                  pair.Key, pair.Value ]

    /// Goes on until `Stop`, on the calling thread.
    member _.Run() : unit = loop.Run socket.Fd step

    /// Ends `Run`. Any thread.
    member _.Stop() : unit = loop.Stop()

    interface IDisposable with
        /// Says nothing to the server.
        member _.Dispose() =
            for number in 0 .. connections.Length - 1 do
                leave number

            inside.Dispose()
            outside.Dispose()
            (context :> IDisposable).Dispose()
            tls.Dispose()
            socket.Dispose()

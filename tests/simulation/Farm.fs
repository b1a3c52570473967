namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Reflection
open System.Text
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

/// A client's host.
[<Sealed; AllowNullLiteral>]
type Host(index: int, user: string, isMute: bool) =
    member _.Index = index
    /// Null: it never logs in.
    member _.User = user
    member _.IsMute = isMute
    member val Address = PeerAddress() with get, set
    /// Null: no client runs.
    member val Connection: Connection = null with get, set
    /// Counts the connections of all hosts.
    member val Number = -1 with get, set
    /// The server's connection at the other end.
    member val Peer: Shadow = null with get, set
    member val PeerNumber = -1 with get, set
    member val Rejects = Rejects.none with get, set
    member val StartedAt = 0L with get, set
    member val AskedAt = Int64.MaxValue with get, set
    /// When the client was told that its network has changed: it is patient from then on.
    member val ToldAt = 0L with get, set
    member val Failures = 0 with get, set
    member val HasLeft = false with get, set
    /// What the client sends once its server has answered arrives so much later; 0: as usual.
    member val HoldMs = 0L with get, set
    member val HasHeard = false with get, set
    /// What was held back has begun to arrive.
    member val IsShown = false with get, set
    /// How far the client is with its keys.
    member val Keys: Func<ExpresslaneState> = null with get, set
    member val Key: byte[] = null with get, set
    member val KeyAt = 0L with get, set
    /// Packets that were sent with it, about.
    member val KeyUses = 0UL with get, set
    /// When a packet was sent with a key that is too old, first.
    member val OverdueAt = Int64.MaxValue with get, set
    member val OverdueUses = 0 with get, set

/// What the clients ask of the world.
type IFarmWorld =
    abstract FindPeer: SessionId -> Shadow
    abstract Ended: Host * TunnelError -> unit

/// All clients. They share a worker's context, as connections of a server do: whose turn it is, is known at each call, and
/// the local address of a path is the number of a host.
[<Sealed>]
type Farm(world: IWorld, links: IFarmWorld, hosts: Host[]) =
    let plan = world.Plan
    let ms (time: int64) = time * 1L<ms>
    let local = Ipv4Address 0x64400006u // 100.64.0.6: the address of every client's own device
    let device = Device()
    let mutable current: Host = null
    let mutable wakeAt = Int64.MaxValue
    let mutable numbers = 0
    let mutable isSilent = false // what clients send goes nowhere: their processes are gone
    let mutable pathLimit = 65_535

    let pathOf (host: Host) =
        let bytes: byte[] = Array.zeroCreate 4
        BinaryPrimitives.WriteInt32BigEndian(bytes, host.Index + 1)
        OutsideAddress(ServerSite.address, LocalAddress(ReadOnlySpan bytes))

    // Inside packets may also leave in DTLS: those that are fragmented, and all while there is no key.
    let isSealed (datagram: ReadOnlySpan<byte>) =
        let mutable header = Unchecked.defaultof<WireHeader>

        WireHeader.tryParse (datagram, &header) = WireError.None && header.Payload = WirePayload.Expresslane

    let send (path: OutsideAddress) (data: ReadOnlySpan<byte>) segmentSize (mayFragment: bool) =
        let host = hosts[int path.Local.IPv4.Value - 1]
        let step = if segmentSize = 0 then data.Length else segmentSize
        let mutable at = 0

        while at < data.Length do
            let length = min step (data.Length - at)

            if isSealed (data.Slice(at, length)) then
                host.KeyUses <- host.KeyUses + 1UL

            if host.HoldMs > 0L && host.HasHeard then
                let datagram = Datagram(Length = length, From = host.Address, IsHeld = true)
                data.Slice(at, length).CopyTo(Span datagram.Bytes)
                world.Agenda.Add(world.Now + host.HoldMs, Kind.ToServer, host.Index, datagram)
            elif not isSilent && (mayFragment || length + 28 <= pathLimit) then
                world.Network.Carry(data.Slice(at, length), host.Address, Kind.ToServer, host.Index)

            at <- at + length

        data.Length

    let socket =
        { new IDatagramSender with
            member _.SendFragmentable(path: inref<OutsideAddress>, data: ReadOnlySpan<byte>) = send path data 0 true

            member _.Send(path: inref<OutsideAddress>, data: ReadOnlySpan<byte>, segmentSize: int, _: byte) =
                send path data segmentSize false

            member _.Send(runs: ReadOnlySpan<DatagramRun>, bytes: ReadOnlySpan<byte>) =
                for run in runs do
                    send run.Path (bytes.Slice(run.Start, run.Length)) run.SegmentSize false |> ignore

                runs.Length }

    let context =
        let dice = world.Dice.Fork()

        new WorkerContext(
            socket,
            device,
            Offload(MaxSegments = plan.Segments, TunGroTcp = plan.Coalesces, TunGroUdp = plan.Coalesces),
            null,
            Random = RandomPool(RandomFill(fun bytes -> dice.Fill bytes)),
            Post = Action<Action>(fun action -> action.Invoke()),
            Now = world.Now
        )

    let tls =
        TlsContext.ForClient(
            FixedCertificate.certificate,
            null,
            false,
            KeyShare.X25519MlKem768,
            TlsContext.DefaultOutsideMtu
        )

    let router =
        { new IRouter with
            member _.Find _ = current.Connection
            member _.IsReported _ = false
            member _.Dispatch(_, _, _, _) = () }

    let inside = new InsidePath(device, context, router)

    let schedule () =
        let at = context.Timers.NextAt

        if at < wakeAt then
            wakeAt <- at
            world.Agenda.Add(at, Kind.Farm, -1, null)

    let run (host: Host) (action: unit -> unit) =
        current <- host
        context.Now <- world.Now
        action ()
        context.ToInside.Flush()

        if not (context.ToOutside.Flush()) then
            raise (Violation "a client's socket is full")

        current <- null
        schedule ()

    let arrivals =
        { new IArrivals with
            member _.Arrive(packet) =
                if packet[9] <> 1uy then
                    Cargo.check packet 2uy
                    let number = Cargo.numberOf packet

                    if isNull current then
                        raise (Violation $"packet {number} comes out at nobody")

                    world.Ledger.Arrive(number, current.PeerNumber)
                    world.Trace.Add(world.Now, Mark.ArrivedDown, current.Index, int64 number)

                    let destination = Cargo.destination packet

                    ServerSite.require (destination = local) (fun () ->
                        $"packet {number} has the destination {destination}") }

    /// Keys are changed when they are old or have sealed as many packets as allowed, and not before.
    let checkKey (host: Host) =
        let key = host.Keys.Invoke().SelfKey

        if not (Object.ReferenceEquals(key, host.Key)) then
            if not (isNull key) && not (isNull host.Key) then
                let age = world.Now - host.KeyAt

                ServerSite.require
                    ((plan.RotationMs > 0L && age >= plan.RotationMs * 9L / 10L) || host.KeyUses >= plan.PacketsPerKey)
                    (fun () -> $"a key is changed after {age} ms and {host.KeyUses} packets")

            host.Key <- key
            host.KeyAt <- world.Now
            host.KeyUses <- 0UL
            host.OverdueAt <- Int64.MaxValue
            host.OverdueUses <- 0

    let checkUses (host: Host) =
        if not (isNull host.Key) && host.Connection.IsExpresslaneReady then
            let age = world.Now - host.KeyAt

            if (plan.RotationMs > 0L && age > plan.RotationMs) || host.KeyUses > plan.PacketsPerKey then
                host.OverdueAt <- min host.OverdueAt world.Now
                host.OverdueUses <- host.OverdueUses + 1

                ServerSite.require
                    (host.OverdueUses < 12
                     || world.Now - host.OverdueAt < 120_000L
                     || world.Now - host.Connection.LastOutsideAt > 30_000L)
                    (fun () -> $"a key of {age} ms and {host.KeyUses} packets is not changed")

    let stateOf =
        typeof<ExpresslaneChannel>.GetField("_state", BindingFlags.Instance ||| BindingFlags.NonPublic)

    let settings (host: Host) =
        ConnectionSettings(
            Role = Role.Client,
            EnableExpresslane = plan.Expresslane,
            ExpresslaneRotationMs = plan.RotationMs,
            ExpresslanePacketsPerKey = plan.PacketsPerKey,
            KeepaliveIntervalMs = plan.KeepaliveMs,
            KeepaliveTimeoutMs = plan.KeepaliveTimeoutMs,
            KeepaliveContinuous = plan.Continuous,
            EnablePathMtu = plan.PathMtu,
            Credentials =
                (if host.IsMute then
                     Nullable()
                 else
                     Nullable(AuthRequest.userPassword (host.User, Encoding.UTF8.GetBytes ServerSite.password)))
        )

    /// A client ends on its own: not before its time.
    let checkEnd (host: Host) (connection: Connection) (reason: TunnelError) =
        let now = world.Now

        if reason = TunnelError.TimedOut then
            if connection.WasOnline then
                let silence = now - connection.LastOutsideAt

                ServerSite.require (silence >= plan.KeepaliveTimeoutMs) (fun () ->
                    $"a client gives up {silence} ms after it has heard its server")
            elif not host.IsMute && host.AskedAt <> Int64.MaxValue then
                ServerSite.require (now - host.AskedAt >= 30_000L) (fun () ->
                    $"a client gives up {now - host.AskedAt} ms after it has asked to be let in")

    let eventsOf (host: Host) (number: int) =
        { new IClientEvents with
            member _.Authenticated(connection, success) =
                connection.Translation <- Translation.client (local, success.LocalIp, local, success.DnsIp)

                match links.FindPeer success.Session with
                | null -> ()
                | shadow ->
                    ServerSite.require (shadow.User = host.User) (fun () ->
                        $"'{host.User}' is let in as '{shadow.User}'")

                    ServerSite.require (shadow.Client < 0 || shadow.Client = number) (fun () ->
                        "two clients have been let in with one session")

                    shadow.Client <- number
                    host.Peer <- shadow
                    host.PeerNumber <- shadow.Number
          interface IConnectionEvents with
              member _.StateChanged(connection) =
                  if connection.State = ConnectionState.LinkUp then
                      host.AskedAt <- world.Now
                  elif connection.State = ConnectionState.Online then
                      host.Failures <- 0
                      world.Trace.Add(world.Now, Mark.HostOnline, host.Index, int64 number)

              member _.Closed(connection, reason) =
                  world.Trace.Add(world.Now, Mark.HostEnds, host.Index, int64 (int reason))
                  checkEnd host connection reason
                  connection.Dispose()
                  host.Connection <- null
                  links.Ended(host, reason) }

    do device.Arrivals <- arrivals

    /// Bytes of the longest outside packet that the path carries whole.
    member _.PathLimit
        with set limit = pathLimit <- limit

    member _.Counters = context.Counters
    member _.Context: WorkerContext = context

    member _.Start(host: Host) : unit =
        numbers <- numbers + 1
        let number = numbers
        host.Number <- number
        host.Peer <- null
        host.PeerNumber <- -1
        host.Rejects <- Rejects.none
        host.StartedAt <- world.Now
        host.AskedAt <- Int64.MaxValue
        host.HasLeft <- false
        world.Trace.Add(world.Now, Mark.HostStarts, host.Index, int64 number)
        context.Now <- world.Now
        let path = pathOf host

        host.Connection <-
            Connection.ForClient(
                settings host,
                context,
                eventsOf host number,
                new DtlsSession(tls, ReadOnlySpan<byte>.Empty),
                &path,
                world.Now
            )

        let channel = (Peek.field<PacketPath> host.Connection "_packets").Expresslane
        host.Keys <- Func<ExpresslaneState>(fun () -> stateOf.GetValue channel :?> ExpresslaneState)
        host.Key <- null
        host.OverdueAt <- Int64.MaxValue
        host.HasHeard <- false
        run host (fun () -> host.Connection.Start world.Now)

    /// The client ends: with a Goodbye, or without a word.
    member _.End(host: Host, silently: bool) : unit =
        if not (isNull host.Connection) then
            isSilent <- silently

            run host (fun () ->
                host.Connection.Disconnect()
                host.Connection.Dispose()
                host.Connection <- null)

            isSilent <- false

    member this.Receive(host: Host, datagram: Datagram) : unit =
        let mutable header = Unchecked.defaultof<WireHeader>
        let bytes = datagram.Bytes

        if
            not (isNull host.Connection)
            && WireHeader.tryParse (ReadOnlySpan(bytes, 0, datagram.Length), &header) = WireError.None
        then
            current <- host
            context.Now <- world.Now
            host.HasHeard <- true

            if header.Session.Value = SessionId.Rejected.Value then
                if host.Connection.State = ConnectionState.Online then
                    let struct (state, isAsking) = Rejects.rejected (host.Rejects, ms world.Now)
                    host.Rejects <- state

                    if isAsking then
                        host.ToldAt <- world.Now
                        host.Connection.NetworkChanged world.Now
                        this.WatchRejects(host, host.Number)
            else
                host.Connection.Receive(
                    &header,
                    ReadOnlySpan(bytes, WireHeader.Size, datagram.Length - WireHeader.Size),
                    world.Now
                )
                |> ignore

                if plan.Expresslane && not (isNull host.Connection) then
                    checkKey host

            context.ToInside.Flush()
            context.ToOutside.Flush() |> ignore
            current <- null
            schedule ()

    /// As ClientSession.Tick, while a reject is open.
    member private this.WatchRejects(host: Host, number: int) : unit =
        world.Agenda.After(
            1_000L,
            Action(fun () ->
                if host.Number = number && not (isNull host.Connection) then
                    let struct (state, isGone) =
                        Rejects.tick (host.Rejects, ms host.Connection.LastOutsideAt, ms world.Now)

                    host.Rejects <- state

                    if isGone then
                        world.Trace.Add(world.Now, Mark.HostEnds, host.Index, int64 (int TunnelError.RejectedSession))
                        this.End(host, false)
                        links.Ended(host, TunnelError.RejectedSession)
                    elif state <> Rejects.none then
                        this.WatchRejects(host, number))
        )

    /// Timers of clients. False: another call has taken its place.
    member _.Wake() : bool =
        if world.Now < wakeAt then
            false
        else
            wakeAt <- Int64.MaxValue
            context.Now <- world.Now
            context.Timers.Run world.Now
            schedule ()
            true

    /// A program sends a datagram, or a superpacket. The number of its first packet; -1: the client is not online.
    member _.Send(host: Host, payload: int, count: int) : int =
        if isNull host.Connection || host.Connection.State <> ConnectionState.Online then
            -1
        else
            let number = world.Ledger.Enter(host.Number, count)

            let frame =
                if count = 1 then
                    Cargo.datagram local ServerSite.remote payload number 1uy
                else
                    Cargo.superpacket (number % 2 = 0) local ServerSite.remote payload count number 1uy

            world.Trace.Add(world.Now, Mark.SentUp, host.Index, int64 number)

            run host (fun () ->
                if not plan.Continuous && world.Now - host.Connection.LastOutsideAt > 10_000L then
                    host.Connection.Doubt world.Now

                if not (isNull host.Connection) then
                    device.Frames.Enqueue frame

                    if not (inside.Drain world.Now) then
                        raise (Violation "a client's socket is full")

                    if plan.Expresslane then
                        checkUses host)

            number

    /// The client's host has another address. The client may be told.
    member _.Move(host: Host, address: PeerAddress, isTold: bool) : unit =
        world.Trace.Add(world.Now, Mark.HostMoves, host.Index, (if isTold then 1L else 0L))
        world.Network.Hosts.Remove host.Address |> ignore
        host.Address <- address
        world.Network.Hosts[address] <- host.Index

        if isTold && not (isNull host.Connection) then
            host.ToldAt <- world.Now
            run host (fun () -> host.Connection.NetworkChanged world.Now)

    /// From time to time.
    member _.Check() : unit =
        let now = world.Now
        let mutable earliest = Int64.MaxValue

        for host in hosts do
            match host.Connection with
            | null -> ()
            | connection ->
                earliest <- min earliest connection.DueAt

                ServerSite.require (int64 (host.Keys.Invoke().TimerAt) >= now) (fun () ->
                    "an offer of keys is not repeated in time")

                let silence = now - max host.ToldAt connection.LastOutsideAt

                if connection.State = ConnectionState.Online && plan.Continuous then
                    ServerSite.require (silence <= plan.KeepaliveMs + plan.KeepaliveTimeoutMs + 2_000L) (fun () ->
                        $"a client has not heard its server for {silence} ms, and goes on")

                if connection.State = ConnectionState.Authenticating then
                    ServerSite.require (now - host.AskedAt <= 33_000L) (fun () ->
                        $"a client has asked to be let in for {now - host.AskedAt} ms")

        ServerSite.require (context.Timers.NextAt <= earliest) (fun () ->
            "the timer of a client is due, and nobody is called")

        ServerSite.require (context.Timers.Count <= 40 * hosts.Length + 200) (fun () ->
            $"{context.Timers.Count} timers for {hosts.Length} clients")

    interface IDisposable with
        member this.Dispose() =
            for host in hosts do
                this.End(host, true)

            inside.Dispose()
            (context :> IDisposable).Dispose()
            tls.Dispose()

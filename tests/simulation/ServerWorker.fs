namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Collections
open System.Collections.Generic
open System.Net
open System.Reflection
open Lightway.Options
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Addresses
open Lightway.Server.Auth
open Lightway.Server.Reload
open Lightway.Server.Sessions
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Filters
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// One worker of the server: the parts of the engine, with the socket, the device and the clock of the world. `Wake` is
/// what `Worker.Loop` does.
[<Sealed>]
type ServerWorker
    (
        world: IWorld,
        server: IServerChecks,
        index: int,
        shared: SharedState,
        managers: List<ConnectionManager>,
        socket: ServerSocket,
        device: Device
    ) =
    let plan = world.Plan
    let posted = Queue<Action>()
    let mutable wakeAt = Int64.MaxValue
    let mutable isDead = false
    let mutable token: obj = null // this worker

    let wake (at: int64) =
        if at < wakeAt && not isDead then
            wakeAt <- at
            world.Agenda.Add(at, Kind.Wake, index, token)

    let post (action: Action) =
        if isDead then
            action.Invoke()
        else
            posted.Enqueue action
            wake world.Now

    let later (work: Action) (finish: Action<int64>) =
        world.Agenda.After(
            world.Dice.Wait plan.StepMs,
            Action(fun () ->
                world.Trace.Add(world.Now, Mark.Step, index, 0L)
                work.Invoke()
                post (Action(fun () -> finish.Invoke world.Now)))
        )

    let random () =
        let dice = world.Dice.Fork()
        RandomPool(RandomFill(fun bytes -> dice.Fill bytes))

    let context =
        new WorkerContext(
            socket,
            device,
            Offload(MaxSegments = plan.Segments, TunGroTcp = plan.Coalesces, TunGroUdp = plan.Coalesces),
            SessionIdSource(index, plan.Workers, random ()),
            Random = random (),
            Pool = ControlPool later,
            Post = Action<Action> post,
            Now = world.Now
        )

    let manager = new ConnectionManager(shared, context, Siblings = managers)
    let counters = context.Counters
    let table = Peek.field<ConnectionTable> manager "_table"
    let strangers = Peek.field<obj> manager "_strangers"
    let logins = Peek.field<obj> manager "_logins"
    let byPeer = Peek.counter table "_byPeer"
    let successors = Peek.counter table "_successors"
    let bySession = Peek.counter table "_bySession"
    let byPending = Peek.counter table "_byPending"
    let closed = Peek.counter table "_closed"
    let guests = Peek.counter strangers "_guests"
    let byTicket = Peek.counter strangers "_byTicket"
    let sessions = Peek.counter logins "_sessions"
    let decided = Peek.counter logins "_decided"
    let refusals = Peek.counter logins "_refusals"
    let kept = Peek.counter logins "_kept"

    let known = Dictionary<Connection, Shadow>(HashIdentity.Reference)
    let ended = Queue<struct (int64 * uint64)>() // when a session ended, and its id
    let endedAt = Dictionary<uint64, int64>()
    let mutable created = 0L
    let mutable gone = 0L
    let mutable sweepAt = world.Now + 60_000L
    let mutable tickAt = world.Now + 1_000L
    let mutable ticks = 0L
    let mutable segmentsBackAt = 0L // ticks
    let mutable superpacketsBackAt = 0L // ticks; of either protocol
    let mutable rejectedAtTick = 0L
    let mutable suppressedAtTick = 0L
    let mutable isBlocked = false
    let mutable isStopping = false
    let mutable moves = 0L // until the tick before
    let mutable fragmentBytes = 0L
    let mutable fragmentAt = Int64.MinValue // when they became more
    let cookies = CookieModel world.Now
    let mutable greedy = SourceModel.Of(server.HandshakesPerSource, plan.Workers)
    let mutable limits = struct (server.HandshakesPerSource, server.HalfOpen)
    // Books of the way from the device.
    let mutable frames = 0L // packets of frames that were read for connections of this worker
    let mutable nobody = 0L
    let mutable away = 0L
    let mutable lastSize = 0 // segments of the frame that was found last; 0: it has been judged
    let mutable lastDrops = 0L
    let mutable lastSent = 0L

    let c (counter: Counter) = counters[counter]

    let segmenterDrops () =
        let mutable sum = 0L

        for reason in 0 .. DropReason.count - 1 do
            sum <- sum + counters[enum<DropReason> reason]

        sum

    /// Packets from the device that were dropped after their connection was found.
    let insideDrops () =
        c Counter.TunRejectedPacketInvalidState
        + c Counter.TunRejectedPacketInvalidInsidePacket
        + c Counter.TunRejectedPacketTooBig
        + c Counter.TunRejectedPacketTlsError
        + c Counter.ExpresslaneEncryptNoKey
        + segmenterDrops ()

    let insideSent () =
        c Counter.ExpresslanePacketsSent + c Counter.DtlsPacketsSent

    /// What may become of a whole datagram: exactly one of these.
    let outcomes =
        [| Counter.UdpParseWireFailed
           Counter.UdpSourceInside
           Counter.UdpStrangerOverLimit
           Counter.UdpPeerAboveShare
           Counter.UdpMoveBeforeLogin
           Counter.UdpRejectsSuppressed
           Counter.UdpWrongVersionForConn
           Counter.UdpDataAfterDisconnect
           Counter.HandshakeIgnored
           Counter.ExpresslaneDecryptNoKey
           Counter.ExpresslaneDecryptFailed
           Counter.ExpresslaneReplayed
           Counter.ExpresslaneTruncated
           Counter.ExpresslanePacketsReceived
           Counter.UdpRejectedSession
           Counter.HandshakeCookiesSent
           Counter.ConnCreated |]

    let before: int64[] = Array.zeroCreate outcomes.Length
    let values: int64[] = Array.zeroCreate outcomes.Length

    let count () =
        let mutable sum = 0L

        for i in 0 .. outcomes.Length - 1 do
            let value = c outcomes[i]
            sum <- sum + value - before[i]
            before[i] <- value

        sum


    // A superpacket that is refused as a whole counts once: the other packets of it are not expected.
    let judgeLast () =
        if lastSize > 1 && insideDrops () = lastDrops + 1L && insideSent () = lastSent then
            frames <- frames - int64 (lastSize - 1)

        lastSize <- 0

    let findings =
        { new IRouter with
            member _.Find(packet) =
                judgeLast ()
                let nobodyBefore = c Counter.TunRejectedPacketNoConnection
                let found = manager.Find packet
                let number = Cargo.numberOf packet

                if isNull found then
                    nobody <- nobody + 1L

                    ServerSite.require (c Counter.TunRejectedPacketNoConnection = nobodyBefore + 1L) (fun () ->
                        "nobody's packet is counted")

                    ServerSite.require (not (server.HasOwner(Cargo.destination packet))) (fun () ->
                        $"packet {number} is for somebody who is not found")
                else
                    server.Route(number, found, Cargo.destination packet)

                    if Object.ReferenceEquals(found.Home, context) then
                        lastSize <- world.Ledger.SizeOf number
                        lastDrops <- insideDrops ()
                        lastSent <- insideSent ()
                        frames <- frames + int64 lastSize
                    else
                        away <- away + 1L

                found

            member _.IsReported packet = manager.IsReported packet

            member _.Dispatch(header, from, body, now) =
                let rejected = c Counter.UdpRejectedSession
                let afterwards = c Counter.UdpDataAfterDisconnect
                let failed = c Counter.UdpControlSendFailed
                let overLimit = c Counter.UdpStrangerOverLimit
                let suppressed = c Counter.UdpRejectsSuppressed
                let begun = c Counter.ConnCreated
                let cookiesSent = c Counter.HandshakeCookiesSent
                let address = from.Peer.IPv4.Value
                let session = header.Session
                let isExpresslane = header.Expresslane
                let length = body.Length
                let peer = from.Peer
                let isEmpty = session.Value = SessionId.Empty.Value
                let newest = if isEmpty then table.ByPeer &peer else null

                // The listener looks at it: it comes from nobody, or from a client that has started again.
                let isLookedAt =
                    isEmpty
                    && length > 0
                    && (isNull newest
                        || (not isExpresslane
                            && (let newest =
                                    match table.Successor &peer with
                                    | null -> newest
                                    | successor -> successor

                                DispatchRules.opening (body, newest.ClientRandom) = Opening.Fresh)))

                count () |> ignore
                Array.blit before 0 values 0 before.Length
                manager.Dispatch(&header, &from, body, now)
                let found = count ()

                if found > 1L then
                    let names =
                        [ for i in 0 .. outcomes.Length - 1 do
                              if before[i] > values[i] then
                                  string outcomes[i] ]

                    raise (Violation $"one datagram has {found} outcomes: %A{names}")

                if isExpresslane && found <> 1L && c Counter.UdpControlSendFailed = failed then
                    raise (Violation "an Expresslane packet has no outcome")

                if address = ServerSite.greedy then
                    let isRefused = c Counter.UdpStrangerOverLimit > overLimit

                    let isLimited =
                        isRefused
                        || c Counter.HandshakeCookiesSent > cookiesSent
                        || c Counter.UdpRejectedSession > rejected
                        || c Counter.UdpRejectsSuppressed > suppressed
                        || session.Value = SessionId.Empty.Value

                    if isLimited && greedy.Take now = isRefused then
                        raise (
                            Violation
                                $"a stranger's datagram is refused: {isRefused}, and its source has had its share: {not isRefused}"
                        )

                if session.Value = SessionId.Empty.Value && c Counter.UdpStrangerOverLimit = overLimit then
                    if c Counter.ConnCreated > begun then
                        ServerSite.require (cookies.IsGood(address, now) <> ValueSome false) (fun () ->
                            "a connection begins with a cookie that is too old")

                        cookies.Look now
                        cookies.Use address
                    elif c Counter.HandshakeCookiesSent > cookiesSent then
                        cookies.Look now
                        cookies.Issue address
                    elif isLookedAt then
                        cookies.Look now

                let rejected = c Counter.UdpRejectedSession - rejected

                if rejected = 1L then
                    world.Trace.Add(now, Mark.Rejected, index, 0L)
                    let mutable at = 0L

                    if endedAt.TryGetValue(session.Value, &at) then
                        ServerSite.require (now - at >= 10_000L) (fun () ->
                            $"a session that ended {now - at} ms ago is rejected")

                if c Counter.UdpDataAfterDisconnect > afterwards then
                    let mutable at = 0L

                    if endedAt.TryGetValue(session.Value, &at) then
                        ServerSite.require (now - at <= 11_000L) (fun () ->
                            $"a session that ended {now - at} ms ago is not rejected") }

    let inside = new InsidePath(device, context, findings)
    let forwarded = new InsidePath(context.Mailbox, context, findings)

    let outside =
        new OutsidePath(
            Func<ReceiveBatch, int>(fun batch -> socket.Receive batch),
            Func<GateDrops>(fun () -> GateDrops()),
            false,
            context,
            findings
        )

    let drainInside (now: int64) =
        if (inside.IsPending || device.Frames.Count > 0) && not (inside.Drain now) then
            false
        elif (forwarded.IsPending || context.Mailbox.HasFrames) && not (forwarded.Drain now) then
            false
        else
            context.ToOutside.Flush()

    let isPending () = inside.IsPending || forwarded.IsPending

    /// Connections that have come or gone.
    let notice (now: int64) =
        if c Counter.ConnCreated <> created then
            created <- c Counter.ConnCreated

            for connection in table.All do
                if not (known.ContainsKey connection) then
                    let shadow =
                        Shadow(server.NextNumber(), connection, index, ServerSite.isMute connection.Path.Peer)

                    shadow.Session <- connection.SessionId
                    known.Add(connection, shadow)

        if c Counter.ConnClosed <> gone then
            let mutable left = c Counter.ConnClosed - gone
            gone <- c Counter.ConnClosed

            for shadow in List.ofSeq known.Values do
                if shadow.Connection.State = ConnectionState.Disconnected then
                    known.Remove shadow.Connection |> ignore
                    let id = shadow.Connection.SessionId.Value
                    endedAt[id] <- now
                    ended.Enqueue(struct (now, id))
                    left <- left - 1L
                    world.Trace.Add(now, Mark.GuestEnds, shadow.Number, 0L)

            // It has come and gone within one wake-up.
            for _ in 1L .. left do
                world.Trace.Add(now, Mark.GuestEnds, -1, 0L)
                ended.Enqueue(struct (now, 0UL))

    let isLive (shadow: Shadow) =
        shadow.Connection.State <> ConnectionState.Disconnected

    let isGuest (shadow: Shadow) =
        shadow.OnlineAt = Int64.MaxValue && isLive shadow

    /// What a tick must end: connections without a login, then silent ones.
    let due (list: ResizeArray<Shadow>) (holds: Shadow -> bool) =
        list.Clear()

        for shadow in known.Values do
            if isLive shadow && holds shadow then
                list.Add shadow

    let overdue = ResizeArray<Shadow>()
    let silent = ResizeArray<Shadow>()

    let checkTick (stale: int64) (aged: int64) =
        ServerSite.require (c Counter.ConnStaleClosed - stale = int64 overdue.Count) (fun () ->
            $"{c Counter.ConnStaleClosed - stale} connections were ended because they were not online in time, and {overdue.Count} should have been")

        ServerSite.require (c Counter.ConnAgedOut - aged = int64 silent.Count) (fun () ->
            $"{c Counter.ConnAgedOut - aged} connections were ended because they were silent, and {silent.Count} should have been")

        for shadow in overdue do
            ServerSite.require (not (isLive shadow)) (fun () ->
                "a connection that is not online in time is still there")

        for shadow in silent do
            ServerSite.require (not (isLive shadow)) (fun () -> "a silent connection is still there")

        let rejects = c Counter.UdpRejectedSession
        let suppressed = c Counter.UdpRejectsSuppressed
        ServerSite.require (rejects - rejectedAtTick <= 100L) (fun () -> "more than 100 rejects per second")

        if suppressed > suppressedAtTick then
            ServerSite.require (rejects - rejectedAtTick = 100L) (fun () ->
                "a reject is suppressed below 100 per second")

        rejectedAtTick <- rejects
        suppressedAtTick <- suppressed

        ServerSite.require
            (context.ToOutside.Segments false = (plan.Segments > 1 && ticks >= segmentsBackAt))
            (fun () -> "segmentation is off for 60 ticks, no more and no less")

        if plan.Coalesces then
            ServerSite.require
                ((context.ToInside.MergesTcp && context.ToInside.MergesUdp) = (ticks >= superpacketsBackAt))
                (fun () -> "superpackets are off for 60 ticks, no more and no less")

    /// Session ids change with the keys, which have an age; and when the client moves.
    let checkRotation (now: int64) (shadow: Shadow) =
        let connection = shadow.Connection
        let interval = plan.KeyUpdateMs
        let isRotating = connection.PendingSessionId <> SessionId.Empty
        let isFresh = shadow.Session <> connection.SessionId

        if shadow.UpdateAt = Int64.MaxValue then
            shadow.UpdateAt <- shadow.OnlineAt
            shadow.RotatingAt <- shadow.OnlineAt

        if (isRotating || isFresh) && not shadow.IsRotating then
            // A client that has moved changes its id, too; it may be back already.
            if c Counter.UdpConnRecoveredViaSession = moves then
                let age = now - shadow.UpdateAt

                ServerSite.require
                    (plan.RecordsPerKey < 1_000L || (interval > 0L && age + 1_000L >= interval * 9L / 10L))
                    (fun () -> $"keys are changed after {age} ms")

                shadow.UpdateAt <- now

        let packets = connection.Traffic.PacketsIn + connection.Traffic.PacketsOut

        if isRotating || isFresh then
            shadow.RotatingAt <- now
            shadow.UpdatePackets <- packets

        ServerSite.require
            (plan.Expresslane || packets - shadow.UpdatePackets <= 2L * plan.RecordsPerKey + 100L)
            (fun () -> $"keys are not changed for {packets - shadow.UpdatePackets} packets")

        ServerSite.require (interval = 0L || now - shadow.RotatingAt <= interval + 33_000L) (fun () ->
            $"keys are not changed for {now - shadow.RotatingAt} ms")

        shadow.IsRotating <- isRotating
        shadow.Session <- connection.SessionId

    /// Sizes of tables, and counters that must agree with them.
    let checkTables (now: int64) =
        let mutable online = 0
        let mutable pending = 0
        let mutable earliest = Int64.MaxValue

        for shadow in known.Values do
            let connection = shadow.Connection
            ServerSite.require (isLive shadow) (fun () -> "an ended connection is still there")
            earliest <- min earliest connection.DueAt

            if connection.State = ConnectionState.Online then
                online <- online + 1

            if connection.PendingSessionId <> SessionId.Empty then
                pending <- pending + 1

            if connection.State = ConnectionState.Online then
                checkRotation now shadow
                let peer = connection.Path.Peer

                ServerSite.require (Object.ReferenceEquals(table.ByPeer &peer, connection)) (fun () ->
                    "the address of a client leads to its session")

            ServerSite.require
                ((connection.State = ConnectionState.Online) = (shadow.OnlineAt <> Int64.MaxValue))
                (fun () -> "the log says who is online")

            ServerSite.require
                ((connection.State = ConnectionState.Online) = not connection.InsideAddress.IsNone)
                (fun () -> "who is online has an address, and nobody else")

        let count = known.Count

        ServerSite.require (table.Count = count && bySession () = count) (fun () ->
            $"the table has {table.Count} connections, and there are {count}")

        ServerSite.require (c Counter.ConnCreated - c Counter.ConnClosed = int64 count) (fun () ->
            "connections that were created and not closed are there")

        ServerSite.require (byPeer () + successors () <= count) (fun () -> "each connection has one address")

        ServerSite.require (byPending () = pending) (fun () ->
            $"{byPending ()} pending ids in the table, {pending} of connections")

        ServerSite.require (sessions () = online) (fun () -> "each login belongs to a connection")

        ServerSite.require (guests () = count - online && byTicket () = count - online) (fun () ->
            "each place of a stranger belongs to a connection")

        ServerSite.require (guests () <= max 16 (server.HalfOpen / plan.Workers)) (fun () ->
            "more strangers than half_open_limit")

        ServerSite.require (kept () = 0) (fun () -> "logins are kept for streams only")

        ServerSite.require (context.FragmentBytes >= 0L && (count > 0 || context.FragmentBytes = 0L)) (fun () ->
            "fragments belong to connections")

        ServerSite.require (context.FragmentBytes = 0L || now - fragmentAt <= 10_100L) (fun () ->
            $"fragments are kept for {now - fragmentAt} ms")

        ServerSite.require
            (isStopping || (manager.Latest.Online = online && manager.Latest.Connections = count))
            (fun () -> "the census counts who is there")

        while ended.Count > 0 && (let struct (at, _) = ended.Peek() in now - at > 12_000L) do
            let struct (_, id) = ended.Dequeue()
            endedAt.Remove id |> ignore

        ServerSite.require (closed () <= ended.Count) (fun () ->
            $"{closed ()} ended sessions are remembered, and {ended.Count} ended within 12 s")

        // A budget of timers per run may leave some for the next wake-up, which comes at once.
        ServerSite.require (context.Timers.NextAt <= earliest) (fun () ->
            $"a timer is due at {earliest - now} ms from now, and nobody is called before {context.Timers.NextAt - now}")

        ServerSite.require (context.Timers.Count <= 24 * (count + server.EndedWithin(now, 3_600_000L)) + 64) (fun () ->
            $"{context.Timers.Count} timers for {count} connections")

    /// Everything that came is somewhere.
    let checkBooks () =
        ServerSite.require (c Counter.TunForwarded + c Counter.TunForwardDropped = away) (fun () ->
            "frames of other workers are handed on or counted")

        if not (isPending ()) then
            judgeLast ()
            let accounted = insideSent () + insideDrops ()

            ServerSite.require (accounted = frames) (fun () ->
                $"{frames} packets were read from the device, and {accounted} were sent or dropped")

        ServerSite.require (socket.Calls = c Counter.UdpSends) (fun () ->
            $"{socket.Calls} sends, {c Counter.UdpSends} counted")

        ServerSite.require (socket.Datagrams = c Counter.UdpDatagramsSent) (fun () ->
            $"{socket.Datagrams} datagrams have left, and {c Counter.UdpDatagramsSent} are counted")

        ServerSite.require (socket.Bytes = c Counter.UdpBytesSent) (fun () ->
            $"{socket.Bytes} bytes have left, and {c Counter.UdpBytesSent} are counted")

        ServerSite.require (socket.Received = c Counter.UdpDatagramsReceived) (fun () ->
            $"{socket.Received} datagrams have come, and {c Counter.UdpDatagramsReceived} are counted")

        ServerSite.require (c Counter.UdpReceiveOverflows <= int64 socket.Overflows) (fun () -> "overflows")

        let came =
            c Counter.ExpresslanePacketsReceived + c Counter.DtlsPacketsReceived + c Counter.IcmpErrorsSent

        let written = c Counter.TunPacketsWritten + c Counter.InsideIoSendFailed

        let dropped =
            c Counter.TunRejectedPacketNoClientIp + c Counter.FrameInvalidState + c Counter.EcnDropped

        ServerSite.require (came - written >= 0L && came - written <= dropped) (fun () ->
            $"{came} packets have come from clients, {written} were written, at most {dropped} dropped")

    do
        context.Mailbox.Posted <- Action(fun () -> wake world.Now)

        context.ToOutside.Refused <- Action<CapabilityRefused>(fun _ -> segmentsBackAt <- ticks + 60L)

        context.ToInside.Refused <- Action<CapabilityRefused>(fun _ -> superpacketsBackAt <- ticks + 60L)

        managers.Add manager

    member _.Index = index
    member _.Context: WorkerContext = context
    member _.Manager = manager
    member _.Socket = socket
    member _.Device = device
    member _.Counters = counters
    member _.Known = known
    member _.HasPosted = posted.Count > 0
    member _.Decided = decided ()
    member _.Refusals = refusals ()

    member this.Begin() : unit =
        token <- this
        wake tickAt

    member _.WakeAt(at: int64) : unit = wake at

    member _.Cookies = cookies

    /// A reload has taken effect.
    member _.Reloaded() : unit =
        let next = struct (server.HandshakesPerSource, server.HalfOpen)

        if next <> limits then
            limits <- next
            greedy <- SourceModel.Of(server.HandshakesPerSource, plan.Workers) // what it has used up is forgotten

    /// False: another wake-up has taken its place.
    member _.Wake(now: int64) : bool =
        if isDead || now < wakeAt || wakeAt = Int64.MaxValue then
            false
        else
            wakeAt <- Int64.MaxValue
            context.Now <- now

            if socket.Inbox.Count > 0 then
                outside.Drain now

            context.ToInside.Flush()

            if not isBlocked || now >= socket.FullUntil then
                isBlocked <- not (drainInside now)

            while posted.Count > 0 do
                posted.Dequeue().Invoke()

            context.Timers.Run now
            notice now

            if context.FragmentBytes > fragmentBytes then
                fragmentAt <- now

            fragmentBytes <- context.FragmentBytes

            if now >= tickAt then
                tickAt <- now + 1_000L
                ticks <- ticks + 1L
                context.ToOutside.Tick()
                context.ToInside.Tick()
                outside.Tick()
                due overdue (fun shadow -> isGuest shadow && shadow.IsOverdue(now, shadow.LinkUpAt))

                if now >= sweepAt then
                    sweepAt <- now + 60_000L

                    due silent (fun shadow ->
                        not (overdue.Contains shadow) && now - shadow.Connection.LastOutsideAt > server.IdleMs)
                else
                    silent.Clear()

                let stale = c Counter.ConnStaleClosed
                let aged = c Counter.ConnAgedOut
                manager.Tick now
                checkTick stale aged
                notice now
                checkTables now
                moves <- c Counter.UdpConnRecoveredViaSession
                checkBooks ()

            if isPending () && not isBlocked then
                raise (Violation "a packet waits, and the socket is not full")

            wake (
                if socket.Inbox.Count > 0 || posted.Count > 0 then
                    now
                elif not isBlocked && (device.Frames.Count > 0 || context.Mailbox.HasFrames) then
                    now
                else
                    min
                        tickAt
                        (min
                            context.Timers.NextAt
                            (if isBlocked then
                                 max now socket.FullUntil
                             else
                                 Int64.MaxValue))
            )

            true

    /// The process ends.
    member _.Stop() : unit =
        isStopping <- true
        manager.Stopping()

        while posted.Count > 0 do
            posted.Dequeue().Invoke()

        notice world.Now
        checkTables world.Now
        ServerSite.require (known.Count = 0) (fun () -> "connections outlive their worker")
        isDead <- true

        while socket.Inbox.Count > 0 do
            world.Network.Free(socket.Inbox.Dequeue())

        inside.Dispose()
        forwarded.Dispose()
        outside.Dispose()
        manager.Dispose()
        context.Dispose()

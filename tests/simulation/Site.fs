namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Globalization
open System.Net
open Lightway.Options
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Addresses
open Lightway.Server.Auth
open Lightway.Server.Reload
open Lightway.Server.Sessions
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging

/// The limits that a reload may change.
type Settings =
    {
        HalfOpen: int
        HandshakesPerSource: int
        SessionsPerUser: int
        /// A user who is not in the file; -1: all are.
        Missing: int
        EndsRemoved: bool
        IdleMs: int64
    }

/// A server process: its workers and what they share.
[<Sealed>]
type Site(world: IWorld, settings: Settings, nextNumber: unit -> int) =
    let plan = world.Plan
    let pool = ServerSite.pool plan
    let mutable settings = settings
    let mutable begun = 0 // sessions
    let mutable checksRunning = 0
    let mutable checksStarted = 0L
    let owners = Dictionary<uint32, Shadow>()
    let lastOwners = Dictionary<uint32, Shadow>()
    let bySession = Dictionary<uint64, Shadow>()
    let closings = Queue<int64>()
    let refusals = RefusalModel()
    let managers = List<ConnectionManager>()

    let runCheck (check: Action) =
        let number = int checksStarted
        checksStarted <- checksStarted + 1L
        checksRunning <- checksRunning + 1
        world.Trace.Add(world.Now, Mark.CheckStarts, number, int64 checksRunning)

        world.Agenda.After(
            world.CheckTime(),
            Action(fun () ->
                checksRunning <- checksRunning - 1
                world.Trace.Add(world.Now, Mark.CheckEnds, number, int64 checksRunning)
                check.Invoke())
        )

    let rules: UserRule list =
        [ for user in 0 .. plan.Fixed - 1 do
              { User = $"u{user}"
                Address = IPAddress(BinaryPrimitives.ReverseEndianness (ServerSite.fixedAddress user).Value |> int64)
                SessionsPerUser = Nullable()
                SessionIdleLimit = Nullable()
                Where = "" } ]

    let identityOf (settings: Settings) =
        new ServerIdentity(
            Tls = TlsContext.ForServer(FixedCertificate.certificate, FixedCertificate.key, plan.PostQuantum),
            Authenticator =
                Authenticator.Of(
                    ServerSite.users plan settings.Missing,
                    null,
                    null,
                    plan.Checks,
                    Action<Action> runCheck
                ),
            LoginChecks = plan.Checks,
            Limits = UserLimits(settings.SessionsPerUser, settings.IdleMs, rules),
            HandshakesPerSource = settings.HandshakesPerSource,
            HalfOpenLimit = settings.HalfOpen,
            EndsRemovedUsers = settings.EndsRemoved
        )

    let mutable identity = identityOf settings
    let addresses = AddressPool(pool, [||], false)
    do addresses.Fix identity.Limits.Addresses

    let seed: HashSeed =
        { First = world.Dice.Next()
          Second = world.Dice.Next() }

    let directory = InsideDirectory(addresses.Size, null)
    let users = UserSessions()

    let desk =
        LoginDesk(identity.Authenticator, LoginGate(LoginLimits.Standard plan.Checks, seed))

    let usersCount = Peek.counter users "_byUser"
    let running = Peek.counter desk "_running"
    let waiting = Peek.counter (Peek.field<obj> desk "_line") "waiting"

    let mutable workers: ServerWorker[] = [||]

    let shadowOf (session: string) : Shadow =
        let id = SessionId(UInt64.Parse(session, NumberStyles.HexNumber))

        workers
        |> Array.tryPick (fun worker ->
            match worker.Known.Values |> Seq.tryFind (fun shadow -> shadow.Connection.SessionId = id) with
            | Some shadow -> Some shadow
            | None -> None)
        |> Option.defaultWith (fun () -> raise (Violation $"the log is about session {session}, which does not exist"))

    let liveOf (user: string) =
        let mutable count = 0

        for shadow in owners.Values do
            if shadow.User = user then
                count <- count + 1

        count

    let userNumber (user: string) = int (user.Substring 1)

    let onOnline (shadow: Shadow) (user: string) (address: Ipv4Address) =
        let offset = address.Value - ServerSite.poolBase

        ServerSite.require (offset > 0u && offset < (1u <<< (32 - plan.PoolPrefix)) - 1u) (fun () ->
            $"{address} is not in the pool")

        ServerSite.require (not (owners.ContainsKey address.Value)) (fun () ->
            $"{address} is given to '{user}', and somebody has it")

        ServerSite.require (user.StartsWith 'u') (fun () -> $"'{user}' is no user")

        if userNumber user < plan.Fixed then
            ServerSite.require (address = ServerSite.fixedAddress (userNumber user)) (fun () ->
                $"'{user}' has an address of its own, and gets {address}")
        else
            ServerSite.require (offset < 2u || offset >= 2u + uint32 plan.Fixed) (fun () ->
                $"{address} belongs to another user than '{user}'")

        ServerSite.require (not shadow.IsMute) (fun () -> "somebody is online who has never asked")

        ServerSite.require (userNumber user < plan.Hosts - plan.Wrong) (fun () ->
            $"'{user}' is online with a wrong password")

        shadow.User <- user
        shadow.Address <- address
        shadow.OnlineAt <- world.Now
        begun <- begun + 1
        shadow.Order <- begun
        owners.Add(address.Value, shadow)

        // The oldest ones make room.
        if settings.SessionsPerUser > 0 then
            let others =
                [ for other in owners.Values do
                      if other.User = user && not other.IsCondemned then
                          other ]

            for other in
                others |> List.sortBy _.Order |> List.truncate (others.Length - settings.SessionsPerUser |> max 0) do
                other.IsCondemned <- true

        lastOwners[address.Value] <- shadow
        bySession[shadow.Connection.SessionId.Value] <- shadow
        world.Trace.Add(world.Now, Mark.SessionOnline, shadow.Number, int64 offset)

    let onClosed (shadow: Shadow) (reason: string) =
        let silence = world.Now - shadow.Connection.LastOutsideAt

        ServerSite.require (shadow.OnlineAt <> Int64.MaxValue) (fun () ->
            $"a session is closed that was not online: {reason}")

        if reason.Contains "sessions_per_user" then
            ServerSite.require shadow.IsCondemned (fun () ->
                $"'{shadow.User}' has {liveOf shadow.User} sessions, and another than the oldest is ended")
        elif reason.Contains "its address is needed" then
            ServerSite.require (silence > 30_000L) (fun () ->
                $"a session is ended for its address, {silence} ms after it was heard")

            ServerSite.require (addresses.Assigned >= addresses.Capacity - plan.Fixed) (fun () ->
                "an address is taken from a session though some are free")
        elif reason.Contains "address_map" then
            ServerSite.require
                (userNumber shadow.User >= plan.Fixed || settings.SessionsPerUser <> 1 || true)
                (fun () -> "address_map")
        elif reason.Contains "not online in time" then
            raise (Violation "a session that was online is ended as if it was not")
        elif reason.Contains "end_removed_users" then
            ServerSite.require (userNumber shadow.User = settings.Missing) (fun () ->
                $"'{shadow.User}' is in the file, and is ended")

        ServerSite.require (owners.Remove shadow.Address.Value) (fun () -> "a session ends twice")
        shadow.IsClosing <- true
        closings.Enqueue world.Now
        world.Trace.Add(world.Now, Mark.SessionEnds, shadow.Number, silence)

    /// The workers begin.
    member this.Begin() : unit =
        let shared =
            SharedState(
                Settings =
                    ServerSettings(
                        ClientIp = ServerSite.client,
                        ServerIp = Ipv4Address.None,
                        DnsIp = Ipv4Address.None,
                        IcmpUnreachable = false,
                        SweepMs = 60_000L,
                        ReportMs = 3_600_000L
                    ),
                ConnectionSettings =
                    ConnectionSettings(
                        Role = Role.Server,
                        EnableExpresslane = plan.Expresslane,
                        ExpresslaneRotationMs = plan.RotationMs,
                        ExpresslanePacketsPerKey = plan.PacketsPerKey,
                        DtlsRecordsPerKey = plan.RecordsPerKey,
                        KeyUpdateMs = plan.KeyUpdateMs,
                        EnablePathMtu = plan.PathMtu
                    ),
                Identity = identity,
                Workers = plan.Workers,
                Pool = addresses,
                Parts = LocalParts([||], addresses.Rest, Ipv4Address.None),
                Inside = directory,
                Desk = desk,
                Users = users,
                Seed = seed,
                Log = this
            )

        workers <-
            Array.init plan.Workers (fun index ->
                let socket =
                    ServerSocket(world.Agenda, world.Trace, world.Network, ServerSite.address, index)

                let device = Device(Arrivals = this)
                new ServerWorker(world, this, index, shared, managers, socket, device))

        for worker in workers do
            worker.Begin()

    member _.Workers = workers
    member _.Addresses = addresses
    member _.Sessions: Dictionary<uint32, Shadow> = owners
    member _.Settings = settings
    member _.ChecksStarted = checksStarted

    /// Packets of clients that are no cargo: ICMP errors.
    member val Errors = 0L with get, set

    /// By the id that a client has learned with its login; null: there is none.
    member _.ById(id: SessionId) : Shadow =
        let mutable found = null

        if bySession.TryGetValue(id.Value, &found) then
            found
        else
            owners.Values |> Seq.tryFind (fun shadow -> shadow.Connection.Owns id) |> Option.toObj

    /// The worker that the kernel chooses: by session id, else by the sender's address.
    member _.WorkerOf(datagram: Datagram) : ServerWorker =
        let id =
            if datagram.Length >= 16 then
                BinaryPrimitives.ReadUInt32BigEndian(ReadOnlySpan(datagram.Bytes, 12, 4))
            else
                0u

        let index =
            if id <> 0u then
                int (id % uint32 workers.Length)
            else
                int (datagram.From.IPv4.Value % uint32 workers.Length)

        workers[index]

    member this.Arrive(datagram: Datagram) : unit =
        let worker = this.WorkerOf datagram
        worker.Socket.Arrive datagram
        worker.WakeAt world.Now

    /// A frame of the network behind the server; the kernel's choice of the queue may be wrong.
    member _.FromInside(frame: byte[], queue: int) : unit =
        let worker = workers[queue % workers.Length]

        if worker.Device.Frames.Count < 500 then
            worker.Device.Frames.Enqueue frame
            worker.WakeAt world.Now

    member this.Reload(next: Settings) : unit =
        let previous = identity
        settings <- next
        identity <- identityOf next
        desk.Use(identity.Authenticator, identity.LoginChecks)
        addresses.Fix identity.Limits.Addresses
        let mutable left = workers.Length
        world.Trace.Add(world.Now, Mark.Reloads, next.Missing, int64 next.HalfOpen)

        for worker in workers do
            worker.Manager.Post(
                identity,
                Action(fun () ->
                    worker.Reloaded()
                    left <- left - 1

                    if left = 0 then
                        previous.Dispose())
            )

    /// After each event.
    member _.Check() : unit =
        if addresses.Assigned <> owners.Count then
            raise (Violation $"{addresses.Assigned} addresses are assigned, and {owners.Count} sessions are online")

    /// From time to time.
    member this.CheckAll() : unit =
        let now = world.Now

        while closings.Count > 0 && now - closings.Peek() > 3_600_000L do
            closings.Dequeue() |> ignore

        ServerSite.require (checksRunning <= plan.Checks || plan.CheckMs > 10_000L) (fun () ->
            $"{checksRunning} password checks run, and {plan.Checks} may")

        ServerSite.require (running () <= 2 * plan.Checks + 4 || plan.CheckMs > 10_000L) (fun () ->
            $"{running ()} password checks are known, and {checksRunning} run")

        if workers |> Array.forall (fun worker -> not worker.HasPosted) then
            let limit = settings.SessionsPerUser

            if limit > 0 then
                for user, shadows in owners.Values |> Seq.groupBy _.User do
                    ServerSite.require (Seq.length shadows <= limit) (fun () ->
                        $"'{user}' has {Seq.length shadows} sessions, and {limit} are allowed")

            if settings.EndsRemoved && settings.Missing >= 0 then
                ServerSite.require (liveOf $"u{settings.Missing}" = 0) (fun () -> "a removed user is online")

        let distinct = owners.Values |> Seq.map _.User |> Seq.distinct |> Seq.length

        ServerSite.require (usersCount () = distinct) (fun () ->
            $"{usersCount ()} users are known, and {distinct} are online")

        for entry in owners do
            let offset = int (entry.Key - ServerSite.poolBase)

            ServerSite.require (Object.ReferenceEquals(directory[offset], entry.Value.Connection)) (fun () ->
                "the address of a session leads to it")

            ServerSite.require (entry.Value.Connection.State = ConnectionState.Online) (fun () ->
                "a session that the log calls online is")

    /// Nobody is there any more.
    member this.CheckEmpty() : unit =
        ServerSite.require (owners.Count = 0 && addresses.Assigned = 0) (fun () ->
            $"{addresses.Assigned} addresses have not come back")

        ServerSite.require (usersCount () = 0) (fun () -> "users are still known")

        ServerSite.require (checksRunning = 0 && running () = 0 && waiting () = 0) (fun () ->
            $"{checksRunning} checks run, {waiting ()} wait")

        for offset in 0 .. addresses.Size - 1 do
            ServerSite.require (isNull directory[offset]) (fun () -> "an address still leads to a connection")

        for worker in workers do
            ServerSite.require (worker.Known.Count = 0) (fun () -> $"{worker.Known.Count} connections are still there")

            ServerSite.require (worker.Decided = 0 && worker.Refusals = 0) (fun () ->
                "decisions about connections that have ended")

            ServerSite.require (worker.Context.FragmentBytes = 0L) (fun () ->
                "fragments of connections that have ended")

            ServerSite.require (worker.Context.Timers.Count = 0) (fun () ->
                $"{worker.Context.Timers.Count} timers are left")

    member this.Stop() : unit =
        for worker in workers do
            worker.Stop()

        for shadow in owners.Values do
            shadow.IsClosing <- true // the log has no lines about those that the end of the server ends

        ServerSite.require (addresses.Assigned = 0) (fun () -> $"{addresses.Assigned} addresses have not come back")
        ServerSite.require (usersCount () = 0) (fun () -> "users are still known")
        identity.Dispose()

    interface IServerChecks with
        member _.NextNumber() = nextNumber ()
        member _.HalfOpen = settings.HalfOpen
        member _.HandshakesPerSource = settings.HandshakesPerSource
        member _.IdleMs = settings.IdleMs

        member _.EndedWithin(_now, _time) =
            closings.Count
            + int (workers |> Array.sumBy (fun worker -> worker.Counters[Counter.ConnClosed] |> min 4_000L))

        member _.HasOwner address = owners.ContainsKey address.Value

        member _.Route(number, connection, destination) =
            let mutable shadow = null

            if
                not (owners.TryGetValue(destination.Value, &shadow))
                || not (Object.ReferenceEquals(shadow.Connection, connection))
            then
                raise (Violation $"packet {number} for {destination} goes to somebody else")

            world.Ledger.Route(number, shadow.Number)

    interface IArrivals with
        member this.Arrive(packet) =
            if packet[9] = 1uy then
                this.Errors <- this.Errors + 1L
            else
                Cargo.check packet 1uy
                let number = Cargo.numberOf packet
                let mutable shadow = null

                if not (lastOwners.TryGetValue((Cargo.source packet).Value, &shadow)) then
                    raise (Violation $"packet {number} has the source {Cargo.source packet}, which nobody has had")

                world.Ledger.Arrive(number, shadow.Client)
                world.Trace.Add(world.Now, Mark.ArrivedUp, shadow.Number, int64 number)

                if not shadow.IsClosing then
                    ServerSite.require (shadow.Connection.LastOutsideAt = world.Now) (fun () ->
                        "a session is heard when its packet comes")

                    ServerSite.require (shadow.Connection.LastPacketAt = world.Now) (fun () ->
                        "a session is active when its packet comes")

    interface ILogger with
        member _.BeginScope _ = null
        member _.IsEnabled _ = true

        member _.Log(_, id, state, _, _) =
            match id.Name with
            | "LogLinkUp"
            | "LogOnline"
            | "LogClosed" ->
                let values = (box state) :?> IReadOnlyList<KeyValuePair<string, obj>>

                let value name =
                    (values |> Seq.find (fun pair -> pair.Key = name)).Value

                let shadow = shadowOf (string (value "Session"))

                match id.Name with
                | "LogLinkUp" ->
                    shadow.LinkUpAt <- world.Now
                    world.Trace.Add(world.Now, Mark.LinkUp, shadow.Number, 0L)
                | "LogOnline" -> onOnline shadow (string (value "User")) (unbox<Ipv4Address>(value "Inside"))
                | _ -> onClosed shadow (string (value "Reason"))
            | "LogRefused" ->
                let values = (box state) :?> IReadOnlyList<KeyValuePair<string, obj>>
                let why = string values[1].Value

                if why.StartsWith "wrong user or password" then
                    refusals.Refused(why, (unbox<PeerAddress> values[0].Value).IPv4.Value, world.Now)
            | _ -> ()

namespace Lightway.Tests.Simulation

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System
open System.Collections.Generic
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Udp

/// What a run has come to.
type Outcome =
    { Events: int64
      Virtual: int64
      Handshakes: int64
      Sessions: int64
      Packets: int64
      Digest: uint64 }

/// What the parts of a world share.
[<Sealed>]
type Surroundings(plan: Plan) =
    let dice = Dice(plan.Seed ^^^ 0x5DEECE66DUL)
    let agenda = Agenda(1_000_000_000L + int64 (plan.Seed % 1_000_000UL))
    let trace = Trace()
    let ledger = Ledger()
    let network = Internet(agenda, trace, dice.Fork(), plan)

    /// There are no faults any more.
    member val IsCalm = false with get, set
    member _.Dice = dice
    member _.Agenda = agenda
    member _.Trace = trace
    member _.Ledger = ledger
    member _.Network = network

    interface IWorld with
        member _.Now = agenda.Now
        member _.Plan = plan
        member _.Dice = dice
        member _.Trace = trace
        member _.Ledger = ledger
        member _.Network = network
        member _.Agenda = agenda

        member this.CheckTime() =
            if this.IsCalm then 3L
            elif dice.PerMille 20 then 4L * plan.CheckMs
            else dice.Wait plan.CheckMs

/// Server, clients and network of one seed.
[<Sealed>]
type World(plan: Plan) =
    let surroundings = Surroundings plan
    let dice = surroundings.Dice
    let agenda = surroundings.Agenda
    let trace = surroundings.Trace
    let ledger = surroundings.Ledger
    let network = surroundings.Network
    let mutable events = 0L
    let kinds: int64[] = Array.zeroCreate 8
    let ends: int64[] = Array.zeroCreate 64
    let mutable numbers = 0
    let mutable nextPort = 40_000
    let mutable sessions = 0L
    let mutable handshakes = 0L

    // Fixed addresses come first, shared users after them, wrong passwords last.
    let userOf (index: int) =
        let shared = index - plan.Fixed

        if shared >= 0 && shared < plan.SharedUsers then
            plan.Fixed + shared / 2 * 2
        else
            index

    let addressOf (index: int) (isMute: bool) =
        nextPort <- if nextPort = 60_000 then 40_000 else nextPort + 1
        // Sixteen hosts per /24.
        let place = uint64 (index / 16 * 256 + index % 16 + 1)
        PeerAddress.Of(false, 0UL, (if isMute then 0xC6140000UL else 0xC6120000UL) + place, uint16 nextPort)

    // Behind the mute ones there are some that are late with their cookies.
    let firstLate = plan.Hosts + plan.Mutes

    let hosts =
        Array.init (firstLate + 8) (fun index ->
            let isMute = index >= plan.Hosts
            let host = Host(index, (if isMute then null else $"u{userOf index}"), isMute)
            host.Address <- addressOf index isMute
            network.Hosts[host.Address] <- index
            host)

    let settings =
        { HalfOpen = plan.HalfOpen
          HandshakesPerSource = plan.HandshakesPerSource
          SessionsPerUser = plan.SessionsPerUser
          Missing = -1
          EndsRemoved = false
          IdleMs = plan.IdleMs }

    let imports = WolfSslImports.take (fun () -> agenda.Now) (dice.Fork())

    let nextNumber () =
        numbers <- numbers + 1
        numbers

    let newSite () =
        trace.Add(agenda.Now, Mark.ServerStarts, numbers, 0L)
        let site = Site(surroundings, settings, nextNumber)
        site.Begin()
        site

    let mutable site: Site = newSite ()
    let mutable onEnd: Action<Host, TunnelError> = null

    let links =
        { new IFarmWorld with
            member _.FindPeer id = site.ById id
            member _.Ended(host, reason) = onEnd.Invoke(host, reason) }

    let farm = new Farm(surroundings, links, hosts)
    // Datagrams of some clients, for those who replay them.
    let recorded: byte[][] = Array.init 32 (fun _ -> [||])
    let mutable hello: byte[] = [||]
    let mutable lateNumber = 0

    let pathLimit = if plan.PathMtu then 1_400 else 65_535

    let collect (site: Site) =
        for worker in site.Workers do
            handshakes <- handshakes + worker.Counters[Counter.ConnLinkUp]
            sessions <- sessions + worker.Counters[Counter.ConnOnline]

    let isWrong (host: Host) =
        not host.IsMute && userOf host.Index >= plan.Hosts - plan.Wrong

    /// Again and again, until the calm.
    let rec every (mean: int64) (action: unit -> unit) =
        if mean > 0L then
            agenda.After(
                dice.Wait mean,
                Action(fun () ->
                    if not surroundings.IsCalm then
                        action ()
                        every mean action)
            )

    let startLater (host: Host) (wait: int64) =
        agenda.After(
            wait,
            Action(fun () ->
                if isNull host.Connection && not host.HasLeft then
                    farm.Start host)
        )

    do
        onEnd <-
            Action<Host, TunnelError>(fun host reason ->
                ends[int reason] <- ends[int reason] + 1L

                if not host.HasLeft && host.Index < firstLate then
                    host.Failures <- host.Failures + 1

                    let wait =
                        if host.IsMute then
                            plan.KeepaliveMs * 200L
                        elif reason = TunnelError.Unauthorized then
                            plan.KeepaliveMs * 30L
                        elif reason = TunnelError.Goodbye then
                            30_000L // another client of its user has come
                        else
                            min 60_000L (1_000L <<< min 6 host.Failures)

                    startLater host (dice.Wait wait))

    let anyHost () = hosts[dice.Below firstLate]

    let holds =
        [| 200L
           20_000L
           58_000L
           62_000L
           600_000L
           3_000_000L
           3_540_000L
           3_595_000L
           3_600_000L
           3_640_000L
           3_661_000L |]

    /// A host gets a cookie, and shows it after a while.
    let showLate (hold: int64) =
        let host = hosts[firstLate + dice.Below 8]

        if host.HoldMs = 0L then
            // An address of its own each time.
            lateNumber <- lateNumber + 1
            let address = 0xC6150000UL + uint64 lateNumber * 3UL % 65_000UL
            farm.Move(host, PeerAddress.Of(false, 0UL, address, 5_000us), false)
            host.HoldMs <- hold
            host.IsShown <- false
            farm.Start host

            agenda.After(
                hold + 20_000L,
                Action(fun () ->
                    farm.End(host, true)
                    host.HoldMs <- 0L)
            )

    /// The first datagram with a late cookie is here: the server takes it if it is good, and only then.
    let judgeLate (host: Host) (datagram: Datagram) =
        if not host.IsShown && datagram.From = host.Address then
            host.IsShown <- true
            let asked = site
            let source = datagram.From.IPv4.Value
            let worker = site.WorkerOf datagram

            match worker.Cookies.IsGood(source, agenda.Now) with
            | ValueSome isGood ->
                agenda.After(
                    5L,
                    Action(fun () ->
                        if Object.ReferenceEquals(asked, site) then
                            ServerSite.require
                                (worker.Cookies.IsUsed source = isGood || (isGood && plan.Damage > 0)) // the client has not got it
                                (fun () ->
                                    $"a cookie is shown after {host.HoldMs} ms: it is good: {isGood}, and it is taken: {not isGood}"))
                )
            | ValueNone -> ()

    let payload () =
        match dice.Below 10 with
        | 0 -> 1_000 + dice.Below 270
        | 2 when dice.Below 4 = 0 -> 1_400 + dice.Below 50 // longer than the device allows
        | 1 when plan.PathMtu -> 1_300 + dice.Below 20
        | _ -> Cargo.Least + dice.Below 120

    let sendUp () =
        let host = anyHost ()

        if dice.Below 40 = 0 then
            farm.Send(host, 40 + dice.Below 1_000, 2 + dice.Below 12) |> ignore
        else
            farm.Send(host, payload (), 1) |> ignore

    let frameTo (address: Ipv4Address) =
        if dice.Below 20 = 0 then
            let count = 2 + dice.Below 20
            let number = ledger.Enter(-1, count)

            number,
            Cargo.superpacket (number % 2 = 0) ServerSite.remote address (40 + dice.Below 1_000) count number 2uy
        else
            let number = ledger.Enter(-1, 1)
            number, Cargo.datagram ServerSite.remote address (payload ()) number 2uy

    let sendDown () =
        match anyHost () with
        | host when not (isNull host.Peer) && not host.Peer.IsClosing && dice.Below 20 > 0 ->
            let number, frame = frameTo host.Peer.Address
            trace.Add(agenda.Now, Mark.SentDown, host.Index, int64 number)
            site.FromInside(frame, dice.Below plan.Workers)
        | _ ->
            // Nobody may have this address.
            let offset = dice.Below(1 <<< (32 - plan.PoolPrefix))
            let _, frame = frameTo (Ipv4Address(ServerSite.poolBase + uint32 offset))
            site.FromInside(frame, dice.Below plan.Workers)

    let stranger () =
        // 100.70.0.0/16: many sources; one of them is greedy.
        let address =
            if dice.PerMille 300 then
                0x64460101UL
            else
                0x64460000UL + uint64 (dice.Below 65_000)

        PeerAddress.Of(false, 0UL, address, uint16 (1_024 + dice.Below 60_000))

    let flood () =
        let count = 1 + dice.Below 300
        let kind = dice.Below 7
        trace.Add(agenda.Now, Mark.Flood, kind, int64 count)
        let source = stranger ()
        let bytes: byte[] = Array.zeroCreate 300

        for _ in 1..count do
            let from = if dice.PerMille 500 then source else stranger ()
            dice.Fill(Span bytes)
            let length = dice.Below 300
            let isExpresslane = dice.PerMille 500

            let head (session: SessionId) =
                WireHeader.write (
                    ProtocolVersion.V1_3,
                    (if isExpresslane then
                         WirePayload.Expresslane
                     else
                         WirePayload.Dtls),
                    session,
                    Span bytes
                )

            let send (bytes: byte[]) (length: int) =
                agenda.Add(
                    agenda.Now + dice.Between(0L, 2_000L),
                    Kind.ToServer,
                    -1,
                    Datagram(Length = length, From = from)
                    |> fun datagram ->
                        Array.blit bytes 0 datagram.Bytes 0 length
                        datagram
                )

            match kind with
            | 0 when hello.Length > 0 -> send hello hello.Length
            | 1 -> send bytes length
            | 2 ->
                head SessionId.Empty
                send bytes (16 + length * 284 / 300)
            | 3 ->
                head (SessionId(dice.Next()))
                send bytes (16 + dice.Below 100)
            | 4 ->
                // A known session from elsewhere.
                let host = anyHost ()

                if not (isNull host.Peer) then
                    head host.Peer.Connection.SessionId
                    send bytes (16 + dice.Below 100)
            | 5 ->
                let old = dice.Pick recorded

                if old.Length > 0 then
                    send old old.Length
            | _ ->
                // In the server's name, to a client.
                let host = anyHost ()

                if dice.PerMille 500 then
                    WireHeader.writeReject (Span bytes)
                    network.Carry(ReadOnlySpan(bytes, 0, 16), ServerSite.address, Kind.ToHost, host.Index)
                else
                    head (SessionId(dice.Next()))
                    network.Carry(ReadOnlySpan(bytes, 0, 16 + length / 2), ServerSite.address, Kind.ToHost, host.Index)

    let prepare () =
        for worker in site.Workers do
            worker.Socket.PathLimit <- pathLimit

        farm.PathLimit <- pathLimit

    let stopServer () =
        let isCrash = dice.PerMille 500
        trace.Add(agenda.Now, Mark.ServerStops, (if isCrash then 1 else 0), 0L)

        for worker in site.Workers do
            worker.Socket.IsDead <- isCrash

        collect site
        site.Stop()
        site <- newSite ()
        prepare ()

    let reload () =
        let missing = if dice.PerMille 300 then dice.Below plan.Hosts else -1

        site.Reload
            { HalfOpen = dice.Pick [| settings.HalfOpen; settings.HalfOpen; 16; 64 |]
              HandshakesPerSource = dice.Pick [| settings.HandshakesPerSource; 1; 10; 0 |]
              SessionsPerUser = settings.SessionsPerUser
              Missing = missing
              EndsRemoved = dice.PerMille 700
              IdleMs = plan.IdleMs }

    let anyWorker () = dice.Pick site.Workers

    let schedule () =
        every plan.UpEvery sendUp
        every plan.DownEvery sendDown
        every plan.FloodEvery flood

        every plan.LateEvery (fun () ->
            let hold = dice.Pick holds

            for _ in 0 .. dice.Below 3 do
                showLate hold)

        every plan.ReloadEvery reload
        every plan.ServerStopEvery stopServer

        every plan.MoveEvery (fun () ->
            let host = anyHost ()

            if not host.IsMute then
                farm.Move(
                    host,
                    addressOf
                        (if dice.PerMille 300 then
                             400 + dice.Below 2_000
                         else
                             host.Index)
                        false,
                    dice.PerMille 500
                ))

        every plan.CrashEvery (fun () ->
            let host = anyHost ()
            trace.Add(agenda.Now, Mark.HostCrashes, host.Index, 0L)
            farm.End(host, true)

            if dice.PerMille 500 then
                farm.Move(host, addressOf host.Index host.IsMute, false)

            startLater host (dice.Wait 2_000L))

        every plan.LeaveEvery (fun () ->
            let host = anyHost ()

            if plan.PathMtu then
                // The server is left with the first fragment of a packet.
                network.Allowed <- 1
                farm.Send(host, 1_310, 1) |> ignore
                network.Allowed <- -1

            farm.End(host, false)
            host.HasLeft <- true

            agenda.After(
                dice.Wait 60_000L,
                Action(fun () ->
                    host.HasLeft <- false

                    if isNull host.Connection then
                        farm.Start host)
            ))

        every plan.OutageEvery (fun () ->
            network.IsDown <- true
            agenda.After(dice.Wait 40_000L, Action(fun () -> network.IsDown <- false)))

        every plan.FullEvery (fun () ->
            let socket = anyWorker().Socket

            if dice.PerMille 500 then
                socket.FullUntil <- agenda.Now + dice.Wait 500L
            else
                socket.NextError <- dice.Pick [| Errno.ENOBUFS; Errno.EPERM; Errno.ECONNREFUSED |]

            trace.Add(agenda.Now, Mark.SocketFull, 0, socket.FullUntil - agenda.Now)

            if dice.PerMille 200 then
                anyWorker().Device.NextError <- Errno.EIO)

        every plan.RefuseEvery (fun () ->
            let worker = anyWorker ()
            worker.Socket.Refusal <- dice.Pick [| 0; Errno.EIO; Errno.EOPNOTSUPP; Errno.EMSGSIZE |]
            worker.Device.Refusal <- dice.Pick [| 0; Errno.EINVAL; Errno.EIO |])

    let step () =
        let item = agenda.Take()
        let now = agenda.Now

        let counts =
            match item.Kind with
            | Kind.ToServer ->
                let datagram = item.What :?> Datagram

                if item.Who >= 0 && dice.Below 256 = 0 then
                    recorded[dice.Below recorded.Length] <- Array.sub datagram.Bytes 0 datagram.Length

                if hello.Length = 0 then
                    hello <- Array.sub datagram.Bytes 0 datagram.Length

                if not datagram.IsHeld then
                    site.Arrive datagram
                elif not surroundings.IsCalm then
                    judgeLate hosts[item.Who] datagram
                    site.Arrive datagram

                true
            | Kind.ToHost ->
                let datagram = item.What :?> Datagram
                farm.Receive(hosts[item.Who], datagram)
                network.Free datagram
                true
            | Kind.Wake -> (item.What :?> ServerWorker).Wake now
            | Kind.Farm -> farm.Wake()
            | _ ->
                (item.What :?> Action).Invoke()
                true

        if counts then
            kinds[int item.Kind] <- kinds[int item.Kind] + 1L
            events <- events + 1L
            trace.Add(now, Mark.Event, item.Who, int64 (int item.Kind))
            site.Check()

            if events % 1_000L = 0L then
                site.CheckAll()
                farm.Check()

    let runUntil (at: int64) (mostEvents: int64) =
        while agenda.Count > 0 && agenda.Now < at && events < mostEvents do
            step ()

    let isOwn (host: Host) =
        // Nobody else uses its user.
        let shared = host.Index - plan.Fixed
        shared < 0 || shared >= plan.SharedUsers

    /// Faults end: everything must come right again.
    let calm () =
        surroundings.IsCalm <- true
        network.IsCalm <- true
        network.IsDown <- false
        trace.Add(agenda.Now, Mark.Calm, 0, 0L)
        site.Reload settings

        for worker in site.Workers do
            worker.Socket.FullUntil <- Int64.MinValue
            worker.Socket.Refusal <- 0
            worker.Socket.NextError <- 0
            worker.Device.Refusal <- 0
            worker.Device.NextError <- 0
            worker.WakeAt agenda.Now

        for host in hosts do
            host.HasLeft <- false

            if isNull host.Connection then
                startLater host (dice.Wait 5_000L)

        runUntil (agenda.Now + plan.KeepaliveMs + plan.KeepaliveTimeoutMs + 420_000L) Int64.MaxValue
        site.CheckAll()
        farm.Check()
        let capacity = site.Addresses.Capacity
        let sent = ResizeArray<struct (int * Host * string)>()

        if plan.Hosts - plan.Wrong <= capacity - plan.Fixed then
            for host in hosts do
                if not host.IsMute && not (isWrong host) && isOwn host then
                    // Without keepalives, a session that is not used ends.
                    if plan.Continuous then
                        ServerSite.require (not (isNull host.Connection)) (fun () ->
                            $"host {host.Index} has no connection after the calm")

                        ServerSite.require (host.Connection.State = ConnectionState.Online) (fun () ->
                            $"host {host.Index} is {host.Connection.State} after the calm")

                    if
                        not (isNull host.Connection)
                        && host.Connection.State = ConnectionState.Online
                        && not (isNull host.Peer)
                        && not host.Peer.IsClosing
                    then
                        for size in [ 100; (if plan.PathMtu then 1_310 else 1_200) ] do
                            sent.Add(struct (farm.Send(host, size, 1), host, "to the server"))
                            let number = ledger.Enter(-1, 1)
                            sent.Add(struct (number, host, "to the client"))
                            site.FromInside(Cargo.datagram ServerSite.remote host.Peer.Address size number 2uy, 0)

                        // All at once would not fit into the queue of a device.
                        runUntil (agenda.Now + 10L) Int64.MaxValue

            runUntil (agenda.Now + 5_000L) Int64.MaxValue

            for struct (number, host, direction) in sent do
                if plan.Continuous then
                    ServerSite.require (ledger.HasArrived number) (fun () ->
                        $"a packet {direction} of host {host.Index} is lost in the calm")

    /// All clients leave, half of them without a word: nothing of them may stay.
    let close () =
        for host in hosts do
            host.HasLeft <- true
            farm.End(host, host.Index % 2 = 0)

        let idleMs = min plan.IdleMs 600_000L
        site.Reload { settings with IdleMs = idleMs }
        runUntil (agenda.Now + max idleMs 120_000L + 180_000L) Int64.MaxValue
        // Timers of ended connections stay until they would have been due.
        runUntil (agenda.Now + max plan.KeyUpdateMs plan.RotationMs + 60_000L) Int64.MaxValue
        site.CheckAll()
        site.CheckEmpty()
        collect site
        site.Stop()

    member _.Trace = trace
    member _.Agenda = agenda
    member _.Events = events
    member _.Plan = plan

    /// The whole life of the world.
    member _.Run() : Outcome =
        prepare ()

        for host in hosts do
            startLater host (dice.Wait 10_000L)

        schedule ()
        runUntil (agenda.Start + plan.Length) (int64 plan.MostEvents)
        calm ()
        close ()

        if not (isNull (Environment.GetEnvironmentVariable "LIGHTWAY_SIMULATION_SEED")) then
            for kind in 0..6 do
                printfn $"{enum<Kind> kind}: {kinds[kind]}"

            for reason in 0..63 do
                if ends[reason] > 0L then
                    printfn $"{enum<TunnelError> reason}: {ends[reason]}"

            for counter in Enum.GetValues<Counter>() do
                let sum = site.Workers |> Array.sumBy (fun worker -> worker.Counters[counter])

                if sum > 0L then
                    printfn $"{counter}: {sum}, clients {farm.Counters[counter]}"

        { Events = events
          Virtual = agenda.Now - agenda.Start
          Handshakes = handshakes
          Sessions = sessions
          Packets = ledger.Arrived
          Digest = trace.Digest }

    interface IDisposable with
        member _.Dispose() =
            (farm :> IDisposable).Dispose()
            imports.Dispose()

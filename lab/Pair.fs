namespace Lightway.Lab

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.Net
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open System.Threading
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Hooks
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Tcp
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// One direction of a wire inside the process: a sender that keeps what it is given, datagram by datagram, and fails
/// on request.
[<Sealed>]
type Wire() =
    let mutable calls = 0
    let segmentSizes = ResizeArray<int>()
    let tos = ResizeArray<byte>()

    /// Datagrams sent and not yet taken, oldest first.
    member val Datagrams = Queue<byte[]>()
    /// errno of the next sends, one per run; 0 lets one through.
    member val Errors = Queue<int>()
    /// Longer single datagrams fail with EMSGSIZE, as those do that are too long for a device.
    member val Refuses = 65_535 with get, set
    /// Accept and forget everything, without allocating.
    member val Discard = false with get, set
    /// System calls, accepted or refused.
    member _.Calls = calls
    /// The segment size of each accepted send; 0 for a single datagram.
    member _.SegmentSizes = segmentSizes
    /// The TOS byte of each accepted send.
    member _.Tos = tos

    member private this.NextError() =
        if this.Errors.Count > 0 then this.Errors.Dequeue() else 0

    /// Where each of `Datagrams` goes, in the same order; null: nobody asks.
    member val Destinations: Queue<PeerAddress> = null with get, set

    member private this.Accept(path: inref<OutsideAddress>, data: ReadOnlySpan<byte>, segmentSize: int, tosByte: byte) =
        if not this.Discard then
            tos.Add tosByte
            segmentSizes.Add segmentSize
            let step = if segmentSize = 0 then data.Length else segmentSize
            let mutable at = 0

            while at < data.Length do
                let length = min step (data.Length - at)
                this.Datagrams.Enqueue(data.Slice(at, length).ToArray())

                if not (isNull this.Destinations) then
                    this.Destinations.Enqueue path.Peer

                at <- at + length

    /// Single datagrams that may be fragmented by IP on their way.
    member val Fragmentable = HashSet<byte[]>(HashIdentity.Reference)

    interface IDatagramSender with
        member this.SendFragmentable(path: inref<OutsideAddress>, datagram: ReadOnlySpan<byte>) : int =
            let result = (this :> IDatagramSender).Send(&path, datagram, 0, 0uy)

            if result >= 0 && not this.Discard then
                this.Fragmentable.Add(Seq.last this.Datagrams) |> ignore

            result

        member this.Send(path: inref<OutsideAddress>, data: ReadOnlySpan<byte>, segmentSize: int, tos: byte) : int =
            calls <- calls + 1

            match this.NextError() with
            | 0 when data.Length > this.Refuses -> -90
            | 0 ->
                this.Accept(&path, data, segmentSize, tos)
                data.Length
            | errno -> -errno

        // As sendmmsg(2): an error of any but the first run is found again by the next call.
        member this.Send(runs: ReadOnlySpan<DatagramRun>, bytes: ReadOnlySpan<byte>) : int =
            calls <- calls + 1

            match this.NextError() with
            | 0 ->
                let mutable sent = 0

                while sent < runs.Length && (sent = 0 || this.Errors.Count = 0 || this.Errors.Peek() = 0) do
                    if sent > 0 then
                        this.NextError() |> ignore

                    let run = runs[sent]
                    let path = run.Path
                    this.Accept(&path, bytes.Slice(run.Start, run.Length), run.SegmentSize, run.Tos)
                    sent <- sent + 1

                sent
            | errno -> -errno

/// A control pool whose steps the test runs, each on a thread of its own.
[<Sealed>]
type Steps() =
    let waiting = Queue<struct (Action * Action<int64>)>()
    /// Steps asked for and not run yet.
    member _.Count = waiting.Count
    member _.Pool = ControlPool(fun work fin -> waiting.Enqueue(struct (work, fin)))

    /// Runs the oldest step, and what the worker does after it.
    member _.RunNext(now: int64) =
        let struct (work, fin) = waiting.Dequeue()
        let thread = Thread(work.Invoke)
        thread.Start()
        thread.Join()
        fin.Invoke now

/// The addresses that a `Pair` uses.
[<RequireQualifiedAccess>]
module Inside =
    /// The client's address at the client.
    let Client = Ipv4Address 0x0A7D0005u

    /// The client's address at the server.
    let Assigned = Ipv4Address 0x0A7D0010u

    /// A host that both talk to.
    let Remote = Ipv4Address 0x0A090807u

/// One end: a worker's context without a thread, and a program that keeps what a connection reports. With `coalesce`,
/// packets for the TUN may share superpackets.
[<Sealed>]
type End
    (
        role: Role,
        maxSegments: int,
        ?pool: ControlPool,
        ?maxBurst: int,
        ?coalesce: bool,
        ?outsidePlugins: IOutsidePlugin list,
        ?streams: StreamLoop
    ) =
    let wire = Wire()
    let tun = ScriptedTun true
    let coalesces = defaultArg coalesce false
    let posted = ConcurrentQueue<Action>()

    let context =
        new WorkerContext(
            wire,
            tun,
            Offload(
                MaxSegments = maxSegments,
                MaxBurstMicroseconds = defaultArg maxBurst 0,
                TunGroTcp = coalesces,
                TunGroUdp = coalesces
            ),
            null,
            Array.ofList (defaultArg outsidePlugins []),
            Pool = Option.toObj pool,
            Streams = Option.toObj streams,
            Post = Action<Action> posted.Enqueue,
            Now = 1_000_000L
        )

    let delivered = ResizeArray<byte[]>()

    member _.Role = role
    member _.Wire = wire
    member _.Context = context
    /// Where packets go that are committed to the context's TUN batch.
    member _.Tun = tun
    member val Connection: Connection = null with get, set

    /// Inside packets written to the TUN, oldest first; superpackets as they are, without virtio_net_hdr.
    member _.Delivered =
        context.ToInside.Flush()

        while tun.Frames.Count > 0 do
            delivered.Add(tun.Frames.Dequeue()[VirtioNetHeader.Size ..])

        delivered

    member val Closed: TunnelError voption = ValueNone with get, set
    member val Granted: AuthSuccess voption = ValueNone with get, set
    /// Server: the password that is let in.
    member val Password = "secret" with get, set
    member val Finalized = ResizeArray<SessionId>()

    /// The worker's clock.
    member _.Now
        with get () = context.Now
        and set now = context.Now <- now

    /// Runs the actions that other threads have posted, as a worker does.
    member _.RunPosted() =
        let mutable action: Action = null

        while posted.TryDequeue &action do
            action.Invoke()

    /// Lets time pass and runs what is due, as a worker does.
    member this.Advance(milliseconds: int64) =
        this.Now <- this.Now + milliseconds
        context.Timers.Run this.Now

    interface IConnectionEvents with
        member _.StateChanged _ = ()
        member this.Closed(_, reason) = this.Closed <- ValueSome reason

    interface IServerEvents with
        member this.AuthRequested(connection, request) =
            if Encoding.UTF8.GetString request.Password = this.Password then
                connection.InsideAddress <- Inside.Assigned
                connection.Translation <- Translation.server (Inside.Assigned, Inside.Client)

                connection.Grant(
                    { LocalIp = Inside.Client
                      PeerIp = Ipv4Address 0x0A7D0006u
                      DnsIp = Ipv4Address 0x0A7D0001u
                      Mtu = 1350
                      Session = connection.SessionId },
                    this.Now
                )
            else
                connection.Deny(TunnelError.AccessDenied, this.Now)

        member _.RotationStarted(_, _) = ()
        member this.RotationFinalized(_, previous) = this.Finalized.Add previous

    interface IClientEvents with
        member this.Authenticated(connection, success) =
            this.Granted <- ValueSome success
            connection.Translation <- Translation.client (Inside.Client, success.LocalIp, success.DnsIp, success.DnsIp)

    interface IDisposable with
        member this.Dispose() =
            if not (isNull this.Connection) then
                this.Connection.Dispose()

            (context :> IDisposable).Dispose()

/// A client and a server connection joined by two wires: the real engine, DTLS and all, without sockets, TUN or threads.
[<Sealed>]
type Pair
    (
        expresslane: bool,
        maxSegments: int,
        ?steps: Steps,
        ?maxBurst: int,
        ?coalesce: bool,
        ?packetsPerKey: uint64,
        ?recordsPerKey: int64,
        ?copiedTos: byte,
        ?outsideMtu: int,
        ?keyShare: KeyShare,
        ?pathMtu: bool,
        ?pathMtuBase: int,
        ?hooks: Role -> ConnectionHooks,
        ?serverPlugins: IOutsidePlugin list,
        ?aeads: PacketAeads,
        ?clientAeads: PacketAeads
    ) =
    let serverAeads = defaultArg aeads PacketAeads.WolfCrypt
    let clientAeads = defaultArg clientAeads serverAeads
    let outsideMtu = defaultArg outsideMtu TlsContext.DefaultOutsideMtu

    let certificate, key =
        use ecdsa = ECDsa.Create ECCurve.NamedCurves.nistP256

        let request =
            CertificateRequest("CN=lightway-pair", ecdsa, HashAlgorithmName.SHA256)

        request.CertificateExtensions.Add(X509BasicConstraintsExtension(true, false, 0, true))

        use own =
            request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays -1., DateTimeOffset.UtcNow.AddDays 1.)

        Encoding.ASCII.GetBytes(own.ExportCertificatePem()), Encoding.ASCII.GetBytes(ecdsa.ExportPkcs8PrivateKeyPem())

    let server =
        new End(
            Role.Server,
            maxSegments,
            ?pool = Option.map (_.Pool: Steps -> ControlPool) steps,
            ?maxBurst = maxBurst,
            ?coalesce = coalesce,
            ?outsidePlugins = serverPlugins
        )

    let client = new End(Role.Client, maxSegments)

    let serverTls =
        TlsContext.ForServer(certificate, key, true, device = serverAeads.Device)

    let clientTls =
        TlsContext.ForClient(
            certificate,
            null,
            false,
            defaultArg keyShare KeyShare.X25519MlKem768,
            outsideMtu,
            device = clientAeads.Device
        )

    let listener = new DtlsListener(serverTls, server.Context, server.Now)

    let serverPath =
        OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 27690)), LocalAddress())

    let mutable clientPath =
        OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Loopback, 40000)), LocalAddress())

    let mutable clientSession: DtlsSession = null
    let mutable serverSession: DtlsSession = null

    let settings role =
        ConnectionSettings(
            Role = role,
            EnableExpresslane = expresslane,
            Aeads = (if role = Role.Server then serverAeads else clientAeads),
            ExpresslanePacketsPerKey = defaultArg packetsPerKey (1UL <<< 31),
            DtlsRecordsPerKey = defaultArg recordsPerKey (1L <<< 23),
            CopiedTos = defaultArg copiedTos 3uy,
            OutsideMtu = outsideMtu,
            EnablePathMtu = defaultArg pathMtu false,
            PathMtuBase = defaultArg pathMtuBase 0,
            CreateHooks =
                (match hooks with
                 | Some create -> Func<ConnectionHooks>(fun () -> create role)
                 | None -> null),
            Credentials = AuthRequest.userPassword ("me", "secret"B)
        )

    let parse (datagram: byte[]) =
        let mutable header = Unchecked.defaultof<WireHeader>

        if WireHeader.tryParse (ReadOnlySpan datagram, &header) = WireError.None then
            ValueSome header
        else
            ValueNone

    member _.Server = server
    member _.Client = client
    /// The client's session, to put frames on the wire that its connection never would.
    member _.ClientSession = clientSession
    /// As `ClientSession`.
    member _.ServerSession = serverSession

    /// Where the client's datagrams seem to come from.
    member _.ClientPath
        with get () = clientPath
        and set path = clientPath <- path

    /// Hands one datagram to the server as its programs do; returns the frames it held.
    member _.ToServer(datagram: byte[]) : int =
        match parse datagram with
        | ValueNone -> 0
        | ValueSome header ->
            let body =
                ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size)

            if not (isNull server.Connection) then
                server.Connection.Receive(&header, body, server.Now)
            else
                match listener.TryAccept(header.Version, &clientPath, body, server.Now) with
                | null -> 0
                | session ->
                    serverSession <- session
                    let id = server.Context.Ids.Draw()

                    server.Connection <-
                        Connection.ForServer(
                            settings Role.Server,
                            server.Context,
                            server,
                            header.Version,
                            id,
                            session,
                            &clientPath,
                            UInt128.Zero,
                            server.Now
                        )

                    server.Connection.Start server.Now
                    0

    /// Hands one datagram to the client; returns the frames it held.
    member _.ToClient(datagram: byte[]) : int =
        match parse datagram with
        | ValueNone -> 0
        | ValueSome header ->
            let body =
                ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size)

            client.Connection.Receive(&header, body, client.Now)

    /// Creates the client's connection and sends its first ClientHello.
    member _.StartClient() =
        let session = new DtlsSession(clientTls, ReadOnlySpan<byte>.Empty)
        clientSession <- session

        client.Connection <-
            Connection.ForClient(settings Role.Client, client.Context, client, session, &serverPath, client.Now)

        client.Connection.Start client.Now

    /// Carries what is on the wires, and runs steps of handshakes, until there are none; `lose` decides what gets lost.
    member this.Pump(lose: byte[] -> bool) =
        let carry (wire: Wire) (take: byte[] -> int) =
            for _ in 1 .. wire.Datagrams.Count do
                let datagram = wire.Datagrams.Dequeue()

                if not (lose datagram) then
                    take datagram |> ignore

        let waiting () =
            steps |> Option.exists (fun steps -> steps.Count > 0)

        while client.Wire.Datagrams.Count > 0 || server.Wire.Datagrams.Count > 0 || waiting () do
            carry client.Wire this.ToServer

            if waiting () then
                steps.Value.RunNext server.Now

            carry server.Wire this.ToClient

    member this.Pump() = this.Pump(fun _ -> false)

    /// Lets time pass on the server only: the client sleeps.
    member _.AdvanceServer(milliseconds: int64) = server.Advance milliseconds

    /// Lets time pass on both ends and runs what is due.
    member _.Advance(milliseconds: int64) =
        client.Advance milliseconds
        server.Advance milliseconds

    /// Waits as long as it says: wolfSSL spaces its retransmissions by a clock of its own.
    member this.AdvanceForReal(milliseconds: int64) =
        Thread.Sleep(int milliseconds)
        this.Advance milliseconds

    /// Handshake, login and, if enabled, the Expresslane key exchange. Raises if it does not come about.
    member this.Connect() =
        this.StartClient()
        this.Pump()

        if client.Connection.State <> ConnectionState.Online then
            invalidOp $"client is {client.Connection.State}, {client.Closed}, TLS: {client.Connection.TlsError}"

        if expresslane && not (client.Connection.IsExpresslaneReady && server.Connection.IsExpresslaneReady) then
            invalidOp "the Expresslane did not come up"

    interface IDisposable with
        member _.Dispose() =
            (client :> IDisposable).Dispose()
            (server :> IDisposable).Dispose()
            listener.Dispose()
            serverTls.Dispose()
            clientTls.Dispose()

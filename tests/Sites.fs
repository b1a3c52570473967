/// A server's tables in memory: a ConnectionManager without socket, device or thread, and clients that write to it from any
/// address.
module Lightway.Tests.Sites

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Net
open System.Text
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Addresses
open Lightway.Server.Auth
open Lightway.Server.Reload
open Lightway.Server.Sessions
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging

/// Keeps the lines of a log.
type Lines() =
    member val Texts = ResizeArray<string>()

    interface ILogger with
        member _.BeginScope _ = null
        member _.IsEnabled _ = true

        member this.Log(_, _, state, error, format) =
            lock this.Texts (fun () -> this.Texts.Add(format.Invoke(state, error)))

let at (address: string) (port: int) =
    OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Parse address, port)), LocalAddress())

let pool = IPNetwork.Parse "10.125.0.0/16"

/// What a site allows; the defaults are those of the server, for one worker.
type Limits() =
    member val Handshakes = 10 with get, set
    member val HalfOpen = 4_096 with get, set
    member val SessionsPerUser = 0 with get, set
    member val Pool = pool with get, set
    member val IcmpUnreachable = false with get, set
    member val IdleMs = 86_400_000L with get, set
    /// Of single users.
    member val Rules: UserRule list = [] with get, set
    /// Checks tokens; null: none are served.
    member val Tokens: TokenVerifier = null with get, set
    /// Checks the passwords of other users; null: nothing does.
    member val Command: AuthCommand = null with get, set
    /// When tokens expire.
    member val Clock = TimeProvider.System with get, set

/// A server with the users "me" and "you", password "secret".
type Site(limits: Limits) =
    let log = Lines()
    let server = new End(Role.Server, 64)

    let tls =
        TlsContext.ForServer(TestCertificate.authority, TestCertificate.key, false)

    let addresses = AddressPool(limits.Pool, [||], false)

    let settings =
        ServerSettings(
            ClientIp = Inside.Client,
            ServerIp = Ipv4Address.None,
            DnsIp = Ipv4Address.None,
            IcmpUnreachable = limits.IcmpUnreachable,
            SweepMs = 60_000L,
            ReportMs = 60_000L
        )

    let managers = List<ConnectionManager>()

    let userLimits = UserLimits(limits.SessionsPerUser, limits.IdleMs, limits.Rules)

    let users =
        let hash = LibCrypt.Hash(ReadOnlySpan "secret"B, "$1$salt$")
        Authenticator.Of($"me:{hash}\nyou:{hash}\n", limits.Tokens, limits.Command, 1)

    do addresses.Fix userLimits.Addresses

    let seed: HashSeed = { First = 1UL; Second = 2UL }

    let identity =
        new ServerIdentity(
            Tls = tls,
            Authenticator = users,
            LoginChecks = 1,
            Limits = userLimits,
            HandshakesPerSource = limits.Handshakes,
            HalfOpenLimit = limits.HalfOpen
        )

    let shared =
        SharedState(
            Settings = settings,
            ConnectionSettings = ConnectionSettings(Role = Role.Server, EnableExpresslane = true),
            Identity = identity,
            Workers = 1,
            Pool = addresses,
            Parts = LocalParts([||], addresses.Rest, Ipv4Address.None),
            Inside = InsideDirectory(addresses.Size, null),
            Desk = LoginDesk(users, LoginGate(LoginLimits.Standard 1, seed)),
            Users = UserSessions(),
            Now = (fun () -> server.Now),
            Clock = limits.Clock,
            Seed = seed,
            Log = log
        )

    do
        server.Context.Now <- server.Now
        managers.Add(new ConnectionManager(shared, server.Context, Siblings = managers))

    new() = new Site(Limits())

    member _.Manager = managers[0]
    member _.Managers = managers
    member _.Shared = shared
    member _.Counters = server.Context.Counters
    member _.Wire = server.Wire
    member _.Context = server.Context
    member _.Log = log.Texts

    /// Hands the server a datagram as its socket does.
    member _.Dispatch(from: OutsideAddress, datagram: byte[]) =
        let mutable header = Unchecked.defaultof<WireHeader>

        if WireHeader.tryParse (ReadOnlySpan datagram, &header) = WireError.None then
            managers[0]
                .Dispatch(
                    &header,
                    &from,
                    ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size),
                    server.Now
                )

    /// Hands the server a packet as its TUN device does; what it writes back.
    member _.FromTun(packet: byte[]) : byte[] list =
        let frame = Array.append (Array.zeroCreate VirtioNetHeader.Size) packet

        use path =
            new InsidePath(RepeatedFrame(frame, frame.Length, Left = 1), server.Context, managers[0])

        let before = server.Delivered.Count
        path.Drain server.Now |> ignore
        List.ofSeq server.Delivered |> List.skip before

    member _.Desk = shared.Desk

    /// What the server is to its clients at the start.
    member _.Identity = identity

    /// A reload has read another identity.
    member _.Use(identity: ServerIdentity) =
        managers[0].Post(identity, Action ignore)
        server.RunPosted()

    /// Runs what other threads have posted: passwords that were checked.
    member _.RunPosted() = server.RunPosted()

    /// Lets time pass, as a worker does: timers and, once per second, the tick.
    member _.Advance(milliseconds: int64) =
        server.Advance milliseconds
        server.Context.Now <- server.Now
        managers[0].Tick server.Now

    interface IDisposable with
        member _.Dispose() =
            managers[0].Stopping()
            managers[0].Dispose()
            (server :> IDisposable).Dispose()
            tls.Dispose()

/// A client of a site, with the address that its datagrams come from.
type Guest(site: Site, from: OutsideAddress, request: Nullable<AuthRequest>, tls: TlsContext) =
    let own = new End(Role.Client, 64)

    let server = at "192.0.2.1" 27690

    let session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty)

    let connection =
        Connection.ForClient(
            ConnectionSettings(Role = Role.Client, EnableExpresslane = true, Credentials = request),
            own.Context,
            own,
            session,
            &server,
            own.Now
        )

    do own.Connection <- connection

    /// A password that is null: it does not log in.
    new(site, from, user: string, password: string, tls) =
        let request =
            match password with
            | null -> Nullable()
            | _ -> Nullable(AuthRequest.userPassword (user, Encoding.UTF8.GetBytes password))

        new Guest(site, from, request, tls)

    new(site, from, user: string, password: string)= new Guest(site, from, user, password, TestCertificate.clientTls ())

    /// Logs in with a token.
    new(site, from, token: AuthRequest) = new Guest(site, from, Nullable token, TestCertificate.clientTls ())

    new(site, from, password: string) = new Guest(site, from, "me", password)

    member val From = from with get, set
    /// Session id of the server's latest datagram.
    member val ServerSession = SessionId.Empty with get, set
    member _.Connection = connection
    member _.End = own
    /// The bytes that the connection was given.
    member _.Password = request.Value.Password
    member _.Session = session

    /// The client's datagrams that wait.
    member _.Take() =
        [ while own.Wire.Datagrams.Count > 0 do
              own.Wire.Datagrams.Dequeue() ]

    /// Carries to the client what the server has sent.
    member this.Receive() =
        while site.Wire.Datagrams.Count > 0 do
            let datagram = site.Wire.Datagrams.Dequeue()
            let mutable header = Unchecked.defaultof<WireHeader>
            WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore
            this.ServerSession <- header.Session

            connection.Receive(
                &header,
                ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size),
                own.Now
            )
            |> ignore

    /// Carries datagrams both ways until none is left. Passwords are checked on other threads, so it may have to wait.
    member this.Pump() =
        for datagram in this.Take() do
            site.Dispatch(this.From, datagram)

        this.Receive()

        if own.Wire.Datagrams.Count > 0 then
            this.Pump()

    member this.Reach(state: ConnectionState) =
        connection.Start own.Now

        let reached =
            Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                site.RunPosted()
                this.Pump()
                connection.State = state)

        Expect.isTrue reached $"{state}, not {connection.State}"
        this.Pump()

    /// An authentic datagram: a ping.
    member this.Ping() : byte[] =
        connection.NetworkChanged own.Now
        List.head (this.Take())

    interface IDisposable with
        member _.Dispose() =
            (own :> IDisposable).Dispose()
            tls.Dispose()

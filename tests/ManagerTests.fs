/// The server's tables in memory: a ConnectionManager without socket, device or thread, and clients that write to it from
/// any address.
module Lightway.Tests.ManagerTests

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Net
open System.Text
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Addresses
open Lightway.Server.Auth
open Lightway.Server.Sessions
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging

/// Keeps the lines of a log.
type private Lines() =
    member val Texts = ResizeArray<string>()

    interface ILogger with
        member _.BeginScope _ = null
        member _.IsEnabled _ = true

        member this.Log(_, _, state, error, format) =
            this.Texts.Add(format.Invoke(state, error))

let private at (address: string) (port: int) =
    OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Parse address, port)), LocalAddress())

let private pool = IPNetwork.Parse "10.125.0.0/16"

/// A server with the user "me", password "secret".
type private Site() =
    let log = Lines()
    let server = new End(Role.Server, 64)

    let tls =
        DtlsContext.ForServer(TestCertificate.authority, TestCertificate.key, false)

    let addresses = AddressPool(pool, [||], false)

    let settings =
        ServerSettings(
            ClientIp = Inside.Client,
            ServerIp = Ipv4Address.None,
            DnsIp = Ipv4Address.None,
            SweepMs = 60_000L,
            ReportMs = 60_000L
        )

    let managers = List<ConnectionManager>()

    let users =
        Authenticator.Parse(ReadOnlySpan(Encoding.UTF8.GetBytes $"""me:{LibCrypt.Hash("secret", "$1$salt$")}"""))

    do
        managers.Add(
            new ConnectionManager(
                settings,
                ConnectionSettings(Role = Role.Server, EnableExpresslane = true),
                server.Context,
                tls,
                addresses,
                InsideDirectory(addresses.Size, null),
                users,
                log,
                Siblings = managers
            )
        )

    member _.Manager = managers[0]
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
type private Guest(site: Site, from: OutsideAddress, password: string) =
    let own = new End(Role.Client, 64)

    let tls = TestCertificate.clientTls ()

    let server = at "192.0.2.1" 27690

    let credentials =
        match password with
        | null -> Nullable()
        | password -> Nullable(AuthRequest.userPassword ("me", password))

    let session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty)

    let connection =
        Connection.ForClient(
            ConnectionSettings(Role = Role.Client, EnableExpresslane = true, Credentials = credentials),
            own.Context,
            own,
            session,
            &server,
            own.Now
        )

    do own.Connection <- connection

    member val From = from with get, set
    /// Session id of the server's latest datagram.
    member val ServerSession = SessionId.Empty with get, set
    member _.Connection = connection
    member _.End = own
    member _.Session = session

    /// The client's datagrams that wait.
    member _.Take() =
        [ while own.Wire.Datagrams.Count > 0 do
              own.Wire.Datagrams.Dequeue() ]

    /// Carries datagrams both ways until none is left. Passwords are checked on other threads, so it may have to wait.
    member this.Pump() =
        for datagram in this.Take() do
            site.Dispatch(this.From, datagram)

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

        if own.Wire.Datagrams.Count > 0 then
            this.Pump()

    member this.Reach(state: ConnectionState) =
        connection.Start own.Now

        let reached =
            Wait.until (TimeSpan.FromSeconds 10.) (fun () ->
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

let tests =
    testList
        "ConnectionManager"
        [ test "a datagram from an address of the clients' network is dropped and counted, and moves nobody" {
              use site = new Site()
              let home = at "198.51.100.7" 4000
              use guest = new Guest(site, home, "secret")
              guest.Reach ConnectionState.Online

              // Its own pool address, another client's, and one mapped into IPv6, as a dual-stack socket sees it.
              for address in [ "10.125.0.1"; "10.125.9.9"; "::ffff:10.125.0.1" ] do
                  let sent = site.Wire.Calls
                  site.Dispatch(at address 27690, guest.Ping())
                  Expect.equal (site.Wire.Calls - sent) 0 "no answer"

              Expect.equal site.Counters[Counter.UdpSourceInside] 3L "counted"
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 0L "not moved"
              site.Dispatch(at "203.0.113.5" 4000, guest.Ping())
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 1L "from outside it moves"
          }

          test "a peer that is not logged in moves nowhere, draws no session id and writes no line" {
              use site = new Site()
              use guest = new Guest(site, at "198.51.100.7" 4000, null)
              guest.Reach ConnectionState.LinkUp

              let lines = site.Log.Count
              let sent = site.Wire.Calls

              for port in [ 4001; 4002; 4001; 4002 ] do
                  // A NoOp frame, authentic, under the session id that the server's handshake datagrams showed.
                  guest.Session.Write(ReadOnlySpan [| 1uy |]) |> ignore
                  let datagram = List.head (guest.Take())
                  BinaryPrimitives.WriteUInt64BigEndian(Span(datagram, 8, 8), guest.ServerSession.Value)
                  site.Dispatch(at "198.51.100.7" port, datagram)

              Expect.equal site.Counters[Counter.UdpMoveBeforeLogin] 4L "counted"
              Expect.equal site.Counters[Counter.UdpSessionRotationBegin] 0L "no rotation"
              Expect.equal (site.Wire.Calls - sent) 0 "no answer"
              Expect.equal (site.Log.Count - lines) 0 "no line"
          }

          test "a client that alternates between two ports moves each time, with one line per minute" {
              use site = new Site()
              use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
              guest.Reach ConnectionState.Online

              let moves count =
                  for i in 1..count do
                      guest.From <- at "198.51.100.7" (4000 + i % 2)
                      site.Dispatch(guest.From, guest.Ping())
                      guest.Pump()

              let lines () =
                  site.Log |> Seq.filter _.Contains("moved from") |> Seq.length

              moves 50
              Expect.equal site.Counters[Counter.UdpConnRecoveredViaSession] 50L "all moves are made"
              Expect.equal (lines ()) 1 "one line"
              Expect.equal site.Counters[Counter.UdpMoveNotLogged] 49L "the rest is counted"
              site.Advance 60_000L
              moves 2
              Expect.equal (lines ()) 2 "another a minute later"
          } ]

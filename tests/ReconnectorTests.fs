/// How a client comes online and stays so, in memory: real sessions with servers' tables, without device, socket or thread.
module Lightway.Tests.ReconnectorTests

open System
open System.Collections.Generic
open System.Net
open Expecto
open Lightway.Client.Sessions
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tests.OptionRuns
open Lightway.Tests.Sites
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp
open Microsoft.Extensions.Logging.Abstractions

let private endPoint number =
    IPEndPoint(IPAddress([| 203uy; 0uy; 113uy; byte number |]), 27690)

/// A UDP packet in the clear.
let private udp (destination: Ipv4Address) (port: int) : byte[] =
    let packet = Superpackets.plain Inside.Client destination 60
    packet[9] <- IpProtocol.Udp
    packet[22] <- byte (port >>> 8)
    packet[23] <- byte port
    packet

let private somewhere = udp Inside.Remote 9

/// One server of the client's list: its addresses, and the password that the client has for it.
type private Listed =
    { Addresses: IPEndPoint list
      Password: string
      Tls: unit -> TlsContext }

let private listed addresses =
    { Addresses = addresses
      Password = "secret"
      Tls = TestCertificate.clientTls }

let private keepOn = { IsEnabled = true; Attempts = 0 }

/// A client with a list of servers, and the sites that answer at their addresses. Waits are as short as they get.
type private Roamer(servers: Listed list, policy: ReconnectPolicy, ?preferMs: int64, ?doubtMs: int64, ?continuous: bool)
    =
    let own = new End(Role.Client, 64)
    let sites = Dictionary<IPEndPoint, Site>()
    let mtus = ResizeArray<int>()
    let mutable boot = 0L
    let mutable waits = 0
    let mutable rounds = 0
    let mutable sinceTick = 0L

    let options = run (client [] [] leastClient)

    let settings password =
        ConnectionSettings(
            Role = Role.Client,
            KeepaliveIntervalMs = 1_000L,
            KeepaliveTimeoutMs = 5_000L,
            KeepaliveContinuous = defaultArg continuous true,
            Credentials = Nullable(AuthRequest.userPassword ("me", Text.Encoding.UTF8.GetBytes(password: string)))
        )

    let all =
        [| for server in servers do
               let one =
                   new ClientServer(ServerLogin(options, server.Tls(), (fun () -> settings server.Password)))

               one.Offer [| for address in server.Addresses -> PeerAddress address |]
               one |]

    do own.Wire.Destinations <- Queue()

    let reconnector =
        new Reconnector(
            all,
            ReconnectorSettings(
                Policy = policy,
                Inside = InsideAddresses(Inside.Client, Ipv4Address.None),
                PreferMs = defaultArg preferMs 0L,
                DoubtMs = defaultArg doubtMs 0L,
                BootClock = (fun () -> boot),
                Random = (fun () -> 0u)
            ),
            own.Context,
            NullLogger.Instance,
            MtuGranted = Action<int> mtus.Add,
            Waiting = (fun () -> waits <- waits + 1),
            RoundStarts = (fun () -> rounds <- rounds + 1)
        )

    let carry (datagram: byte[]) (peer: PeerAddress) =
        match sites.TryGetValue(peer.ToEndPoint()) with
        | true, site -> site.Dispatch(at "192.0.2.7" 40000, datagram)
        | _ -> ()

    member _.Own = own
    member _.Reconnector = reconnector
    member _.Servers = all
    member _.Mtus = mtus
    member _.Waits = waits
    /// Rounds after the first one.
    member _.Rounds = rounds
    member _.Sites = sites

    /// The address in use.
    member _.Current =
        match reconnector.Current with
        | null -> None
        | session -> Some session.EndPoint

    /// Another password for the connections to come.
    member _.UsePassword(password: string) =
        all[0].Use(ServerLogin(options, servers.Head.Tls(), (fun () -> settings password)))

    /// Puts a server to work at an address; the one that was there is gone without a word.
    member _.Serve(address: IPEndPoint) =
        let site = new Site()
        sites[address] <- site
        site

    /// A datagram from an address.
    member _.Answer(from: IPEndPoint, datagram: byte[]) =
        let mutable header = Unchecked.defaultof<WireHeader>
        WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore
        let path = OutsideAddress(PeerAddress from, LocalAddress())

        reconnector.Dispatch(
            &header,
            &path,
            ReadOnlySpan(datagram, WireHeader.Size, datagram.Length - WireHeader.Size),
            own.Now
        )

    /// Carries what is on the wires; `delayed` datagrams are given back.
    member this.Pump(isDelayed: IPEndPoint -> bool) : (byte[] * PeerAddress) list =
        let delayed = ResizeArray()
        let mutable isMore = true

        while isMore do
            this.Carry(isDelayed, delayed)
            isMore <- own.Wire.Datagrams.Count > 0

        List.ofSeq delayed

    member private this.Carry(isDelayed: IPEndPoint -> bool, delayed: ResizeArray<byte[] * PeerAddress>) =
        while own.Wire.Datagrams.Count > 0 do
            let datagram, peer = own.Wire.Datagrams.Dequeue(), own.Wire.Destinations.Dequeue()

            if isDelayed (peer.ToEndPoint()) then
                delayed.Add(datagram, peer)
            else
                carry datagram peer

        for KeyValue(address, site) in sites do
            site.RunPosted()

            while site.Wire.Datagrams.Count > 0 do
                this.Answer(address, site.Wire.Datagrams.Dequeue())

        own.RunPosted()

    /// Lets time pass on all sides, with a tick per second, and carries what is sent.
    member this.Advance(milliseconds: int64) =
        for _ in 1L .. milliseconds / 10L do
            boot <- boot + 10L
            own.Advance 10L

            for site in sites.Values do
                site.Advance 10L

            sinceTick <- sinceTick + 10L

            if sinceTick >= 1_000L then
                sinceTick <- 0L
                reconnector.Tick own.Now

            this.Pump(fun _ -> false) |> ignore

    /// The machine sleeps.
    member _.Sleep(milliseconds: int64) = boot <- boot + milliseconds

    /// Passwords are checked on other threads, so it may have to wait in real time.
    member this.Await(what: string, condition: unit -> bool) =
        let reached =
            Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                this.Pump(fun _ -> false) |> ignore
                condition ())

        Expect.isTrue reached what

    /// The same, with time that passes on all sides: refusals are slow on purpose.
    member this.AwaitEnd() =
        let reached =
            Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                this.Advance 20L
                reconnector.HasFailed)

        Expect.isTrue reached "it ends"

    member this.AwaitOnline() =
        this.Await("it is online", (fun () -> this.Current.IsSome))

    /// Starts, and waits until it is online.
    member this.Connect() =
        reconnector.Start()
        this.AwaitOnline()

    member _.Find(packet: byte[]) = reconnector.Find(ReadOnlySpan packet)

    interface IDisposable with
        member _.Dispose() =
            reconnector.Stopping()
            reconnector.Dispose()

            for site in sites.Values do
                (site :> IDisposable).Dispose()

            (own :> IDisposable).Dispose()

let private first = endPoint 1
let private second = endPoint 2
let private third = endPoint 3

let private reasons (server: ClientServer) =
    [ for ending in server.Endings -> ending.Reason, ending.Stage ]

let private packets =
    testList
        "packets"
        [ test "without a connection packets are dropped and counted; with one they go through it" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore

              let dropped () =
                  roamer.Own.Context.Counters[Counter.TunRejectedPacketNoConnection]

              roamer.Reconnector.Start()
              Expect.isNull (roamer.Find somewhere) "nowhere to go"
              Expect.equal (dropped ()) 1L "counted"
              roamer.AwaitOnline()
              Expect.isNotNull (roamer.Find somewhere) "through the tunnel"
              Expect.equal (dropped ()) 1L "nothing else is counted"
          }

          test "a packet to the server's own address and port, on its way back into the tunnel, is dropped and counted" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()

              let dropped () =
                  roamer.Own.Context.Counters[Counter.TunRejectedPacketToServer]

              let server = Ipv4Address.Of first.Address
              Expect.isNull (roamer.Find(udp server 27690)) "a datagram of its own"
              let later = udp server 9
              later[7] <- 5uy // fragment offset
              Expect.isNull (roamer.Find later) "a later fragment of one"
              Expect.equal (dropped ()) 2L "counted"

              for packet in
                  [ udp server 53
                    udp (Ipv4Address.Of second.Address) 27690
                    Superpackets.plain Inside.Client server 60 ] do
                  Expect.isNotNull (roamer.Find packet) "all else goes through the tunnel"

              Expect.equal (dropped ()) 2L "nothing else is counted"

              // As the engine asks: the packet goes nowhere.
              let frame = Array.append (Array.zeroCreate VirtioNetHeader.Size) (udp server 27690)

              let calls = roamer.Own.Wire.Calls

              use path =
                  new InsidePath(RepeatedFrame(frame, 60, Left = 1), roamer.Own.Context, roamer.Reconnector)

              Expect.isTrue (path.Drain roamer.Own.Now) "not blocked"
              Expect.equal roamer.Own.Wire.Calls calls "nothing is sent"
              Expect.equal (dropped ()) 3L "counted"
          }

          test "a packet to the server by way of an IPv6 socket is recognized as well" {
              let mapped = IPEndPoint(first.Address.MapToIPv6(), first.Port)
              use roamer = new Roamer([ listed [ mapped ] ], keepOn)
              roamer.Serve mapped |> ignore
              roamer.Connect()
              Expect.isNull (roamer.Find(udp (Ipv4Address.Of first.Address) 27690)) "a datagram of its own"
          }

          test "a datagram of a stranger is counted, and reaches no connection" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Answer(second, Array.zeroCreate 40)
              Expect.equal roamer.Own.Context.Counters[Counter.UdpParseWireFailed] 1L "counted"
          }

          test "without continuous keepalives a packet after silence makes the client ask, once" {
              use roamer =
                  new Roamer([ listed [ first ] ], keepOn, doubtMs = 500L, continuous = false)

              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Pump(fun _ -> false) |> ignore
              roamer.Sites.Clear() // nobody answers
              let sent () = roamer.Own.Wire.Calls
              let before = sent ()
              roamer.Own.Advance 499L
              roamer.Find somewhere |> ignore
              Expect.equal (sent ()) before "too early"
              roamer.Own.Advance 1L
              roamer.Find somewhere |> ignore
              roamer.Find somewhere |> ignore
              Expect.equal (sent ()) (before + 1) "one ping"
          } ]

let private races =
    testList
        "servers"
        [ test "the first is dead, the second refuses, the third is good: online without waiting" {
              use roamer =
                  new Roamer(
                      [ listed [ first ]
                        { listed [ second ] with
                            Password = "wrong" }
                        listed [ third ] ],
                      keepOn
                  )

              roamer.Serve second |> ignore
              roamer.Serve third |> ignore
              let before = roamer.Own.Now
              roamer.Connect()
              Expect.equal roamer.Current (Some third) "the third"
              Expect.equal roamer.Own.Now before "without waiting"
              Expect.equal roamer.Mtus.Count 1 "the device gets its MTU"
          }

          test "the preferred server wins if it is online in time, and the other one hears a goodbye" {
              use roamer =
                  new Roamer([ listed [ first ]; listed [ second ] ], keepOn, preferMs = 1_000L)

              roamer.Serve first |> ignore
              let other = roamer.Serve second
              roamer.Reconnector.Start()

              let delayed = ResizeArray()

              let isOtherOnline () =
                  other.Log |> Seq.exists _.Contains("online", StringComparison.OrdinalIgnoreCase)

              roamer.Own.RunPosted()

              Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                  delayed.AddRange(roamer.Pump(fun to' -> to'.Equals first))
                  other.Counters[Counter.ConnOnline] = 1L)
              |> ignore

              Expect.equal other.Counters[Counter.ConnOnline] 1L $"the second is online {isOtherOnline ()}"
              Expect.equal roamer.Current None "but waits for the first"
              roamer.Own.Advance 500L

              for datagram, peer in delayed do
                  roamer.Own.Wire.Datagrams.Enqueue datagram
                  roamer.Own.Wire.Destinations.Enqueue peer

              roamer.AwaitOnline()
              Expect.equal roamer.Current (Some first) "the first"
              roamer.Await("the other hears of it", (fun () -> other.Counters[Counter.ConnClientClosed] = 1L))
          }

          test "a server that is online waits no longer than the interval for the preferred one" {
              use roamer =
                  new Roamer([ listed [ first ]; listed [ second ] ], keepOn, preferMs = 1_000L)

              let other = roamer.Serve second
              roamer.Reconnector.Start()
              roamer.Await("online", (fun () -> other.Counters[Counter.ConnOnline] = 1L))
              roamer.Advance 990L
              Expect.equal roamer.Current None "it waits"
              roamer.Advance 10L
              Expect.equal roamer.Current (Some second) "the second"
          }

          test "an address that does not answer is joined by the next one after 250 ms" {
              use roamer =
                  new Roamer([ listed [ IPEndPoint(IPAddress.Parse "2001:db8::9", 27690); first ] ], keepOn)

              let site = roamer.Serve first
              roamer.Reconnector.Start()
              roamer.Advance 240L
              Expect.equal site.Counters[Counter.ConnCreated] 0L "not yet"
              roamer.Advance 10L
              roamer.AwaitOnline()
              Expect.equal roamer.Current (Some first) "the next one"
          }

          test "an address that answers is not joined by another one" {
              use roamer = new Roamer([ listed [ first; second ] ], keepOn)
              let site = roamer.Serve second
              roamer.Reconnector.Start()
              roamer.Answer(first, Array.append "He\001\003\000\000\000\000"B (Array.zeroCreate 8))
              roamer.Advance 3_000L
              Expect.equal site.Counters[Counter.ConnCreated] 0L "it has all the time of a handshake"
          }

          test "a refused login is the end of the first round: another address is the same server" {
              use roamer =
                  new Roamer(
                      [ { listed [ first; second ] with
                            Password = "wrong" } ],
                      keepOn
                  )

              roamer.Serve first |> ignore
              let other = roamer.Serve second
              roamer.Reconnector.Start()
              roamer.AwaitEnd()
              Expect.equal (reasons roamer.Servers[0]) [ TunnelError.Unauthorized, Stage.LinkUp ] "why"
              Expect.equal other.Counters[Counter.ConnCreated] 0L "the other one was not tried"
              Expect.equal roamer.Waits 0 "no wait"
          }

          test "certificates of another name end the first round, and every server's reason is known" {
              use roamer =
                  new Roamer(
                      [ { listed [ first ] with
                            Tls = TestCertificate.otherNameTls }
                        { listed [ second ] with
                            Tls = TestCertificate.otherNameTls } ],
                      keepOn
                  )

              roamer.Serve first |> ignore
              roamer.Serve second |> ignore
              roamer.Reconnector.Start()
              roamer.AwaitEnd()
              Expect.equal (reasons roamer.Servers[0]) [ TunnelError.TlsNameMismatch, Stage.Answered ] "the first"
              Expect.equal (reasons roamer.Servers[1]) [ TunnelError.TlsNameMismatch, Stage.Answered ] "the second"
              let text = EndingText.Of roamer.Servers
              expectAll text [ "none of 2"; "1. server_dn"; "2. server_dn" ]
          } ]

/// Until there is no connection.
let private awaitLoss (roamer: Roamer) =
    for _ in 1..20 do
        if roamer.Current.IsSome then
            roamer.Advance 500L

    Expect.equal roamer.Current None "the connection is lost"

let private losses =
    testList
        "losses"
        [ test "a server that was restarted rejects the session: the client is back within seconds" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              let connection = roamer.Find somewhere
              roamer.Serve first |> ignore
              awaitLoss roamer
              Expect.equal (reasons roamer.Servers[0]) [ TunnelError.RejectedSession, Stage.Online ] "why"
              Expect.isNull (roamer.Find somewhere) "packets are dropped meanwhile"
              Expect.equal roamer.Waits 1 "it looks names up"
              roamer.Advance 990L
              Expect.equal roamer.Rounds 1 "a wait of a second at least"
              roamer.Advance 10L
              Expect.equal roamer.Rounds 2 "a round"
              roamer.AwaitOnline()
              Expect.notEqual (roamer.Find somewhere) connection "another connection"
              Expect.equal roamer.Reconnector.Connections 2 "two so far"
              Expect.equal roamer.Mtus.Count 2 "the device gets the MTU of each"
          }

          test
              "a server that does not answer any more: the client tries, with longer and longer waits, until it is back" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Sites.Clear()
              awaitLoss roamer
              Expect.equal (reasons roamer.Servers[0]) [ TunnelError.TimedOut, Stage.Online ] "why"
              roamer.Serve first |> ignore
              roamer.Advance 1_000L
              roamer.AwaitOnline()
              Expect.isFalse roamer.Reconnector.HasFailed "it goes on"
          }

          test "another server takes over from one that is lost" {
              use roamer = new Roamer([ listed [ first ]; listed [ second ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              Expect.equal roamer.Current (Some first) "the first"
              roamer.Sites.Clear()
              roamer.Serve second |> ignore
              awaitLoss roamer
              roamer.Advance 1_000L
              roamer.AwaitOnline()
              Expect.equal roamer.Current (Some second) "the second"
          }

          test "without reconnect the end of the connection is the end" {
              use roamer = new Roamer([ listed [ first ] ], { IsEnabled = false; Attempts = 0 })

              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Sites.Clear()
              awaitLoss roamer
              Expect.isTrue roamer.Reconnector.HasFailed "over"
              Expect.stringContains (EndingText.Of roamer.Servers) "no longer answers" "why"
          }

          test "a login that is refused later is the end" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Sites.Clear()
              awaitLoss roamer
              roamer.UsePassword "wrong"
              roamer.Serve first |> ignore
              roamer.AwaitEnd()
              Expect.equal (reasons roamer.Servers[0]) [ TunnelError.Unauthorized, Stage.LinkUp ] "why"
          }

          test "a server that has no address left later is not the end: the client comes back when one is free" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Sites.Clear()
              awaitLoss roamer

              let full = Limits(Pool = IPNetwork.Parse "10.125.0.0/30")
              let site = new Site(full)
              roamer.Sites[first] <- site

              for number in 1..4 do
                  use guest = new Guest(site, at $"192.0.2.{100 + number}" 4000, "secret")
                  guest.Connection.Start guest.End.Now

                  let isDecided =
                      Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                          site.RunPosted()
                          guest.Pump()
                          guest.Connection.State = ConnectionState.Online || guest.End.Closed.IsSome)

                  Expect.isTrue isDecided "in, or refused"

              // After thirty seconds of silence one of them would give way.
              let advanceUntil condition =
                  Wait.until (TimeSpan.FromSeconds 25.) (fun () ->
                      roamer.Advance 20L
                      condition ())

              let isRefused () =
                  reasons roamer.Servers[0] = [ TunnelError.NoFreeClientIp, Stage.LinkUp ]

              Expect.isTrue (advanceUntil isRefused) "refused, and the client knows why"
              Expect.isFalse roamer.Reconnector.HasFailed "it goes on"
              roamer.Serve first |> ignore
              Expect.isTrue (advanceUntil (fun () -> roamer.Current.IsSome)) "it is back"
          } ]

let private network =
    testList
        "network"
        [ test "after a change of network and after a sleep the client pings at once; a short stall is no sleep" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Pump(fun _ -> false) |> ignore
              let sent () = roamer.Own.Wire.Calls
              let before = sent ()
              roamer.Reconnector.NetworkChanged true
              roamer.Own.RunPosted()
              Expect.equal (sent ()) (before + 1) "a ping"
              Expect.equal roamer.Reconnector.Moves 1 "counted"
              roamer.Pump(fun _ -> false) |> ignore
              roamer.Sleep 1_999L
              let before = sent ()
              roamer.Reconnector.Tick roamer.Own.Now
              Expect.equal (sent ()) before "a stall"
              roamer.Sleep 60_000L
              roamer.Reconnector.Tick roamer.Own.Now
              Expect.equal (sent ()) (before + 1) "a ping"
              Expect.isSome roamer.Current "the connection stays"
          }

          test "a network that comes back ends a wait" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              roamer.Serve first |> ignore
              roamer.Connect()
              roamer.Sites.Clear()
              awaitLoss roamer
              roamer.Serve first |> ignore
              roamer.Reconnector.NetworkChanged true
              roamer.Own.RunPosted()
              roamer.Advance 10L
              Expect.equal roamer.Rounds 2 "at once"
              roamer.AwaitOnline()
          }

          test "a program that stops says goodbye" {
              use roamer = new Roamer([ listed [ first ] ], keepOn)
              let site = roamer.Serve first
              roamer.Connect()
              roamer.Reconnector.Stopping()
              roamer.Await("the server hears of it", (fun () -> site.Counters[Counter.ConnClientClosed] = 1L))
          } ]

let tests = testList "Reconnector" [ packets; races; losses; network ]

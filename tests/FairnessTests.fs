/// A worker that cannot keep up: a real socket with a queue of the kernel's, the server's tables, two clients, and a clock that
/// the test turns. What opening and dropping cost is counted instead of timed, so that every run is the same.
module Lightway.Tests.FairnessTests

open System
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Udp
open Lightway.Tests.Checks
open Lightway.Tests.Sites

/// Datagrams per ms that the worker can open; to drop one costs a twentieth of that.
let private capacity = 100

/// Ends of a client: in memory for its login, a socket for everything after it.
type private Peer(site: Site, server: IPEndPoint, user: string) =
    let socket =
        new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

    do
        socket.Bind(IPEndPoint(IPAddress.Loopback, 0))
        socket.Connect server

    let from =
        OutsideAddress(PeerAddress(socket.LocalEndPoint :?> IPEndPoint), LocalAddress())

    let guest = new Guest(site, from, user, "secret")

    do
        guest.Reach ConnectionState.Online
        Expect.isTrue guest.Connection.IsExpresslaneReady "Expresslane"

    let packet = Superpackets.plain Inside.Client Inside.Remote 112

    // Of which only decryption shows that it is not authentic.
    let forged: byte[] =
        let datagram: byte[] = Array.create 1_400 0x5Auy
        let body = Span(datagram).Slice WireHeader.Size
        WireHeader.write (ProtocolVersion.V1_3, WirePayload.Expresslane, guest.Connection.SessionId, Span datagram)
        ExpresslanePacket.writeHeader (1_000_000_000UL, body.Length - ExpresslanePacket.Overhead, 0us, body)
        datagram

    member _.SendForged() = socket.Send forged |> ignore

    /// Sends a packet as its tunnel does.
    member _.Send() =
        let buffer = Array.append (Array.zeroCreate 16) packet
        guest.Connection.BeginInside guest.End.Now
        Expect.equal (guest.Connection.TrySend(Span buffer, 16, packet.Length)) SendResult.Accepted "accepted"
        guest.End.Context.ToOutside.Flush() |> ignore

        for datagram in guest.Take() do
            socket.Send datagram |> ignore

    interface IDisposable with
        member _.Dispose() =
            (guest :> IDisposable).Dispose()
            socket.Dispose()

/// Lets time pass, 5 ms at a time, in which the greedy client sends this number of datagrams and the modest one 50, mixed. The
/// worker has 5 ms of its own for them.
let private run
    (site: Site)
    (path: OutsidePath)
    (clock: int64 ref)
    (steps: int)
    (greedy: Peer)
    (count: int)
    (modest: Peer option)
    =
    let counters = site.Counters

    let opened () =
        counters[Counter.ExpresslaneDecryptFailed] + counters[Counter.ExpresslanePacketsReceived]

    let cost () =
        float (opened ()) + 0.05 * float counters[Counter.UdpPeerAboveShare]

    let mutable allowed = cost ()

    for _ in 1..steps do
        for part in 0..49 do
            for _ in 1 .. count / 50 do
                greedy.SendForged()

            modest |> Option.iter _.Send()

        clock.Value <- clock.Value + 5L
        allowed <- max (cost ()) (allowed + float (5 * capacity))
        let mutable before = -1L

        // A wake-up takes what waits, up to its budget.
        while cost () < allowed && counters[Counter.UdpDatagramsReceived] <> before do
            before <- counters[Counter.UdpDatagramsReceived]
            path.Drain clock.Value

let private withSite (body: Site -> (string -> Peer) -> (int -> Peer -> int -> Peer option -> unit) -> unit) =
    needsRoot () // for a socket buffer beyond rmem_max
    use site = new Site()

    // About 3600 datagrams of this length: the worker needs 36 ms for them.
    use socket =
        UdpSocket.Bind(IPEndPoint(IPAddress.Loopback, 0), 0, 4 <<< 20, 0u, false)

    use path = new OutsidePath(socket, site.Context, site.Manager)
    let clock = ref site.Context.Now
    body site (fun user -> new Peer(site, socket.LocalEndPoint, user)) (run site path clock)

let tests =
    testSequenced (
        testList
            "Fairness"
            [ for factor in [ 2; 4 ] do
                  test
                      $"beside a client that sends {factor} times what its worker can open, a modest one keeps nine tenths at least" {
                      withSite (fun site join run ->
                          use greedy = join "me"
                          use modest = join "you"
                          let greedyPerStep = factor * 5 * capacity
                          run 100 greedy greedyPerStep (Some modest)
                          let counters = site.Counters

                          let read () =
                              [ Counter.ExpresslanePacketsReceived
                                Counter.ExpresslaneDecryptFailed
                                Counter.UdpPeerAboveShare ]
                              |> List.map (fun counter -> counters[counter])

                          let before = read ()
                          run 200 greedy greedyPerStep (Some modest)

                          match List.map2 (-) (read ()) before with
                          | [ received; opened; above ] ->
                              Expect.isGreaterThan received 9_000L "packets of the modest one, of 10 000"
                              Expect.isGreaterThan opened (200L * 5L * 60L) "the greedy one has what is left"
                              Expect.isGreaterThan above 0L "it is above its share"
                          | _ -> failtest "three counters")
                  }

              test "a client that is alone is never above its share, however much it sends" {
                  withSite (fun site join run ->
                      use greedy = join "me"
                      run 100 greedy (4 * 5 * capacity) None
                      let counters = site.Counters
                      Expect.isGreaterThan counters[Counter.UdpReceiveOverflows] 10_000L "the kernel has dropped"
                      Expect.equal counters[Counter.UdpPeerAboveShare] 0L "the server has not")
              }

              test "two clients that the worker can keep up with lose nothing" {
                  withSite (fun site join run ->
                      use greedy = join "me"
                      use modest = join "you"
                      run 100 greedy (4 * capacity) (Some modest)
                      let counters = site.Counters

                      // Even over loopback a datagram may take a moment.
                      let haveCome () =
                          run 1 greedy 0 None

                          counters[Counter.ExpresslaneDecryptFailed] + counters[Counter.ExpresslanePacketsReceived]
                          >= 100L * 450L

                      Wait.until (TimeSpan.FromSeconds 30.) haveCome |> ignore
                      Expect.equal counters[Counter.ExpresslaneDecryptFailed] (100L * 400L) "opened"
                      Expect.equal counters[Counter.ExpresslanePacketsReceived] (100L * 50L) "received"
                      Expect.equal counters[Counter.UdpPeerAboveShare] 0L "dropped")
              } ]
    )

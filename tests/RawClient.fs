namespace Lightway.Tests

open System
open System.IO
open System.Net
open System.Text
open Lightway.Lab
open Lightway.Protocol
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// A client without TUN whose socket the test chooses, and that can vanish without a word.
type RawClient(netns: string, port: int, vpn: Vpn) as this =
    let bind port =
        Netns.run netns (fun () -> UdpSocket.Bind(IPEndPoint(IPAddress.Any, port), 0, 0, 0u, false))

    let mutable socket = bind port

    let outside (address: string) =
        OutsideAddress(PeerAddress(IPEndPoint(IPAddress.Parse address, 27690)), LocalAddress())

    let mutable server = outside Topology.ServerOutside
    let mutable answeredBy = PeerAddress()

    let sender =
        { new IDatagramSender with
            member _.Send(_, data, segmentSize, tos) =
                (socket :> IDatagramSender).Send(&server, data, segmentSize, tos)

            member _.Send(runs, bytes) =
                (socket :> IDatagramSender).Send(runs, bytes) }

    let context = new WorkerContext(sender, ScriptedTun(false), Offload.None, null)

    let batch = new ReceiveBatch(false)
    let ca = File.ReadAllBytes(Path.Combine(vpn.Folder, "ca_cert.crt"))

    let tls =
        TlsContext.ForClient(ca, null, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

    let connection =
        Connection.ForClient(
            ConnectionSettings(
                Role = Role.Client,
                EnableExpresslane = true,
                Credentials = AuthRequest.userPassword (vpn.User, Encoding.UTF8.GetBytes vpn.Password)
            ),
            context,
            this,
            new DtlsSession(tls, ReadOnlySpan<byte>.Empty),
            &server,
            Environment.TickCount64
        )

    member _.Connection = connection

    /// Where the last datagram came from.
    member _.AnsweredBy = string (answeredBy.ToEndPoint().Address)

    /// Goes on with another address of the server.
    member _.WriteTo(address: string) = server <- outside address

    /// Goes on from another port.
    member _.Rebind(port: int) =
        (socket :> IDisposable).Dispose()
        socket <- bind port

    /// Receives and runs timers until the condition holds or the time is over; whether it holds.
    member _.RunUntil(timeout: TimeSpan, condition: unit -> bool) : bool =
        Wait.until timeout (fun () ->
            let now = Environment.TickCount64
            let count = socket.Receive batch

            for i in 0 .. count - 1 do
                let mutable header = Unchecked.defaultof<WireHeader>
                let datagram = batch.Bytes i
                answeredBy <- batch.Peer i

                if WireHeader.tryParse (Span.op_Implicit datagram, &header) = WireError.None then
                    connection.Receive(&header, Span.op_Implicit (datagram.Slice WireHeader.Size), now) |> ignore

            if connection.DueAt <= now then
                connection.OnTimer now

            condition ())

    /// Logs in and waits for the Expresslane, or for the end of the connection; whether it is ready.
    member this.Connect() : bool =
        connection.Start Environment.TickCount64

        let isDecided () =
            connection.IsExpresslaneReady || connection.State = ConnectionState.Disconnected

        this.RunUntil(TimeSpan.FromSeconds 30., isDecided) && connection.IsExpresslaneReady

    interface IConnectionEvents with
        member _.StateChanged _ = ()
        member _.Closed(_, _) = ()

    interface IClientEvents with
        member _.Authenticated(_, _) = ()

    interface IDisposable with
        /// Says nothing to the server.
        member _.Dispose() =
            connection.Dispose()
            tls.Dispose()
            batch.Dispose()
            (context :> IDisposable).Dispose()
            (socket :> IDisposable).Dispose()

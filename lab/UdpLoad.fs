namespace Lightway.Lab

open System
open System.Diagnostics
open System.Net
open System.Net.Sockets
open System.Threading
open System.Threading.Tasks

/// Datagrams at a fixed rate from one namespace to another until Dispose, and a sink that counts their bytes.
/// `Burst` datagrams leave in one send by UDP_SEGMENT, as QUIC servers do; 1 for datagrams one by one.
type UdpLoad private (datagramLength: int, burst: int, bitsPerSecond: float) =
    static let udp = 17 // SOL_UDP and, in linux/udp.h:
    static let udpSegment = 103
    static let udpGro = 104
    static let helloTimeout = TimeSpan.FromSeconds 20.0
    static let quiet = 300 // ms without a datagram: none is under way any more

    let sent = ref 0L
    let received = ref 0L
    let mutable sockets: Socket list = []
    let mutable tasks: Task<unit> list = []
    let mutable isSendingOver = false
    let mutable isStopping = false

    static let newSocket (address: IPAddress) =
        let socket =
            new Socket(
                AddressFamily.InterNetwork,
                SocketType.Dgram,
                ProtocolType.Udp,
                ReceiveBufferSize = 8 * 1024 * 1024,
                DontFragment = false
            )

        socket.Bind(IPEndPoint(address, 0))
        socket

    /// Every millisecond what is due. After a pause of more than 10 ms the rest is not made up for.
    let send (socket: Socket) () =
        let datagrams: byte[] = Array.zeroCreate (datagramLength * burst)

        if burst > 1 then
            socket.SetRawSocketOption(udp, udpSegment, ReadOnlySpan(BitConverter.GetBytes datagramLength))

        let bytesPerSecond = bitsPerSecond / 8.0
        let clock = Stopwatch.StartNew()
        let mutable due = 0.0 // bytes
        let mutable at = 0.0

        while not (Volatile.Read &isSendingOver) do
            let now = clock.Elapsed.TotalSeconds
            due <- due + bytesPerSecond * min (now - at) 0.01
            at <- now

            while due >= float datagrams.Length && not (Volatile.Read &isSendingOver) do
                due <- due - float datagrams.Length

                try
                    let count = socket.Send datagrams
                    Volatile.Write(&sent.contents, sent.Value + int64 count)
                with
                | :? SocketException // no room at the moment, or the sink is gone: not sent, so not counted
                | :? ObjectDisposedException -> ()

            Thread.Sleep 1

    let sink (socket: Socket) () =
        let buffer: byte[] = Array.zeroCreate 65536
        socket.SetRawSocketOption(udp, udpGro, ReadOnlySpan(BitConverter.GetBytes 1)) // what comes in one piece is read in one

        try
            while not (Volatile.Read &isStopping) do
                let count = socket.Receive buffer
                Volatile.Write(&received.contents, received.Value + int64 count)
        with
        | :? SocketException
        | :? ObjectDisposedException when Volatile.Read &isStopping -> ()

    /// Bytes of datagrams that the sender's kernel has taken so far.
    member _.Sent: int64 = Volatile.Read &sent.contents

    /// Bytes of datagrams that have arrived so far.
    member _.Received: int64 = Volatile.Read &received.contents

    /// Ends the sending, waits for datagrams that are under way, and returns the share of all datagrams that were lost, 0.0 to 1.0.
    member this.FinishAndLoss() : float =
        Volatile.Write(&isSendingOver, true)
        let clock = Stopwatch.StartNew()
        let mutable last = -1L

        while this.Received <> last && clock.Elapsed.TotalSeconds < 10.0 do
            last <- this.Received
            Thread.Sleep quiet

        if this.Sent = 0L then
            0.0
        else
            max 0.0 (1.0 - float this.Received / float this.Sent)

    /// The client speaks first, in either case: its address inside is not known at the other end.
    member private _.Open (remote: Listener) (client: string) (isDownload: bool) =
        let there =
            Netns.run remote.Netns (fun () -> newSocket (IPAddress.Parse remote.Address))

        let here = Netns.run client (fun () -> newSocket IPAddress.Any)
        sockets <- [ there; here ]
        here.Connect there.LocalEndPoint
        let hello: byte[] = [| 1uy |]
        let clock = Stopwatch.StartNew()
        here.Send hello |> ignore

        while not (there.Poll(TimeSpan.FromMilliseconds 200.0, SelectMode.SelectRead)) do
            if clock.Elapsed > helloTimeout then
                raise (LabException "no datagram of the client has arrived at the remote")

            here.Send hello |> ignore

        let mutable peer: EndPoint = IPEndPoint(IPAddress.Any, 0)
        there.ReceiveFrom(hello, &peer) |> ignore
        there.Connect peer
        let sender, receiver = if isDownload then there, here else here, there

        tasks <- [ Netns.start remote.Netns (sink receiver); Netns.start remote.Netns (send sender) ]

    /// From the remote to the client (download) or back. Raises LabException when no datagram gets through.
    static member Start
        (remote: Listener, client: string, isDownload: bool, datagramLength: int, burst: int, bitsPerSecond: float)
        : UdpLoad =
        let load = new UdpLoad(datagramLength, burst, bitsPerSecond)

        try
            load.Open remote client isDownload
            load
        with _ ->
            (load :> IDisposable).Dispose()
            reraise ()

    interface IDisposable with
        member _.Dispose() =
            Volatile.Write(&isSendingOver, true)
            Volatile.Write(&isStopping, true)

            for socket in sockets do
                socket.Dispose()

            Task.WaitAll([| for task in tasks -> task :> Task |], 5000) |> ignore

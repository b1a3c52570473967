namespace Lightway.Lab

open System
open System.Net
open System.Net.Sockets
open System.Text
open System.Threading
open System.Threading.Tasks

/// TCP connections that carry bytes as fast as they can until Dispose. Neither end looks at a byte, and both cost little:
/// the sender hands over 16 MiB at a time, the sink has the kernel discard what arrived (MSG_TRUNC, tcp(7)). Why not sendfile(2):
/// it takes 64 KiB at a time and lets the rest that fills no segment leave at once, a packet that no other sender makes.
type TcpLoad private (flowCount: int, congestion: string) =
    static let timeoutMs = 20_000 // without any progress
    static let tcp = 6 // IPPROTO_TCP
    static let block: byte[] = GC.AllocateArray(1 <<< 24, pinned = true)

    // One slot a cache line: each is written by one thread and read by the one that measures.
    static let stride = 16
    let received: int64[] = Array.zeroCreate ((flowCount + 1) * stride)
    let sending: Socket[] = Array.zeroCreate flowCount
    let receiving: Socket[] = Array.zeroCreate flowCount
    let mutable tasks: Task<unit> list = []
    let mutable isStopping = false
    let mutable failure: exn option = None

    let newSocket () =
        let socket =
            new Socket(
                AddressFamily.InterNetwork,
                SocketType.Stream,
                ProtocolType.Tcp,
                SendTimeout = timeoutMs,
                ReceiveTimeout = timeoutMs,
                LingerState = LingerOption(true, 0) // the end is a reset: nothing is left to drain
            )

        // TCP_SYNCNT and TCP_CONGESTION (linux/tcp.h): give up connecting after 15 s; an accepted socket has the congestion
        // control of the listening one.
        socket.SetRawSocketOption(tcp, 7, ReadOnlySpan(BitConverter.GetBytes 3))
        socket.SetRawSocketOption(tcp, 13, ReadOnlySpan(Encoding.ASCII.GetBytes congestion))
        socket

    /// What ends a flow before its time is kept for the one who measures.
    let guarded (body: unit -> unit) () =
        try
            body ()
        with error ->
            if not (Volatile.Read &isStopping) then
                failure <- Some error

    let send (socket: Socket) () =
        while not (Volatile.Read &isStopping) do
            socket.Send block |> ignore

    let sink (socket: Socket) (flow: int) () =
        let buffer: byte[] = Array.zeroCreate (1 <<< 20) // its length is the most that is discarded at once
        let mutable count = 1

        while count > 0 && not (Volatile.Read &isStopping) do
            count <- socket.Receive(buffer, SocketFlags.Truncated)
            Volatile.Write(&received[flow * stride], received[flow * stride] + int64 count)

        if not (Volatile.Read &isStopping) then
            raise (LabException "the other end closed the connection")

    /// Bytes that have arrived so far, of all flows. Raises what broke a flow.
    member _.Received: int64 =
        failure |> Option.iter raise
        Seq.init flowCount (fun flow -> Volatile.Read &received[flow * stride]) |> Seq.sum

    /// Segments that the senders have sent again so far.
    member _.Retransmits: int64 = sending |> Seq.sumBy (TcpInfo.Of >> _.Retransmits)

    member private _.Open (listener: Listener) (dialers: string list) (isDownload: bool) =
        use listening =
            Netns.run listener.Netns (fun () ->
                let socket = newSocket ()
                socket.Bind(IPEndPoint(IPAddress.Parse listener.Address, 0))
                socket.Listen flowCount
                socket)

        for flow, dialer in List.indexed dialers do
            let dialed = Netns.run dialer newSocket
            dialed.Connect listening.LocalEndPoint
            let accepted = listening.Accept()
            accepted.SendTimeout <- timeoutMs
            accepted.ReceiveTimeout <- timeoutMs
            accepted.LingerState <- LingerOption(true, 0)

            let sender, receiver = if isDownload then accepted, dialed else dialed, accepted

            sending[flow] <- sender
            receiving[flow] <- receiver

        // Threads in a namespace are threads of their own. The sockets are in theirs for life, so any would do.
        tasks <-
            [ for flow in 0 .. flowCount - 1 do
                  Netns.start listener.Netns (guarded (sink receiving[flow] flow))
                  Netns.start listener.Netns (guarded (send sending[flow])) ]

    /// One connection for each entry of `dialers`, from that namespace to the listener, which sends (download) or
    /// receives. `congestion` names the kernel's congestion control (not the machine's default, which may be any). Raises SocketException when a connection does not come about.
    static member Start(listener: Listener, dialers: string list, isDownload: bool, congestion: string) : TcpLoad =
        let load = new TcpLoad(dialers.Length, congestion)

        try
            load.Open listener dialers isDownload
            load
        with _ ->
            (load :> IDisposable).Dispose()
            reraise ()

    interface IDisposable with
        member _.Dispose() =
            Volatile.Write(&isStopping, true)

            for socket in Seq.append receiving sending do
                if not (isNull socket) then
                    socket.Dispose() // ends what blocks on it

            Task.WaitAll([| for task in tasks -> task :> Task |], timeoutMs) |> ignore

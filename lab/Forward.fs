namespace Lightway.Lab

open System
open System.Net
open System.Net.Sockets
open System.Threading

/// A TCP port of this machine's loopback that leads to a port of a namespace's loopback, so that programs outside of it, such
/// as a browser, reach a server inside. Until Dispose.
type Forward(netns: string, port: int) =
    let listener = new TcpListener(IPAddress.Loopback, 0)
    let mutable isStopping = false

    /// Copies until the source ends, and passes the end on.
    let pump (source: Socket) (target: Socket) =
        let copy () =
            let buffer: byte[] = Array.zeroCreate 65536

            try
                let mutable count = source.Receive buffer

                while count > 0 do
                    target.Send(buffer, 0, count, SocketFlags.None) |> ignore
                    count <- source.Receive buffer

                target.Shutdown SocketShutdown.Send
            with
            | :? SocketException
            | :? ObjectDisposedException -> target.Close()

        Thread(copy, IsBackground = true).Start()

    let connect () =
        let socket =
            new Socket(AddressFamily.InterNetwork, SocketType.Stream, ProtocolType.Tcp, NoDelay = true)

        try
            socket.Connect(IPAddress.Loopback, port)
            Some socket
        with :? SocketException ->
            socket.Dispose()
            None

    let accept () =
        try
            while not (Volatile.Read &isStopping) do
                let outer = listener.AcceptSocket()
                outer.NoDelay <- true

                match Netns.run netns connect with
                | Some inner ->
                    pump outer inner
                    pump inner outer
                | None -> outer.Close()
        with
        | :? SocketException
        | :? ObjectDisposedException -> ()

    do
        listener.Start()
        Thread(accept, IsBackground = true).Start()

    member _.Port = (listener.LocalEndpoint :?> IPEndPoint).Port
    member this.Url = $"http://127.0.0.1:{this.Port}"

    interface IDisposable with
        member _.Dispose() =
            Volatile.Write(&isStopping, true)
            listener.Stop()

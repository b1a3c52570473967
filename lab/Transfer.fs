/// Traffic between namespaces whose content is checked at the far end. Sockets block; each end has a thread of its own.
namespace Lightway.Lab

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Diagnostics
open System.Net
open System.Net.Sockets
open System.Security.Cryptography
open System.Text
open System.Threading

/// What happened to a stream of bytes.
type StreamResult =
    { Bytes: int64 // that arrived
      Seconds: float // from the first byte sent until the last one arrived
      SentHash: string // SHA-256, lower-case hexadecimal, computed while sending
      ReceivedHash: string // the same, computed while receiving
      LongestWait: TimeSpan // for the next byte, or for the end, at the receiver
      Sender: TcpInfo } // when all was acknowledged

    member this.IsIntact = this.SentHash = this.ReceivedHash
    member this.MegabitsPerSecond = float this.Bytes * 8.0 / this.Seconds / 1e6

/// What happened to datagrams of which each carries its number and content that follows from it.
type DatagramResult =
    { Sent: int
      Arrived: int // different ones, whole
      Corrupt: int } // anything else that arrived: altered, cut, or a second time

/// Where an end of a transfer is: a namespace and, for the end that listens, its address.
type Listener = { Netns: string; Address: string }

[<RequireQualifiedAccess>]
module Transfer =
    let private chunkLength = 256 * 1024
    let private timeoutMs = 20_000 // without any progress

    /// 64 MiB of random bytes. A stream goes over it again and again, each time from another offset: making random
    /// bytes costs more than carrying them.
    let private block = lazy (RandomNumberGenerator.GetBytes(64 * 1024 * 1024))

    let private hexOf (hash: IncrementalHash) =
        Convert.ToHexStringLower(hash.GetHashAndReset())

    let private send (socket: Socket) (length: int64) : string =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256
        let random = block.Value
        let mutable left = length
        let mutable offset = 0
        let mutable round = 0

        while left > 0L do
            let count = int (min left (int64 (min chunkLength (random.Length - offset))))
            let chunk = ReadOnlySpan(random, offset, count)
            hash.AppendData chunk
            let mutable sent = 0

            while sent < count do
                sent <- sent + socket.Send(chunk.Slice sent)

            left <- left - int64 count
            offset <- offset + count

            if offset = random.Length then
                round <- round + 1
                offset <- round * 4099 % random.Length

        socket.Shutdown SocketShutdown.Send
        hexOf hash

    /// Bytes, hash, and the longest wait.
    let private receive (socket: Socket) : struct (int64 * string * TimeSpan) =
        use hash = IncrementalHash.CreateHash HashAlgorithmName.SHA256
        let buffer: byte[] = Array.zeroCreate chunkLength
        let mutable total = 0L
        let mutable longest = TimeSpan.Zero

        let next () =
            let since = Stopwatch.GetTimestamp()
            let count = socket.Receive buffer
            struct (count, Stopwatch.GetElapsedTime since)

        let mutable isOpen = true

        while isOpen do
            let struct (count, wait) = next ()
            longest <- max longest wait
            isOpen <- count > 0
            hash.AppendData(ReadOnlySpan(buffer, 0, count))
            total <- total + int64 count

        struct (total, hexOf hash, longest)

    let private tcpSocket () =
        new Socket(
            AddressFamily.InterNetwork,
            SocketType.Stream,
            ProtocolType.Tcp,
            NoDelay = true,
            SendTimeout = timeoutMs,
            ReceiveTimeout = timeoutMs
        )

    /// SO_MAX_PACING_RATE (asm-generic/socket.h), bytes per second: TCP spaces its segments itself (tcp(7)).
    let private pace (socket: Socket) (bytesPerSecond: uint32) =
        socket.SetRawSocketOption(1, 47, ReadOnlySpan(BitConverter.GetBytes bytesPerSecond))

    /// One TCP connection from `dialer` to `listener`; one end sends `length` bytes, the other reads to the end.
    /// `prepare` sees the socket of the end that sends before anything is sent.
    let private stream
        (listener: Listener)
        (dialer: string)
        isListenerSending
        (length: int64)
        (prepare: Socket -> unit)
        =
        block.Force() |> ignore // before the clock starts

        use listening =
            Netns.run listener.Netns (fun () ->
                let socket = tcpSocket ()
                socket.Bind(IPEndPoint(IPAddress.Parse listener.Address, 0))
                socket.Listen()
                socket)

        /// Also the sender waits for the other end to close: then all is acknowledged.
        let transfer (socket: Socket) isSending : struct (int64 * string * TimeSpan * TcpInfo) =
            if isSending then
                let hash = send socket length
                socket.Receive(Array.zeroCreate<byte> 1) |> ignore
                struct (length, hash, TimeSpan.Zero, TcpInfo.Of socket)
            else
                let struct (bytes, hash, longest) = receive socket
                struct (bytes, hash, longest, TcpInfo.Of socket)

        let clock = Stopwatch()

        let accepting =
            Netns.start listener.Netns (fun () ->
                if not (listening.Poll(TimeSpan.FromMilliseconds(float timeoutMs), SelectMode.SelectRead)) then
                    raise (TimeoutException "no connection came")

                use socket = listening.Accept()
                socket.SendTimeout <- timeoutMs
                socket.ReceiveTimeout <- timeoutMs

                if isListenerSending then
                    prepare socket

                transfer socket isListenerSending)

        let dialing =
            Netns.start dialer (fun () ->
                use socket = tcpSocket ()
                socket.Connect listening.LocalEndPoint

                if not isListenerSending then
                    prepare socket

                clock.Start()
                let outcome = transfer socket (not isListenerSending)

                // The end of a download is known here; that of an upload when the other end has read it all.
                if isListenerSending then
                    clock.Stop()

                outcome)

        let dialed = dialing.GetAwaiter().GetResult()
        let accepted = accepting.GetAwaiter().GetResult()
        clock.Stop()

        let struct (_, sentHash, _, sender), struct (bytes, receivedHash, longest, _) =
            if isListenerSending then
                accepted, dialed
            else
                dialed, accepted

        { Bytes = bytes
          Seconds = clock.Elapsed.TotalSeconds
          SentHash = sentHash
          ReceivedHash = receivedHash
          LongestWait = longest
          Sender = sender }

    /// The listener sends `length` bytes, the dialer receives them. Raises SocketException when nothing moves for 20 s.
    let download (listener: Listener) (dialer: string) (length: int64) : StreamResult =
        stream listener dialer true length ignore

    /// A download that is no faster than this, so that it takes at least as long as the caller needs it to.
    let pacedDownload (listener: Listener) (dialer: string) (length: int64) (bytesPerSecond: uint32) : StreamResult =
        stream listener dialer true length (fun socket -> pace socket bytesPerSecond)

    /// A download with this congestion control (TCP_CONGESTION, linux/tcp.h) and not the machine's default: BBR, which that may
    /// be, takes no notice of congestion marks.
    let controlledDownload (listener: Listener) (dialer: string) (length: int64) (congestion: string) : StreamResult =
        stream listener dialer true length (fun socket ->
            socket.SetRawSocketOption(6, 13, ReadOnlySpan(Encoding.ASCII.GetBytes congestion)))

    /// The dialer sends `length` bytes, the listener receives them. Raises SocketException when nothing moves for 20 s.
    let upload (listener: Listener) (dialer: string) (length: int64) : StreamResult =
        stream listener dialer false length ignore

    /// An upload at this rate at most.
    let pacedUpload (listener: Listener) (dialer: string) (length: int64) (bytesPerSecond: uint32) : StreamResult =
        stream listener dialer false length (fun socket -> pace socket bytesPerSecond)

    /// Datagram `number` of `length` bytes (at least 8): its number, its length, then bytes that follow from both.
    let private writeDatagram (number: int) (datagram: Span<byte>) =
        BinaryPrimitives.WriteInt32BigEndian(datagram, number)
        BinaryPrimitives.WriteInt32BigEndian(datagram.Slice 4, datagram.Length)
        let mutable state = uint64 number * 0x9E3779B97F4A7C15UL + uint64 datagram.Length

        for i in 8 .. datagram.Length - 1 do
            state <- state * 6364136223846793005UL + 1442695040888963407UL
            datagram[i] <- byte (state >>> 56)

    /// The number of a datagram that is exactly as it was sent, else -1.
    let private numberOf (datagram: ReadOnlySpan<byte>) =
        if datagram.Length < 8 then
            -1
        else
            let number = BinaryPrimitives.ReadInt32BigEndian datagram
            let expected: byte[] = Array.zeroCreate datagram.Length
            writeDatagram number (expected.AsSpan())

            if datagram.SequenceEqual(ReadOnlySpan expected) then
                number
            else
                -1

    let private udpSocket (address: IPAddress) =
        let socket =
            new Socket(
                AddressFamily.InterNetwork,
                SocketType.Dgram,
                ProtocolType.Udp,
                ReceiveBufferSize = 8 * 1024 * 1024,
                DontFragment = false // with DF, each path MTU that is found costs a datagram
            )

        // SO_RCVBUFFORCE (asm-generic/socket.h): a window of the longest datagrams must fit, and net.core.rmem_max may be less.
        try
            socket.SetRawSocketOption(1, 33, ReadOnlySpan(BitConverter.GetBytes(8 * 1024 * 1024)))
        with :? SocketException ->
            ()

        socket.Bind(IPEndPoint(address, 0))
        socket

    /// Gathers datagrams until all `count` have come, or none has for `silenceMs`. `onIntact` sees each new whole one.
    let private collect (socket: Socket) (count: int) (silenceMs: int) (onIntact: EndPoint -> byte[] -> int -> unit) =
        let buffer: byte[] = Array.zeroCreate 65536
        let seen = HashSet<int>()
        let mutable corrupt = 0
        let mutable isOpen = true
        let mutable peer: EndPoint = IPEndPoint(IPAddress.Any, 0)

        while isOpen && seen.Count < count do
            if socket.Poll(TimeSpan.FromMilliseconds(float silenceMs), SelectMode.SelectRead) then
                let length = socket.ReceiveFrom(buffer, &peer)
                let number = numberOf (ReadOnlySpan(buffer, 0, length))

                if number >= 0 && seen.Add number then
                    onIntact peer buffer length
                else
                    corrupt <- corrupt + 1
            else
                isOpen <- false

        struct (seen.Count, corrupt)

    /// Datagrams on the way at most: fewer than the shortest queue takes (a TUN device's, 500 packets), however long the
    /// programs in between have to wait for a processor.
    let private window = 100

    let private silenceMs = 10_000 // longer than a busy machine holds a program up

    /// Sends all, never more than `window` ahead of what `arrived` says; what got lost holds things up, not for ever.
    /// `burst` datagrams, all of one length, leave in one send (UDP_SEGMENT, linux/udp.h); 1: each alone.
    let private sendAll (socket: Socket) (destination: EndPoint) (lengths: int[]) burst (arrived: unit -> int) =
        let buffer: byte[] = Array.zeroCreate 65536
        let mutable sent = 0
        let mutable lost = 0

        if burst > 1 then
            socket.SetRawSocketOption(17, 103, ReadOnlySpan(BitConverter.GetBytes lengths[0]))

        for lengths in Array.chunkBySize burst lengths do
            let patience = Stopwatch.StartNew()

            while sent + lengths.Length - arrived () - lost > window do
                Thread.Sleep 1

                if patience.ElapsedMilliseconds > int64 silenceMs / 2L then
                    lost <- sent - arrived ()

            let mutable at = 0

            for length in lengths do
                writeDatagram sent (buffer.AsSpan(at, length))
                at <- at + length
                sent <- sent + 1

            socket.SendTo(buffer, 0, at, SocketFlags.None, destination) |> ignore

    /// Sends datagrams of these lengths (8 to 65507 bytes) from `sender` to `receiver`.
    let udpOneWay (receiver: Listener) (sender: string) (lengths: int[]) : DatagramResult =
        use receiving =
            Netns.run receiver.Netns (fun () -> udpSocket (IPAddress.Parse receiver.Address))

        let arrived = ref 0

        let collecting =
            Netns.start receiver.Netns (fun () ->
                collect receiving lengths.Length silenceMs (fun _ _ _ -> Interlocked.Increment arrived |> ignore))

        Netns.run sender (fun () ->
            use socket = udpSocket IPAddress.Any
            sendAll socket receiving.LocalEndPoint lengths 1 (fun () -> Volatile.Read &arrived.contents))

        let struct (arrived, corrupt) = collecting.GetAwaiter().GetResult()

        { Sent = lengths.Length
          Arrived = arrived
          Corrupt = corrupt }

    /// Sends datagrams of these lengths (8 to 65507 bytes) to `echo`, which sends each whole one back: both directions.
    let udpEcho (echo: Listener) (sender: string) (lengths: int[]) : DatagramResult =
        use echoing =
            Netns.run echo.Netns (fun () -> udpSocket (IPAddress.Parse echo.Address))

        let sendBack peer (datagram: byte[]) length =
            echoing.SendTo(datagram, 0, length, SocketFlags.None, peer) |> ignore

        let answering =
            Netns.start echo.Netns (fun () -> collect echoing lengths.Length silenceMs sendBack)

        use socket = Netns.run sender (fun () -> udpSocket IPAddress.Any)

        let returned = ref 0

        let collecting =
            Netns.start sender (fun () ->
                collect socket lengths.Length silenceMs (fun _ _ _ -> Interlocked.Increment returned |> ignore))

        Netns.run sender (fun () ->
            sendAll socket echoing.LocalEndPoint lengths 1 (fun () -> Volatile.Read &returned.contents))

        let struct (arrived, corrupt) = collecting.GetAwaiter().GetResult()
        let struct (_, corruptThere) = answering.GetAwaiter().GetResult()

        { Sent = lengths.Length
          Arrived = arrived
          Corrupt = corrupt + corruptThere }

    /// Where a datagram of `client` seems to come from at `socket`: its address inside is not known there.
    let private peerOf (socket: Socket) (client: Socket) : EndPoint =
        let hello: byte[] = Array.zeroCreate 1
        let clock = Stopwatch.StartNew()
        client.SendTo(hello, socket.LocalEndPoint) |> ignore

        while not (socket.Poll(TimeSpan.FromMilliseconds 200.0, SelectMode.SelectRead)) do
            if clock.ElapsedMilliseconds > int64 timeoutMs then
                raise (LabException "no datagram of the client has arrived at the remote")

            client.SendTo(hello, socket.LocalEndPoint) |> ignore

        let mutable peer: EndPoint = IPEndPoint(IPAddress.Any, 0)
        socket.ReceiveFrom(hello, &peer) |> ignore
        peer

    /// Datagrams of 1200 bytes, 32 in one send by UDP_SEGMENT, as QUIC servers do: from the remote to the client
    /// (download) or back.
    let udpBursts (remote: Listener) (client: string) (isDownload: bool) (bursts: int) : DatagramResult =
        let burst = 32
        let lengths = Array.replicate (bursts * burst) 1200

        use there =
            Netns.run remote.Netns (fun () -> udpSocket (IPAddress.Parse remote.Address))

        use here = Netns.run client (fun () -> udpSocket IPAddress.Any)
        let arrived = ref 0

        let sender, receiver, destination =
            if isDownload then
                there, here, peerOf there here
            else
                here, there, there.LocalEndPoint

        let collecting =
            Netns.start client (fun () ->
                collect receiver lengths.Length silenceMs (fun _ _ _ -> Interlocked.Increment arrived |> ignore))

        Netns.run client (fun () ->
            sendAll sender destination lengths burst (fun () -> Volatile.Read &arrived.contents))

        let struct (arrived, corrupt) = collecting.GetAwaiter().GetResult()

        { Sent = lengths.Length
          Arrived = arrived
          Corrupt = corrupt }

    /// Echo requests 50 ms apart. ping(8) waits for the last answer for `seconds` only if none has come before it.
    let private pings (netns: string) (address: string) (count: int) (length: int) (seconds: int) : int =
        let arguments =
            [ "netns"; "exec"; netns; "ping"; "-n"; "-q"; "-i"; "0.05"; "-W"; string seconds ]
            @ [ "-c"; string count; "-s"; string length; address ]

        match Shell.tryRun "ip" arguments with
        | struct ((0 | 1), output, _) ->
            let received = RegularExpressions.Regex.Match(output, @"(\d+) received")
            int received.Groups[1].Value
        | struct (_, _, errors) when errors.Contains "Network is unreachable" -> 0 // the client's routes are not there yet
        | struct (_, _, errors) -> raise (LabException $"ping {address}: {errors.Trim()}")

    /// Sends `count` ICMP echo requests of `length` payload bytes; the number of answers, 0 without a route. A single one is
    /// waited for a second, so that the caller can ask again; a few are sent one by one, and each has time on a busy machine.
    let ping (netns: string) (address: string) (count: int) (length: int) : int =
        if count > 1 && count <= 5 then
            List.init count (fun _ -> pings netns address 1 length 5) |> List.sum
        else
            pings netns address count length 1

namespace Lightway.Tests

open System
open System.Buffers.Binary
open System.IO
open System.Net
open System.Net.Security
open System.Net.Sockets
open System.Security.Authentication
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Tls

/// A peer over TCP that says what a test tells it to: .NET's own TLS, and frames by the protocol's writers. Every call
/// blocks for at most 30 s.
[<Sealed>]
type StreamPeer(netns: string, server: IPEndPoint) =
    let timeoutMs = 30_000

    let socket =
        Netns.run netns (fun () ->
            let socket =
                new Socket(
                    server.AddressFamily,
                    SocketType.Stream,
                    ProtocolType.Tcp,
                    SendTimeout = timeoutMs,
                    ReceiveTimeout = timeoutMs,
                    NoDelay = true
                )

            socket.Connect server
            socket)

    let stream = new NetworkStream(socket, ownsSocket = true)

    let tls =
        new SslStream(stream, false, RemoteCertificateValidationCallback(fun _ _ _ _ -> true))

    let received = new MemoryStream()
    let buffer: byte[] = Array.zeroCreate 65536

    /// Takes the first whole frame out of what has been received.
    let tryTake () : struct (FrameKind * byte[]) option =
        let bytes = received.ToArray()
        let mutable frame = Unchecked.defaultof<Frame>

        if Frame.tryParse (ReadOnlySpan bytes, &frame) = FrameStatus.Ok then
            received.SetLength 0L
            received.Write(bytes, frame.Length, bytes.Length - frame.Length)
            Some(struct (frame.Kind, Array.sub bytes frame.PayloadOffset frame.PayloadLength))
        else
            None

    static member Ping(id: uint16) : byte[] =
        let bytes: byte[] = Array.zeroCreate Frame.PingHeaderSize
        Frame.writePing (id, ReadOnlySpan<byte>.Empty, Span bytes) |> ignore
        bytes

    static member Data(packet: byte[]) : byte[] =
        let bytes: byte[] = Array.zeroCreate (Frame.DataHeaderSize + packet.Length)
        Frame.writeData (ReadOnlySpan packet, Span bytes) |> ignore
        bytes

    static member Auth(user: string, password: string) : byte[] =
        let bytes: byte[] = Array.zeroCreate AuthRequest.MaxSize

        let length =
            AuthRequest.write (AuthRequest.userPassword (user, Text.Encoding.UTF8.GetBytes password), Span bytes)

        Array.sub bytes 0 length

    member _.Socket = socket

    /// Bytes outside of TLS.
    member _.SendRaw(bytes: byte[]) =
        let mutable sent = 0

        while sent < bytes.Length do
            sent <- sent + socket.Send(bytes, sent, bytes.Length - sent, SocketFlags.None)

    member _.Handshake() =
        tls.AuthenticateAsClient(
            SslClientAuthenticationOptions(TargetHost = "vpn.example.com", EnabledSslProtocols = SslProtocols.Tls13)
        )

    /// One record.
    member _.Send(bytes: byte[]) = tls.Write(bytes, 0, bytes.Length)

    /// The next frame; None at the end of the stream, however that comes.
    member this.Receive() : struct (FrameKind * byte[]) option =
        match tryTake () with
        | Some frame -> Some frame
        | None ->
            let count =
                try
                    tls.Read(buffer, 0, buffer.Length)
                with
                | :? IOException as error when
                    (match error.InnerException with
                     | :? SocketException as inner -> inner.SocketErrorCode = SocketError.TimedOut
                     | _ -> false)
                    ->
                    raise (TimeoutException("no frame within 30 s", error))
                | :? IOException -> 0

            if count = 0 then
                None
            else
                received.Write(buffer, 0, count)
                this.Receive()

    /// The next frame of this kind, others are passed over; None at the end of the stream.
    member this.Await(kind: FrameKind) : byte[] option =
        match this.Receive() with
        | Some(struct (found, payload)) when found = kind -> Some payload
        | Some _ -> this.Await kind
        | None -> None

    /// Handshake and login; whether it is in.
    member this.Login(user: string, password: string) : bool =
        this.Handshake()
        this.Send(StreamPeer.Auth(user, password))

        match this.Receive() with
        | Some(struct (FrameKind.AuthSuccess, _)) -> true
        | _ -> false

    /// A ping and its answer.
    member this.IsAnswered() : bool =
        this.Send(StreamPeer.Ping 0us)
        this.Await(FrameKind.Pong).IsSome

    /// Ends the connection as a crash does: a reset.
    member _.Reset() =
        socket.LingerState <- LingerOption(true, 0)
        socket.Close()

    /// Ends the stream without close_notify.
    member _.End() = socket.Close()

    /// close_notify, and the end.
    member _.Shutdown() =
        tls.ShutdownAsync().GetAwaiter().GetResult()
        socket.Close()

    interface IDisposable with
        member _.Dispose() =
            try
                tls.Dispose()
            with :? IOException ->
                ()

            socket.Dispose()
            received.Dispose()

/// A peer that changes its keys again and again, which .NET's TLS can't, by wolfSSL. It reads nothing after the login.
[<Sealed>]
type RestlessPeer(netns: string, server: IPEndPoint, authority: byte[]) =
    let socket =
        Netns.run netns (fun () ->
            let socket =
                new Socket(server.AddressFamily, SocketType.Stream, ProtocolType.Tcp, ReceiveTimeout = 30_000)

            socket.Connect server
            socket)

    let context =
        TlsContext.ForClient(
            ReadOnlySpan authority,
            null,
            false,
            KeyShare.X25519MlKem768,
            TlsContext.DefaultOutsideMtu,
            Transport.Stream
        )

    let sink =
        { new IRecordSink with
            member _.SendRecord(record) =
                let mutable error = SocketError.Success
                socket.Send(record, SocketFlags.None, &error) |> ignore }

    let session = new TlsSession(context, Sink = sink)
    let buffer: byte[] = Array.zeroCreate 65536
    let plaintext: byte[] = Array.zeroCreate 65536

    let step (bytes: byte[]) =
        let mutable stream = ReadOnlySpan bytes

        if session.IsEstablished then
            let mutable length = 0
            session.Receive(&stream, Span plaintext, &length) |> ignore
            length
        else
            session.Handshake(&stream) |> ignore
            0

    /// Handshake and login; whether something came back.
    member _.Login(user: string, password: string) : bool =
        let read () = buffer[.. socket.Receive buffer - 1]

        step [||] |> ignore

        while not session.IsEstablished do
            step (read ()) |> ignore

        session.Write(ReadOnlySpan(StreamPeer.Auth(user, password))) |> ignore
        let mutable length = 0

        while length = 0 do
            length <- step (read ())

        true

    /// Asks for new keys this number of times.
    member _.UpdateKeys(count: int) =
        for _ in 1..count do
            session.StartKeyUpdate() |> ignore

    interface IDisposable with
        member _.Dispose() =
            session.Dispose()
            context.Dispose()
            socket.Dispose()

/// An ICMP echo request, and its answer, as inside packets.
[<RequireQualifiedAccess>]
module Echo =
    let private header = 28 // IPv4 and ICMP

    let request (source: string) (destination: string) (id: int) (length: int) : byte[] =
        let packet: byte[] = Array.zeroCreate (header + length)
        packet[0] <- 0x45uy
        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, 2, 2), uint16 packet.Length)
        packet[8] <- 64uy
        packet[9] <- 1uy
        (IPAddress.Parse source).GetAddressBytes().CopyTo(packet, 12)
        (IPAddress.Parse destination).GetAddressBytes().CopyTo(packet, 16)

        let sum (from: int) length =
            Checksum.complement (Checksum.sum (ReadOnlySpan(packet, from, length)))

        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, 10, 2), sum 0 20)
        packet[20] <- 8uy
        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, 24, 2), uint16 id)

        for i in 0 .. length - 1 do
            packet[header + i] <- byte (id + i)

        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, 22, 2), sum 20 (packet.Length - 20))
        packet

    /// The packet is the answer to this request, content and all.
    let isAnswer (request: byte[]) (packet: byte[]) : bool =
        packet.Length = request.Length
        && packet[9] = 1uy
        && packet[20] = 0uy
        && packet[24..] = request[24..]

namespace Lightway.Lab.Pests

open System
open System.Buffers.Binary
open System.Collections.Generic
open System.Diagnostics
open System.Net
open System.Net.Sockets
open System.Threading
open System.Text
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Packets
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// One client of a crowd: the real engine without a TUN, on a socket of its own.
[<Sealed; AllowNullLiteral>]
type Guest internal (crowd: Crowd, key: PeerAddress, source: IPAddress, session: DtlsSession) =
    let bind () =
        let socket =
            new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

        socket.Blocking <- false
        socket.ReceiveBufferSize <- 1 <<< 20
        socket.Bind(IPEndPoint(source, 0))
        socket.Connect crowd.Server
        socket

    let mutable socket = bind ()
    let mutable spare: Socket = null
    let started = Stopwatch.StartNew()
    let sent = Queue<byte[]>()
    let frame: byte[] = Array.zeroCreate 2048

    member internal _.Key = key
    member internal _.Socket = socket
    member val Connection: Connection = null with get, set

    /// The datagrams that came back.
    member val Answers = 0L with get, set

    /// Until it was Online.
    member val LoginTime: TimeSpan voption = ValueNone with get, set
    member val Closed: TunnelError voption = ValueNone with get, set

    /// The address that it has inside.
    member val Inside = Ipv4Address.None with get, set

    /// Since it joined.
    member _.Age = started.Elapsed

    /// Sends that the kernel refused.
    member val Refused = 0L with get, set

    /// Keep what is sent instead of sending it.
    member val IsHolding = false with get, set

    /// How many of the latest datagrams are remembered.
    member val Remembers = 0 with get, set

    /// The latest datagrams that were sent, or would have been; oldest first.
    member _.Latest = sent

    /// Puts a datagram on the wire as it is.
    member this.SendRaw(datagram: ReadOnlySpan<byte>) =
        let mutable error = SocketError.Success
        socket.Send(datagram, SocketFlags.None, &error) |> ignore

        if error <> SocketError.Success then
            this.Refused <- this.Refused + 1L

    member internal this.Send(datagram: ReadOnlySpan<byte>) =
        if this.IsHolding || this.Remembers > 0 then
            sent.Enqueue(datagram.ToArray())

            if not this.IsHolding && sent.Count > this.Remembers then
                sent.Dequeue() |> ignore

        if not this.IsHolding then
            this.SendRaw datagram

    /// Seals frames into one DTLS record, whatever the connection would say to that.
    member _.Seal(frames: ReadOnlySpan<byte>) = session.Write frames |> ignore

    /// Seals one ping.
    member this.Ping(id: int) =
        frame[0] <- byte FrameKind.Ping
        BinaryPrimitives.WriteUInt16BigEndian(Span(frame, 1, 2), uint16 id)
        BinaryPrimitives.WriteUInt16BigEndian(Span(frame, 3, 2), 0us)
        this.Seal(ReadOnlySpan(frame, 0, Frame.PingHeaderSize))

    /// Sends one packet from inside by the connection's own path, Expresslane if it is ready; it leaves at the next step.
    member this.SendInside(packet: byte[]) =
        let room = 64 // for what comes before a packet
        let buffer: byte[] = Array.append (Array.zeroCreate room) packet
        this.Connection.BeginInside Environment.TickCount64
        this.Connection.TrySend(Span buffer, room, packet.Length) |> ignore

    /// Seals one packet from inside into a DTLS record, at most 1400 bytes.
    member this.Packet(packet: ReadOnlySpan<byte>) =
        frame[0] <- byte FrameKind.Data
        BinaryPrimitives.WriteUInt16BigEndian(Span(frame, 1, 2), uint16 packet.Length)
        packet.CopyTo(Span(frame, Frame.DataHeaderSize, packet.Length))
        this.Seal(ReadOnlySpan(frame, 0, Frame.DataHeaderSize + packet.Length))

    /// What `action` would send, without sending it.
    member this.Hold(action: unit -> unit) : byte[] list =
        this.IsHolding <- true
        sent.Clear()

        try
            action ()
            List.ofSeq sent
        finally
            sent.Clear()
            this.IsHolding <- false

    /// Goes on from another port, and from the first one at the next call.
    member _.ChangePort() =
        let other = if isNull spare then bind () else spare
        spare <- socket
        socket <- other

    interface IConnectionEvents with
        member this.StateChanged connection =
            if connection.State = ConnectionState.Online then
                this.LoginTime <- ValueSome started.Elapsed

        member this.Closed(_, reason) = this.Closed <- ValueSome reason

    interface IClientEvents with
        member this.Authenticated(_, success) = this.Inside <- success.LocalIp

    interface IDisposable with
        /// Says nothing to the server.
        member this.Dispose() =
            this.Connection.Dispose()
            socket.Dispose()

            if not (isNull spare) then
                spare.Dispose()

/// Clients in one process and on one thread, in the namespace of that thread: some that are as they should be, or many
/// that are not.
and [<Sealed>] Crowd(target: Target) =
    let guests = Dictionary<PeerAddress, Guest>()
    let buffer: byte[] = Array.zeroCreate 65536
    let mutable number = 0

    let tls =
        TlsContext.ForClient(ReadOnlySpan target.Ca, null, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

    // All share one worker; each has an address of its own there, which says whose socket is meant.
    let sender =
        { new IDatagramSender with
            member _.Send(path, data, segmentSize, _tos) =
                let guest = guests[path.Peer]
                let step = if segmentSize = 0 then max 1 data.Length else segmentSize
                let mutable at = 0

                while at < data.Length do
                    let length = min step (data.Length - at)
                    guest.Send(data.Slice(at, length))
                    at <- at + length

                data.Length

            member this.Send(runs: ReadOnlySpan<DatagramRun>, bytes: ReadOnlySpan<byte>) =
                for run in runs do
                    let path = run.Path
                    this.Send(&path, bytes.Slice(run.Start, run.Length), run.SegmentSize, run.Tos) |> ignore

                runs.Length }

    let context =
        new WorkerContext(sender, ScriptedTun(false, Discard = true), Offload.None, null)

    let remove (guest: Guest) =
        guests.Remove guest.Key |> ignore
        (guest :> IDisposable).Dispose()

    let receive (guest: Guest) (now: int64) =
        let mutable error = SocketError.Success

        while error = SocketError.Success && guest.Closed.IsNone do
            let count = guest.Socket.Receive(Span buffer, SocketFlags.None, &error)
            let mutable header = Unchecked.defaultof<WireHeader>

            if error = SocketError.Success then
                guest.Answers <- guest.Answers + 1L

                if WireHeader.tryParse (ReadOnlySpan(buffer, 0, count), &header) = WireError.None then
                    let body = ReadOnlySpan(buffer, WireHeader.Size, count - WireHeader.Size)
                    guest.Connection.Receive(&header, body, now) |> ignore

    member _.Server = target.Server

    /// Guests that are there.
    member _.Guests = List.ofSeq guests.Values

    /// Starts a client from a local address. Without a password it stops before its login; its handshake is complete then.
    member this.Join(source: IPAddress, user: string, password: string | null, expresslane: bool) : Guest =
        number <- number + 1
        let key = PeerAddress(IPEndPoint(IPAddress(int64 number), 1))
        let path = OutsideAddress(key, LocalAddress())
        let session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty)
        let guest = new Guest(this, key, source, session)

        let settings =
            match password with
            | null -> ConnectionSettings(Role = Role.Client, EnableExpresslane = expresslane)
            | password ->
                ConnectionSettings(
                    Role = Role.Client,
                    EnableExpresslane = expresslane,
                    Credentials = AuthRequest.userPassword (user, Encoding.UTF8.GetBytes password)
                )

        let now = Environment.TickCount64
        guests.Add(key, guest)
        guest.Connection <- Connection.ForClient(settings, context, guest, session, &path, now)
        guest.Connection.Start now
        context.Timers.Schedule guest.Connection
        guest

    /// The one who may log in.
    member this.Join() : Guest =
        this.Join(IPAddress.Any, target.User, target.Password, false)

    /// Receives what has come, and runs what is due.
    member _.Step() =
        let now = Environment.TickCount64

        for guest in List.ofSeq guests.Values do
            receive guest now

        context.Timers.Run now
        context.ToInside.Flush()
        context.ToOutside.Flush() |> ignore

    /// Takes those out that have ended.
    member _.RemoveClosed() : Guest list =
        let closed = guests.Values |> Seq.filter _.Closed.IsSome |> List.ofSeq
        closed |> List.iter remove
        closed

    /// Takes one out that says nothing to the server.
    member _.Remove(guest: Guest) = remove guest

    /// Goes on until the condition holds or the time is over; whether it holds.
    member this.RunUntil(timeout: TimeSpan, condition: unit -> bool) : bool =
        let clock = Stopwatch.StartNew()
        let mutable isMet = condition ()

        while not isMet && clock.Elapsed < timeout do
            this.Step()
            isMet <- condition ()

            if not isMet then
                Thread.Sleep 1

        isMet

    interface IDisposable with
        member _.Dispose() =
            for guest in List.ofSeq guests.Values do
                remove guest

            tls.Dispose()
            (context :> IDisposable).Dispose()

/// Pests that make the server keep something: handshakes that nobody goes on with.
[<RequireQualifiedAccess>]
module Lightway.Lab.Pests.HalfOpen

open System
open System.Collections.Generic
open System.Diagnostics
open System.Net
open System.Net.Sockets
open System.Threading
open Lightway.Protocol
open Lightway.Tunnel.Tls

let private patience = TimeSpan.FromSeconds 2.0 // for the server's answer; wolfSSL's own repetition is not run
let private mostInFlight = 512
let private mostStanding = 16_384

/// A handshake from a port of its own, until the cookie is returned or until it is complete.
type private Attempt(tls: TlsContext, source: IPAddress, server: IPEndPoint, isComplete: bool) as this =
    let socket =
        new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp)

    let session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty, Sink = this)
    let datagram: byte[] = Array.zeroCreate 2048
    let plaintext: byte[] = Array.zeroCreate 2048
    let startedAt = Stopwatch.GetTimestamp()
    let mutable records = 0
    let mutable answers = 0

    member _.Start() =
        socket.Blocking <- false
        socket.Bind(IPEndPoint(source, 0))
        socket.Connect server
        session.Handshake() |> ignore

    member _.Answers = answers

    /// Nothing more is to be sent.
    member _.IsDone =
        if isComplete then
            session.IsEstablished
        else
            answers > 0 && records > 1

    member _.IsLate = Stopwatch.GetElapsedTime startedAt > patience

    /// Takes what has come.
    member this.Step() =
        let mutable error = SocketError.Success
        let mutable isEmpty = false

        while not isEmpty && not this.IsDone do
            let count = socket.Receive(Span datagram, SocketFlags.None, &error)

            if error <> SocketError.Success then
                isEmpty <- true
            elif count > WireHeader.Size then
                answers <- answers + 1
                let mutable length = 0

                session.Receive(
                    ReadOnlySpan(datagram, WireHeader.Size, count - WireHeader.Size),
                    Span plaintext,
                    &length
                )
                |> ignore

    /// Keeps the port, so that the server's datagrams meet no closed one, and forgets the rest.
    member _.Forget() = session.Dispose()

    interface IRecordSink with
        member _.SendRecord(record) =
            records <- records + 1
            let bytes: byte[] = Array.zeroCreate (WireHeader.Size + record.Length)
            WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, SessionId.Empty, Span bytes)
            record.CopyTo(bytes.AsSpan WireHeader.Size)
            let mutable error = SocketError.Success
            socket.Send(ReadOnlySpan bytes, SocketFlags.None, &error) |> ignore

    interface IDisposable with
        member _.Dispose() =
            session.Dispose()
            socket.Dispose()

let private run (isComplete: bool) (target: Target) (plan: Plan) : Tally =
    use tls =
        TlsContext.ForClient(ReadOnlySpan target.Ca, null, false, KeyShare.X25519MlKem768, TlsContext.DefaultOutsideMtu)

    let sources =
        if plan.Sources.IsEmpty then
            [| IPAddress.Any |]
        else
            Array.ofList plan.Sources

    let standing = Queue<Attempt>()
    let inFlight = List<Attempt>()
    let pace = Pace(plan)
    let mutable started = 0
    let mutable finished = 0L
    let mutable late = 0L
    let mutable answers = 0L

    let close (attempt: Attempt) =
        answers <- answers + int64 attempt.Answers
        (attempt :> IDisposable).Dispose()

    let settle (attempt: Attempt) =
        attempt.Step()

        if attempt.IsDone then
            finished <- finished + 1L
            attempt.Forget()
            standing.Enqueue attempt

            if standing.Count > min mostStanding plan.Standing then
                close (standing.Dequeue())

            true
        elif attempt.IsLate then
            late <- late + 1L
            close attempt
            true
        else
            false

    try
        while not pace.IsOver do
            pace.Advance()

            while inFlight.Count < mostInFlight && (started < plan.Ahead || pace.TryTake 1) do
                let attempt =
                    new Attempt(tls, sources[started % sources.Length], target.Server, isComplete)

                inFlight.Add attempt
                started <- started + 1
                attempt.Start()

            inFlight.RemoveAll(Predicate settle) |> ignore
            Thread.Sleep 1

        late <- late + int64 inFlight.Count

        { Sent = finished
          Answers = answers + Seq.sumBy (fun (attempt: Attempt) -> int64 attempt.Answers) standing
          Refused = late
          Seconds = pace.Seconds }
    finally
        Seq.iter close inFlight
        Seq.iter close standing

/// Returns the server's cookie, and then is silent. Sent counts the cookies that were returned.
let afterCookie (target: Target) (plan: Plan) : Tally = run false target plan

/// Completes the handshake, and never logs in. Sent counts the handshakes that were completed.
let withoutLogin (target: Target) (plan: Plan) : Tally = run true target plan

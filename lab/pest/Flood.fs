/// Pests that need no answer: strangers' datagrams as fast as they can be sent.
[<RequireQualifiedAccess>]
module Lightway.Lab.Pests.Flood

open System
open System.Net
open System.Threading
open Lightway.Protocol
open Lightway.Tunnel.Tls
open Lightway.Tunnel.Udp

/// Bytes: the largest datagram of IPv4 (65535 less 20 and 8).
[<Literal>]
let private LargestDatagram = 65507

/// The first datagrams of `count` handshakes, all of one length. They have the key share that does not fit, so none is sent:
/// hellos as short as that cost the sender least.
let private hellos (ca: byte[]) (count: int) : byte[][] =
    use tls =
        TlsContext.ForClient(ReadOnlySpan ca, null, false, KeyShare.P521MlKem1024, TlsContext.DefaultOutsideMtu)

    [| for _ in 1..count do
           use session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty)
           let records = ResizeArray<byte[]>()

           session.Sink <-
               { new IRecordSink with
                   member _.SendRecord(record) = records.Add(record.ToArray()) }

           session.Handshake() |> ignore
           let datagram: byte[] = Array.zeroCreate (WireHeader.Size + records[0].Length)
           WireHeader.write (ProtocolVersion.V1_3, WirePayload.Dtls, SessionId.Empty, Span datagram)
           records[0].CopyTo(datagram, WireHeader.Size)
           datagram |]

let private garbage (hasHeader: bool) (length: int) (count: int) : byte[][] =
    let random = Random 7

    [| for number in 1..count do
           let datagram: byte[] = Array.zeroCreate length
           random.NextBytes datagram

           if hasHeader && length >= WireHeader.Size then
               let payload =
                   if number % 2 = 0 then
                       WirePayload.Expresslane
                   else
                       WirePayload.Dtls

               let session = SessionId(if number % 3 = 0 then 0UL else uint64 (random.NextInt64()))
               WireHeader.write (ProtocolVersion.V1_3, payload, session, Span datagram)

           datagram |]

/// Sends the datagrams over and over, `burst` at a time: all have the length of the first, or burst is 1.
let private send (server: IPEndPoint) (plan: Plan) (burst: int) (datagrams: byte[][]) : Tally =
    let length = datagrams[0].Length
    let bytes = Array.concat datagrams
    let path = OutsideAddress(PeerAddress server, LocalAddress())

    let bind number =
        let address =
            match plan.Sources with
            | [] -> IPAddress.Any
            | sources -> sources[number % sources.Length]

        UdpSocket.Bind(IPEndPoint(address, 0), 4 <<< 20, 0, 0u, false)

    let sockets = Array.init (max 1 plan.Ports) bind
    use batch = new ReceiveBatch(false)
    let pace = Pace(plan)
    let mutable sent = 0L
    let mutable refused = 0L
    let mutable answers = 0L
    let mutable turn = 0
    let mutable at = 0

    try
        while not pace.IsOver do
            pace.Advance()

            while pace.TryTake burst do
                let socket = sockets[turn % sockets.Length]
                turn <- turn + 1
                let segment = if burst > 1 then length else 0
                let run = ReadOnlySpan(bytes, at * length, burst * length)
                at <- (at + burst) % datagrams.Length

                if (socket :> IDatagramSender).Send(&path, run, segment) < 0 then
                    refused <- refused + int64 burst
                else
                    sent <- sent + int64 burst

                answers <- answers + int64 (max 0 (socket.Receive batch))

            Thread.Sleep 1

        { Sent = sent
          Answers = answers
          Refused = refused
          Seconds = pace.Seconds }
    finally
        for socket in sockets do
            socket.Dispose()

/// As many datagrams per send as were asked for, UDP_SEGMENT and the largest datagram allow.
let private burstOf (plan: Plan) (length: int) : int =
    plan.Burst |> min 64 |> min (LargestDatagram / length) |> max 1

let private repeated (plan: Plan) (make: int -> byte[][]) : byte[][] * int =
    let length = (make 1 |> Array.head).Length
    let burst = burstOf plan length
    let count = burst * max 1 (64 / burst)
    make count, burst

/// ClientHellos of different handshakes without a cookie.
let hello (target: Target) (plan: Plan) : Tally =
    let datagrams, burst = repeated plan (hellos target.Ca)
    send target.Server plan burst datagrams

/// Bytes of the datagrams that `hello` sends.
let helloLength (target: Target) : int =
    (hellos target.Ca 1 |> Array.head).Length

/// Random bytes.
let bytes (target: Target) (plan: Plan) : Tally =
    let datagrams, burst = repeated plan (garbage false (max 1 plan.Length))
    send target.Server plan burst datagrams

/// Random bytes behind a right wire header, of both payloads, with and without a session id.
let headers (target: Target) (plan: Plan) : Tally =
    let datagrams, burst =
        repeated plan (garbage true (max WireHeader.Size plan.Length))

    send target.Server plan burst datagrams

/// Datagrams of the largest size that UDP has, with a right wire header; each is 45 IP fragments on Ethernet.
let jumbo (target: Target) (plan: Plan) : Tally =
    send target.Server plan 1 (garbage true LargestDatagram 4)

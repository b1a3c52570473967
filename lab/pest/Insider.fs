/// Pests that have a login, or are about to.
[<RequireQualifiedAccess>]
module Lightway.Lab.Pests.Insider

open System
open System.Buffers.Binary
open System.Net
open System.Threading
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter

let private patience = TimeSpan.FromSeconds 10.0
let private mostAtOnce = 512

/// Runs `act` at the plan's rate for clients by turns; it returns how many datagrams it sent. They read their answers.
let private drive (plan: Plan) (crowd: Crowd) (guests: Guest list) (act: Guest -> int -> int) : Tally =
    let guests = Array.ofList guests
    let pace = Pace(plan)
    let mutable sent = 0L
    let mutable turn = 0
    let answers () = guests |> Array.sumBy _.Answers
    let refused () = guests |> Array.sumBy _.Refused
    let answersBefore, refusedBefore = answers (), refused ()

    while not pace.IsOver do
        pace.Advance()

        while pace.TryTake 1 do
            let guest = guests[turn % guests.Length]

            if guest.Closed.IsNone then
                sent <- sent + int64 (act guest turn)

            turn <- turn + 1

            if turn % 64 = 0 then
                crowd.Step()

        crowd.Step()
        Thread.Sleep 1

    crowd.RunUntil(TimeSpan.FromMilliseconds 200.0, fun () -> false) |> ignore

    { Sent = sent
      Answers = answers () - answersBefore
      Refused = refused () - refusedBefore
      Seconds = pace.Seconds }

/// The address of a client by its number.
let private sourceOf (plan: Plan) (number: int) : IPAddress =
    match plan.Sources with
    | [] -> IPAddress.Any
    | sources -> sources[number % sources.Length]

/// The plan's number of clients, Online. Raises LabException when one does not get so far.
let private withOnline (target: Target) (plan: Plan) expresslane (body: Crowd -> Guest list -> Tally) : Tally =
    use crowd = new Crowd(target)

    let guests =
        [ for number in 0 .. plan.Clients - 1 do
              let guest =
                  crowd.Join(sourceOf plan number, target.User, target.Password, expresslane)

              let isReady () =
                  guest.LoginTime.IsSome && (not expresslane || guest.Connection.IsExpresslaneReady)

              if not (crowd.RunUntil(patience, isReady)) then
                  raise (LabException $"client {number} of the pest is not online but {guest.Connection.State}")

              guest ]

    body crowd guests

/// An IPv4 packet with a UDP datagram and right checksums.
let private udpPacket (source: Ipv4Address) (port: int) (destination: IPEndPoint) (payload: byte[]) : byte[] =
    let packet: byte[] = Array.zeroCreate (28 + payload.Length)

    let put (at: int) (value: int) =
        BinaryPrimitives.WriteUInt16BigEndian(Span(packet, at, 2), uint16 value)

    let sum (from: int) (length: int) (start: uint64) =
        let mutable total = start

        for at in from..2 .. from + length - 1 do
            let low = if at + 1 < from + length then packet[at + 1] else 0uy
            total <- total + (uint64 packet[at] <<< 8) + uint64 low

        int (Checksum.complement (Checksum.fold total))

    packet[0] <- 0x45uy
    put 2 packet.Length
    packet[8] <- 64uy
    packet[9] <- 17uy
    BinaryPrimitives.WriteUInt32BigEndian(Span(packet, 12, 4), source.Value)
    destination.Address.GetAddressBytes().CopyTo(packet, 16)
    put 10 (sum 0 20 0UL)
    put 20 port
    put 22 destination.Port
    put 24 (8 + payload.Length)
    payload.CopyTo(packet, 28)

    match sum 12 (packet.Length - 12) (17UL + uint64 (8 + payload.Length)) with
    | 0 -> put 26 0xFFFF
    | checksum -> put 26 checksum

    packet

/// Packets from inside to the server's own address and port, each with a fresh ping of the same connection as its payload.
let selfEncapsulation (target: Target) (plan: Plan) : Tally =
    withOnline target plan false (fun crowd guests ->
        drive plan crowd guests (fun guest turn ->
            let datagram = guest.Hold(fun () -> guest.Ping turn) |> List.exactlyOne
            guest.Packet(ReadOnlySpan(udpPacket guest.Inside 27690 target.Server datagram))
            1))

/// Every datagram from the other one of two ports.
let private flapping (plan: Plan) (crowd: Crowd) (guests: Guest list) : Tally =
    drive plan crowd guests (fun guest turn ->
        guest.ChangePort()
        guest.Ping turn
        1)

/// Clients that are Online and alternate between two ports each.
let flap (target: Target) (plan: Plan) : Tally =
    withOnline target plan false (flapping plan)

/// A peer that has completed its handshake, never logs in, and alternates between two ports.
let flapBeforeLogin (target: Target) (plan: Plan) : Tally =
    use crowd = new Crowd(target)
    let guest = crowd.Join(sourceOf plan 0, target.User, null, false)

    if not (crowd.RunUntil(patience, fun () -> guest.Connection.State = ConnectionState.LinkUp)) then
        raise (LabException $"the handshake of the pest is not complete: {guest.Connection.State}")

    flapping plan crowd [ guest ]

/// Datagrams of 286 pings each.
let pings (target: Target) (plan: Plan) : Tally =
    let frames: byte[] = Array.zeroCreate (286 * Frame.PingHeaderSize)

    for number in 0..285 do
        frames[number * Frame.PingHeaderSize] <- byte FrameKind.Ping
        BinaryPrimitives.WriteUInt16BigEndian(Span(frames, number * Frame.PingHeaderSize + 1, 2), uint16 number)

    withOnline target plan false (fun crowd guests ->
        drive plan crowd guests (fun guest _ ->
            guest.Seal(ReadOnlySpan frames)
            1))

/// Datagrams of 100 fragments, each the last 7 bytes of a packet of its own that has 64 KiB.
let fragments (target: Target) (plan: Plan) : Tally =
    let size = Frame.FragmentHeaderSize + 7
    let frames: byte[] = Array.zeroCreate (100 * size)

    withOnline target plan false (fun crowd guests ->
        drive plan crowd guests (fun guest turn ->
            for number in 0..99 do
                let at = number * size
                frames[at] <- byte FrameKind.DataFragment
                BinaryPrimitives.WriteUInt16BigEndian(Span(frames, at + 1, 2), 7us)
                BinaryPrimitives.WriteUInt16BigEndian(Span(frames, at + 3, 2), uint16 (turn * 100 + number))
                BinaryPrimitives.WriteUInt16BigEndian(Span(frames, at + 5, 2), uint16 (65528 / 8))

            guest.Seal(ReadOnlySpan frames)
            1))

/// Datagrams of 1400 bytes under the client's own session id, of which only decryption shows that they are not authentic: to
/// send them costs next to nothing, and the server as much as any. `Burst` of them leave in one send.
let greedy (target: Target) (plan: Plan) : Tally =
    let length = 1400
    let burst = plan.Burst |> min (65507 / length) |> max 1

    withOnline target { plan with Clients = 1 } true (fun crowd guests ->
        let guest = List.exactlyOne guests
        let datagrams: byte[] = Array.zeroCreate (length * burst)
        Random.Shared.NextBytes datagrams

        for at in 0..length .. datagrams.Length - 1 do
            let body = Span(datagrams, at, length).Slice WireHeader.Size

            WireHeader.write (
                ProtocolVersion.V1_3,
                WirePayload.Expresslane,
                guest.Connection.SessionId,
                Span(datagrams, at, length)
            )

            ExpresslanePacket.writeHeader (1_000_000_000UL, body.Length - ExpresslanePacket.Overhead, 0us, body)

        // What is shorter leaves as it is (linux/udp.h, UDP_SEGMENT).
        guest.Socket.SetRawSocketOption(17, 103, ReadOnlySpan(BitConverter.GetBytes length))

        drive
            { plan with
                Rate = plan.Rate / float burst }
            crowd
            guests
            (fun guest _ ->
                guest.SendRaw(ReadOnlySpan datagrams)
                burst))

/// How many packets `replay` sends in earnest, half of them by each path.
[<Literal>]
let ReplayedPackets = 32

/// Authentic datagrams of both paths again and again, from two ports by turns. The first 32 packets are no repetition.
let replay (target: Target) (plan: Plan) : Tally =
    withOnline target { plan with Clients = 1 } true (fun crowd guests ->
        let guest = List.exactlyOne guests
        guest.Remembers <- 2 * ReplayedPackets

        for number in 1 .. ReplayedPackets / 2 do
            let packet = udpPacket guest.Inside 1000 target.Server [| byte number |]
            guest.Ping number
            guest.Packet(ReadOnlySpan packet)
            guest.SendInside packet

        crowd.RunUntil(TimeSpan.FromMilliseconds 200.0, fun () -> false) |> ignore
        let captured = guest.Latest.ToArray()
        guest.Remembers <- 0

        drive plan crowd guests (fun _ turn ->
            if turn % captured.Length = 0 then
                guest.ChangePort()

            guest.SendRaw(ReadOnlySpan captured[turn % captured.Length])
            1))

/// Logins with wrong passwords from connections of their own. Sent counts the logins that were begun; Refused those that had
/// no answer within 10 s.
let logins (target: Target) (plan: Plan) : Tally =
    use crowd = new Crowd(target)
    let pace = Pace(plan)
    let mutable sent = 0L
    let mutable answers = 0L
    let mutable late = 0L

    while not pace.IsOver do
        pace.Advance()
        let mutable present = crowd.Guests.Length

        while present < mostAtOnce && pace.TryTake 1 do
            crowd.Join(sourceOf plan (int sent), target.User, $"wrong {sent}", false) |> ignore
            sent <- sent + 1L
            present <- present + 1

        crowd.Step()

        answers <- answers + int64 (crowd.RemoveClosed().Length)

        for guest in crowd.Guests do
            if guest.Age > patience then
                late <- late + 1L
                crowd.Remove guest

        Thread.Sleep 1

    { Sent = sent
      Answers = answers
      Refused = late
      Seconds = pace.Seconds }

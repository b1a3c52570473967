/// State kept about a peer: an input is a history, a few bytes per event.
module Lightway.Fuzz.StateTargets

open System
open System.Buffers.Binary
open System.Collections.Generic
open Lightway.Protocol
open Lightway.Fuzz.Target

/// The parts of `size` bytes of an input; a rest is ignored.
let private happenings (size: int) (input: byte[]) : byte[][] =
    Array.chunkBySize size input |> Array.filter (fun part -> part.Length = size)

let private word (bytes: byte[]) (at: int) =
    int (BinaryPrimitives.ReadUInt16BigEndian(ReadOnlySpan(bytes, at, 2)))

let private long (bytes: byte[]) (at: int) =
    BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(bytes, at, 8))

/// Buffer for whole packets; junk between uses.
let private packetBuffer = junk 65_535

/// Byte at a place of the packet with an id: a piece brings it, or its complement.
let private content (id: uint16) (at: int) = byte (at * 7 + int id * 31 + 1)

/// Seven bytes per piece: flags and id, offset in units of 8 (2), length (2), ms since the last piece (2). Flags: 0x80
/// more follow, 0x40 the bytes are wrong, 0x20 the offset is small, 0x10 the length is small, 0x08 the length may be
/// any.
let private fragments (input: byte[]) =
    let maxBytes = 1 <<< 17
    let table = FragmentTable(5, maxBytes, 1_000L<ms>)
    let dst = packetBuffer
    let mutable now = 0L<ms>
    let mutable traits = []

    for part in happenings 7 input |> Array.truncate 64 do
        let id = uint16 (part[0] &&& 0x07uy)
        let isWrong = part[0] &&& 0x40uy <> 0uy
        let offset = (word part 1 &&& (if part[0] &&& 0x20uy <> 0uy then 7 else 0x1FFF)) * 8

        let limit =
            if part[0] &&& 0x10uy <> 0uy then 31
            elif part[0] &&& 0x08uy <> 0uy then 0xFFFF
            else 0x7FF

        let length = word part 3 &&& limit

        let payload =
            Array.init length (fun i ->
                let byte = content id (offset + i)
                if isWrong then ~~~byte else byte)

        now <- now + int64 (word part 5) * 1L<ms>
        let mutable whole = -1

        let status =
            table.Add(id, offset, part[0] &&& 0x80uy <> 0uy, ReadOnlySpan payload, now, Span dst, &whole)

        require (Enum.IsDefined status) "an unknown status"

        if not (table.BytesHeld >= 0 && table.BytesHeld <= maxBytes) then
            broken $"{table.BytesHeld} bytes are held"

        if not (whole >= 0 && whole <= 65_535) then
            broken $"a packet of {whole} bytes"

        require ((status = FragmentStatus.Complete) = (whole > 0)) "a length without a packet, or the reverse"

        for at in 0 .. whole - 1 do
            let expected = content id at

            if dst[at] <> expected && dst[at] <> ~~~expected then
                broken $"byte {at} of packet {id} was never brought"

        require (isJunk dst[whole .. min 65_534 (whole + 15)]) "written behind the packet"
        Array.fill dst 0 whole 0xA5uy

        if List.length traits < 12 then
            traits <- int status :: magnitude whole :: traits

    kind (magnitude table.BytesHeld :: traits)

/// Nine bytes per counter: a form (the low two bits of the first), and a number. 0: the number is the counter; 1: its
/// distance below the highest; 2: its distance above it; 3: the counter is the next one.
let private replayWindow (input: byte[]) =
    let window = ReplayWindow()
    let accepted = HashSet<uint64>()
    let mutable high = 0UL
    let mutable traits = []

    for part in happenings 9 input |> Array.truncate 200 do
        let told = long part 1

        let counter =
            match int part[0] &&& 3 with
            | 0 -> told
            | 1 -> high - min high (told &&& 0x3FFFUL)
            | 2 -> high + min (UInt64.MaxValue - high) (told &&& 0x3FFFUL)
            | _ -> high + min (UInt64.MaxValue - high) 1UL

        let expected =
            counter <> 0UL && not (accepted.Contains counter) && (counter > high || high - counter < 8192UL)

        if window.IsFresh counter <> expected then
            broken $"{counter} after {high} is fresh: {not expected}"

        require (window.IsFresh counter = expected) "a preview changed something"

        if window.Commit counter <> expected then
            broken $"{counter} after {high} commits: {not expected}"

        if window.IsFresh counter then
            broken $"{counter} is fresh after it was seen"

        let distance = max counter high - min counter high

        let reach =
            if distance = 0UL then 0
            elif distance < 64UL then 1
            elif distance < 8192UL then 2
            else 3

        if List.length traits < 24 then
            traits <- flag expected :: flag (counter > high) :: reach :: traits

        if expected then
            accepted.Add counter |> ignore
            high <- max high counter

    kind traits

/// A reply is its length (1), then that many bytes of payload, then packets sent and received by this end (2 and 2).
let private expresslaneHealth (input: byte[]) =
    let mutable health = ExpresslaneHealth.start
    let mutable rest = input
    let mutable sent = 0UL
    let mutable received = 0UL
    let mutable missing = 0
    let mutable traits = []

    while rest.Length > 0 && rest.Length >= 5 + int rest[0] do
        let length = int rest[0]
        let payload = rest[1..length]
        sent <- sent + uint64 (word rest (1 + length))
        received <- received + uint64 (word rest (3 + length))
        rest <- rest[5 + length ..]

        let struct (next, isBad) =
            ExpresslaneHealth.step (health, ReadOnlySpan payload, sent, received)

        let struct (same, isBadToo) =
            ExpresslaneHealth.step (health, ReadOnlySpan payload, sent, received)

        require (next = same && isBad = isBadToo) "the same step ends differently"
        missing <- if length = 16 then 0 else missing + 1
        require (missing < 3 || isBad) "three replies without counters are no reason to give up"
        require (length = 16 || isBad = (missing >= 3)) "a reply without counters is judged by its bytes"

        if length = 16 then
            let copy = junk 20
            let written = ExpresslaneHealth.write (long payload 0, long payload 8, Span copy)
            require (written = 16 && copy[..15] = payload && isJunk copy[16..]) "written differently"

        health <- next

        if List.length traits < 12 then
            traits <- flag isBad :: flag (length = 16) :: traits

    kind traits

/// Configs of a hostile peer, 44 bytes each as on the wire; before each, one byte says what else happens and two how
/// many ms pass.
let private expresslaneExchange (role: Role) (input: byte[]) =
    let fresh number =
        Array.create 32 (byte (1 + number % 255))

    let isKey (key: byte[]) =
        isNull key || (key.Length = 32 && Array.exists ((<>) 0uy) key)

    let mutable now = 0L<ms>
    let created = ExpresslaneKeys.create (role, true, 5_000L<ms>)

    let mutable state =
        (ExpresslaneKeys.online (created, ProtocolVersion.V1_3, now, fresh 0)).State

    let mutable traits = []

    let take (step: ExpresslaneStep) =
        let next = step.State
        require (isKey next.SelfKey && isKey next.PeerKey && isKey next.PreviousPeerKey) "a key that is none"
        require (isKey next.StagedKey) "a staged key that is none"
        require (next.Counter >= state.Counter && next.Counter <= state.Counter + 1UL) "the counter jumps"

        require
            (state.Status <> ExpresslaneStatus.Degraded || next.Status = ExpresslaneStatus.Degraded)
            "given up, and not for good"

        match step.Offer with
        | ValueSome offer -> require (not offer.Ack && offer.Key.Length = 32) "an offer that is none"
        | ValueNone -> ()

        state <- next

        if List.length traits < 12 then
            traits <- int next.Status :: flag step.Ack.IsSome :: flag step.Offer.IsSome :: traits

    for number, part in happenings 47 input |> Array.truncate 40 |> Array.indexed do
        now <- now + int64 (word part 1) * 1L<ms>
        let struct (other, anySent) = struct (part[0] &&& 3uy, part[0] &&& 4uy <> 0uy)

        match other with
        | 1uy -> take (ExpresslaneKeys.timer (state, now))
        | 2uy -> take (ExpresslaneKeys.insideTraffic (state, now, fresh (number + 1)))
        | 3uy -> take (ExpresslaneKeys.pongReceived (state, ReadOnlySpan(part, 0, int part[0] &&& 31), 0UL, 0UL, now))
        | _ -> ()

        let mutable config = Unchecked.defaultof<ExpresslaneConfig>

        if Frame.tryParseExpresslaneConfig (ReadOnlySpan(part, 3, 44), &config) = FrameStatus.Ok then
            let before = state
            take (ExpresslaneKeys.configReceived (state, config, anySent, now, fresh (number + 1)))
            // Only what this end made itself may seal.
            require
                (isNull state.SelfKey
                 || Object.ReferenceEquals(state.SelfKey, before.SelfKey)
                 || Object.ReferenceEquals(state.SelfKey, before.StagedKey))
                "a key from elsewhere seals"

    kind traits

/// Base size (2) and outside MTU (2, its low 11 bits and at least 172), a byte that is ignored, then five bytes per event:
/// what happens, an id or a size (2), and the ms since the last event (2). What happens, by the low three bits: 0 the pong of
/// that id; 1 the pong of the latest probe; 2 a datagram of that size leaves; 3 the device refuses the latest probe; 4 the
/// path changes; else only time passes. Each is followed by a tick.
let private pathMtu (input: byte[]) =
    match happenings 5 input |> Array.truncate 200 |> List.ofArray with
    | [] -> 0L
    | first :: events ->
        let most = max 172 (word first 2 &&& 0x7FF)
        let least = min 576 most
        let mutable state = PathMtu.create (word first 0, most)
        let mutable now = 0L<ms>
        let mutable latest = 0us // id of the latest probe; 0: none yet
        let mutable sizes = Map.empty<uint16, int> // of the probes since the latest pong
        let mutable traits = []

        let take (step: PathMtuStep) =
            require (step.State.Size >= least && step.State.Size <= most) "a size out of bounds"
            require (step.State.Settled >= 0 && step.State.Settled <= most) "a settled size out of bounds"
            require ((step.Probe = 0) = (step.Id = 0us)) "a probe without an id, or the reverse"
            require (step.State.NextAt >= now) "due in the past"

            if step.Probe > 0 then
                require (step.Probe >= least && step.Probe <= most) "a probe out of bounds"
                require (step.Id = (if latest = 65_535us then 1us else latest + 1us)) "not the next id"
                latest <- step.Id
                sizes <- sizes.Add(step.Id, step.Probe)

            // Only an answer to a probe of a size makes datagrams longer, once there has been one.
            if step.State.Size > state.Size && step.State.Phase <> PathMtuPhase.Error && state.NextAt < Time.Never then
                require (sizes |> Map.exists (fun _ size -> size >= step.State.Size)) "longer without an answer"

            state <- step.State

        for part in events do
            let number = uint16 (word part 1)
            now <- now + int64 (word part 3) * 1L<ms>

            if state.NextAt <= now then
                take (PathMtu.tick (state, now))

            match part[0] &&& 7uy with
            | 0uy -> take (PathMtu.pong (state, number, now))
            | 1uy -> take (PathMtu.pong (state, latest, now))
            | 2uy ->
                let next = PathMtu.carried (state, int number, now)
                require (next.Size = state.Size && next.Phase = state.Phase) "traffic alone changed the size"
                state <- next
            | 3uy -> take (PathMtu.refused (state, latest, now))
            | 4uy -> take (PathMtu.start (state, now))
            | _ -> ()

            let early = PathMtu.tick (state, state.NextAt - 1L<ms>)
            require (early.Probe = 0 && early.State = state) "an early tick did something"

            if List.length traits < 16 then
                traits <- int state.Phase :: flag (state.Size > least) :: traits

        kind traits

let targets =
    [ { Name = "fragments"
        MaxLength = 448
        Run = fragments }
      { Name = "replay-window"
        MaxLength = 1800
        Run = replayWindow }
      { Name = "expresslane-health"
        MaxLength = 600
        Run = expresslaneHealth }
      { Name = "path-mtu"
        MaxLength = 1000
        Run = pathMtu }
      { Name = "expresslane-client"
        MaxLength = 1880
        Run = expresslaneExchange Role.Client }
      { Name = "expresslane-server"
        MaxLength = 1880
        Run = expresslaneExchange Role.Server } ]

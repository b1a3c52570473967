/// Every state of two ends that exchange Expresslane keys (protocol §8) over a channel that loses, repeats and reorders.
module Lightway.Specs.Search.ExpresslaneStates

open Lightway.Protocol
open Lightway.Specs.Search.Explore

/// One end: its machine and what the engine knows about it. Times are those of the end's own clock, which reads 0 after each
/// move: what is due is due at once, what is not is due at 1, whenever that comes.
[<NoComparison; ReferenceEquality>]
type End =
    {
        State: ExpresslaneState
        /// An Expresslane packet left.
        AnySent: bool
        /// Keys that it has made.
        Drawn: int
        /// Its program has version 1 only.
        IsOld: bool
        /// It may find that its packets are lost, and give up.
        CanDegrade: bool
    }

/// Configs on the way are numbers in ascending order; each is there once, as a message that can be repeated counts like many.
[<NoComparison; ReferenceEquality>]
type World =
    {
        Client: End
        Server: End
        ToServer: int list
        ToClient: int list
        /// Whose timer is next in a run without loss: both run, so they take turns.
        Turn: Role
    }

/// What bounds the search.
type Limits =
    {
        /// Keys that an end makes.
        Keys: int
        /// Configs of its own that an end sends.
        Configs: uint64
        /// Different configs that are on the way to one end; another one is lost.
        OnTheWay: int
    }

/// A step of the machine that a test may break.
type Machine =
    { Received: ExpresslaneState * ExpresslaneConfig * bool * int64<ms> * byte[] -> ExpresslaneStep }

let asItIs: Machine = { Received = ExpresslaneKeys.configReceived }

let private most = 40

/// Keys by their number: those of the client are odd.
let private keys =
    Array.init (2 * most) (fun number ->
        let key = Array.zeroCreate Frame.KeySize
        key[0] <- byte (number + 1)
        key)

let private zeroKey: byte[] = Array.zeroCreate Frame.KeySize

let private freshKey (one: End) =
    match one.State.Role with
    | Role.Client -> keys[2 * one.Drawn + 1]
    | _ -> keys[2 * one.Drawn]

/// 0 for none and for the key of a stop, else a number that counts up as keys are made.
let private numberOf (key: byte[]) = if isNull key then 0 else int key[0]

let private nameOf (key: byte[]) =
    match numberOf key with
    | 0 -> "none"
    | number when number % 2 = 0 -> $"C{number / 2}"
    | number -> $"S{(number + 1) / 2}"

let private pack (config: ExpresslaneConfig) : int =
    (int config.Counter <<< 16)
    ||| (int config.Version <<< 12)
    ||| (if config.Enabled then 1 <<< 9 else 0)
    ||| (if config.Ack then 1 <<< 8 else 0)
    ||| numberOf config.Key

let private unpack (message: int) : ExpresslaneConfig =
    { Version = byte ((message >>> 12) &&& 3)
      Enabled = message &&& (1 <<< 9) <> 0
      Ack = message &&& (1 <<< 8) <> 0
      Counter = uint64 (message >>> 16)
      Key =
        match message &&& 255 with
        | 0 -> zeroKey
        | number -> keys[number - 1] }

let private describe (message: int) : string =
    let config = unpack message
    let kind = if config.Enabled then "offer" else "stop"
    let answer = if config.Ack then ", acknowledged" else ""
    $"{kind} {config.Counter}, key {nameOf config.Key}{answer}"

let private rebased (now: int64<ms>) (state: ExpresslaneState) : ExpresslaneState =
    { state with
        TimerAt = if state.TimerAt = Time.Never then Time.Never else 1L<ms>
        RotateAt =
            if state.RotateAt = Time.Never then Time.Never
            elif state.RotateAt <= now then Time.Always
            else 1L<ms> }

let rec private insert (message: int) (messages: int list) : int list =
    match messages with
    | first :: _ when message < first -> message :: messages
    | first :: _ when message = first -> messages
    | first :: rest -> first :: insert message rest
    | [] -> [ message ]

let private sendTo (limits: Limits) (messages: int list) (config: ValueOption<ExpresslaneConfig>) (isOld: bool) =
    match config with
    | ValueSome config when messages.Length < limits.OnTheWay ->
        insert
            (pack (
                if isOld then
                    { config with
                        Version = min 1uy config.Version }
                else
                    config
            ))
            messages
    | _ -> messages

let private isServer (one: End) = one.State.Role = Role.Server
let private laneOf (one: End) = if isServer one then 1 else 0

/// The world after a step of one end, at `now` of its clock.
let private after (limits: Limits) (world: World) (one: End) (now: int64<ms>) (step: ExpresslaneStep) : World =
    let state = rebased now step.State

    let state =
        if one.IsOld then
            { state with
                Version = min 1uy state.Version }
        else
            state

    let fresh = freshKey one

    let next =
        { one with
            State = state
            Drawn =
                if obj.ReferenceEquals(state.StagedKey, fresh) then
                    one.Drawn + 1
                else
                    one.Drawn }

    let messages = if isServer one then world.ToClient else world.ToServer

    let messages =
        sendTo limits (sendTo limits messages step.Ack one.IsOld) step.Offer one.IsOld

    if isServer one then
        { world with
            Server = next
            ToClient = messages }
    else
        { world with
            Client = next
            ToServer = messages }

let private arrive (machine: Machine) (limits: Limits) (world: World) (one: End) (message: int) : World =
    machine.Received(one.State, unpack message, one.AnySent, 0L<ms>, freshKey one)
    |> after limits world one 0L<ms>

let private timer (limits: Limits) (world: World) (one: End) : World =
    ExpresslaneKeys.timer (one.State, 1L<ms>) |> after limits world one 1L<ms>

/// Inside packets leave, and if the key is to be replaced now, or the time for that comes, a new one is offered.
let private traffic (limits: Limits) (world: World) (one: End) : World =
    let one =
        { one with
            AnySent = one.AnySent || one.State.Ready }

    let now = if one.State.RotateAt = 1L<ms> then 1L<ms> else 0L<ms>

    ExpresslaneKeys.insideTraffic (one.State, now, freshKey one) |> after limits world one now

/// Three answers to keepalives in a row have no counters.
let private degrade (limits: Limits) (world: World) (one: End) : World =
    let pong (state: ExpresslaneState) =
        ExpresslaneKeys.pongReceived (state, System.ReadOnlySpan<byte>.Empty, 0UL, 0UL, 0L<ms>)

    let step = pong (pong (pong one.State).State).State
    after limits world { one with CanDegrade = false } 0L<ms> step

let private isWithin (limits: Limits) (world: World) =
    let isEnd (one: End) =
        one.Drawn <= limits.Keys && one.State.Counter <= limits.Configs

    isEnd world.Client && isEnd world.Server

let private moves (machine: Machine) (limits: Limits) (world: World) : Move<World> list =
    [ for message in world.ToServer do
          struct (Arrives(0, 1, (fun () -> describe message)), arrive machine limits world world.Server message)

          struct (Lost(0, 1, (fun () -> describe message)),
                  { world with
                      ToServer = List.except [ message ] world.ToServer })

      for message in world.ToClient do
          struct (Arrives(1, 0, (fun () -> describe message)), arrive machine limits world world.Client message)

          struct (Lost(1, 0, (fun () -> describe message)),
                  { world with
                      ToClient = List.except [ message ] world.ToClient })

      for one in [ world.Client; world.Server ] do
          if one.State.TimerAt <> Time.Never then
              struct (At(laneOf one, (fun () -> "repeats, or gives up")), timer limits world one)

          if one.State.RotateAt <> Time.Never || (one.State.Ready && not one.AnySent) then
              struct (At(laneOf one, (fun () -> "inside packets leave")), traffic limits world one)

          if one.CanDegrade && one.State.Ready then
              struct (At(laneOf one, (fun () -> "its packets are lost: it gives up")), degrade limits world one) ]
    |> List.filter (fun (struct (_, next)) -> isWithin limits next)

let private encode (encoder: Encoder) (world: World) : unit =
    for one in [ world.Client; world.Server ] do
        let state = one.State

        // Small numbers, each in its own bits.
        let flags =
            (int state.Status)
            ||| (int state.Version <<< 4)
            ||| (if state.TimerAt = Time.Never then 0 else 1 <<< 6)
            ||| (if state.RotateAt = Time.Never then 0
                 elif state.RotateAt = 1L<ms> then 1 <<< 7
                 else 2 <<< 7)
            ||| (state.Retransmissions <<< 9)
            ||| (if state.Allowed then 1 <<< 13 else 0)
            ||| (if one.AnySent then 1 <<< 14 else 0)
            ||| (if one.IsOld then 1 <<< 15 else 0)
            ||| (if one.CanDegrade then 1 <<< 16 else 0)
            ||| (one.Drawn <<< 17)

        let keys =
            int64 (numberOf state.SelfKey)
            ||| (int64 (numberOf state.PeerKey) <<< 8)
            ||| (int64 (numberOf state.PreviousPeerKey) <<< 16)
            ||| (int64 (numberOf state.StagedKey) <<< 24)
            ||| (int64 state.Counter <<< 32)
            ||| (int64 state.PeerCounter <<< 48)

        encoder.Add flags
        encoder.Add keys

        encoder.Add(
            match state.Unanswered with
            | ValueSome config -> pack config
            | ValueNone -> -1
        )

    encoder.Add(world.Turn = Role.Client)

    for message in world.ToServer do
        encoder.Add message

    encoder.Add -1

    for message in world.ToClient do
        encoder.Add message

/// The receiver has the key that the sender seals with, and knows the version.
let private wrongWith (sender: End) (receiver: End) : string option =
    let key = numberOf sender.State.SelfKey
    let isKnown (held: byte[]) = numberOf held = key

    if key <> 0 && not (isKnown receiver.State.PeerKey || isKnown receiver.State.PreviousPeerKey) then
        Some $"the {sender.State.Role} seals with key {nameOf sender.State.SelfKey}, which its peer does not have"
    elif sender.State.Ready && sender.State.Version <> receiver.State.Version then
        Some
            $"the {sender.State.Role} seals by version {sender.State.Version}, and its peer opens by {receiver.State.Version}"
    else
        None

/// Keys are promoted in the order in which they were made, and installed in that order.
let private wrongOrder (before: End) (after: End) : string option =
    let goesBack (earlier: byte[]) (later: byte[]) =
        numberOf later <> 0 && numberOf later < numberOf earlier

    if goesBack before.State.SelfKey after.State.SelfKey then
        Some $"the {after.State.Role} goes back to its key {nameOf after.State.SelfKey}"
    elif goesBack before.State.PeerKey after.State.PeerKey then
        Some $"the {after.State.Role} goes back to its peer's key {nameOf after.State.PeerKey}"
    else
        None

let private wrong (before: World) (after: World) : string option =
    wrongWith after.Client after.Server
    |> Option.orElseWith (fun () -> wrongWith after.Server after.Client)
    |> Option.orElseWith (fun () -> wrongOrder before.Client after.Client)
    |> Option.orElseWith (fun () -> wrongOrder before.Server after.Server)

let private isDegraded (one: End) =
    one.State.Status = ExpresslaneStatus.Degraded

/// All that is on the way arrives, then each end in turn does what is due: inside packets flow, and what is repeated is repeated.
/// Neither end's time stands still while the other one's passes.
let private healthy (machine: Machine) (limits: Limits) (world: World) : Move<World> option =
    let ends =
        match world.Turn with
        | Role.Client -> [ world.Client; world.Server ]
        | _ -> [ world.Server; world.Client ]

    let took (one: End) (next: World) =
        { next with
            Turn = if isServer one then Role.Client else Role.Server }

    let isDue (one: End) = one.State.RotateAt < 1L<ms>
    let isWaiting (one: End) = one.State.TimerAt <> Time.Never

    match world.ToServer, world.ToClient with
    | message :: rest, _ ->
        let world = { world with ToServer = rest }
        Some(struct (Arrives(0, 1, (fun () -> describe message)), arrive machine limits world world.Server message))
    | _, message :: rest ->
        let world = { world with ToClient = rest }
        Some(struct (Arrives(1, 0, (fun () -> describe message)), arrive machine limits world world.Client message))
    | _ ->
        match ends |> List.tryFind (fun one -> isDue one || isWaiting one) with
        | Some one when isDue one ->
            Some(struct (At(laneOf one, (fun () -> "inside packets leave")), traffic limits world one |> took one))
        | Some one ->
            Some(struct (At(laneOf one, (fun () -> "repeats, or gives up")), timer limits world one |> took one))
        | None ->
            // Whoever does not know yet that its peer has given up finds out when it renews its key.
            ends
            |> List.tryFind (fun one ->
                one.State.Ready && one.State.RotateAt <> Time.Never && List.exists isDegraded ends)
            |> Option.map (fun one ->
                struct (At(laneOf one, (fun () -> "the time for another key comes")),
                        traffic limits world one |> took one))

let private wrongAtRest (world: World) : string option =
    let client, server = world.Client.State, world.Server.State

    let canUse (state: ExpresslaneState) =
        state.Allowed
        && state.Status <> ExpresslaneStatus.Disabled
        && state.Status <> ExpresslaneStatus.Degraded

    if canUse client && canUse server then
        if not (client.Ready && server.Ready) then
            Some "both want Expresslane, and at rest one is not ready"
        elif
            numberOf client.SelfKey <> numberOf server.PeerKey
            || numberOf server.SelfKey <> numberOf client.PeerKey
        then
            Some "at rest an end does not seal with its newest key"
        else
            None
    elif client.Ready || server.Ready then
        Some "one end has no Expresslane, and at rest the other one seals"
    else
        None

let private interval = 1_000_000L<ms>

let private endOf role isEnabled isOld canDegrade : End =
    { State = ExpresslaneKeys.create (role, isEnabled, interval)
      AnySent = false
      Drawn = 0
      IsOld = isOld
      CanDegrade = canDegrade }

/// Both ends have become online; the client's first offer, if it makes one, is on the way.
let private online (limits: Limits) (version: uint16) (client: End) (server: End) : World =
    let world =
        { Client = client
          Server = server
          ToServer = []
          ToClient = []
          Turn = Role.Client }

    [ Role.Client; Role.Server ]
    |> List.fold
        (fun world role ->
            let one = if role = Role.Client then world.Client else world.Server

            ExpresslaneKeys.online (one.State, version, 0L<ms>, freshKey one) |> after limits world one 0L<ms>)
        world

let model (name: string) (limits: Limits) (machine: Machine) (start: Limits -> World list) : Model<World> =
    { Name = name
      Bound =
        $"each end makes {limits.Keys} keys and sends {limits.Configs} configs of its own; {limits.OnTheWay} configs on the way to each"
      Lanes = [ "client"; "server" ]
      Start = start limits
      Moves = moves machine limits
      Encode = encode
      Wrong = wrong
      Healthy = healthy machine limits
      WrongAtRest = wrongAtRest
      MovesToRest = 200 }

let private world isEnabled isOld canDegrade version limits =
    let clientEnabled, serverEnabled = isEnabled
    let clientOld, serverOld = isOld
    let clientDegrades, serverDegrades = canDegrade

    online
        limits
        version
        (endOf Role.Client clientEnabled clientOld clientDegrades)
        (endOf Role.Server serverEnabled serverOld serverDegrades)

let private no = (false, false)
let private yes = (true, true)

/// Both ends have version 2 and keep going.
let both (limits: Limits) : World list =
    [ world yes no no ProtocolVersion.V1_3 limits ]

/// One end, or both, are older programs.
let versions (limits: Limits) : World list =
    [ for isOld in [ (true, false); (false, true); (true, true) ] do
          world yes isOld no ProtocolVersion.V1_3 limits ]

/// One end, or both, may give up once they are ready.
let degraded (limits: Limits) : World list =
    [ for canDegrade in [ (true, false); (false, true); (true, true) ] do
          world yes no canDegrade ProtocolVersion.V1_3 limits ]

/// One end, or both, have Expresslane switched off; or the connection's version has none.
let disabled (limits: Limits) : World list =
    [ for isEnabled in [ (true, false); (false, true); no ] do
          world isEnabled no no ProtocolVersion.V1_3 limits
      world yes no no ProtocolVersion.V1_2 limits ]

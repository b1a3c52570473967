/// Every state of a client's keepalive and its server (protocol §7), over a channel that loses and reorders.
module Lightway.Specs.Search.KeepaliveStates

open Lightway.Protocol
open Lightway.Specs.Search.Explore

[<NoComparison; NoEquality>]
type World =
    {
        State: KeepaliveState
        Now: int64<ms>
        /// When a frame came from the server, and since then the first ping was sent; Time.Never: none was.
        HeardAt: int64<ms>
        AskedAt: int64<ms>
        IsContinuous: bool
        /// The server is there.
        IsAlive: bool
        /// It knows the client's address.
        IsKnown: bool
        /// On the way: pings; answers; other frames of the server.
        Pings: int
        Pongs: int
        Frames: int
        /// What a step should not have done.
        Fault: string option
    }

type Limits =
    { Interval: int64<ms>
      Timeout: int64<ms>
      OnTheWay: int }

/// Steps of the machine that a test may break.
type Machine =
    {
        /// What the client does about a frame.
        Activity: KeepaliveState * int64<ms> -> KeepaliveState
        Tick: KeepaliveState * int64<ms> -> struct (KeepaliveState * KeepaliveAction)
        NetworkChanged: KeepaliveState * int64<ms> -> struct (KeepaliveState * KeepaliveAction)
    }

let private tickLength = 1_000L<ms>

let private sent (limits: Limits) (world: World) : World =
    { world with
        Pings = min limits.OnTheWay (world.Pings + 1)
        AskedAt =
            if world.AskedAt = Time.Never then
                world.Now
            else
                world.AskedAt }

let private act (limits: Limits) (before: World) (state: KeepaliveState) (action: KeepaliveAction) : World =
    let world = { before with State = state }

    match action with
    | KeepaliveAction.SendPing when before.State.Phase = KeepalivePhase.Closed ->
        { world with
            Fault = Some "it pings after it has given up" }
    | KeepaliveAction.SendPing -> sent limits world
    | KeepaliveAction.Close when before.State.Phase = KeepalivePhase.Closed ->
        { world with
            Fault = Some "it gives up twice" }
    | KeepaliveAction.Close when world.AskedAt = Time.Never || world.Now - world.AskedAt < limits.Timeout ->
        { world with
            Fault = Some "it gives up before a ping had its time to be answered" }
    | _ -> world

let private heard (machine: Machine) (world: World) : World =
    { world with
        State = machine.Activity(world.State, world.Now)
        HeardAt = world.Now
        AskedAt = Time.Never }

let private pongArrives (machine: Machine) (world: World) : World =
    let heard = heard machine world

    { heard with
        State = Keepalive.pong heard.State
        Pongs = world.Pongs - 1 }

let private frameArrives (machine: Machine) (world: World) : World =
    { heard machine world with
        Frames = world.Frames - 1 }

let private pingArrives (limits: Limits) (world: World) : World =
    { world with
        Pings = world.Pings - 1
        IsKnown = world.IsKnown || world.IsAlive
        Pongs =
            if world.IsAlive then
                min limits.OnTheWay (world.Pongs + 1)
            else
                world.Pongs }

let private isDue (world: World) = world.Now >= world.State.NextAt

let private tick (machine: Machine) (limits: Limits) (world: World) : World =
    let struct (state, action) = machine.Tick(world.State, world.Now)
    act limits world state action

/// With another address, what is on the way reaches nobody, and the server sends to the old one until it hears of the new one.
let private changed (machine: Machine) (limits: Limits) (isMove: bool) (world: World) : World =
    let struct (state, action) = machine.NetworkChanged(world.State, world.Now)
    let world = { world with AskedAt = Time.Never }

    let world =
        if isMove then
            { world with
                IsKnown = false
                Pings = 0
                Pongs = 0
                Frames = 0 }
        else
            world

    act limits world state action

let private doubted (limits: Limits) (world: World) : World =
    let struct (state, action) =
        Keepalive.doubted (world.State, world.HeardAt, world.Now)

    act limits world state action

let private suspended (world: World) : World =
    { world with
        State = Keepalive.suspend world.State
        AskedAt = Time.Never }

let private ping () = "ping"
let private pong () = "pong"
let private frame () = "frame"

let private moves (limits: Limits) (machine: Machine) (world: World) : Move<World> list =
    [ if world.Pings > 0 then
          struct (Arrives(0, 1, ping), pingArrives limits world)
          struct (Lost(0, 1, ping), { world with Pings = world.Pings - 1 })

      if world.Pongs > 0 then
          struct (Arrives(1, 0, pong), pongArrives machine world)
          struct (Lost(1, 0, pong), { world with Pongs = world.Pongs - 1 })

      if world.Frames > 0 then
          struct (Arrives(1, 0, frame), frameArrives machine world)
          struct (Lost(1, 0, frame), { world with Frames = world.Frames - 1 })

      if isDue world then
          struct (At(0, (fun () -> "its time has come")), tick machine limits world)

      struct (At(0, (fun () -> "time passes")),
              { world with
                  Now = world.Now + tickLength })

      struct (At(0, (fun () -> "the network changes")), changed machine limits false world)
      struct (At(0, (fun () -> "moves to another address")), changed machine limits true world)
      struct (At(0, (fun () -> "the host sleeps")), suspended world)
      struct (At(0, (fun () -> "online again")),
              { world with
                  State = Keepalive.online (world.State, world.Now) })

      if world.Now - world.HeardAt >= 2L * tickLength then
          struct (At(0, (fun () -> "doubts that the server is there")), doubted limits world)

      if world.IsAlive && world.IsKnown then
          struct (At(1, (fun () -> "sends a frame")),
                  { world with
                      Frames = min limits.OnTheWay (world.Frames + 1) })

      if world.IsAlive then
          struct (At(1, (fun () -> "is gone")), { world with IsAlive = false }) ]

let private numbers = Fields.numbersOf<KeepaliveState>

let private encode (limits: Limits) (encoder: Encoder) (world: World) : unit =
    let longest = limits.Interval + limits.Timeout

    // What is due is due however long it has been; what was long ago, was.
    let relative (time: int64<ms>) =
        if time = Time.Never then
            1_000_000L
        else
            max -(int64 longest) (int64 (time - world.Now))

    let view (name: string) (number: int64) =
        match name with
        | "TracedAt" -> if number = int64 world.HeardAt then 1L else 0L
        | "PingAt"
        | "CloseAt" -> max 0L (relative (number * 1L<ms>))
        | _ -> number

    for number in numbers world.State view do
        encoder.Add number

    encoder.Add(relative world.HeardAt)
    encoder.Add(relative world.AskedAt)
    encoder.Add world.IsAlive
    encoder.Add world.IsKnown
    encoder.Add(world.Pings ||| (world.Pongs <<< 8) ||| (world.Frames <<< 16))

/// What is on the way arrives, and what is due is done; time passes until it is known whether the server is there, and where
/// the client is.
let private healthy (limits: Limits) (machine: Machine) (world: World) : Move<World> option =
    if world.Pings > 0 then
        Some(struct (Arrives(0, 1, ping), pingArrives limits world))
    elif world.Pongs > 0 then
        Some(struct (Arrives(1, 0, pong), pongArrives machine world))
    elif world.Frames > 0 then
        Some(struct (Arrives(1, 0, frame), frameArrives machine world))
    elif isDue world then
        Some(struct (At(0, (fun () -> "its time has come")), tick machine limits world))
    elif
        world.State.NextAt = Time.Never
        || (world.IsAlive && world.IsKnown && world.State.Phase <> KeepalivePhase.Pending)
    then
        None
    else
        Some(
            struct (At(0, (fun () -> "time passes")),
                    { world with
                        Now = world.Now + tickLength })
        )

let private wrongAtRest (world: World) : string option =
    match world.State.Phase with
    | KeepalivePhase.Pending -> Some "at rest a ping waits for its answer"
    | KeepalivePhase.Waiting when not world.IsAlive -> Some "at rest the server is gone, and the client does not know"
    | KeepalivePhase.Inactive
    | KeepalivePhase.Waiting when world.IsAlive && not world.IsKnown ->
        Some "at rest the server does not know the client's address"
    | KeepalivePhase.Inactive when world.IsContinuous -> Some "at rest a continuous keepalive does nothing"
    | _ -> None

let asItIs: Machine =
    { Activity = Keepalive.activity
      Tick = Keepalive.tick
      NetworkChanged = Keepalive.networkChanged }

let model (limits: Limits) (machine: Machine) : Model<World> =
    { Name = "keepalive"
      Bound =
        $"interval {limits.Interval / 1_000L<ms>} s and timeout {limits.Timeout / 1_000L<ms>} s in steps of a second, {limits.OnTheWay} messages of each kind on the way; continuous and not"
      Lanes = [ "client"; "server" ]
      Start =
        [ for isContinuous in [ true; false ] do
              { State =
                  Keepalive.online (Keepalive.create (limits.Interval, limits.Timeout, isContinuous, 0L<ms>), 0L<ms>)
                Now = 0L<ms>
                HeardAt = 0L<ms>
                AskedAt = Time.Never
                IsContinuous = isContinuous
                IsAlive = true
                IsKnown = true
                Pings = 0
                Pongs = 0
                Frames = 0
                Fault = None } ]
      Moves = moves limits machine
      Encode = encode limits
      Wrong = fun _ world -> world.Fault
      Healthy = healthy limits machine
      WrongAtRest = wrongAtRest
      MovesToRest = 200 }

/// Every state of path MTU discovery (RFC 8899, protocol §9) on a path that changes, loses and reorders.
module Lightway.Specs.Search.PathMtuStates

open Lightway.Protocol
open Lightway.Specs.Search.Explore

/// A ping on its way, or its answer.
[<Struct>]
type Probe = { Id: uint16; Size: int }

[<NoComparison; NoEquality>]
type World =
    {
        State: PathMtuState
        Now: int64<ms>
        /// The longest packet that the path carries.
        Path: int
        /// The path may change so often again, and timers may run out so often again.
        Changes: int
        Timers: int
        Pings: Probe list
        Pongs: Probe list
        /// The longest ping that has arrived.
        Longest: int
    }

type Limits =
    { Base: int
      Max: int
      Paths: int list
      Changes: int
      Timers: int
      OnTheWay: int }

/// What the machine does about an answer, so that a test can break it.
type Pong = PathMtuState * uint16 * int64<ms> -> PathMtuStep

let private describe (what: string) (probe: Probe) () =
    $"{what} {probe.Id}, {probe.Size} bytes"

let private add (limits: Limits) (probe: Probe) (probes: Probe list) =
    if probes.Length < limits.OnTheWay then
        List.sortBy _.Id (probe :: probes)
    else
        probes

let private after (limits: Limits) (world: World) (step: PathMtuStep) : World =
    { world with
        State = step.State
        Pings =
            if step.Probe > 0 then
                add limits { Id = step.Id; Size = step.Probe } world.Pings
            else
                world.Pings }

let private pingArrives (limits: Limits) (probe: Probe) (world: World) : World =
    { world with
        Pongs = add limits probe world.Pongs
        Longest = max world.Longest probe.Size }

let private pongArrives (pong: Pong) (limits: Limits) (probe: Probe) (world: World) : World =
    pong (world.State, probe.Id, world.Now) |> after limits world

let private tick (limits: Limits) (world: World) : World =
    let now = max world.Now world.State.NextAt

    PathMtu.tick (world.State, now) |> after limits { world with Now = now }

let private carried (world: World) : World =
    { world with
        State = PathMtu.carried (world.State, world.State.Size, world.Now) }

let private without (probe: Probe) (probes: Probe list) =
    probes |> List.filter (fun other -> other.Id <> probe.Id)

let private moves (limits: Limits) (pong: Pong) (world: World) : Move<World> list =
    [ for probe in world.Pings do
          let rest =
              { world with
                  Pings = without probe world.Pings }

          if probe.Size <= world.Path then
              struct (Arrives(0, 1, describe "ping" probe), pingArrives limits probe rest)

          struct (Lost(0, 1, describe "ping" probe), rest)

      for probe in world.Pongs do
          let rest =
              { world with
                  Pongs = without probe world.Pongs }

          struct (Arrives(1, 0, describe "pong" probe), pongArrives pong limits probe rest)
          struct (Lost(1, 0, describe "pong" probe), rest)

      if world.Timers > 0 && world.State.NextAt <> Time.Never then
          struct (At(0, (fun () -> "its time has come")),
                  { tick limits world with
                      Timers = world.Timers - 1 })

      if world.State.IsUnwatched then
          struct (At(0, (fun () -> "sends long datagrams")), carried world)

      if world.Changes > 0 then
          for path in limits.Paths do
              if path <> world.Path then
                  struct (At(0, (fun () -> $"the path carries {path} bytes")),
                          { world with
                              Path = path
                              Changes = world.Changes - 1 }) ]

let private numbers = Fields.numbersOf<PathMtuState>

/// Id of the latest probe.
let lastId (state: PathMtuState) : uint16 =
    let mutable last = 0us

    numbers state (fun name number ->
        (if name = "LastId" then
             last <- uint16 number)

        number)
    |> ignore

    last

let private encode (encoder: Encoder) (world: World) : unit =
    let lastId = int64 (lastId world.State)

    let view (name: string) (number: int64) =
        if name.EndsWith "At" then
            if number = int64 Time.Never then
                number
            else
                number - int64 world.Now
        elif name.EndsWith "Id" then
            (number - lastId) &&& 0xFFFFL
        else
            number

    for number in numbers world.State view do
        encoder.Add number

    encoder.Add(world.Path ||| (world.Changes <<< 16) ||| (world.Timers <<< 20))
    encoder.Add world.Longest

    for probe in world.Pings do
        encoder.Add((int64 probe.Id - lastId) * 65536L + int64 probe.Size)

    encoder.Add 1

    for probe in world.Pongs do
        encoder.Add((int64 probe.Id - lastId) * 65536L + int64 probe.Size)

let private wrong (limits: Limits) (_: World) (world: World) : string option =
    let state = world.State

    match state.Phase with
    | PathMtuPhase.Searching
    | PathMtuPhase.Complete when state.Size > world.Longest ->
        Some $"packets may have {state.Size} bytes, and none of more than {world.Longest} has arrived"
    | _ when state.Size > limits.Max || state.Settled > limits.Max -> Some "it is above the outside MTU"
    | _ -> None

let private isRight (limits: Limits) (world: World) =
    world.State.Phase = PathMtuPhase.Complete && world.State.Size = min limits.Max world.Path

/// Whatever the path carries arrives, long datagrams are sent, and time passes.
let private healthy (limits: Limits) (pong: Pong) (world: World) : Move<World> option =
    match world.Pongs, world.Pings with
    | probe :: rest, _ ->
        Some(struct (Arrives(1, 0, describe "pong" probe), pongArrives pong limits probe { world with Pongs = rest }))
    | _, probe :: rest when probe.Size <= world.Path ->
        Some(struct (Arrives(0, 1, describe "ping" probe), pingArrives limits probe { world with Pings = rest }))
    | _, probe :: rest -> Some(struct (Lost(0, 1, describe "ping" probe), { world with Pings = rest }))
    | _ when isRight limits world && world.State.IsUnwatched -> None
    | _ when world.State.IsUnwatched && world.State.Size > world.Path ->
        Some(struct (At(0, (fun () -> "sends long datagrams")), carried world))
    | _ when world.State.NextAt <> Time.Never ->
        Some(struct (At(0, (fun () -> "its time has come")), tick limits world))
    | _ -> None

let asItIs: Pong = PathMtu.pong

let model (limits: Limits) (pong: Pong) : Model<World> =
    { Name = "path MTU discovery"
      Bound =
        $"sizes {limits.Base} to {limits.Max}, {limits.Changes} changes of the path, {limits.Timers} times that a timer runs out, {limits.OnTheWay} pings and pongs on the way"
      Lanes = [ "one end"; "the other" ]
      Start =
        [ for path in limits.Paths do
              let world =
                  { State = PathMtu.create (limits.Base, limits.Max)
                    Now = 0L<ms>
                    Path = path
                    Changes = limits.Changes
                    Timers = limits.Timers
                    Pings = []
                    Pongs = []
                    Longest = 0 }

              PathMtu.start (world.State, 0L<ms>) |> after limits world ]
      Moves = moves limits pong
      Encode = encode
      Wrong = wrong limits
      Healthy = healthy limits pong
      WrongAtRest =
        fun world ->
            if isRight limits world then
                None
            else
                Some $"at rest packets have {world.State.Size} bytes, and the path carries {world.Path}"
      MovesToRest = 200 }

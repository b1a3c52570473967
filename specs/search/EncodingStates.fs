/// Every state of a client that asks for encoding and of its server (protocol §7), over a channel that loses, repeats and reorders.
module Lightway.Specs.Search.EncodingStates

open Lightway.Protocol
open Lightway.Specs.Search.Explore

/// A request, or an answer.
[<Struct>]
type Message = { Id: uint64; Enable: bool }

[<NoComparison; NoEquality>]
type World =
    {
        Client: EncodingState
        Server: EncodingState
        MayEncode: bool
        /// The client's newest request had no answer.
        HasGivenUp: bool
        /// The client may ask so often again.
        Requests: int
        /// Each is there once: it may be repeated.
        ToServer: Message list
        ToClient: Message list
    }

type Limits = { Requests: int; OnTheWay: int }

/// Steps of the machine that a test may break.
type Machine =
    {
        /// What the client does about an answer.
        Answered: EncodingState * uint64 * bool -> EncodingState
        /// What the server does about a request.
        Requested: EncodingState * uint64 * bool * bool -> struct (EncodingState * EncodingVerdict)
    }

let private numberOf (message: Message) =
    2L * int64 message.Id + (if message.Enable then 1L else 0L)

let private describe (what: string) (message: Message) () =
    let wish = if message.Enable then "on" else "off"
    $"{what} {message.Id}: {wish}"

let private add (limits: Limits) (message: Message) (messages: Message list) =
    if List.contains message messages || messages.Length >= limits.OnTheWay then
        messages
    else
        List.sortBy numberOf (message :: messages)

let private ask (limits: Limits) (world: World) : World =
    { world with
        ToServer =
            add
                limits
                { Id = world.Client.Id
                  Enable = world.Client.Enable }
                world.ToServer }

let private serverHears (machine: Machine) (limits: Limits) (message: Message) (world: World) : World =
    let struct (server, verdict) =
        machine.Requested(world.Server, message.Id, message.Enable, world.MayEncode)

    let heard = { world with Server = server }

    let answer isOn =
        { heard with
            ToClient = add limits { message with Enable = isOn } heard.ToClient }

    match verdict with
    | EncodingVerdict.Agree -> answer message.Enable
    | EncodingVerdict.Refuse -> answer false
    | _ -> heard

let private clientHears (machine: Machine) (message: Message) (world: World) : World =
    { world with
        Client = machine.Answered(world.Client, message.Id, message.Enable) }

let private timer (limits: Limits) (world: World) : World =
    let struct (client, isSent) =
        InsideEncoding.timer (world.Client, world.Client.RepeatAt)

    let passed =
        { world with
            Client = client
            HasGivenUp = not isSent }

    if isSent then ask limits passed else passed

let private request (limits: Limits) (enable: bool) (world: World) : World =
    ask
        limits
        { world with
            Client = InsideEncoding.request (world.Client, enable, 0L<ms>)
            HasGivenUp = false
            Requests = world.Requests - 1 }

let private isWaiting (world: World) = world.Client.RepeatAt <> Time.Never

let private moves (limits: Limits) (machine: Machine) (world: World) : Move<World> list =
    [ for message in world.ToServer do
          struct (Arrives(0, 1, describe "request" message), serverHears machine limits message world)

          struct (Lost(0, 1, describe "request" message),
                  { world with
                      ToServer = List.except [ message ] world.ToServer })

      for message in world.ToClient do
          struct (Arrives(1, 0, describe "answer" message), clientHears machine message world)

          struct (Lost(1, 0, describe "answer" message),
                  { world with
                      ToClient = List.except [ message ] world.ToClient })

      if isWaiting world then
          struct (At(0, (fun () -> "repeats, or gives up")), timer limits world)

      if world.Requests > 0 then
          struct (At(0, (fun () -> "wants it on")), request limits true world)
          struct (At(0, (fun () -> "wants it off")), request limits false world) ]

// The time of a repetition is that of the timer, whichever it is.
let private numbers = Fields.numbersOf<EncodingState>
let private withoutTime name number = if name = "At" then 0L else number

let private encode (encoder: Encoder) (world: World) : unit =
    for number in numbers world.Client withoutTime @ numbers world.Server withoutTime do
        encoder.Add number

    encoder.Add(isWaiting world)
    encoder.Add world.MayEncode
    encoder.Add world.HasGivenUp
    encoder.Add world.Requests

    for message in world.ToServer do
        encoder.Add(numberOf message)

    encoder.Add -1

    for message in world.ToClient do
        encoder.Add(numberOf message)

let private wrong (before: World) (world: World) : string option =
    if not world.MayEncode && (world.Client.IsOn || world.Server.IsOn) then
        Some "packets are encoded although the server refuses that"
    elif world.Server.Id < before.Server.Id then
        Some "the server goes back to an older request"
    elif world.Server.Id > world.Client.Id then
        Some "the server knows a request that was never made"
    elif
        world.Server.Id = world.Client.Id
        && world.Server.Id > 0UL
        && world.Server.IsOn <> world.Client.Enable
    then
        Some "the server agreed to the newest request, and does something else"
    else
        None

/// All that is on the way arrives, and a request without an answer is repeated.
let private healthy (limits: Limits) (machine: Machine) (world: World) : Move<World> option =
    match world.ToServer, world.ToClient with
    | message :: rest, _ ->
        Some(
            struct (Arrives(0, 1, describe "request" message),
                    serverHears machine limits message { world with ToServer = rest })
        )
    | _, message :: rest ->
        Some(
            struct (Arrives(1, 0, describe "answer" message), clientHears machine message { world with ToClient = rest })
        )
    | _ when isWaiting world -> Some(struct (At(0, (fun () -> "repeats, or gives up")), timer limits world))
    // Whoever gave up asks again some time.
    | _ when world.MayEncode && world.Client.IsOn <> world.Client.Enable ->
        Some(struct (At(0, (fun () -> "wants the same again")), request limits world.Client.Enable world))
    | _ -> None

let private wrongAtRest (world: World) : string option =
    let wish = world.MayEncode && world.Client.Enable

    if world.Client.IsOn <> wish then
        Some "at rest the client does not do what it asked for"
    elif not world.HasGivenUp && world.MayEncode && world.Server.IsOn <> wish then
        Some "at rest the ends disagree"
    else
        None

let asItIs: Machine =
    { Answered = InsideEncoding.answered
      Requested = InsideEncoding.requested }

let model (limits: Limits) (machine: Machine) : Model<World> =
    { Name = "encoding"
      Bound =
        $"{limits.Requests} requests, {limits.OnTheWay} messages on the way each way; a server that agrees, and one that refuses"
      Lanes = [ "client"; "server" ]
      Start =
        [ for mayEncode in [ true; false ] do
              { Client = InsideEncoding.create
                Server = InsideEncoding.create
                MayEncode = mayEncode
                HasGivenUp = false
                Requests = limits.Requests
                ToServer = []
                ToClient = [] } ]
      Moves = moves limits machine
      Encode = encode
      Wrong = wrong
      Healthy = healthy limits machine
      WrongAtRest = wrongAtRest
      MovesToRest = 60 }

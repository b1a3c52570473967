/// Two ends of an Expresslane key exchange, and a network between them that loses, repeats and reorders.
module Lightway.Specs.ExpresslaneWorld

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

let never = Time.Never


type Happening =
    /// One of the configs on the way, not always the oldest, arrives.
    | Arrives of toServer: bool * which: int
    /// The same, but it will arrive again.
    | Repeats of toServer: bool * which: int
    | IsLost of toServer: bool * which: int
    | Passes of ms: int
    | Traffic of fromServer: bool
    /// For so long nothing arrives at one side and everything at the other, and both have traffic.
    | Deaf of server: bool * ms: int

/// One end: the pure state, and what the engine around it knows.
type End(role, enabled, interval, firstKey: int) =
    let mutable keys = firstKey
    member val State = ExpresslaneKeys.create (role, enabled, interval) with get, set
    member val AnySent = false with get, set

    member _.FreshKey() =
        keys <- keys + 2
        filled (Random keys) 32

type World(interval: int64<ms>, clientEnabled, serverEnabled) =
    let client = End(Role.Client, clientEnabled, interval, 0)
    let server = End(Role.Server, serverEnabled, interval, 1)
    let toServer = List<ExpresslaneConfig>()
    let toClient = List<ExpresslaneConfig>()
    let wiped = List<byte[]>()
    let mutable now = 1_000L<ms>

    // The receiver opens with its current key or the one before.
    let canOpen (sender: End) (receiver: End) =
        isNull sender.State.SelfKey
        || receiver.State.PeerKey = sender.State.SelfKey
        || receiver.State.PreviousPeerKey = sender.State.SelfKey

    let check () =
        for sender, receiver in [ client, server; server, client ] do
            Expect.isTrue (canOpen sender receiver) $"what the {sender.State.Role} seals can be opened"

            if sender.State.Ready then
                Expect.equal (sender.State.Version, receiver.State.Version) (2uy, 2uy) "both know the version"

    // What is sent is a copy, as it is on a real wire; then keys that the end discards are wiped, and must not be missed.
    let apply (one: End) (given: byte[] list) (step: ExpresslaneStep) =
        let before = one.State
        let peerKeys (state: ExpresslaneState) = state.PeerKey, state.PreviousPeerKey

        let changes =
            before.SelfKey <> step.State.SelfKey, peerKeys before <> peerKeys step.State

        Expect.equal
            (step.SelfKeyChanged, step.PeerKeyChanged)
            changes
            "changes of the own key and of the peer's are reported"

        one.State <- step.State
        let other = if before.Role = Role.Server then toClient else toServer

        for config in [ step.Ack; step.Offer ] do
            config
            |> ValueOption.iter (fun config ->
                other.Add
                    { config with
                        Key = Array.copy config.Key })

        for key in ExpresslaneKeys.discarded (before, step.State, Array.ofList given) do
            Array.Clear key
            wiped.Add key

        for key in ExpresslaneKeys.arraysOf step.State do
            Expect.isFalse (Seq.exists (fun other -> obj.ReferenceEquals(key, other)) wiped) "a key in use is not wiped"

        for key in given do
            let isUsed =
                ExpresslaneKeys.arraysOf step.State |> Array.exists (fun other -> obj.ReferenceEquals(key, other))

            Expect.isTrue (isUsed || Array.forall ((=) 0uy) key) "a key that is not used is wiped"

        check ()

    let arrive isServer (config: ExpresslaneConfig) =
        let one = if isServer then server else client
        let fresh = one.FreshKey()

        let config =
            { config with
                Key = Array.copy config.Key }

        let step =
            ExpresslaneKeys.configReceived (one.State, config, one.AnySent, now, fresh)

        match step.Ack with
        | ValueSome ack ->
            Expect.equal
                ack
                { config with
                    Ack = true
                    Version = ack.Version }
                "the config, acknowledged"
        | ValueNone -> ()

        apply one [ fresh; config.Key ] step

    let timers () =
        for one in [ client; server ] do
            if now >= one.State.TimerAt then
                apply one [] (ExpresslaneKeys.timer (one.State, now))

    let traffic (one: End) =
        if now >= one.State.RotateAt then
            let fresh = one.FreshKey()
            apply one [ fresh ] (ExpresslaneKeys.insideTraffic (one.State, now, fresh))

        one.AnySent <- one.AnySent || one.State.Ready

    member _.Client = client
    member _.Server = server
    member _.Now = now
    member _.OnTheWay = toServer.Count + toClient.Count
    member _.Ready = client.State.Ready && server.State.Ready
    member _.Step (one: End) step = apply one [] step
    member _.Traffic one = traffic one

    member _.Online() =
        for one in [ client; server ] do
            let fresh = one.FreshKey()
            apply one [ fresh ] (ExpresslaneKeys.online (one.State, ProtocolVersion.V1_3, now, fresh))

    member private this.Deaf(isServer, ms) =
        let until = now + milliseconds ms

        while now < until do
            this.Happen(Passes 100)

            while this.OnTheWay > 0 do
                this.Happen(IsLost(isServer, 0))
                this.Happen(Arrives(not isServer, 0))

            traffic client
            traffic server

    member this.Happen(happening: Happening) =
        let queue isServer = if isServer then toServer else toClient

        match happening with
        | Arrives(isServer, which) when (queue isServer).Count > 0 ->
            let at = which % (queue isServer).Count
            let config = (queue isServer)[at]
            (queue isServer).RemoveAt at
            arrive isServer config
        | Repeats(isServer, which) when (queue isServer).Count > 0 ->
            arrive isServer ((queue isServer)[which % (queue isServer).Count])
        | IsLost(isServer, which) when (queue isServer).Count > 0 ->
            (queue isServer).RemoveAt(which % (queue isServer).Count)
        | Passes ms ->
            now <- now + milliseconds ms
            timers ()
        | Traffic fromServer -> traffic (if fromServer then server else client)
        | Deaf(isServer, ms) -> this.Deaf(isServer, ms)
        | _ -> ()

    /// A time in which everything arrives at once and both ends have traffic.
    member this.Heal(time: int64<ms>) =
        let until = now + time

        while now < until do
            this.Happen(Passes 100)

            while this.OnTheWay > 0 do
                this.Happen(Arrives(toServer.Count > 0, 0))

            traffic client
            traffic server

type HappeningArbitrary =
    static member Happening() =
        let which = Gen.frequency [ 3, Gen.constant 0; 1, Gen.choose (0, 20) ]
        let either = Gen.elements [ false; true ]

        Gen.frequency
            [ 6, Gen.map2 (fun toServer at -> Arrives(toServer, at)) either which
              2, Gen.map2 (fun toServer at -> Repeats(toServer, at)) either which
              3, Gen.map2 (fun toServer at -> IsLost(toServer, at)) either which
              4, Gen.map Passes (Gen.choose (0, 4_000))
              4, Gen.map Traffic either
              1, Gen.map2 (fun server ms -> Deaf(server, ms)) either (Gen.choose (0, 15_000)) ]
        |> Arb.fromGen

let config =
    { FsCheckConfig.defaultConfig with
        maxTest = 4_000
        endSize = 120
        arbitrary = [ typeof<HappeningArbitrary>; typeof<SeedArbitrary> ] }

/// Two online ends after a history; every step in it was checked.
let after (interval: int64<ms>) (history: Happening list) =
    let world = World(interval, true, true)
    world.Online()
    history |> List.iter world.Happen
    world

let readyWorld () =
    let world = after 900_000L<ms> []
    world.Heal 1_000L<ms>
    Expect.isTrue world.Ready "ready"
    world

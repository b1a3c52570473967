/// The Expresslane key exchange (protocol §8): two ends and a network that loses, repeats and
/// reorders what they send. Vectors: §12.
module Lightway.Specs.ExpresslaneExchange

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators
open Lightway.Specs.ExpresslaneWorld

let private zeroKey: byte[] = Array.zeroCreate 32
let private bytesOf (payload: byte[]) = ReadOnlySpan payload

/// 16 bytes of counters, as a keepalive carries them.
let private counters (sent: uint64) (received: uint64) =
    let payload = junk 16
    ExpresslaneHealth.write (sent, received, Span payload) |> ignore
    payload

// ---------------------------------------------------------------- two ends and a network

let private adversity =
    [ testPropertyWithConfig config "§8: whatever is lost, repeated or late, the peer can open what an end seals"
      <| fun (history: Happening list) (short: bool) ->
          after (if short then 1_500L<ms> else 20_000L<ms>) history |> ignore

      testPropertyWithConfig config "§8: once configs arrive again, both ends become ready within 10 s and stay so"
      <| fun (history: Happening list) (short: bool) ->
          let world = after (if short then 1_500L<ms> else 20_000L<ms>) history
          world.Heal 10_000L<ms>

          List.init 200 id
          |> List.forall (fun _ ->
              world.Heal 100L<ms>
              world.Ready)

      testPropertyWithConfig config "§8: once one end gave up, neither is ready ever again, and silence follows"
      <| fun (history: Happening list) (atServer: bool) (both: bool) ->
          let world = after 1_500L<ms> history
          world.Heal 10_000L<ms>
          let one = if atServer then world.Server else world.Client

          for one in (if both then [ world.Client; world.Server ] else [ one ]) do
              for _ in 1..3 do
                  world.Step one (ExpresslaneKeys.pongReceived (one.State, bytesOf [||], 0UL, 0UL, world.Now))

          history |> List.truncate 4 |> List.iter world.Happen
          world.Heal 12_000L<ms>

          let counters () =
              world.Client.State.Counter, world.Server.State.Counter

          let before = counters ()
          world.Heal 60_000L<ms>

          one.State.Status = ExpresslaneStatus.Degraded
          && not (world.Client.State.Ready || world.Server.State.Ready)
          && counters () = before ]

// ---------------------------------------------------------------- one end alone

let private online role =
    let state = ExpresslaneKeys.create (role, true, 900_000L<ms>)
    ExpresslaneKeys.online (state, ProtocolVersion.V1_3, 0L<ms>, filled (Random 1) 32)

let private offer counter key =
    { Version = 2uy
      Enabled = true
      Ack = false
      Counter = counter
      Key = key }

let private receive (state: ExpresslaneState) config now =
    ExpresslaneKeys.configReceived (state, config, false, now, filled (Random 99) 32)

let private exchange =
    [ testCase "§6: client's config, server's answer and config, client's answer: four frames and both are ready"
      <| fun () ->
          let opened = online Role.Client
          let first = opened.Offer.Value
          Expect.equal (first.Version, first.Enabled, first.Ack, first.Counter) (2uy, true, false, 1UL) "first config"
          let server = (online Role.Server).State
          Expect.equal server.Status ExpresslaneStatus.WaitingForClient "the server waits"
          let answered = receive server first 10L<ms>
          Expect.equal answered.Ack.Value { first with Ack = true } "answer"
          let second = answered.Offer.Value
          Expect.equal (second.Counter, second.Ack) (1UL, false) "server's config"
          Expect.isFalse answered.State.Ready "not before its own key is acknowledged"
          let acked = receive opened.State answered.Ack.Value 20L<ms>
          Expect.isFalse acked.State.Ready "not before the peer's key"
          let client = receive acked.State second 20L<ms>
          Expect.isTrue client.State.Ready "client"
          Expect.isTrue client.Offer.IsNone "no second offer"
          let server = receive answered.State client.Ack.Value 30L<ms>
          Expect.isTrue server.State.Ready "server"
          Expect.equal server.State.SelfKey client.State.PeerKey "server to client"
          Expect.equal server.State.PeerKey client.State.SelfKey "client to server"

      testCase "§12: an unanswered config is repeated after 0.5, 1.0, 1.5, 2.0, 2.5 s, and given up 3.0 s later"
      <| fun () ->
          Expect.equal
              (List.init 6 ExpresslaneKeys.retransmitAfter)
              [ 500L<ms>; 1000L<ms>; 1500L<ms>; 2000L<ms>; 2500L<ms>; 3000L<ms> ]
              "waits"

          let opened = online Role.Client
          let mutable state = opened.State
          let sent = List<int64<ms>>()

          for now in 0L<ms> .. 1L<ms> .. 20_000L<ms> do
              let step = ExpresslaneKeys.timer (state, now)
              state <- step.State

              if step.Offer.IsSome then
                  Expect.equal step.Offer opened.Offer "the same bytes"
                  sent.Add now

          Expect.equal (List.ofSeq sent) [ 500L<ms>; 1500L<ms>; 3000L<ms>; 5000L<ms>; 7500L<ms> ] "times"
          Expect.equal (state.Status, state.TimerAt) (ExpresslaneStatus.Inactive, never) "given up"
          Expect.equal state.RotateAt 10_500L<ms> "the next inside packet starts again"
          let again = ExpresslaneKeys.insideTraffic (state, 20_001L<ms>, filled (Random 5) 32)
          Expect.equal again.Offer.Value.Counter 2UL "a new config"

      testCase "§8: a repeated config is only answered again: the key before the last still opens"
      <| fun () ->
          let world = readyWorld ()
          let key = filled (Random 7) 32
          let counter = world.Server.State.PeerCounter + 1UL
          let once = receive world.Server.State (offer counter key) world.Now
          let twice = receive once.State (offer counter key) world.Now
          Expect.equal twice.Ack once.Ack "answered again"
          Expect.isFalse twice.PeerKeyChanged "nothing new"
          Expect.equal twice.State.PreviousPeerKey world.Server.State.PeerKey "the grace key is kept"
          Expect.isTrue twice.State.Ready "ready all the time"

      testCase "§8: a config overtaken by a later one is ignored: its key would displace the later one's"
      <| fun () ->
          let world = readyWorld ()
          let counter = world.Server.State.PeerCounter

          let later =
              receive world.Server.State (offer (counter + 2UL) (filled (Random 7) 32)) world.Now

          let overtaken =
              receive later.State (offer (counter + 1UL) (filled (Random 8) 32)) world.Now

          Expect.isFalse overtaken.PeerKeyChanged "keys"
          Expect.isTrue (overtaken.Ack.IsNone && overtaken.Offer.IsNone) "no answer"

      testCase "§8: an answer with another counter changes nothing"
      <| fun () ->
          let opened = online Role.Client

          let stray =
              { opened.Offer.Value with
                  Ack = true
                  Counter = 2UL }

          let step = receive opened.State stray 0L<ms>
          Expect.isFalse step.SelfKeyChanged "no key"
          Expect.equal step.State.TimerAt opened.State.TimerAt "still repeating"

      testCase "§8: a new key is offered an interval after the last one was acknowledged, with inside traffic only"
      <| fun () ->
          let world = readyWorld ()
          let state = world.Client.State
          Expect.isTrue (state.RotateAt > world.Now && state.RotateAt <= world.Now + 900_000L<ms>) "in time"

          let early =
              ExpresslaneKeys.insideTraffic (state, state.RotateAt - 1L<ms>, filled (Random 5) 32)

          Expect.isTrue early.Offer.IsNone "early"

          let due =
              ExpresslaneKeys.insideTraffic (state, state.RotateAt, filled (Random 5) 32)

          Expect.equal due.Offer.Value.Counter (state.Counter + 1UL) "due"
          Expect.isTrue due.State.Ready "ready all the time"
          Expect.isFalse due.SelfKeyChanged "the old key seals until the answer"
          let acked = receive due.State { due.Offer.Value with Ack = true } state.RotateAt
          Expect.equal acked.State.SelfKey due.Offer.Value.Key "then the new one"

      testCase "§8: a key that is used up is renewed by the next inside packet, and an offer under way is enough"
      <| fun () ->
          let world = readyWorld ()
          let state = ExpresslaneKeys.usedUp world.Client.State

          let due = ExpresslaneKeys.insideTraffic (state, world.Now, filled (Random 5) 32)

          Expect.equal due.Offer.Value.Counter (state.Counter + 1UL) "at once"
          let again = ExpresslaneKeys.usedUp due.State
          Expect.equal again.RotateAt due.State.RotateAt "no second one"
          let opened = (online Role.Client).State
          Expect.equal (ExpresslaneKeys.usedUp opened).RotateAt opened.RotateAt "nothing before the first key"

      testCase "§8: a peer that acknowledges and has no key of its own gets no further offers until it sends one"
      <| fun () ->
          let opened = online Role.Client
          let acked = receive opened.State { opened.Offer.Value with Ack = true } 0L<ms>
          Expect.isFalse acked.State.Ready "not ready"
          Expect.equal acked.State.RotateAt never "no offer"
          let joined = receive acked.State (offer 1UL (filled (Random 7) 32)) 5_000L<ms>
          Expect.isTrue joined.State.Ready "ready with the peer's key"
          Expect.equal joined.State.RotateAt 905_000L<ms> "and renewed in time"

      testCase "§8: an interval of 0 never rotates"
      <| fun () ->
          let world = after 0L<ms> []
          world.Heal 1_000L<ms>
          Expect.isTrue world.Ready "ready"
          Expect.equal (world.Client.State.RotateAt, world.Server.State.RotateAt) (never, never) "never"

      testCase "§8: below version 1.3 no end offers anything"
      <| fun () ->
          let state = ExpresslaneKeys.create (Role.Client, true, 1_000L<ms>)

          let opened =
              ExpresslaneKeys.online (state, ProtocolVersion.V1_2, 0L<ms>, filled (Random 1) 32)

          Expect.isTrue opened.Offer.IsNone "at once"
          Expect.equal opened.State.RotateAt never "later"
          let server = ExpresslaneKeys.create (Role.Server, true, 1_000L<ms>)

          let opened =
              ExpresslaneKeys.online (server, ProtocolVersion.V1_1, 0L<ms>, filled (Random 1) 32)

          let answered = receive opened.State (offer 1UL (filled (Random 2) 32)) 0L<ms>
          Expect.isTrue (answered.Ack.IsSome && answered.Offer.IsNone) "only an answer" ]

let private versions =
    [ for told, expected in [ 1uy, 1uy; 2uy, 2uy; 0uy, 2uy; 3uy, 2uy; 255uy, 2uy ] do
          testCase $"§12: a peer that reports version {told} gets version {expected}"
          <| fun () ->
              let server = (online Role.Server).State

              let step =
                  receive
                      server
                      { offer 1UL (filled (Random 3) 32) with
                          Version = told }
                      0L<ms>

              Expect.equal (ExpresslaneKeys.negotiate told) expected "negotiated"
              Expect.equal step.State.Version expected "used"
              Expect.equal (step.Ack.Value.Version, step.Offer.Value.Version) (expected, expected) "reported"

      testCase "§8: the version stays once a packet was sent"
      <| fun () ->
          let world = readyWorld ()
          let state = world.Client.State

          let other =
              { offer (state.PeerCounter + 1UL) (filled (Random 4) 32) with
                  Version = 1uy }

          let before =
              ExpresslaneKeys.configReceived (state, other, false, world.Now, zeroKey)

          let late = ExpresslaneKeys.configReceived (state, other, true, world.Now, zeroKey)
          Expect.equal (before.State.Version, before.Ack.Value.Version) (1uy, 1uy) "before"
          Expect.equal (late.State.Version, late.Ack.Value.Version) (2uy, 2uy) "after" ]

// ---------------------------------------------------------------- never

/// Configs as a hostile peer might send them: low counters, zero keys, keys of a wrong length.
type HostileArbitrary =
    static member Config() =
        gen {
            let! version = Gen.elements [ 0uy; 1uy; 2uy; 3uy ]
            let! enabled = Gen.frequency [ 3, Gen.constant true; 1, Gen.constant false ]
            let! ack = Gen.elements [ false; true ]
            let! counter = Gen.choose (0, 4)

            let! key =
                Gen.elements [ zeroKey; null; [||]; filled (Random 3) 31; filled (Random 4) 32; filled (Random 5) 32 ]

            return
                { Version = version
                  Enabled = enabled
                  Ack = ack
                  Counter = uint64 counter
                  Key = key }
        }
        |> Arb.fromGen

let private hostile =
    { FsCheckConfig.defaultConfig with
        maxTest = 5_000
        arbitrary = [ typeof<HostileArbitrary> ] }

let private usable (key: byte[]) =
    not (isNull key) && key.Length = 32 && Array.exists ((<>) 0uy) key

let private nevers =
    [ testPropertyWithConfig
          hostile
          "§8: whatever configs come, no end is ready without two keys that are 32 bytes and not zero"
      <| fun (configs: ExpresslaneConfig list) (isServer: bool) (timers: bool list) ->
          let mutable state = (online (if isServer then Role.Server else Role.Client)).State
          let due = Array.ofList timers

          configs
          |> List.indexed
          |> List.forall (fun (i, config) ->
              if i < due.Length && due[i] && state.TimerAt < never then
                  state <- (ExpresslaneKeys.timer (state, state.TimerAt)).State

              state <- (receive state config (milliseconds i)).State
              let held = [ state.SelfKey; state.PeerKey; state.PreviousPeerKey ]

              (not state.Ready || (usable state.SelfKey && usable state.PeerKey))
              && held |> List.forall (fun key -> isNull key || usable key))

      testPropertyWithConfig hostile "§10: an end that is switched off stays so, and offers nothing, whatever comes"
      <| fun (configs: ExpresslaneConfig list) (isServer: bool) ->
          let role = if isServer then Role.Server else Role.Client
          let created = ExpresslaneKeys.create (role, false, 1L<ms>)

          let opened =
              ExpresslaneKeys.online (created, ProtocolVersion.V1_3, 0L<ms>, filled (Random 1) 32)

          let mutable state = opened.State

          opened.Offer.IsNone
          && configs
             |> List.forall (fun config ->
                 let answers = not config.Ack && config.Counter >= state.PeerCounter
                 let step = receive state config 5L<ms>

                 let later =
                     ExpresslaneKeys.insideTraffic (step.State, Time.Never - 1L<ms>, filled (Random 2) 32)

                 state <- step.State

                 step.Offer.IsNone
                 && later.Offer.IsNone
                 && step.Ack.IsSome = answers
                 && state.Status = ExpresslaneStatus.Disabled
                 && not state.Ready)

      testCase "§10: after enabled=0 no end offers again, and a server that heard nothing else neither"
      <| fun () ->
          for state in [ (readyWorld ()).Client.State; (online Role.Client).State; (online Role.Server).State ] do
              let stop =
                  { offer (state.PeerCounter + 1UL) zeroKey with
                      Enabled = false }

              let step = receive state stop 2_000L<ms>
              Expect.equal step.Ack.Value { stop with Ack = true } "answered"
              Expect.isTrue step.Offer.IsNone "no offer"
              Expect.equal step.State.Status ExpresslaneStatus.Inactive "through DTLS from now on"
              Expect.equal (step.State.TimerAt, step.State.RotateAt) (never, never) "nothing to come"

      testCase "§8: with an end that is switched off the other never is ready, and offers once an interval"
      <| fun () ->
          let world = World(60_000L<ms>, true, false)
          world.Online()
          world.Heal 600_000L<ms>
          Expect.isFalse (world.Client.State.Ready || world.Server.State.Ready) "ready"
          Expect.isLessThanOrEqual world.Client.State.Counter 11UL "offers"
          Expect.equal world.Server.State.Counter 0UL "the other offers nothing"

      testCase "§8: a random source that gives zeros leads to no offer"
      <| fun () ->
          let state = ExpresslaneKeys.create (Role.Client, true, 1_000L<ms>)
          let step = ExpresslaneKeys.online (state, ProtocolVersion.V1_3, 0L<ms>, zeroKey)
          Expect.isTrue step.Offer.IsNone "no offer" ]

// ---------------------------------------------------------------- health

let private health =
    let bad strikes =
        ExpresslaneHealth.strike (strikes, 100UL, 0UL)

    let good strikes =
        ExpresslaneHealth.strike (strikes, 100UL, 100UL)

    let few strikes =
        ExpresslaneHealth.strike (strikes, 9UL, 0UL)

    [ testCase "§12: strikes go up by bad windows and down by others, between 0 and 255"
      <| fun () ->
          Expect.equal (bad 0uy) 1uy "0 + bad"
          Expect.equal (good 2uy) 1uy "2 + good"
          Expect.equal (good 0uy) 0uy "0 + good"
          Expect.equal (few 1uy) 0uy "1 + too few to tell"
          Expect.equal (bad 255uy) 255uy "255 + bad"

          Expect.equal
              (List.map ExpresslaneHealth.isFatal [ 0uy; 2uy; 3uy; 255uy ])
              [ false; false; true; true ]
              "limit"

      testCase "§12: two bad windows then a good one, again and again, degrade in the end"
      <| fun () ->
          let round strikes = strikes |> bad |> bad |> good
          Expect.equal (round 0uy) 1uy "one is left"
          Expect.isTrue (1uy |> bad |> bad |> ExpresslaneHealth.isFatal) "the second round"

      testCase "§8: a window is bad if at least 10 were sent and more than half of them lost"
      <| fun () ->
          for sent, received, expected in
              [ 9UL, 0UL, 0uy
                10UL, 5UL, 0uy
                10UL, 4UL, 1uy
                11UL, 6UL, 0uy
                11UL, 5UL, 1uy
                100UL, 200UL, 0uy
                UInt64.MaxValue, 0UL, 1uy
                UInt64.MaxValue, UInt64.MaxValue / 2UL + 1UL, 0uy ] do
              Expect.equal (ExpresslaneHealth.strike (0uy, sent, received)) expected $"{received} of {sent}"

      testCase "§8: three replies in a row without counters degrade; one with counters in between restarts the count"
      <| fun () ->
          let step struct (health, _) payload =
              ExpresslaneHealth.step (health, bytesOf payload, 0UL, 0UL)

          let failed struct (_, failed) = failed
          let start = struct (ExpresslaneHealth.start, false)
          let without = [||]
          let with' = counters 0UL 0UL
          Expect.isFalse (List.fold step start [ without; without ] |> failed) "two"
          Expect.isTrue (List.fold step start [ without; without; without ] |> failed) "three"
          Expect.isFalse (List.fold step start [ without; without; with'; without; without ] |> failed) "two and two"

      testCase "§8: both directions are judged, each by what happened since the last reply"
      <| fun () ->
          for inbound in [ true; false ] do
              let mutable health = ExpresslaneHealth.start
              let mutable checks = 0
              let mutable failed = false

              while not failed && checks < 10 do
                  checks <- checks + 1
                  let sent = uint64 checks * 100UL
                  let arrived = if inbound then sent, 0UL else 0UL, sent // at this end, at the peer
                  let payload = counters sent (if inbound then sent else 0UL)

                  let struct (next, fails) =
                      ExpresslaneHealth.step (health, bytesOf payload, sent, snd arrived)

                  health <- next
                  failed <- fails

              Expect.equal (failed, checks) (true, 3) $"inbound {inbound}"

      testCase "§8: a loss of long ago counts once"
      <| fun () ->
          let mutable health = ExpresslaneHealth.start
          let mutable failed = false

          for check in 1UL .. 10UL do // 1000 lost at first, nothing since
              let payload = counters (1000UL + check * 100UL) (check * 100UL)

              let struct (next, fails) =
                  ExpresslaneHealth.step (health, bytesOf payload, check * 100UL, check * 100UL)

              health <- next
              failed <- failed || fails

          Expect.isFalse failed "healthy"

      testCase "§8: giving up says enabled=0 with the zero key under the next counter, and no later config is answered"
      <| fun () ->
          let world = readyWorld ()
          let mutable step = Unchecked.defaultof<ExpresslaneStep>
          let mutable state = world.Client.State

          for check in 1UL .. 3UL do
              Expect.isTrue state.Ready "ready so far"
              let payload = counters (check * 100UL) 0UL
              step <- ExpresslaneKeys.pongReceived (state, bytesOf payload, 0UL, 0UL, world.Now)
              state <- step.State

          Expect.equal (state.Status, state.Ready) (ExpresslaneStatus.Degraded, false) "degraded"

          let expected =
              { offer (world.Client.State.Counter + 1UL) zeroKey with
                  Enabled = false }

          Expect.equal step.Offer (ValueSome expected) "enabled=0"
          let repeated = ExpresslaneKeys.timer (state, state.TimerAt)
          Expect.equal repeated.Offer step.Offer "repeated like any config"
          let ignored = receive state (offer 9UL (filled (Random 1) 32)) world.Now
          Expect.isTrue (ignored.Ack.IsNone && ignored.Offer.IsNone) "ignored"
          Expect.isFalse ignored.PeerKeyChanged "its key too"
          let acked = receive state { expected with Ack = true } world.Now
          Expect.equal (acked.State.TimerAt, acked.State.Status) (never, ExpresslaneStatus.Degraded) "done"
          let insists = receive acked.State (offer 9UL (filled (Random 1) 32)) world.Now
          Expect.isTrue insists.Ack.IsNone "still no answer"

          Expect.equal
              insists.Offer
              (ValueSome
                  { expected with
                      Counter = expected.Counter + 1UL })
              "but notified again"

      testCase "§8: replies to an end that is not ready are no evidence"
      <| fun () ->
          let mutable state = (online Role.Client).State

          for _ in 1..5 do
              let step = ExpresslaneKeys.pongReceived (state, bytesOf [||], 0UL, 0UL, 0L<ms>)
              Expect.isTrue step.Offer.IsNone "nothing to say"
              state <- step.State

          Expect.equal state.Status ExpresslaneStatus.Inactive "still trying" ]

let laws =
    testList
        "expresslane exchange"
        [ testList "adversity" adversity
          testList "exchange" (exchange @ versions)
          testList "never" nevers
          testList "health" health ]

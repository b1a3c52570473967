/// Session ids (protocol §2), and the schedule of key updates that changes them (§3).
module Lightway.Specs.SessionIds

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

type Happening =
    /// The server wants a new id: the client floated, or a key update began.
    | Rotation of fresh: SessionId
    | ServerSends
    | ClientSends
    | Arrives of atServer: bool * which: int
    | Repeats of atServer: bool * which: int
    | IsLost of atServer: bool * which: int

/// A server, its client, and the ids in the headers of the datagrams between them.
type private World() =
    let toServer = List<SessionId>()
    let toClient = List<SessionId>()
    let announced = HashSet<SessionId>()
    member val Ids = SessionRotation.create (SessionId 0xC0FFEEUL) with get, set
    member val Adopted = SessionRotation.adopted SessionId.Empty with get, set
    member this.ClientId = this.Adopted.Adopted

    /// The server's tables: by current id and by pending id.
    member this.Finds(id: SessionId) =
        id = this.Ids.Current || (this.Ids.Pending <> SessionId.Empty && id = this.Ids.Pending)

    member this.ServerHears(id: SessionId) =
        let before = this.Ids
        let receipt = SessionRotation.received (before, id)
        this.Ids <- receipt.Ids

        let expected =
            if id = SessionId.Empty || id = before.Current then
                SessionEvent.None
            elif before.Pending <> SessionId.Empty && id = before.Pending then
                SessionEvent.Finalized
            else
                SessionEvent.Mismatch

        Expect.equal receipt.Event expected "event"

        let after =
            if expected = SessionEvent.Finalized then
                SessionRotation.create id
            else
                before

        Expect.equal receipt.Ids after "ids"

    member this.ServerSends() =
        let id = SessionRotation.outgoing this.Ids
        Expect.isTrue (this.Finds id) "what the server announces, it finds"
        announced.Add id |> ignore
        toClient.Add id

    member this.ClientHears(id: SessionId) =
        this.Adopted <- SessionRotation.adopt (this.Adopted, id, 1)
        Expect.isTrue (announced.Contains this.ClientId) "the client holds what the server announced"

    member this.Happen(happening: Happening) =
        let queue atServer = if atServer then toServer else toClient

        let hears atServer (id: SessionId) =
            if atServer then
                this.ServerHears id
            else
                this.ClientHears id

        match happening with
        // An id of 64 random bits is drawn once.
        | Rotation fresh when announced.Contains fresh -> ()
        | Rotation fresh ->
            let before = this.Ids
            let start = SessionRotation.start (before, fresh)

            let possible =
                before.Pending.Value = 0UL
                && fresh.Value <> 0UL
                && fresh.Value <> UInt64.MaxValue
                && fresh <> before.Current

            Expect.equal start.Started possible "started"
            Expect.equal start.Ids (if possible then { before with Pending = fresh } else before) "ids"
            this.Ids <- start.Ids
        | ServerSends -> this.ServerSends()
        | ClientSends -> toServer.Add this.ClientId
        | Arrives(atServer, which) when (queue atServer).Count > 0 ->
            let at = which % (queue atServer).Count
            let id = (queue atServer)[at]
            (queue atServer).RemoveAt at
            hears atServer id
        | Repeats(atServer, which) when (queue atServer).Count > 0 ->
            hears atServer ((queue atServer)[which % (queue atServer).Count])
        | IsLost(atServer, which) when (queue atServer).Count > 0 ->
            (queue atServer).RemoveAt(which % (queue atServer).Count)
        | _ -> ()

type SessionArbitrary =
    static member Happening() =
        let which = Gen.frequency [ 2, Gen.constant 0; 1, Gen.choose (0, 20) ]
        let either = Gen.elements [ false; true ]

        let fresh =
            Gen.elements ([ 0UL .. 12UL ] @ [ 0xC0FFEEUL; UInt64.MaxValue ]) |> Gen.map SessionId

        Gen.frequency
            [ 2, Gen.map Rotation fresh
              5, Gen.constant ServerSends
              5, Gen.constant ClientSends
              6, Gen.map2 (fun atServer at -> Arrives(atServer, at)) either which
              2, Gen.map2 (fun atServer at -> Repeats(atServer, at)) either which
              2, Gen.map2 (fun atServer at -> IsLost(atServer, at)) either which ]
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 5_000
        arbitrary = [ typeof<SessionArbitrary> ] }

let private rotation =
    [ testPropertyWithConfig config "§2: whatever was lost, repeated or late, a few exchanges make both ends agree"
      <| fun (history: Happening list) ->
          let world = World()
          history |> List.iter world.Happen
          let id = SessionRotation.outgoing world.Ids

          for _ in 1 .. SessionRotation.Insistence do
              world.ServerSends()
              world.ClientHears id
              world.ServerHears world.ClientId

          (world.Ids, world.ClientId) = (SessionRotation.create id, id)

      testPropertyWithConfig config "§2: with datagrams in order, the server finds the client by its id at any time"
      <| fun (history: Happening list) ->
          let world = World()

          for happening in history do
              match happening with
              | Arrives(atServer, _) -> world.Happen(Arrives(atServer, 0))
              | Repeats _ -> ()
              | other -> world.Happen other

              Expect.isTrue (world.ClientId = SessionId.Empty || world.Finds world.ClientId) "found"

      testCase "§2: while a rotation is pending every header carries the new id, and a second one does not start"
      <| fun () ->
          let started =
              SessionRotation.start (SessionRotation.create (SessionId 5UL), SessionId 6UL)

          Expect.isTrue started.Started "started"
          Expect.equal (SessionRotation.outgoing started.Ids) (SessionId 6UL) "new id"
          Expect.isFalse (SessionRotation.start (started.Ids, SessionId 7UL)).Started "no second one"
          let old = SessionRotation.received (started.Ids, SessionId 5UL)
          Expect.equal (old.Event, old.Ids) (SessionEvent.None, started.Ids) "the old id still is right"
          let finished = SessionRotation.received (started.Ids, SessionId 6UL)
          Expect.equal finished.Event SessionEvent.Finalized "finalized"

          Expect.equal
              (SessionRotation.received (finished.Ids, SessionId 5UL)).Event
              SessionEvent.Mismatch
              "the old id is gone"

      testProperty "§2: without a frame in it a datagram teaches the client nothing"
      <| fun (current: uint64) (session: uint64) ->
          let ids = SessionRotation.adopted (SessionId current)
          SessionRotation.adopt (ids, SessionId session, 0) = ids

      testProperty "§2: a client never adopts a reserved id"
      <| fun (current: uint64) (frames: byte) ->
          let ids = SessionRotation.adopted (SessionId current)

          SessionRotation.adopt (ids, SessionId.Empty, int frames) = ids
          && SessionRotation.adopt (ids, SessionId.Rejected, int frames) = ids

      testProperty "§2: a client adopts any other id from a datagram with a frame in it"
      <| fun (current: uint64) (session: uint64) (frames: byte) ->
          let ids, session = SessionRotation.adopted (SessionId current), SessionId session

          SessionId.isReserved session
          || (SessionRotation.adopt (ids, session, 1 + int frames)).Adopted = session

      testCase "§2: a late datagram does not lead the client back to either of the two ids that it has left"
      <| fun () ->
          let hear ids session =
              SessionRotation.adopt (ids, SessionId session, 1)

          let third = [ 6UL; 7UL ] |> List.fold hear (SessionRotation.adopted (SessionId 5UL))

          for left, name in [ 6UL, "the one before"; 5UL, "the one before that" ] do
              let fewer = List.replicate (SessionRotation.Insistence - 1) left
              Expect.equal (List.fold hear third fewer).Adopted third.Adopted name

              let interrupted = List.fold hear third (fewer @ [ 7UL ] @ fewer)
              Expect.equal interrupted.Adopted third.Adopted $"{name}, and again"
              Expect.equal (hear interrupted 8UL).Adopted (SessionId 8UL) "a new one is adopted at once"

      testCase "§2: a header that somebody has altered leads the client away only until the server insists"
      <| fun () ->
          let hear ids session =
              SessionRotation.adopt (ids, SessionId session, 1)

          let third = [ 6UL; 7UL ] |> List.fold hear (SessionRotation.adopted (SessionId 5UL))

          let insist session =
              List.replicate SessionRotation.Insistence session

          let astray = hear third 9UL
          Expect.equal astray.Adopted (SessionId 9UL) "away"
          Expect.equal (List.fold hear astray (insist 7UL)).Adopted third.Adopted "and back"

          // Whichever of the two it goes back to, it remembers the other one.
          for back, others in [ 6UL, [ 7UL; 5UL ]; 5UL, [ 7UL; 6UL ] ] do
              let ids = List.fold hear third (insist back)
              Expect.equal ids.Adopted (SessionId back) "the server insists"

              for other in others do
                  Expect.equal (hear ids other).Adopted ids.Adopted $"after {back}, {other} is late" ]

let private keyUpdate =
    let granted interval =
        KeyUpdate.granted (KeyUpdate.create interval, 100L<ms>)

    let starts (state: KeyUpdateState) now =
        let struct (_, start) = KeyUpdate.tick (state, now)
        start

    [ testCase "§3: no update before the client is let in, and none at all with an interval of 0"
      <| fun () ->
          for state in [ KeyUpdate.create 900_000L<ms>; KeyUpdate.create 0L<ms>; granted 0L<ms> ] do
              Expect.equal state.NextAt Time.Never "never"
              Expect.isFalse (starts state (Time.Never - 1L<ms>)) "no start"

      testCase "§3: an update starts an interval after the client was let in, by the clock alone"
      <| fun () ->
          let state = granted 900_000L<ms>
          Expect.equal state.NextAt 900_100L<ms> "due"
          Expect.isFalse (starts state 900_099L<ms>) "early"
          Expect.isTrue (starts state 900_100L<ms>) "due"
          Expect.isTrue (starts state 5_000_000L<ms>) "overdue"

      testCase "§7: keys that are used up are updated at once, also without an interval, and not twice"
      <| fun () ->
          for state in [ granted 900_000L<ms>; granted 0L<ms> ] do
              let usedUp = KeyUpdate.usedUp (state, 300L<ms>)
              Expect.equal usedUp.NextAt 300L<ms> "at once"
              let struct (pending, started) = KeyUpdate.tick (usedUp, 300L<ms>)
              Expect.isTrue started "started"
              Expect.equal (KeyUpdate.usedUp (pending, 400L<ms>)).NextAt Time.Never "one at a time"

      testPropertyWithConfig FsCheckConfig.defaultConfig "intervals are shortened by less than a tenth, evenly"
      <| fun (seconds: int) (millisecond: byte) (random: uint32) ->
          let interval = (int64 seconds * 1_000L + int64 millisecond) * 1L<ms>
          let spread = Time.spread (interval, random)

          if interval < 10L<ms> then
              spread = interval
          else
              spread <= interval
              && spread > interval - interval / 10L
              && Time.spread (interval, 0u) = interval
              && (interval < 1_000L<ms>
                  || abs (Time.spread (interval, 0x8000_0000u) - (interval - interval / 20L)) <= 1L<ms>)

      testCase "§3: a repeated auth request does not put it off"
      <| fun () -> Expect.equal (KeyUpdate.granted (granted 1_000L<ms>, 600L<ms>)).NextAt 1_100L<ms> "as before"

      testCase "§3: nor does one that comes while an update is pending start a second"
      <| fun () ->
          let struct (pending, _) = KeyUpdate.tick (granted 1_000L<ms>, 1_100L<ms>)
          let again = KeyUpdate.granted (pending, 1_200L<ms>)
          Expect.isTrue again.IsPending "pending"
          Expect.equal again.NextAt Time.Never "no second one"

      testProperty "§3: one update at a time; the next one an interval after the answer"
      <| fun (delays: uint16 list) ->
          let mutable state = granted 1_000L<ms>
          let mutable now = 100L<ms>

          delays
          |> List.forall (fun delay ->
              let struct (pending, started) = KeyUpdate.tick (state, state.NextAt)
              now <- state.NextAt + milliseconds (int delay)

              let alone =
                  pending.IsPending && not (starts pending now) && pending.NextAt = Time.Never

              state <- KeyUpdate.completed (pending, now)
              let unasked = KeyUpdate.completed (state, now + 500L<ms>)
              started && alone && state.NextAt = now + 1_000L<ms> && unasked.NextAt = state.NextAt) ]

let laws =
    testList "session ids" [ testList "rotation" rotation; testList "key update" keyUpdate ]

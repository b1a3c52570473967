/// Which of several servers wins (protocol/ServerRace.fs): laws about whole races, played against scripted servers.
module Lightway.Specs.ServerRaces

open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// What an address does, in ms from its start. Each thing happens only if those before it have.
type Script =
    /// Nothing, until the attempt gives up.
    | Silence of int
    /// It answers, and fails later.
    | Failure of answer: int * failure: int
    /// It answers, and refuses the login later.
    | Refusal of answer: int * refusal: int
    /// It answers, and lets the client in later.
    | Success of answer: int * online: int
    /// The same, but the connection ends after a while.
    | Brief of answer: int * online: int * ending: int

type Race =
    { Servers: Script list list
      PreferMs: int
      Lost: int }

type RaceArbitrary =
    static member Race() =
        gen {
            let time = Gen.frequency [ 3, Gen.choose (1, 60); 1, Gen.choose (1, 900) ]

            let script =
                Gen.frequency
                    [ 2, Gen.map Silence (Gen.elements [ 1_000; 13_000 ])
                      2, Gen.map2 (fun a b -> Failure(a, b)) time time
                      1, Gen.map2 (fun a b -> Refusal(a, b)) time time
                      4, Gen.map2 (fun a b -> Success(a, b)) time time
                      1, Gen.map3 (fun a b c -> Brief(a, b, c)) time time time ]

            let! count = Gen.choose (1, 4)
            let server = Gen.choose (0, 3) |> Gen.bind (fun n -> Gen.listOfLength n script)
            let! servers = Gen.listOfLength count server
            let! prefer = Gen.elements [ 0; 0; 40; 300; 2_000 ]
            let! lost = Gen.frequency [ 3, Gen.constant -1; 1, Gen.choose (0, count - 1) ]

            return
                { Servers = servers
                  PreferMs = prefer
                  Lost = lost }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        arbitrary = [ typeof<RaceArbitrary> ] }

type private Event =
    | Started
    | Answers
    | ComesOnline
    | Ends of isRefused: bool
    | Stopped

type private Result =
    { Log: (int64<ms> * RaceEntry * Event) list // in order
      At: int64<ms> // of the outcome
      Outcome: RaceOutcome
      Winner: RaceEntry }

let private schedule (script: Script) : (int * Event) list =
    match script with
    | Silence failure -> [ failure, Ends false ]
    | Failure(answer, failure) -> [ answer, Answers; answer + failure, Ends false ]
    | Refusal(answer, refusal) -> [ answer, Answers; answer + refusal, Ends true ]
    | Success(answer, online) -> [ answer, Answers; answer + online, ComesOnline ]
    | Brief(answer, online, ending) ->
        [ answer, Answers; answer + online, ComesOnline; answer + online + ending, Ends false ]

/// Plays a race to its end, waking up only when the machine asks for it or something happens.
let private play (race: Race) : Result =
    let start = 5_000L<ms>
    let log = ResizeArray()
    let mutable pending: (int64<ms> * RaceEntry * Event) list = []

    let mutable state =
        ServerRace.create (
            [| for server in race.Servers -> server.Length |],
            milliseconds race.PreferMs,
            race.Lost,
            start
        )

    let mutable result = None

    let mutable now = start

    let act at (step: RaceStep) =
        now <- at
        state <- step.State

        for entry in step.Start do
            log.Add(now, entry, Started)
            let script = race.Servers[entry.Server][entry.Address]

            pending <- pending @ [ for after, event in schedule script -> now + milliseconds after, entry, event ]

        for entry in step.Stop do
            log.Add(now, entry, Stopped)
            pending <- pending |> List.filter (fun (_, other, _) -> other <> entry)

        if result.IsNone && step.Outcome <> RaceOutcome.Open then
            result <-
                Some
                    { Log = []
                      At = now
                      Outcome = step.Outcome
                      Winner = step.Winner }

    act start (ServerRace.tick (state, start))
    let mutable rounds = 0

    while result.IsNone do
        rounds <- rounds + 1
        Expect.isLessThan rounds 1_000 "it comes to an end"
        pending <- List.sortBy (fun (at, _, _) -> at) pending
        let wakeAt = ServerRace.nextAt state

        match pending with
        | (at, entry, event) :: rest when at <= wakeAt ->
            pending <- rest
            log.Add(at, entry, event)

            match event with
            | Answers -> act at (ServerRace.answered (state, entry, at))
            | ComesOnline -> act at (ServerRace.online (state, entry, at))
            | Ends isRefused ->
                pending <- pending |> List.filter (fun (_, other, _) -> other <> entry)
                act at (ServerRace.ended (state, entry, isRefused, at))
            | _ -> ()
        | _ ->
            Expect.notEqual wakeAt Time.Never "it waits for something"

            if wakeAt > now then
                let early = ServerRace.tick (state, wakeAt - 1L<ms>)
                Expect.isEmpty early.Start "an early tick starts nothing"
                Expect.equal early.Outcome RaceOutcome.Open "and decides nothing"

            act wakeAt (ServerRace.tick (state, wakeAt))

    { result.Value with
        Log = List.ofSeq log }

/// Connections that are alive, and those of them that are online, after a part of a log.
let private alive (log: (int64<ms> * RaceEntry * Event) list) =
    (Map.empty, log)
    ||> List.fold (fun alive (_, entry, event) ->
        match event with
        | Started -> Map.add entry Started alive
        | Answers
        | ComesOnline -> Map.add entry event alive
        | Ends _
        | Stopped -> Map.remove entry alive)

let private until at (result: Result) =
    result.Log |> List.takeWhile (fun (time, _, _) -> time <= at)

let private starts (result: Result) =
    [ for at, entry, event in result.Log do
          if event = Started then
              at, entry ]

/// The server is out: all its addresses have ended, or it has refused.
let private isOut (race: Race) (log: (int64<ms> * RaceEntry * Event) list) (server: int) =
    let own = log |> List.filter (fun (_, entry, _) -> entry.Server = server)

    let hasRefused = own |> List.exists (fun (_, _, event) -> event = Ends true)

    let ended =
        own |> List.filter (fun (_, _, event) -> event = Ends false || event = Stopped) |> List.length

    hasRefused
    || (ended = race.Servers[server].Length
        && not (alive log |> Map.exists (fun entry _ -> entry.Server = server)))

/// The server that the rule of the protocol would take after this part of a log, if any.
let private chosen (race: Race) (now: int64<ms>) log : int option =
    let online =
        [ for KeyValue(entry, event) in alive log do
              if event = ComesOnline then
                  entry.Server ]

    match online with
    | [] -> None
    | _ ->
        let first = List.min online
        let isTime = now >= 5_000L<ms> + milliseconds race.PreferMs

        if isTime || List.forall (isOut race log) [ 0 .. first - 1 ] then
            Some first
        else
            None

let private races =
    [ testPropertyWithConfig config "one winner at most; it was online, and not stopped"
      <| fun (race: Race) ->
          let result = play race

          match result.Outcome with
          | RaceOutcome.Won -> alive result.Log |> Map.toList = [ result.Winner, ComesOnline ]
          | _ -> result.Winner.Server = -1

      testPropertyWithConfig config "the winner is the one that the rule takes, as soon as it takes one"
      <| fun (race: Race) ->
          let result = play race

          let beforeTheStops =
              result.Log |> List.filter (fun (at, _, event) -> not (at = result.At && event = Stopped))

          let earlier =
              result.Log
              |> List.map (fun (at, _, _) -> at)
              |> List.distinct
              |> List.filter (fun at -> at < result.At)
              |> List.choose (fun at -> chosen race at (until at result))

          match result.Outcome with
          | RaceOutcome.Won -> earlier.IsEmpty && (chosen race result.At beforeTheStops = Some result.Winner.Server)
          | _ -> earlier.IsEmpty && chosen race result.At result.Log = None

      testPropertyWithConfig config "a race is lost exactly when every server is out"
      <| fun (race: Race) ->
          let result = play race
          let servers = [ 0 .. race.Servers.Length - 1 ]

          (result.Outcome = RaceOutcome.Lost) = List.forall (isOut race result.Log) servers

      testPropertyWithConfig
          config
          "what was started has ended, was stopped, or has won; nothing else was stopped, nothing twice"
      <| fun (race: Race) ->
          let result = play race
          let started = starts result |> List.map snd

          let stopped =
              [ for _, entry, event in result.Log do
                    if event = Stopped then
                        entry ]

          let left = alive result.Log |> Map.toList |> List.map fst

          List.distinct stopped = stopped
          && Set.isSubset (set stopped) (set started)
          && (if result.Outcome = RaceOutcome.Won then
                  left = [ result.Winner ]
              else
                  left = [])

      testPropertyWithConfig config "the addresses of a server are started once each, in order"
      <| fun (race: Race) ->
          let result = play race

          [ 0 .. race.Servers.Length - 1 ]
          |> List.forall (fun server ->
              let own = starts result |> List.filter (fun (_, entry) -> entry.Server = server)
              own |> List.map (fun (_, entry) -> entry.Address) = [ 0 .. own.Length - 1 ])

      testPropertyWithConfig
          config
          "a further address starts when none of its server is left, or 250 ms after the one before it while all are silent"
      <| fun (race: Race) ->
          let result = play race
          let all = starts result

          all
          |> List.filter (fun (_, entry) -> entry.Address > 0)
          |> List.forall (fun (at, entry) ->
              let before =
                  result.Log
                  |> List.takeWhile (fun event -> event <> (at, entry, Started))
                  |> alive
                  |> Map.toList
                  |> List.filter (fun (other, _) -> other.Server = entry.Server)

              let previous, _ =
                  all
                  |> List.find (fun (_, other) ->
                      other =
                          { entry with
                              Address = entry.Address - 1 })

              /// The one that had answered has failed only now.
              let isFreed =
                  result.Log
                  |> List.exists (fun (time, other, event) ->
                      time = at && other.Server = entry.Server && event = Ends false)

              before.IsEmpty
              || (List.forall (fun (_, state) -> state = Started) before
                  && (at - previous = 250L<ms> || (at - previous > 250L<ms> && isFreed))))

      testPropertyWithConfig
          config
          "every server starts at once, but the one that was lost: a second later, or when all others are out"
      <| fun (race: Race) ->
          let result = play race

          race.Servers
          |> List.indexed
          |> List.filter (fun (_, scripts) -> not scripts.IsEmpty)
          |> List.forall (fun (server, _) ->
              let first =
                  starts result |> List.tryFind (fun (_, entry) -> entry.Server = server) |> Option.map fst

              let others =
                  [ 0 .. race.Servers.Length - 1 ] |> List.filter (fun other -> other <> server)

              /// When the others were out.
              let aloneAt =
                  5_000L<ms> :: List.map (fun (at, _, _) -> at) result.Log
                  |> List.distinct
                  |> List.tryFind (fun at ->
                      let earlier =
                          until at result |> List.filter (fun (_, entry, _) -> entry.Server <> server)

                      List.forall (isOut race earlier) others)

              let due =
                  if server = race.Lost then
                      min 6_000L<ms> (Option.defaultValue Time.Never aloneAt)
                  else
                      5_000L<ms>

              match first with
              | Some at -> at = due
              | None -> result.At <= due)

      testPropertyWithConfig config "while a server has a connection that is online, it has no other one"
      <| fun (race: Race) ->
          let result = play race

          result.Log
          |> List.map (fun (at, _, _) -> at)
          |> List.distinct
          |> List.forall (fun at ->
              let alive = alive (until at result) |> Map.toList

              alive
              |> List.filter (fun (_, event) -> event = ComesOnline)
              |> List.forall (fun (online, _) ->
                  alive |> List.filter (fun (entry, _) -> entry.Server = online.Server) |> List.length = 1))

      testPropertyWithConfig config "servers that do not answer cost no time"
      <| fun (race: Race) ->
          let dead = [ Silence 13_000; Silence 13_000 ]
          let race = { race with PreferMs = 0; Lost = -1 }
          let alone = play race

          let crowded =
              play
                  { race with
                      Servers = race.Servers @ [ dead; dead ] }

          alone.Outcome <> RaceOutcome.Won || (crowded.At, crowded.Winner) = (alone.At, alone.Winner) ]

let private entry server address = { Server = server; Address = address }

let private cases =
    [ testCase "§10.5: the first server wins at once; the second waits for it, but not beyond its time"
      <| fun () ->
          let race first =
              { Servers = [ [ first ]; [ Success(10, 10) ]; [ Success(5, 5) ] ]
                PreferMs = 300
                Lost = -1 }

          let winner first =
              let result = play (race first)
              result.Winner.Server, result.At - 5_000L<ms>

          Expect.equal (winner (Success(20, 20))) (0, 40L<ms>) "within the time"
          Expect.equal (winner (Success(200, 200))) (1, 300L<ms>) "too late: the lower one of those online"
          Expect.equal (winner (Failure(20, 20))) (1, 40L<ms>) "it has failed: nobody better is to come"
          Expect.equal (winner (Silence 13_000)) (1, 300L<ms>) "no answer"

      testCase "§10.5: if none is online when the time is over, the first to come wins"
      <| fun () ->
          let result =
              play
                  { Servers = [ [ Success(300, 300) ]; [ Success(200, 200) ] ]
                    PreferMs = 100
                    Lost = -1 }

          Expect.equal (result.Winner.Server, result.At) (1, 5_400L<ms>) "the second"

      testCase "a refused login ends a server: its other addresses are stopped and not started"
      <| fun () ->
          let result =
              play
                  { Servers = [ [ Silence 13_000; Refusal(10, 10); Success(1, 1) ] ]
                    PreferMs = 0
                    Lost = -1 }

          Expect.equal (result.Outcome, result.At) (RaceOutcome.Lost, 5_270L<ms>) "lost"
          Expect.equal (starts result |> List.map snd) [ entry 0 0; entry 0 1 ] "two were started"

      testCase "a race that is over does nothing more"
      <| fun () ->
          let step = ServerRace.tick (ServerRace.create ([| 2 |], 0L<ms>, -1, 0L<ms>), 0L<ms>)
          let won = ServerRace.online (step.State, entry 0 0, 9L<ms>)
          Expect.equal won.Outcome RaceOutcome.Won "won"
          Expect.equal (ServerRace.nextAt won.State) Time.Never "no timer"
          let late = ServerRace.ended (won.State, entry 0 0, false, 99L<ms>)
          Expect.isEmpty late.Start "nothing is started"
          Expect.equal late.Outcome RaceOutcome.Won "as it was"

      testCase "events of connections that are unknown or have ended change nothing"
      <| fun () ->
          let step =
              ServerRace.tick (ServerRace.create ([| 1; 1 |], 0L<ms>, -1, 0L<ms>), 0L<ms>)

          let ended = ServerRace.ended (step.State, entry 0 0, false, 1L<ms>)

          for next in
              [ ServerRace.online (ended.State, entry 0 0, 2L<ms>)
                ServerRace.answered (ended.State, entry 0 0, 2L<ms>)
                ServerRace.online (ended.State, entry 0 1, 2L<ms>)
                ServerRace.online (ended.State, entry 7 0, 2L<ms>)
                ServerRace.ended (ended.State, entry 0 0, false, 2L<ms>) ] do
              Expect.equal next.Outcome RaceOutcome.Open "open"
              Expect.isEmpty next.Start "nothing is started"
              Expect.isEmpty next.Stop "nothing is stopped"

      testCase "without an address of any server a race is lost at its start"
      <| fun () ->
          let step =
              ServerRace.tick (ServerRace.create ([| 0; 0 |], 0L<ms>, -1, 0L<ms>), 0L<ms>)

          Expect.equal step.Outcome RaceOutcome.Lost "lost" ]

let laws = testList "server race" (races @ cases)

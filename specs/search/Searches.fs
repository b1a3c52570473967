/// The machines of protocol/, each searched to its bound, and broken ones, which the search must notice.
module Lightway.Specs.Search.Searches

open System
open System.Diagnostics
open Expecto
open Lightway.Protocol
open Lightway.Specs.Search.Explore

/// More states than this are not visited: the bounds are chosen so that none is missed.
[<Literal>]
let private Limit = 5_000_000

let private expresslane name keys configs onTheWay machine start () =
    let limits: ExpresslaneStates.Limits =
        { Keys = keys
          Configs = configs
          OnTheWay = onTheWay }

    let model = ExpresslaneStates.model name limits machine start
    model.Lanes, explore Limit model

let private sessions adopt () =
    let limits: SessionStates.Limits =
        { Addresses = 3
          Moves = 1
          Ids = 4
          OnTheWay = 2 }

    let model = SessionStates.model limits adopt
    model.Lanes, explore Limit model

let private encoding machine () =
    let model = EncodingStates.model { Requests = 4; OnTheWay = 3 } machine

    model.Lanes, explore Limit model

let private keepalive machine () =
    let limits: KeepaliveStates.Limits =
        { Interval = 5_000L<ms>
          Timeout = 8_000L<ms>
          OnTheWay = 2 }

    let model = KeepaliveStates.model limits machine
    model.Lanes, explore Limit model

let private pathMtu pong () =
    let limits: PathMtuStates.Limits =
        { Base = 578
          Max = 581
          Paths = [ 576; 579; 581 ]
          Changes = 1
          Timers = 5
          OnTheWay = 2 }

    let model = PathMtuStates.model limits pong
    model.Lanes, explore Limit model

let private searches =
    [ "Expresslane, both ends",
      expresslane "Expresslane, both ends" 2 3UL 2 ExpresslaneStates.asItIs ExpresslaneStates.both
      "Expresslane, older programs",
      expresslane "Expresslane, older programs" 2 2UL 2 ExpresslaneStates.asItIs ExpresslaneStates.versions
      "Expresslane, ends that give up",
      expresslane "Expresslane, ends that give up" 1 2UL 2 ExpresslaneStates.asItIs ExpresslaneStates.degraded
      "Expresslane, switched off",
      expresslane "Expresslane, switched off" 2 3UL 3 ExpresslaneStates.asItIs ExpresslaneStates.disabled
      "session ids and moves", sessions SessionStates.asItIs
      "encoding", encoding EncodingStates.asItIs
      "keepalive", keepalive KeepaliveStates.asItIs
      "path MTU discovery", pathMtu PathMtuStates.asItIs ]

/// A late config is taken for a new one.
let private forgetful: ExpresslaneStates.Machine =
    { Received =
        fun (state, config, anySent, now, freshKey) ->
            ExpresslaneKeys.configReceived ({ state with PeerCounter = 0UL }, config, anySent, now, freshKey) }

/// An end seals with a key that it has only offered.
let private hasty: ExpresslaneStates.Machine =
    { Received =
        fun arguments ->
            let step = ExpresslaneKeys.configReceived arguments

            if isNull step.State.StagedKey then
                step
            else
                { step with
                    State =
                        { step.State with
                            SelfKey = step.State.StagedKey } } }

/// An end that has given up does not tell a peer that goes on offering keys.
let private silent: ExpresslaneStates.Machine =
    { Received =
        fun (state, config, anySent, now, freshKey) ->
            let step = ExpresslaneKeys.configReceived (state, config, anySent, now, freshKey)

            if state.Status = ExpresslaneStatus.Degraded then
                { step with
                    State = state
                    Offer = ValueNone }
            else
                step }

let private broken: (string * Rule * string * (unit -> string list * Report)) list =
    [ "a late Expresslane config is taken for a new one",
      Safety,
      "the Client goes back to its peer's key S1",
      expresslane "late configs" 2 3UL 2 forgetful ExpresslaneStates.both
      "an end seals with a key that its peer has not acknowledged",
      Safety,
      "the Server seals with key S1, which its peer does not have",
      expresslane "hasty keys" 2 3UL 2 hasty ExpresslaneStates.both
      "an end that has given up does not repeat so to a peer that did not hear it",
      Liveness,
      "no rest after 200 moves without loss",
      expresslane "silent ends" 1 2UL 2 silent ExpresslaneStates.degraded
      "a late datagram leads a client back to an id that it has left",
      Safety,
      "a client uses an id that the server does not know: its next move ends the session",
      sessions (fun (ids, session, frames) ->
          SessionRotation.adopt (SessionRotation.adopted ids.Adopted, session, frames))
      "a client adopts the id of a datagram that it cannot open",
      Safety,
      "a client uses the id of another one's connection",
      sessions (fun (ids, session, _) -> SessionRotation.adopt (ids, session, 1))
      "a client does not adopt session ids",
      Liveness,
      "a run without loss goes in a circle",
      sessions (fun (ids, _, _) -> ids)
      "a client never goes back to an id that it has left",
      Liveness,
      "a run without loss goes in a circle",
      sessions (fun (ids, session, frames) -> SessionRotation.adopt ({ ids with Insisted = 0 }, session, frames))
      "a server does as an old request asks that comes late",
      Safety,
      "the server goes back to an older request",
      encoding
          { EncodingStates.asItIs with
              Requested =
                  fun (_, id, enable, mayEncode) ->
                      InsideEncoding.requested (InsideEncoding.create, id, enable, mayEncode) }
      "any answer is taken for that to the newest encoding request",
      Liveness,
      "at rest the ends disagree",
      encoding
          { EncodingStates.asItIs with
              Answered = fun (state, _, enable) -> InsideEncoding.answered (state, state.Id, enable) }
      "frames of the server do not call off that it is given up",
      Safety,
      "it gives up before a ping had its time to be answered",
      keepalive
          { KeepaliveStates.asItIs with
              Activity = fst }
      "a client never gives up",
      Liveness,
      "a run without loss goes in a circle",
      keepalive
          { KeepaliveStates.asItIs with
              Tick =
                  fun (state, now) ->
                      match Keepalive.tick (state, now) with
                      | struct (_, KeepaliveAction.Close) -> struct (state, KeepaliveAction.None)
                      | step -> step }
      "a client does not tell its new address",
      Liveness,
      "at rest the server does not know the client's address",
      keepalive
          { KeepaliveStates.asItIs with
              NetworkChanged = fun (state, _) -> struct (state, KeepaliveAction.None) }
      "a late answer is taken for that to the probe that is out",
      Safety,
      "packets may have 581 bytes, and none of more than 578 has arrived",
      pathMtu (fun (state, _, now) -> PathMtu.pong (state, PathMtuStates.lastId state, now))
      "answers are taken for those to the probe after theirs",
      Liveness,
      "no rest after 200 moves without loss",
      pathMtu (fun (state, id, now) -> PathMtu.pong (state, id + 1us, now)) ]

/// Lines of a ladder diagram that are shown: what goes on for ever need not be.
[<Literal>]
let private LinesShown = 60

let private told (lanes: string list) (finding: Finding) : string =
    let lines = ladder lanes finding.Path
    let shown = List.truncate LinesShown lines

    let rest =
        if lines.Length > shown.Length then
            [ $"… and {lines.Length - shown.Length} more" ]
        else
            []

    String.concat "\n" (shown @ rest @ [ $"{finding.Rule}: {finding.What}" ])

let private line (report: Report) : string =
    let depth = $"at most {report.Depth} moves from the start"

    $"{report.Name}: {report.States} states, {report.Moves} moves, {depth}, {report.Time.TotalSeconds:F1} s; {report.Bound}"

let private ladders =
    let happenings =
        [ At(0, (fun () -> "sends"))
          Arrives(0, 1, (fun () -> "hello"))
          Lost(1, 0, (fun () -> "hello, too"))
          At(1, (fun () -> "gives up")) ]

    testCase "a ladder diagram has a column for each end and a line for each thing that happens"
    <| fun () ->
        Expect.equal
            (ladder [ "one"; "other" ] happenings)
            [ "one                                     other"
              "* sends                                 |"
              "|--- hello ---------------------------->|"
              "|x-- hello, too ------------------------|"
              "|                                       * gives up" ]
            "the diagram"

let laws =
    testList
        "Search"
        [ ladders

          for name, search in searches do
              testCase $"every state within the bound is safe and comes to rest: {name}"
              <| fun () ->
                  let lanes, report = search ()

                  match report.Finding with
                  | Some finding -> failtest $"\n{told lanes finding}"
                  | None -> Expect.isFalse report.IsCutShort $"all states are visited: {line report}"

          for name, rule, what, search in broken do
              testCase $"a fault is found: {name}"
              <| fun () ->
                  let lanes, report = search ()

                  match report.Finding with
                  | None -> failtest $"not found: {line report}"
                  | Some finding ->
                      let lines = ladder lanes finding.Path
                      Expect.equal (finding.Rule, finding.What) (rule, what) $"\n{told lanes finding}"
                      Expect.equal lines.Length (finding.Path.Length + 1) "each thing that happens has a line"
                      Expect.isGreaterThan lines.Length 1 "the way to it is shown" ]

/// Searches everything, or what has `part` in its name, and prints what was visited; the exit code.
let run (part: string) : int =
    let clock = Stopwatch.StartNew()

    let chosen = searches |> List.filter (fun (name, _) -> name.Contains part)

    let print (_, search: unit -> string list * Report) =
        let lanes, report = search ()

        lock searches (fun () ->
            printfn $"{line report}"

            if report.IsCutShort then
                printfn "not all states were visited"

            report.Finding |> Option.iter (fun finding -> printfn $"\n{told lanes finding}\n"))

        report

    let reports = chosen |> Array.ofList |> Array.Parallel.map print

    let seek (name, rule, what, search: unit -> string list * Report) =
        let lanes, report = search ()

        let diagram, isFound =
            match report.Finding with
            | Some finding -> told lanes finding, (finding.Rule, finding.What) = (rule, what)
            | None -> line report, false

        (if isFound then
             $"\nFound, if {name}:\n\n{diagram}"
         else
             $"\nNOT FOUND, if {name}: {rule}: {what}; but\n\n{diagram}"),
        isFound

    let faults =
        if part = "" then
            broken |> Array.ofList |> Array.Parallel.map seek
        else
            [||]

    for text, _ in faults do
        printfn $"{text}"

    let isRight =
        reports |> Array.forall (fun report -> report.Finding.IsNone && not report.IsCutShort)
        && Array.forall snd faults

    let states = reports |> Array.sumBy _.States
    printfn $"\n{states} states in {clock.Elapsed.TotalSeconds:F0} s"
    if isRight && states > 0 then 0 else 1

/// Visits every state of a model, breadth first: each end's pure machine and what is on the way between them.
module Lightway.Specs.Search.Explore

open System
open System.Collections.Generic
open System.Diagnostics

/// Something that happens, with the end that it happens at. Texts are made when a ladder diagram is.
type Happening =
    /// At one end, without the other.
    | At of lane: int * text: (unit -> string)
    /// A message from a neighbour arrives.
    | Arrives of from: int * lane: int * text: (unit -> string)
    /// A message to a neighbour is lost.
    | Lost of from: int * lane: int * text: (unit -> string)

/// A move from a state: what happens, and the state after it.
type Move<'state> = (struct (Happening * 'state))

/// Writes a state as numbers. Two states with the same numbers behave alike.
type Encoder() =
    let mutable low = 0UL
    let mutable high = 0UL

    let mix (value: uint64, key: uint64) =
        let mutable bottom = 0UL
        let top = Math.BigMul(value ^^^ key, 0x9E37_79B9_7F4A_7C15UL, &bottom)
        top ^^^ bottom

    member _.Clear() =
        low <- 0x243F_6A88_85A3_08D3UL
        high <- 0x1319_8A2E_0370_7344UL

    member _.Add(value: int64) =
        low <- mix (low ^^^ uint64 value, 0xA409_3822_299F_31D0UL) + 0x082E_FA98_EC4E_6C89UL
        high <- mix (high + uint64 value, 0x4528_21E6_38D0_1377UL) ^^^ (low <<< 1)

    member this.Add(value: int) = this.Add(int64 value)
    member this.Add(value: bool) = this.Add(if value then 1L else 0L)

    /// 128 bits of all numbers since `Clear`. Among 10^7 states, two share them with a probability of 10^-24.
    member _.Hash: UInt128 = UInt128(high, low)

/// A protocol between ends, with its channel.
type Model<'state> =
    {
        Name: string
        /// What bounds the states, for the report.
        Bound: string
        /// Headings of the ladder diagram.
        Lanes: string list
        Start: 'state list
        /// All that can happen. Loss, repetition and reordering are moves.
        Moves: 'state -> Move<'state> list
        Encode: Encoder -> 'state -> unit
        /// What is wrong with a state, or with the move to it from the state before.
        Wrong: 'state -> 'state -> string option
        /// The next move of a run in which nothing is lost; None: it has come to rest.
        Healthy: 'state -> Move<'state> option
        /// What is wrong with a state that a run without loss rests in.
        WrongAtRest: 'state -> string option
        /// A run without loss rests after at most this many moves.
        MovesToRest: int
    }

/// What a fault is against.
type Rule =
    /// What must never be.
    | Safety
    /// What a run without loss must come to.
    | Liveness

type Finding =
    {
        Rule: Rule
        What: string
        /// From the start to the fault.
        Path: Happening list
    }

type Report =
    {
        Name: string
        Bound: string
        States: int
        Moves: int64
        /// Moves that the longest shortest way to a state has.
        Depth: int
        /// Not all states within the bound were visited.
        IsCutShort: bool
        Finding: Finding option
        Time: TimeSpan
    }

/// As one line for each happening, with a column for each end.
let ladder (lanes: string list) (path: Happening list) : string list =
    let width = 40
    let bars = List.length lanes
    let last = (bars - 1) * width

    let heading =
        lanes |> List.map (fun lane -> lane.PadRight width) |> String.concat ""

    let line happening =
        let cells = Array.create (last + 1) ' '

        for bar in 0 .. bars - 1 do
            cells[bar * width] <- '|'

        let arrow sender lane (text: string) isLost =
            let first = min sender lane * width + 1
            let goesLeft = lane < sender

            for i in 0 .. width - 2 do
                cells[first + i] <- '-'

            $" {text} "
            |> Seq.truncate (width - 6)
            |> Seq.iteri (fun i letter -> cells[first + 3 + i] <- letter)

            let tip = if goesLeft then first else first + width - 2

            cells[tip] <-
                if isLost then 'x'
                elif goesLeft then '<'
                else '>'

            String(cells).TrimEnd()

        match happening with
        | Arrives(sender, lane, text) -> arrow sender lane (text ()) false
        | Lost(sender, lane, text) -> arrow sender lane (text ()) true
        | At(lane, text) ->
            let bar = String(cells)
            let at = lane * width
            let label = $"* {text ()}"
            // The text may run over the bars to its right.
            bar.Substring(0, at)
            + label
            + (if at + label.Length <= last then
                   bar.Substring(at + label.Length)
               else
                   "")

    heading.TrimEnd() :: List.map line path

/// The way to a state, by the ordinals of its moves.
let private replay (model: Model<'state>) (ordinals: int list) : Happening list * 'state =
    match ordinals with
    | [] -> [], List.head model.Start
    | start :: moves ->
        let follow (path, state) ordinal =
            let struct (happening, next) = (model.Moves state)[ordinal]
            happening :: path, next

        let path, state = List.fold follow ([], model.Start[start]) moves
        List.rev path, state

/// Visits all states, at most `limit`, up to the first fault.
let explore (limit: int) (model: Model<'state>) : Report =
    let clock = Stopwatch.StartNew()
    let encoder = Encoder()

    let hashOf state =
        encoder.Clear()
        model.Encode encoder state
        encoder.Hash

    let visited = HashSet<UInt128>()
    let resting = HashSet<UInt128>() // a run without loss from here comes to a right end
    let parents = List<struct (int * byte)>()
    let waiting = Queue<struct (int * 'state)>()
    let mutable moves = 0L
    let mutable finding = None
    let mutable isCutShort = false

    let pathTo index =
        let rec back index ordinals =
            match parents[index] with
            | struct (-1, start) -> int start :: ordinals
            | struct (parent, ordinal) -> back parent (int ordinal :: ordinals)

        fst (replay model (back index []))

    // Follows the run without loss to a state that is known, or to rest.
    let runHealthy index (state: 'state) =
        let passed = List<UInt128>()
        let path = List<Happening>()
        let mutable at = state
        let mutable isOpen = true
        let mutable wrong = None

        while isOpen do
            let hash = hashOf at

            if resting.Contains hash then
                isOpen <- false
            elif passed.Contains hash then
                wrong <- Some(Liveness, "a run without loss goes in a circle")
                isOpen <- false
            else
                passed.Add hash

                match model.Healthy at with
                | None ->
                    wrong <- model.WrongAtRest at |> Option.map (fun what -> Liveness, what)
                    isOpen <- false
                | Some(struct (happening, next)) ->
                    path.Add happening

                    if path.Count > model.MovesToRest then
                        wrong <- Some(Liveness, $"no rest after {model.MovesToRest} moves without loss")
                        isOpen <- false
                    else
                        match model.Wrong at next with
                        | Some what ->
                            wrong <- Some(Safety, what)
                            isOpen <- false
                        | None -> at <- next

        match wrong with
        | Some(rule, what) ->
            let from = pathTo index

            finding <-
                Some
                    { Rule = rule
                      What = what
                      Path = from @ List.ofSeq path }
        | None -> resting.UnionWith passed

    let meet parent ordinal (state: 'state) =
        let hash = hashOf state

        if visited.Count >= limit then
            isCutShort <- isCutShort || not (visited.Contains hash)
        elif visited.Add hash then
            let index = parents.Count
            parents.Add(struct (parent, ordinal))
            waiting.Enqueue(struct (index, state))
            runHealthy index state

    model.Start
    |> List.iteri (fun i state ->
        match model.Wrong state state with
        | Some what ->
            finding <-
                Some
                    { Rule = Safety
                      What = what
                      Path = [] }

        | None -> meet -1 (byte i) state)

    let mutable depth = 0
    let mutable endOfLevel = waiting.Count
    let mutable taken = 0

    while finding.IsNone && waiting.Count > 0 do
        let struct (index, state) = waiting.Dequeue()

        if taken = endOfLevel then
            depth <- depth + 1
            endOfLevel <- taken + waiting.Count + 1

        taken <- taken + 1

        model.Moves state
        |> List.iteri (fun ordinal (struct (happening, next)) ->
            if finding.IsNone then
                moves <- moves + 1L

                match model.Wrong state next with
                | Some what ->
                    finding <-
                        Some
                            { Rule = Safety
                              What = what
                              Path = pathTo index @ [ happening ] }
                | None -> meet index (byte ordinal) next)

    { Name = model.Name
      Bound = model.Bound
      States = visited.Count
      Moves = moves
      Depth = depth
      IsCutShort = isCutShort
      Finding = finding
      Time = clock.Elapsed }

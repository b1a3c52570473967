namespace Lightway.Protocol

open System.Collections.Generic

/// One connection of a race: the number of the server in the list, and that of the address among the server's, from 0.
[<Struct>]
type RaceEntry = { Server: int; Address: int }

/// How a race stands.
type RaceOutcome =
    | Open = 0
    /// `Winner` serves.
    | Won = 1
    /// No address of any server could be used.
    | Lost = 2

/// How far one connection of a race is.
type internal RaceRun =
    | Silent
    | Answered
    | Online
    | Ended

/// One server in a race.
type internal RaceRunner =
    {
        Addresses: int
        /// Of the addresses that were started, the first one first.
        Runs: RaceRun list
        /// Not started before this, if another server is left.
        NotBefore: int64<ms>
        StartedAt: int64<ms> // the latest
        IsRefused: bool
    }

    member this.IsAlive = this.Runs |> List.exists (fun run -> run <> Ended)

    member this.IsOnline = List.contains Online this.Runs

    /// An address has answered: the server is there, and another address would only be another way to it.
    member this.HasAnswered =
        this.Runs |> List.exists (fun run -> run = Answered || run = Online)

    member this.HasMore = not this.IsRefused && this.Runs.Length < this.Addresses

    member this.IsOut = not this.IsAlive && not this.HasMore

/// A race between servers.
[<NoComparison; NoEquality>]
type RaceState =
    private
        { Runners: RaceRunner list
          PreferUntil: int64<ms>
          Result: RaceOutcome }

/// What to do after an event of a race.
[<NoComparison; NoEquality>]
type RaceStep =
    {
        State: RaceState
        /// Connections to start.
        Start: IReadOnlyList<RaceEntry>
        /// Connections to end, with a Goodbye where they are far enough.
        Stop: IReadOnlyList<RaceEntry>
        Outcome: RaceOutcome
        /// Of a race that was won; its server is -1 otherwise.
        Winner: RaceEntry
    }

/// Which of several servers a client uses. All start at once, each with its first address; the
/// other addresses of a server follow 250 ms apart until one has answered (RFC 8305 §5), or at once when none is left. The
/// server that is first in the list wins as soon as it is online. Another one that is online waits for those before it in
/// the list, until the time for them is over or they have failed; then the first in the list that is online wins. If none is
/// online by then, the first to come does.
/// Laws: there is one winner, and it is online; no address is started twice or out of order; what was started is stopped, has
/// ended, or has won; servers that do not answer cost no time; a race is lost exactly when every address has failed.
[<RequireQualifiedAccess>]
module ServerRace =
    /// Connection Attempt Delay (RFC 8305 §5).
    [<Literal>]
    let AddressDelay = 250L<ms>

    /// How much later than the others a server starts whose connection was lost just now.
    [<Literal>]
    let LostDelay = 1_000L<ms>

    let private none = { Server = -1; Address = -1 }

    let private entries (isWanted: RaceRun -> bool) (runners: RaceRunner list) : RaceEntry list =
        [ for server, runner in List.indexed runners do
              for address, run in List.indexed runner.Runs do
                  if isWanted run then
                      { Server = server; Address = address } ]

    let private isStartDue (others: RaceRunner seq) (now: int64<ms>) (runner: RaceRunner) : bool =
        if not runner.HasMore then
            false
        elif runner.IsAlive then
            not runner.HasAnswered && now - runner.StartedAt >= AddressDelay
        else
            now >= runner.NotBefore || others |> Seq.forall _.IsOut

    /// Starts what is due.
    let private start (runners: RaceRunner list, now: int64<ms>) : RaceRunner list =
        runners
        |> List.mapi (fun server runner ->
            if isStartDue (List.removeAt server runners) now runner then
                { runner with
                    Runs = runner.Runs @ [ Silent ]
                    StartedAt = now }
            else
                runner)

    /// The server that wins now, if one does.
    let private winner (state: RaceState, now: int64<ms>) : int option =
        match List.tryFindIndex (fun (runner: RaceRunner) -> runner.IsOnline) state.Runners with
        | Some first when now >= state.PreferUntil || state.Runners |> List.take first |> List.forall _.IsOut ->
            Some first
        | _ -> None

    /// Decides, after an event, and starts what is due. `stopped`: what the event has ended.
    let private settle (state: RaceState, stopped: RaceEntry list, now: int64<ms>) : RaceStep =
        if state.Result <> RaceOutcome.Open then
            { State = state
              Start = [||]
              Stop = [||]
              Outcome = state.Result
              Winner = none }
        else
            match winner (state, now) with
            | Some server ->
                let winner =
                    entries ((=) Online) state.Runners |> List.find (fun entry -> entry.Server = server)

                let others =
                    entries ((<>) Ended) state.Runners |> List.filter (fun entry -> entry <> winner)

                { State = { state with Result = RaceOutcome.Won }
                  Start = [||]
                  Stop = Array.ofList (stopped @ others)
                  Outcome = RaceOutcome.Won
                  Winner = winner }
            | None ->
                let runners = start (state.Runners, now)

                let started =
                    List.zip state.Runners runners
                    |> List.indexed
                    |> List.filter (fun (_, (before, after)) -> after.Runs.Length > before.Runs.Length)
                    |> List.map (fun (server, (before, _)) ->
                        { Server = server
                          Address = before.Runs.Length })

                let result =
                    if runners |> List.forall _.IsOut then
                        RaceOutcome.Lost
                    else
                        RaceOutcome.Open

                { State =
                    { state with
                        Runners = runners
                        Result = result }
                  Start = Array.ofList started
                  Stop = Array.ofList stopped
                  Outcome = result
                  Winner = none }

    /// A race that starts now; nothing is started before the first `tick`.
    ///
    /// `addresses`: how many addresses each server has. `preferMs`: how long a server waits for those before it in the list.
    /// `lost`: the server whose connection was lost just now; -1 if none.
    let create (addresses: IReadOnlyList<int>, preferMs: int64<ms>, lost: int, now: int64<ms>) : RaceState =
        { Runners =
            [ for server in 0 .. addresses.Count - 1 ->
                  { Addresses = addresses[server]
                    Runs = []
                    NotBefore = if server = lost then now + LostDelay else now
                    StartedAt = now
                    IsRefused = false } ]
          PreferUntil = now + preferMs
          Result = RaceOutcome.Open }

    let private runOf (state: RaceState, entry: RaceEntry) : RaceRun =
        state.Runners
        |> List.tryItem entry.Server
        |> Option.bind (fun runner -> List.tryItem entry.Address runner.Runs)
        |> Option.defaultValue Ended

    let private withRunner (state: RaceState, server: int, change: RaceRunner -> RaceRunner) : RaceState =
        { state with
            Runners = state.Runners |> List.mapi (fun i runner -> if i = server then change runner else runner) }

    let private withRun (entry: RaceEntry) (run: RaceRun) (runner: RaceRunner) : RaceRunner =
        { runner with
            Runs = List.updateAt entry.Address run runner.Runs }

    /// The other connections of a server, which one of them makes superfluous.
    let private others (state: RaceState, entry: RaceEntry) : RaceEntry list =
        entries ((<>) Ended) state.Runners
        |> List.filter (fun other -> other.Server = entry.Server && other.Address <> entry.Address)

    let private stopAll (stopped: RaceEntry list) (state: RaceState) : RaceState =
        (state, stopped)
        ||> List.fold (fun state entry -> withRunner (state, entry.Server, withRun entry Ended))

    /// Call at once, then at `nextAt`, or later; earlier it changes nothing.
    let tick (state: RaceState, now: int64<ms>) : RaceStep = settle (state, [], now)

    /// The first datagram came, or the TCP connection is there.
    let answered (state: RaceState, entry: RaceEntry, now: int64<ms>) : RaceStep =
        match runOf (state, entry) with
        | Silent -> settle (withRunner (state, entry.Server, withRun entry Answered), [], now)
        | _ -> settle (state, [], now)

    /// The server has let this client in.
    let online (state: RaceState, entry: RaceEntry, now: int64<ms>) : RaceStep =
        match runOf (state, entry) with
        | Silent
        | Answered ->
            let superfluous = others (state, entry)

            let state =
                withRunner (state, entry.Server, withRun entry Online) |> stopAll superfluous

            settle (state, superfluous, now)
        | _ -> settle (state, [], now)

    /// The connection has ended. `isRefused`: the server itself does not want this client; another address of it would not
    /// change that.
    let ended (state: RaceState, entry: RaceEntry, isRefused: bool, now: int64<ms>) : RaceStep =
        match runOf (state, entry) with
        | Ended -> settle (state, [], now)
        | _ ->
            let superfluous = if isRefused then others (state, entry) else []

            let state =
                withRunner (
                    state,
                    entry.Server,
                    fun runner ->
                        { withRun entry Ended runner with
                            IsRefused = isRefused }
                )
                |> stopAll superfluous

            settle (state, superfluous, now)

    /// When `tick` has something to do; `Time.Never` if only events have.
    let nextAt (state: RaceState) : int64<ms> =
        let startAt (runner: RaceRunner) =
            if not runner.HasMore then Time.Never
            elif not runner.IsAlive then runner.NotBefore
            elif runner.HasAnswered then Time.Never
            else runner.StartedAt + AddressDelay

        if state.Result <> RaceOutcome.Open then
            Time.Never
        else
            let decideAt =
                if state.Runners |> List.exists _.IsOnline then
                    state.PreferUntil
                else
                    Time.Never

            state.Runners |> List.map startAt |> List.fold min decideAt

namespace Lightway.Protocol

open System

/// A login that waits for its check.
[<Struct>]
type internal WaitingLogin<'request> =
    { Source: SourceKey
      User: uint64
      AskedAt: int64<ms> // the last time
      Request: 'request }

/// Logins that wait until a password check may start, so that none of the slots is idle while somebody waits: clients that
/// come at once repeat their requests at once, too, and most of them would find all slots taken each time.
/// Who does not ask again within `stay` has left. A source has a sixteenth of the places, its network a quarter. Whoever was
/// served lets the others pass: those of its source go behind those of its network, and these behind all others.
/// `left` gets each request that is given up: its client has left, or has asked again. Used under its caller's lock.
/// Times in ms.
/// Laws: a check starts if a slot is free and anybody waits who may be checked now. Nobody who has not asked within `stay` is
/// checked. Between two checks of one network every other one that waits gets its turn, and so do the sources within a
/// network. Asking more often gains nothing; asking again keeps the turn, also on another connection.
[<Sealed; AllowNullLiteral>]
type LoginLine<'request>(places: int, stay: int64<ms>, left: Action<'request>) =
    let perNarrow = max 1 (places / 16)
    let perWide = max 1 (places / 4)
    let waiting = ResizeArray<WaitingLogin<'request>>() // the next one first

    // Workers' clocks may differ by some milliseconds: a time ahead of now is not an error.
    let isGone (now: int64<ms>) (login: WaitingLogin<'request>) : bool =
        login.AskedAt < now - stay || login.AskedAt > now + stay

    let forget (now: int64<ms>) : unit =
        waiting.RemoveAll(fun login ->
            let gone = isGone now login

            if gone then
                left.Invoke login.Request

            gone)
        |> ignore

    let letOthersPass (served: SourceKey) : unit =
        let turn (login: WaitingLogin<'request>) =
            if login.Source.Wide <> served.Wide then 0
            elif login.Source.Narrow <> served.Narrow then 1
            else 2

        let others = waiting |> Seq.sortBy turn |> Seq.toArray // keeps the order of equal ones
        waiting.Clear()
        waiting.AddRange others

    /// Logins that wait.
    member _.Count: int = waiting.Count

    /// A user asks, perhaps again: the latest request of a user at a source counts. False: there is no room.
    member _.Join(source: SourceKey, user: uint64, now: int64<ms>, request: 'request) : bool =
        let login =
            { Source = source
              User = user
              AskedAt = now
              Request = request }

        forget now

        let place =
            waiting.FindIndex(fun other -> other.Source.Narrow = source.Narrow && other.User = user)

        if place >= 0 then
            left.Invoke waiting[place].Request
            waiting[place] <- login
            true
        else
            let ofNarrow =
                waiting.FindAll(fun other -> other.Source.Narrow = source.Narrow).Count

            let ofWide = waiting.FindAll(fun other -> other.Source.Wide = source.Wide).Count
            let hasRoom = waiting.Count < places && ofNarrow < perNarrow && ofWide < perWide

            if hasRoom then
                waiting.Add login

            hasRoom

    /// Starts the check of whoever is next among those that the gate lets in now. False: there is nobody, or no slot; the
    /// ticket is 0 then.
    member _.TryNext(gate: LoginGate, now: int64<ms>, ticket: byref<int64>, next: byref<'request>) : bool =
        let mutable verdict = LoginVerdict.TooEarly
        let mutable place = 0
        ticket <- 0L
        forget now

        while verdict <> LoginVerdict.Started && place < waiting.Count do
            verdict <- gate.TryStart(waiting[place].Source, waiting[place].User, now, &ticket)

            if verdict <> LoginVerdict.Started then
                place <- place + 1

        if verdict = LoginVerdict.Started then
            let served = waiting[place]
            next <- served.Request
            waiting.RemoveAt place
            letOthersPass served.Source

        verdict = LoginVerdict.Started

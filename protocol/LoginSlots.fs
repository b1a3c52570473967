namespace Lightway.Protocol

open System

/// Whether a password may be checked now.
type LoginVerdict =
    /// As many checks run as may run at all.
    | Full = 0
    /// A check for the same source runs.
    | SourceBusy = 1
    /// A check for the same user runs.
    | UserBusy = 2
    /// Too soon after failures.
    | TooEarly = 3
    | Started = 4

/// The password checks that run: at most one per source and per user. One that does not report its end gives its slot up
/// after the lease. Their number may change: checks that run go on, and none starts until there are fewer than slots.
/// Used by one thread, or under its caller's lock. Times in ms.
/// Laws: never two slots of one source, of one user, or more than there are; a slot is free again after its end, or after
/// the lease at the latest, also if the clock went back. What has ended cannot end again, nor can it end another one.
[<Sealed; AllowNullLiteral>]
type LoginSlots(slots: int, lease: int64<ms>) =
    static let slotBits = 12
    let bounded slots = min (1 <<< slotBits) (max 1 slots)
    let mutable limit = bounded slots
    let lease = max 1L<ms> lease
    let mutable tickets: int64[] = Array.zeroCreate limit // 0: free
    let mutable sources: uint64[] = Array.zeroCreate limit
    let mutable users: uint64[] = Array.zeroCreate limit
    let mutable startedAt: int64<ms>[] = Array.zeroCreate limit
    let mutable sequence = 0L

    let expire (slot: int, now: int64<ms>) : unit =
        if now < startedAt[slot] then
            startedAt[slot] <- now // the clock went back: the lease starts again
        else
            let age = now - startedAt[slot]

            if age < 0L<ms> || age >= lease then // below zero: further apart than the type can express
                tickets[slot] <- 0L

    /// Changes the number of slots.
    member _.Resize(slots: int) : unit =
        limit <- bounded slots

        if limit > tickets.Length then
            Array.Resize(&tickets, limit)
            Array.Resize(&sources, limit)
            Array.Resize(&users, limit)
            Array.Resize(&startedAt, limit)

    /// Takes a slot. `ticket` is for `End`, and 0 if none was taken.
    member _.TryStart(source: uint64, user: uint64, now: int64<ms>, ticket: byref<int64>) : LoginVerdict =
        let mutable free = -1
        let mutable used = 0
        let mutable sourceIsBusy = false
        let mutable userIsBusy = false

        for slot in 0 .. tickets.Length - 1 do
            if tickets[slot] <> 0L then
                expire (slot, now)

            if tickets[slot] = 0L then
                free <- slot
            else
                used <- used + 1
                sourceIsBusy <- sourceIsBusy || sources[slot] = source
                userIsBusy <- userIsBusy || users[slot] = user

        ticket <- 0L

        if sourceIsBusy then
            LoginVerdict.SourceBusy
        elif userIsBusy then
            LoginVerdict.UserBusy
        elif free < 0 || used >= limit then
            LoginVerdict.Full
        else
            sequence <- sequence + 1L
            ticket <- (sequence <<< slotBits) ||| int64 free
            tickets[free] <- ticket
            sources[free] <- source
            users[free] <- user
            startedAt[free] <- now
            LoginVerdict.Started

    /// Whether a check of this user at this source runs.
    member _.Has(source: uint64, user: uint64) : bool =
        let mutable has = false

        for slot in 0 .. tickets.Length - 1 do
            has <- has || (tickets[slot] <> 0L && sources[slot] = source && users[slot] = user)

        has

    /// The check has ended. False: its slot was given up before.
    member _.End(ticket: int64) : bool =
        let slot = int ticket &&& ((1 <<< slotBits) - 1)
        let isThere = ticket <> 0L && slot < tickets.Length && tickets[slot] = ticket

        if isThere then
            tickets[slot] <- 0L

        isThere

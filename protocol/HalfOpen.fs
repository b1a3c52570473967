namespace Lightway.Protocol

/// Counts of entries by key, in fixed arrays: a chained hash table whose records keep their index.
/// Law: `Count` is the number of `Add` less the number of `Remove` with that key.
[<Sealed>]
type internal Tally(capacity: int) =
    let heads: int[] =
        Array.create (int (System.Numerics.BitOperations.RoundUpToPowerOf2(uint32 capacity))) -1

    let keys: uint64[] = Array.zeroCreate capacity
    let counts: int[] = Array.zeroCreate capacity
    let next = Array.init capacity (fun i -> if i + 1 < capacity then i + 1 else -1) // of a chain, or of the free records
    let mutable free = 0
    let chainOf (key: uint64) : int = int key &&& (heads.Length - 1)

    let find (key: uint64) : int =
        let mutable record = heads[chainOf key]

        while record >= 0 && keys[record] <> key do
            record <- next[record]

        record

    let unlink (record: int) : unit =
        let chain = chainOf keys[record]

        if heads[chain] = record then
            heads[chain] <- next[record]
        else
            let mutable before = heads[chain]

            while next[before] <> record do
                before <- next[before]

            next[before] <- next[record]

    /// Counts one more; the record of the key. Precondition: fewer than `capacity` entries.
    member _.Add(key: uint64) : int =
        let found = find key

        if found >= 0 then
            counts[found] <- counts[found] + 1
            found
        else
            let record = free
            let chain = chainOf key
            free <- next[record]
            keys[record] <- key
            counts[record] <- 1
            next[record] <- heads[chain]
            heads[chain] <- record
            record

    member _.Remove(record: int) : unit =
        counts[record] <- counts[record] - 1

        if counts[record] = 0 then
            unlink record
            next[record] <- free
            free <- record

    member _.Count(record: int) : int = counts[record]

/// A connection that has its place, and the one that had to make room.
[<Struct>]
type HalfOpenEntry =
    {
        /// For `Leave`; never 0.
        Ticket: int64
        /// The ticket of the connection that must be closed; 0 for none. It has left already.
        GaveWay: int64
    }

/// Places of connections that have not logged in. A newcomer always gets one: if there are too many, of its narrow source,
/// of its wide source or in all, then one gives way. It is the oldest among those of the greediest narrow source of the
/// greediest wide source, the newcomer counted.
/// Used by one thread. Costs a search through all places, but only when one has to give way.
/// Laws: never more places than each of the three limits. No place gives way while a source that has more could instead: a
/// source with one place loses it to others only if every wide source has one. Nobody waits. What has left cannot leave
/// again, nor can it remove another one.
[<Sealed; AllowNullLiteral>]
type HalfOpen(places: int, perNarrow: int, perWide: int) =
    static let slotBits = 20
    let capacity = min (1 <<< slotBits) (max 1 places)
    let narrowLimit = max 1 perNarrow
    let wideLimit = max 1 perWide
    let tickets: int64[] = Array.zeroCreate capacity // of the connection in a slot; 0: the slot is free. In order of age
    let narrowOf: int[] = Array.zeroCreate capacity // records of the tallies
    let wideOf: int[] = Array.zeroCreate capacity
    let narrow = Tally(capacity + 1) // one more, as a newcomer is counted before it has a slot
    let wide = Tally(capacity + 1)
    let freeSlots = Array.init capacity (fun i -> capacity - 1 - i) // a stack
    let mutable used = 0
    let mutable sequence = 0L

    let isGreedier (one: int) (other: int) : bool =
        let wideOne, wideOther = wide.Count wideOf[one], wide.Count wideOf[other]

        let narrowOne, narrowOther =
            narrow.Count narrowOf[one], narrow.Count narrowOf[other]

        if wideOne <> wideOther then wideOne > wideOther
        elif narrowOne <> narrowOther then narrowOne > narrowOther
        else tickets[one] < tickets[other]

    // The slot that gives way, among those of a narrow source, or of all for -1. Precondition: there is one.
    let greediest (ofNarrow: int) : int =
        let mutable found = -1

        for slot in 0 .. capacity - 1 do
            let isCandidate = tickets[slot] <> 0L && (ofNarrow < 0 || narrowOf[slot] = ofNarrow)

            if isCandidate && (found < 0 || isGreedier slot found) then
                found <- slot

        found

    let vacate (slot: int) : int64 =
        let ticket = tickets[slot]
        tickets[slot] <- 0L
        narrow.Remove narrowOf[slot]
        wide.Remove wideOf[slot]
        used <- used - 1
        freeSlots[capacity - 1 - used] <- slot
        ticket

    /// Connections that have a place.
    member _.Count: int = used

    /// Gives a new connection its place.
    member _.Enter(source: SourceKey) : HalfOpenEntry =
        let ofNarrow = narrow.Add source.Narrow
        let ofWide = wide.Add source.Wide

        let gaveWay =
            if narrow.Count ofNarrow > narrowLimit then
                vacate (greediest ofNarrow)
            elif wide.Count ofWide > wideLimit || used = capacity then
                vacate (greediest -1) // of a wide source beyond its limit: no other has as many
            else
                0L

        let slot = freeSlots[capacity - 1 - used]
        used <- used + 1
        sequence <- sequence + 1L
        let ticket = (sequence <<< slotBits) ||| int64 slot
        tickets[slot] <- ticket
        narrowOf[slot] <- ofNarrow
        wideOf[slot] <- ofWide
        { Ticket = ticket; GaveWay = gaveWay }

    /// Gives a place back: the connection has logged in or ended. False: it had none any more.
    member _.Leave(ticket: int64) : bool =
        let slot = int ticket &&& ((1 <<< slotBits) - 1)
        let isThere = ticket <> 0L && slot < capacity && tickets[slot] = ticket

        if isThere then
            vacate slot |> ignore

        isThere

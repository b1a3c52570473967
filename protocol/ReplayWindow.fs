namespace Lightway.Protocol

open System

/// Arithmetic of the replay window: the place of a counter's bit, and what it says.
[<RequireQualifiedAccess>]
module internal ReplaySlots =
    /// Counters that are remembered, one bit each.
    [<Literal>]
    let Width = 8192UL

    /// Index of the word of 64 bits that has the counter's bit.
    [<ReflectedDefinition>]
    let wordOf (counter: uint64) : int = int (counter >>> 6) &&& 127

    [<ReflectedDefinition>]
    let bitOf (counter: uint64) : uint64 = 1UL <<< (int counter &&& 63)

    /// The counter would commit. `high` is the highest that did, `word` the one that has the counter's bit.
    [<ReflectedDefinition>]
    let isFresh (high: uint64, counter: uint64, word: uint64) : bool =
        counter > high || (counter <> 0UL && high - counter < Width && word &&& bitOf counter = 0UL)

    /// Counters from `first` on, at most `count`, whose bits are in one word: they are cleared in one step.
    [<ReflectedDefinition>]
    let clearedAtOnce (first: uint64, count: uint64) : uint64 = min (64UL - (first &&& 63UL)) count

    /// The bits of `cleared` counters in the word of `first`. Precondition: 1 <= cleared <= 64.
    [<ReflectedDefinition>]
    let clearedBits (first: uint64, cleared: uint64) : uint64 =
        (0xFFFF_FFFF_FFFF_FFFFUL >>> (64 - int cleared)) <<< (int first &&& 63)

/// Packet counters of one direction that were seen: the last 8192, one bit each, like the window of RFC 6479.
/// Used by one thread, the connection's worker: nothing changes between preview, opening and commit.
/// Laws: a counter commits at most once; 0 never does; counters 8192 or more behind the highest never do.
[<Sealed; AllowNullLiteral>]
type ReplayWindow() =
    let words: uint64[] = Array.zeroCreate (int ReplaySlots.Width / 64) // bit of a counter: counter mod 8192
    let mutable high = 0UL // highest counter committed; 0 before the first

    // Clears the slots of `first`, `first` + 1, ... (`count` of them).
    let clear (first: uint64, count: uint64) =
        let mutable counter = first
        let mutable left = count

        while left > 0UL do
            let word = ReplaySlots.wordOf counter
            let cleared = ReplaySlots.clearedAtOnce (counter, left)
            words[word] <- words[word] &&& ~~~(ReplaySlots.clearedBits (counter, cleared))
            counter <- counter + cleared
            left <- left - cleared

    /// True if `counter` would commit. Ask before opening a packet, so that replays cost no decryption.
    member _.IsFresh(counter: uint64) : bool =
        ReplaySlots.isFresh (high, counter, words[ReplaySlots.wordOf counter])

    /// Marks an authenticated counter as seen; false when it has been seen or is too old.
    member this.Commit(counter: uint64) : bool =
        let fresh = this.IsFresh counter

        if fresh then
            if counter > high then
                let step = counter - high

                if step >= ReplaySlots.Width then
                    Array.Clear words
                else
                    clear (high + 1UL, step)

                high <- counter

            let word = ReplaySlots.wordOf counter
            words[word] <- words[word] ||| ReplaySlots.bitOf counter

        fresh

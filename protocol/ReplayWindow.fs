namespace Lightway.Protocol

open System

/// Packet counters of one direction that were seen: the last 8192, one bit each, like the window of RFC 6479.
/// Used by one thread, the connection's worker: nothing changes between preview, opening and commit.
/// Laws: a counter commits at most once; 0 never does; counters 8192 or more behind the highest never do.
[<Sealed; AllowNullLiteral>]
type ReplayWindow() =
    static let width = 8192UL // counters
    let words: uint64[] = Array.zeroCreate (int width / 64) // bit of a counter: counter mod 8192
    let mutable high = 0UL // highest counter committed; 0 before the first

    let wordOf (counter: uint64) = int (counter >>> 6) &&& 127
    let bitOf (counter: uint64) = 1UL <<< (int counter &&& 63)

    // Clears the slots of `counter`, `counter` + 1, ... (`count` of them), whole words where it can.
    let clear (first: uint64, count: uint64) =
        let mutable counter = first
        let mutable left = count

        while left > 0UL do
            if counter &&& 63UL = 0UL && left >= 64UL then
                words[wordOf counter] <- 0UL
                counter <- counter + 64UL
                left <- left - 64UL
            else
                words[wordOf counter] <- words[wordOf counter] &&& ~~~(bitOf counter)
                counter <- counter + 1UL
                left <- left - 1UL

    /// True if `counter` would commit. Ask before opening a packet, so that replays cost no decryption.
    member _.IsFresh(counter: uint64) : bool =
        if counter > high then
            true
        else
            counter <> 0UL && high - counter < width && words[wordOf counter] &&& bitOf counter = 0UL

    /// Marks an authenticated counter as seen; false when it has been seen or is too old.
    member this.Commit(counter: uint64) : bool =
        let fresh = this.IsFresh counter

        if fresh then
            if counter > high then
                let step = counter - high

                if step >= width then
                    Array.Clear words
                else
                    clear (high + 1UL, step)

                high <- counter

            words[wordOf counter] <- words[wordOf counter] ||| bitOf counter

        fresh

namespace Lightway.Protocol

/// What was taken from a token bucket, and when that was right.
[<Struct>]
type internal Bucket =
    val mutable Spent: int64 // thousandths of a token; 0: the bucket is full
    val mutable At: int64<ms>

/// Token buckets for any number of sources, in a fixed number of buckets. Each key has four of them, one per row, chosen by
/// parts of the key; a token is there if one of the four has it, and is taken from all four. So others can only empty the
/// buckets of a source by emptying all four, and no source needs an entry that another one could displace.
/// Used by one thread. Keys are hashes with a secret seed. Times in ms.
/// Laws: memory does not grow. A key that nobody shares buckets with gets exactly what its own token bucket would give; any
/// key gets at most that, apart from refunds. A key within its budget is refused only if others emptied all its buckets:
/// with `n` greedy keys and `m` buckets per row the probability is at most (n/m)^4. Refills do not depend on how often
/// somebody asks. A clock that goes back or jumps delays nobody by more than a refill.
[<Sealed; AllowNullLiteral>]
type RateLimit(bucketsPerRow: int, tokensPerSecond: int, burst: int) =
    static let rows = 4
    static let token = 1_000L // units of Spent

    // Powers of two up to 2^16: the parts of a key that choose buckets have 16 bits.
    let size =
        int (System.Numerics.BitOperations.RoundUpToPowerOf2(uint32 (min 65_536 (max 1 bucketsPerRow))))

    let perMs = int64 (min 1_000_000 (max 1 tokensPerSecond)) // thousandths of a token per ms: tokens per second
    let capacity = int64 (min 1_000_000 (max 1 burst)) * token
    let fullAfter = (capacity / perMs + 1L) * 1L<ms>
    let buckets: Bucket[] = Array.zeroCreate (rows * size)

    let indexOf (key: uint64, row: int) : int =
        row * size + (int (key >>> (16 * row)) &&& (size - 1))

    // What a bucket lacks now. A clock that went back starts to run from where it is.
    let spentAt (index: int, now: int64<ms>) : int64 =
        let bucket = &buckets[index]

        if now <= bucket.At then
            bucket.At <- now
            bucket.Spent
        else
            let elapsed = now - bucket.At

            if elapsed < 0L<ms> || elapsed >= fullAfter then // below zero: further apart than the type can express
                0L
            else
                max 0L (bucket.Spent - elapsed * perMs / 1L<ms>)

    let put (index: int, spent: int64, now: int64<ms>) : unit =
        let bucket = &buckets[index]
        bucket.Spent <- spent
        bucket.At <- now

    /// Bytes of the table.
    member _.Bytes: int64 = int64 buckets.Length * 16L

    /// True if a token is there; takes none.
    member _.Has(key: uint64, now: int64<ms>) : bool =
        let mutable found = false

        for row in 0 .. rows - 1 do
            if spentAt (indexOf (key, row), now) + token <= capacity then
                found <- true

        found

    /// Takes a token; false if there is none.
    member this.Take(key: uint64, now: int64<ms>) : bool =
        let has = this.Has(key, now)

        if has then
            for row in 0 .. rows - 1 do
                let index = indexOf (key, row)
                put (index, min capacity (spentAt (index, now) + token), now)

        has

    /// Gives a token back, as the datagram it was taken for was worth it. No bucket gets fuller than full.
    member _.Refund(key: uint64, now: int64<ms>) : unit =
        for row in 0 .. rows - 1 do
            let index = indexOf (key, row)
            put (index, max 0L (spentAt (index, now) - token), now)

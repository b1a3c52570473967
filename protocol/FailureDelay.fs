namespace Lightway.Protocol

/// Failures of the keys that share a cell.
[<Struct>]
type internal FailureCell =
    val mutable Failures: int
    val mutable At: int64<ms> // of the last one

/// How the delays grow. Times in ms.
[<Struct>]
type FailureRule =
    {
        /// Failures that cost nothing.
        Free: int
        /// Delay after the first failure that costs something; each further one doubles it.
        First: int64<ms>
        /// Longest delay.
        Limit: int64<ms>
        /// Time after the last failure in which all of a key's are forgotten.
        ForgetAfter: int64<ms>
    }

/// Delays after failed logins, for any number of keys in fixed memory. A key has four cells, one per row, and counts as the
/// cell with the shortest delay says: so nobody can make its own failures forgotten by causing others.
/// Used by one thread, or under its caller's lock. Keys are hashes with a secret seed.
/// Laws: the delay of a key is never shorter than its own failures say, and longer only if others failed in all its four
/// cells: with `n` failing keys and `m` cells per row the probability is at most (n/m)^4. Nobody waits longer than the
/// limit, also if the clock goes back or jumps. After the time to forget, without a failure, nothing is left.
[<Sealed; AllowNullLiteral>]
type FailureDelay(cellsPerRow: int, rule: FailureRule) =
    static let rows = 4
    static let most = 1_000 // failures that are counted

    // Powers of two up to 2^16: the parts of a key that choose cells have 16 bits.
    let size =
        int (System.Numerics.BitOperations.RoundUpToPowerOf2(uint32 (min 65_536 (max 1 cellsPerRow))))

    let free = max 0 (min (most - 32) rule.Free)
    let limit = max 0L<ms> (min 86_400_000L<ms> rule.Limit) // a day
    let first = max 0L<ms> (min limit rule.First)
    let forgetAfter = max limit rule.ForgetAfter // never before the delay is over
    let cells: FailureCell[] = Array.zeroCreate (rows * size)

    let indexOf (key: uint64, row: int) : int =
        row * size + (int (key >>> (16 * row)) &&& (size - 1))

    let delayOf (failures: int) : int64<ms> =
        if failures <= free then
            0L<ms>
        else
            // 30 doublings of a millisecond are longer than a day, and no delay of up to a day overflows.
            min limit (first * (1L <<< min 30 (failures - free - 1)))

    // Time since the last failure in a cell. Forgets what is too old; a clock that went back starts to run from where it is.
    let ageOf (index: int, now: int64<ms>) : int64<ms> =
        let cell = &cells[index]

        if now <= cell.At then
            cell.At <- now

        let age = now - cell.At

        if age < 0L<ms> || age >= forgetAfter then // below zero: further apart than the type can express
            cell.Failures <- 0
            cell.At <- now
            0L<ms>
        else
            age

    let failuresOf (key: uint64, now: int64<ms>) : int =
        let mutable least = most

        for row in 0 .. rows - 1 do
            let index = indexOf (key, row)
            ageOf (index, now) |> ignore
            least <- min least cells[index].Failures

        least

    /// Bytes of the table.
    member _.Bytes: int64 = int64 cells.Length * 16L

    /// Time until the next attempt of this key may be looked at; 0 for at once.
    member _.Wait(key: uint64, now: int64<ms>) : int64<ms> =
        let mutable shortest = limit

        for row in 0 .. rows - 1 do
            let index = indexOf (key, row)
            let age = ageOf (index, now)
            shortest <- min shortest (max 0L<ms> (delayOf cells[index].Failures - age))

        shortest

    /// Counts a failure; the time until the next attempt, which is also how long the answer may wait.
    member _.Failed(key: uint64, now: int64<ms>) : int64<ms> =
        let failures = min most (failuresOf (key, now) + 1)

        for row in 0 .. rows - 1 do
            let cell = &cells[indexOf (key, row)]
            cell.Failures <- max cell.Failures failures
            cell.At <- now

        delayOf failures

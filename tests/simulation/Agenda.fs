namespace Lightway.Tests.Simulation

open System
open System.Text

/// What happens next.
type Kind =
    /// A datagram arrives at the server's host. Who: the sender's host, or -1.
    | ToServer = 0
    /// A datagram arrives at a client's host.
    | ToHost = 1
    /// A worker of the server wakes up.
    | Wake = 2
    /// Timers of clients are due.
    | Farm = 3
    /// A program on a client's host sends.
    | Up = 4
    /// A host behind the server sends.
    | Down = 5
    /// Anything else.
    | Act = 6

/// What has happened, for the record.
type Mark =
    | Event = 0
    | Lost = 1
    | Repeated = 2
    | Damaged = 3
    | Unreachable = 4
    | Overflowed = 5
    | SentUp = 6
    | SentDown = 7
    | ArrivedUp = 8
    | ArrivedDown = 9
    | HostStarts = 10
    | HostOnline = 11
    | HostEnds = 12
    | HostMoves = 13
    | HostCrashes = 14
    | ServerStarts = 15
    | ServerStops = 16
    | SessionOnline = 17
    | SessionEnds = 18
    | GuestEnds = 19
    | CheckStarts = 20
    | CheckEnds = 21
    | Step = 22
    | SocketFull = 23
    | Refused = 24
    | Reloads = 25
    | Flood = 26
    | Rejected = 27
    | LinkUp = 28
    | Calm = 29

exception Violation of string

/// The record of a world: a digest of everything that has happened, and the latest entries in words.
[<Sealed>]
type Trace() =
    let kept = 60
    let marks: Mark[] = Array.zeroCreate kept
    let times: int64[] = Array.zeroCreate kept
    let who: int[] = Array.zeroCreate kept
    let values: int64[] = Array.zeroCreate kept
    let mutable count = 0L
    let mutable digest = 0xCBF29CE484222325UL

    let mix (value: uint64) =
        digest <- (digest ^^^ value) * 0x100000001B3UL
        digest <- digest ^^^ (digest >>> 29)

    member _.Digest = digest

    member _.Add(at: int64, mark: Mark, subject: int, value: int64) : unit =
        let slot = int (count % int64 kept)
        marks[slot] <- mark
        times[slot] <- at
        who[slot] <- subject
        values[slot] <- value
        count <- count + 1L
        mix (uint64 at)
        mix (uint64 (int mark) ^^^ (uint64 (uint32 subject) <<< 8))
        mix (uint64 value)

    /// The latest entries, oldest first.
    member _.Latest(origin: int64) : string =
        let text = StringBuilder()

        for i in max 0L (count - int64 kept) .. count - 1L do
            let slot = int (i % int64 kept)

            text.AppendLine $"  {times[slot] - origin, 12} ms  {marks[slot], -14} {who[slot], 5}  {values[slot]}"
            |> ignore

        text.ToString()

[<Struct; NoEquality; NoComparison>]
type Item = { Kind: Kind; Who: int; What: obj }

/// The virtual clock (ms) and what is due, in order of time; what is due at the same time comes in the order in which it
/// was put down.
[<Sealed>]
type Agenda(start: int64) =
    // 31 bits of time since the start (24 days), 32 bits of a number.
    let mutable keys: int64[] = Array.zeroCreate 1024
    let mutable items: Item[] = Array.zeroCreate 1024
    let mutable count = 0
    let mutable number = 0L
    let mutable now = start

    member _.Start = start
    member _.Now = now
    member _.Count = count

    member _.Add(at: int64, kind: Kind, who: int, what: obj) : unit =
        if count = keys.Length then
            Array.Resize(&keys, 2 * count)
            Array.Resize(&items, 2 * count)

        number <- number + 1L
        let key = ((max at now - start) <<< 32) ||| number
        let mutable i = count
        count <- count + 1

        while i > 0 && keys[(i - 1) / 4] > key do
            keys[i] <- keys[(i - 1) / 4]
            items[i] <- items[(i - 1) / 4]
            i <- (i - 1) / 4

        keys[i] <- key
        items[i] <- { Kind = kind; Who = who; What = what }

    member this.After(wait: int64, action: Action) : unit =
        this.Add(now + wait, Kind.Act, -1, action)

    /// The next item; time moves there.
    member _.Take() : Item =
        let top = items[0]
        now <- start + (keys[0] >>> 32)
        count <- count - 1
        let key = keys[count]
        let last = items[count]
        items[count] <- Unchecked.defaultof<Item>
        let mutable i = 0
        let mutable go = count > 0

        while go do
            let first = 4 * i + 1

            if first >= count then
                go <- false
            else
                let mutable least = first

                for child in first + 1 .. min (first + 3) (count - 1) do
                    if keys[child] < keys[least] then
                        least <- child

                if keys[least] < key then
                    keys[i] <- keys[least]
                    items[i] <- items[least]
                    i <- least
                else
                    go <- false

        if count > 0 then
            keys[i] <- key
            items[i] <- last

        top

namespace Lightway.Tests.Simulation

open System
open System.Collections.Generic

/// What a source of strangers may do, by the documentation: `perSecond` datagrams, and three seconds' worth at once.
[<Sealed>]
type SourceModel(perSecond: int) =
    let capacity = 3L * int64 perSecond * 1_000L
    let mutable spent = 0L // thousandths of a datagram
    let mutable at = 0L

    /// Whether a datagram passes now.
    member _.Take(now: int64) : bool =
        spent <- max 0L (spent - (now - at) * int64 perSecond)
        at <- now
        let passes = spent + 1_000L <= capacity

        if passes then
            spent <- spent + 1_000L

        passes

    /// The share of one worker; eight datagrams are a handshake.
    static member Of(handshakes: int, workers: int) : SourceModel =
        SourceModel(
            if handshakes = 0 then
                1_000_000
            else
                max 8 (8 * handshakes / workers)
        )

/// Which cookies a listener takes: its secret lives for an hour, and changes when the next stranger comes; cookies of the
/// one before are taken for another minute.
[<Sealed>]
type CookieModel(now: int64) =
    let mutable generation = 0
    let mutable since = now
    let mutable previousUntil = now
    let issued = Dictionary<uint32, int>()
    let used = HashSet<uint32>()

    /// A stranger's datagram is looked at.
    member _.Look(now: int64) : unit =
        if now - since >= 3_600_000L then
            generation <- generation + 1
            since <- now
            previousUntil <- now + 60_000L

    /// Somebody gets a cookie; one who gets cookies of two secrets is not looked at.
    member _.Issue(address: uint32) : unit =
        let mutable known = 0

        if issued.TryGetValue(address, &known) && known <> generation then
            issued[address] <- Int32.MinValue
        else
            issued[address] <- generation

    member _.Use(address: uint32) : unit = used.Add address |> ignore

    member _.IsUsed(address: uint32) : bool = used.Contains address

    /// Whether the cookie of somebody is good now, if that is known. Its holder is about to show it, or has shown it just now.
    member _.IsGood(address: uint32, now: int64) : bool voption =
        let mutable known = Int32.MinValue

        if issued.TryGetValue(address, &known) && known >= 0 then
            let isDue = now - since >= 3_600_000L // it changes when the cookie is shown
            let current = if isDue then generation + 1 else generation
            let until = if isDue then now + 60_000L else previousUntil
            ValueSome(known = current || (known = current - 1 && now < until))
        else
            ValueNone

/// When wrong passwords of a user at a source are answered: the delay doubles from 1 s to 30 s, and is forgotten ten minutes
/// after the latest failure. The answer waits for a tick, a second at most.
[<Sealed>]
type RefusalModel() =
    let latest = Dictionary<struct (string * uint32), struct (int * int64)>()

    member _.Refused(user: string, source: uint32, now: int64) : unit =
        let key = struct (user, source)
        let mutable before = struct (0, 0L)

        if latest.TryGetValue(key, &before) then
            let struct (count, at) = before

            if now - at >= 600_000L - 1_000L then
                latest[key] <- struct (1, now)
            elif now > at then // at the same tick: two connections get the answer of one check
                let delay = min 30_000L (1_000L <<< min 6 (count - 1))

                if now - at < delay - 1_000L then
                    raise (
                        Violation
                            $"'{user}' is refused for the {count + 1}th time, {now - at} ms after the time before: {delay} ms must pass"
                    )

                latest[key] <- struct (count + 1, now)
        else
            latest[key] <- struct (1, now)

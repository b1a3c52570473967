namespace Lightway.Tests.Simulation

open System
open System.Buffers.Binary

/// The only source of chance of a simulated world: SplitMix64 (Steele, Lea, Flood 2014). Integers only, so that every
/// machine throws the same.
[<Sealed>]
type Dice(seed: uint64) =
    let mutable state = seed

    member _.Next() : uint64 =
        state <- state + 0x9E3779B97F4A7C15UL
        let a = (state ^^^ (state >>> 30)) * 0xBF58476D1CE4E5B9UL
        let b = (a ^^^ (a >>> 27)) * 0x94D049BB133111EBUL
        b ^^^ (b >>> 31)

    /// 0 to n - 1.
    member this.Below(n: int) : int =
        int ((this.Next() >>> 33) % uint64 (max 1 n))

    /// Both ends are possible.
    member this.Between(least: int64, most: int64) : int64 =
        least + int64 (this.Next() >>> 1) % (most - least + 1L)

    member this.PerMille(chance: int) : bool = chance > 0 && this.Below 1000 < chance

    /// A time that is `mean` on average, and never 0.
    member this.Wait(mean: int64) : int64 =
        this.Between(1L, max 1L (2L * mean - 1L))

    member this.Pick(items: 'T[]) : 'T = items[this.Below items.Length]

    member this.Fill(bytes: Span<byte>) : unit =
        let mutable rest = bytes

        while rest.Length >= 8 do
            BinaryPrimitives.WriteUInt64LittleEndian(rest, this.Next())
            rest <- rest.Slice 8

        if rest.Length > 0 then
            let mutable last = this.Next()

            for i in 0 .. rest.Length - 1 do
                rest[i] <- byte last
                last <- last >>> 8

    /// Another source, independent of how often this one is asked from now on.
    member this.Fork() : Dice = Dice(this.Next())

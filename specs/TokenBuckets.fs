/// Rate limits of strangers against one exact token bucket per source, which forgets nothing and needs a lot of memory.
module Lightway.Specs.TokenBuckets

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// A token bucket in rational numbers: thousandths of a token, refilled each time that somebody looks.
type private Exact(perSecond: int, burst: int) =
    let full = bigint burst * 1000I
    let mutable level = full
    let mutable at = None

    member _.Refill(now: int64<ms>) =
        let passed = bigint (int64 now) - (at |> Option.defaultValue (bigint (int64 now)))
        level <- min full (level + passed * bigint perSecond)
        at <- Some(bigint (int64 now))

    member _.Has = level >= 1000I
    member _.Take() = level <- level - 1000I
    member _.GiveBack() = level <- min full (level + 1000I)

/// A limit and what happens: who asks, ms after the one before.
type Rush =
    { PerSecond: int
      Burst: int
      Asks: (int * int64) list }

type RushArbitrary =
    static member Rush() =
        gen {
            let! perSecond = Gen.elements [ 1; 2; 3; 7; 10; 999; 1000; 1001; 1_000_000 ]
            let! burst = Gen.elements [ 1; 2; 5; 30 ]

            let! asks =
                Gen.zip
                    (Gen.choose (0, 3))
                    (Gen.frequency
                        [ 6, Gen.choose64 (0L, 3L)
                          4, Gen.choose64 (0L, 700L)
                          1, Gen.choose64 (0L, 100_000L)
                          1, Gen.choose64 (0L, Int64.MaxValue / 1_000L) ])
                |> Gen.listOf

            return
                { PerSecond = perSecond
                  Burst = burst
                  Asks = asks }
        }
        |> Arb.fromGen

/// Any times, also backwards and at the ends of the clock.
type Clock = Clock of int64<ms> list

type ClockArbitrary =
    static member Clock() =
        Gen.frequency
            [ 6, Gen.choose64 (0L, 5_000L)
              2, Gen.choose64 (-10_000_000_000L, 10_000_000_000L)
              1, Gen.elements [ Int64.MinValue; Int64.MinValue + 1L; -1L; Int64.MaxValue - 1L; Int64.MaxValue ] ]
        |> Gen.map (fun time -> time * 1L<ms>)
        |> Gen.listOf
        |> Gen.map Clock
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        endSize = 300
        arbitrary = [ typeof<RushArbitrary>; typeof<ClockArbitrary>; typeof<SeedArbitrary> ] }

/// The key whose four buckets have these numbers.
let private key (parts: int list) : uint64 =
    parts |> List.mapi (fun row part -> uint64 part <<< (16 * row)) |> List.fold (|||) 0UL

/// Keys that share no bucket in a table of four per row or more.
let private apart = [ for i in 0..3 -> key [ i; i; i; i ] ]

/// Follows a rush; `check` sees who asks when, whether the limit gave a token, and the exact bucket of that source before.
let private follow (rush: Rush) (limit: RateLimit) (keys: uint64 list) check =
    let exact = Dictionary<int, Exact>()
    let mutable now = 0L<ms>

    rush.Asks
    |> List.forall (fun (who, pause) ->
        now <- now + min pause (int64 (Int64.MaxValue * 1L<ms> - now)) * 1L<ms>

        if not (exact.ContainsKey who) then
            exact[who] <- Exact(rush.PerSecond, rush.Burst)

        exact[who].Refill now
        let gave = limit.Take(keys[who], now)
        let isRight = check who gave exact[who].Has

        if gave then
            exact[who].Take()

        isRight)

let private agreement =
    [ testPropertyWithConfig config "a source that shares no bucket gets exactly what its own token bucket would give"
      <| fun (rush: Rush) ->
          let limit = RateLimit(4, rush.PerSecond, rush.Burst)
          follow rush limit apart (fun _ gave exact -> gave = exact)

      testPropertyWithConfig config "one bucket that nobody shares is enough"
      <| fun (rush: Rush) (row: byte) ->
          let row = int row % 4
          // The others meet source 0 in each row but this one.
          let meeting who =
              key [ for i in 0..3 -> if i = row then who else 0 ]

          let limit = RateLimit(4, rush.PerSecond, rush.Burst)
          follow rush limit [ for who in 0..3 -> meeting who ] (fun _ gave exact -> gave = exact)

      testPropertyWithConfig config "however many share its buckets, a source never gets more than its own"
      <| fun (rush: Rush) (keys: uint64 * uint64 * uint64 * uint64) (size: byte) ->
          let one, two, three, four = keys
          let limit = RateLimit(int size % 4, rush.PerSecond, rush.Burst)
          follow rush limit [ one; two; three; four ] (fun _ gave exact -> exact || not gave)

      testPropertyWithConfig config "refills do not depend on how often somebody asks"
      <| fun (rush: Rush) (looks: byte) ->
          let one, other =
              RateLimit(4, rush.PerSecond, rush.Burst), RateLimit(4, rush.PerSecond, rush.Burst)

          let mutable now = 0L<ms>

          rush.Asks
          |> List.forall (fun (who, pause) ->
              let pause = pause * 1L<ms>
              let parts = int64 (1 + int looks % 9)

              for part in 1L .. parts do
                  other.Has(apart[who], now + pause / parts * part) |> ignore

              now <- now + pause
              now < 0L<ms> || one.Take(apart[who], now) = other.Take(apart[who], now))

      testPropertyWithConfig config "asking is not taking: who has a token gets it"
      <| fun (rush: Rush) ->
          let limit = RateLimit(2, rush.PerSecond, rush.Burst)
          let mutable now = 0L<ms>

          rush.Asks
          |> List.forall (fun (who, pause) ->
              now <- now + pause % 10_000L * 1L<ms>
              limit.Has(apart[who], now) = limit.Take(apart[who], now)) ]

let private refunds =
    [ testPropertyWithConfig config "a refund right after taking is as if nothing had been taken"
      <| fun (rush: Rush) ->
          let one, other =
              RateLimit(4, rush.PerSecond, rush.Burst), RateLimit(4, rush.PerSecond, rush.Burst)

          let mutable now = 0L<ms>

          rush.Asks
          |> List.forall (fun (who, pause) ->
              now <- now + pause % 10_000L * 1L<ms>

              if who = 0 && one.Take(apart[0], now) then
                  one.Refund(apart[0], now)

              who = 0 || one.Take(apart[who % 2], now) = other.Take(apart[who % 2], now))

      testPropertyWithConfig config "refunds never exceed the capacity, however many there are"
      <| fun (rush: Rush) (taken: byte) (refunds: byte) (Clock clock) ->
          let limit = RateLimit(4, rush.PerSecond, rush.Burst)

          let last =
              List.fold
                  (fun _ now ->
                      limit.Take(apart[0], now) |> ignore
                      limit.Refund(apart[0], now)
                      now)
                  0L<ms>
                  clock

          for _ in 1 .. int taken % 40 do
              limit.Take(apart[0], last) |> ignore

          for _ in 1 .. 40 + int refunds do
              limit.Refund(apart[0], last)

          List.init (rush.Burst + 3) (fun _ -> limit.Take(apart[0], last)) =
              (List.init rush.Burst (fun _ -> true) @ [ false; false; false ])

      testPropertyWithConfig config "a refund gives one token, not two"
      <| fun (rush: Rush) ->
          let limit = RateLimit(4, rush.PerSecond, rush.Burst)

          for _ in 1 .. rush.Burst do
              limit.Take(apart[0], 0L<ms>) |> ignore

          let isEmpty = not (limit.Has(apart[0], 0L<ms>))
          limit.Refund(apart[0], 0L<ms>)
          isEmpty && limit.Take(apart[0], 0L<ms>) && not (limit.Take(apart[0], 0L<ms>)) ]

let private clocks =
    [ testPropertyWithConfig config "whatever the clock does, tokens are what the time that passed forwards allows"
      <| fun (Clock clock) (rush: Rush) ->
          let limit = RateLimit(4, rush.PerSecond, rush.Burst)
          let mutable forwards = 0I
          let mutable taken = 0I
          let mutable before = List.tryHead clock |> Option.defaultValue 0L<ms>

          // Before the first call, the bucket is full at any time.
          clock
          |> List.forall (fun now ->
              forwards <- forwards + max 0I (bigint (int64 now) - bigint (int64 before))
              before <- now

              while taken < 10_000I && limit.Take(apart[0], now) do
                  taken <- taken + 1I

              taken <= bigint rush.Burst + forwards * bigint rush.PerSecond / 1000I)

      testPropertyWithConfig config "whatever the clock and the others did, who is refused gets a token after a refill"
      <| fun (Clock clock) (rush: Rush) (keys: uint64 * uint64 * uint64) (size: byte) ->
          let one, two, three = keys
          let limit = RateLimit(int size % 4, rush.PerSecond, rush.Burst)
          let refill = int64 ((1000 + rush.PerSecond - 1) / rush.PerSecond) * 1L<ms>

          clock
          |> List.forall (fun now ->
              [ one; two; three ]
              |> List.forall (fun key ->
                  let mutable count = 0

                  while count <= rush.Burst && limit.Take(key, now) do
                      count <- count + 1

                  count <= rush.Burst && (now > Int64.MaxValue * 1L<ms> - refill || limit.Has(key, now + refill)))) ]

/// Part of 50 000 sources that are refused their first token while `greedy` others have emptied their buckets.
let private refused (perRow: int) (greedy: int) (seed: int) : float =
    let random = System.Random seed
    let limit = RateLimit(perRow, 1, 3)

    let anyKey () =
        uint64 (random.NextInt64(Int64.MinValue, Int64.MaxValue))

    for _ in 1..greedy do
        let key = anyKey ()

        while limit.Take(key, 0L<ms>) do
            ()

    let count = 50_000

    let refused =
        Seq.init count (fun _ -> anyKey ())
        |> Seq.filter (fun key -> not (limit.Has(key, 0L<ms>)))
        |> Seq.length

    float refused / float count

let private bounds =
    [ for perRow, greedy in [ 256, 32; 256, 64; 256, 128; 1024, 512; 16_384, 4_096 ] do
          testCase
              $"of those who ask for the first time, at most (n/m)^4 are refused: {greedy} greedy ones, {perRow} buckets per row"
          <| fun () ->
              let bound = (float greedy / float perRow) ** 4.
              // The bound is for the expected part; of 50 000, some more are in the luck of the draw.
              let slack = 4. * sqrt (bound / 50_000.)

              for seed in 1..4 do
                  Expect.isLessThanOrEqual (refused perRow greedy seed) (bound + slack) $"seed {seed}"

      testCase "the table is as large as it was asked for, at most 4 MiB, and does not grow"
      <| fun () ->
          for asked, size in
              [ Int32.MinValue, 1
                0, 1
                1, 1
                3, 4
                1024, 1024
                1025, 2048
                65_536, 65_536
                Int32.MaxValue, 65_536 ] do
              let before = GC.GetAllocatedBytesForCurrentThread()
              let limit = RateLimit(asked, 10, 30)
              let allocated = GC.GetAllocatedBytesForCurrentThread() - before
              Expect.equal limit.Bytes (int64 size * 64L) $"{asked} buckets per row"
              Expect.isLessThan (allocated - limit.Bytes) 1_000L "nothing else is large"

      testCase "rates and bursts out of range are taken for the nearest that are in range"
      <| fun () ->
          for rate, burst, first in [ -5, -5, 1; 0, 0, 1; Int32.MinValue, 3, 3 ] do
              let limit = RateLimit(1, rate, burst)
              let taken = List.init 10 (fun _ -> limit.Take(7UL, 0L<ms>)) |> List.filter id
              Expect.equal taken.Length first "tokens at once"
              Expect.isFalse (limit.Has(7UL, 999L<ms>)) "before a second"
              Expect.isTrue (limit.Has(7UL, 1_000L<ms>)) "after a second"

          let fastest = RateLimit(1, Int32.MaxValue, Int32.MaxValue)
          let mutable count = 0

          while count <= 1_000_000 && fastest.Take(7UL, 0L<ms>) do
              count <- count + 1

          Expect.equal count 1_000_000 "tokens at once"
          Expect.isTrue (fastest.Take(7UL, 1L<ms>)) "a thousand in a millisecond"

      testCase "parts of the key choose the buckets: 16 bits each"
      <| fun () ->
          for bit in 0..63 do
              let limit = RateLimit(65_536, 1, 1)
              Expect.isTrue (limit.Take(0UL, 0L<ms>)) "first"
              Expect.isTrue (limit.Take(1UL <<< bit, 0L<ms>)) $"bit {bit} makes another source"
              Expect.isFalse (limit.Has(0UL, 0L<ms>)) "the first has had its token"

      testCase "limits cost no allocation"
      <| fun () ->
          let limit = RateLimit(64, 10, 30)

          let round first =
              for i in 1UL .. 1_000UL do
                  let now = milliseconds (first + int i)
                  limit.Take(i * 0x9E3779B97F4A7C15UL, now) |> ignore
                  limit.Has(i, now) |> ignore
                  limit.Refund(i, now)

          round 0
          Expect.equal (allocatedBy (fun () -> round 2_000)) 0L "bytes" ]

let laws = testList "rate limit" (agreement @ refunds @ clocks @ bounds)

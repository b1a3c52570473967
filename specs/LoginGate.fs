/// Slots of password checks and delays after failures, against lists that remember everything.
module Lightway.Specs.LoginGate

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators
open Lightway.Specs.TokenBuckets

/// What happens, ms after what happened before: a login of a user at a source, or the end of the nth check.
type Attempt =
    | Login of source: int * user: int * pause: int64
    | Ended of number: int

type AttemptArbitrary =
    static member Attempt() =
        let pause =
            Gen.frequency
                [ 6, Gen.choose64 (0L, 30L)
                  2, Gen.choose64 (0L, 300L)
                  1, Gen.elements [ 99L; 100L; 101L; Int64.MaxValue / 1_000L ] ]

        Gen.frequency
            [ 4,
              Gen.map3
                  (fun source user pause -> Login(source, user, pause))
                  (Gen.choose (0, 4))
                  (Gen.choose (0, 4))
                  pause
              2, Gen.map Ended (Gen.choose (0, 60)) ]
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        endSize = 150
        arbitrary = [ typeof<AttemptArbitrary>; typeof<ClockArbitrary>; typeof<RushArbitrary> ] }

let private start (slots: LoginSlots) (source: int) (user: int) (now: int64<ms>) =
    let mutable ticket = -1L
    let verdict = slots.TryStart(uint64 source, uint64 user, now, &ticket)
    verdict, ticket

let private later (now: int64<ms>) (pause: int64) : int64<ms> =
    now + min pause (int64 (Int64.MaxValue * 1L<ms> - now)) * 1L<ms>

let private slots =
    [ for capacity in [ 1; 2; 3; 8 ] do
          testPropertyWithConfig
              config
              $"at most one check runs per source and per user, and {capacity} in all, each for a lease at most"
          <| fun (attempts: Attempt list) ->
              let lease = 100L<ms>
              let slots = LoginSlots(capacity, lease)
              let started = List<int64 * int * int * int64<ms>>()
              let running = HashSet<int64>()
              let mutable now = 0L<ms>

              attempts
              |> List.forall (fun attempt ->
                  match attempt with
                  | Login(source, user, pause) ->
                      now <- later now pause

                      let current =
                          [ for ticket, source, user, at in started do
                                if running.Contains ticket && now - at < lease then
                                    source, user ]

                      // Who asks makes the leases end that are over.
                      running.RemoveWhere(fun ticket ->
                          started |> Seq.exists (fun (other, _, _, at) -> other = ticket && now - at >= lease))
                      |> ignore

                      let expected =
                          if current |> List.exists (fst >> (=) source) then
                              LoginVerdict.SourceBusy
                          elif current |> List.exists (snd >> (=) user) then
                              LoginVerdict.UserBusy
                          elif current.Length >= capacity then
                              LoginVerdict.Full
                          else
                              LoginVerdict.Started

                      let verdict, ticket = start slots source user now

                      let isNew =
                          ticket <> 0L && not (started |> Seq.exists (fun (other, _, _, _) -> other = ticket))

                      if verdict = LoginVerdict.Started then
                          started.Add((ticket, source, user, now))
                          running.Add ticket |> ignore

                      verdict = expected
                      && (if verdict = LoginVerdict.Started then
                              isNew
                          else
                              ticket = 0L)
                  | Ended number when number < started.Count ->
                      let ticket, _, _, _ = started[number]
                      slots.End ticket = running.Remove ticket
                  | Ended number -> not (slots.End(int64 number)))

      testPropertyWithConfig config "whatever the clock does, a slot is free again a lease after somebody asked for it"
      <| fun (Clock clock) ->
          let lease = 1_000L<ms>
          let slots = LoginSlots(4, lease)

          clock
          |> List.forall (fun now ->
              start slots 1 1 now |> ignore

              now > Int64.MaxValue * 1L<ms> - lease
              || (let verdict, _ = start slots 1 1 (now + lease)
                  verdict = LoginVerdict.Started))

      testPropertyWithConfig
          config
          "the number of slots may change: those that run go on, and one starts exactly if fewer run than there are"
      <| fun (steps: (int * int) list) ->
          let slots = LoginSlots(2, 1_000_000L<ms>)
          let running = List<int64>()
          let mutable limit = 2
          let mutable next = 0

          steps
          |> List.forall (fun (kind, number) ->
              match abs (kind % 3) with
              | 0 ->
                  limit <- max 1 (abs (number % 6))
                  slots.Resize limit
                  true
              | 1 when running.Count > 0 ->
                  let ticket = running[abs (number % running.Count)]
                  running.Remove ticket |> ignore
                  slots.End ticket
              | _ ->
                  next <- next + 1
                  let verdict, ticket = start slots next next 0L<ms>

                  if verdict = LoginVerdict.Started then
                      running.Add ticket
                      running.Count <= limit
                  else
                      verdict = LoginVerdict.Full && running.Count >= limit)

      testCase "numbers out of range are taken for the nearest that are in range"
      <| fun () ->
          for count, lease in [ Int32.MinValue, Int64.MinValue; 0, 0L; 1, 1L ] do
              let slots = LoginSlots(count, lease * 1L<ms>)
              Expect.equal (start slots 1 1 5L<ms> |> fst) LoginVerdict.Started "one slot"
              Expect.equal (start slots 2 2 5L<ms> |> fst) LoginVerdict.Full "no other"
              Expect.equal (start slots 2 2 6L<ms> |> fst) LoginVerdict.Started "after a millisecond"

          for ticket in [ 0L; -1L; 1L; 4_096L; Int64.MinValue; Int64.MaxValue ] do
              Expect.isFalse (LoginSlots(3, 1L<ms>).End ticket) $"{ticket}"

      testCase "slots cost no allocation"
      <| fun () ->
          let slots = LoginSlots(16, 100L<ms>)

          let round () =
              for i in 1..1_000 do
                  let mutable ticket = 0L

                  slots.TryStart(uint64 (i % 30), uint64 (i % 7), milliseconds i, &ticket) |> ignore

                  slots.End ticket |> ignore

          round ()
          Expect.equal (allocatedBy round) 0L "bytes" ]

let private rule =
    { Free = 2
      First = 100L<ms>
      Limit = 1_500L<ms>
      ForgetAfter = 5_000L<ms> }

/// Delay after the nth failure in a row, spelled out.
let private delays =
    [ 0L; 0L; 0L; 100L; 200L; 400L; 800L; 1_500L ] |> List.map (fun delay -> delay * 1L<ms>)

/// What a key's own failures say: their number since they were last forgotten, and the last one.
type private Failures() =
    let mutable count = 0
    let mutable last = 0L<ms>

    member _.Wait(now: int64<ms>) =
        if count > 0 && now - last >= 5_000L<ms> then
            count <- 0

        max 0L<ms> (delays[min count 7] - (now - last))

    member this.Failed(now: int64<ms>) =
        this.Wait now |> ignore
        count <- count + 1
        last <- now
        delays[min count 7]

/// Keys that share no cell in a table of four per row or more.
let private apart = [ for i in 0UL .. 3UL -> i * 0x0001_0001_0001_0001UL ]

/// Follows failures and questions; `check` compares what the table says with what the key's own failures say.
let private follow (rush: Rush) (delay: FailureDelay) (keys: uint64 list) check =
    let own = [ for _ in keys -> Failures() ]
    let mutable now = 0L<ms>

    rush.Asks
    |> List.indexed
    |> List.forall (fun (i, (who, pause)) ->
        now <- later now pause

        if i % 3 = 0 then
            check (delay.Failed(keys[who], now)) (own[who].Failed now)
        else
            check (delay.Wait(keys[who], now)) (own[who].Wait now))

let private failures =
    [ testPropertyWithConfig
          config
          "each failure above the free ones doubles the delay, up to the limit, until all are forgotten"
      <| fun (rush: Rush) -> follow rush (FailureDelay(4, rule)) apart (=)

      testPropertyWithConfig config "one cell that nobody shares is enough"
      <| fun (rush: Rush) (row: byte) ->
          let row = int row % 4

          let meeting (who: int) =
              Seq.sum [ for i in 0..3 -> if i = row then uint64 who <<< (16 * i) else 0UL ]

          follow rush (FailureDelay(4, rule)) [ for who in 0..3 -> meeting who ] (=)

      testPropertyWithConfig config "however many share its cells, the delay of a key is never shorter than its own"
      <| fun (rush: Rush) (keys: uint64 * uint64 * uint64 * uint64) (size: byte) ->
          let one, two, three, four = keys
          follow rush (FailureDelay(int size % 4, rule)) [ one; two; three; four ] (>=)

      testPropertyWithConfig config "whatever the clock does, nobody waits longer than the limit"
      <| fun (Clock clock) (rule: uint16 * uint16 * uint16 * byte) ->
          let first, limit, forget, free = rule

          let rule =
              { Free = int free % 5
                First = int64 first * 1L<ms>
                Limit = int64 limit * 1L<ms>
                ForgetAfter = int64 forget * 1L<ms> }

          let delay = FailureDelay(4, rule)

          clock
          |> List.forall (fun now ->
              let answer = delay.Failed(7UL, now)
              let wait = delay.Wait(7UL, now)

              answer = wait
              && wait >= 0L<ms>
              && wait <= rule.Limit
              && (now > Int64.MaxValue * 1L<ms> - wait || delay.Wait(7UL, now + wait) = 0L<ms>))

      testPropertyWithConfig config "whatever the clock does, after the time to forget a failure is the first one again"
      <| fun (Clock clock) ->
          let delay = FailureDelay(4, { rule with Free = 0 })

          clock
          |> List.forall (fun now ->
              for _ in 1..5 do
                  delay.Failed(7UL, now) |> ignore

              now > Int64.MaxValue * 1L<ms> - rule.ForgetAfter
              || delay.Failed(7UL, now + rule.ForgetAfter) = rule.First)

      testCase "failures of longer ago than a time can express are forgotten"
      <| fun () ->
          let delay = FailureDelay(4, { rule with Free = 0 })

          for _ in 1..5 do
              delay.Failed(7UL, Time.Always + 1L<ms>) |> ignore

          Expect.equal (delay.Wait(7UL, Time.Never)) 0L<ms> "no wait"
          Expect.equal (delay.Failed(7UL, Time.Never)) rule.First "the first again"

      testCase "questions change nothing: a key is forgotten a time after its last failure, however often it asks"
      <| fun () ->
          let delay = FailureDelay(4, { rule with Free = 0 })
          delay.Failed(7UL, 0L<ms>) |> ignore

          for now in 1..4_999 do
              let expected = max 0 (100 - now)
              Expect.equal (delay.Wait(7UL, milliseconds now)) (milliseconds expected) $"{now} ms"

          Expect.equal (delay.Failed(7UL, 5_000L<ms>)) 100L<ms> "the first again"

      testCase
          "rules out of range are taken for the nearest that are in range, and failures without end do not overflow"
      <| fun () ->
          let wild =
              [ { Free = Int32.MinValue
                  First = Int64.MinValue * 1L<ms>
                  Limit = Int64.MinValue * 1L<ms>
                  ForgetAfter = Int64.MinValue * 1L<ms> }
                { Free = -1
                  First = Int64.MaxValue * 1L<ms>
                  Limit = Int64.MaxValue * 1L<ms>
                  ForgetAfter = Int64.MaxValue * 1L<ms> }
                { Free = Int32.MaxValue
                  First = 1L<ms>
                  Limit = 86_400_000L<ms>
                  ForgetAfter = 0L<ms> }
                { Free = 0
                  First = 86_399_999L<ms>
                  Limit = 86_400_000L<ms>
                  ForgetAfter = 0L<ms> } ]

          for rule in wild do
              let delay = FailureDelay(Int32.MinValue, rule)

              let found = [ for _ in 1..1_100 -> delay.Failed(7UL, 0L<ms>) ]
              Expect.isTrue (found |> List.pairwise |> List.forall (fun (one, next) -> next >= one)) "never shorter"
              Expect.isTrue (found |> List.forall (fun delay -> delay >= 0L<ms> && delay <= 86_400_000L<ms>)) "a day"

              if rule.Limit > 0L<ms> then
                  Expect.equal (List.last found) 86_400_000L<ms> "the limit is reached"

      testCase "of those who never failed, at most (n/m)^4 are delayed: 128 failing keys, 256 cells per row"
      <| fun () ->
          let random = System.Random 5
          let delay = FailureDelay(256, { rule with Free = 0 })

          let anyKey () =
              uint64 (random.NextInt64(Int64.MinValue, Int64.MaxValue))

          for _ in 1..128 do
              let key = anyKey ()

              for _ in 1..8 do
                  delay.Failed(key, 0L<ms>) |> ignore

          let count = 50_000

          let delayed =
              Seq.init count (fun _ -> delay.Wait(anyKey (), 0L<ms>))
              |> Seq.filter (fun wait -> wait > 0L<ms>)
              |> Seq.length

          Expect.isLessThanOrEqual (float delayed / float count) (0.5 ** 4.) "part"

      testCase "the table is as large as it was asked for, at most 4 MiB, and does not grow"
      <| fun () ->
          for asked, size in [ Int32.MinValue, 1; 3, 4; 1024, 1024; Int32.MaxValue, 65_536 ] do
              let before = GC.GetAllocatedBytesForCurrentThread()
              let delay = FailureDelay(asked, rule)
              let allocated = GC.GetAllocatedBytesForCurrentThread() - before
              Expect.equal delay.Bytes (int64 size * 64L) $"{asked} cells per row"
              Expect.isLessThan (allocated - delay.Bytes) 1_000L "nothing else is large"

      testCase "delays cost no allocation"
      <| fun () ->
          let delay = FailureDelay(16, rule)

          let round () =
              for i in 1UL .. 1_000UL do
                  delay.Failed(i * 0x9E3779B97F4A7C15UL, milliseconds (int i)) |> ignore
                  delay.Wait(i, milliseconds (int i)) |> ignore

          round ()
          Expect.equal (allocatedBy round) 0L "bytes" ]

let laws = testList "login gate" (slots @ failures)

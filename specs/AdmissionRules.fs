/// What a stranger may cost, all parts together: who is served, who is not, and for how long.
module Lightway.Specs.AdmissionRules

open System
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

let private seed =
    { First = 0x0123456789ABCDEFUL
      Second = 0xFEDCBA9876543210UL }

let private limits =
    { AdmissionLimits.Standard with
        Buckets = 1_024
        NarrowPerSecond = 10
        NarrowBurst = 5
        WidePerSecond = 20
        WideBurst = 12
        UserFailures =
            { Free = 0
              First = 100L<ms>
              Limit = 800L<ms>
              ForgetAfter = 5_000L<ms> }
        SourceFailures =
            { Free = 3
              First = 200L<ms>
              Limit = 1_600L<ms>
              ForgetAfter = 5_000L<ms> } }

let private admission () = Admission(limits, seed)

/// How many of `count` datagrams are let through at one time.
let private passed (admission: Admission) (source: SourceKey) (count: int) (now: int64<ms>) =
    Seq.init count (fun _ -> admission.TryDatagram(source, now)) |> Seq.filter id |> Seq.length

let private login (admission: Admission) (source: SourceKey) (user: uint64) (now: int64<ms>) =
    let mutable ticket = -1L
    let verdict = admission.TryLogin(source, user, now, &ticket)
    verdict, ticket

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<SeedArbitrary> ] }

let private datagrams =
    [ testCase "a host has its burst, its network has a larger one, and what is refused costs nothing"
      <| fun () ->
          let admission = admission ()
          let host (last: uint32) = admission.SourceOf(0x0A000000u + last)
          Expect.equal (passed admission (host 1u) 100 0L<ms>) 5 "the first"
          Expect.equal (passed admission (host 2u) 100 0L<ms>) 5 "the second"
          Expect.equal (passed admission (host 3u) 100 0L<ms>) 2 "the third: 12 in all"
          Expect.equal (passed admission (host 4u) 100 0L<ms>) 0 "the fourth"
          // 100 ms later: one token for each host, two for the network.
          Expect.equal (passed admission (host 4u) 100 100L<ms>) 2 "the fourth has all that the network got"
          Expect.equal (passed admission (host 1u) 100 100L<ms>) 0 "the first has one, its network none"
          Expect.equal (passed admission (host 1u) 100 150L<ms>) 1 "and has it still"
          Expect.equal (passed admission (admission.SourceOf 0x0A000101u) 100 0L<ms>) 5 "a neighbour network"

      testCase "a host does not wear out its network with what it is refused"
      <| fun () ->
          let admission = admission ()
          Expect.equal (passed admission (admission.SourceOf 0x0A000001u) 10_000 0L<ms>) 5 "the host"
          Expect.equal (passed admission (admission.SourceOf 0x0A000002u) 10 0L<ms>) 5 "its neighbour"

      testPropertyWithConfig config "a source is served within its budget whatever others outside its network do"
      <| fun (Seed random) ->
          let random = System.Random random
          let admission = admission ()
          let honest = admission.SourceOf 0x01020304u
          let mutable now = 0L<ms>

          // 30 attackers at a time, of 1 024 buckets per row: all four of the honest buckets are met once in a million.
          let attackers =
              [| for _ in 1..30 -> admission.SourceOf(0x0A000000u + uint32 (random.Next 0x1000000)) |]

          Seq.init 200 id
          |> Seq.forall (fun _ ->
              for _ in 1..60 do
                  admission.TryDatagram(attackers[random.Next attackers.Length], now) |> ignore

              now <- now + 100L<ms> // ten per second
              admission.TryDatagram(honest, now))

      testCase "tokens that are given back are there again, for host and network, and no more of them"
      <| fun () ->
          let admission = admission ()
          let source = admission.SourceOf(0x2001_0DB8_0000_0001UL, 7UL)
          Expect.equal (passed admission source 100 0L<ms>) 5 "burst"
          admission.Refund(source, 0L<ms>)
          Expect.equal (passed admission source 100 0L<ms>) 1 "one again"

          for _ in 1..100 do
              admission.Refund(source, 0L<ms>)

          Expect.equal (passed admission source 100 0L<ms>) 5 "the burst again"
          let other = admission.SourceOf(0x2001_0DB8_0000_0002UL, 7UL)
          let third = admission.SourceOf(0x2001_0DB8_0000_0003UL, 7UL)
          Expect.equal (passed admission other 100 0L<ms>) 5 "another host of the network"
          Expect.equal (passed admission third 100 0L<ms>) 2 "and what is left of the network's 12"

      testPropertyWithConfig config "whatever the clock does, a refused host is served again within a second"
      <| fun (times: int64 list) ->
          let admission = admission ()
          let source = admission.SourceOf 0x0A000001u

          times
          |> List.forall (fun time ->
              let now = time * 1L<ms>
              passed admission source 20 now |> ignore
              now > Int64.MaxValue * 1L<ms> - 1_000L<ms> || admission.TryDatagram(source, now + 1_000L<ms>)) ]

let private logins =
    [ testCase "one check at a time for a source and for a user"
      <| fun () ->
          let admission = admission ()
          let one, other = admission.SourceOf 1u, admission.SourceOf 2u

          let alice, bob =
              admission.UserOf(ReadOnlySpan "alice"B), admission.UserOf(ReadOnlySpan "bob"B)

          let verdict, ticket = login admission one alice 0L<ms>
          Expect.equal verdict LoginVerdict.Started "alice"
          Expect.equal (login admission one bob 0L<ms>) (LoginVerdict.SourceBusy, 0L) "bob at the same source"
          Expect.equal (login admission other alice 0L<ms>) (LoginVerdict.UserBusy, 0L) "alice elsewhere"
          Expect.equal (login admission other bob 0L<ms> |> fst) LoginVerdict.Started "bob elsewhere"
          Expect.isTrue (admission.LoginEnded ticket) "the end"
          Expect.isFalse (admission.LoginEnded ticket) "not twice"
          let carol = admission.UserOf(ReadOnlySpan "carol"B)
          Expect.equal (login admission one carol 0L<ms> |> fst) LoginVerdict.Started "the source is free"

      testCase "failures delay the user at that source: from the first one on, doubling"
      <| fun () ->
          let admission = admission ()
          let source, user = admission.SourceOf 1u, 77UL
          Expect.equal (admission.LoginFailed(source, user, 0L<ms>)) 100L<ms> "first"
          Expect.equal (login admission source user 99L<ms>) (LoginVerdict.TooEarly, 0L) "too early"
          Expect.equal (admission.LoginWait(source, user, 99L<ms>)) 1L<ms> "a millisecond more"
          Expect.equal (login admission source user 100L<ms> |> fst) LoginVerdict.Started "in time"
          Expect.equal (admission.LoginFailed(source, user, 100L<ms>)) 200L<ms> "second"
          Expect.equal (admission.LoginFailed(source, user, 100L<ms>)) 400L<ms> "third"

      testCase "failures of others at a user's account do not delay the user"
      <| fun () ->
          let admission = admission ()
          let user = 77UL

          for attacker in 1u .. 200u do
              for _ in 1..10 do
                  admission.LoginFailed(admission.SourceOf(attacker <<< 8), user, 0L<ms>) |> ignore

          Expect.equal (login admission (admission.SourceOf 0x7F000001u) user 0L<ms> |> fst) LoginVerdict.Started "user"

      testCase "one source that tries many users is delayed, its neighbours by number are not"
      <| fun () ->
          let admission = admission ()
          let source = admission.SourceOf 1u

          let delays =
              [ for user in 1UL .. 8UL -> admission.LoginFailed(source, user, 0L<ms>) ]

          Expect.equal
              delays
              [ 100L<ms>; 100L<ms>; 100L<ms>; 200L<ms>; 400L<ms>; 800L<ms>; 1_600L<ms>; 1_600L<ms> ]
              "delays"

          Expect.equal (login admission source 99UL 0L<ms>) (LoginVerdict.TooEarly, 0L) "a new user"
          Expect.equal (login admission (admission.SourceOf 2u) 99UL 0L<ms> |> fst) LoginVerdict.Started "a neighbour"
          Expect.equal (admission.LoginWait(source, 99UL, 5_000L<ms>)) 0L<ms> "forgotten"

      testCase "a neighbour behind the same address is not delayed by a few failures of somebody else"
      <| fun () ->
          let admission = admission ()
          let source = admission.SourceOf 1u

          for _ in 1..3 do
              admission.LoginFailed(source, 1UL, 0L<ms>) |> ignore

          Expect.equal (admission.LoginWait(source, 1UL, 0L<ms>)) 400L<ms> "who failed"
          Expect.equal (admission.LoginWait(source, 2UL, 0L<ms>)) 0L<ms> "the neighbour" ]

let private whole =
    [ testCase "memory is fixed: standard limits take less than 6 MiB, and use allocates nothing"
      <| fun () ->
          let before = GC.GetAllocatedBytesForCurrentThread()
          let admission = Admission(AdmissionLimits.Standard, seed)
          Expect.isLessThan (GC.GetAllocatedBytesForCurrentThread() - before) 6_291_456L "bytes at the start"

          let round first =
              for i in 1..2_000 do
                  let now = milliseconds (first + i)
                  let source = admission.SourceOf(uint32 (i * 7_919))
                  let mutable ticket = 0L

                  if admission.TryDatagram(source, now) then
                      let entry = admission.HalfOpen.Enter source
                      admission.TryLogin(source, uint64 i, now, &ticket) |> ignore
                      admission.LoginFailed(source, uint64 i, now) |> ignore
                      admission.LoginEnded ticket |> ignore

                      if i % 2 = 0 then
                          admission.Refund(source, now)
                          admission.HalfOpen.Leave entry.Ticket |> ignore

          round 0
          Expect.equal (allocatedBy (fun () -> round 5_000)) 0L "bytes"

      testCase "the limits reach the parts that they are for"
      <| fun () ->
          let admission =
              Admission(
                  { limits with
                      HalfOpen = 3
                      HalfOpenPerNarrow = 1
                      HalfOpenPerWide = 2
                      Logins = 2
                      LoginLease = 70L<ms> },
                  seed
              )

          let enter address =
              (admission.HalfOpen.Enter(admission.SourceOf(address: uint32))).GaveWay <> 0L

          Expect.equal (enter 0x0A000001u, enter 0x0A000001u) (false, true) "one per host"
          Expect.equal (enter 0x0A000002u, enter 0x0A000003u) (false, true) "two per network"
          Expect.equal (enter 0x0B000001u, enter 0x0C000001u) (false, true) "three in all"
          Expect.equal (login admission (admission.SourceOf 1u) 1UL 0L<ms> |> fst) LoginVerdict.Started "first"
          Expect.equal (login admission (admission.SourceOf 2u) 2UL 0L<ms> |> fst) LoginVerdict.Started "second"
          Expect.equal (login admission (admission.SourceOf 3u) 3UL 69L<ms>) (LoginVerdict.Full, 0L) "third"

          Expect.equal
              (login admission (admission.SourceOf 3u) 3UL 70L<ms> |> fst)
              LoginVerdict.Started
              "after the lease" ]

let laws = testList "admission" (datagrams @ logins @ whole)

/// Which logins are looked at: slots and delays together.
module Lightway.Specs.LoginGateRules

open System
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

let private seed =
    { First = 0x0123456789ABCDEFUL
      Second = 0xFEDCBA9876543210UL }

let private sourceOf (address: uint32) = SourceKey.ofIpv4 (seed, address)

let private limits =
    { LoginLimits.Standard 16 with
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

let private gate () = LoginGate(limits, seed)

let private login (gate: LoginGate) (source: SourceKey) (user: uint64) (now: int64<ms>) =
    let mutable ticket = -1L
    let verdict = gate.TryStart(source, user, now, &ticket)
    verdict, ticket

let laws =
    testList "login gate rules"
    <| [ testCase "one check at a time for a source and for a user"
         <| fun () ->
             let gate = gate ()
             let one, other = sourceOf 1u, sourceOf 2u

             let alice, bob =
                 gate.UserOf(ReadOnlySpan "alice"B), gate.UserOf(ReadOnlySpan "bob"B)

             let verdict, ticket = login gate one alice 0L<ms>
             Expect.equal verdict LoginVerdict.Started "alice"
             Expect.equal (login gate one bob 0L<ms>) (LoginVerdict.SourceBusy, 0L) "bob at the same source"
             Expect.equal (login gate other alice 0L<ms>) (LoginVerdict.UserBusy, 0L) "alice elsewhere"
             Expect.equal (login gate other bob 0L<ms> |> fst) LoginVerdict.Started "bob elsewhere"
             Expect.isTrue (gate.Ended ticket) "the end"
             Expect.isFalse (gate.Ended ticket) "not twice"
             let carol = gate.UserOf(ReadOnlySpan "carol"B)
             Expect.equal (login gate one carol 0L<ms> |> fst) LoginVerdict.Started "the source is free"

         testCase "failures delay the user at that source: from the first one on, doubling"
         <| fun () ->
             let gate = gate ()
             let source, user = sourceOf 1u, 77UL
             Expect.equal (gate.Failed(source, user, 0L<ms>)) 100L<ms> "first"
             Expect.equal (login gate source user 99L<ms>) (LoginVerdict.TooEarly, 0L) "too early"
             Expect.equal (gate.Wait(source, user, 99L<ms>)) 1L<ms> "a millisecond more"
             Expect.equal (login gate source user 100L<ms> |> fst) LoginVerdict.Started "in time"
             Expect.equal (gate.Failed(source, user, 100L<ms>)) 200L<ms> "second"
             Expect.equal (gate.Failed(source, user, 100L<ms>)) 400L<ms> "third"

         testCase "failures of others at a user's account do not delay the user"
         <| fun () ->
             let gate = gate ()
             let user = 77UL

             for attacker in 1u .. 200u do
                 for _ in 1..10 do
                     gate.Failed(sourceOf (attacker <<< 8), user, 0L<ms>) |> ignore

             Expect.equal (login gate (sourceOf 0x7F000001u) user 0L<ms> |> fst) LoginVerdict.Started "user"

         testCase "one source that tries many users is delayed, its neighbours by number are not"
         <| fun () ->
             let gate = gate ()
             let source = sourceOf 1u

             let delays = [ for user in 1UL .. 8UL -> gate.Failed(source, user, 0L<ms>) ]

             Expect.equal
                 delays
                 [ 100L<ms>; 100L<ms>; 100L<ms>; 200L<ms>; 400L<ms>; 800L<ms>; 1_600L<ms>; 1_600L<ms> ]
                 "delays"

             Expect.equal (login gate source 99UL 0L<ms>) (LoginVerdict.TooEarly, 0L) "a new user"
             Expect.equal (login gate (sourceOf 2u) 99UL 0L<ms> |> fst) LoginVerdict.Started "a neighbour"
             Expect.equal (gate.Wait(source, 99UL, 5_000L<ms>)) 0L<ms> "forgotten"

         testCase "a neighbour behind the same address is not delayed by a few failures of somebody else"
         <| fun () ->
             let gate = gate ()
             let source = sourceOf 1u

             for _ in 1..3 do
                 gate.Failed(source, 1UL, 0L<ms>) |> ignore

             Expect.equal (gate.Wait(source, 1UL, 0L<ms>)) 400L<ms> "who failed"
             Expect.equal (gate.Wait(source, 2UL, 0L<ms>)) 0L<ms> "the neighbour"

         testCase "no more checks than there are slots, and one that is lost gives its own up"
         <| fun () ->
             let gate =
                 LoginGate(
                     { limits with
                         Checks = 2
                         Lease = 70L<ms> },
                     seed
                 )

             Expect.equal (login gate (sourceOf 1u) 1UL 0L<ms> |> fst) LoginVerdict.Started "first"
             Expect.equal (login gate (sourceOf 2u) 2UL 0L<ms> |> fst) LoginVerdict.Started "second"
             Expect.equal (login gate (sourceOf 3u) 3UL 69L<ms>) (LoginVerdict.Full, 0L) "third"
             Expect.equal (login gate (sourceOf 3u) 3UL 70L<ms> |> fst) LoginVerdict.Started "after the lease"

         testCase "memory is fixed: less than 4 MiB, and use allocates nothing"
         <| fun () ->
             let before = GC.GetAllocatedBytesForCurrentThread()
             let gate = LoginGate(LoginLimits.Standard 16, seed)
             Expect.isLessThan (GC.GetAllocatedBytesForCurrentThread() - before) 4_194_304L "bytes at the start"

             let round first =
                 for i in 1..2_000 do
                     let now = milliseconds (first + i)
                     let source = sourceOf (uint32 (i * 7_919))
                     let mutable ticket = 0L
                     gate.TryStart(source, uint64 i, now, &ticket) |> ignore
                     gate.Failed(source, uint64 i, now) |> ignore
                     gate.Ended ticket |> ignore

             round 0
             Expect.equal (allocatedBy (fun () -> round 5_000)) 0L "bytes" ]

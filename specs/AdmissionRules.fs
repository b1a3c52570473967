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
    { AdmissionLimits.Of(10, 4_096, 1) with
        Buckets = 1_024
        NarrowPerSecond = 10
        NarrowBurst = 5
        WidePerSecond = 20
        WideBurst = 12 }

let private admission () = Admission(limits, seed)

/// How many of `count` datagrams are let through at one time.
let private passed (admission: Admission) (source: SourceKey) (count: int) (now: int64<ms>) =
    Seq.init count (fun _ -> admission.TryDatagram(source, now)) |> Seq.filter id |> Seq.length

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

      testCase "a host gets its own rate, though its network gets more"
      <| fun () ->
          let admission = admission ()
          let host = admission.SourceOf 0x0A000001u
          Expect.equal (passed admission host 100 0L<ms>) 5 "burst"
          Expect.equal (passed admission host 100 200L<ms>) 2 "ten per second"

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
              now > Int64.MaxValue * 1L<ms> - 1_000L<ms> || admission.TryDatagram(source, now + 1_000L<ms>))

      testCase "all strangers together have a limit, and what it refuses costs no source anything"
      <| fun () ->
          let admission =
              Admission(
                  { limits with
                      PerSecond = 100
                      Burst = 40 },
                  seed
              )

          let network (number: uint32) = admission.SourceOf(number <<< 8)

          let first =
              Seq.sum [ for number in 1u .. 20u -> passed admission (network number) 5 0L<ms> ]

          Expect.equal first 40 "all together"
          Expect.equal (passed admission (network 99u) 100 0L<ms>) 0 "nothing is left"
          // 100 ms bring ten tokens for all, and one for each source: what was refused was not paid for.
          Expect.equal (passed admission (network 99u) 100 100L<ms>) 5 "the whole burst of a source" ]

let private whole =
    [ testCase "memory is fixed: limits of a server take less than 4 MiB, and use allocates nothing"
      <| fun () ->
          let before = GC.GetAllocatedBytesForCurrentThread()
          let admission = Admission(AdmissionLimits.Of(10, 4_096, 1), seed)
          Expect.isLessThan (GC.GetAllocatedBytesForCurrentThread() - before) 4_194_304L "bytes at the start"

          let round first =
              for i in 1..2_000 do
                  let now = milliseconds (first + i)
                  let source = admission.SourceOf(uint32 (i * 7_919))

                  if admission.TryDatagram(source, now) then
                      let entry = admission.HalfOpen.Enter source

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
                      HalfOpenPerWide = 2 },
                  seed
              )

          let enter address =
              (admission.HalfOpen.Enter(admission.SourceOf(address: uint32))).GaveWay <> 0L

          Expect.equal (enter 0x0A000001u, enter 0x0A000001u) (false, true) "one per host"
          Expect.equal (enter 0x0A000002u, enter 0x0A000003u) (false, true) "two per network"
          Expect.equal (enter 0x0B000001u, enter 0x0C000001u) (false, true) "three in all"

      testCase
          "an option's handshakes are eight datagrams each, a network has ten times as many, and workers share all limits"
      <| fun () ->
          let limits = AdmissionLimits.Of(10, 4_096, 4)
          Expect.equal (limits.NarrowPerSecond, limits.NarrowBurst) (20, 60) "host"
          Expect.equal (limits.WidePerSecond, limits.WideBurst) (200, 600) "network"
          Expect.equal (limits.HalfOpen, limits.HalfOpenPerNarrow, limits.HalfOpenPerWide) (1_024, 64, 256) "places"
          Expect.equal (AdmissionLimits.Of(0, 1, 64)).NarrowPerSecond 1_000_000 "no limit"
          Expect.equal (AdmissionLimits.Of(1, 1, 64)).HalfOpen 16 "never fewer places than this"
          Expect.equal (AdmissionLimits.Of(1, 1, 64)).NarrowPerSecond 8 "nor less than a handshake per second"
          Expect.equal (AdmissionLimits.Of(10, 4_096, 1)).NarrowPerSecond 80 "one worker has all" ]

let private patience =
    [ testCase "a handshake and its login have a minute, a client that does not ask has ten seconds"
      <| fun () ->
          let isOver linkUpAt hasAsked now =
              LoginPatience.isOver (1_000L<ms>, linkUpAt, hasAsked, now)

          Expect.isFalse (isOver Time.Never false 61_000L<ms>) "handshake, a minute"
          Expect.isTrue (isOver Time.Never false 61_001L<ms>) "handshake, later"
          Expect.isFalse (isOver 2_000L<ms> false 12_000L<ms>) "silent, ten seconds"
          Expect.isTrue (isOver 2_000L<ms> false 12_001L<ms>) "silent, later"
          Expect.isFalse (isOver 2_000L<ms> true 61_000L<ms>) "asked, a minute"
          Expect.isTrue (isOver 2_000L<ms> true 61_001L<ms>) "asked, later" ]

let laws = testList "admission" (datagrams @ whole @ patience)

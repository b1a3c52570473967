module Lightway.Tests.SendBatchTests

open System
open System.Collections.Generic
open System.Net
open Expecto
open Lightway.Lab
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Udp

let private path (text: string) =
    OutsideAddress(PeerAddress(IPEndPoint.Parse text), LocalAddress())

let private alice = path "192.0.2.1:1000"
let private bob = path "192.0.2.2:1000"

let private batchOf (wire: Wire) (maxSegments: int) =
    let counters = Counters()
    new SendBatch(wire, counters, maxSegments, 0), counters

/// Appends a datagram that is all `fill`; false if the socket was full.
let private appendMarked (tos: byte) (batch: SendBatch) (path: OutsideAddress) (fill: byte) (length: int) =
    let mutable slot = Span<byte>.Empty

    if batch.TryReserve(&path, length, tos, &slot) then
        slot.Fill fill
        batch.Commit length
        true
    else
        false

let private append = appendMarked 0uy

let private appendAll batch path datagrams =
    for fill, length in datagrams do
        Expect.isTrue (append batch path (byte fill) length) "the socket is not full"

let private arrived (wire: Wire) =
    [ for datagram in wire.Datagrams -> int datagram[0], datagram.Length ]

let private EAGAIN, EIO, EINVAL, EMSGSIZE, ECONNREFUSED = 11, 5, 22, 90, 111

let tests =
    testList
        "SendBatch"
        [ test "equal datagrams and a shorter last one leave in one send" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              let datagrams = [ 1, 1000; 2, 1000; 3, 1000; 4, 10 ]
              appendAll batch alice datagrams
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal wire.Calls 1 "one system call"
              Expect.equal (List.ofSeq wire.SegmentSizes) [ 1000 ] "the stride"
              Expect.equal (arrived wire) datagrams "all bytes, in order"
          }

          test "a single datagram goes without UDP_SEGMENT" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              appendAll batch alice [ 1, 1000 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (List.ofSeq wire.SegmentSizes) [ 0 ] "no control message"
          }

          test "what follows a shorter datagram, a longer one, or another peer's starts a new batch; order is kept" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              appendAll batch alice [ 1, 500; 2, 500; 3, 100; 4, 500; 5, 501 ]
              appendAll batch bob [ 6, 501 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (List.ofSeq wire.SegmentSizes) [ 500; 0; 0; 0 ] "four runs"
              Expect.equal wire.Calls 1 "one system call"
              Expect.equal (List.map fst (arrived wire)) [ 1..6 ] "in order"
          }

          test "datagrams with different TOS bytes share no run; each send has the byte of its run, also one by one" {
              for refusals in [ []; [ EMSGSIZE ] ] do // then the first run leaves one by one
                  let wire = Wire()
                  let batch, _ = batchOf wire 64
                  use batch = batch
                  List.iter wire.Errors.Enqueue refusals

                  for fill, tos in [ 1, 2; 2, 2; 3, 0; 4, 3; 5, 3 ] do
                      Expect.isTrue (appendMarked (byte tos) batch alice (byte fill) 500) "the socket is not full"

                  Expect.isTrue (batch.Flush()) "sent"
                  let first = if refusals.IsEmpty then [ 2uy ] else [ 2uy; 2uy ]
                  Expect.equal (List.ofSeq wire.Tos) (first @ [ 0uy; 3uy ]) "TOS bytes"
                  Expect.equal (List.map fst (arrived wire)) [ 1..5 ] "in order"
          }

          test "peers whose datagrams alternate have one run each, and all runs leave in one system call" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch

              for i in 1..20 do
                  appendAll batch alice [ i, 300 ]
                  appendAll batch bob [ 100 + i, 400 ]

              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal wire.Calls 1 "one system call"
              Expect.equal (List.ofSeq wire.SegmentSizes) [ 300; 400 ] "one run each"

              let ofAlice, ofBob =
                  arrived wire |> List.map fst |> List.partition (fun fill -> fill < 100)

              Expect.equal (ofAlice, ofBob) ([ 1..20 ], [ 101..120 ]) "each peer's in order"
              Expect.equal counters[Counter.UdpGsoSends] 2L "two runs"
              Expect.equal counters[Counter.UdpGsoSegments] 40L "of twenty"
          }

          test "a peer's order is kept though an older run of its has room" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              appendAll batch alice [ 1, 300; 2, 900 ]
              appendAll batch bob [ 3, 300 ]
              appendAll batch alice [ 4, 300; 5, 200 ]
              Expect.isTrue (batch.Flush()) "sent"
              let ofAlice = arrived wire |> List.map fst |> List.filter ((<>) 3)
              Expect.equal ofAlice [ 1; 2; 4; 5 ] "in order"
          }

          test "datagrams that are reserved together leave as those that are reserved one by one" {
              for seed in 1..300 do
                  let random = Random seed
                  let maxSegments = [| 1; 3; 64 |][random.Next 3]
                  let maxBurst = [| 0; 320 |][random.Next 2] // 320 us at the least rate: 4000 bytes

                  let orders =
                      [ for fill in 1 .. random.Next(1, 30) ->
                            [| alice; bob |][random.Next 2],
                            byte fill,
                            [| 100; 700; 1400 |][random.Next 3],
                            random.Next(1, 90),
                            byte (random.Next 8 / 7) ]

                  let refusals =
                      [ for _ in 1 .. random.Next 4 -> [| EINVAL; EMSGSIZE; EIO |][random.Next 3] ]

                  let sentBy (together: bool) =
                      let wire = Wire()
                      let counters = Counters()
                      use batch = new SendBatch(wire, counters, maxSegments, maxBurst)
                      batch.Measure 1_000L
                      List.iter wire.Errors.Enqueue refusals

                      for path, fill, length, count, tos in orders do
                          let mutable path = path
                          let mutable left = count

                          while left > 0 do
                              let mutable slots = Span<byte>.Empty
                              let wanted = if together then left else 1
                              Expect.isTrue (batch.TryReserve(&path, length, wanted, tos, &slots)) "room"
                              let given = slots.Length / length
                              Expect.isTrue (given >= 1 && given <= wanted && slots.Length % length = 0) "slots"
                              slots.Fill fill
                              let used = if together then random.Next(1, given + 1) else 1
                              batch.Commit(length, used)
                              left <- left - used

                      Expect.isTrue (batch.Flush()) "sent"

                      [ for datagram in wire.Datagrams -> datagram[0], datagram.Length ],
                      List.ofSeq wire.SegmentSizes,
                      wire.Calls,
                      counters[Counter.UdpGsoSegments]

                  Expect.equal (sentBy true) (sentBy false) $"seed {seed}"
          }

          test
              "a run is as long as the batch sends in the time it may take: what all peers are sent counts, not what one is" {
              let wire = Wire()
              use batch = new SendBatch(wire, Counters(), 64, 1_000)

              let runsOf (path: OutsideAddress) (count: int) =
                  let before = wire.SegmentSizes.Count
                  appendAll batch path [ for i in 1..count -> i, 1_250 ]
                  Expect.isTrue (batch.Flush()) "sent"
                  wire.SegmentSizes.Count - before

              batch.Measure 1_000L
              Expect.equal (runsOf alice 50) 5 "100 Mbit/s are assumed of a new one: ten datagrams in a millisecond"

              for i in 1..20 do
                  runsOf (path $"192.0.2.{10 + i}:1000") 50 |> ignore

              batch.Measure 1_021L
              Expect.equal (runsOf bob 50) 1 "1.3 MB within 21 ms, to others: 62 bytes per us"
              batch.Measure 4_000L
              Expect.equal (runsOf bob 50) 5 "no longer, after seconds of silence"
          }

          test "more peers than runs in a call cost more calls, nothing else" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              let peers = [ for i in 1..40 -> i, path $"192.0.2.{i}:1000" ]

              for i, peer in peers do
                  appendAll batch peer [ i, 100 ]

              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal wire.Calls 3 "16, 16 and 8"
              Expect.equal (arrived wire) [ for i in 1..40 -> i, 100 ] "nothing lost, order kept"
          }

          for errno in [ EAGAIN; EIO; EMSGSIZE; ECONNREFUSED ] do
              test $"errno {errno} at the second of three runs touches no datagram of the others" {
                  let wire = Wire()
                  let batch, counters = batchOf wire 64
                  use batch = batch

                  for i in 1..3 do
                      appendAll batch alice [ i, 300 ]
                      appendAll batch bob [ 10 + i, 400 ]
                      appendAll batch (path "192.0.2.3:1000") [ 20 + i, 500 ]

                  for errno in [ 0; errno ] do
                      wire.Errors.Enqueue errno

                  if errno = EAGAIN then
                      Expect.isFalse (batch.Flush()) "full"
                      Expect.equal (List.map fst (arrived wire)) [ 1..3 ] "the first run has left"

                  Expect.isTrue (batch.Flush()) "sent"
                  let expected = [ 1; 2; 3; 11; 12; 13; 21; 22; 23 ]
                  Expect.equal (List.map fst (arrived wire)) expected "every datagram once"
                  Expect.equal counters[Counter.UdpSendFailed] 0L "no drop"
              }

          test "the kernel takes runs of several peers, of both families, in one call" {
              use sender = UdpSocket.Bind(IPEndPoint.Parse "[::]:0", 0, 0, 0u, false)

              let receivers =
                  [ for address in [ "127.0.0.1:0"; "[::1]:0"; "127.0.0.2:0" ] ->
                        UdpSocket.Bind(IPEndPoint.Parse address, 0, 0, 0u, false) ]

              try
                  let counters = Counters()
                  use batch = new SendBatch(sender, counters, 64, 0)

                  let paths =
                      [ for receiver in receivers do
                            let address = receiver.LocalEndPoint.Address.MapToIPv6()

                            OutsideAddress(
                                PeerAddress(IPEndPoint(address, receiver.LocalEndPoint.Port)),
                                LocalAddress()
                            ) ]

                  for i in 1..30 do
                      paths |> List.iteri (fun peer path -> appendAll batch path [ 40 * peer + i, 200 + peer ])

                  Expect.isTrue (batch.Flush()) "sent"
                  Expect.equal counters[Counter.UdpSends] 1L "one system call"
                  Expect.equal counters[Counter.UdpGsoSends] 3L "three runs"

                  receivers
                  |> List.iteri (fun peer receiver ->
                      use received = new ReceiveBatch(false)
                      let datagrams = List<int * int>()

                      // A busy kernel takes its time, on loopback too.
                      let haveCome () =
                          for i in 0 .. receiver.Receive received - 1 do
                              let bytes = received.Bytes(i).ToArray()
                              datagrams.Add(int bytes[0], bytes.Length)

                          datagrams.Count >= 30

                      Wait.until (TimeSpan.FromSeconds 30.) haveCome |> ignore

                      Expect.equal
                          (List.ofSeq datagrams)
                          [ for i in 1..30 -> 40 * peer + i, 200 + peer ]
                          "whole, in order")
              finally
                  for receiver in receivers do
                      (receiver :> IDisposable).Dispose()
          }

          for count, stride in
              [ 63, 1000; 64, 1000; 65, 1000; 128, 1000; 129, 1000; 50, 1350; 300, 1456; 48, 65507 / 48 ] do
              test $"{count} datagrams of {stride} bytes never exceed 64 segments or 65507 bytes per run" {
                  let wire = Wire()
                  let batch, counters = batchOf wire 64
                  use batch = batch
                  let datagrams = [ for i in 1..count -> i % 251, stride ]
                  appendAll batch alice datagrams
                  Expect.isTrue (batch.Flush()) "sent"
                  Expect.equal (arrived wire) datagrams "nothing lost, order kept"
                  let perRun = min 64 (65507 / stride)
                  let runs = (count + perRun - 1) / perRun
                  Expect.equal wire.SegmentSizes.Count runs "as few runs as the limits allow"
                  Expect.isLessThanOrEqual wire.Calls ((runs + 1) / 2) "several of them per call"
                  Expect.equal counters[Counter.UdpDatagramsSent] (int64 count) "counted"
              }

          test "EAGAIN keeps everything; the next flush sends it" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch
              appendAll batch alice [ 1, 700; 2, 700 ]
              wire.Errors.Enqueue EAGAIN
              Expect.isFalse (batch.Flush()) "full"
              Expect.isTrue batch.IsBlocked "reported"

              Expect.isFalse
                  (wire.Errors.Enqueue EAGAIN
                   append batch bob 3uy 700)
                  "no room is made by dropping"

              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (arrived wire) [ 1, 700; 2, 700 ] "nothing lost, nothing twice"
              Expect.equal counters[Counter.UdpSendBlocked] 2L "counted"
          }

          for errno in [ EIO; 95 ] do
              test
                  $"errno {errno} turns segmentation off and the same datagrams leave one by one, none lost, none twice" {
                  let wire = Wire()
                  let batch, counters = batchOf wire 64
                  use batch = batch
                  let told = List<int>()
                  batch.Refused <- Action<CapabilityRefused>(fun refused -> told.Add refused.Errno)
                  wire.Errors.Enqueue errno
                  appendAll batch alice [ 1, 700; 2, 700; 3, 50 ]
                  Expect.isTrue (batch.Flush()) "sent"
                  appendAll batch alice [ 4, 700; 5, 700 ]
                  Expect.isTrue (batch.Flush()) "sent"
                  Expect.equal (arrived wire) [ 1, 700; 2, 700; 3, 50; 4, 700; 5, 700 ] "every datagram once"
                  Expect.all wire.SegmentSizes ((=) 0) "no UDP_SEGMENT any more"
                  Expect.equal (List.ofSeq told) [ errno ] "said once"
                  Expect.equal counters[Counter.UdpGsoFallbacks] 1L "counted once"
              }

          test "EINVAL turns segmentation off for that peer for a minute, and for the family after several peers" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch
              let told = List<int>()
              batch.Refused <- Action<CapabilityRefused>(fun refused -> told.Add refused.Errno)

              let pass peer =
                  let before = wire.SegmentSizes.Count
                  appendAll batch peer [ 1, 700; 2, 700 ]
                  Expect.isTrue (batch.Flush()) "sent"
                  List.ofSeq (Seq.skip before wire.SegmentSizes)

              wire.Errors.Enqueue EINVAL
              Expect.equal (pass alice) [ 0; 0 ] "one by one"
              Expect.equal (pass alice) [ 0; 0 ] "and so from now on"
              Expect.equal (pass bob) [ 700 ] "another peer keeps it"
              Expect.isEmpty told "nothing is off for the family"

              for _ in 1..60 do
                  batch.Tick()

              Expect.equal (pass alice) [ 700 ] "a minute later"

              for number in 1..5 do
                  wire.Errors.Enqueue EINVAL
                  Expect.equal (pass (path $"192.0.2.{number}:1000")) [ 0; 0 ] "refused"

              Expect.equal (List.ofSeq told) [ EINVAL ] "after the fifth the family is off"
              Expect.equal (pass (path "192.0.2.99:1000")) [ 0; 0 ] "for everybody"
              Expect.equal counters[Counter.UdpGsoPeerFallbacks] 5L "peers"
              Expect.equal counters[Counter.UdpGsoFallbacks] 1L "families"
          }

          test "a full socket in the middle of one-by-one sending resumes at the first unsent datagram" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch

              for errno in [ EIO; 0; EAGAIN ] do
                  wire.Errors.Enqueue errno

              appendAll batch alice [ 1, 700; 2, 700; 3, 700 ]
              Expect.isFalse (batch.Flush()) "full after the first"
              Expect.equal (arrived wire) [ 1, 700 ] "one left"
              Expect.isTrue (batch.Flush()) "the rest"
              Expect.equal (arrived wire) [ 1, 700; 2, 700; 3, 700 ] "every datagram once"
          }

          test
              "EMSGSIZE sends this batch one by one and keeps segmentation on; a datagram that is too big alone is counted" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch

              for errno in [ EMSGSIZE; 0; EMSGSIZE; 0 ] do
                  wire.Errors.Enqueue errno

              appendAll batch alice [ 1, 700; 2, 700; 3, 700 ]
              Expect.isTrue (batch.Flush()) "done"
              Expect.equal (arrived wire) [ 1, 700; 3, 700 ] "all but the one the kernel refused alone"
              Expect.equal counters[Counter.UdpSendTooBig] 1L "counted"
              appendAll batch alice [ 4, 700; 5, 700 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (Seq.last wire.SegmentSizes) 700 "segmentation is still on"
          }

          test "a peer that nothing can be sent to does not turn segmentation off for the others" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch

              // sendmsg(2) to port 0, or from an address that is no longer ours: segmented or not, EINVAL.
              for errno in [ EINVAL; EINVAL; EINVAL ] do
                  wire.Errors.Enqueue errno

              appendAll batch bob [ 1, 700; 2, 700 ]
              Expect.isTrue (batch.Flush()) "done"
              Expect.equal counters[Counter.UdpSendFailed] 2L "both are counted"
              Expect.equal counters[Counter.UdpGsoFallbacks] 0L "segmentation is not to blame"
              appendAll batch alice [ 3, 700; 4, 700 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (List.ofSeq wire.SegmentSizes) [ 700 ] "in one send"
          }

          test "only what the kernel took counts as sent" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch

              for errno in [ EMSGSIZE; 0; EMSGSIZE; 0 ] do
                  wire.Errors.Enqueue errno

              appendAll batch alice [ 1, 700; 2, 700; 3, 10 ]
              Expect.equal counters[Counter.UdpDatagramsSent] 0L "none yet"
              Expect.isTrue (batch.Flush()) "done"
              Expect.equal counters[Counter.UdpDatagramsSent] 2L "datagrams"
              Expect.equal counters[Counter.UdpBytesSent] 710L "bytes"
          }

          test "a batch for an IPv4 peer of a dual-stack socket is no longer than IPv4 allows" {
              let wire = Wire()
              let batch, _ = batchOf wire 64
              use batch = batch
              let mapped = path "[::ffff:192.0.2.1]:1000"
              appendAll batch mapped [ for i in 1..45 -> i, 1456 ] // 65520 bytes
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal wire.SegmentSizes.Count 2 "44 and 1"
          }

          test "ECONNREFUSED reports an earlier datagram: the same bytes are sent again" {
              let wire = Wire()
              let batch, counters = batchOf wire 64
              use batch = batch
              wire.Errors.Enqueue ECONNREFUSED
              appendAll batch alice [ 1, 700; 2, 700 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal (arrived wire) [ 1, 700; 2, 700 ] "nothing lost"
              Expect.equal counters[Counter.UdpSendFailed] 0L "no drop"
          }

          test "with a limit of one segment nothing is batched" {
              let wire = Wire()
              let batch, counters = batchOf wire 1
              use batch = batch
              appendAll batch alice [ for i in 1..10 -> i, 700 ]
              Expect.isTrue (batch.Flush()) "sent"
              Expect.equal wire.Calls 10 "one call each"
              Expect.equal counters[Counter.UdpGsoSends] 0L "no UDP_SEGMENT"
          } ]

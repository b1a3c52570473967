module Lightway.Tests.InsidePathTests

open System
open Expecto
open Lightway.Lab
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Tun
open Lightway.Tests.Checks

let private assigned = Inside.Assigned
let private mtu = 1350
let private mss = 1298 // mtu less 52 bytes of headers

let private payload length =
    Array.init length (fun i -> byte (i * 7 + i / 251))

let private connected expresslane maxSegments =
    let pair = new Pair(expresslane, maxSegments)
    pair.Connect()
    pair

let private pathOf (pair: Pair) (source: ITunReader) =
    pair.Server.Context.InsideMtu <- mtu
    new InsidePath(source, pair.Server.Context, OneRoute pair.Server.Connection)

/// TCP payload of IPv4 packets with 20 + 32 bytes of headers.
let private payloads (packets: seq<byte[]>) =
    packets |> Seq.map (fun packet -> packet[52..]) |> Array.concat

let private drain (pair: Pair) (frame: byte[]) times =
    let source = RepeatedFrame(frame, 52, Left = times)
    use path = pathOf pair source
    Expect.isTrue (path.Drain pair.Server.Now) "the socket is not full"

/// An 8-byte sum, byte by byte: shares nothing with the segmenter's.
let private verifies (bytes: byte[]) =
    let mutable sum = 0

    for i in 0 .. bytes.Length - 1 do
        sum <- sum + (int bytes[i] <<< (if i % 2 = 0 then 8 else 0))

    sum % 0xFFFF = 0

let private tcpVerifies (packet: byte[]) =
    let length = packet.Length - 20

    verifies packet[..19]
    && verifies (Array.concat [ packet[12..19]; [| 0uy; 6uy; byte (length >>> 8); byte length |]; packet[20..] ])

let private modes = [ true, "Expresslane"; false, "DTLS" ]

let tests =
    testList
        "InsidePath"
        [ for expresslane, mode in modes do
              // The second is larger than one UDP payload once every segment has its overhead.
              for length, runs in [ 60_000, 1; 65_000, 2 ] do
                  test
                      $"{mode}: a superpacket of {length} bytes arrives as its segments, checksums complete, in one send of {runs} runs" {
                      use pair = connected expresslane 64
                      let sent = pair.Server.Wire.Calls, pair.Server.Wire.SegmentSizes.Count
                      let data = payload length
                      drain pair (Superpackets.tcp assigned data mss) 1
                      let segments = (data.Length + mss - 1) / mss
                      Expect.equal (pair.Server.Wire.Calls - fst sent) 1 "one system call"
                      Expect.equal (pair.Server.Wire.SegmentSizes.Count - snd sent) runs "runs"
                      pair.Pump()
                      Expect.equal pair.Client.Delivered.Count segments "all segments"
                      Expect.equal (payloads pair.Client.Delivered) data "every byte, in order"
                      Expect.all pair.Client.Delivered tcpVerifies "IP and TCP checksums"
                      Expect.equal pair.Server.Context.Counters[Counter.SegmentsBuilt] (int64 segments) "counted"
                  }

              test $"{mode}: a run takes the peer no longer than it may, and all runs leave in one call" {
                  use pair = new Pair(expresslane, 64, maxBurst = 1000)
                  pair.Connect()
                  let sent = pair.Server.Wire.Calls, pair.Server.Wire.SegmentSizes.Count
                  let data = payload 60_000
                  drain pair (Superpackets.tcp assigned data mss) 1
                  let runs = pair.Server.Wire.SegmentSizes |> Seq.skip (snd sent) |> List.ofSeq
                  Expect.equal (pair.Server.Wire.Calls - fst sent) 1 "one system call"
                  // A new peer is taken for one of 100 Mbit/s: 12500 bytes a ms hold eight datagrams, and there are 47.
                  Expect.hasLength runs 6 "runs"
                  pair.Pump()
                  Expect.equal (payloads pair.Client.Delivered) data "every byte, in order"
                  pair.Server.Now <- pair.Server.Now + 1_000L
                  drain pair (Superpackets.tcp assigned data mss) 100 // 6 MB in one go: at the next window, a fast peer
                  pair.Pump()
                  pair.Server.Now <- pair.Server.Now + 20L
                  let count = pair.Server.Wire.SegmentSizes.Count
                  drain pair (Superpackets.tcp assigned data mss) 1
                  Expect.equal (pair.Server.Wire.SegmentSizes.Count - count) 1 "one run for a fast peer"
              }

              test $"{mode}: more segments than a send holds, and a tiny MSS, lose nothing" {
                  use pair = connected expresslane 64
                  let data = payload 30_000
                  drain pair (Superpackets.tcp assigned data 88) 1
                  pair.Pump()
                  Expect.equal (payloads pair.Client.Delivered) data "every byte, in order"
              }

              test $"{mode}: a full socket in the middle of a superpacket is waited for; nothing is lost or sent twice" {
                  use pair = connected expresslane 64
                  let data = payload 60_000
                  let source = RepeatedFrame(Superpackets.tcp assigned data 300, 52, Left = 1)
                  use path = pathOf pair source
                  let mutable waits = 0

                  for _ in 1..3 do
                      pair.Server.Wire.Errors.Enqueue 11

                  while not (path.Drain pair.Server.Now) do
                      waits <- waits + 1

                  Expect.equal waits 3 "the socket was full three times"
                  pair.Pump()
                  Expect.equal (payloads pair.Client.Delivered) data "every byte, in order, once"
              }

              test $"{mode}: without batching each segment leaves alone" {
                  use pair = connected expresslane 1
                  let sent = pair.Server.Wire.Calls
                  drain pair (Superpackets.tcp assigned (payload 13_000) mss) 1
                  Expect.equal (pair.Server.Wire.Calls - sent) 11 "one send a segment"
              }

              test $"{mode}: no byte is allocated per packet over 100 000 packets" {
                  use pair = connected expresslane 64
                  pair.Server.Wire.Discard <- true
                  let segments = 50

                  let source =
                      RepeatedFrame(Superpackets.tcp assigned (payload (segments * mss - 7)) mss, 52)

                  use path = pathOf pair source
                  let counters = pair.Server.Context.Counters

                  let run superpackets =
                      source.Left <- superpackets

                      while source.Left > 0 do
                          path.Drain pair.Server.Now |> ignore

                  run 200 // tiered compilation settles
                  let built = counters[Counter.SegmentsBuilt]
                  let mutable runs = 0L

                  let allocated =
                      allocatedByEach 3 (fun () ->
                          runs <- runs + 1L
                          run 2_000)

                  Expect.equal (counters[Counter.SegmentsBuilt] - built) (runs * 100_000L) "packets"
                  Expect.equal allocated 0L "bytes allocated"
              }

          test "equal packets of one client that come singly share a send; their order does not change" {
              use pair = connected true 64
              let sent = pair.Server.Wire.Calls
              let single = Superpackets.tcp assigned (payload 500) 500
              single[1] <- VirtioNetHeader.GsoNone
              drain pair single 10
              Expect.equal (pair.Server.Wire.Calls - sent) 1 "one send"
              pair.Pump()
              Expect.equal pair.Client.Delivered.Count 10 "all packets"
              Expect.all pair.Client.Delivered tcpVerifies "NEEDS_CSUM was completed"
          }

          test "a frame that makes no sense is counted and dropped, and the next one still passes" {
              use pair = connected true 64
              let good = Superpackets.tcp assigned (payload 5_000) mss

              let bad =
                  [ "too short", good[..8], "tun_recv_gso_short_read"
                    "gso_size 0",
                    (let f = Array.copy good in
                     f[4] <- 0uy
                     f[5] <- 0uy
                     f),
                    "gso_dropped_zero_gso_size"
                    "too large",
                    (let f = Array.copy good in
                     f[5] <- 0xFFuy
                     f),
                    "gso_dropped_oversized_segment"
                    "unknown type",
                    (let f = Array.copy good in
                     f[1] <- 0x66uy
                     f),
                    null
                    "cut", good[..99], null ]

              for name, frame, counter in bad do
                  let before =
                      Counters.Sum [ pair.Server.Context.Counters ] |> Seq.map (|KeyValue|) |> Map.ofSeq

                  drain pair frame 1

                  let after =
                      Counters.Sum [ pair.Server.Context.Counters ] |> Seq.map (|KeyValue|) |> Map.ofSeq

                  Expect.equal after["drops_total"] (before["drops_total"] + 1L) $"{name}: one drop"

                  if not (isNull counter) then
                      Expect.equal after[counter] (before[counter] + 1L) $"{name}: by its name"

              drain pair good 1
              pair.Pump()
              Expect.equal (payloads pair.Client.Delivered) (payload 5_000) "the good one"
          } ]

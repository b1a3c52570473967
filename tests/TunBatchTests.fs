module Lightway.Tests.TunBatchTests

open System
open System.Linq
open Expecto
open Lightway.Lab
open Lightway.Segmenter
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Tun

let private payload length =
    Array.init length (fun i -> byte (i * 7 + i / 251))

/// 45 packets of one TCP flow, in order; `flow` tells flows apart.
let private train (flow: int) =
    Superpackets.segments (Superpackets.tcp (Ipv4Address(0x0A7D0010u + uint32 flow)) (payload 58_410) 1298)

let private datagrams (count: int) =
    Superpackets.segments (Superpackets.udp (Ipv4Address 0x0A7D0010u) (payload (count * 1200)) 1200)

let private batchOf (tun: ScriptedTun) =
    let counters = Counters()
    new TunBatch(tun, counters, true, true), counters

/// Puts a packet of a connection into the batch, as decrypting it there does.
let private openFrom (sender: uint32) (counter: uint64) (batch: TunBatch) (packet: byte[]) =
    packet.AsSpan().CopyTo(batch.Reserve TunBatch.SlotSize)
    batch.Commit(packet.Length, sender, counter)

let private openInto = openFrom 0u 0UL

/// The packets that a frame stands for.
let private packetsOf (frame: byte[]) : byte[] list =
    let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
    VirtioNetHeader.tryParse (ReadOnlySpan frame, &vnet) |> ignore

    if vnet.IsSuperpacket then
        List.ofArray (Superpackets.segments frame)
    else
        [ frame[VirtioNetHeader.Size ..] ]

let private written (tun: ScriptedTun) =
    tun.Frames |> Seq.collect packetsOf |> List.ofSeq

let private EINVAL, ENOBUFS, EIO = 22, 105, 5

let tests =
    testList
        "TunBatch"
        [ test "a receive's packets of one flow leave in one write, and are the packets again when cut" {
              let tun = ScriptedTun true
              let batch, counters = batchOf tun
              use batch = batch
              let packets = train 0
              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal tun.Calls 1 "one system call"
              Expect.equal (written tun) (List.ofArray packets) "byte for byte"
              Expect.equal counters[Counter.TunSegmentsWritten] 45L "counted"
              Expect.equal counters[Counter.TunWriteBytes] (int64 (packets.Sum(fun p -> p.Length))) "inside bytes"
          }

          test "a slot that is not committed, or reserved again, leaves no trace" {
              let tun = ScriptedTun true
              let batch, _ = batchOf tun
              use batch = batch
              let packets = train 0

              for packet in packets do
                  (batch.Reserve TunBatch.SlotSize).Fill 0xA5uy // a packet that proved forged
                  openInto batch packet

              batch.Flush()
              Expect.equal (written tun) (List.ofArray packets) "byte for byte"
          }

          test "what the network has put in another order is written in the order of its counters" {
              let tun = ScriptedTun true
              let batch, counters = batchOf tun
              use batch = batch
              let packets = train 0
              let shuffled = [| 0 .. packets.Length - 1 |]
              Random(5).Shuffle shuffled

              for index in shuffled do
                  openFrom 7u (uint64 (1000 + index)) batch packets[index]

              batch.Flush()
              Expect.equal tun.Calls 1 "one system call after all"
              Expect.equal (written tun) (List.ofArray packets) "in order"
              Expect.equal counters[Counter.TunReordered] 1L "counted"
          }

          test "connections do not order each other's packets" {
              let tun = ScriptedTun true
              let batch, _ = batchOf tun
              use batch = batch
              let first, second = train 0, train 1

              for index in 0 .. first.Length - 1 do
                  openFrom 9u (uint64 index) batch first[index]
                  openFrom 3u (uint64 index) batch second[index]

              batch.Flush()
              Expect.equal tun.Calls 2 "one system call for each flow"
              Expect.equal (written tun) (List.ofArray first @ List.ofArray second) "each in order"
          }

          test "EINVAL: the packets leave one by one, TCP superpackets are off for a minute, UDP's are not" {
              let tun = ScriptedTun true
              let batch, counters = batchOf tun
              use batch = batch
              let refused = ResizeArray<CapabilityRefused>()
              batch.Refused <- Action<_> refused.Add
              tun.SuperpacketErrors.Enqueue EINVAL
              let packets = train 0
              Array.append packets (train 1) |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal (written tun) (List.ofArray (Array.append packets (train 1))) "nothing lost, nothing twice"

              Expect.equal
                  (List.ofSeq refused)
                  [ CapabilityRefused(Capability.TunTcpSuperpackets, EINVAL) ]
                  "reported once"

              Expect.equal tun.Calls 91 "the second flow's superpacket was not even tried"
              Expect.equal counters[Counter.TunGroFallbacks] 1L "counted"
              tun.Frames.Clear()
              datagrams 40 |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal tun.Calls 92 "UDP still shares a superpacket"

              for _ in 1..59 do
                  batch.Tick()

              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal tun.Calls 137 "59 s later TCP is still off"
              batch.Tick()
              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal tun.Calls 138 "after a minute it is tried again"
          }

          test "ENOBUFS: the packets leave one by one, and the next superpacket is tried again" {
              let tun = ScriptedTun true
              let batch, counters = batchOf tun
              use batch = batch
              tun.SuperpacketErrors.Enqueue ENOBUFS
              let packets = train 0
              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal (written tun) (List.ofArray packets) "nothing lost"
              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal tun.Calls 47 "one by one, then together"
              Expect.equal counters[Counter.TunSuperpacketsRefused] 1L "counted"
              Expect.equal counters[Counter.TunGroFallbacks] 0L "nothing turned off"
          }

          test "a plain packet that the device refuses is a counted drop" {
              let tun = ScriptedTun true
              let batch, counters = batchOf tun
              use batch = batch
              tun.PlainErrors.Enqueue EIO
              openInto batch (Array.head (train 0))
              batch.Flush()
              Expect.equal counters[Counter.InsideIoSendFailed] 1L "counted"
              Expect.equal counters[Counter.TunPacketsWritten] 0L "not written"
          }

          test "without a virtio_net_hdr, or with the switches off, each packet is written as it is" {
              for vnet, tcp, udp in [ false, true, true; true, false, false ] do
                  let tun = ScriptedTun vnet
                  use batch = new TunBatch(tun, Counters(), tcp, udp)
                  let packets = Array.append (train 0) (datagrams 10)
                  packets |> Array.iter (openInto batch)
                  batch.Flush()
                  Expect.equal tun.Calls packets.Length "one by one"
                  Expect.equal (written tun) (List.ofArray packets) "as they are"
          }

          test "more than the window holds is written when it is full: nothing is lost" {
              let tun = ScriptedTun true
              let batch, _ = batchOf tun
              use batch = batch

              let small =
                  Superpackets.segments (Superpackets.tcp (Ipv4Address 0x0A7D0010u) (payload 1100) 1)

              let large =
                  [| for flow in 0..20 do
                         yield! train flow |]

              let packets = Array.append small large
              packets |> Array.iter (openInto batch)
              batch.Flush()
              Expect.equal (written tun) (List.ofArray packets) "all, in order"
          }

          test "the largest packet that fragments can make passes" {
              let tun = ScriptedTun true
              let batch, _ = batchOf tun
              use batch = batch

              for _ in 1..20 do
                  (payload 65535).AsSpan().CopyTo(batch.Reserve 65535)
                  batch.Commit(65535, 0u, 0UL)

              batch.Flush()
              Expect.equal (written tun) (List.replicate 20 (payload 65535)) "all"
          }

          test "no allocation per packet" {
              let tun = ScriptedTun(true, Discard = true)
              let batch, _ = batchOf tun
              use batch = batch
              let packets = Array.append (train 0) (datagrams 10)

              let receive () =
                  for packet in packets do
                      packet.AsSpan().CopyTo(batch.Reserve TunBatch.SlotSize)
                      batch.Commit(packet.Length, 5u, 1UL)

                  batch.Flush()

              receive ()

              let allocated =
                  Checks.allocatedByEach 5 (fun () ->
                      for _ in 1..2000 do
                          receive ())

              Expect.equal allocated 0L "bytes for 110 000 packets"
          } ]

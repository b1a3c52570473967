/// Congestion marks (ECN) and DSCP between the packets inside and their datagrams outside: RFC 6040.
module Lightway.Tests.EcnTests

open System
open System.Net
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Segmenter
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Udp
open Lightway.Tests.Checks

let private notEct, ect1, ect0, ce = 0uy, 1uy, 2uy, 3uy

/// A packet of the client with this TOS byte.
let private marked (tos: byte) (source: Ipv4Address) =
    let packet = Superpackets.plain source Inside.Remote 600
    packet[Ipv4.TosAt] <- tos
    packet[Ipv4.ChecksumAt] <- 0uy
    packet[Ipv4.ChecksumAt + 1] <- 0uy
    let sum = Checksum.complement (Checksum.sum (ReadOnlySpan(packet, 0, 20)))
    packet[Ipv4.ChecksumAt] <- byte (sum >>> 8)
    packet[Ipv4.ChecksumAt + 1] <- byte sum
    packet

let private send (side: End) (bytes: byte[]) =
    let buffer = Array.append (Array.zeroCreate 16) bytes
    side.Connection.BeginInside side.Now
    Expect.isTrue (side.Connection.TryTranslate(buffer.AsSpan 16, TransportChecksum.Complete)) "translated"
    Expect.equal (side.Connection.TrySend(Span buffer, 16, bytes.Length)) SendResult.Accepted "accepted"
    Expect.isTrue (side.Context.ToOutside.Flush()) "sent"

let private connected expresslane copiedTos =
    let pair = new Pair(expresslane, 64, copiedTos = copiedTos)
    pair.Connect()
    pair

let private memory =
    [ for expresslane, mode in [ true, "Expresslane"; false, "DTLS" ] do
          test $"{mode}: a datagram has the ECN field of its packet, and DSCP only if that is asked for" {
              for copied, expected in [ 3uy, [ 0uy; 1uy; 2uy; 3uy ]; 0xFFuy, [ 0xB8uy; 0xB9uy; 0xBAuy; 0xBBuy ] ] do
                  use pair = connected expresslane copied
                  pair.Client.Wire.Tos.Clear()

                  for ecn in [ notEct; ect1; ect0; ce ] do
                      send pair.Client (marked (0xB8uy ||| ecn) Inside.Client)

                  Expect.equal (List.ofSeq pair.Client.Wire.Tos) expected $"bits {copied:x2}"
          }

          test $"{mode}: a mark on the path arrives inside, and a packet whose sender ignores marks is dropped" {
              use pair = connected expresslane 3uy
              let counters = pair.Server.Context.Counters

              for inside, outside, arrives in
                  [ ect0, ce, Some ce
                    ect1, ce, Some ce
                    ce, notEct, Some ce
                    ect0, ect0, Some ect0
                    ect0, ect1, Some ect1
                    notEct, ect0, Some notEct
                    notEct, ce, None ] do
                  pair.Server.Delivered.Clear()
                  send pair.Client (marked inside Inside.Client)
                  pair.Server.Context.OutsideEcn <- Ecn.ofTos outside
                  pair.Pump()
                  let expected = arrives |> Option.map (fun tos -> marked tos Inside.Assigned)
                  Expect.equal (Seq.tryHead pair.Server.Delivered) expected $"{inside} in {outside}"

              Expect.equal counters[Counter.EcnChanged] 3L "changed"
              Expect.equal counters[Counter.EcnDropped] 1L "dropped"
              Expect.equal counters[Counter.EcnUnexpected] 2L "a field outside that the packet does not have"
          } ]

/// Of one socket, sent to another over loopback: the TOS bytes that arrive.
let private roundTrip (sender: string) (receiver: string) (destination: string) isRun =
    use sending = UdpSocket.Bind(IPEndPoint.Parse sender, 0, 0, 0u, false)
    use receiving = UdpSocket.Bind(IPEndPoint.Parse receiver, 0, 0, 0u, true)
    use batch = new ReceiveBatch(receiving.IsCoalescing)

    let path =
        OutsideAddress(
            PeerAddress(IPEndPoint(IPAddress.Parse destination, receiving.LocalEndPoint.Port)),
            LocalAddress()
        )

    [ for tos in [ 0uy; 1uy; 2uy; 3uy; 0xBBuy ] do
          let data: byte[] = Array.zeroCreate (if isRun then 1000 else 100)

          let sent =
              (sending :> IDatagramSender).Send(&path, ReadOnlySpan data, (if isRun then 100 else 0), tos)

          Expect.equal sent data.Length "sent"
          let received = ref 0

          let isThere () =
              received.Value <- receiving.Receive batch
              received.Value > 0

          Wait.until (TimeSpan.FromSeconds 30.) isThere |> ignore
          Expect.equal received.Value 1 "received"
          Expect.equal (batch.Bytes(0).Length) data.Length "all of it"
          batch.ReadControl(0).Tos ]

let private sockets =
    [ for sender, receiver, destination, kind in
          [ "127.0.0.1:0", "127.0.0.1:0", "127.0.0.1", "IPv4"
            "0.0.0.0:0", "0.0.0.0:0", "127.0.0.1", "IPv4, wildcard"
            "[::1]:0", "[::1]:0", "::1", "IPv6"
            "[::]:0", "[::]:0", "::1", "IPv6, wildcard"
            "[::]:0", "[::]:0", "::ffff:127.0.0.1", "IPv4 over sockets for both families" ] do
          for isRun in [ false; true ] do
              test $"""{kind}, {if isRun then "run" else "single datagram"}: the TOS byte sent is the one received""" {
                  Expect.equal (roundTrip sender receiver destination isRun) [ 0uy; 1uy; 2uy; 3uy; 0xBBuy ] ""
              } ]

/// nft(8): one chain, in a table of its own.
let private mark (netns: string) hook rule =
    for command in
        [ "add table ip marks"
          $"add chain ip marks path {{ type filter hook {hook} priority -150; }}"
          $"add rule ip marks path {rule}" ] do
        Shell.inside netns "nft" [ command ] |> ignore

/// A counter of nstat(8), which reads /proc/net/netstat and /proc/net/snmp.
let private statistic (netns: string) (name: string) =
    let line =
        Regex.Match(Shell.inside netns "nstat" [ "-asz"; name ], $@"{name} +(\d+)")

    int64 line.Groups[1].Value

let private path =
    [ for expresslane, name in [ true, "Expresslane"; false, "DTLS" ] do
          test $"{name}: marks on the path reach TCP, which slows down without a loss" {
              needsRoot ()
              use topology = Topology.Create()

              let settings =
                  { Expresslane = expresslane
                    Offload = true
                    ServerKeys = []
                    ClientKeys = [] }

              use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
              vpn.Start()

              for netns in [ topology.Client; topology.RemoteHost ] do
                  Shell.inside netns "sysctl" [ "-qw"; "net.ipv4.tcp_ecn=1" ] |> ignore

              let before = vpn.ReadClients().Value.Head

              let remote =
                  { Netns = topology.RemoteHost
                    Address = Topology.Remote }

              /// Segments that were lost: those that had arrived before were sent again because a program had to wait for a
              /// processor. Either may slow TCP down: a transfer that had one does not count, unless it happens each time.
              let lost (result: StreamResult) =
                  result.Sender.Retransmits - result.Sender.Needless

              let download length =
                  let once () =
                      let result = Transfer.controlledDownload remote topology.Client length "cubic"
                      expectIntact result length
                      result

                  let rec quiet attempts =
                      let result = once ()

                      if attempts = 1 || result.Sender.Retransmits = 0L then
                          result
                      else
                          quiet (attempts - 1)

                  let result = quiet 5
                  Expect.isTrue result.Sender.HasEcn "both ends agreed on marks"
                  Expect.equal (lost result) 0L "segments lost"
                  result

              let unmarked = download (megabytes 60L)
              Expect.equal unmarked.Sender.Marked 0L "no marks yet"

              // Each packet of a TCP flow that asks for marks has ECT(0), and so its datagram: all are marked.
              mark topology.Client "prerouting" "iifname outside udp sport 27690 ip ecn ect0 ip ecn set ce"

              let marked = download (megabytes 3L)
              let after = vpn.ReadClients().Value.Head
              Expect.isGreaterThan (after.Since before "ecn_changed") 0L "the client put marks into packets"
              Expect.equal (after.Since before "ecn_dropped") 0L "no packet was dropped for a mark"

              Expect.isGreaterThan
                  (statistic topology.Client "IpExtInCEPkts")
                  0L
                  "marked packets came out of the tunnel"

              Expect.isGreaterThan marked.Sender.Marked 0L "the sender knows"
              Expect.isLessThan marked.Sender.Window 20L "segments on the way: the sender has made its window smaller"
              Expect.isGreaterThan unmarked.Sender.Window 20L "segments on the way without marks"

              // What was held up, as a busy machine may do, says nothing about the speed without marks.
              let rec fastest best attempts =
                  if marked.MegabitsPerSecond < best / 2.0 || attempts = 0 then
                      best
                  else
                      let again = download (megabytes 60L)
                      fastest (max best again.MegabitsPerSecond) (attempts - 1)

              Shell.inside topology.Client "nft" [ "delete table ip marks" ] |> ignore

              Expect.isLessThan
                  marked.MegabitsPerSecond
                  (fastest unmarked.MegabitsPerSecond 3 / 2.0)
                  "Mbit/s with marks, and half of what it is without"

              Expect.equal (checksumErrors topology.Client) 0L "checksums"
          } ]

let tests =
    testList "ECN" (memory @ sockets @ [ testSequenced (testList "path" path) ])

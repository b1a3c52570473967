/// Keys of a connection change, by time and by number, under loss and under load.
module Lightway.Tests.ConnectionKeysTests

open System
open Expecto
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls
open Lightway.Tests.ConnectionTests

let tests =
    testList
        "Connection keys"
        [ test "DTLS keys are updated on time, and traffic goes on under the new session id" {
              use pair = connected true
              let first = pair.Server.Connection.SessionId

              for _ in 1..16 do
                  pair.Advance 60_000L
                  pair.Pump()
                  exchange pair

              for _ in 1..10 do
                  pair.Advance 100L
                  pair.Pump()

              exchange pair
              Expect.isGreaterThanOrEqual pair.Server.Context.Counters[Counter.KeyUpdateComplete] 1L "updated"
              Expect.notEqual pair.Server.Connection.SessionId first "rotated"
          }

          test "keys change by number as well as by time: Expresslane" {
              use pair = new Pair(true, 64, packetsPerKey = 100UL)
              pair.Connect()

              /// Control datagrams that the client sends while packets go up.
              let controls count =
                  let mutable seen = 0

                  for _ in 1..count do
                      send pair.Client (packet 100)

                      for datagram in pair.Client.Wire.Datagrams do
                          let mutable header = Unchecked.defaultof<WireHeader>
                          WireHeader.tryParse (ReadOnlySpan datagram, &header) |> ignore

                          if header.Payload = WirePayload.Dtls then
                              seen <- seen + 1

                      pair.Pump()

                  seen

              Expect.equal (controls 100) 0 "none for 100 packets"
              Expect.equal (controls 99) 1 "an offer with the next one"
              Expect.equal (controls 101) 1 "and with the next after a hundred more"
              Expect.equal pair.Server.Delivered.Count 300 "every packet arrives"
              exchange pair
          }

          test "keys change by number as well as by time: DTLS, in either direction" {
              for up in [ true; false ] do
                  use pair = new Pair(false, 64, recordsPerKey = 100L)
                  pair.Connect()

                  let starts () =
                      pair.Server.Context.Counters[Counter.KeyUpdateStart]

                  let pass count =
                      for _ in 1..count do
                          if up then
                              send pair.Client (packet 100)
                          else
                              send pair.Server (Superpackets.plain Inside.Remote Inside.Client 100)

                          pair.Pump()
                          pair.Advance 1L

                  pass 70
                  Expect.equal (starts ()) 0L "not yet"
                  pass 40
                  Expect.equal (starts ()) 1L "after a hundred"

                  for _ in 1..10 do
                      pair.Pump()
                      pair.Advance 100L

                  Expect.equal pair.Server.Context.Counters[Counter.KeyUpdateComplete] 1L "complete"
                  exchange pair
          }

          test "clients that come together do not change their keys together" {
              let dueAt () =
                  use pair = connected true
                  let now = pair.Server.Now
                  let mutable at = 0L

                  while pair.Server.Context.Counters[Counter.KeyUpdateStart] = 0L do
                      pair.AdvanceServer 1_000L
                      at <- pair.Server.Now - now

                  at

              // Each is at one of 90 seconds: all are at the same one in one of 10^13 runs.
              let times = [ for _ in 1..8 -> dueAt () ]
              Expect.all times (fun at -> at > 800_000L && at <= 901_000L) "within a tenth"
              Expect.isGreaterThan (List.distinct times).Length 1 "at different times"
          }

          test "a key update that is lost is repeated, however much data comes meanwhile" {
              use pair = connected false
              pair.Advance(15L * 60_000L + 1L)
              Expect.equal pair.Server.Context.Counters[Counter.KeyUpdateStart] 1L "started"
              pair.Server.Wire.Datagrams.Clear()
              let mutable steps = 0

              while steps < 1_000 && pair.Server.Context.Counters[Counter.KeyUpdateComplete] = 0L do
                  pair.AdvanceForReal 20L
                  exchange pair
                  steps <- steps + 1

              Expect.equal pair.Server.Context.Counters[Counter.KeyUpdateComplete] 1L "answered"
              exchange pair
          }

          test "a client's answer to a key update that is lost is repeated" {
              use pair = connected true
              pair.Advance(15L * 60_000L + 1L)
              // The first datagrams after the server's KeyUpdate are the client's acknowledgement and its own KeyUpdate.
              let mutable lost = 0

              pair.Pump(fun datagram ->
                  let isLost = lost = 0 && datagram.Length = 51 // the client's KeyUpdate, as wolfSSL sends it

                  if isLost then
                      lost <- 1

                  isLost)

              Expect.equal lost 1 "it was lost"

              let mutable steps = 0

              while steps < 1_000 && pair.Server.Context.Counters[Counter.KeyUpdateComplete] = 0L do
                  pair.AdvanceForReal 20L
                  pair.Pump()
                  steps <- steps + 1

              Expect.equal pair.Server.Context.Counters[Counter.KeyUpdateComplete] 1L "complete"
              Expect.equal pair.Server.Closed ValueNone "alive"
              exchange pair
          }

          test "a client that sleeps through a key update keeps its session" {
              use pair = connected true
              pair.Advance(15L * 60_000L + 1L)

              for _ in 1..600 do
                  pair.AdvanceServer 100L
                  pair.Server.Wire.Datagrams.Clear()
                  pair.Client.Wire.Datagrams.Clear()

              Expect.equal pair.Server.Closed ValueNone "alive"
              Expect.equal pair.Server.Context.Counters[Counter.KeyUpdateAbandoned] 1L "given up for now"
              send pair.Client (packet 100)
              pair.Pump()
              Expect.equal pair.Server.Delivered.Count 1 "and is heard when it wakes"

              for _ in 1..40 do
                  pair.AdvanceForReal 20L
                  exchange pair
          }

          test "the codec flag of Expresslane version 1, which anybody on the way can set, ends nothing" {
              use pair = connected false
              let key: byte[] = Array.create PacketAeads.KeySize 0x2Buy
              let frame: byte[] = Array.zeroCreate Frame.ExpresslaneConfigSize

              Frame.writeExpresslaneConfig (
                  { Version = 1uy
                    Enabled = true
                    Ack = false
                    Counter = 1UL
                    Key = key },
                  Span frame
              )
              |> ignore

              pair.ClientSession.Write(ReadOnlySpan frame) |> ignore
              pair.Pump()
              let inner = packet 60

              let datagram = expresslaneV1 key pair.Server.Connection.SessionId inner
              let flags = WireHeader.Size + ExpresslanePacket.FlagsAt
              datagram[flags] <- datagram[flags] ||| 0x80uy
              Expect.equal (pair.ToServer datagram) 1 "authentic"
              Expect.equal pair.Server.Connection.State ConnectionState.Online "the connection goes on"
              Expect.equal (List.ofSeq pair.Server.Delivered) [ atServer inner ] "delivered"
          }

          test "an offer of new keys that inside traffic has caused is repeated, though nothing comes back" {
              use pair = new Pair(true, 64)
              pair.Connect()
              let server = pair.Server
              server.Now <- server.Now + 16L * 60_000L

              for _ in 1..100 do
                  server.Advance 1_000L // its key update finds no answer and is given up

              server.Connection.BeginInside server.Now
              Expect.isLessThan server.Connection.DueAt (server.Now + 60_000L) "it waits for an answer"
              Expect.isLessThanOrEqual server.Context.Timers.NextAt server.Connection.DueAt "the timer queue knows"
          }

          test "Expresslane keys rotate under load without losing a packet" {
              use pair = connected true

              for _ in 1..4 do
                  pair.Advance(16L * 60_000L)
                  exchange pair
                  pair.Pump()
                  exchange pair

              Expect.equal pair.Server.Context.Counters[Counter.ExpresslaneDecryptFailed] 0L "every packet opened"
              Expect.isTrue pair.Client.Connection.IsExpresslaneReady "still on the Expresslane"
          } ]

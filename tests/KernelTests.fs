/// The engine's lowest rooms: latches, timers, and exceptions that must not cross a native library.
module Lightway.Tests.KernelTests

open System
open Expecto
open Lightway.Tunnel.Kernel
open Lightway.Tunnel.Tls

/// A timer that notes when it is called.
type private Timer(dueAt: int64) as this =
    let node = TimerNode this
    member val Calls = ResizeArray<int64>()
    member val DueAt = dueAt with get, set
    /// What the next call sets the due time to.
    member val Next = Int64.MaxValue with get, set
    member _.Release() = node.Release()

    interface ITimed with
        member this.DueAt = this.DueAt
        member _.Timer = node

        member this.OnTimer now =
            this.Calls.Add now
            this.DueAt <- this.Next

let tests =
    testList
        "Kernel"
        [ testProperty "a latch is on exactly when 60 ticks or more have passed since the last refusal"
          <| fun (refusals: bool list) ->
              let mutable latch = Latch()
              let mutable since = Latch.Ticks // ticks since the last refusal

              [ for isRefusal in refusals do
                    if isRefusal then
                        latch.TurnOff()
                        since <- 0

                    for _ in 1..13 do
                        latch.Tick()
                        since <- since + 1
                        latch.IsOn = (since >= Latch.Ticks) ]
              |> List.forall id

          test "a timer that moves later is called at its new time only, one that moves earlier at once" {
              let queue = TimerQueue()
              let later, earlier = Timer 100L, Timer 100L
              queue.Schedule later
              queue.Schedule earlier
              later.DueAt <- 300L
              earlier.DueAt <- 50L
              queue.Schedule earlier
              Expect.equal queue.NextAt 50L "the earliest"

              for now in [ 50L; 100L; 299L; 300L ] do
                  queue.Run now

              Expect.equal (List.ofSeq later.Calls) [ 300L ] "later"
              Expect.equal (List.ofSeq earlier.Calls) [ 50L ] "earlier, once"
          }

          test "a timer that is released is never called, one that is due again at once waits for the next run" {
              let queue = TimerQueue()
              let over, busy = Timer 10L, Timer 10L
              queue.Schedule over
              queue.Schedule busy
              over.Release()
              busy.Next <- 10L
              queue.Run 10L
              Expect.isEmpty over.Calls "over"
              Expect.equal busy.Calls.Count 1 "once per run"
              queue.Run 10L
              Expect.equal busy.Calls.Count 2 "again"
          }

          test "the queue holds nothing of what was released" {
              let queue = TimerQueue()

              let forgotten () =
                  let timer = Timer 900_000L
                  queue.Schedule timer
                  timer.Release()
                  WeakReference timer

              let reference = forgotten ()
              GC.Collect()
              Expect.isFalse reference.IsAlive "collected, before its time"
              Expect.equal queue.Count 1 "while the entry waits"
          }

          test "timers that are due together run in several rounds" {
              let queue = TimerQueue()
              let timers = [ for _ in 1..200 -> Timer 10L ]
              timers |> List.iter queue.Schedule

              let called () =
                  timers |> List.sumBy (fun timer -> timer.Calls.Count)

              queue.Run 10L
              Expect.equal (called ()) 64 "the first round"
              Expect.equal queue.NextAt 10L "the next one is due at once"

              for _ in 1..3 do
                  queue.Run 10L

              Expect.equal (called ()) 200 "all of them, once each"
          }

          test "an exception of a record sink comes out of the call that led to it, not as a TLS failure" {
              use tls = TestCertificate.clientTls ()

              use session = new DtlsSession(tls, ReadOnlySpan<byte>.Empty)

              session.Sink <-
                  { new IRecordSink with
                      member _.SendRecord _ =
                          raise (TimeZoneNotFoundException "a bug") }

              Expect.throwsT<TimeZoneNotFoundException> (fun () -> session.Handshake() |> ignore) "the sink's own"
          } ]

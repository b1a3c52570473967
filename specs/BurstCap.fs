/// Limit of a run of datagrams (docs/offload.md, "How long a run may be").
module Lightway.Specs.BurstCap

open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

/// A worker that has sent this much at these times, oldest first.
let private after (sends: seq<int64<ms> * int64>) =
    (BurstRate.create 0L<ms>, sends)
    ||> Seq.fold (fun rate (at, bytes) -> BurstRate.sent (rate, at, bytes))

/// Sends in time order, of up to 64 KiB each.
let private history (gaps: (byte * uint16) list) =
    let times =
        gaps |> List.scan (fun at (gap, _) -> at + milliseconds (int gap)) 0L<ms> |> List.tail

    List.zip times [ for _, bytes in gaps -> int64 bytes ]

/// A worker that sends this much every ms, for some time.
let private steady (perMs: int64</ ms>) (time: int64<ms>) =
    after [ for at in 1L<ms> .. 1L<ms> .. time -> at, perMs * 1L<ms> ]

let laws =
    testList
        "burst cap"
        [ testCase "100 Mbit/s are assumed at the start"
          <| fun () -> Expect.equal (BurstRate.create 7L<ms>).BytesPerMs 12_500L< / ms> ""

          testProperty "the rate is never below the floor, however it came down"
          <| fun (extra: uint16) (silences: byte list) ->
              let mutable rate = steady (BurstRate.Floor + int64 extra * 1L< / ms>) 40L<ms>
              let mutable now = 40L<ms>

              silences
              |> List.forall (fun silence ->
                  now <- now + milliseconds (int silence)
                  rate <- BurstRate.sent (rate, now, 1L)
                  rate.BytesPerMs >= BurstRate.Floor)

          testProperty "the rate never exceeds what a window and the send that ends it held, over 20 ms"
          <| fun (gaps: (byte * uint16) list) ->
              let sends = history gaps

              let best =
                  [ for from, _ in (0L<ms>, 0L) :: sends ->
                        sends
                        |> List.sumBy (fun (at, bytes) -> if at >= from && at - from <= 275L<ms> then bytes else 0L) ]
                  |> List.max

              (after sends).BytesPerMs <= max BurstRate.Floor (best / BurstRate.WindowMs)

          testProperty "a steady rate above the floor is met within a tenth after two windows"
          <| fun (extra: uint16) (more: byte) ->
              let perMs = BurstRate.Floor + 10L< / ms> * int64 extra

              let found =
                  (steady perMs (2L * BurstRate.WindowMs + milliseconds (int more))).BytesPerMs

              abs (found - perMs) * 10L <= perMs

          testProperty "two seconds of silence bring back the floor"
          <| fun (gaps: (byte * uint16) list) ->
              let sends = history gaps
              let last = if sends.IsEmpty then 0L<ms> else fst (List.last sends)
              let rate = BurstRate.sent (after sends, last + 2_000L<ms>, 1L)
              rate.BytesPerMs = BurstRate.Floor

          testCase "a rate that falls is followed by an eighth a window, not at once"
          <| fun () ->
              let fast = steady 100_000L< / ms> 200L<ms>

              let next = BurstRate.sent (fast, 220L<ms>, 1_000L)
              Expect.equal (fast.BytesPerMs, next.BytesPerMs) (100_000L< / ms>, 87_500L< / ms>) "seven eighths"

          testCase "what is sent within a window counts when the window ends"
          <| fun () ->
              let rate = after [ 1L<ms>, 500_000L; 19L<ms>, 500_000L ]
              Expect.equal rate.BytesPerMs BurstRate.Floor "not yet"
              Expect.equal (BurstRate.sent (rate, 20L<ms>, 0L)).BytesPerMs 50_000L< / ms> "1 MB in 20 ms"

          testProperty "the limit is what the rate carries in the time"
          <| fun (extra: uint16) (microseconds: uint16) ->
              let rate = steady (BurstRate.Floor + int64 extra * 1L< / ms>) 100L<ms>
              BurstRate.limit (rate, int64 microseconds) = rate.BytesPerMs * int64 microseconds / 1_000L< / ms> ]

/// When a client connects again: laws about whole histories of connections, rounds and networks.
module Lightway.Specs.ReconnectMachine

open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

type Happening =
    /// The round succeeds, and the connection is lost after so long.
    | Serves of int64<ms>
    /// The round fails after so long.
    | Fails of int64<ms>
    /// While the client waits.
    | NetworkChange

type History =
    { Attempts: int
      Happenings: (Happening * uint32) list } // with randomness

type HistoryArbitrary =
    static member History() =
        gen {
            let! attempts = Gen.elements [ 0; 0; 1; 3 ]

            let duration =
                Gen.elements [ 0; 10; 400; 30_000; 59_999; 60_000; 90_000 ] |> Gen.map milliseconds

            let happening =
                Gen.frequency [ 2, Gen.map Serves duration; 4, Gen.map Fails duration; 1, Gen.constant NetworkChange ]

            let random = Gen.elements [ 0u; 1u; 0x8000_0000u; 0xFFFF_FFFFu ]
            let! happenings = Gen.listOf (Gen.zip happening random)

            return
                { Attempts = attempts
                  Happenings = happenings }
        }
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<HistoryArbitrary> ] }

let private forEver = { IsEnabled = true; Attempts = 0 }

let private isOver (state: ReconnectState) = state.Phase = ReconnectPhase.Over

let private onlineAt at policy =
    Reconnect.online (Reconnect.create (policy, 0L<ms>), at)

type private Seen =
    {
        Happening: Happening
        /// When the round started that it ended, or the wait that it cut short.
        At: int64<ms>
        /// The wait that follows; None: it is over.
        Wait: int64<ms> option
        FailuresInARow: int
    }

/// A client that was online once, for long, and has lost that connection at 100 s.
let private run (history: History) : Seen list =
    let mutable now = 100_000L<ms>

    let mutable state =
        Reconnect.lost (
            onlineAt
                0L<ms>
                { IsEnabled = true
                  Attempts = history.Attempts },
            TunnelError.TimedOut,
            0u,
            now
        )

    let mutable failures = 0
    let seen = ResizeArray()

    for happening, random in history.Happenings do
        if not (isOver state) then
            if happening = NetworkChange then
                now <- now + 1L<ms>
                state <- Reconnect.networkChanged (state, now)
            else
                let struct (_, early) = Reconnect.tick (state, state.RetryAt - 1L<ms>)
                Expect.isFalse early "an early tick starts nothing"
                now <- max now state.RetryAt
                let struct (trying, isStarting) = Reconnect.tick (state, now)
                Expect.isTrue isStarting "the round starts"
                state <- trying

            let startedAt = now

            match happening with
            | Serves duration ->
                state <- Reconnect.online (state, now)
                failures <- 0
                now <- now + duration
                state <- Reconnect.lost (state, TunnelError.Goodbye, random, now)
            | Fails duration ->
                failures <- failures + 1
                now <- now + duration
                state <- Reconnect.failed (state, [ TunnelError.TimedOut ], random, now)
            | NetworkChange -> ()

            seen.Add
                { Happening = happening
                  At = startedAt
                  Wait = if isOver state then None else Some(state.RetryAt - now)
                  FailuresInARow = failures }

    List.ofSeq seen

/// Bounds of the wait that follows each happening, by counting from the last good sign; None for a change of network.
let private bounds (seen: Seen list) =
    ((1, []), seen)
    ||> List.fold (fun (step, all) one ->
        match one.Happening with
        | NetworkChange -> 0, None :: all
        | Serves duration when duration >= 60_000L<ms> -> 1, Some(1_000L<ms>, 2_000L<ms>) :: all
        | _ ->
            let most = min 60_000L<ms> (1_000L<ms> * pown 2L (min 20 (step + 1)))
            step + 1, Some(most / 2L, most) :: all)
    |> snd
    |> List.rev

let private waits =
    [ testCase "waits are 1-2, 2-4, 4-8, 8-16, 16-32 and then 30-60 s; randomness spreads them over the whole range"
      <| fun () ->
          let ranges =
              [ for step in [ 1..8 ] @ [ 1000; System.Int32.MaxValue ] ->
                    Reconnect.wait (step, 0u) / 1_000L<ms>, (Reconnect.wait (step, 0xFFFF_FFFFu) + 1L<ms>) / 1_000L<ms> ]

          Expect.equal
              ranges
              [ 1L, 2L; 2L, 4L; 4L, 8L; 8L, 16L; 16L, 32L; 30L, 60L; 30L, 60L; 30L, 60L; 30L, 60L; 30L, 60L ]
              "seconds"

          Expect.equal (Reconnect.wait (3, 0x8000_0000u)) 6_000L<ms> "the middle"

      testPropertyWithConfig
          config
          "each wait is in its range, which doubles until a connection serves for a minute or the network changes"
      <| fun (history: History) ->
          let seen = run { history with Attempts = 0 }

          List.zip seen (bounds seen)
          |> List.forall (fun (one, range) ->
              match one.Wait, range with
              | Some wait, Some(least, most) -> wait >= least && wait <= most
              | Some wait, None -> wait <= 1_000L<ms>
              | None, _ -> false)

      testPropertyWithConfig config "a round starts a second after the one before it, or later"
      <| fun (history: History) ->
          run history
          |> List.filter (fun one -> one.Happening <> NetworkChange)
          |> List.pairwise
          |> List.forall (fun (one, next) -> next.At - one.At >= 1_000L<ms>)

      testPropertyWithConfig config "it is over after the given number of failed rounds in a row, and never without one"
      <| fun (history: History) ->
          run history
          |> List.forall (fun one ->
              let isLast = history.Attempts > 0 && one.FailuresInARow >= history.Attempts
              one.Wait.IsNone = isLast) ]

let private all = [ for value in 0..32 -> enum<TunnelError> value ]

let private reasons =
    [ testCase "before anything was online, a failed round is the end, whatever the reason"
      <| fun () ->
          for reason in all do
              let state =
                  Reconnect.failed (Reconnect.create (forEver, 0L<ms>), [ reason ], 0u, 9L<ms>)

              Expect.isTrue (isOver state) $"{reason}"
              Expect.equal state.RetryAt Time.Never "nothing is planned"

      testCase "a connection that was online is worth another one, but for a refused login"
      <| fun () ->
          for reason in all do
              let state = Reconnect.lost (onlineAt 0L<ms> forEver, reason, 0u, 9L<ms>)
              Expect.equal (isOver state) (reason = TunnelError.Unauthorized) $"{reason}"

      testCase "with one set-up that nothing was online with, name, authority and addresses are not worth repeating"
      <| fun () ->
          let hopeless =
              all |> List.filter (fun reason -> not (Reconnect.isWorthRetrying (reason, false)))

          Expect.equal
              (List.sort hopeless)
              (List.sort
                  [ TunnelError.Unauthorized
                    TunnelError.InvalidInsideIpConfig
                    TunnelError.TlsNameMismatch
                    TunnelError.TlsCaMissing ])
              "the set-up"

      testCase "a later round is the end only if every server refuses the login"
      <| fun () ->
          let trying =
              let lost =
                  Reconnect.lost (onlineAt 0L<ms> forEver, TunnelError.TimedOut, 0u, 9L<ms>)

              let struct (state, _) = Reconnect.tick (lost, lost.RetryAt)
              state

          let over reasons =
              isOver (Reconnect.failed (trying, reasons, 0u, 20_000L<ms>))

          Expect.isTrue (over [ TunnelError.Unauthorized; TunnelError.Unauthorized ]) "all refuse"
          Expect.isFalse (over [ TunnelError.Unauthorized; TunnelError.TimedOut ]) "one does not answer"
          Expect.isFalse (over [ TunnelError.TlsCaMissing ]) "a captive portal"

      testCase "without reconnect, the end of a connection is the end"
      <| fun () ->
          let state =
              Reconnect.lost (onlineAt 0L<ms> { IsEnabled = false; Attempts = 0 }, TunnelError.TimedOut, 0u, 9L<ms>)

          Expect.isTrue (isOver state) "over"

      testCase "over is final"
      <| fun () ->
          let over =
              Reconnect.lost (onlineAt 0L<ms> forEver, TunnelError.Unauthorized, 0u, 9L<ms>)

          let struct (ticked, isStarting) = Reconnect.tick (over, 1_000_000L<ms>)

          for state in
              [ ticked
                Reconnect.online (over, 10L<ms>)
                Reconnect.networkChanged (over, 10L<ms>)
                Reconnect.lost (over, TunnelError.TimedOut, 0u, 10L<ms>)
                Reconnect.failed (over, [ TunnelError.TimedOut ], 0u, 10L<ms>) ] do
              Expect.isTrue (isOver state) "over"

          Expect.isFalse isStarting "no round" ]

let private network =
    let online = onlineAt 0L<ms> forEver
    let waiting = Reconnect.lost (online, TunnelError.TimedOut, 0u, 100_000L<ms>)
    let struct (trying, _) = Reconnect.tick (waiting, waiting.RetryAt)
    let first = Reconnect.create (forEver, 0L<ms>)

    [ testCase
          "after a change of network a UDP connection pings, a TCP connection asks or has lost its address, a round starts again, a first round and a wait continue"
      <| fun () ->
          for state, transport, isGone, expected in
              [ online, Transport.Datagram, false, NetworkAnswer.Ping
                online, Transport.Datagram, true, NetworkAnswer.Ping
                online, Transport.Stream, false, NetworkAnswer.Ask
                online, Transport.Stream, true, NetworkAnswer.Reconnect
                trying, Transport.Datagram, false, NetworkAnswer.Reconnect
                trying, Transport.Stream, false, NetworkAnswer.Reconnect
                waiting, Transport.Stream, true, NetworkAnswer.Nothing
                first, Transport.Datagram, true, NetworkAnswer.Nothing ] do
              Expect.equal (Reconnect.networkAnswer (state, transport, isGone)) expected $"{state.Phase} {transport}"

      testCase
          "a sleep of less than 2 s is ignored; after up to 10 s a TCP connection asks, after more it is made again"
      <| fun () ->
          for state, transport, slept, expected in
              [ online, Transport.Datagram, 1_999L<ms>, NetworkAnswer.Nothing
                online, Transport.Datagram, 2_000L<ms>, NetworkAnswer.Ping
                online, Transport.Datagram, 86_400_000L<ms>, NetworkAnswer.Ping
                online, Transport.Stream, 1_999L<ms>, NetworkAnswer.Nothing
                online, Transport.Stream, 2_000L<ms>, NetworkAnswer.Ask
                online, Transport.Stream, 9_999L<ms>, NetworkAnswer.Ask
                online, Transport.Stream, 10_000L<ms>, NetworkAnswer.Reconnect
                trying, Transport.Stream, 2_000L<ms>, NetworkAnswer.Reconnect
                first, Transport.Stream, 60_000L<ms>, NetworkAnswer.Nothing ] do
              Expect.equal (Reconnect.resumeAnswer (state, transport, slept)) expected $"{state.Phase} {slept}"

      testCase
          "a stream that a change of network ends is followed at once, a round no sooner than a second after its start"
      <| fun () ->
          Expect.equal (Reconnect.networkChanged (online, 50_000L<ms>)).RetryAt 50_000L<ms> "at once"
          let at = waiting.RetryAt
          Expect.equal (Reconnect.networkChanged (trying, at + 10L<ms>)).RetryAt (at + 1_000L<ms>) "a second"

          let off = onlineAt 0L<ms> { IsEnabled = false; Attempts = 0 }
          Expect.isTrue (isOver (Reconnect.networkChanged (off, 50_000L<ms>))) "without reconnect it is the end"
          Expect.equal (Reconnect.networkChanged (first, 10L<ms>)) first "the first round goes on"

      testProperty "only the clock that runs on in sleep measures it"
      <| fun (before: byte) (slept: uint16) (awake: uint16) ->
          let running, awake, slept =
              milliseconds (int before), milliseconds (int awake), milliseconds (int slept)

          let boot = running + 7_000L<ms>
          Reconnect.sleptBetween (running, boot, running + awake, boot + awake + slept) = slept

      testCase "a clock that went back is no sleep"
      <| fun () -> Expect.equal (Reconnect.sleptBetween (0L<ms>, 50L<ms>, 100L<ms>, 60L<ms>)) 0L<ms> "none" ]

let laws = testList "reconnect" (waits @ reasons @ network)

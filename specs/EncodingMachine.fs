/// Requests to encode packets, and their answers (protocol §4.9): laws about whole histories.
module Lightway.Specs.EncodingMachine

open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// Times at which a client sends a request made at 0 that nobody answers, one entry per ms, and what it sends.
let private sent (enable: bool) (until: int) =
    let mutable state = InsideEncoding.request (InsideEncoding.create, enable, 0L<ms>)
    let first = 0L<ms>, state.Id, state.Enable

    [ first
      for now in 1..until do
          let now = milliseconds now
          let due = now >= state.RepeatAt
          let struct (next, again) = InsideEncoding.timer (state, now)

          if not due && next <> state then
              failtest "an early call changes something"

          state <- next

          if again then
              now, state.Id, state.Enable ]

/// The part of a client's history that its state must follow: every request, and every answer by its id.
type private Model =
    { Requests: int
      Waiting: bool
      On: bool }

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<SeedArbitrary> ] }

let private client (seed: int) : bool =
    let random = System.Random seed
    let mutable state = InsideEncoding.create

    let mutable model =
        { Requests = 0
          Waiting = false
          On = false }

    let mutable now = 0L<ms>
    let mutable firstAt = 0L<ms>
    let mutable holds = true

    for _ in 1..30 do
        match random.Next 4 with
        | 0 ->
            let enable = random.Next 2 = 0
            state <- InsideEncoding.request (state, enable, now)
            holds <- holds && state.Enable = enable
            firstAt <- now

            model <-
                { model with
                    Requests = model.Requests + 1
                    Waiting = true }
        | 1 ->
            let id = max 0 (model.Requests - random.Next 2 + random.Next 2)
            let enable = random.Next 2 = 0
            state <- InsideEncoding.answered (state, uint64 id, enable)

            if model.Waiting && id = model.Requests then
                model <-
                    { model with
                        Waiting = false
                        On = enable }
        | _ ->
            now <- now + milliseconds (random.Next 3_000)
            let struct (next, _) = InsideEncoding.timer (state, now)
            state <- next

            // Given up: the timer was called late at times, so the model asks the state when, within bounds.
            if model.Waiting && state.RepeatAt = Time.Never then
                holds <- holds && now - firstAt >= 10_500L<ms>
                model <- { model with Waiting = false }

        holds <-
            holds
            && state.IsOn = model.On
            && state.Id = uint64 model.Requests
            && (state.RepeatAt <> Time.Never) = model.Waiting

    holds

let laws =
    testList
        "encoding requests"
        [ testPropertyWithConfig config "a client's encoding is what the answer to its newest request said"
          <| fun (Seed seed) -> client seed

          testCase "§4.9: a request without an answer is sent six times, then given up"
          <| fun () ->
              for enable in [ true; false ] do
                  Expect.equal
                      (sent enable 60_000)
                      [ for at in [ 0; 500; 1_500; 3_000; 5_000; 7_500 ] -> milliseconds at, 1UL, enable ]
                      "sent"

          testCase "§4.9: an answer that comes after the request was given up changes nothing"
          <| fun () ->
              let mutable state = InsideEncoding.request (InsideEncoding.create, true, 0L<ms>)

              while state.RepeatAt <> Time.Never do
                  let struct (next, _) = InsideEncoding.timer (state, state.RepeatAt)
                  state <- next

              Expect.isFalse (InsideEncoding.answered (state, 1UL, true)).IsOn "off"
              let struct (late, again) = InsideEncoding.timer (state, Time.Never)
              Expect.equal (late, again) (state, false) "nothing is due, ever"

          testCase "§4.9: the second answer to a request changes nothing"
          <| fun () ->
              let state = InsideEncoding.request (InsideEncoding.create, true, 0L<ms>)
              let on = InsideEncoding.answered (state, 1UL, true)
              Expect.isTrue on.IsOn "on"
              Expect.equal (InsideEncoding.answered (on, 1UL, false)) on "still on"

          testPropertyWithConfig config "§4.9: a server agrees unless the peer may not, or a later request came first"
          <| fun (requests: (byte * bool * bool) list) ->
              let mutable state = InsideEncoding.create
              let mutable latest = 0uy
              let mutable on = false

              requests
              |> List.forall (fun (id, enable, mayEncode) ->
                  let struct (next, verdict) =
                      InsideEncoding.requested (state, uint64 id, enable, mayEncode)

                  let expected =
                      if not mayEncode then EncodingVerdict.Refuse
                      elif id < latest then EncodingVerdict.Ignore
                      else EncodingVerdict.Agree

                  if expected = EncodingVerdict.Agree then
                      latest <- id
                      on <- enable

                  let isSame = next = state
                  state <- next

                  verdict = expected
                  && next.IsOn = on
                  && next.RepeatAt = Time.Never
                  && (verdict = EncodingVerdict.Agree || isSame)) ]

/// What sessions were used for recently, compared with a list of everything that came.
module Lightway.Specs.SessionUses

open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol

/// When a datagram came, in ms, and whether it held a packet.
type private Event = { At: int64<ms>; IsPacket: bool }

let private events =
    gen {
        let! at = Gen.choose (0, 100)
        let! isPacket = Gen.elements [ true; false ]

        return
            { At = int64 at * 1L<ms>
              IsPacket = isPacket }
    }

let private histories = Gen.nonEmptyListOf events |> Gen.resize 6

/// From the whole history.
let private expected (window: int64<ms>) (now: int64<ms>) (history: Event list) =
    let recent = history |> List.filter (fun event -> now - event.At <= window)

    if recent |> List.exists _.IsPacket then SessionUse.Active
    elif not recent.IsEmpty then SessionUse.Standby
    else SessionUse.Silent

/// From what a connection keeps of it.
let private found (window: int64<ms>) (now: int64<ms>) (history: Event list) =
    let latest (events: Event list) =
        (Time.Always, events) ||> List.fold (fun latest event -> max latest event.At)

    SessionUse.within (window, now, latest history, latest (List.filter _.IsPacket history))

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 5_000 }

let laws: Test =
    testList
        "session use"
        [ testPropertyWithConfig config "the latest datagram and the latest packet say what the whole history says"
          <| Prop.forAll
              (Arb.fromGen (Gen.zip3 histories (Gen.choose (0, 120)) (Gen.choose (0, 60))))
              (fun (history, window, later) ->
                  let window = int64 window * 1L<ms>
                  let now = (history |> List.map _.At |> List.max) + int64 later * 1L<ms>
                  found window now history = expected window now history)

          test "a session without a packet is never active, however long the window" {
              Expect.equal (SessionUse.within (1000L<ms>, 5L<ms>, 5L<ms>, Time.Always)) SessionUse.Standby "standby"
          }

          test "the windows are those of the reference server" {
              Expect.equal SessionUse.windows [| 5; 15; 60 |] "minutes"
          } ]

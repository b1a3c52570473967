/// A client's view of rejects (protocol §2).
module Lightway.Specs.RejectMachine

open Expecto
open Lightway.Protocol

type private Happening =
    | Rejected
    | Heard
    | Passes of byte // tenths of a second

/// What a client concludes from a history, with a tick per second: was it told to ask, and did it give up?
let private run (history: Happening list) =
    let mutable state = Rejects.none
    let mutable now = 1_000L<ms>
    let mutable heardAt = 0L<ms>
    let mutable asks = 0
    let mutable isOver = false

    for happening in history do
        if not isOver then
            match happening with
            | Rejected ->
                let struct (next, isAsking) = Rejects.rejected (state, now)
                state <- next
                asks <- asks + (if isAsking then 1 else 0)
            | Heard -> heardAt <- now
            | Passes tenths -> now <- now + int64 tenths * 100L<ms>

            let struct (next, isGone) = Rejects.tick (state, heardAt, now)
            state <- next
            isOver <- isGone

    asks, isOver

let laws =
    testList
        "rejects"
        [ testProperty "§2: a single reject never ends a connection, however long the server is silent after it"
          <| fun (before: byte) (after: byte list) ->
              run (Passes before :: Rejected :: List.map Passes after) |> snd |> not

          testCase
              "§2: a server that has lost the session rejects the ping, too: the connection ends after 3 s, not earlier"
          <| fun () ->
              let start = [ Rejected; Passes 1uy; Rejected ]
              Expect.equal (run (start @ [ Passes 28uy ])) (1, false) "2.9 s"
              Expect.equal (run (start @ [ Passes 29uy ])) (1, true) "3 s"

          testProperty "§2: an authentic datagram within the time takes all rejects back"
          <| fun (count: byte) ->
              let rejects = List.replicate (int count) Rejected
              run (Rejected :: rejects @ [ Passes 20uy; Heard; Passes 1uy; Passes 90uy ]) |> snd |> not

          testCase "§2: each round of rejects asks once, and the next round asks again"
          <| fun () ->
              let round = [ Rejected; Rejected; Rejected; Passes 5uy; Heard; Passes 5uy ]
              Expect.equal (run (round @ round)) (2, false) "asked twice"

          testCase
              "§2: a forged reject during an outage is forgotten: another one much later asks again, and ends nothing"
          <| fun () -> Expect.equal (run [ Rejected; Passes 40uy; Rejected; Passes 40uy ]) (2, false) "no end" ]

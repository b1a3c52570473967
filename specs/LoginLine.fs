/// Logins that wait for their check, against a list of who has asked.
module Lightway.Specs.LoginLine

open System
open Expecto
open Lightway.Protocol

let private seed =
    { First = 0x0123456789ABCDEFUL
      Second = 0xFEDCBA9876543210UL }

let private stay = 3_000L<ms>
let private places = 64

/// A host of a network.
let private sourceOf (network: int) (host: int) =
    SourceKey.ofIpv4 (seed, (uint32 network <<< 8) ||| uint32 host)

let private gateOf checks =
    LoginGate(LoginLimits.Standard checks, seed)

/// A line and the gate that it leads to; requests are texts.
type private Desk(checks: int) =
    let gate = gateOf checks
    let line = LoginLine<string>(places, stay, ignore)
    let mutable ticket = 0L

    member _.Gate = gate
    member _.Count = line.Count
    member _.Ticket = ticket

    member _.Join source user now (text: string) = line.Join(source, user, now, text)

    /// Whose check starts.
    member _.Next(now: int64<ms>) : string option =
        let mutable next = null

        if line.TryNext(gate, now, &ticket, &next) then
            Some next
        else
            None

    /// Ends the check that started last, and starts the next one.
    member this.Turn(now: int64<ms>) : string option =
        gate.Ended ticket |> ignore
        this.Next now

    member this.Turns (now: int64<ms>) (count: int) : string list =
        List.init count (fun _ -> this.Turn now) |> List.choose id

let private join (desk: Desk) source user now text =
    Expect.isTrue (desk.Join source user now text) $"{text} has a place"

let laws =
    testList
        "login line"
        [ testCase "whoever waits is checked in the order of coming, and nobody while all slots are taken"
          <| fun () ->
              let desk = Desk 2

              for number in 1..5 do
                  join desk (sourceOf number 1) (uint64 number) 0L<ms> $"{number}"

              Expect.equal (List.init 3 (fun _ -> desk.Next 1L<ms>)) [ Some "1"; Some "2"; None ] "two at once"
              Expect.equal desk.Ticket 0L "a ticket only for a check"
              Expect.equal desk.Count 3 "the others wait"

          testCase "50 clients that ask at the same moments are checked without a pause"
          <| fun () ->
              // They repeat every 2 s, all at once; a check takes 1 s.
              let desk = Desk 1
              let line = ResizeArray [ 1..50 ]
              let mutable checkedAt = []
              let mutable isBusy = false

              for now in 0L..1_000L..60_000L do
                  let now = now * 1L<ms>

                  if now % 2_000L<ms> = 0L<ms> then
                      for number in line do
                          desk.Join (sourceOf number 1) (uint64 number) now $"{number}" |> ignore

                  match (if isBusy then desk.Turn now else desk.Next now) with
                  | Some text ->
                      isBusy <- true
                      line.Remove(int text) |> ignore
                      checkedAt <- now :: checkedAt
                  | None -> isBusy <- false

              Expect.equal (List.rev checkedAt) [ for second in 0L .. 49L -> second * 1_000L<ms> ] "one per second"

          testCase "who does not ask again in time has left, and costs no check"
          <| fun () ->
              let desk = Desk 1
              join desk (sourceOf 1 1) 1UL 0L<ms> "left"
              join desk (sourceOf 2 1) 2UL 0L<ms> "stays"
              join desk (sourceOf 2 1) 2UL 2_000L<ms> "stays"
              Expect.equal (desk.Next 3_001L<ms>) (Some "stays") "next"
              Expect.equal desk.Count 0 "nobody else"
              join desk (sourceOf 3 1) 3UL 5_000L<ms> "at the last moment"
              Expect.equal (desk.Turn 8_000L<ms>) (Some "at the last moment") "still there"

          testCase "places of those who have left are free at once"
          <| fun () ->
              let desk = Desk 1

              for number in 1..places do
                  join desk (sourceOf number 1) 1UL 0L<ms> $"{number}"

              Expect.isFalse (desk.Join (sourceOf 1_000 1) 1UL 3_000L<ms> "no room") "full"
              Expect.isTrue (desk.Join (sourceOf 1_000 1) 1UL 3_001L<ms> "room") "all have left"

          testCase
              "a clock that differs by some milliseconds drops nobody, and one that went far back does not keep anybody"
          <| fun () ->
              let desk = Desk 1
              join desk (sourceOf 1 1) 1UL 100_000L<ms> "ahead"
              Expect.equal (desk.Next 99_990L<ms>) (Some "ahead") "another worker's clock"
              join desk (sourceOf 2 1) 2UL 100_000L<ms> "of the future"
              Expect.equal (desk.Turn 50_000L<ms>) None "the clock went back"
              Expect.equal desk.Count 0 "gone"

          testCase "asking again keeps the turn, and the latest request counts"
          <| fun () ->
              let desk = Desk 1
              join desk (sourceOf 1 1) 1UL 0L<ms> "first connection"
              join desk (sourceOf 2 1) 2UL 0L<ms> "other"

              for now in 1L .. 20L do
                  join desk (sourceOf 1 1) 1UL (now * 1L<ms>) $"connection {now}"

              Expect.equal desk.Count 2 "one place"
              Expect.equal (desk.Next 20L<ms>) (Some "connection 20") "its turn"
              Expect.equal (desk.Turn 20L<ms>) (Some "other") "then the other"

          testCase "the same user at another source, or another user at the source, has a place of its own"
          <| fun () ->
              let desk = Desk 1
              join desk (sourceOf 1 1) 1UL 0L<ms> "a"
              join desk (sourceOf 1 2) 1UL 0L<ms> "b"
              join desk (sourceOf 1 1) 2UL 0L<ms> "c"
              Expect.equal desk.Count 3 "places"

          testCase
              "a network that has many places gets every second turn while another one waits, and so does a source in it"
          <| fun () ->
              let desk = Desk 1

              for user in 1..3 do
                  join desk (sourceOf 1 1) (uint64 user) 0L<ms> $"greedy {user}"

              join desk (sourceOf 1 2) 10UL 0L<ms> "neighbour"

              for user in 21..23 do
                  join desk (sourceOf 2 1) (uint64 user) 0L<ms> $"other {user}"

              Expect.equal
                  (desk.Turns 0L<ms> 7)
                  [ "greedy 1"; "other 21"; "neighbour"; "other 22"; "greedy 2"; "other 23"; "greedy 3" ]
                  "turns"

          testCase "who may not be checked yet is passed over and keeps the place"
          <| fun () ->
              let desk = Desk 2
              join desk (sourceOf 1 1) 1UL 0L<ms> "one"
              Expect.equal (desk.Next 0L<ms>) (Some "one") "first"
              join desk (sourceOf 1 1) 2UL 0L<ms> "same source"
              join desk (sourceOf 2 1) 1UL 0L<ms> "same user"
              desk.Gate.Failed(sourceOf 3 1, 3UL, 0L<ms>) |> ignore
              join desk (sourceOf 3 1) 3UL 0L<ms> "too early"
              join desk (sourceOf 4 1) 4UL 0L<ms> "free"
              Expect.equal (desk.Next 0L<ms>) (Some "free") "the only one who may"
              Expect.equal desk.Count 3 "the others wait"

          testCase "a source has a sixteenth of the places, its network a quarter"
          <| fun () ->
              let desk = Desk 1

              let taken =
                  [ for host in 1..10 do
                        for user in 1..10 do
                            if desk.Join (sourceOf 1 host) (uint64 user) 0L<ms> "" then
                                host ]

              Expect.equal
                  taken
                  [ for host in 1..4 do
                        yield! List.replicate 4 host ]
                  "sources of the places"

              Expect.isTrue (desk.Join (sourceOf 2 1) 1UL 0L<ms> "") "others have theirs"

          testCase "the gate knows whose check runs"
          <| fun () ->
              let gate = gateOf 3
              let mutable ticket = 0L
              gate.TryStart(sourceOf 1 1, 1UL, 0L<ms>, &ticket) |> ignore
              let mutable other = 0L
              gate.TryStart(sourceOf 2 1, 2UL, 0L<ms>, &other) |> ignore
              Expect.isTrue (gate.IsChecking(sourceOf 1 1, 1UL)) "runs"
              Expect.isFalse (gate.IsChecking(sourceOf 1 1, 2UL)) "another user"
              Expect.isFalse (gate.IsChecking(sourceOf 2 1, 1UL)) "another source"
              gate.Ended ticket |> ignore
              Expect.isFalse (gate.IsChecking(sourceOf 1 1, 1UL)) "has ended" ]

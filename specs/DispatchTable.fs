/// The connection that reads a datagram (protocol §2): the five numbered rules as a list in which the first that fits
/// decides, over the whole input space.
module Lightway.Specs.DispatchTable

open System
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

type Arrival =
    { Claim: SessionClaim
      Sender: Sender
      Payload: WirePayload
      Opening: Opening }

let private all =
    [ for claim in Enum.GetValues<SessionClaim>() do
          for sender in Enum.GetValues<Sender>() do
              for payload in Enum.GetValues<WirePayload>() do
                  for opening in Enum.GetValues<Opening>() do
                      { Claim = claim
                        Sender = sender
                        Payload = payload
                        Opening = opening } ]

let private verdictOf arrival =
    DispatchRules.verdict (arrival.Claim, arrival.Sender, arrival.Payload, arrival.Opening)

let private isZero arrival = arrival.Claim = SessionClaim.Empty
let private isKnown arrival = arrival.Sender = Sender.Known

let private isHello arrival =
    isZero arrival && arrival.Payload = WirePayload.Dtls && arrival.Opening <> Opening.None

/// The id of the address's connection, from an address that has none.
let private contradicts arrival =
    arrival.Claim = SessionClaim.OfPeer && not (isKnown arrival)

/// Number, condition and verdict of each rule. Rule 3's exception comes before it.
let private rules =
    [ "1", (fun arrival -> arrival.Claim = SessionClaim.Rejected), DispatchVerdict.Drop
      "2", (fun arrival -> arrival.Claim = SessionClaim.OfOther), DispatchVerdict.Move
      "3, another random",
      (fun arrival -> isKnown arrival && isHello arrival && arrival.Opening = Opening.Fresh),
      DispatchVerdict.Restart
      "3, a copy or a later fragment",
      (fun arrival -> isKnown arrival && isHello arrival),
      DispatchVerdict.ReceiveHandshake
      "3", isKnown, DispatchVerdict.Receive
      "4", isZero, DispatchVerdict.Accept
      "none, a contradiction", contradicts, DispatchVerdict.Drop
      "5", (fun _ -> true), DispatchVerdict.Reject ]

let private ruleOf arrival =
    rules |> List.find (fun (_, fits, _) -> fits arrival)

let private table =
    [ for name, _, verdict in rules do
          testCase $"§2, rule {name}: {verdict}"
          <| fun () ->
              let arrivals =
                  all
                  |> List.filter (fun arrival ->
                      let first, _, _ = ruleOf arrival
                      first = name)

              Expect.isNonEmpty arrivals "datagrams"

              for arrival in arrivals do
                  Expect.equal (verdictOf arrival) verdict $"{arrival}" ]

/// A sentence about every datagram: if the first holds, so does the second.
let private law (sentence: string) (given: Arrival -> bool) (holds: Arrival -> bool) =
    testCase sentence
    <| fun () ->
        let matching = all |> List.filter given
        Expect.isNonEmpty matching "datagrams"
        Expect.isEmpty (matching |> List.filter (holds >> not)) "exceptions"

let private is (verdicts: DispatchVerdict list) arrival =
    List.contains (verdictOf arrival) verdicts

let private sentences =
    [ law
          "§2: the reject's id is never answered"
          (fun arrival -> arrival.Claim = SessionClaim.Rejected)
          (is [ DispatchVerdict.Drop ])

      law
          "§2: nothing else is dropped, but an id that contradicts its address"
          (is [ DispatchVerdict.Drop ])
          (fun arrival -> arrival.Claim = SessionClaim.Rejected || contradicts arrival)

      law
          "§2: a session id of another connection decides before the address does"
          (fun arrival -> arrival.Claim = SessionClaim.OfOther)
          (is [ DispatchVerdict.Move ])

      law
          "§2: a connection moves only to an address that shows its session id"
          (is [ DispatchVerdict.Move ])
          (fun arrival -> arrival.Claim = SessionClaim.OfOther)

      law
          "§2: a datagram from a known address is never rejected, and gets no cookie but for a restart"
          isKnown
          (is [ DispatchVerdict.Reject; DispatchVerdict.Accept ] >> not)

      law
          "§2: a datagram from a stranger never reaches a connection but by its session id"
          (isKnown >> not)
          (is [ DispatchVerdict.Receive; DispatchVerdict.ReceiveHandshake; DispatchVerdict.Restart ] >> not)

      law
          "§2: a handshake starts from session zero only"
          (is [ DispatchVerdict.Accept; DispatchVerdict.Restart ])
          isZero

      law
          "§2: beside a connection, only a ClientHello with another random starts a handshake, and not as Expresslane"
          (is [ DispatchVerdict.Restart ])
          (fun arrival -> arrival.Opening = Opening.Fresh && arrival.Payload = WirePayload.Dtls && isKnown arrival)

      law
          "§2: a copy of a ClientHello starts nothing beside a connection"
          (fun arrival -> arrival.Opening = Opening.Copy && isKnown arrival)
          (is [ DispatchVerdict.Restart; DispatchVerdict.Accept ] >> not)

      law
          "§2: an Expresslane packet from a known address is read by its owner, never as a handshake"
          (fun arrival -> isKnown arrival && arrival.Payload = WirePayload.Expresslane)
          (is [ DispatchVerdict.Receive; DispatchVerdict.Move; DispatchVerdict.Drop ])

      law
          "§2: a datagram with the id of its address's own connection is read by it, whatever the body begins with"
          (fun arrival -> arrival.Claim = SessionClaim.OfPeer && isKnown arrival)
          (is [ DispatchVerdict.Receive ])

      law
          "§2: the body is looked at only for session zero, from a known address, without Expresslane"
          (fun arrival -> not (isKnown arrival && isZero arrival && arrival.Payload = WirePayload.Dtls))
          (fun arrival ->
              Enum.GetValues<Opening>()
              |> Array.forall (fun opening -> verdictOf { arrival with Opening = opening } = verdictOf arrival))

      law
          "§2: an id that nobody has gets a reject exactly where nobody is known"
          (fun arrival -> arrival.Claim = SessionClaim.Unknown)
          (fun arrival -> is [ DispatchVerdict.Reject ] arrival = not (isKnown arrival))

      testCase "§2: every verdict is given to some datagram"
      <| fun () ->
          let given = all |> List.map verdictOf |> List.distinct |> List.sort
          Expect.equal given (List.ofSeq (Enum.GetValues<DispatchVerdict>())) "verdicts"

      testCase "totality: numbers that are no case have a verdict, and never one that starts or moves something"
      <| fun () ->
          for number in [ -1; 5; 99; Int32.MaxValue; Int32.MinValue ] do
              for arrival in all do
                  let odd =
                      DispatchRules.verdict (
                          enum<SessionClaim> number,
                          arrival.Sender,
                          arrival.Payload,
                          arrival.Opening
                      )

                  let harmless =
                      if isKnown arrival then
                          DispatchVerdict.Receive
                      else
                          DispatchVerdict.Drop

                  Expect.equal odd harmless "claim"

                  for verdict in
                      [ verdictOf
                            { arrival with
                                Opening = enum<Opening> number }
                        verdictOf
                            { arrival with
                                Sender = enum<Sender> number }
                        verdictOf
                            { arrival with
                                Payload = enum<WirePayload> number } ] do
                      Expect.isTrue (Enum.IsDefined verdict) "verdict"

      testCase "a verdict allocates nothing"
      <| fun () ->
          let arrivals = Array.ofList all

          let allocated =
              allocatedBy (fun () ->
                  for arrival in arrivals do
                      DispatchRules.verdict (arrival.Claim, arrival.Sender, arrival.Payload, arrival.Opening) |> ignore)

          Expect.equal allocated 0L "bytes" ]

let laws =
    testList "dispatch" [ testList "table" table; testList "sentences" sentences ]

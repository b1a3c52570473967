/// Places of connections without a login, against a list in which everybody is counted from scratch.
module Lightway.Specs.HalfOpenPlaces

open System
open System.Collections.Generic
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// A wide source and a narrow one in it.
type private Place = { Wide: int; Narrow: int; Age: int }

/// The rule in its own words. Places are in order of age.
type private Model(places: int, perNarrow: int, perWide: int) =
    let mutable here: Place list = []
    let mutable age = 0

    let countWith (newcomer: Place) (isSame: Place -> bool) =
        newcomer :: here |> List.filter isSame |> List.length

    member _.Here = here

    /// Who gives way to a newcomer, by age.
    member _.Enter(wide: int, narrow: int) : int option =
        age <- age + 1

        let newcomer =
            { Wide = wide
              Narrow = narrow
              Age = age }

        let sameWide (one: Place) (other: Place) = one.Wide = other.Wide

        let sameNarrow (one: Place) (other: Place) =
            one.Wide = other.Wide && one.Narrow = other.Narrow

        let candidates =
            if countWith newcomer (sameNarrow newcomer) > perNarrow then
                here |> List.filter (sameNarrow newcomer)
            elif countWith newcomer (sameWide newcomer) > perWide then
                here |> List.filter (sameWide newcomer)
            elif here.Length = places then
                here
            else
                []

        let greed (place: Place) =
            countWith newcomer (sameWide place), countWith newcomer (sameNarrow place)

        // The oldest of the greediest: the first in the list that has the most.
        let gone =
            match candidates with
            | [] -> None
            | _ ->
                let most = candidates |> List.map greed |> List.max
                candidates |> List.find (fun place -> greed place = most) |> Some

        here <- (here |> List.filter (fun place -> Some place <> gone)) @ [ newcomer ]
        gone |> Option.map _.Age

    member _.Leave(age: int) : bool =
        let isHere = here |> List.exists (fun place -> place.Age = age)
        here <- here |> List.filter (fun place -> place.Age <> age)
        isHere

/// What happens: a newcomer of a source, or a connection, by its age, that leaves, maybe not for the first time.
type Coming =
    | Comes of wide: int * narrow: int
    | Goes of age: int

type ComingArbitrary =
    static member Coming() =
        Gen.frequency
            [ 5, Gen.map2 (fun wide narrow -> Comes(wide, narrow)) (Gen.choose (0, 4)) (Gen.choose (0, 3))
              3, Gen.map (fun narrow -> Comes(9, narrow)) (Gen.choose (0, 2))
              3, Gen.map Goes (Gen.choose (1, 150)) ]
        |> Arb.fromGen

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        endSize = 200
        arbitrary = [ typeof<ComingArbitrary> ] }

let private seed = { First = 3UL; Second = 4UL }

/// Sources whose keys have equal low bits, so that they share chains: as hashes do at times.
let private source (wide: int) (narrow: int) : SourceKey =
    { Narrow = uint64 (wide * 10 + narrow) <<< 40 ||| uint64 (narrow % 2)
      Wide = uint64 wide <<< 33 }

let private agrees (places: int, perNarrow: int, perWide: int) (comings: Coming list) =
    let table = HalfOpen(places, perNarrow, perWide)
    let model = Model(places, perNarrow, perWide)
    let tickets = List<int64>() // by age

    comings
    |> List.forall (fun coming ->
        let isRight =
            match coming with
            | Comes(wide, narrow) ->
                let entry = table.Enter(source wide narrow)
                let isNew = entry.Ticket <> 0L && not (tickets.Contains entry.Ticket)
                tickets.Add entry.Ticket

                let expected =
                    model.Enter(wide, narrow) |> Option.map (fun age -> tickets[age - 1]) |> Option.defaultValue 0L

                isNew && entry.GaveWay = expected
            | Goes age when age <= tickets.Count -> table.Leave tickets[age - 1] = model.Leave age
            | Goes age -> not (table.Leave(int64 age))

        isRight && table.Count = model.Here.Length)

let private limits =
    [ for places, perNarrow, perWide in [ 1, 1, 1; 3, 9, 9; 8, 2, 4; 8, 3, 9; 16, 9, 5; 7, 7, 7 ] do
          testPropertyWithConfig
              config
              $"the oldest of the greediest gives way: {places} places, {perNarrow} and {perWide} per source"
          <| agrees (places, perNarrow, perWide)

      testPropertyWithConfig config "no limit is ever exceeded, and a newcomer always gets a place"
      <| fun (comings: Coming list) (places: byte) (perNarrow: byte) (perWide: byte) ->
          let limit (value: byte) = 1 + int value % 9
          let table = HalfOpen(limit places, limit perNarrow, limit perWide)
          let here = Dictionary<int64, int * int>()

          comings
          |> List.forall (fun coming ->
              match coming with
              | Comes(wide, narrow) ->
                  let entry = table.Enter(source wide narrow)
                  let wasThere = entry.GaveWay = 0L || here.Remove entry.GaveWay
                  here[entry.Ticket] <- (wide, narrow)

                  let most by =
                      here.Values |> Seq.countBy by |> Seq.map snd |> Seq.fold max 0

                  wasThere && here.Count <= limit places && most id <= limit perNarrow && most fst <= limit perWide
              | Goes _ when here.Count = 0 -> true
              | Goes age ->
                  let ticket = Seq.item (age % here.Count) here.Keys
                  here.Remove ticket |> ignore
                  table.Leave ticket && not (table.Leave ticket)
              |> fun isRight -> isRight && table.Count = here.Count)

      testPropertyWithConfig
          config
          "a source with one place keeps it whatever others do, while there are places for every wide source"
      <| fun (attack: (byte * byte) list) ->
          let places = 9
          let table = HalfOpen(places, 5, 7)
          let honest = table.Enter(SourceKey.ofIpv4 (seed, 0x01020304u))

          // Eight wide sources of attackers at most.
          attack @ attack @ attack
          |> List.forall (fun (wide, narrow) ->
              let attacker =
                  SourceKey.ofIpv4 (seed, 0x0A000000u + uint32 wide % 8u * 256u + uint32 narrow)

              table.Enter(attacker).GaveWay <> honest.Ticket)
          && table.Leave honest.Ticket ]

let private cases =
    [ testCase "ten thousand finished cookies of one address leave the places of others alone"
      <| fun () ->
          let table = HalfOpen(4_096, 64, 512)

          let honest =
              [ for i in 1u .. 100u -> table.Enter(SourceKey.ofIpv4 (seed, 0x20000000u + (i <<< 12))).Ticket ]

          for _ in 1..10_000 do
              let entry = table.Enter(SourceKey.ofIpv4 (seed, 0x0A000001u))
              Expect.isFalse (List.contains entry.GaveWay honest) "an honest one"

          Expect.equal table.Count 164 "64 of the address, and the others"
          Expect.all honest table.Leave "still there"

      testCase "when all places have different sources, the oldest gives way: nobody waits"
      <| fun () ->
          let table = HalfOpen(50, 5, 5)

          let tickets =
              [ for i in 1u .. 150u -> table.Enter(SourceKey.ofIpv4 (seed, i <<< 8)) ]

          for i in 0..149 do
              Expect.equal tickets[i].GaveWay (if i < 50 then 0L else tickets[i - 50].Ticket) $"newcomer {i}"

      testCase "one host gives way before its neighbours do"
      <| fun () ->
          let table = HalfOpen(100, 100, 6)

          let address last =
              SourceKey.ofIpv4 (seed, 0x0A000000u + last)

          let neighbours = [ for last in 1u .. 3u -> table.Enter(address last).Ticket ]
          let first = table.Enter(address 9u).Ticket
          let second = table.Enter(address 9u).Ticket
          table.Enter(address 9u) |> ignore
          Expect.equal (table.Enter(address 4u).GaveWay) first "its oldest"
          Expect.equal (table.Enter(address 9u).GaveWay) second "the next"
          Expect.all neighbours table.Leave "the neighbours are still there"

      testCase "numbers out of range are taken for the nearest that are in range"
      <| fun () ->
          for places in [ Int32.MinValue; -1; 0; 1 ] do
              let table = HalfOpen(places, Int32.MinValue, 0)
              let first = table.Enter(source 1 1)
              let second = table.Enter(source 2 2)
              Expect.equal (first.GaveWay, second.GaveWay, table.Count) (0L, first.Ticket, 1) "one place"

          for ticket in [ 0L; -1L; 1L; Int64.MinValue; Int64.MaxValue; 1L <<< 20 ] do
              Expect.isFalse (HalfOpen(3, 3, 3).Leave ticket) $"{ticket}"

      testCase "places cost no allocation"
      <| fun () ->
          let table = HalfOpen(64, 8, 16)

          let round () =
              for i in 1..1_000 do
                  let entry = table.Enter(source (i % 40) (i % 7))

                  if i % 3 = 0 then
                      table.Leave entry.Ticket |> ignore

          round ()
          Expect.equal (allocatedBy round) 0L "bytes" ]

let laws = testList "half-open" (limits @ cases)

/// Incremental update of the Internet checksum: RFC 1624.
module Lightway.Specs.Rfc1624

open Expecto
open Lightway.Segmenter
open Lightway.Specs.Oracles

/// One changed word in data that is never all zero: the one case that the RFC leaves open.
let private around (word: uint16) (tail: byte[]) =
    Array.concat [ [| 0x45uy; 0uy |]; ByteSum.word (int word); tail ]

let laws =
    testList
        "RFC 1624"
        [ testProperty "§3: update of one word equals recomputing"
          <| fun (before: uint16) (after: uint16) (tail: byte[]) ->
              let field word = ByteSum.checksum (around word tail)
              Checksum.update (field before, before, after) = field after

          testProperty "§3: updatePartial of one word equals summing again"
          <| fun (before: uint16) (after: uint16) (tail: byte[]) ->
              let field word = ByteSum.sum (around word tail)
              Checksum.updatePartial (field before, before, after) = field after

          testProperty "§3: the two polarities are complements of each other"
          <| fun (field: uint16) (before: uint16) (after: uint16) ->
              Checksum.updatePartial (field, before, after) = ~~~(Checksum.update (~~~field, before, after))

          testProperty "§3: a change and its inverse leave the field as it was, but for the two zeros"
          <| fun (field: uint16) (before: uint16) (after: uint16) ->
              let back = Checksum.update (Checksum.update (field, before, after), after, before)
              back % 0xFFFFus = field % 0xFFFFus

          testCase "§4: in the RFC's example, dd2f with 5555 changed to 3285 gives 0000, not ffff"
          <| fun () -> Expect.equal (Checksum.update (0xdd2fus, 0x5555us, 0x3285us)) 0us "field"

          testCase "46bd with address 10.4.23.33 changed to 10.4.20.208 gives 490e"
          <| fun () ->
              let high = Checksum.update (0x46bdus, 0x0a04us, 0x0a04us)
              Expect.equal (Checksum.update (high, 0x1721us, 0x14d0us)) 0x490eus "field" ]

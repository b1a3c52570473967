/// Incremental update of the Internet checksum: RFC 1624.
module Lightway.Specs.Rfc1624

open Expecto
open Lightway.Segmenter
open Lightway.Specs.Oracles

/// One changed word in data that is never all zero: the one case that the RFC leaves open.
let private around (word: uint16) (tail: byte[]) =
    Array.concat [ [| 0x45uy; 0uy |]; ByteSum.word (int word); tail ]

/// RFC 1141's equation, HC' = HC + m + ~m', which RFC 1624 corrects (§3, equation 2).
let private rfc1141 (field: uint16) (before: uint16) (after: uint16) : int =
    let sum = int field + int before + (0xFFFF - int after)
    let folded = sum % 0x10000 + sum / 0x10000
    folded % 0x10000 + folded / 0x10000

/// Words at the edges of carries, and 251 that lie evenly between.
let private manyWords =
    [| 0us; 1us; 0x00FFus; 0x7FFFus; 0x8000us; 0xFF00us; 0xFFFEus; 0xFFFFus |]
    |> Array.append (Array.init 251 (fun i -> uint16 (i * 261)))

/// Fails unless `holds` for every word before and many words after, in data whose other words sum to `rest`, not 0. The
/// field for a word is the complement of one's complement addition, here with plain numbers.
let private forPairs (name: string) (holds: struct (uint16 * uint16 * uint16 * uint16) -> bool) =
    for rest in [ 0x4500; 1; 0xFFFF; 0xFFFE; 0x8000 ] do
        let field (word: uint16) =
            let sum = rest + int word
            uint16 (0xFFFF - (if sum > 0xFFFF then sum - 0xFFFF else sum))

        for before in 0us .. 0xFFFFus do
            for after in manyWords do
                if not (holds (struct (field before, before, after, field after))) then
                    failtest $"{name}: rest {rest:x4}, {before:x4} changed to {after:x4}"

let private many =
    { FsCheckConfig.defaultConfig with
        maxTest = 20_000 }

let laws =
    testList
        "RFC 1624"
        [ testCase "§3: update equals recomputing, bit by bit, for every word changed to each of 259"
          <| fun () ->
              forPairs "update" (fun (struct (field, before, after, expected)) ->
                  Checksum.update (field, before, after) = expected)

          testCase "§3: updatePartial equals summing again, bit by bit, for every word changed to each of 259"
          <| fun () ->
              forPairs "updatePartial" (fun (struct (field, before, after, expected)) ->
                  Checksum.updatePartial (~~~field, before, after) = ~~~expected)

          testCase "§4: RFC 1141's equation errs only where the data sum to ffff: it gives ffff, update 0000"
          <| fun () ->
              forPairs "RFC 1141" (fun (struct (field, before, after, expected)) ->
                  let old = rfc1141 field before after
                  let isWrong = old <> int expected
                  not isWrong || (expected = 0us && old = 0xFFFF))

              Expect.equal (rfc1141 0xdd2fus 0x5555us 0x3285us) 0xFFFF "the RFC's example, by the old equation"

          testPropertyWithConfig many "§3: update of one word equals recomputing"
          <| fun (before: uint16) (after: uint16) (tail: byte[]) ->
              let field word = ByteSum.checksum (around word tail)
              Checksum.update (field before, before, after) = field after

          testPropertyWithConfig many "§3: updatePartial of one word equals summing again"
          <| fun (before: uint16) (after: uint16) (tail: byte[]) ->
              let field word = ByteSum.sum (around word tail)
              Checksum.updatePartial (field before, before, after) = field after

          testPropertyWithConfig many "§3: the two polarities are complements of each other"
          <| fun (field: uint16) (before: uint16) (after: uint16) ->
              Checksum.updatePartial (field, before, after) = ~~~(Checksum.update (~~~field, before, after))

          testPropertyWithConfig many "§3: a change and its inverse leave the field as it was, but for the two zeros"
          <| fun (field: uint16) (before: uint16) (after: uint16) ->
              let back = Checksum.update (Checksum.update (field, before, after), after, before)
              back % 0xFFFFus = field % 0xFFFFus

          testPropertyWithConfig many "§3: two changes of a word are one change"
          <| fun (field: uint16) (first: uint16) (second: uint16) (third: uint16) ->
              let twice = Checksum.update (Checksum.update (field, first, second), second, third)
              twice % 0xFFFFus = Checksum.update (field, first, third) % 0xFFFFus

          testPropertyWithConfig many "§3: changes of two words may come in either order"
          <| fun (field: uint16) (a: uint16) (a': uint16) (b: uint16) (b': uint16) ->
              let one = Checksum.update (Checksum.update (field, a, a'), b, b')
              let other = Checksum.update (Checksum.update (field, b, b'), a, a')
              one % 0xFFFFus = other % 0xFFFFus

          testCase "§3: every field with every kind of word pair: the sum of old and new differs by the words alone"
          <| fun () ->
              let words = [ 0us; 1us; 0x00FFus; 0x7FFFus; 0x8000us; 0xFFFEus; 0xFFFFus ]

              for field in 0us .. 0xFFFFus do
                  for before in words do
                      for after in words do
                          let updated = int (Checksum.update (field, before, after))
                          // HC' = HC + m - m' in one's complement, which is arithmetic modulo 65535.
                          let expected = (int field + int before - int after + 65535) % 65535

                          if updated % 65535 <> expected then
                              failtest $"{field:x4} with {before:x4} changed to {after:x4}: {updated:x4}"

          testCase "§4: where RFC 1141 gives ffff for data that sums to ffff, the field is 0000 as if recomputed"
          <| fun () ->
              for after in 1us .. 0xFFFFus do
                  let data = [| 0x45uy; 0uy |]
                  let rest = ByteSum.word (0xFFFF - 0x4500) // with `after` = 0 in between all sums to ffff

                  let field (word: uint16) =
                      ByteSum.checksum (Array.concat [ data; ByteSum.word (int word); rest ])

                  Expect.equal (Checksum.update (field after, after, 0us)) (field 0us) $"{after:x4}"
                  Expect.equal (field 0us) 0us "recomputed"

          testCase "§4: in the RFC's example, dd2f with 5555 changed to 3285 gives 0000, not ffff"
          <| fun () -> Expect.equal (Checksum.update (0xdd2fus, 0x5555us, 0x3285us)) 0us "field"

          testCase "46bd with address 10.4.23.33 changed to 10.4.20.208 gives 490e"
          <| fun () ->
              let high = Checksum.update (0x46bdus, 0x0a04us, 0x0a04us)
              Expect.equal (Checksum.update (high, 0x1721us, 0x14d0us)) 0x490eus "field" ]

/// RFC 1071, RFC 1624 and RFC 768 for all inputs.
module Lightway.Specs.Proofs.ChecksumLaws

#nowarn "1182" // a definition that is wrong may leave an argument out

open Lightway.Segmenter
open Lightway.Specs.Proofs.Law
open Lightway.Specs.Proofs.Smt

/// The two ways to write zero in one's complement.
[<ReflectedDefinition>]
let private same (a: uint16) (b: uint16) : bool =
    a = b || (a = 0us && b = 0xFFFFus) || (a = 0xFFFFus && b = 0us)

[<ReflectedDefinition>]
let private swap (word: uint16) : uint16 =
    ((word &&& 0xFFus) <<< 8) + (word >>> 8)

/// RFC 1141's equation, HC' = HC + m + ~m', which RFC 1624 corrects (§3, equation 2).
[<ReflectedDefinition>]
let private rfc1141 (field: uint16) (before: uint16) (after: uint16) : uint16 =
    Checksum.fold (uint64 field + uint64 before + uint64 (~~~after))

/// How many times 65535 a fold takes out: each step takes 2^32 - 1, which is 65537 times 65535, or 65535.
[<ReflectedDefinition>]
let private taken (sum: uint64) : uint64 =
    let halves = (sum >>> 32) + (sum &&& 0xFFFF_FFFFUL)
    let words = (halves >>> 16) + (halves &&& 0xFFFFUL)
    let word = (words >>> 16) + (words &&& 0xFFFFUL)
    65537UL * (sum >>> 32) + (halves >>> 16) + (words >>> 16) + (word >>> 16)

/// What the others use of `Checksum.fold`.
[<Literal>]
let FoldLaw =
    "a fold differs from its sum by a multiple of 65535, and is zero only for zero"

/// `Using` this law, of which the factor does not matter.
let byFold: Law =
    { plain with
        Theory = Integers
        Opaque = [ <@@ taken @@> ]
        Using = [ FoldLaw ] }

/// What the others use of `Checksum.add`.
[<Literal>]
let private AddLaw = "addition is what a fold of both gives"

/// `Using` these two.
let private byBoth: Law =
    { byFold with
        Using = [ FoldLaw; AddLaw ] }

let private fold wrong what =
    { What = what
      Function = <@@ Checksum.fold @@>
      Wrong = wrong }

/// Three folds instead of four: the last carry is lost.
let private lostCarry =
    fold
        <@@
            fun (sum: uint64) ->
                let halves = (sum >>> 32) + (sum &&& 0xFFFF_FFFFUL)
                let words = (halves >>> 16) + (halves &&& 0xFFFFUL)
                uint16 ((words >>> 16) + words)
        @@>
        "one fold too few"

let private truncation =
    fold <@@ fun (sum: uint64) -> uint16 sum @@> "the carries are dropped"

let private addTruncates =
    { What = "the carry is dropped"
      Function = <@@ Checksum.add @@>
      Wrong = <@@ fun (a: uint16, b: uint16) -> a + b @@> }

let private addTakesMore =
    { What = "the carry is added twice"
      Function = <@@ Checksum.add @@>
      Wrong =
        <@@
            fun (a: uint16, b: uint16) ->
                let sum = uint32 a + uint32 b
                uint16 (2u * (sum >>> 16) + sum)
        @@> }

let private byRfc1141 =
    { What = "the equation of RFC 1141"
      Function = <@@ Checksum.update @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint16, after: uint16) ->
                Checksum.fold (uint64 field + uint64 before + uint64 (~~~after))
        @@> }

let private countedTwice =
    { What = "the words count in different ways"
      Function = <@@ Checksum.update @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint16, after: uint16) ->
                ~~~(Checksum.fold (uint64 (~~~field) + uint64 (~~~before) + uint64 after)) ^^^ after
        @@> }

let private updateSwapped =
    { What = "the words are exchanged"
      Function = <@@ Checksum.update @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint16, after: uint16) ->
                ~~~(Checksum.fold (uint64 (~~~field) + uint64 (~~~after) + uint64 before))
        @@> }

let private partialComplemented =
    { What = "the field is complemented"
      Function = <@@ Checksum.updatePartial @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint16, after: uint16) ->
                Checksum.fold (uint64 (~~~field) + uint64 (~~~before) + uint64 after)
        @@> }

let private negated =
    { What = "two's complement"
      Function = <@@ Checksum.complement @@>
      Wrong = <@@ fun (sum: uint16) -> 0us - sum @@> }

let private zeroStays =
    { What = "zero stays zero"
      Function = <@@ Checksum.udpField @@>
      Wrong = <@@ fun (checksum: uint16) -> checksum @@> }

let private alwaysOnes =
    { What = "one becomes ffff, too"
      Function = <@@ Checksum.udpField @@>
      Wrong = <@@ fun (checksum: uint16) -> if checksum <= 1us then 0xFFFFus else checksum @@> }

let private lengthAsIs =
    { What = "the length is not cut to 16 bits"
      Function = <@@ Checksum.pseudoHeaderV4 @@>
      Wrong =
        <@@
            fun (source: uint32, destination: uint32, protocol: byte, length: int) ->
                Checksum.fold (uint64 source + uint64 destination + uint64 protocol + uint64 length)
        @@> }

let private halfAddress =
    { What = "the low half of an address is missing"
      Function = <@@ Rewrite.updateAddress @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint32, after: uint32) ->
                Checksum.update (field, uint16 (before >>> 16), uint16 (after >>> 16))
        @@> }

let private halfAddressPartial =
    { What = "the high half of an address is missing"
      Function = <@@ Rewrite.updateAddressPartial @@>
      Wrong =
        <@@
            fun (field: uint16, before: uint32, after: uint32) ->
                Checksum.updatePartial (field, uint16 before, uint16 after)
        @@> }

let laws: Law list =
    [ { plain with
          Name = "a sum folds to zero only if it is zero"
          Source = "RFC 1071 §1"
          Statement = <@@ fun (sum: uint64) -> (Checksum.fold sum = 0us) = (sum = 0UL) @@>
          Mutant = lostCarry }

      { plain with
          Name = FoldLaw
          Source = "RFC 1071 §1"
          Theory = Integers
          About = Some <@@ Checksum.fold @@>
          Statement =
              <@@
                  fun (sum: uint64) ->
                      bigint sum = bigint (uint32 (Checksum.fold sum)) + bigint 65535 * bigint (taken sum)
                      && (Checksum.fold sum = 0us) = (sum = 0UL)
              @@>
          Mutant = truncation }

      { plain with
          Name = "16 bits fold to themselves"
          Source = "RFC 1071 §1"
          Statement = <@@ fun (word: uint16) -> Checksum.fold (uint64 word) = word @@>
          Mutant = fold <@@ fun (sum: uint64) -> uint16 (sum + 1UL) @@> "one is added" }

      { plain with
          Name = "32 bits fold to the sum of their two words"
          Source = "RFC 1071 §2(A)"
          Statement =
              <@@
                  fun (words: uint32) ->
                      Checksum.fold (uint64 words) = Checksum.add (uint16 (words >>> 16), uint16 words)
              @@>
          Mutant = truncation }

      { plain with
          Name = AddLaw
          Source = "RFC 1071 §1"
          About = Some <@@ Checksum.add @@>
          Statement = <@@ fun (a: uint16) (b: uint16) -> Checksum.add (a, b) = Checksum.fold (uint64 a + uint64 b) @@>
          Mutant = addTakesMore }

      { byBoth with
          Name = "64 bits fold to the sum of their four words"
          Source = "RFC 1071 §2(A)"
          Statement =
              <@@
                  fun (a: uint16) (b: uint16) (c: uint16) (d: uint16) ->
                      let words = (uint64 a <<< 48) + (uint64 b <<< 32) + (uint64 c <<< 16) + uint64 d

                      Checksum.fold words = Checksum.add (Checksum.add (a, b), Checksum.add (c, d))
              @@>
          Mutant = lostCarry }

      { plain with
          Name = "addition is commutative"
          Source = "RFC 1071 §2(A)"
          Statement = <@@ fun (a: uint16) (b: uint16) -> Checksum.add (a, b) = Checksum.add (b, a) @@>
          Mutant =
              { What = "one operand counts twice"
                Function = <@@ Checksum.add @@>
                Wrong = <@@ fun (a: uint16, b: uint16) -> Checksum.fold (uint64 a + uint64 a + uint64 b) @@> } }

      { plain with
          Name = "addition is associative"
          Source = "RFC 1071 §2(A)"
          Statement =
              <@@
                  fun (a: uint16) (b: uint16) (c: uint16) ->
                      Checksum.add (Checksum.add (a, b), c) = Checksum.add (a, Checksum.add (b, c))
              @@>
          Mutant = addTakesMore }

      { plain with
          Name = "zero is neutral"
          Source = "RFC 1071 §2(A)"
          Statement = <@@ fun (a: uint16) -> Checksum.add (a, 0us) = a @@>
          Mutant =
              { What = "one is added"
                Function = <@@ Checksum.add @@>
                Wrong = <@@ fun (a: uint16, b: uint16) -> Checksum.fold (uint64 a + uint64 b + 1UL) @@> } }

      { plain with
          Name = "the other zero is neutral, up to the two zeros"
          Source = "RFC 1071 §2(A)"
          Statement = <@@ fun (a: uint16) -> same (Checksum.add (a, 0xFFFFus)) a @@>
          Mutant = addTruncates }

      { plain with
          Name = "a sum is zero only if both are"
          Source = "RFC 1071 §1"
          Statement = <@@ fun (a: uint16) (b: uint16) -> (Checksum.add (a, b) = 0us) = (a = 0us && b = 0us) @@>
          Mutant = addTruncates }

      { byFold with
          Name = "sums of parts may be folded before they are added"
          Source = "RFC 1071 §2(C)"
          Statement =
              <@@
                  fun (a: uint64) (b: uint64) ->
                      (a <= 0x7FFF_FFFF_FFFF_FFFFUL && b <= 0x7FFF_FFFF_FFFF_FFFFUL)
                      ==> (Checksum.fold (a + b) = Checksum.fold (uint64 (Checksum.fold a) + uint64 (Checksum.fold b)))
              @@>
          Mutant = lostCarry }

      { plain with
          Name = "words in the other byte order have the other order's sum"
          Source = "RFC 1071 §2(B)"
          Statement = <@@ fun (a: uint16) (b: uint16) -> swap (Checksum.add (a, b)) = Checksum.add (swap a, swap b) @@>
          Mutant = addTruncates }

      { byBoth with
          Name = "a word at an odd offset counts with its bytes exchanged"
          Source = "RFC 1071 §2(B)"
          Statement =
              <@@
                  fun (a: uint16) (b: uint16) (c: uint16) ->
                      // The bytes of the words a, b and c, with one byte of zero before them and one behind.
                      let first = a >>> 8
                      let second = ((a &&& 0xFFus) <<< 8) + (b >>> 8)
                      let third = ((b &&& 0xFFus) <<< 8) + (c >>> 8)
                      let fourth = (c &&& 0xFFus) <<< 8

                      let shifted =
                          Checksum.add (Checksum.add (first, second), Checksum.add (third, fourth))

                      shifted = Checksum.add (Checksum.add (swap a, swap b), swap c)
              @@>
          Mutant = addTakesMore }

      { plain with
          Name = "a word and its complement sum to ffff"
          Source = "RFC 1071 §1"
          Statement = <@@ fun (a: uint16) -> Checksum.add (a, Checksum.complement a) = 0xFFFFus @@>
          Mutant = negated }

      { plain with
          Name = "the complement of the complement is the word"
          Source = "RFC 1071 §1"
          Statement = <@@ fun (a: uint16) -> Checksum.complement (Checksum.complement a) = a @@>
          Mutant =
              { What = "the highest bit is left"
                Function = <@@ Checksum.complement @@>
                Wrong = <@@ fun (sum: uint16) -> ~~~sum ||| 0x8000us @@> } }

      { plain with
          Name = "whoever sums over the field as well gets ffff, and for no other field but its other zero"
          Source = "RFC 1071 §1"
          Statement =
              <@@
                  fun (rest: uint16) (field: uint16) ->
                      let isSent =
                          same field (Checksum.complement rest) && not (rest = 0us && field = 0us)

                      Coalesce.isRight (rest, field) = isSent
              @@>
          Mutant =
              { What = "zero is taken for right"
                Function = <@@ Coalesce.isRight @@>
                Wrong =
                  <@@
                      fun (pseudoHeader: uint16, transport: uint16) ->
                          Checksum.add (pseudoHeader, transport) + 1us <= 1us
                  @@> } }

      { plain with
          Name = "an update equals a recomputation, unless all that is covered becomes zero"
          Source = "RFC 1624 §3, equation 3"
          Statement =
              <@@
                  fun (rest: uint16) (before: uint16) (after: uint16) ->
                      let field = Checksum.complement (Checksum.add (rest, before))
                      let recomputed = Checksum.complement (Checksum.add (rest, after))
                      (rest <> 0us || after <> 0us) ==> (Checksum.update (field, before, after) = recomputed)
              @@>
          Mutant = byRfc1141 }

      { plain with
          Name = "RFC 1141's equation errs, and nowhere but where the data sum to ffff"
          Source = "RFC 1624 §3, §4"
          Statement =
              <@@
                  fun (rest: uint16) (before: uint16) (after: uint16) ->
                      let field = Checksum.complement (Checksum.add (rest, before))
                      let right = Checksum.complement (Checksum.add (rest, after))

                      (rest <> 0us || after <> 0us)
                      ==> ((rfc1141 field before after = right)
                           || (right = 0us && rfc1141 field before after = 0xFFFFus))
              @@>
          Mutant = truncation }

      { plain with
          Name = "an update of a partial sum equals the new sum, unless all that is covered becomes zero"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (rest: uint16) (before: uint16) (after: uint16) ->
                      (rest <> 0us || after <> 0us)
                      ==> (Checksum.updatePartial (Checksum.add (rest, before), before, after) =
                              Checksum.add (rest, after))
              @@>
          Mutant = partialComplemented }

      { plain with
          Name = "both polarities are each other's complement"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (field: uint16) (before: uint16) (after: uint16) ->
                      let partial = Checksum.updatePartial (Checksum.complement field, before, after)
                      Checksum.update (field, before, after) = Checksum.complement partial
              @@>
          Mutant = updateSwapped }

      { byFold with
          Name = "two updates are one from the first word to the last, up to the two zeros"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (field: uint16) (first: uint16) (second: uint16) (third: uint16) ->
                      let twice = Checksum.update (Checksum.update (field, first, second), second, third)
                      same twice (Checksum.update (field, first, third))
              @@>
          Mutant =
              { What = "the word before is not complemented"
                Function = <@@ Checksum.update @@>
                Wrong =
                  <@@
                      fun (field: uint16, before: uint16, after: uint16) ->
                          ~~~(Checksum.fold (uint64 (~~~field) + uint64 before + uint64 after))
                  @@> } }

      { byFold with
          Name = "updates of two words may come in either order"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (field: uint16) (a: uint16) (a': uint16) (b: uint16) (b': uint16) ->
                      let one = Checksum.update (Checksum.update (field, a, a'), b, b')
                      let other = Checksum.update (Checksum.update (field, b, b'), a, a')
                      one = other
              @@>
          Mutant = countedTwice }

      { plain with
          Name = "an update and its reverse give the field back, up to the two zeros"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (field: uint16) (before: uint16) (after: uint16) ->
                      same (Checksum.update (Checksum.update (field, before, after), after, before)) field
              @@>
          Mutant =
              { What = "the carry is dropped"
                Function = <@@ Checksum.update @@>
                Wrong = <@@ fun (field: uint16, before: uint16, after: uint16) -> field + before + after @@> } }

      { byFold with
          Name = "a wrong checksum remains wrong by the same amount"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (right: uint16) (wrong: uint16) (before: uint16) (after: uint16) ->
                      let difference (a: uint16) (b: uint16) = Checksum.add (a, Checksum.complement b)

                      same
                          (difference (Checksum.update (wrong, before, after)) (Checksum.update (right, before, after)))
                          (difference wrong right)
              @@>
          Mutant =
              { What = "the field is computed from the words alone"
                Function = <@@ Checksum.update @@>
                Wrong = <@@ fun (field: uint16, before: uint16, after: uint16) -> ~~~(Checksum.add (before, after)) @@> } }

      { byFold with
          Name = "an address is updated as its two words are, whatever the rest"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (rest: uint16) (before: uint32) (after: uint32) ->
                      let field = Checksum.complement (Checksum.fold (uint64 rest + uint64 before))

                      (rest <> 0us || after <> 0u)
                      ==> same
                              (Rewrite.updateAddress (field, before, after))
                              (Checksum.complement (Checksum.fold (uint64 rest + uint64 after)))
              @@>
          Mutant = halfAddress }

      { byFold with
          Name = "an address in a partial sum is updated as its two words are"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (rest: uint16) (before: uint32) (after: uint32) ->
                      let sum = Checksum.fold (uint64 rest + uint64 before)

                      same
                          (Rewrite.updateAddressPartial (sum, before, after))
                          (Checksum.fold (uint64 rest + uint64 after))
              @@>
          Mutant = halfAddressPartial }

      { byFold with
          Name = "an address that is changed and changed back gives the field back, up to the two zeros"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (field: uint16) (before: uint32) (after: uint32) ->
                      same (Rewrite.updateAddress (Rewrite.updateAddress (field, before, after), after, before)) field
              @@>
          Mutant =
              { What = "the words of the new address are exchanged with those of the old"
                Function = <@@ Rewrite.updateAddress @@>
                Wrong =
                  <@@
                      fun (field: uint16, before: uint32, after: uint32) ->
                          Checksum.update (
                              Checksum.update (field, uint16 (before >>> 16), uint16 after),
                              uint16 before,
                              uint16 after
                          )
                  @@> } }

      { plain with
          Name = "UDP never sends zero, and changes nothing else"
          Source = "RFC 768"
          Statement =
              <@@
                  fun (checksum: uint16) ->
                      Checksum.udpField checksum <> 0us && (checksum = 0us || Checksum.udpField checksum = checksum)
              @@>
          Mutant = zeroStays }

      { plain with
          Name = "a receiver takes UDP's field as it takes the checksum"
          Source = "RFC 768"
          Statement =
              <@@
                  fun (sum: uint16) ->
                      sum <> 0us ==> (Checksum.add (sum, Checksum.udpField (Checksum.complement sum)) = 0xFFFFus)
              @@>
          Mutant = alwaysOnes }

      { byBoth with
          Name = "the pseudo-header's sum is that of its six words"
          Source = "RFC 768, RFC 9293 §3.1"
          Statement =
              <@@
                  fun (a: uint16) (b: uint16) (c: uint16) (d: uint16) (protocol: byte) (length: int) ->
                      let source = (uint32 a <<< 16) + uint32 b
                      let destination = (uint32 c <<< 16) + uint32 d
                      let addresses = Checksum.add (Checksum.add (a, b), Checksum.add (c, d))
                      let rest = Checksum.add (uint16 protocol, uint16 length)
                      Checksum.pseudoHeaderV4 (source, destination, protocol, length) = Checksum.add (addresses, rest)
              @@>
          Mutant = lengthAsIs } ]

/// Computing the Internet checksum: RFC 1071.
module Lightway.Specs.Rfc1071

open System
open System.Runtime.InteropServices
open Expecto
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Bytes, and the offset at which they are placed in their buffer: 0 to 3000 bytes, 0 to 63.
type Block = { Offset: int; Bytes: byte[] }

type BlockArbitrary =
    static member Block() =
        gen {
            let! offset = Gen.choose (0, 63)
            let! length = Gen.frequency [ 4, Gen.choose (0, 3000); 1, Gen.choose (0, 130) ]
            let! seed = Gen.choose (0, Int32.MaxValue - 1)
            let! fill = Gen.elements [ Random seed; Random seed; Random seed; Zeros; Ones ]

            return
                { Offset = offset
                  Bytes = filled fill length }
        }
        |> fun gen -> Arb.fromGenShrink (gen, BlockArbitrary.Smaller)

    /// Half the bytes, one fewer, and the start of the buffer.
    static member private Smaller(block: Block) : Block seq =
        seq {
            if block.Bytes.Length > 0 then
                { block with
                    Bytes = block.Bytes[.. block.Bytes.Length / 2 - 1] }

                { block with
                    Bytes = block.Bytes[.. block.Bytes.Length - 2] }

            if block.Offset > 0 then
                { block with Offset = 0 }
        }

let private config =
    { FsCheckConfig.defaultConfig with
        arbitrary = [ typeof<BlockArbitrary>; typeof<SeedArbitrary> ] }

let private many = { config with maxTest = 20_000 }

let private sumOf (bytes: byte[]) = Checksum.sum (ReadOnlySpan bytes)

/// The variants by name, so that none is compared with itself. A delegate, as spans cannot be captured.
type private Sum = delegate of ReadOnlySpan<byte> -> uint16

let private variants =
    [ "sum", Sum(fun data -> Checksum.sum data)
      "sumScalar", Sum(fun data -> Checksum.sumScalar data)
      "sumVector256", Sum(fun data -> Checksum.sumVector256 data)
      "sumVector512", Sum(fun data -> Checksum.sumVector512 data) ]

let private byVariant =
    [ for name, sum in variants do
          testPropertyWithConfig many $"§1: {name} is the number that the bytes spell, modulo 65535"
          <| fun (block: Block) ->
              let placed = place block.Offset block.Bytes
              sum.Invoke placed.ReadOnly = ByteSum.sum block.Bytes

          testCase $"§1: {name} of the longest packet and of 4 MiB of ones does not overflow"
          <| fun () ->
              for length in [ 65535; 4 * 1024 * 1024; 4 * 1024 * 1024 + 1 ] do
                  let bytes = filled Ones length
                  Expect.equal (sum.Invoke(ReadOnlySpan bytes)) (ByteSum.sum bytes) $"{length} bytes"

          testCase $"§3: {name} of the example 0001 f203 f4f5 f6f7 is ddf2"
          <| fun () -> Expect.equal (sum.Invoke(ReadOnlySpan(hex "0001 f203 f4f5 f6f7"))) 0xddf2us "sum" ]

/// Sums of the first 0, 1, 2, … bytes, one byte after the other: even ones count 256 fold, and what passes 16 bits
/// comes back at the bottom (§1). An odd last byte so is the first of a word padded with zero.
let private running (bytes: byte[]) : int[] =
    let step (sum, index) (value: byte) =
        let sum = sum + (if index % 2 = 0 then int value * 256 else int value)
        (if sum > 0xFFFF then sum - 0xFFFF else sum), index + 1

    Array.scan step (0, 0) bytes |> Array.map fst

/// A buffer that does not move, and the offset in it of the first address that 64 divides.
let private aligned (length: int) : struct (byte[] * int) =
    let buffer: byte[] = GC.AllocateArray(length + 64, pinned = true)
    Array.fill buffer 0 buffer.Length 0xA5uy
    let start = int64 (Marshal.UnsafeAddrOfPinnedArrayElement(buffer, 0))
    struct (buffer, int ((64L - start % 64L) % 64L))

let private everywhere =
    [ for name, sum in variants do
          testCase $"§1: {name} agrees with byte-by-byte summing at every length 0 to 3000 and every alignment 0 to 63"
          <| fun () ->
              let struct (buffer, start) = aligned (3000 + 64)

              for fill in [ Random 7; Zeros; Ones ] do
                  let bytes = filled fill 3000
                  let expected = running bytes

                  for alignment in 0..63 do
                      bytes.CopyTo(buffer, start + alignment)

                      for length in 0..3000 do
                          let found = sum.Invoke(ReadOnlySpan(buffer, start + alignment, length))

                          if int found <> expected[length] then
                              failtest $"{fill}, {length} bytes at {alignment}: {found:x4}, not {expected[length]:x4}" ]

let private evenPart (block: Block) =
    block.Bytes[.. block.Bytes.Length / 2 * 2 - 1]

let private detection =
    [ testPropertyWithConfig config "§2(C): words may be summed in any order, so by any number of processors"
      <| fun (block: Block) (Seed seed) ->
          let words = evenPart block |> Array.chunkBySize 2
          System.Random(seed).Shuffle words
          sumOf (Array.concat words) = sumOf (evenPart block)

      testPropertyWithConfig config "§4.1: an odd last byte counts as the first of a word whose second is zero"
      <| fun (block: Block) (last: byte) ->
          let even = evenPart block
          sumOf (Array.append even [| last |]) = sumOf (Array.append even [| last; 0uy |])

      testPropertyWithConfig config "§2(4): data grows by adding the sum of what is new"
      <| fun (first: Block) (second: Block) (third: Block) ->
          let parts = [ evenPart first; evenPart second; third.Bytes ]

          List.fold (fun sum part -> Checksum.add (sum, sumOf part)) 0us parts = sumOf (Array.concat parts)

      testPropertyWithConfig config "§1: zeros sum to zero, and ones to the other zero, 0xFFFF"
      <| fun (length: uint16) ->
          sumOf (filled Zeros (int length)) = 0us && sumOf (filled Ones (2 * int length + 2)) = 0xFFFFus

      testPropertyWithConfig config "§2(B): data moved by one byte has its sum's bytes swapped"
      <| fun (block: Block) ->
          let sum = sumOf block.Bytes
          sumOf (Array.append [| 0uy |] block.Bytes) = (sum >>> 8 ||| (sum <<< 8))

      testPropertyWithConfig
          config
          "§2(A): parts of any lengths may be summed apart, those at odd offsets with bytes swapped"
      <| fun (first: Block) (second: Block) ->
          let tail = sumOf second.Bytes

          let tail =
              if first.Bytes.Length % 2 = 0 then
                  tail
              else
                  tail >>> 8 ||| (tail <<< 8)

          Checksum.add (sumOf first.Bytes, tail) = sumOf (Array.append first.Bytes second.Bytes)

      testPropertyWithConfig config "§1: wherever its field is among the words, a stored checksum verifies"
      <| fun (block: Block) (place: uint16) ->
          let bytes = Array.append (evenPart block) [| 0uy; 0uy |]
          let field = int place % (bytes.Length / 2) * 2
          (ByteSum.word 0).CopyTo(bytes, field)
          (ByteSum.word (int (Checksum.complement (sumOf bytes)))).CopyTo(bytes, field)
          sumOf bytes = 0xFFFFus && ByteSum.verifies bytes

      testCase "§1: of all 65536 values of every word of a packet, a receiver accepts the one sent and its other zero"
      <| fun () ->
          for fill in [ Random 11; Zeros; Ones ] do
              let data = Array.append (filled fill 38) (hex "0001 ffff 0000")

              let sent = Array.append data (ByteSum.word (int (Checksum.complement (sumOf data))))

              for at in 0..2 .. sent.Length - 2 do
                  let bytes = Array.copy sent
                  let before = word sent at

                  for value in 0..0xFFFF do
                      bytes[at] <- byte (value >>> 8)
                      bytes[at + 1] <- byte value
                      let isAccepted = sumOf bytes = 0xFFFFus
                      let isSent = value = before || (value ^^^ before = 0xFFFF && value % 0xFFFF = 0)

                      if isAccepted <> isSent then
                          failtest $"{fill}, word at {at}: {value:x4} in place of {before:x4}"

      testPropertyWithConfig config "§1: a receiver notices any other word, but for 0000 and ffff in each other's place"
      <| fun (block: Block) (place: uint16) (other: uint16) ->
          let even = Array.append (evenPart block) [| 0x12uy; 0x34uy |]

          let bytes =
              Array.append even (ByteSum.word (int (Checksum.complement (sumOf even))))

          let at = int place % (bytes.Length / 2) * 2
          let before = word bytes at
          (ByteSum.word (int other)).CopyTo(bytes, at)
          let isSame = before % 0xFFFF = int other % 0xFFFF
          (sumOf bytes = 0xFFFFus) = isSame ]

let private arithmetic =
    [ testPropertyWithConfig config "§1: fold keeps the value modulo 65535, and gives zero for zero only"
      <| fun (high: uint32) (low: uint32) ->
          let sum = uint64 high <<< 32 ||| uint64 low
          uint64 (Checksum.fold sum) % 65535UL = sum % 65535UL && (Checksum.fold sum = 0us) = (sum = 0UL)

      testCase "§1: fold holds at the edges of 64 bits"
      <| fun () ->
          for sum in [ 0UL; 1UL; 0xFFFFUL; 0x10000UL; 0x1FFFFUL; 0xFFFF_FFFFUL; UInt64.MaxValue; UInt64.MaxValue - 1UL ] do
              Expect.equal (uint64 (Checksum.fold sum) % 65535UL) (sum % 65535UL) $"{sum}"

      testPropertyWithConfig config "§2(A): add is commutative, associative and the fold of the plain sum"
      <| fun (a: uint16) (b: uint16) (c: uint16) ->
          Checksum.add (a, b) = Checksum.add (b, a)
          && Checksum.add (Checksum.add (a, b), c) = Checksum.add (a, Checksum.add (b, c))
          && Checksum.add (a, b) = Checksum.fold (uint64 a + uint64 b)

      testPropertyWithConfig config "§2(A): parts of even length may be summed apart and added"
      <| fun (first: Block) (second: Block) ->
          let even = first.Bytes[.. first.Bytes.Length / 2 * 2 - 1]

          Checksum.add (sumOf even, sumOf second.Bytes) = sumOf (Array.append even second.Bytes)

      testPropertyWithConfig config "§2(B): swapping the bytes of each word swaps the bytes of the sum"
      <| fun (block: Block) ->
          let even = block.Bytes[.. block.Bytes.Length / 2 * 2 - 1]
          let swapped = even |> Array.chunkBySize 2 |> Array.collect Array.rev
          let sum = sumOf even
          sumOf swapped = (sum >>> 8 ||| (sum <<< 8))

      testCase "§3: the example in groups and with bytes swapped: f204 + ebed = ddf2, and f2dd"
      <| fun () ->
          Expect.equal (sumOf (hex "0001 f203")) 0xf204us "first group"
          Expect.equal (sumOf (hex "f4f5 f6f7")) 0xebedus "second group"
          Expect.equal (Checksum.add (0xf204us, 0xebedus)) 0xddf2us "both"
          Expect.equal (sumOf (hex "0100 03f2 f5f4 f7f6")) 0xf2ddus "swapped"
          Expect.equal (Checksum.complement 0xddf2us) 0x220dus "the field"

      testPropertyWithConfig config "§1: words with their checksum after them sum to the other zero, 0xFFFF"
      <| fun (block: Block) ->
          let even = block.Bytes[.. block.Bytes.Length / 2 * 2 - 1]
          let checksum = Checksum.complement (sumOf even)
          sumOf (Array.append even (ByteSum.word (int checksum))) = 0xFFFFus ]

let private pseudoHeaders =
    [ testPropertyWithConfig config "RFC 9293 §3.1: the IPv4 pseudo-header is summed as its 12 bytes spell"
      <| fun (source: uint32) (destination: uint32) (protocol: byte) (length: uint16) ->
          let address (value: uint32) =
              Array.append (ByteSum.word (int (value >>> 16))) (ByteSum.word (int value))

          let spelled =
              Array.concat [ address source; address destination; [| 0uy; protocol |]; ByteSum.word (int length) ]

          Checksum.pseudoHeaderV4 (source, destination, protocol, int length) = ByteSum.sum spelled

      testPropertyWithConfig config "RFC 8200 §8.1: the IPv6 pseudo-header is summed as its 40 bytes spell"
      <| fun (Seed seed) (protocol: byte) (length: uint16) ->
          let addresses = filled (Random seed) 32
          let packet = Array.append (junk 8) addresses
          let spelled = ByteSum.pseudoHeaderV6 packet protocol (int length)
          Checksum.pseudoHeaderV6 (ReadOnlySpan addresses, protocol, int length) = ByteSum.sum spelled ]

let laws =
    testList "RFC 1071" (byVariant @ everywhere @ detection @ arithmetic @ pseudoHeaders)

/// Computing the Internet checksum: RFC 1071.
module Lightway.Specs.Rfc1071

open System
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
        |> Arb.fromGen

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

let laws = testList "RFC 1071" (byVariant @ arithmetic @ pseudoHeaders)

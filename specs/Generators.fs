/// Bytes and buffers for the laws. All of it follows from FsCheck's seed.
module Lightway.Specs.Generators

open System
open System.Buffers.Binary
open FsCheck
open FsCheck.FSharp
open Lightway.Protocol

/// Bytes that every one of five runs of `body` allocates on this thread, at least. Code that allocates does so each
/// time; the runtime, when it recompiles a hot loop in the middle of one, does so once.
let allocatedBy (body: unit -> unit) : int64 =
    Seq.init 5 (fun _ ->
        let before = GC.GetAllocatedBytesForCurrentThread()
        body ()
        GC.GetAllocatedBytesForCurrentThread() - before)
    |> Seq.min

/// Bytes of a hexadecimal text; spaces are for the eye.
let hex (text: string) : byte[] =
    Convert.FromHexString(text.Replace(" ", ""))

/// Content of fresh buffers, so that an unwritten byte cannot pass for a zero.
let junk (length: int) : byte[] = Array.create length 0xA5uy

/// `bytes` in the middle of a larger junk buffer, at an offset that spoils every alignment.
type Placed =
    { Buffer: byte[]
      Offset: int
      Length: int }

    member this.Span = Span<byte>(this.Buffer, this.Offset, this.Length)
    member this.ReadOnly = ReadOnlySpan<byte>(this.Buffer, this.Offset, this.Length)
    member this.Bytes = Array.sub this.Buffer this.Offset this.Length

    /// Nothing before or after the bytes was written to.
    member this.SurroundingsIntact =
        let isJunk (part: byte[]) = Array.forall ((=) 0xA5uy) part

        isJunk this.Buffer[.. this.Offset - 1] && isJunk this.Buffer[this.Offset + this.Length ..]

let place (offset: int) (bytes: byte[]) : Placed =
    let buffer = junk (offset + bytes.Length + 64)
    bytes.CopyTo(buffer, offset)

    { Buffer = buffer
      Offset = offset
      Length = bytes.Length }

/// Content of payload and options: the two constants are where one's complement has its two zeros.
type Fill =
    | Random of seed: int
    | Zeros
    | Ones

let filled (fill: Fill) (length: int) : byte[] =
    match fill with
    | Zeros -> Array.zeroCreate length
    | Ones -> Array.create length 0xFFuy
    | Random seed ->
        let bytes = Array.zeroCreate length
        System.Random(seed).NextBytes bytes
        bytes

/// A whole number of milliseconds.
let milliseconds (count: int) : int64<ms> = int64 count * 1L<ms>

/// Reads 16 bits in network order.
let word (bytes: byte[]) (at: int) : int =
    int (BinaryPrimitives.ReadUInt16BigEndian(ReadOnlySpan(bytes, at, 2)))

/// A separate seed for laws that mutate bytes faster than FsCheck could.
type Seed = Seed of int

type SeedArbitrary =
    static member Seed() =
        Arb.fromGen (Gen.choose (0, Int32.MaxValue - 1) |> Gen.map Seed)

/// Numbers of every size for the laws that say "any": FsCheck's own keep below 100. A third are small, so that they
/// meet each other; a third lie at the edge of a power of two; a third are anything.
let private anyWord: Gen<uint64> =
    let anything = Gen.choose64 (Int64.MinValue, Int64.MaxValue) |> Gen.map uint64

    let edge =
        Gen.map2 (fun bit offset -> (1UL <<< bit) + uint64 offset) (Gen.choose (0, 64)) (Gen.choose (-2, 1))

    Gen.oneof [ Gen.choose64 (0L, 100L) |> Gen.map uint64; edge; anything ]

/// Towards zero, by halves and then by ones.
let private smaller (value: uint64) : uint64 seq =
    if value = 0UL then
        Seq.empty
    else
        Seq.distinct [ 0UL; value / 2UL; value - 1UL ]

type WordArbitrary =
    static member UInt16() =
        let narrow = Gen.map uint16 anyWord
        Arb.fromGenShrink (narrow, uint64 >> smaller >> Seq.map uint16)

    static member UInt32() =
        let narrow = Gen.map uint32 anyWord
        Arb.fromGenShrink (narrow, uint64 >> smaller >> Seq.map uint32)

    static member UInt64() = Arb.fromGenShrink (anyWord, smaller)

namespace Lightway.Protocol

open System
open System.Buffers.Binary
open System.Numerics

/// The 128-bit key of a hash. Whoever does not know it cannot choose inputs that collide.
[<Struct>]
type HashSeed = { First: uint64; Second: uint64 }

/// The four words of SipHash (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012, §2).
[<Struct>]
type internal SipState =
    val mutable A: uint64
    val mutable B: uint64
    val mutable C: uint64
    val mutable D: uint64

    new(seed: HashSeed) =
        { A = seed.First ^^^ 0x736F_6D65_7073_6575UL
          B = seed.Second ^^^ 0x646F_7261_6E64_6F6DUL
          C = seed.First ^^^ 0x6C79_6765_6E65_7261UL
          D = seed.Second ^^^ 0x7465_6462_7974_6573UL }

    member this.Round() : unit =
        this.A <- this.A + this.B
        this.C <- this.C + this.D
        this.B <- BitOperations.RotateLeft(this.B, 13) ^^^ this.A
        this.D <- BitOperations.RotateLeft(this.D, 16) ^^^ this.C
        this.A <- BitOperations.RotateLeft(this.A, 32) + this.D
        this.C <- this.C + this.B
        this.D <- BitOperations.RotateLeft(this.D, 21) ^^^ this.A
        this.B <- BitOperations.RotateLeft(this.B, 17) ^^^ this.C
        this.C <- BitOperations.RotateLeft(this.C, 32)

    member this.Absorb(word: uint64) : unit =
        this.D <- this.D ^^^ word
        this.Round()
        this.Round()
        this.A <- this.A ^^^ word

    member this.Finish() : uint64 =
        this.C <- this.C ^^^ 0xFFUL

        for _ in 1..4 do
            this.Round()

        this.A ^^^ this.B ^^^ this.C ^^^ this.D

/// SipHash-2-4: keys of tables that hold what strangers cause. Nobody outside can aim at an entry of somebody else.
/// Law: equal to the published test vectors.
[<RequireQualifiedAccess>]
module KeyedHash =
    /// Hash of any bytes.
    let ofBytes (seed: HashSeed, bytes: ReadOnlySpan<byte>) : uint64 =
        let mutable state = SipState seed
        let mutable rest = bytes

        while rest.Length >= 8 do
            state.Absorb(BinaryPrimitives.ReadUInt64LittleEndian rest)
            rest <- rest.Slice 8

        let mutable last = uint64 bytes.Length <<< 56

        for i in 0 .. rest.Length - 1 do
            last <- last ||| (uint64 rest[i] <<< (8 * i))

        state.Absorb last
        state.Finish()

    /// The same for the 16 bytes of two words in little-endian order.
    let ofWords (seed: HashSeed, first: uint64, second: uint64) : uint64 =
        let mutable state = SipState seed
        state.Absorb first
        state.Absorb second
        state.Absorb(16UL <<< 56)
        state.Finish()

namespace Lightway.Segmenter

open System
open System.Buffers.Binary
open System.Runtime.CompilerServices
open System.Runtime.InteropServices
open System.Runtime.Intrinsics

/// Internet checksum arithmetic (RFC 1071, RFC 1624). Sums are one's complement, not complemented unless said, and in
/// host order: `sum` of the bytes 12 34 is 0x1234. 0x0000 and 0xFFFF are the same number in one's complement.
[<RequireQualifiedAccess>]
module Checksum =
    /// End-around carry until 16 bits remain (RFC 1071 §1). Law: `fold sum` is congruent to `sum` modulo 65535, and
    /// zero only for zero.
    [<ReflectedDefinition>]
    let fold (sum: uint64) : uint16 =
        let halves = (sum >>> 32) + (sum &&& 0xFFFF_FFFFUL) // at most 33 bits
        let words = (halves >>> 16) + (halves &&& 0xFFFFUL) // at most 18 bits
        let word = (words >>> 16) + (words &&& 0xFFFFUL) // at most 0x10000
        uint16 ((word >>> 16) + word)

    /// One's complement sum of two sums.
    [<ReflectedDefinition>]
    let add (a: uint16, b: uint16) : uint16 =
        let sum = uint32 a + uint32 b
        uint16 ((sum >>> 16) + sum)

    /// The checksum field for a sum over everything it covers.
    [<ReflectedDefinition>]
    let complement (sum: uint16) : uint16 = ~~~sum

    // RFC 1071 §2(B): words may be added in native byte order if the result is swapped once at the end.
    let inline private toHostOrder (nativeSum: uint16) =
        if BitConverter.IsLittleEndian then
            BinaryPrimitives.ReverseEndianness nativeSum
        else
            nativeSum

    /// Adds the bytes from offset `from` up to `length` to `sum`, as native 32-bit words and a zero-padded rest.
    /// `sum` below 2^17 leaves room for 2^31 words: no span overflows.
    let inline private addRest (start: byref<byte>, from: int, length: int, sum: uint64) =
        let mutable total = sum
        let mutable at = from

        while at <= length - 4 do // no sum that could pass 2^31
            total <- total + uint64 (Unsafe.ReadUnaligned<uint32>(&Unsafe.Add(&start, at)))
            at <- at + 4

        if at <= length - 2 then
            total <- total + uint64 (Unsafe.ReadUnaligned<uint16>(&Unsafe.Add(&start, at)))
            at <- at + 2

        if at < length then // odd last byte: the first byte of a zero-padded word, RFC 1071 §4.1
            let last = uint64 (Unsafe.Add(&start, at))
            total <- total + (if BitConverter.IsLittleEndian then last else last <<< 8)

        total

    /// Sum of `data` with 64-bit scalar additions: the choice without vector hardware, and for short spans.
    let sumScalar (data: ReadOnlySpan<byte>) : uint16 =
        let start = &MemoryMarshal.GetReference data
        toHostOrder (fold (addRest (&start, 0, data.Length, 0UL)))

    /// Sum of `data` in 256-bit vectors: 32-bit words added into 64-bit lanes, which cannot overflow.
    let sumVector256 (data: ReadOnlySpan<byte>) : uint16 =
        let start = &MemoryMarshal.GetReference data
        let low = Vector256.Create 0xFFFF_FFFFUL
        let mutable even = Vector256<uint64>.Zero
        let mutable odd = Vector256<uint64>.Zero
        let mutable at = 0

        while at <= data.Length - 32 do
            let words = Vector256.LoadUnsafe(&start, unativeint at).AsUInt64()
            even <- even + (words &&& low)
            odd <- odd + Vector256.ShiftRightLogical(words, 32)
            at <- at + 32

        let lanes = uint64 (fold (Vector256.Sum even)) + uint64 (fold (Vector256.Sum odd))
        toHostOrder (fold (addRest (&start, at, data.Length, lanes)))

    /// Sum of `data` in 512-bit vectors: 32-bit words added into 64-bit lanes, which cannot overflow.
    let sumVector512 (data: ReadOnlySpan<byte>) : uint16 =
        let start = &MemoryMarshal.GetReference data
        let low = Vector512.Create 0xFFFF_FFFFUL
        let mutable even = Vector512<uint64>.Zero
        let mutable odd = Vector512<uint64>.Zero
        let mutable at = 0

        while at <= data.Length - 64 do
            let words = Vector512.LoadUnsafe(&start, unativeint at).AsUInt64()
            even <- even + (words &&& low)
            odd <- odd + Vector512.ShiftRightLogical(words, 32)
            at <- at + 64

        let lanes = uint64 (fold (Vector512.Sum even)) + uint64 (fold (Vector512.Sum odd))
        toHostOrder (fold (addRest (&start, at, data.Length, lanes)))

    /// Bytes below which setting up vectors costs more than it saves (measured).
    [<Literal>]
    let private VectorThreshold = 64

    /// One's complement sum of `data` as big-endian 16-bit words, an odd last byte padded with zero (RFC 1071 §1).
    /// Law: congruent, modulo 65535, to the number that `data` spells in base 2^16. Uses the widest vectors of the
    /// processor; `IsHardwareAccelerated` is a constant to the JIT, so nothing is chosen at run time.
    let sum (data: ReadOnlySpan<byte>) : uint16 =
        if data.Length < VectorThreshold then sumScalar data
        elif Vector512.IsHardwareAccelerated then sumVector512 data
        elif Vector256.IsHardwareAccelerated then sumVector256 data
        else sumScalar data

    /// Checksum field after one covered word changed: HC' = ~(~HC + ~m + m') (RFC 1624 §3, equation 3).
    /// Precondition: the word is at an even offset. Law: equals recomputing, unless all covered bytes become 0.
    [<ReflectedDefinition>]
    let update (field: uint16, before: uint16, after: uint16) : uint16 =
        ~~~(fold (uint64 (~~~field) + uint64 (~~~before) + uint64 after))

    /// The same for a field that holds an uncomplemented partial sum (CHECKSUM_PARTIAL, announced by NEEDS_CSUM).
    [<ReflectedDefinition>]
    let updatePartial (field: uint16, before: uint16, after: uint16) : uint16 =
        fold (uint64 field + uint64 (~~~before) + uint64 after)

    /// Sum of the IPv4 pseudo-header (RFC 768, RFC 9293 §3.1). Addresses in host order; `length` = bytes of the
    /// transport header and payload, of which the low 16 bits count.
    [<ReflectedDefinition>]
    let pseudoHeaderV4 (source: uint32, destination: uint32, protocol: byte, length: int) : uint16 =
        fold (uint64 source + uint64 destination + uint64 protocol + uint64 (uint16 length))

    /// Sum of the IPv6 pseudo-header (RFC 8200 §8.1). `addresses` = source and destination, 32 bytes in network order;
    /// `length` = bytes of the transport header and payload.
    let pseudoHeaderV6 (addresses: ReadOnlySpan<byte>, protocol: byte, length: int) : uint16 =
        fold (uint64 (sum addresses) + uint64 protocol + uint64 (uint32 length))

    /// UDP's checksum field for a computed checksum: zero means "none", so a computed zero is sent as 0xFFFF (RFC 768).
    [<ReflectedDefinition>]
    let udpField (checksum: uint16) : uint16 =
        if checksum = 0us then 0xFFFFus else checksum

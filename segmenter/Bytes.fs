namespace Lightway.Segmenter

open System
open System.Buffers.Binary

/// Words in network order at an offset. Precondition of all: the word lies within `bytes`.
[<AutoOpen>]
module internal Bytes =
    let inline read16 (bytes: ReadOnlySpan<byte>, at: int) : uint16 =
        BinaryPrimitives.ReadUInt16BigEndian(bytes.Slice at)

    let inline put16 (bytes: Span<byte>, at: int, value: uint16) : unit =
        BinaryPrimitives.WriteUInt16BigEndian(bytes.Slice at, value)

    let inline read32 (bytes: ReadOnlySpan<byte>, at: int) : uint32 =
        BinaryPrimitives.ReadUInt32BigEndian(bytes.Slice at)

    let inline put32 (bytes: Span<byte>, at: int, value: uint32) : unit =
        BinaryPrimitives.WriteUInt32BigEndian(bytes.Slice at, value)

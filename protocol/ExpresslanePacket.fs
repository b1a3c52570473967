namespace Lightway.Protocol

open System
open System.Buffers.Binary

/// The fields of an Expresslane packet that a receiver needs besides IV, tag and ciphertext.
[<Struct>]
type ExpresslaneView =
    {
        /// The sender's packet number, from 1, never reset.
        Counter: uint64
        /// Bytes of ciphertext, the same as of plaintext.
        Length: int
        Flags: uint16
    }

/// Layout of an Expresslane packet, behind the wire header; integers are big-endian:
/// `counter (8) | iv (12) | tag (16) | length (2) | flags (2) | ciphertext`. AES-256-GCM, IV drawn for each packet.
/// Laws: `tryParse` of what `writeHeader` wrote gives the same fields; it is total and allocates nothing.
[<RequireQualifiedAccess>]
module ExpresslanePacket =
    /// Bytes before the ciphertext.
    [<Literal>]
    let Overhead = 40

    [<Literal>]
    let CounterAt = 0

    /// 12 bytes.
    [<Literal>]
    let IvAt = 8

    /// 16 bytes.
    [<Literal>]
    let TagAt = 20

    [<Literal>]
    let LengthAt = 36

    [<Literal>]
    let FlagsAt = 38

    [<Literal>]
    let PayloadAt = 40

    /// Bytes of the longest additional data (version 2).
    [<Literal>]
    let MaxAadSize = 18

    /// Flag: the plaintext is the output of an inside packet codec.
    [<Literal>]
    let Encoded = 0x8000us

    /// False when the payload is shorter than the header or than the length in its header.
    /// Bytes behind the ciphertext are ignored.
    let tryParse (payload: ReadOnlySpan<byte>, view: byref<ExpresslaneView>) : bool =
        if payload.Length < Overhead then
            false
        else
            let length = int (BinaryPrimitives.ReadUInt16BigEndian(payload.Slice LengthAt))

            view <-
                { Counter = BinaryPrimitives.ReadUInt64BigEndian payload
                  Length = length
                  Flags = BinaryPrimitives.ReadUInt16BigEndian(payload.Slice FlagsAt) }

            payload.Length - Overhead >= length

    /// Additional data of the seal: session id of the packet's own wire header, counter and, in version 2, the flags.
    /// Returns 18 bytes in version 2, else 16. Precondition: `dst` has at least `MaxAadSize` bytes.
    let writeAad (session: SessionId, counter: uint64, flags: uint16, version: byte, dst: Span<byte>) : int =
        BinaryPrimitives.WriteUInt64BigEndian(dst, session.Value)
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 8, counter)

        if version = 2uy then
            BinaryPrimitives.WriteUInt16BigEndian(dst.Slice 16, flags)
            18
        else
            16

    /// Writes counter, length and flags; IV and tag are the sealer's.
    /// Preconditions: `dst` has at least 40 bytes, `length` is at most 65535.
    let writeHeader (counter: uint64, length: int, flags: uint16, dst: Span<byte>) : unit =
        BinaryPrimitives.WriteUInt64BigEndian(dst, counter)
        BinaryPrimitives.WriteUInt16BigEndian(dst.Slice LengthAt, uint16 length)
        BinaryPrimitives.WriteUInt16BigEndian(dst.Slice FlagsAt, flags)

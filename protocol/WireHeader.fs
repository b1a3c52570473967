namespace Lightway.Protocol

open System
open System.Buffers.Binary

/// Protocol versions: major in the high byte, minor in the low byte, so that numbers compare as versions do.
[<RequireQualifiedAccess>]
module ProtocolVersion =
    [<Literal>]
    let V1_1 = 0x0101us

    [<Literal>]
    let V1_2 = 0x0102us

    /// The first version that allows Expresslane.
    [<Literal>]
    let V1_3 = 0x0103us

    /// True for 1.1, 1.2 and 1.3; every other version is dropped without an answer.
    [<ReflectedDefinition>]
    let isValid (version: uint16) : bool = version >= V1_1 && version <= V1_3

/// Defects of a wire header. Each is a silent drop.
type WireError =
    | None = 0
    /// Shorter than 16 bytes.
    | Insufficient = 1
    /// Does not start with `48 65` ("He").
    | InvalidMagic = 2
    /// A version outside 1.1 to 1.3.
    | InvalidVersion = 3

/// Content of a datagram behind its wire header.
type WirePayload =
    | Dtls = 0
    | Expresslane = 1

/// The clear-text header in front of every UDP datagram (never on TCP).
[<Struct>]
type WireHeader =
    {
        /// Major byte, then minor byte.
        Version: uint16
        /// Parsed for completeness, then ignored.
        Aggressive: bool
        /// The payload is an Expresslane packet, not a DTLS datagram.
        Expresslane: bool
        Session: SessionId
    }

    /// `Expresslane` as a name.
    member this.Payload: WirePayload =
        if this.Expresslane then
            WirePayload.Expresslane
        else
            WirePayload.Dtls

/// Wire header codec, 16 bytes, big-endian:
/// `48 65 | major | minor | aggressive | expresslane | reserved (2) | session id (8)`.
/// Laws: `tryParse` of what `write` wrote gives the same fields; `tryParse` is total.
[<RequireQualifiedAccess>]
module WireHeader =
    /// Bytes.
    [<Literal>]
    let Size = 16

    /// The first two bytes, "He".
    [<Literal>]
    let Magic = 0x4865us

    /// The first 8 bytes as the number that they spell in network order, reserved bytes 0.
    [<ReflectedDefinition>]
    let internal headOf (version: uint16, isExpresslane: bool) : uint64 =
        (uint64 Magic <<< 48) ||| (uint64 version <<< 32) ||| (if isExpresslane then 1UL <<< 16 else 0UL)

    [<ReflectedDefinition>]
    let internal hasMagic (head: uint64) : bool = uint16 (head >>> 48) = Magic

    [<ReflectedDefinition>]
    let internal versionOf (head: uint64) : uint16 = uint16 (head >>> 32)

    /// Any non-zero flag byte reads as true.
    [<ReflectedDefinition>]
    let internal isAggressive (head: uint64) : bool = byte (head >>> 24) <> 0uy

    [<ReflectedDefinition>]
    let internal isExpresslane (head: uint64) : bool = byte (head >>> 16) <> 0uy

    /// Reads the first 16 bytes of a datagram. `header` is set only when the result is `None`.
    /// Reserved bytes are ignored.
    let tryParse (datagram: ReadOnlySpan<byte>, header: byref<WireHeader>) : WireError =
        if datagram.Length < Size then
            WireError.Insufficient
        else
            let head = BinaryPrimitives.ReadUInt64BigEndian datagram

            if not (hasMagic head) then
                WireError.InvalidMagic
            elif not (ProtocolVersion.isValid (versionOf head)) then
                WireError.InvalidVersion
            else
                header <-
                    { Version = versionOf head
                      Aggressive = isAggressive head
                      Expresslane = isExpresslane head
                      Session = SessionId(BinaryPrimitives.ReadUInt64BigEndian(datagram.Slice 8)) }

                WireError.None

    /// Writes all 16 bytes. Precondition: `dst` has at least 16.
    let write (version: uint16, payload: WirePayload, session: SessionId, dst: Span<byte>) : unit =
        BinaryPrimitives.WriteUInt64BigEndian(dst, headOf (version, (payload = WirePayload.Expresslane)))
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 8, session.Value)

    /// The whole reject datagram: a bare header of the lowest version with the rejected session id.
    /// Precondition: `dst` has at least 16 bytes.
    let writeReject (dst: Span<byte>) : unit =
        write (ProtocolVersion.V1_1, WirePayload.Dtls, SessionId.Rejected, dst)

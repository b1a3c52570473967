namespace Lightway.Protocol

open System
open System.Buffers.Binary

/// The part of a plaintext ClientHello that a datagram holds.
type ClientHelloPart =
    /// The datagram does not begin with a plaintext ClientHello record.
    | None = 0
    /// A fragment without the client's random: a later one, or a first one cut short.
    | Later = 1
    /// A fragment that holds the client's random.
    | First = 2

/// Recognizes plaintext ClientHellos without any handshake state: DTLSPlaintext records (RFC 9147 §4) that begin with a
/// fragment of a ClientHello (§5.2). Offsets are bytes from the datagram's start.
/// Laws: total; the first 43 bytes decide; a fragment's random is that of the message it was cut from.
[<RequireQualifiedAccess>]
module ClientHello =
    [<Literal>]
    let private HandshakeRecord = 22uy

    [<Literal>]
    let private ClientHelloMessage = 1uy

    /// Message type; the record header has 13 bytes.
    [<Literal>]
    let private TypeAt = 13

    /// 24 bits, after message type, 24-bit length and message_seq.
    [<Literal>]
    let private FragmentOffsetAt = 19

    /// After the handshake header (12 bytes) and legacy_version.
    [<Literal>]
    let private RandomAt = 27

    /// Bytes of the random that are looked at, of 32: enough to tell two clients apart.
    [<Literal>]
    let private RandomLength = 16

    let private isFirstFragment (datagram: ReadOnlySpan<byte>) : bool =
        datagram.Length >= RandomAt + RandomLength
        && datagram[FragmentOffsetAt] = 0uy
        && datagram[FragmentOffsetAt + 1] = 0uy
        && datagram[FragmentOffsetAt + 2] = 0uy

    /// Classifies a datagram by its first record.
    let partOf (datagram: ReadOnlySpan<byte>) : ClientHelloPart =
        if
            datagram.Length <= TypeAt
            || datagram[0] <> HandshakeRecord
            || datagram[TypeAt] <> ClientHelloMessage
        then
            ClientHelloPart.None
        elif isFirstFragment datagram then
            ClientHelloPart.First
        else
            ClientHelloPart.Later

    /// First half of the client's random, the same in both of its ClientHellos; 0 unless `partOf` is `First`.
    let randomOf (datagram: ReadOnlySpan<byte>) : UInt128 =
        if partOf datagram = ClientHelloPart.First then
            BinaryPrimitives.ReadUInt128BigEndian(datagram.Slice RandomAt)
        else
            UInt128.Zero

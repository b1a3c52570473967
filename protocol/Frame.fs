namespace Lightway.Protocol

open System
open System.Buffers.Binary
open Lightway.Segmenter

/// One frame found in a buffer: where it ends and where its payload lies. Holds no bytes itself.
[<Struct>]
type Frame =
    {
        Kind: FrameKind
        /// Bytes of the whole frame, kind byte included.
        Length: int
        /// Bytes from the start of the parsed buffer.
        PayloadOffset: int
        /// Bytes. The payload is the packet (data), the piece (fragment), the echo bytes (ping, pong), else the whole
        /// body.
        PayloadLength: int
        /// Ping and fragment ids are 16 bits, encoding ids 64; else 0.
        Id: uint64
        /// Bytes from the start of the fragmented packet, a multiple of 8.
        FragmentOffset: int
        /// More fragments follow this one.
        MoreFragments: bool
        /// The `enable` byte of an encoding request or response.
        Enable: bool
    }

/// Frame codec: one kind byte, then a body that the kind defines. Integers are big-endian.
/// Laws: `tryParse` of what a writer wrote gives the same fields and the same length; `tryParse` is total and allocates
/// nothing. Writers return the bytes written. Preconditions of all writers: `dst` is long enough, and payloads are at
/// most 65535 bytes.
[<RequireQualifiedAccess>]
module Frame =
    /// Bytes before the packet of a data frame: kind, length (2).
    [<Literal>]
    let DataHeaderSize = 3

    /// Bytes before the payload of a ping or pong: kind, id (2), length (2).
    [<Literal>]
    let PingHeaderSize = 5

    /// Bytes before the piece in a fragment frame: kind, length (2), id (2), offset and flags (2).
    [<Literal>]
    let FragmentHeaderSize = 7

    /// Bytes of the whole frame: kind, three addresses and the MTU as text (24 each), session id (8).
    [<Literal>]
    let AuthSuccessSize = 105

    /// Bytes of the whole frame: kind, 52 bytes that peers ignore; here, the first of them is an `AuthRefusal`.
    [<Literal>]
    let AuthFailureSize = 53

    /// Bytes of the whole frame: kind, version, flags, reserved (2), counter (8), key (32).
    [<Literal>]
    let ExpresslaneConfigSize = 45

    /// Bytes of an AES-256 key.
    [<Literal>]
    let KeySize = 32

    /// Longest server config, in bytes.
    [<Literal>]
    let MaxServerConfig = 1348

    /// Longest user and longest password, in bytes; also the width of their fields.
    [<Literal>]
    let MaxUser = 50

    /// Longest token and longest custom body, in bytes.
    [<Literal>]
    let MaxToken = 1347

    /// Longest token that comes with a version, in bytes.
    [<Literal>]
    let MaxVersionedToken = 1345

    [<Literal>]
    let private MoreFlag = 0x2000us // of the offset word; the low 13 bits are the offset / 8

    [<Literal>]
    let private EnabledFlag = 0x80uy // of the Expresslane config's flag byte

    [<Literal>]
    let private AckFlag = 0x40uy

    let private word (buffer: ReadOnlySpan<byte>, at: int) : uint16 =
        BinaryPrimitives.ReadUInt16BigEndian(buffer.Slice at)

    let private putWord (dst: Span<byte>, at: int, value: int) : unit =
        BinaryPrimitives.WriteUInt16BigEndian(dst.Slice at, uint16 value)

    // Accepts a frame whose payload runs from `offset` for `length` bytes to the frame's end.
    let private whole (buffer: ReadOnlySpan<byte>, kind, offset: int, length: int, frame: byref<Frame>) =
        if buffer.Length < offset + length then
            FrameStatus.Insufficient
        else
            frame <-
                { Kind = kind
                  Length = offset + length
                  PayloadOffset = offset
                  PayloadLength = length
                  Id = 0UL
                  FragmentOffset = 0
                  MoreFragments = false
                  Enable = false }

            FrameStatus.Ok

    // The same, with the length in the 16-bit field at `lengthAt`.
    let private counted (buffer: ReadOnlySpan<byte>, kind, lengthAt, offset, limit, frame: byref<Frame>) =
        if buffer.Length < lengthAt + 2 then
            FrameStatus.Insufficient
        else
            let length = int (word (buffer, lengthAt))

            if length > limit then
                FrameStatus.FieldTooLarge
            else
                whole (buffer, kind, offset, length, &frame)

    let private ping (buffer: ReadOnlySpan<byte>, kind, frame: byref<Frame>) =
        let status = counted (buffer, kind, 3, PingHeaderSize, 0xFFFF, &frame)

        if status = FrameStatus.Ok then
            frame <-
                { frame with
                    Id = uint64 (word (buffer, 1)) }

        status

    let private fragment (buffer: ReadOnlySpan<byte>, kind, frame: byref<Frame>) =
        let status = counted (buffer, kind, 1, FragmentHeaderSize, 0xFFFF, &frame)

        if status = FrameStatus.Ok then
            let place = word (buffer, 5)

            frame <-
                { frame with
                    Id = uint64 (word (buffer, 3))
                    FragmentOffset = int (place &&& 0x1FFFus) * 8
                    MoreFragments = place &&& MoreFlag <> 0us }

        status

    let private encoding (buffer: ReadOnlySpan<byte>, kind, frame: byref<Frame>) =
        let status = whole (buffer, kind, 1, 9, &frame)

        if status <> FrameStatus.Ok then
            status
        elif buffer[9] > 1uy then
            FrameStatus.InvalidBool
        else
            frame <-
                { frame with
                    Id = BinaryPrimitives.ReadUInt64BigEndian(buffer.Slice 1)
                    Enable = (buffer[9] = 1uy) }

            status

    // Bytes of an auth request's body, method byte included, determined from its first bytes. `body` may be cut short.
    let internal authRequestLength (body: ReadOnlySpan<byte>, length: byref<int>) : FrameStatus =
        let mutable limit = -1
        let mutable lengthAt = 1

        if body.IsEmpty then
            FrameStatus.Insufficient
        else
            match LanguagePrimitives.EnumOfValue body[0] with
            | AuthMethod.UserPassword ->
                length <- 3 + MaxUser + MaxUser

                if body.Length < 3 then
                    FrameStatus.Insufficient
                elif int body[1] > MaxUser || int body[2] > MaxUser then
                    FrameStatus.FieldTooLarge
                else
                    FrameStatus.Ok
            | method ->
                match method with
                | AuthMethod.Token
                | AuthMethod.Custom -> limit <- MaxToken
                | AuthMethod.VersionedToken ->
                    limit <- MaxVersionedToken
                    lengthAt <- 3
                | _ -> ()

                if limit < 0 then
                    FrameStatus.InvalidEnum
                elif body.Length < lengthAt + 2 then
                    FrameStatus.Insufficient
                else
                    let count = int (word (body, lengthAt))
                    length <- lengthAt + 2 + count

                    if count > limit then
                        FrameStatus.FieldTooLarge
                    else
                        FrameStatus.Ok

    let private authRequest (buffer: ReadOnlySpan<byte>, frame: byref<Frame>) =
        let mutable length = 0
        let status = authRequestLength (buffer.Slice 1, &length)

        if status = FrameStatus.Ok then
            whole (buffer, FrameKind.AuthRequest, 1, length, &frame)
        else
            status

    /// Finds the frame at the start of `buffer`. `frame` is meaningful only when the result is `Ok`.
    let tryParse (buffer: ReadOnlySpan<byte>, frame: byref<Frame>) : FrameStatus =
        if buffer.IsEmpty then
            FrameStatus.Insufficient
        else
            match LanguagePrimitives.EnumOfValue buffer[0] with
            | FrameKind.Data
            | FrameKind.EncodedData as kind -> counted (buffer, kind, 1, DataHeaderSize, 0xFFFF, &frame)
            | FrameKind.Ping
            | FrameKind.Pong as kind -> ping (buffer, kind, &frame)
            | FrameKind.DataFragment
            | FrameKind.EncodedDataFragment as kind -> fragment (buffer, kind, &frame)
            | FrameKind.NoOp
            | FrameKind.Goodbye as kind -> whole (buffer, kind, 1, 0, &frame)
            | FrameKind.AuthRequest -> authRequest (buffer, &frame)
            | FrameKind.AuthSuccess as kind -> whole (buffer, kind, 1, AuthSuccessSize - 1, &frame)
            | FrameKind.AuthFailure as kind -> whole (buffer, kind, 1, AuthFailureSize - 1, &frame)
            | FrameKind.ServerConfig as kind -> counted (buffer, kind, 1, 3, MaxServerConfig, &frame)
            | FrameKind.EncodingRequest
            | FrameKind.EncodingResponse as kind -> encoding (buffer, kind, &frame)
            | FrameKind.ExpresslaneConfig as kind -> whole (buffer, kind, 1, ExpresslaneConfigSize - 1, &frame)
            | _ -> FrameStatus.UnknownKind

    /// True if the buffer is one data frame and nothing else.
    let isPacket (buffer: ReadOnlySpan<byte>) : bool =
        buffer.Length >= DataHeaderSize
        && buffer[0] = byte FrameKind.Data
        && DataHeaderSize + int (word (buffer, 1)) = buffer.Length

    /// 1 byte.
    let writeNoOp (dst: Span<byte>) : int =
        dst[0] <- byte FrameKind.NoOp
        1

    /// 1 byte.
    let writeGoodbye (dst: Span<byte>) : int =
        dst[0] <- byte FrameKind.Goodbye
        1

    /// 53 bytes, all but the kind and the refusal zero.
    let writeAuthFailure (refusal: AuthRefusal, dst: Span<byte>) : int =
        dst.Slice(0, AuthFailureSize).Clear()
        dst[0] <- byte FrameKind.AuthFailure
        dst[1] <- byte refusal
        AuthFailureSize

    /// Why the login is refused, by the payload of an AuthFailure; `Unspecified` for what has no name here.
    let readAuthRefusal (payload: ReadOnlySpan<byte>) : AuthRefusal =
        match (if payload.IsEmpty then 0uy else payload[0]) with
        | 1uy -> AuthRefusal.Credentials
        | 2uy -> AuthRefusal.NoAddress
        | _ -> AuthRefusal.Unspecified

    let private writeEcho (kind: FrameKind, id: uint16, payload: ReadOnlySpan<byte>, dst: Span<byte>) =
        dst[0] <- byte kind
        putWord (dst, 1, int id)
        putWord (dst, 3, payload.Length)
        payload.CopyTo(dst.Slice PingHeaderSize)
        PingHeaderSize + payload.Length

    /// 5 + payload bytes.
    let writePing (id: uint16, payload: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writeEcho (FrameKind.Ping, id, payload, dst)

    /// 5 + payload bytes.
    let writePong (id: uint16, payload: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writeEcho (FrameKind.Pong, id, payload, dst)

    let private writeCounted (kind: FrameKind, content: ReadOnlySpan<byte>, dst: Span<byte>) =
        dst[0] <- byte kind
        putWord (dst, 1, content.Length)
        content.CopyTo(dst.Slice 3)
        3 + content.Length

    /// The 3 bytes before a packet of `length` bytes that already lies behind them.
    let writeDataHeader (length: int, dst: Span<byte>) : unit =
        dst[0] <- byte FrameKind.Data
        putWord (dst, 1, length)

    /// As `writeDataHeader`, for a packet that went through a codec.
    let writeEncodedDataHeader (length: int, dst: Span<byte>) : unit =
        dst[0] <- byte FrameKind.EncodedData
        putWord (dst, 1, length)

    /// 3 + packet bytes.
    let writeData (packet: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writeCounted (FrameKind.Data, packet, dst)

    /// 3 + packet bytes.
    let writeEncodedData (packet: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writeCounted (FrameKind.EncodedData, packet, dst)

    /// 3 + content bytes. Precondition: at most 1348 bytes of content.
    let writeServerConfig (content: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writeCounted (FrameKind.ServerConfig, content, dst)

    let private writePiece (kind: FrameKind, id: uint16, offset, more, payload: ReadOnlySpan<byte>, dst: Span<byte>) =
        dst[0] <- byte kind
        putWord (dst, 1, payload.Length)
        putWord (dst, 3, int id)
        putWord (dst, 5, (offset >>> 3) ||| (if more then int MoreFlag else 0))
        payload.CopyTo(dst.Slice FragmentHeaderSize)
        FragmentHeaderSize + payload.Length

    /// 7 + payload bytes. Precondition: `offset` (bytes) is a multiple of 8 and at most 65528.
    let writeFragment (id: uint16, offset: int, more: bool, payload: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writePiece (FrameKind.DataFragment, id, offset, more, payload, dst)

    /// 7 + payload bytes. Precondition: `offset` (bytes) is a multiple of 8 and at most 65528.
    let writeEncodedFragment (id: uint16, offset: int, more: bool, payload: ReadOnlySpan<byte>, dst: Span<byte>) : int =
        writePiece (FrameKind.EncodedDataFragment, id, offset, more, payload, dst)

    /// 10 bytes. Precondition: `kind` is `EncodingRequest` or `EncodingResponse`.
    let writeEncoding (kind: FrameKind, id: uint64, enable: bool, dst: Span<byte>) : int =
        dst[0] <- byte kind
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 1, id)
        dst[9] <- if enable then 1uy else 0uy
        10

    /// 105 bytes.
    let writeAuthSuccess (success: AuthSuccess, dst: Span<byte>) : int =
        dst.Slice(0, AuthSuccessSize).Clear()
        dst[0] <- byte FrameKind.AuthSuccess
        TextField.writeIpv4 (success.LocalIp, dst.Slice 1)
        TextField.writeIpv4 (success.PeerIp, dst.Slice 25)
        TextField.writeIpv4 (success.DnsIp, dst.Slice 49)
        TextField.writeNumber (success.Mtu, dst.Slice 73) |> ignore
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 97, success.Session.Value)
        AuthSuccessSize

    /// Reads the 104 body bytes. A text that is not UTF-8, or an address that is not IPv4: `InvalidString`.
    let tryParseAuthSuccess (payload: ReadOnlySpan<byte>, result: byref<AuthSuccess>) : FrameStatus =
        if payload.Length < AuthSuccessSize - 1 then
            FrameStatus.Insufficient
        else
            let mutable local = Ipv4Address.None
            let mutable peer = Ipv4Address.None
            let mutable dns = Ipv4Address.None
            let mutable mtu = 0

            if
                TextField.tryReadIpv4 (payload, &local)
                && TextField.tryReadIpv4 (payload.Slice 24, &peer)
                && TextField.tryReadIpv4 (payload.Slice 48, &dns)
                && TextField.tryReadNumber (payload.Slice 72, &mtu)
            then
                result <-
                    { LocalIp = local
                      PeerIp = peer
                      DnsIp = dns
                      Mtu = mtu
                      Session = SessionId(BinaryPrimitives.ReadUInt64BigEndian(payload.Slice 96)) }

                FrameStatus.Ok
            else
                FrameStatus.InvalidString

    /// 45 bytes. Precondition: the key has 32.
    let writeExpresslaneConfig (config: ExpresslaneConfig, dst: Span<byte>) : int =
        dst.Slice(0, ExpresslaneConfigSize).Clear()
        dst[0] <- byte FrameKind.ExpresslaneConfig
        dst[1] <- config.Version
        dst[2] <- (if config.Enabled then EnabledFlag else 0uy) ||| (if config.Ack then AckFlag else 0uy)
        BinaryPrimitives.WriteUInt64BigEndian(dst.Slice 5, config.Counter)
        ReadOnlySpan(config.Key, 0, KeySize).CopyTo(dst.Slice 13)
        ExpresslaneConfigSize

    /// Reads the 44 body bytes. The key is a copy of its own; reserved bits and bytes are ignored.
    let tryParseExpresslaneConfig (payload: ReadOnlySpan<byte>, result: byref<ExpresslaneConfig>) : FrameStatus =
        if payload.Length < ExpresslaneConfigSize - 1 then
            FrameStatus.Insufficient
        else
            result <-
                { Version = payload[0]
                  Enabled = payload[1] &&& EnabledFlag <> 0uy
                  Ack = payload[1] &&& AckFlag <> 0uy
                  Counter = BinaryPrimitives.ReadUInt64BigEndian(payload.Slice 4)
                  Key = payload.Slice(12, KeySize).ToArray() }

            FrameStatus.Ok

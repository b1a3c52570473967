namespace Lightway.Protocol

open System
open System.Buffers.Binary
open System.Text
open System.Text.Unicode

/// A client's login. Members that the method does not use are empty or 0.
[<Struct>]
type AuthRequest =
    {
        Method: AuthMethod
        /// At most 50 bytes of UTF-8.
        User: string
        /// At most 50 bytes of UTF-8. Whoever has the request last wipes them.
        Password: byte[]
        /// At most 1347 bytes of UTF-8, 1345 with a version.
        Token: string
        /// The client's version, with `VersionedToken`.
        Version: uint16
        /// At most 1347 bytes, with `Custom`.
        Opaque: byte[]
    }

/// Auth request codec (frame kind 4). A control frame: reading and writing allocate.
/// Laws: `tryParse` of the body that `write` wrote gives the same request; `tryParse` is total.
[<RequireQualifiedAccess>]
module AuthRequest =
    /// Bytes of the longest frame, kind byte included.
    [<Literal>]
    let MaxSize = 1351

    let private blank method =
        { Method = method
          User = ""
          Password = [||]
          Token = ""
          Version = 0us
          Opaque = [||] }

    /// A request by user name and password, which it keeps.
    let userPassword (user: string, password: byte[]) : AuthRequest =
        { blank AuthMethod.UserPassword with
            User = user
            Password = password }

    /// A request by token.
    let token (token: string) : AuthRequest =
        { blank AuthMethod.Token with
            Token = token }

    /// A request by token that contains the client's version.
    let versionedToken (version: uint16, token: string) : AuthRequest =
        { blank AuthMethod.VersionedToken with
            Version = version
            Token = token }

    /// A request that only a custom authenticator understands.
    let custom (content: byte[]) : AuthRequest =
        { blank AuthMethod.Custom with
            Opaque = content }

    // Strict: overlong forms, surrogates and cut sequences are refused.
    let private tryText (bytes: ReadOnlySpan<byte>, text: byref<string>) : bool =
        let valid = Utf8.IsValid bytes

        if valid then
            text <- Encoding.UTF8.GetString bytes

        valid

    let private tryUserPassword (body: ReadOnlySpan<byte>, request: byref<AuthRequest>) =
        let mutable user = ""
        let password = body.Slice(3 + Frame.MaxUser, int body[2])

        if tryText (body.Slice(3, int body[1]), &user) && Utf8.IsValid password then
            request <- userPassword (user, password.ToArray())
            FrameStatus.Ok
        else
            FrameStatus.InvalidString

    let private tryVersionedToken (body: ReadOnlySpan<byte>, length: int, request: byref<AuthRequest>) =
        let version = BinaryPrimitives.ReadUInt16BigEndian(body.Slice 1)
        let mutable text = ""

        if not (ProtocolVersion.isValid version) then
            FrameStatus.InvalidVersion
        elif tryText (body.Slice(5, length - 5), &text) then
            request <- versionedToken (version, text)
            FrameStatus.Ok
        else
            FrameStatus.InvalidString

    let private tryToken (body: ReadOnlySpan<byte>, length: int, request: byref<AuthRequest>) =
        let mutable text = ""

        if tryText (body.Slice(3, length - 3), &text) then
            request <- token text
            FrameStatus.Ok
        else
            FrameStatus.InvalidString

    /// Reads a body, from the method byte on. Padding behind the user and the password is ignored.
    /// `request` is set only when the result is `Ok`.
    let tryParse (payload: ReadOnlySpan<byte>, request: byref<AuthRequest>) : FrameStatus =
        let mutable length = 0
        let status = Frame.authRequestLength (payload, &length)

        if status <> FrameStatus.Ok then
            status
        elif payload.Length < length then
            FrameStatus.Insufficient
        else
            match LanguagePrimitives.EnumOfValue payload[0] with
            | AuthMethod.UserPassword -> tryUserPassword (payload, &request)
            | AuthMethod.Token -> tryToken (payload, length, &request)
            | AuthMethod.VersionedToken -> tryVersionedToken (payload, length, &request)
            | _ -> // Custom: `authRequestLength` refuses all other methods
                request <- custom (payload.Slice(3, length - 3).ToArray())
                FrameStatus.Ok

    let private writeCounted (content: byte[], limit: int, lengthAt: int, dst: Span<byte>) : int =
        if content.Length > limit then
            0
        else
            BinaryPrimitives.WriteUInt16BigEndian(dst.Slice lengthAt, uint16 content.Length)
            ReadOnlySpan(content).CopyTo(dst.Slice(lengthAt + 2))
            lengthAt + 2 + content.Length

    let private writeUserPassword (user: byte[], password: byte[], dst: Span<byte>) : int =
        if user.Length > Frame.MaxUser || password.Length > Frame.MaxUser then
            0
        else
            dst.Slice(2, 2 + 2 * Frame.MaxUser).Clear()
            dst[2] <- byte user.Length
            dst[3] <- byte password.Length
            ReadOnlySpan(user).CopyTo(dst.Slice 4)
            ReadOnlySpan(password).CopyTo(dst.Slice(4 + Frame.MaxUser))
            4 + 2 * Frame.MaxUser

    /// Writes the whole frame, kind byte included, and returns its bytes; 0 when a field is too long or the method is
    /// unknown.
    /// Precondition: `dst` has at least `MaxSize` bytes.
    let write (request: AuthRequest, dst: Span<byte>) : int =
        dst[0] <- byte FrameKind.AuthRequest
        dst[1] <- byte request.Method
        let utf8 (text: string) = Encoding.UTF8.GetBytes text

        match request.Method with
        | AuthMethod.UserPassword -> writeUserPassword (utf8 request.User, request.Password, dst)
        | AuthMethod.Token -> writeCounted (utf8 request.Token, Frame.MaxToken, 2, dst)
        | AuthMethod.VersionedToken ->
            BinaryPrimitives.WriteUInt16BigEndian(dst.Slice 2, request.Version)
            writeCounted (utf8 request.Token, Frame.MaxVersionedToken, 4, dst)
        | AuthMethod.Custom -> writeCounted (request.Opaque, Frame.MaxToken, 2, dst)
        | _ -> 0

namespace Lightway.Protocol

/// State of a connection. The numbers are those that other implementations report.
type ConnectionState =
    | Disconnected = 1
    /// (D)TLS handshake.
    | Connecting = 2
    | Disconnecting = 4
    /// A client that sent its auth request; never a server.
    | Authenticating = 5
    /// The handshake is complete.
    | LinkUp = 6
    | Online = 7

/// Treatment of a frame that was read.
type FrameVerdict =
    | Process = 0
    /// Without effect, not even an error.
    | Ignore = 1
    | InvalidState = 2
    /// A frame that this role never receives.
    | InvalidMode = 3
    /// A frame that this transport never carries.
    | InvalidConnectionType = 4

/// How a connection's frames travel.
type Transport =
    /// DTLS over UDP: datagrams may be lost, and anybody may send one.
    | Datagram = 0
    /// TLS over TCP.
    | Stream = 1

/// Reasons for which a connection ends or something in it fails. Numbers without a name are not used.
type TunnelError =
    | None = 0
    /// The handshake made no progress, or keepalives found no answer.
    | TimedOut = 1
    /// The server refused the credentials, or does not say why it refuses the login (client).
    | Unauthorized = 2
    /// The credentials were refused (server).
    | AccessDenied = 3
    /// The credentials are right, but the server has no inside address left.
    | NoFreeClientIp = 4
    | Goodbye = 5
    | InvalidMode = 7
    /// A frame that belongs on datagrams came on a stream.
    | InvalidConnectionType = 8
    | InvalidInsideIpConfig = 9
    /// Encoded data came, but no codec is installed.
    | CodecMissing = 11
    | FieldTooLarge = 12
    | InvalidEnum = 13
    | InvalidString = 14
    | InvalidBool = 15
    /// The certificate is for another name.
    | TlsNameMismatch = 16
    | TlsDuplicateMessage = 17
    /// close_notify.
    | TlsPeerClosed = 18
    /// No trust anchor for the peer's certificate.
    | TlsCaMissing = 19
    | TlsFatalAlert = 20
    /// This and all that follow: not fatal on datagrams.
    | TlsOther = 21
    | InvalidProtocolVersion = 22
    /// A frame that this state does not take.
    | InvalidState = 23
    | RejectedSession = 25
    /// A packet of no bytes, or not of IPv4.
    | InvalidInsidePacket = 26
    | UnknownFrameKind = 30
    | InsufficientData = 31
    /// The stream ended without close_notify, or its socket failed.
    | ConnectionLost = 32

/// Rules about states, as tables. Laws: nothing is processed before the handshake is done or after disconnecting began;
/// every error is fatal on a stream.
[<RequireQualifiedAccess>]
module Lifecycle =
    let private inState (valid: bool) =
        if valid then
            FrameVerdict.Process
        else
            FrameVerdict.InvalidState

    let private authRequest (role: Role, state: ConnectionState) =
        if role = Role.Client then
            FrameVerdict.InvalidMode
        else
            inState (state = ConnectionState.LinkUp || state = ConnectionState.Online)

    let private authSuccess (role: Role, state: ConnectionState) =
        if state = ConnectionState.Online then FrameVerdict.Ignore
        elif role = Role.Server then FrameVerdict.InvalidMode
        else inState (state = ConnectionState.Authenticating)

    /// Treatment of an encoding request by an end in `role` and `state` that has a codec. One without ignores it. Streams
    /// carry packets as they are: their codec is never used.
    let acceptsEncoding (role: Role, transport: Transport, state: ConnectionState) : FrameVerdict =
        match role with
        | Role.Server when transport = Transport.Stream && state = ConnectionState.Online ->
            FrameVerdict.InvalidConnectionType
        | Role.Server -> inState (state = ConnectionState.Online)
        | _ -> FrameVerdict.InvalidMode

    /// Treatment of a frame by an end in `role` and `state`. About encoding requests an end with a codec asks
    /// `acceptsEncoding` besides; without one, they have no effect, and encoded data is `CodecMissing`.
    let accepts (role: Role, state: ConnectionState, kind: FrameKind) : FrameVerdict =
        let online = state = ConnectionState.Online

        if not online && state <> ConnectionState.LinkUp && state <> ConnectionState.Authenticating then
            FrameVerdict.InvalidState
        else
            match kind with
            | FrameKind.NoOp
            | FrameKind.AuthFailure
            | FrameKind.EncodingRequest
            | FrameKind.Goodbye -> FrameVerdict.Process
            | FrameKind.ServerConfig -> FrameVerdict.Ignore
            | FrameKind.AuthRequest -> authRequest (role, state)
            | FrameKind.AuthSuccess -> authSuccess (role, state)
            | _ -> inState online

    /// True if a connection may go from `before` to `after`.
    let canMove (role: Role, before: ConnectionState, after: ConnectionState) : bool =
        match before, after with
        | ConnectionState.Connecting, ConnectionState.LinkUp -> true
        | ConnectionState.LinkUp, ConnectionState.Authenticating
        | ConnectionState.Authenticating, ConnectionState.Online -> role = Role.Client
        | ConnectionState.LinkUp, ConnectionState.Online -> role = Role.Server
        | (ConnectionState.LinkUp | ConnectionState.Authenticating | ConnectionState.Online),
          ConnectionState.Disconnecting -> true
        | ConnectionState.Disconnecting, ConnectionState.Disconnected -> true
        // Before the handshake is complete there is nothing that the peer could understand.
        | ConnectionState.Connecting, ConnectionState.Disconnected -> true
        | _ -> false

    /// True if `error` ends a connection over `transport`.
    let isFatal (transport: Transport, error: TunnelError) : bool =
        error <> TunnelError.None && (transport = Transport.Stream || error < TunnelError.TlsOther)

    /// What an AuthFailure says about a connection that a server ends for `reason`.
    let refusalOf (reason: TunnelError) : AuthRefusal =
        match reason with
        | TunnelError.AccessDenied -> AuthRefusal.Credentials
        | TunnelError.NoFreeClientIp -> AuthRefusal.NoAddress
        | _ -> AuthRefusal.Unspecified

    /// The error with which an AuthFailure ends the connection of whoever receives it. A server never refuses itself.
    let ofRefusal (role: Role, refusal: AuthRefusal) : TunnelError =
        if role = Role.Client && refusal = AuthRefusal.NoAddress then
            TunnelError.NoFreeClientIp
        else
            TunnelError.Unauthorized

    /// The error of a frame that could not be parsed; `None` for `Ok`.
    let ofFrameStatus (status: FrameStatus) : TunnelError =
        match status with
        | FrameStatus.Insufficient -> TunnelError.InsufficientData
        | FrameStatus.UnknownKind -> TunnelError.UnknownFrameKind
        | FrameStatus.FieldTooLarge -> TunnelError.FieldTooLarge
        | FrameStatus.InvalidEnum -> TunnelError.InvalidEnum
        | FrameStatus.InvalidString -> TunnelError.InvalidString
        | FrameStatus.InvalidBool -> TunnelError.InvalidBool
        | FrameStatus.InvalidVersion -> TunnelError.InvalidProtocolVersion
        | _ -> TunnelError.None

namespace Lightway.Protocol

open Lightway.Segmenter

/// The end of a connection.
type Role =
    | Server = 0
    | Client = 1

/// The first byte of a frame. Every other value is unknown (8, 9, 10, 11 and 13 are retired).
type FrameKind =
    | NoOp = 1uy
    | Ping = 2uy
    | Pong = 3uy
    | AuthRequest = 4uy
    | Data = 5uy
    | AuthSuccess = 6uy
    | AuthFailure = 7uy
    | Goodbye = 12uy
    | ServerConfig = 14uy
    | DataFragment = 15uy
    | EncodedData = 16uy
    | EncodedDataFragment = 17uy
    | EncodingRequest = 18uy
    | EncodingResponse = 19uy
    | ExpresslaneConfig = 20uy

/// Result of parsing. `Insufficient` consumes nothing: append more bytes and try again.
type FrameStatus =
    | Ok = 0
    | Insufficient = 1
    | UnknownKind = 2
    | FieldTooLarge = 3
    | InvalidEnum = 4
    /// Not UTF-8, or not an IPv4 address where one is required.
    | InvalidString = 5
    | InvalidBool = 6
    | InvalidVersion = 7

/// Login method of a client: the first byte of an auth request's body.
type AuthMethod =
    | UserPassword = 1uy
    | Token = 2uy
    | VersionedToken = 3uy
    | Custom = 23uy

/// Why a server refuses a login: the first byte behind the kind of an AuthFailure. Servers that say nothing send zero, and
/// clients that do not know it ignore it.
type AuthRefusal =
    /// The credentials, the pool of addresses, or something else.
    | Unspecified = 0uy
    /// The user, the password or the token is wrong, or could not be checked.
    | Credentials = 1uy
    /// The credentials are right, but no inside address is left.
    | NoAddress = 2uy

/// The server's answer to a client that it has admitted.
[<Struct>]
type AuthSuccess =
    {
        /// The client's source address inside the tunnel.
        LocalIp: Ipv4Address
        PeerIp: Ipv4Address
        DnsIp: Ipv4Address
        /// Bytes of the server's TUN MTU; 0 when the text is not a number of at most 9 digits.
        Mtu: int
        Session: SessionId
    }

/// One step of the Expresslane key exchange.
[<Struct>]
type ExpresslaneConfig =
    {
        /// 1 or 2; anything else is "unknown".
        Version: byte
        Enabled: bool
        Ack: bool
        /// Number of this offer in its sender's count, from 1.
        Counter: uint64
        /// 32 bytes; all zero means "no key".
        Key: byte[]
    }

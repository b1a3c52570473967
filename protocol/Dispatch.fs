namespace Lightway.Protocol

open System

/// Meaning of a header's session id to the server.
type SessionClaim =
    /// All zero: the sender has no session yet.
    | Empty = 0
    /// The reject's id.
    | Rejected = 1
    /// Current or pending id of the connection that is known for the sender's address.
    | OfPeer = 2
    /// Current or pending id of another connection.
    | OfOther = 3
    /// No connection has this id.
    | Unknown = 4

/// Standing of the address that a datagram came from: known if a connection is known for it.
type Sender =
    | Stranger = 0
    | Known = 1

/// Beginning of a datagram's body, compared with the newest handshake from its address.
type Opening =
    /// Not a plaintext ClientHello.
    | None = 0
    /// A fragment of a ClientHello without the client's random.
    | LaterFragment = 1
    /// A ClientHello with the random of the one that began the newest handshake.
    | Copy = 2
    /// A ClientHello with another random: the client has started again.
    | Fresh = 3

/// The server's treatment of a datagram.
type DispatchVerdict =
    /// Counted, without an answer.
    | Drop = 0
    /// The connection known for the address reads it; if that yields no frame, the handshake beside it does.
    | Receive = 1
    /// The newest handshake from the address reads it: the one beside the known connection, else that connection.
    | ReceiveHandshake = 2
    /// The connection that owns the session id reads it, and moves to the address if it proves authentic.
    | Move = 3
    /// Cookie exchange with a stranger.
    | Accept = 4
    /// Cookie exchange with a known address; the handshake runs beside an established session until it succeeds.
    | Restart = 5
    /// A reject is due, within the limits of rejects.
    | Reject = 6

/// Decides which connection reads a datagram with a usable wire header: the rules of docs/protocol.md §2, in their
/// order.
/// Laws: total; the reject's id is never answered; a session id of another connection decides before the address does;
/// a datagram from a known address is never rejected; only session zero without Expresslane is looked at for a
/// ClientHello.
[<RequireQualifiedAccess>]
module DispatchRules =
    /// Compares a body with the newest handshake from its address. `newest` is `ClientHello.randomOf` of the datagram
    /// that began that handshake.
    let opening (body: ReadOnlySpan<byte>, newest: UInt128) : Opening =
        match ClientHello.partOf body with
        | ClientHelloPart.None -> Opening.None
        | ClientHelloPart.Later -> Opening.LaterFragment
        | _ ->
            if ClientHello.randomOf body = newest then
                Opening.Copy
            else
                Opening.Fresh

    /// The verdict. `opening` counts only for session zero from a known address without Expresslane: for all other
    /// datagrams the body need not be looked at.
    let verdict (claim: SessionClaim, sender: Sender, payload: WirePayload, opening: Opening) : DispatchVerdict =
        match claim with
        | SessionClaim.Rejected -> DispatchVerdict.Drop // an answer would make two servers reject each other for ever
        | SessionClaim.OfOther -> DispatchVerdict.Move
        | SessionClaim.Empty when sender <> Sender.Known -> DispatchVerdict.Accept
        | SessionClaim.Unknown when sender <> Sender.Known -> DispatchVerdict.Reject
        | _ when sender <> Sender.Known -> DispatchVerdict.Drop // OfPeer without a peer: contradictory
        | SessionClaim.Empty when payload = WirePayload.Dtls ->
            match opening with
            | Opening.LaterFragment
            | Opening.Copy -> DispatchVerdict.ReceiveHandshake
            | Opening.Fresh -> DispatchVerdict.Restart
            | _ -> DispatchVerdict.Receive
        | _ -> DispatchVerdict.Receive

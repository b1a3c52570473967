namespace Lightway.Protocol

/// Session ids of one connection at the server.
[<Struct>]
type SessionIds =
    {
        Current: SessionId
        /// Announced to the client but not used by it yet; `SessionId.Empty` for none.
        Pending: SessionId
    }

/// Session ids of one connection at the client; `SessionId.Empty` for those that it does not have.
[<Struct>]
type AdoptedIds =
    {
        /// In every header that it sends.
        Adopted: SessionId
        /// The two before it. A late datagram may still have one of them.
        Left: SessionId
        LeftBefore: SessionId
        /// Datagrams in a row with one of those two.
        Insisted: int
    }

/// Meaning of a header's session id to its connection.
type SessionEvent =
    | None = 0
    /// The client uses the pending id: it is the current one now.
    | Finalized = 1
    /// An id that this connection does not have; counted, else ignored.
    | Mismatch = 2

[<Struct>]
type SessionStart = { Ids: SessionIds; Started: bool }

[<Struct>]
type SessionReceipt =
    { Ids: SessionIds; Event: SessionEvent }

/// Change of a connection's session id, driven by the server, followed by the client.
/// Law: whatever was lost, repeated or late, both ends hold the same id once the client heard the server's latest
/// datagram and the server then heard the client; an announced id finds the connection until a later one is finalized;
/// fewer than `Insistence` late datagrams in a row do not lead the client back to one of the two ids that it has left, so
/// that it is found wherever it moves; as many of the server's latest lead it back from any other id.
[<RequireQualifiedAccess>]
module SessionRotation =
    /// So many datagrams in a row with an id that the client has left are not late: the server has that id. The header
    /// of a DTLS datagram is not authenticated, so anybody on the path can have led the client away from it.
    [<Literal>]
    let Insistence = 8

    /// A new connection's ids.
    let create (id: SessionId) : SessionIds =
        { Current = id
          Pending = SessionId.Empty }

    /// Begins a rotation to the random id `fresh`. Does nothing while one is pending, or when `fresh` is reserved or
    /// current already (draw again).
    let start (ids: SessionIds, fresh: SessionId) : SessionStart =
        if
            ids.Pending.Value <> SessionId.Empty.Value
            || SessionId.isReserved fresh
            || fresh.Value = ids.Current.Value
        then
            { Ids = ids; Started = false }
        else
            { Ids = { ids with Pending = fresh }
              Started = true }

    /// To be called when a datagram with this id in its header has yielded at least one frame.
    let received (ids: SessionIds, headerSession: SessionId) : SessionReceipt =
        if headerSession.Value = SessionId.Empty.Value || headerSession.Value = ids.Current.Value then
            { Ids = ids; Event = SessionEvent.None }
        elif headerSession.Value = ids.Pending.Value then
            { Ids = create headerSession
              Event = SessionEvent.Finalized }
        else
            { Ids = ids
              Event = SessionEvent.Mismatch }

    /// The id in every header that the server sends, and in the additional data of its Expresslane packets.
    let outgoing (ids: SessionIds) : SessionId =
        if ids.Pending.Value = SessionId.Empty.Value then
            ids.Current
        else
            ids.Pending

    /// A new connection's ids at the client.
    let adopted (id: SessionId) : AdoptedIds =
        { Adopted = id
          Left = SessionId.Empty
          LeftBefore = SessionId.Empty
          Insisted = 0 }

    /// The client's ids after a datagram with this id in its header yielded `frames` frames: nothing is learned from a
    /// datagram without frames (rejects, handshake), from a reserved id, nor from a late datagram with an id that was left.
    let adopt (ids: AdoptedIds, headerSession: SessionId, frames: int) : AdoptedIds =
        let isLast = headerSession.Value = ids.Left.Value

        if frames < 1 || SessionId.isReserved headerSession then
            ids
        elif headerSession.Value = ids.Adopted.Value then
            { ids with Insisted = 0 }
        elif (isLast || headerSession.Value = ids.LeftBefore.Value) && ids.Insisted + 1 < Insistence then
            { ids with Insisted = ids.Insisted + 1 }
        else
            { Adopted = headerSession
              Left = ids.Adopted
              LeftBefore = if isLast then ids.LeftBefore else ids.Left
              Insisted = 0 }

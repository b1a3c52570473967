namespace Lightway.Protocol

/// Session ids of one connection at the server.
[<Struct>]
type SessionIds =
    {
        Current: SessionId
        /// Announced to the client but not used by it yet; `SessionId.Empty` for none.
        Pending: SessionId
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
/// datagram and the server then heard the client; an announced id finds the connection until a later one is finalized.
[<RequireQualifiedAccess>]
module SessionRotation =
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

    /// The client's id after a datagram with this id in its header yielded `frames` frames: nothing is learned from a
    /// datagram without frames (rejects, handshake), nor from a reserved id.
    let adopt (current: SessionId, headerSession: SessionId, frames: int) : SessionId =
        if frames < 1 || SessionId.isReserved headerSession then
            current
        else
            headerSession

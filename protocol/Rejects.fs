namespace Lightway.Protocol

/// What a client thinks of the rejects that it got.
[<Struct>]
type RejectState =
    private
        { FirstAt: int64<ms> // Time.Never: none is open
          Confirmed: bool }

/// A reject is not authenticated: anybody can send one. So the first one only makes the client ask, by a ping. A server that
/// still knows the session answers it; one that does not rejects it, too. Times in ms.
/// Laws: one reject alone never ends a connection; an authentic datagram takes every reject back; a server that has lost the
/// session ends the connection after `LimitMs`.
[<RequireQualifiedAccess>]
module Rejects =
    /// Time from the first reject in which an authentic datagram must come.
    [<Literal>]
    let LimitMs = 3_000L<ms>

    let none: RejectState =
        { FirstAt = Time.Never
          Confirmed = false }

    /// A reject came. True: ask the server, by a ping.
    let rejected (state: RejectState, now: int64<ms>) : struct (RejectState * bool) =
        if state.FirstAt = Time.Never then
            struct ({ FirstAt = now; Confirmed = false }, true)
        else
            struct ({ state with Confirmed = true }, false)

    /// Call about once per second, with the time of the latest authentic datagram. True: the session is gone.
    let tick (state: RejectState, heardAt: int64<ms>, now: int64<ms>) : struct (RejectState * bool) =
        if state.FirstAt = Time.Never then
            struct (state, false)
        elif heardAt >= state.FirstAt then
            struct (none, false)
        elif now - state.FirstAt < LimitMs then
            struct (state, false)
        else
            struct (none, state.Confirmed)

namespace Lightway.Protocol

open System

/// When a server asks for new (D)TLS traffic keys (RFC 9147 §8, RFC 8446 §4.6.3).
[<Struct>]
type KeyUpdateState =
    private
        { IntervalMs: int64
          DueAt: int64 // Int64.MaxValue: not before another event
          Pending: bool }

    /// When `tick` is due, in ms; `Int64.MaxValue` for never.
    member this.NextAt: int64 = this.DueAt

    /// An update was started and the peer's answer has not come.
    member this.IsPending: bool = this.Pending

/// The schedule; `now` in ms. It runs on a timer, so that idle connections and those with Expresslane traffic only
/// change keys too.
/// Laws: no update before the client is let in; one at a time; the next one an interval after the last one completed.
[<RequireQualifiedAccess>]
module KeyUpdate =
    /// A schedule before the client is let in. An interval of 0 or less never updates.
    let create (intervalMs: int64) : KeyUpdateState =
        { IntervalMs = intervalMs
          DueAt = Int64.MaxValue
          Pending = false }

    let private wait (state: KeyUpdateState, now: int64) =
        { state with
            DueAt =
                if state.IntervalMs > 0L then
                    now + state.IntervalMs
                else
                    Int64.MaxValue
            Pending = false }

    /// The client was let in. Later grants (repeated auth requests) change nothing.
    let granted (state: KeyUpdateState, now: int64) : KeyUpdateState =
        if state.Pending || state.DueAt <> Int64.MaxValue then
            state
        else
            wait (state, now)

    /// The flag says to send a KeyUpdate that requests the peer's, and to begin a session id rotation.
    let tick (state: KeyUpdateState, now: int64) : struct (KeyUpdateState * bool) =
        if now < state.DueAt then
            struct (state, false)
        else
            struct ({ state with
                        DueAt = Int64.MaxValue
                        Pending = true },
                    true)

    /// The peer's answer came. Ignored when none was awaited.
    let completed (state: KeyUpdateState, now: int64) : KeyUpdateState =
        if state.Pending then wait (state, now) else state

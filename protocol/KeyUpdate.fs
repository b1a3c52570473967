namespace Lightway.Protocol


/// When a server asks for new (D)TLS traffic keys (RFC 9147 §8, RFC 8446 §4.6.3).
[<Struct>]
type KeyUpdateState =
    private
        { IntervalMs: int64<ms>
          DueAt: int64<ms> // Time.Never: not before another event
          Pending: bool }

    /// When `tick` is due, `Time.Never` for never.
    member this.NextAt: int64<ms> = this.DueAt

    /// An update was started and the peer's answer has not come.
    member this.IsPending: bool = this.Pending

/// The schedule. It runs on a timer, so that idle connections and those with Expresslane traffic only change keys too.
/// Laws: no update before the client is let in; one at a time; the next one an interval after the last one completed.
[<RequireQualifiedAccess>]
module KeyUpdate =
    /// A schedule before the client is let in. An interval of 0 or less never updates.
    let create (intervalMs: int64<ms>) : KeyUpdateState =
        { IntervalMs = intervalMs
          DueAt = Time.Never
          Pending = false }

    let private wait (state: KeyUpdateState, now: int64<ms>) =
        { state with
            DueAt =
                if state.IntervalMs > 0L<ms> then
                    now + state.IntervalMs
                else
                    Time.Never
            Pending = false }

    /// The client was let in. Later grants (repeated auth requests) change nothing.
    let granted (state: KeyUpdateState, now: int64<ms>) : KeyUpdateState =
        if state.Pending || state.DueAt <> Time.Never then
            state
        else
            wait (state, now)

    /// The keys have protected as much as they should: an update is due at once, unless one is under way.
    let usedUp (state: KeyUpdateState, now: int64<ms>) : KeyUpdateState =
        if state.Pending then state else { state with DueAt = now }

    /// The flag says to send a KeyUpdate that requests the peer's, and to begin a session id rotation.
    let tick (state: KeyUpdateState, now: int64<ms>) : struct (KeyUpdateState * bool) =
        if now < state.DueAt then
            struct (state, false)
        else
            struct ({ state with
                        DueAt = Time.Never
                        Pending = true },
                    true)

    /// The peer's answer came. Ignored when none was awaited.
    let completed (state: KeyUpdateState, now: int64<ms>) : KeyUpdateState =
        if state.Pending then wait (state, now) else state

namespace Lightway.Protocol


/// Action that the client's keepalive requests.
type KeepaliveAction =
    | None = 0
    /// Send a ping with id 0.
    | SendPing = 1
    /// End the connection: the server does not answer.
    | Close = 2

/// Phase of the client's keepalive.
type KeepalivePhase =
    /// Requests nothing: not online yet, or not continuous and nothing awaited.
    | Inactive = 0
    /// Will ping after an interval of silence.
    | Waiting = 1
    /// A ping is out.
    | Pending = 2
    /// Stopped until the network changes.
    | Suspended = 3
    /// Has requested the end of the connection; final.
    | Closed = 4

/// The client's keepalive: it finds out whether the server still answers.
[<Struct>]
type KeepaliveState =
    private
        { IntervalMs: int64<ms>
          TimeoutMs: int64<ms>
          Continuous: bool
          CurrentPhase: KeepalivePhase
          PingAt: int64<ms>
          CloseAt: int64<ms> // Time.Never: not armed
          RepeatMs: int64<ms> // wait after the next ping, if shorter than the interval; 0: the interval
          TracedAt: int64<ms> } // the latest time of hearing that a ping was sent about

    /// Its phase.
    member this.Phase: KeepalivePhase = this.CurrentPhase

    /// When `tick` is due, `Time.Never` for never.
    member this.NextAt: int64<ms> =
        match this.CurrentPhase with
        | KeepalivePhase.Waiting
        | KeepalivePhase.Pending -> min this.PingAt this.CloseAt
        | _ -> Time.Never

/// Laws: when all is silent a ping goes out every interval; after a change of network or a doubt, until a frame comes from the
/// server, after 1 s, 2 s, 4 s and so on, if the interval is not shorter; the connection closes one timeout after the first
/// ping that nothing answered; any frame from the server calls that off; a doubt is asked about once; `Close` is requested
/// once.
[<RequireQualifiedAccess>]
module Keepalive =
    /// Wait before a ping about a change of network, or a doubt, is repeated for the first time.
    [<Literal>]
    let private FirstRepeatMs = 1_000L<ms>

    /// The keepalive before the connection is online. Without `continuous` it pings only after a change of network.
    let create (intervalMs: int64<ms>, timeoutMs: int64<ms>, continuous: bool, now: int64<ms>) : KeepaliveState =
        { IntervalMs = intervalMs
          TimeoutMs = timeoutMs
          Continuous = continuous
          CurrentPhase = KeepalivePhase.Inactive
          PingAt = now + intervalMs
          CloseAt = Time.Never
          RepeatMs = 0L<ms>
          TracedAt = Time.Always }

    let private isClosed (state: KeepaliveState) =
        state.CurrentPhase = KeepalivePhase.Closed

    let private ping (state: KeepaliveState, now: int64<ms>) : KeepaliveState =
        let wait =
            if state.RepeatMs > 0L<ms> then
                min state.RepeatMs state.IntervalMs
            else
                state.IntervalMs

        { state with
            CurrentPhase = KeepalivePhase.Pending
            PingAt = now + wait
            RepeatMs = min state.IntervalMs (2L * state.RepeatMs)
            CloseAt =
                if state.CloseAt = Time.Never then
                    now + state.TimeoutMs
                else
                    state.CloseAt }

    /// The connection became online.
    let online (state: KeepaliveState, now: int64<ms>) : KeepaliveState =
        match state.CurrentPhase with
        | KeepalivePhase.Inactive
        | KeepalivePhase.Suspended when state.Continuous ->
            { state with
                CurrentPhase = KeepalivePhase.Waiting
                PingAt = now + state.IntervalMs
                RepeatMs = 0L<ms> }
        | _ -> state

    /// At least one frame came from the server.
    let activity (state: KeepaliveState, now: int64<ms>) : KeepaliveState =
        { state with
            PingAt = now + state.IntervalMs
            RepeatMs = 0L<ms>
            CloseAt = Time.Never }

    /// The reply to a ping with id 0 came. It counts as `activity` too: call both, in any order.
    let pong (state: KeepaliveState) : KeepaliveState =
        if isClosed state then
            state
        else
            { state with
                CurrentPhase =
                    if state.Continuous then
                        KeepalivePhase.Waiting
                    else
                        KeepalivePhase.Inactive
                CloseAt = Time.Never }

    /// The host goes to sleep: no pings until the network changes or the connection is online again.
    let suspend (state: KeepaliveState) : KeepaliveState =
        if isClosed state then
            state
        else
            { state with
                CurrentPhase = KeepalivePhase.Suspended
                CloseAt = Time.Never }

    /// The host's network changed: ping at once, so that the server learns the new address. As a network that has just changed
    /// often loses the first datagrams, and downloads wait for this one, it is soon repeated.
    let networkChanged (state: KeepaliveState, now: int64<ms>) : struct (KeepaliveState * KeepaliveAction) =
        if isClosed state then
            struct (state, KeepaliveAction.None)
        else
            let changed =
                { state with
                    CloseAt = Time.Never
                    RepeatMs = FirstRepeatMs }

            struct (ping (changed, now), KeepaliveAction.SendPing)

    /// A packet goes to the server, from which nothing has come since `heardAt`, for so long that it is doubted. Asks once
    /// about each time, and not while a ping is out or the host sleeps. A continuous keepalive asks by itself. With a timeout
    /// that is not longer than the interval, the end would hang on a single datagram: the ping is soon repeated, too.
    let doubted
        (state: KeepaliveState, heardAt: int64<ms>, now: int64<ms>)
        : struct (KeepaliveState * KeepaliveAction) =
        match state.CurrentPhase with
        | KeepalivePhase.Inactive
        | KeepalivePhase.Waiting when not state.Continuous && heardAt <> state.TracedAt ->
            let asked =
                { state with
                    TracedAt = heardAt
                    RepeatMs = FirstRepeatMs }

            struct (ping (asked, now), KeepaliveAction.SendPing)
        | _ -> struct (state, KeepaliveAction.None)

    /// Call at `NextAt`, or later; earlier it changes nothing.
    let tick (state: KeepaliveState, now: int64<ms>) : struct (KeepaliveState * KeepaliveAction) =
        if now < state.NextAt then
            struct (state, KeepaliveAction.None)
        elif now >= state.CloseAt then
            struct ({ state with
                        CurrentPhase = KeepalivePhase.Closed },
                    KeepaliveAction.Close)
        else
            struct (ping (state, now), KeepaliveAction.SendPing)

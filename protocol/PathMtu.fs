namespace Lightway.Protocol

/// Phase of path MTU discovery (RFC 8899 §5.2).
type PathMtuPhase =
    /// Not started: nothing is probed.
    | Disabled = 0
    /// Tests whether the base size passes.
    | Base = 1
    /// Looks for the longest size that passes.
    | Searching = 2
    /// Knows that size, and confirms it while datagrams use it.
    | Complete = 3
    /// Not even the base size passes: tests whether the smallest one does, more and more rarely.
    | Error = 4

/// What one end knows about the path of its datagrams. Sizes are bytes of the outside IP packet.
[<Struct>]
type PathMtuState =
    private
        { BaseSize: int
          MaxSize: int
          CurrentPhase: PathMtuPhase
          CurrentSize: int
          LastSettled: int // 0: no search has ended yet
          High: int // Searching: the longest size that may still pass
          IsAnswered: bool // the peer has answered a probe, on this path or an earlier one
          Probe: int // size of the probe that is out; 0: none is
          Attempts: int // probes of that size, in a row
          FirstId: uint16 // of those probes
          LastId: uint16
          FirstSentAt: int64<ms>
          LastSentAt: int64<ms>
          GivenUp: int // size of the probes before them, if those were taken for lost; 0: they were answered
          GivenUpFirstId: uint16
          GivenUpLastId: uint16
          GivenUpSentAt: int64<ms> // the first of them
          TimerAt: int64<ms> // of the probe that is out
          ConfirmedAt: int64<ms> // when the latest answer came
          ConfirmAt: int64<ms> // Time.Never: nothing long has been sent since
          RaiseAt: int64<ms>
          RoundTrip: int64<ms> // smoothed, in eighths; negative: unknown
          Variation: int64<ms> } // in quarters

    /// Its phase.
    member this.Phase: PathMtuPhase = this.CurrentPhase

    /// A datagram may have this size now. What is longer must be split into several.
    member this.Size: int = this.CurrentSize

    /// The size that the last completed search has found, which senders should keep to; 0 before the first one is complete.
    /// It does not follow `Size` through a new search: nobody is told of a value that is about to change.
    member this.Settled: int = this.LastSettled

    /// When `tick` is due, `Time.Never` for never.
    member this.NextAt: int64<ms> =
        if this.Probe <> 0 then
            this.TimerAt
        else
            min this.ConfirmAt this.RaiseAt

    /// `carried` would change something.
    member this.IsUnwatched: bool =
        this.CurrentPhase = PathMtuPhase.Complete && this.Probe = 0 && this.ConfirmAt = Time.Never

/// What to do after an event.
[<Struct>]
type PathMtuStep =
    {
        State: PathMtuState
        /// Send a ping that makes an outside IP packet of this many bytes; 0: send nothing.
        Probe: int
        /// Id of that ping.
        Id: uint16
        /// The path no longer carries what it carried.
        IsBlackHole: bool
    }

/// Path MTU discovery by pings and pongs (RFC 8899, protocol §9): no ICMP is needed or believed. The longest size is
/// tried first, then the range is halved. A size counts as too long when three probes of it are lost and a probe of a
/// size that passed before is answered right after them: an outage is not taken for a short path, and neither is a delay,
/// as their answers would come first. While long datagrams
/// leave, the size is confirmed twice per second, so a path that has become shorter is noticed before TCP has backed off
/// far. Laws: it settles on exactly what the path carries, also if two of three probes are lost; what it has found is
/// never above that; delays do not change the result; a path that became shorter or longer, or was interrupted, is found again; probes are few and bounded;
/// no answer of a peer leads above the outside MTU; no id is 0; an early tick changes nothing.
[<RequireQualifiedAccess>]
module PathMtu =
    /// Bytes that every IPv4 path carries for all practical purposes: what each host must accept (RFC 791 §3.1).
    [<Literal>]
    let Smallest = 576

    /// The base size if none is configured: every path of IPv6 carries it (RFC 8200 §5), and almost every one of IPv4.
    [<Literal>]
    let DefaultBase = 1280

    /// MAX_PROBES of RFC 8899 §5.1.2.
    [<Literal>]
    let private MaxProbes = 3

    /// PROBE_TIMER before a round-trip time is known (RFC 8899 §5.1.1: at least a second).
    [<Literal>]
    let private FirstTimeout = 1_000L<ms>

    /// Bounds of the timer when it is known. The lower one is that of TCP's retransmissions in Linux.
    [<Literal>]
    let private MinTimeout = 200L<ms>

    [<Literal>]
    let private MaxTimeout = 5_000L<ms>

    /// Longest time between two probes when nothing is answered.
    [<Literal>]
    let private MaxBackoff = 10_000L<ms>

    /// CONFIRMATION_TIMER: with three probes of 200 ms, a shorter path is noticed within 1.1 s, before the fourth
    /// transmission of a TCP segment (200, 600 and 1400 ms after the first).
    [<Literal>]
    let private ConfirmInterval = 500L<ms>

    /// PMTU_RAISE_TIMER (RFC 8899 §5.1.1).
    [<Literal>]
    let private RaiseInterval = 600_000L<ms>

    /// Nothing is probed yet; datagrams may have `maxSize` bytes. `baseSize` is brought between `Smallest` and `maxSize`.
    let create (baseSize: int, maxSize: int) : PathMtuState =
        { BaseSize = min maxSize (max baseSize Smallest)
          MaxSize = maxSize
          CurrentPhase = PathMtuPhase.Disabled
          CurrentSize = maxSize
          LastSettled = 0
          High = maxSize
          IsAnswered = false
          Probe = 0
          Attempts = 0
          FirstId = 0us
          LastId = 0us
          FirstSentAt = 0L<ms>
          LastSentAt = 0L<ms>
          GivenUp = 0
          GivenUpFirstId = 0us
          GivenUpLastId = 0us
          GivenUpSentAt = 0L<ms>
          TimerAt = Time.Never
          ConfirmedAt = 0L<ms>
          ConfirmAt = Time.Never
          RaiseAt = Time.Never
          RoundTrip = -1L<ms>
          Variation = 0L<ms> }

    let private waiting (state: PathMtuState) : PathMtuStep =
        { State = state
          Probe = 0
          Id = 0us
          IsBlackHole = false }

    /// As TCP computes it (RFC 6298 §2).
    let private timeout (state: PathMtuState) : int64<ms> =
        if state.RoundTrip < 0L<ms> then
            FirstTimeout
        else
            min MaxTimeout (max MinTimeout (state.RoundTrip / 8L + state.Variation))

    let private learn (state: PathMtuState, roundTrip: int64<ms>) : PathMtuState =
        if state.RoundTrip < 0L<ms> then
            { state with
                RoundTrip = 8L * roundTrip
                Variation = 2L * roundTrip }
        else
            let error = roundTrip - state.RoundTrip / 8L

            { state with
                RoundTrip = state.RoundTrip + error
                Variation = state.Variation + abs error - state.Variation / 4L }

    /// The id after `id`; 0 belongs to keepalives.
    let private next (id: uint16) : uint16 = if id = 0xFFFFus then 1us else id + 1us

    let private probe (state: PathMtuState, size: int, now: int64<ms>) : PathMtuStep =
        let id = next state.LastId

        { State =
            { state with
                Probe = size
                Attempts = 1
                FirstId = id
                LastId = id
                FirstSentAt = now
                LastSentAt = now
                GivenUp = state.Probe // 0 if it was answered
                GivenUpFirstId = state.FirstId
                GivenUpLastId = state.LastId
                GivenUpSentAt = state.FirstSentAt
                TimerAt = now + timeout state }
          Probe = size
          Id = id
          IsBlackHole = false }

    /// The same size once more.
    let private repeat (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        let id = next state.LastId
        let isError = state.CurrentPhase = PathMtuPhase.Error

        let wait =
            if isError then
                min MaxBackoff (timeout state * int64 (1 <<< min 5 state.Attempts))
            else
                timeout state

        { State =
            { state with
                Attempts = state.Attempts + 1
                LastId = id
                LastSentAt = now
                TimerAt = now + wait
                // A peer that has never answered may not know these pings: as if nothing were probed.
                CurrentSize =
                    if isError && not state.IsAnswered && state.Attempts >= MaxProbes then
                        state.MaxSize
                    else
                        state.CurrentSize }
          Probe = state.Probe
          Id = id
          IsBlackHole = false }

    let private settle (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        waiting
            { state with
                CurrentPhase = PathMtuPhase.Complete
                LastSettled = state.CurrentSize
                RaiseAt =
                    if state.CurrentSize < state.MaxSize then
                        now + RaiseInterval
                    else
                        Time.Never }

    /// Halves the range that is left.
    let private narrow (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        if state.CurrentSize >= state.High then
            settle (state, now)
        else
            probe (state, state.CurrentSize + (state.High - state.CurrentSize + 1) / 2, now)

    /// Starts a search: `size` passes, and the longest is tried first, as most paths carry it.
    let private search (state: PathMtuState, size: int, now: int64<ms>) : PathMtuStep =
        let state =
            { state with
                CurrentPhase = PathMtuPhase.Searching
                CurrentSize = size
                High = state.MaxSize
                ConfirmAt = Time.Never
                RaiseAt = Time.Never }

        if size >= state.MaxSize then
            settle (state, now)
        else
            probe (state, state.MaxSize, now)

    /// The connection is online, or its path has changed: all that was known of the path is to be found again.
    let start (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        probe (
            { state with
                CurrentPhase = PathMtuPhase.Base
                CurrentSize = state.BaseSize
                Probe = 0 // what is on its way on the old path says nothing about the new one
                RoundTrip = -1L<ms>
                ConfirmAt = Time.Never
                RaiseAt = Time.Never },
            state.BaseSize,
            now
        )

    /// Three probes were lost: what passed before no longer does.
    let private fall (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        let phase, size =
            if state.CurrentSize > state.BaseSize then
                PathMtuPhase.Base, state.BaseSize
            else
                PathMtuPhase.Error, min state.MaxSize Smallest

        { probe (
              { state with
                  CurrentPhase = phase
                  CurrentSize = size
                  ConfirmAt = Time.Never
                  RaiseAt = Time.Never },
              size,
              now
          ) with
            IsBlackHole = true }

    /// The size that was probed does not pass.
    let private lost (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        match state.CurrentPhase with
        | PathMtuPhase.Base ->
            // Nothing at all may pass: packets keep to the base size until it is known that a smaller one passes.
            probe (
                { state with
                    CurrentPhase = PathMtuPhase.Error },
                min state.MaxSize Smallest,
                now
            )
        | PathMtuPhase.Searching when state.Probe > state.CurrentSize ->
            probe ({ state with High = state.Probe - 1 }, state.CurrentSize, now)
        | _ -> fall (state, now)

    let inline private isBetween (id: uint16, first: uint16, last: uint16) : bool = id - first <= last - first

    let private answered (state: PathMtuState, sentAt: int64<ms>, now: int64<ms>) : PathMtuState =
        { learn (state, max 0L<ms> (now - sentAt)) with
            IsAnswered = true
            Probe = 0
            TimerAt = Time.Never
            ConfirmedAt = now }

    /// The peer has answered the ping with this id. An answer to any probe of the size that is being probed counts, and so
    /// does a late one to those before them; all others are ignored.
    let pong (state: PathMtuState, id: uint16, now: int64<ms>) : PathMtuStep =
        if state.Probe = 0 || id = 0us then
            waiting state
        elif isBetween (id, state.FirstId, state.LastId) then
            let size = state.Probe

            // One to an earlier probe is at most as old as the first.
            let sentAt =
                if id = state.LastId then
                    state.LastSentAt
                else
                    state.FirstSentAt

            let state = answered (state, sentAt, now)

            match state.CurrentPhase with
            | PathMtuPhase.Searching -> narrow ({ state with CurrentSize = size }, now)
            | PathMtuPhase.Complete ->
                // A search may have become due meanwhile.
                waiting
                    { state with
                        RaiseAt = max now state.RaiseAt }
            | _ -> search (state, size, now)
        elif state.GivenUp > 0 && isBetween (id, state.GivenUpFirstId, state.GivenUpLastId) then
            search (answered (state, state.GivenUpSentAt, now), state.GivenUp, now)
        else
            waiting state

    /// This machine did not send the probe with this id: it is too long for the device (EMSGSIZE).
    let refused (state: PathMtuState, id: uint16, now: int64<ms>) : PathMtuStep =
        if state.Probe = 0 || id <> state.LastId || state.CurrentPhase = PathMtuPhase.Error then
            waiting state // its timer runs
        else
            lost (state, now)

    /// A datagram of `size` bytes has left: the path is confirmed, soon, if it has not just been.
    let carried (state: PathMtuState, size: int, now: int64<ms>) : PathMtuState =
        if state.IsUnwatched && size > Smallest then
            { state with
                ConfirmAt = max now (state.ConfirmedAt + max ConfirmInterval (2L * timeout state)) }
        else
            state

    /// Call at `NextAt`, or later; earlier it changes nothing.
    let tick (state: PathMtuState, now: int64<ms>) : PathMtuStep =
        if now < state.NextAt then
            waiting state
        elif state.Probe <> 0 then
            if state.Attempts < MaxProbes || state.CurrentPhase = PathMtuPhase.Error then
                repeat (state, now)
            else
                lost (state, now)
        elif now >= state.ConfirmAt then
            probe ({ state with ConfirmAt = Time.Never }, state.CurrentSize, now)
        else
            search (state, state.CurrentSize, now)

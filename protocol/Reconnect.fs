namespace Lightway.Protocol

/// Whether, and for how long, a client tries to get a lost connection back.
[<Struct>]
type ReconnectPolicy =
    {
        /// False: the end of a connection is the end of the program.
        IsEnabled: bool
        /// Rounds over all servers that may fail in a row; 0: any number.
        Attempts: int
    }

/// Where a client is between two connections.
type ReconnectPhase =
    /// A round over all servers runs.
    | Trying = 0
    /// A connection serves.
    | Online = 1
    /// The next round starts at `RetryAt`.
    | Waiting = 2
    /// Nothing is tried any more; final.
    | Over = 3

/// What a client does when the network under its connection has changed, or the machine has slept.
type NetworkAnswer =
    | Nothing = 0
    /// Tell the server by a ping: the session moves to the new address.
    | Ping = 1
    /// Ping, and give the connection up if nothing comes within `Reconnect.AskWithin`.
    | Ask = 2
    /// Give the connection up, and start a round at once.
    | Reconnect = 3

/// The record of a client's attempts to connect.
[<Struct>]
type ReconnectState =
    private
        { Policy: ReconnectPolicy
          CurrentPhase: ReconnectPhase
          WasOnline: bool // at any time
          Failures: int // rounds, in a row
          Step: int // of the back-off: waits in a row
          OnlineAt: int64<ms>
          TriedAt: int64<ms> // the latest round
          NextAt: int64<ms> } // Time.Never unless Waiting

    /// Its phase.
    member this.Phase: ReconnectPhase = this.CurrentPhase

    /// When the next round starts; `Time.Never`: none is planned.
    member this.RetryAt: int64<ms> = this.NextAt

    /// Rounds that have failed in a row.
    member this.FailedRounds: int = this.Failures

/// When a client connects again. A round tries all servers; rounds are separated by waits.
/// Until something has been online, a failed round is the end: the set-up may be wrong, somebody watches, and the reason
/// says what to change. After that the set-up is known to work, and what fails is expected to pass: a server that restarts, a
/// network that is away, a captive portal with a certificate of its own. Only a refused login ends the client then as well:
/// repeating it would not change the answer, and would look like somebody who guesses passwords.
/// Randomness and time come in. Laws: waits are 1 to 60 s, each range begins where the one before it ends, so that many
/// clients of one server spread out; after a connection that served for a minute they begin at 1 s again, after a shorter
/// one they continue; a round starts no sooner than a second after the one before it; without `IsEnabled`, and after
/// `Attempts` failed rounds, it is over; over is final.
[<RequireQualifiedAccess>]
module Reconnect =
    /// The shortest wait, and the time from one round to the next whatever happens.
    [<Literal>]
    let MinWait = 1_000L<ms>

    [<Literal>]
    let MaxWait = 60_000L<ms>

    /// A connection that has served for so long was a good one.
    [<Literal>]
    let GoodAfter = 60_000L<ms>

    /// Sleep of the machine that counts; less is how clocks are read.
    [<Literal>]
    let MinSleep = 2_000L<ms>

    /// A stream whose end slept for so long is given up without asking: by then peers and NATs may have forgotten it.
    [<Literal>]
    let StreamSleep = 10_000L<ms>

    /// Time for the answer to `NetworkAnswer.Ask`.
    [<Literal>]
    let AskWithin = 5_000L<ms>

    /// True if the same may succeed when it is tried again. `wasOnline`: something has been online already, with this set-up.
    let isWorthRetrying (reason: TunnelError, wasOnline: bool) : bool =
        match reason with
        | TunnelError.Unauthorized -> false
        | TunnelError.TlsNameMismatch
        | TunnelError.TlsCaMissing
        | TunnelError.InvalidInsideIpConfig -> wasOnline
        | _ -> true

    /// The wait number `step`, from 1: between 2^(step-1) and 2^step seconds, at most 30 to 60. `random`: any 32 bits.
    let wait (step: int, random: uint32) : int64<ms> =
        let most = min MaxWait (2L * MinWait * (1L <<< min 10 (max 0 (step - 1))))
        let half = most / 2L
        half + 1L<ms> * int64 (System.Math.BigMul(uint64 half, uint64 random) >>> 32)

    /// A client whose first round starts now.
    let create (policy: ReconnectPolicy, now: int64<ms>) : ReconnectState =
        { Policy = policy
          CurrentPhase = ReconnectPhase.Trying
          WasOnline = false
          Failures = 0
          Step = 0
          OnlineAt = now
          TriedAt = now
          NextAt = Time.Never }

    let private over (state: ReconnectState) : ReconnectState =
        { state with
            CurrentPhase = ReconnectPhase.Over
            NextAt = Time.Never }

    let private waiting (state: ReconnectState, at: int64<ms>) : ReconnectState =
        { state with
            CurrentPhase = ReconnectPhase.Waiting
            NextAt = max at (state.TriedAt + MinWait) }

    let private backOff (state: ReconnectState, random: uint32, now: int64<ms>) : ReconnectState =
        let step = state.Step + 1
        waiting ({ state with Step = step }, now + wait (step, random))

    /// A connection has come online.
    let online (state: ReconnectState, now: int64<ms>) : ReconnectState =
        match state.CurrentPhase with
        | ReconnectPhase.Over -> state
        | _ ->
            { state with
                CurrentPhase = ReconnectPhase.Online
                WasOnline = true
                Failures = 0
                OnlineAt = now
                NextAt = Time.Never }

    /// The connection that was online has ended.
    let lost (state: ReconnectState, reason: TunnelError, random: uint32, now: int64<ms>) : ReconnectState =
        match state.CurrentPhase with
        | ReconnectPhase.Online when state.Policy.IsEnabled && isWorthRetrying (reason, true) ->
            let wasGood = now - state.OnlineAt >= GoodAfter
            backOff ((if wasGood then { state with Step = 0 } else state), random, now)
        | _ -> over state

    /// The round has failed: no server could be used, each for one of these reasons.
    let failed (state: ReconnectState, reasons: TunnelError seq, random: uint32, now: int64<ms>) : ReconnectState =
        let failures = state.Failures + 1

        let isHopeless =
            reasons |> Seq.forall (fun reason -> not (isWorthRetrying (reason, state.WasOnline)))

        let isExhausted = state.Policy.Attempts > 0 && failures >= state.Policy.Attempts
        let next = { state with Failures = failures }

        if state.CurrentPhase <> ReconnectPhase.Trying || not state.WasOnline || isHopeless || isExhausted then
            over next
        else
            backOff (next, random, now)

    /// Call at `RetryAt`, or later. True: start a round.
    let tick (state: ReconnectState, now: int64<ms>) : struct (ReconnectState * bool) =
        if state.CurrentPhase = ReconnectPhase.Waiting && now >= state.NextAt then
            struct ({ state with
                        CurrentPhase = ReconnectPhase.Trying
                        TriedAt = now
                        NextAt = Time.Never },
                    true)
        else
            struct (state, false)

    /// What to do about a network that has changed, for a connection over `transport`, or a round. `isAddressNew`: this
    /// machine reaches the server from another address than before. A stream can't live without the old one; with it, the
    /// way behind the next router may still be another one.
    let networkAnswer (state: ReconnectState, transport: Transport, isAddressNew: bool) : NetworkAnswer =
        match state.CurrentPhase with
        | ReconnectPhase.Online when transport = Transport.Datagram -> NetworkAnswer.Ping
        | ReconnectPhase.Online when isAddressNew -> NetworkAnswer.Reconnect
        | ReconnectPhase.Online -> NetworkAnswer.Ask
        | ReconnectPhase.Trying when state.WasOnline -> NetworkAnswer.Reconnect
        | _ -> NetworkAnswer.Nothing

    /// What to do about a sleep of the machine.
    let resumeAnswer (state: ReconnectState, transport: Transport, slept: int64<ms>) : NetworkAnswer =
        if slept < MinSleep then
            NetworkAnswer.Nothing
        else
            networkAnswer (state, transport, slept >= StreamSleep)

    /// The network has changed, or the machine is awake again: it is worth trying soon. A connection or round that was there
    /// has been given up, see `NetworkAnswer`.
    let networkChanged (state: ReconnectState, now: int64<ms>) : ReconnectState =
        match state.CurrentPhase with
        | ReconnectPhase.Over -> state
        | _ when not state.Policy.IsEnabled -> over state
        | ReconnectPhase.Trying when not state.WasOnline -> state
        | _ -> waiting ({ state with Step = 0 }, now)

    /// How long the machine slept between two readings of its clocks: `running` is the monotonic clock, which stands still
    /// in sleep (CLOCK_MONOTONIC), `boot` is the one that does not (CLOCK_BOOTTIME).
    let sleptBetween (running: int64<ms>, boot: int64<ms>, laterRunning: int64<ms>, laterBoot: int64<ms>) : int64<ms> =
        max 0L<ms> ((laterBoot - boot) - (laterRunning - running))

namespace Lightway.Protocol

open System

/// Progress of one end in the key exchange.
type ExpresslaneStatus =
    /// Switched off at this end, for good.
    | Disabled = 0
    /// A server that knows nothing about its client yet.
    | WaitingForClient = 1
    /// No exchange finished, or the last one failed: packets go through DTLS.
    | Inactive = 2
    /// Own key acknowledged, peer's key known.
    | Active = 3
    /// Given up for the rest of the connection.
    | Degraded = 4

/// One end's keys and offers. Keys are 32 bytes or null, never all zero. Immutable: key arrays must not be written to as long
/// as a state that is in use refers to them; see `ExpresslaneKeys.discarded`.
[<NoComparison; ReferenceEquality>]
type ExpresslaneState =
    {
        Role: Role
        Status: ExpresslaneStatus
        /// Version of the additional data: 1 or 2; 0 before the peer has reported its own (sealed like 1).
        Version: byte
        /// Seals. Null before the peer acknowledged one.
        SelfKey: byte[]
        /// Opens.
        PeerKey: byte[]
        /// Opens what `PeerKey` does not: stragglers of a rotation.
        PreviousPeerKey: byte[]
        /// When `timer` is due, `Time.Never` when nothing waits.
        TimerAt: int64<ms>
        /// From when on inside traffic must call `insideTraffic`, `Time.Never` for never.
        RotateAt: int64<ms>
        /// Key to seal with once the peer acknowledges it; kept for the next offer when this one finds no answer.
        StagedKey: byte[]
        /// Own config that awaits an answer; it is repeated byte for byte.
        Unanswered: ValueOption<ExpresslaneConfig>
        Retransmissions: int
        /// Counter of the last own config.
        Counter: uint64
        /// Highest counter of the peer's configs: one that arrives later with a lower counter is out of date.
        PeerCounter: uint64
        RotationIntervalMs: int64<ms>
        /// The connection's protocol version has Expresslane.
        Allowed: bool
        Health: ExpresslaneHealth
    }

    /// Inside packets go out as Expresslane packets, and keepalives carry counters.
    member this.Ready: bool =
        this.Status = ExpresslaneStatus.Active && not (isNull this.SelfKey) && not (isNull this.PeerKey)

/// Result of one step. Send the acknowledgement first, then the offer.
[<Struct; NoComparison; NoEquality>]
type ExpresslaneStep =
    {
        State: ExpresslaneState
        Ack: ValueOption<ExpresslaneConfig>
        /// A new config or a repeated one.
        Offer: ValueOption<ExpresslaneConfig>
        /// `SelfKey` differs from the one before.
        SelfKeyChanged: bool
        /// `PeerKey` or `PreviousPeerKey` differs from the one before.
        PeerKeyChanged: bool
    }

/// The Expresslane key exchange of either end. Each end makes the key that it seals with, offers it in an
/// ExpresslaneConfig frame until the peer acknowledges, and only then seals with it. `freshKey` is 32 random bytes in
/// an array that the state may keep.
/// Laws: whatever is lost, repeated or late, the peer can open what this end seals; both ends become ready once frames
/// get through again and inside packets flow; the all-zero key never opens or seals anything; `Disabled` and `Degraded`
/// are final.
[<RequireQualifiedAccess>]
module ExpresslaneKeys =
    [<Literal>]
    let private LatestVersion = 2uy

    [<Literal>]
    let private RetransmissionUnitMs = 500L<ms>

    [<Literal>]
    let private MaxRetransmissions = 5

    let private usable (key: byte[]) : byte[] =
        if not (isNull key) && key.Length = Frame.KeySize && ReadOnlySpan(key).IndexOfAnyExcept 0uy >= 0 then
            key
        else
            null

    let private sameKey (a: byte[], b: byte[]) =
        ReadOnlySpan(a).SequenceEqual(ReadOnlySpan b)

    /// The arrays of keys that a state refers to, some perhaps twice.
    let arraysOf (state: ExpresslaneState) : byte[][] =
        [| state.SelfKey
           state.PeerKey
           state.PreviousPeerKey
           state.StagedKey
           (match state.Unanswered with
            | ValueSome config -> config.Key
            | ValueNone -> null) |]
        |> Array.filter (isNull >> not)

    /// The arrays of keys that nobody needs any more, and that should be wiped: those of the state before a step and those
    /// that were given to the step (the fresh key, the key of the peer's config), less those of the state after it. Not
    /// before what the step asks to send has been sent.
    let discarded (before: ExpresslaneState, after: ExpresslaneState, given: byte[][]) : byte[][] =
        let kept = arraysOf after

        Array.append (arraysOf before) given
        |> Array.filter (fun key -> not (kept |> Array.exists (fun other -> obj.ReferenceEquals(key, other))))

    let private step (before: ExpresslaneState) (state: ExpresslaneState) ack offer : ExpresslaneStep =
        { State = state
          Ack = ack
          Offer = offer
          SelfKeyChanged = not (Object.ReferenceEquals(before.SelfKey, state.SelfKey))
          PeerKeyChanged =
            not (
                Object.ReferenceEquals(before.PeerKey, state.PeerKey)
                && Object.ReferenceEquals(before.PreviousPeerKey, state.PreviousPeerKey)
            ) }

    let private rest state = step state state ValueNone ValueNone

    /// Wait before the repetition that follows `retransmissions` others: 500, 1000, 1500, ... ms.
    let retransmitAfter (retransmissions: int) : int64<ms> =
        RetransmissionUnitMs * int64 (1 + retransmissions)

    /// Version to use with a peer that reports `version`: 1 for 1, else 2.
    let negotiate (version: byte) : byte =
        if version = 1uy then 1uy else LatestVersion

    let private ownVersion state =
        if state.Version = 0uy then LatestVersion else state.Version

    let private send (state: ExpresslaneState) enabled key now : ExpresslaneState =
        let config =
            { Version = ownVersion state
              Enabled = enabled
              Ack = false
              Counter = state.Counter + 1UL
              Key = key }

        { state with
            Counter = config.Counter
            Unanswered = ValueSome config
            Retransmissions = 0
            TimerAt = now + retransmitAfter 0
            RotateAt = Time.Never }

    // Offers a key if the time has come: a new one, unless the peer may hold one that it never acknowledged. Offering
    // that one again keeps "the peer's two keys include the one I seal with" true through any loss.
    let private offerIfDue (state: ExpresslaneState, now: int64<ms>, freshKey: byte[]) : ExpresslaneState =
        let key =
            if isNull state.StagedKey then
                usable freshKey
            else
                state.StagedKey

        if now < state.RotateAt || isNull key then
            state
        else
            send { state with StagedKey = key } true key now

    let private activate (state: ExpresslaneState) : ExpresslaneState =
        if state.Allowed && not (isNull state.SelfKey) && not (isNull state.PeerKey) then
            { state with
                Status = ExpresslaneStatus.Active }
        else
            state

    let private nextRotation (state: ExpresslaneState, now: int64<ms>) =
        if state.RotationIntervalMs > 0L<ms> then
            now + state.RotationIntervalMs
        else
            Time.Never

    let private acknowledged (state: ExpresslaneState, config: ExpresslaneConfig, now: int64<ms>) : ExpresslaneState =
        let settled =
            { state with
                Unanswered = ValueNone
                Retransmissions = 0
                TimerAt = Time.Never }

        if config.Counter <> state.Counter then
            state
        elif isNull state.StagedKey then // the answer to enabled=0, or a repeated answer
            settled
        else
            activate
                { settled with
                    SelfKey = state.StagedKey
                    StagedKey = null
                    // Without a key of the peer there is nothing to renew: it has Expresslane switched off.
                    RotateAt =
                        if isNull state.PeerKey then
                            Time.Never
                        else
                            nextRotation (state, now) }

    // The peer refuses Expresslane for the rest of the connection: no further offers.
    let private refused (state: ExpresslaneState) : ExpresslaneState =
        { state with
            Status =
                if state.Status = ExpresslaneStatus.Disabled then
                    ExpresslaneStatus.Disabled
                else
                    ExpresslaneStatus.Inactive
            Unanswered = ValueNone
            StagedKey = null
            TimerAt = Time.Never
            RotateAt = Time.Never }

    let private install (state: ExpresslaneState, key: byte[]) : ExpresslaneState =
        let installed =
            { state with
                PreviousPeerKey = state.PeerKey
                PeerKey = usable key }

        match state.Status with
        | ExpresslaneStatus.Disabled -> installed
        | ExpresslaneStatus.Active when isNull installed.PeerKey ->
            { installed with
                Status = ExpresslaneStatus.Inactive }
        | _ -> activate installed

    // State after an up-to-date config of the peer, apart from the answer.
    let private taken (state: ExpresslaneState, config: ExpresslaneConfig) : ExpresslaneState =
        let known =
            if state.Status <> ExpresslaneStatus.WaitingForClient then
                state
            else
                { state with
                    Status = ExpresslaneStatus.Inactive
                    RotateAt = if state.Allowed then Time.Always else Time.Never }

        if not config.Enabled then refused known
        elif sameKey (config.Key, state.PeerKey) then known
        else install (known, config.Key)

    let private adopt (state: ExpresslaneState, version: byte, anySent: bool) : ExpresslaneState =
        if anySent && state.Version <> 0uy then
            state
        else
            { state with
                Version = negotiate version }

    /// An end before it is online. A stream connection, and one that must not use Expresslane, is created with
    /// `enabled` false. An interval of 0 or less never rotates.
    let create (role: Role, enabled: bool, rotationIntervalMs: int64<ms>) : ExpresslaneState =
        { Role = role
          Status =
            match enabled, role with
            | false, _ -> ExpresslaneStatus.Disabled
            | true, Role.Server -> ExpresslaneStatus.WaitingForClient
            | true, _ -> ExpresslaneStatus.Inactive
          Version = 0uy
          SelfKey = null
          PeerKey = null
          PreviousPeerKey = null
          TimerAt = Time.Never
          RotateAt = Time.Never
          StagedKey = null
          Unanswered = ValueNone
          Retransmissions = 0
          Counter = 0UL
          PeerCounter = 0UL
          RotationIntervalMs = rotationIntervalMs
          Allowed = false
          Health = ExpresslaneHealth.start }

    /// The connection became online with protocol `version`: an enabled client makes its first offer. A second call
    /// does nothing.
    let online (state: ExpresslaneState, version: uint16, now: int64<ms>, freshKey: byte[]) : ExpresslaneStep =
        let opened =
            { state with
                Allowed = version >= ProtocolVersion.V1_3
                RotateAt =
                    if version >= ProtocolVersion.V1_3 && state.Status = ExpresslaneStatus.Inactive then
                        Time.Always
                    else
                        Time.Never }

        if state.Allowed then
            rest state
        else
            let next = offerIfDue (opened, now, freshKey)
            step state next ValueNone next.Unanswered

    // Offers `enabled` false: this end has given up.
    let private sendStop (state: ExpresslaneState, now: int64<ms>) : ExpresslaneState =
        send state false (Array.zeroCreate Frame.KeySize) now

    // A degraded end installs and acknowledges nothing. An offer shows that the peer has not received its stop.
    let private receivedDegraded
        (state: ExpresslaneState, config: ExpresslaneConfig, now: int64<ms>)
        : ExpresslaneStep =
        if config.Enabled && state.Unanswered.IsNone then
            let next = sendStop (state, now)
            step state next ValueNone next.Unanswered
        else
            rest state

    /// A config came from the peer, while online. `anySent`: an Expresslane packet left already, so the version stays.
    let configReceived
        (state: ExpresslaneState, config: ExpresslaneConfig, anySent: bool, now: int64<ms>, freshKey: byte[])
        : ExpresslaneStep =
        let versioned = adopt (state, config.Version, anySent)

        if config.Ack then
            step state (acknowledged (versioned, config, now)) ValueNone ValueNone
        elif state.Status = ExpresslaneStatus.Degraded then
            receivedDegraded (state, config, now)
        elif config.Counter < state.PeerCounter then
            rest state // overtaken by a later config, whose key is installed
        else
            let answered =
                taken (
                    { versioned with
                        PeerCounter = config.Counter },
                    config
                )

            let renewed =
                if answered.Ready && answered.RotateAt = Time.Never && answered.Unanswered.IsNone then
                    { answered with
                        RotateAt = nextRotation (answered, now) }
                else
                    answered

            let next = offerIfDue (renewed, now, freshKey)

            let ack =
                { config with
                    Ack = true
                    Version = ownVersion next }

            let offer =
                if next.Counter = state.Counter then
                    ValueNone
                else
                    next.Unanswered

            step state next (ValueSome ack) offer

    /// Call at `TimerAt`, or later: repeats the unanswered config, and gives up after the fifth repetition.
    let timer (state: ExpresslaneState, now: int64<ms>) : ExpresslaneStep =
        if now < state.TimerAt then
            rest state
        elif state.Retransmissions < MaxRetransmissions then
            let retransmissions = state.Retransmissions + 1

            let next =
                { state with
                    Retransmissions = retransmissions
                    TimerAt = now + retransmitAfter retransmissions }

            step state next ValueNone state.Unanswered
        else
            let given =
                { state with
                    Unanswered = ValueNone
                    TimerAt = Time.Never }

            let next =
                if state.Status = ExpresslaneStatus.Degraded then
                    given
                else
                    { given with
                        Status = ExpresslaneStatus.Inactive
                        RotateAt = now }

            step state next ValueNone ValueNone

    /// An inside packet is about to be sent: offers a key if one is due. Needed only from `RotateAt` on.
    let insideTraffic (state: ExpresslaneState, now: int64<ms>, freshKey: byte[]) : ExpresslaneStep =
        let next = offerIfDue (state, now, freshKey)

        step
            state
            next
            ValueNone
            (if next.Counter = state.Counter then
                 ValueNone
             else
                 next.Unanswered)

    /// The key has sealed as much as it should: the next inside packet offers another one. Nothing changes while an offer
    /// is under way.
    let usedUp (state: ExpresslaneState) : ExpresslaneState =
        if state.Ready && state.Unanswered.IsNone then
            { state with RotateAt = Time.Always }
        else
            state

    /// A keepalive reply (pong 0) came with `payload`; `sent` and `received` are own packet counts. Ignored unless
    /// ready. Persistent loss ends Expresslane for this connection and notifies the peer.
    let pongReceived
        (state: ExpresslaneState, payload: ReadOnlySpan<byte>, sent: uint64, received: uint64, now: int64<ms>)
        : ExpresslaneStep =
        if not state.Ready then
            rest state
        else
            let struct (health, failed) =
                ExpresslaneHealth.step (state.Health, payload, sent, received)

            let judged = { state with Health = health }

            if failed then
                let degraded =
                    { judged with
                        Status = ExpresslaneStatus.Degraded
                        SelfKey = null
                        StagedKey = null }

                let next = sendStop (degraded, now)
                step state next ValueNone next.Unanswered
            else
                step state judged ValueNone ValueNone

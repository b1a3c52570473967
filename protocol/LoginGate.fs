namespace Lightway.Protocol

open System

/// What password checks may cost. Numbers outside of what the parts can do are taken for the nearest that they can.
type LoginLimits =
    {
        /// Cells per row of each of the two tables, at most 65 536: 128 bytes each, over both tables and all rows.
        Cells: int
        /// Password checks at the same time, and the time after which one counts as lost.
        Checks: int
        Lease: int64<ms>
        /// Delays of a user at a source, and of a source whatever the user.
        UserFailures: FailureRule
        SourceFailures: FailureRule
    }

    /// For a server with several thousand clients that runs this number of checks at the same time.
    static member Standard(checks: int) : LoginLimits =
        { Cells = 16_384
          Checks = checks
          Lease = 60_000L<ms>
          UserFailures =
            { Free = 0
              First = 1_000L<ms>
              Limit = 30_000L<ms>
              ForgetAfter = 600_000L<ms> }
          // Many users may share a source: a few failures of theirs cost the others nothing.
          SourceFailures =
            { Free = 5
              First = 1_000L<ms>
              Limit = 30_000L<ms>
              ForgetAfter = 600_000L<ms> } }

/// Which logins are looked at, and when: a password check is the most expensive thing that a peer can ask for before it is
/// known. The seed must be random and secret, and the one of `Admission`, whose sources it takes. Used under its caller's
/// lock: all workers of a server share it. Times in ms.
/// Laws: memory is fixed when it is created. One check at a time per source and per user. Failures of others at a user's
/// account do not delay the user, who comes from elsewhere. Nobody is refused for ever: each refusal ends by itself after a
/// time that the limits state.
[<Sealed; AllowNullLiteral>]
type LoginGate(limits: LoginLimits, seed: HashSeed) =
    let slots = LoginSlots(limits.Checks, limits.Lease)
    let userFailures = FailureDelay(limits.Cells, limits.UserFailures)
    let sourceFailures = FailureDelay(limits.Cells, limits.SourceFailures)

    // A user at a source: the same user elsewhere is another one.
    let pairOf (source: SourceKey, user: uint64) : uint64 =
        KeyedHash.ofWords (seed, source.Narrow, user)

    /// The key of a user's name, or of whatever else a client logs in with.
    member _.UserOf(name: ReadOnlySpan<byte>) : uint64 = KeyedHash.ofBytes (seed, name)

    /// Changes the number of password checks at the same time; those that run go on.
    member _.Resize(checks: int) : unit = slots.Resize checks

    /// Time until a login of this user at this source may be looked at; 0 for at once.
    member _.Wait(source: SourceKey, user: uint64, now: int64<ms>) : int64<ms> =
        max (sourceFailures.Wait(source.Narrow, now)) (userFailures.Wait(pairOf (source, user), now))

    /// Takes a slot for a password check. `ticket` is for `Ended`, and 0 if none was taken.
    member this.TryStart(source: SourceKey, user: uint64, now: int64<ms>, ticket: byref<int64>) : LoginVerdict =
        if this.Wait(source, user, now) > 0L<ms> then
            ticket <- 0L
            LoginVerdict.TooEarly
        else
            slots.TryStart(source.Narrow, user, now, &ticket)

    /// Whether a check of this user at this source runs: a repeated request gets its answer.
    member _.IsChecking(source: SourceKey, user: uint64) : bool = slots.Has(source.Narrow, user)

    /// A check has ended, whatever its result. False: its slot was given up before.
    member _.Ended(ticket: int64) : bool = slots.End ticket

    /// A check has failed; the time until the next attempt.
    member _.Failed(source: SourceKey, user: uint64, now: int64<ms>) : int64<ms> =
        max (sourceFailures.Failed(source.Narrow, now)) (userFailures.Failed(pairOf (source, user), now))

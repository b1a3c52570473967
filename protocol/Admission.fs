namespace Lightway.Protocol

open System

/// What strangers may cost. Numbers outside of what the parts can do are taken for the nearest that they can.
type AdmissionLimits =
    {
        /// Buckets per row of each of the four tables, at most 65 536: 256 bytes each, over all tables and rows.
        Buckets: int
        /// Datagrams of strangers per second, and at once, that a narrow and a wide source may send.
        NarrowPerSecond: int
        NarrowBurst: int
        WidePerSecond: int
        WideBurst: int
        /// Connections without a login: in all, of a narrow and of a wide source.
        HalfOpen: int
        HalfOpenPerNarrow: int
        HalfOpenPerWide: int
        /// Password checks at the same time, and the time after which one counts as lost.
        Logins: int
        LoginLease: int64<ms>
        /// Delays of a user at a source, and of a source whatever the user.
        UserFailures: FailureRule
        SourceFailures: FailureRule
    }

    /// For a server with some thousand clients.
    static member Standard: AdmissionLimits =
        { Buckets = 16_384
          NarrowPerSecond = 10
          NarrowBurst = 30
          WidePerSecond = 100
          WideBurst = 300
          HalfOpen = 4_096
          HalfOpenPerNarrow = 64
          HalfOpenPerWide = 512
          Logins = 16
          LoginLease = 10_000L<ms>
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

/// What a stranger may cost, before it has logged in: datagrams that the TLS library sees, half-open connections, password
/// checks. The seed must be random and secret. Used by one thread, or under its caller's lock. Times in ms.
/// Laws: memory is fixed when it is created. What one source does costs a source outside its wide prefix nothing, up to
/// collisions (see `RateLimit`); failures of others at a user's account do not delay the user, who comes from elsewhere.
/// Nobody is refused for ever: each refusal ends by itself after a time that the limits state.
[<Sealed; AllowNullLiteral>]
type Admission(limits: AdmissionLimits, seed: HashSeed) =
    let narrow = RateLimit(limits.Buckets, limits.NarrowPerSecond, limits.NarrowBurst)

    let wide = RateLimit(limits.Buckets, limits.WidePerSecond, limits.WideBurst)

    let halfOpen =
        HalfOpen(limits.HalfOpen, limits.HalfOpenPerNarrow, limits.HalfOpenPerWide)

    let logins = LoginSlots(limits.Logins, limits.LoginLease)
    let userFailures = FailureDelay(limits.Buckets, limits.UserFailures)
    let sourceFailures = FailureDelay(limits.Buckets, limits.SourceFailures)

    // A user at a source: the same user elsewhere is another one.
    let pairOf (source: SourceKey, user: uint64) : uint64 =
        KeyedHash.ofWords (seed, source.Narrow, user)

    /// The source of an IPv4 address in host order.
    member _.SourceOf(address: uint32) : SourceKey = SourceKey.ofIpv4 (seed, address)

    /// The source of an IPv6 address, given as its two halves in host order.
    member _.SourceOf(high: uint64, low: uint64) : SourceKey = SourceKey.ofIpv6 (seed, high, low)

    /// The key of a user's name, or of whatever else a client logs in with.
    member _.UserOf(name: ReadOnlySpan<byte>) : uint64 = KeyedHash.ofBytes (seed, name)

    /// Connections without a login.
    member _.HalfOpen: HalfOpen = halfOpen

    /// Takes a token of both prefixes for a stranger's datagram. False: drop it; nothing was taken.
    member _.TryDatagram(source: SourceKey, now: int64<ms>) : bool =
        // Each is asked, so that a clock that went back is noticed by both.
        let narrowHas = narrow.Has(source.Narrow, now)
        let wideHas = wide.Has(source.Wide, now)

        narrowHas && wideHas && narrow.Take(source.Narrow, now) && wide.Take(source.Wide, now)

    /// Gives the tokens of a datagram back: its sender has logged in, and was no stranger.
    member _.Refund(source: SourceKey, now: int64<ms>) : unit =
        narrow.Refund(source.Narrow, now)
        wide.Refund(source.Wide, now)

    /// Time until a login of this user at this source may be looked at; 0 for at once.
    member _.LoginWait(source: SourceKey, user: uint64, now: int64<ms>) : int64<ms> =
        max (sourceFailures.Wait(source.Narrow, now)) (userFailures.Wait(pairOf (source, user), now))

    /// Takes a slot for a password check. `ticket` is for `LoginEnded`, and 0 if none was taken.
    member this.TryLogin(source: SourceKey, user: uint64, now: int64<ms>, ticket: byref<int64>) : LoginVerdict =
        if this.LoginWait(source, user, now) > 0L<ms> then
            ticket <- 0L
            LoginVerdict.TooEarly
        else
            logins.TryStart(source.Narrow, user, now, &ticket)

    /// A check has ended, whatever its result. False: its slot was given up before.
    member _.LoginEnded(ticket: int64) : bool = logins.End ticket

    /// A check has failed; the time until the next attempt, which is also how long the answer may wait.
    member _.LoginFailed(source: SourceKey, user: uint64, now: int64<ms>) : int64<ms> =
        max (sourceFailures.Failed(source.Narrow, now)) (userFailures.Failed(pairOf (source, user), now))

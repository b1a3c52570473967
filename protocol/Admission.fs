namespace Lightway.Protocol

[<AutoOpen>]
module private Datagrams =
    /// Datagrams of a handshake: a client sends each three times, and a ClientHello of post-quantum size has two.
    [<Literal>]
    let PerHandshake = 8

/// What strangers may cost. Numbers outside of what the parts can do are taken for the nearest that they can.
type AdmissionLimits =
    {
        /// Buckets per row of both tables, at most 65 536: 128 bytes each, over both tables and all rows.
        Buckets: int
        /// Datagrams of strangers per second, and at once: of a narrow source, of a wide one, and of all together.
        NarrowPerSecond: int
        NarrowBurst: int
        WidePerSecond: int
        WideBurst: int
        PerSecond: int
        Burst: int
        /// Connections without a login: in all, of a narrow and of a wide source.
        HalfOpen: int
        HalfOpenPerNarrow: int
        HalfOpenPerWide: int
    }

    /// Limits of one worker of a server: its share, and never less than one handshake per second.
    /// handshakes: that a narrow source may start per second; 0: as many as it likes. halfOpen: connections without a login.
    /// Both of all workers. A narrow source may have a sixteenth of the places, a wide one a quarter.
    static member Of(handshakes: int, halfOpen: int, workers: int) : AdmissionLimits =
        let workers = max 1 workers

        let datagrams =
            if handshakes <= 0 then
                1_000_000
            else
                max PerHandshake (PerHandshake * min 100_000 handshakes / workers)

        let places = max 16 (halfOpen / workers)

        { Buckets = 16_384
          NarrowPerSecond = datagrams
          NarrowBurst = 3 * datagrams
          WidePerSecond = 10 * datagrams
          WideBurst = 30 * datagrams
          PerSecond = 16_000
          Burst = 4_000
          HalfOpen = places
          HalfOpenPerNarrow = places / 16
          HalfOpenPerWide = places / 4 }

/// How many datagrams of strangers a source may send before the kernel drops them for us, for a filter that knows less than
/// `Admission`: it can give nothing back to those who log in. So it is generous, and only floods reach it.
[<Struct>]
type GateBudget =
    {
        /// Time that a source needs to earn a datagram, in ns; 0: there is no limit.
        IntervalNs: int64
        /// Time whose datagrams it may send at once, in ns.
        BurstNs: int64
    }

    /// `handshakes`: that a narrow source may start per second at all workers together; 0: as many as it likes.
    /// Laws: allows at least `Generosity` times as many datagrams per second as the workers do together, and as many at
    /// once as they do in three seconds.
    static member Of(handshakes: int) : GateBudget =
        if handshakes <= 0 then
            { IntervalNs = 0L; BurstNs = 0L }
        else
            let perSecond =
                int64 GateBudget.Generosity * int64 PerHandshake * int64 (min 100_000 handshakes)

            { IntervalNs = 1_000_000_000L / perSecond
              BurstNs = 3_000_000_000L }

    static member Generosity = 4

/// What a stranger may cost before it has logged in: datagrams that the TLS library sees, half-open connections. The seed
/// must be random and secret. Used by one thread. Times in ms.
/// Laws: memory is fixed when it is created. What one source does costs a source outside its wide prefix nothing, up to
/// collisions (see `RateLimit`) and to the limit of all strangers together, which no one source can reach. Nobody is refused
/// for ever: each refusal ends by itself after a time that the limits state.
[<Sealed; AllowNullLiteral>]
type Admission(limits: AdmissionLimits, seed: HashSeed) =
    let narrow = RateLimit(limits.Buckets, limits.NarrowPerSecond, limits.NarrowBurst)
    let wide = RateLimit(limits.Buckets, limits.WidePerSecond, limits.WideBurst)
    let everybody = RateLimit(1, limits.PerSecond, limits.Burst)

    let halfOpen =
        HalfOpen(limits.HalfOpen, limits.HalfOpenPerNarrow, limits.HalfOpenPerWide)

    /// The source of an IPv4 address in host order.
    member _.SourceOf(address: uint32) : SourceKey = SourceKey.ofIpv4 (seed, address)

    /// The source of an IPv6 address, given as its two halves in host order.
    member _.SourceOf(high: uint64, low: uint64) : SourceKey = SourceKey.ofIpv6 (seed, high, low)

    /// Connections without a login.
    member _.HalfOpen: HalfOpen = halfOpen

    /// Takes a token of both prefixes and of the common limit for a stranger's datagram. False: drop it; nothing was taken.
    member _.TryDatagram(source: SourceKey, now: int64<ms>) : bool =
        // Each is asked, so that a clock that went back is noticed by all.
        let narrowHas = narrow.Has(source.Narrow, now)
        let wideHas = wide.Has(source.Wide, now)
        let isLeft = everybody.Has(0UL, now)

        narrowHas
        && wideHas
        && isLeft
        && narrow.Take(source.Narrow, now)
        && wide.Take(source.Wide, now)
        && everybody.Take(0UL, now)

    /// Gives the tokens of a datagram back: its sender has logged in, and was no stranger.
    member _.Refund(source: SourceKey, now: int64<ms>) : unit =
        narrow.Refund(source.Narrow, now)
        wide.Refund(source.Wide, now)

/// How long a connection may stay without a login.
[<RequireQualifiedAccess>]
module LoginPatience =
    /// For all of it: handshake, password checks that wait for each other, repetitions.
    [<Literal>]
    let Whole = 60_000L<ms>

    /// From the complete handshake to the request to be let in, which a client sends at once.
    [<Literal>]
    let Silent = 10_000L<ms>

    /// True if the connection must be ended. `linkUpAt`: when its handshake was complete, `Time.Never` if it is not.
    let isOver (createdAt: int64<ms>, linkUpAt: int64<ms>, hasAsked: bool, now: int64<ms>) : bool =
        now - createdAt > Whole || (not hasAsked && linkUpAt <> Time.Never && now - linkUpAt > Silent)

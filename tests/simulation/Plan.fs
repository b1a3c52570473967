namespace Lightway.Tests.Simulation

open Lightway.Protocol

/// What a world is like. Times in ms; chances per mille; `...Every` is a mean, 0 for never.
type Plan =
    {
        Name: string
        Seed: uint64
        /// Virtual time until the calm begins, in which everything must come right again.
        Length: int64
        /// Events after which the calm begins, whatever the time.
        MostEvents: int
        Workers: int
        Hosts: int
        /// This many hosts share users, two hosts each.
        SharedUsers: int
        /// Hosts that complete a handshake and never log in.
        Mutes: int
        /// Users whose password is wrong.
        Wrong: int
        /// Users with an inside address of their own.
        Fixed: int
        PoolPrefix: int
        Segments: int
        Coalesces: bool
        Expresslane: bool
        PathMtu: bool
        Continuous: bool
        KeepaliveMs: int64
        KeepaliveTimeoutMs: int64
        KeyUpdateMs: int64
        RotationMs: int64
        PacketsPerKey: uint64
        RecordsPerKey: int64
        IdleMs: int64
        SessionsPerUser: int
        HandshakesPerSource: int
        HalfOpen: int
        Checks: int
        // The network.
        Loss: int
        Repeat: int
        Damage: int
        Delay: int64
        Jitter: int64
        // The programs.
        UpEvery: int64
        DownEvery: int64
        // What happens.
        MoveEvery: int64
        CrashEvery: int64
        LeaveEvery: int64
        ServerStopEvery: int64
        OutageEvery: int64
        FullEvery: int64
        RefuseEvery: int64
        ReloadEvery: int64
        FloodEvery: int64
        LateEvery: int64
        /// The server takes hybrid groups: the ClientHello comes in two datagrams.
        PostQuantum: bool
        CheckMs: int64
        StepMs: int64
    }

[<RequireQualifiedAccess>]
module Plan =
    let private second = 1_000L
    let private minute = 60_000L
    let private hour = 3_600_000L

    /// Few clients that stay for a day or two: timers, keys, silence.
    let private long (seed: uint64) (dice: Dice) : Plan =
        { Name = "long"
          Seed = seed
          Length = dice.Between(48L * hour, 144L * hour)
          MostEvents = 700_000
          Workers = 1
          Hosts = 6 + dice.Below 14
          SharedUsers = dice.Pick [| 0; 0; 4 |]
          Mutes = dice.Pick [| 0; 1 |]
          Wrong = dice.Pick [| 0; 1 |]
          Fixed = dice.Below 4
          PoolPrefix = dice.Pick [| 22; 24; 27 |]
          Segments = dice.Pick [| 1; 64 |]
          Coalesces = dice.PerMille 500
          Expresslane = dice.PerMille 700
          PathMtu = dice.PerMille 200
          Continuous = dice.PerMille 800
          KeepaliveMs = dice.Pick [| 60L * second; 120L * second; 300L * second |]
          KeepaliveTimeoutMs = dice.Pick [| 60L * second; 180L * second |]
          KeyUpdateMs = dice.Pick [| 15L * minute; hour; 0L |]
          RotationMs = dice.Pick [| 15L * minute; hour; 0L |]
          PacketsPerKey = dice.Pick [| 1UL <<< 31; 200UL |]
          RecordsPerKey = dice.Pick [| 1L <<< 23; 60L |]
          IdleMs = dice.Pick [| 10L * minute; hour; 24L * hour |]
          SessionsPerUser = dice.Pick [| 0; 1; 2 |]
          HandshakesPerSource = 10
          HalfOpen = 256
          Checks = 1
          Loss = dice.Pick [| 0; 2; 20; 100 |]
          Repeat = dice.Pick [| 0; 5; 50 |]
          Damage = dice.Pick [| 0; 2; 20 |]
          Delay = dice.Pick [| 1L; 20L; 120L |]
          Jitter = dice.Pick [| 0L; 5L; 100L |]
          UpEvery = dice.Pick [| 6L * second; 12L * second; 30L * second |]
          DownEvery = dice.Pick [| 10L * second; 20L * second; 50L * second |]
          MoveEvery = dice.Pick [| 0L; 10L * minute; hour |]
          CrashEvery = dice.Pick [| 0L; 30L * minute; 4L * hour |]
          LeaveEvery = dice.Pick [| 0L; hour; 6L * hour |]
          ServerStopEvery = dice.Pick [| 0L; 0L; 12L * hour |]
          OutageEvery = dice.Pick [| 0L; 2L * hour; 8L * hour |]
          FullEvery = dice.Pick [| 0L; 20L * minute |]
          RefuseEvery = dice.Pick [| 0L; 30L * minute |]
          ReloadEvery = dice.Pick [| 0L; 4L * hour |]
          FloodEvery = dice.Pick [| 0L; hour |]
          LateEvery = 50L * minute
          PostQuantum = seed % 3UL <> 0UL
          CheckMs = dice.Pick [| 3L; 200L; 5L * second |]
          StepMs = dice.Pick [| 1L; 5L |] }

    /// Hundreds of clients that come and go within minutes, among strangers.
    let private busy (seed: uint64) (dice: Dice) : Plan =
        { long seed dice with
            Name = "busy"
            Length = dice.Between(4L * minute, 12L * minute)
            MostEvents = 250_000
            Workers = 1 + dice.Below 3
            Hosts = 40 + dice.Below 260
            SharedUsers = dice.Pick [| 0; 20; 40 |]
            Mutes = dice.Below 12
            Wrong = dice.Below 6
            PoolPrefix = dice.Pick [| 22; 24; 25 |]
            KeepaliveMs = 10L * second
            KeepaliveTimeoutMs = 60L * second
            KeyUpdateMs = dice.Pick [| 15L * minute; minute; 30L * second |]
            RotationMs = dice.Pick [| 15L * minute; minute; 30L * second |]
            IdleMs = dice.Pick [| 2L * minute; 24L * hour |]
            HandshakesPerSource = dice.Pick [| 1; 10 |]
            HalfOpen = dice.Pick [| 16; 64; 4096 |]
            Checks = 1 + dice.Below 3
            UpEvery = dice.Pick [| 10L; 30L; 100L |]
            DownEvery = dice.Pick [| 10L; 40L; 100L |]
            MoveEvery = dice.Pick [| 0L; second; 5L * second |]
            CrashEvery = dice.Pick [| 0L; 3L * second; 15L * second |]
            LeaveEvery = dice.Pick [| 0L; 5L * second; 20L * second |]
            ServerStopEvery = dice.Pick [| 0L; 0L; 3L * minute |]
            OutageEvery = dice.Pick [| 0L; 2L * minute |]
            FullEvery = dice.Pick [| 0L; 5L * second; 30L * second |]
            RefuseEvery = dice.Pick [| 0L; 90L * second |]
            ReloadEvery = dice.Pick [| 0L; 45L * second |]
            FloodEvery = dice.Pick [| 0L; second; 10L * second |]
            LateEvery = 30L * second
            CheckMs = dice.Pick [| 3L; 50L; 2L * second; 20L * second |] }

    /// The plan that a seed stands for: every fourth one, from 1 on, is of a busy world. Those below 1000 are of worlds that end sooner, to be
    /// run often.
    let ofSeed (seed: uint64) : Plan =
        let dice = Dice seed
        let plan = if seed % 4UL = 1UL then busy seed dice else long seed dice

        if seed < 1_000UL then
            { plan with
                MostEvents = plan.MostEvents / 4 }
        else
            plan

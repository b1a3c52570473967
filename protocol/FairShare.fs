namespace Lightway.Protocol

/// What one peer sends to its worker. The default value is that of a new peer.
[<Struct>]
type PeerShare =
    val mutable internal Window: int64 // in which it last sent; windows have numbers from 1
    val mutable internal Sent: int // datagrams, in that window
    val mutable internal Opened: int // of them
    val mutable internal Before: int // sent in the window before that one
    val mutable internal Credit: int // towards the next one that is opened

/// Shares out a worker's time among its peers when it cannot keep up. All of them share one socket, whose queue loses the
/// datagrams of whoever comes when it is full: so a peer that sends more than the worker can open costs the others as large
/// a part of theirs as its own. To drop a datagram costs a small part of opening it. So, once the kernel has dropped some, a
/// peer has a limited number of datagrams opened per window (the allowance); the others are dropped unopened.
/// The allowance falls by an eighth per window in which the worker does not keep up, to the share and no further: the most
/// datagrams opened in a window of this overload, divided by the peers that are active. It rises by a sixteenth when the
/// worker keeps up, so that what some peers leave unused goes to those who want it. Of a peer that was above the allowance in
/// the window before, datagrams are dropped evenly from the start: else the queue would fill while its first ones are opened.
/// Used by one thread. Counts are datagrams; times in ms. Memory: this object, and a `PeerShare` per peer.
/// Laws: nothing is dropped before the kernel has dropped something, nor while one peer is active, nor a second after the
/// last drop of either. A peer that has been at or below its share for a window loses nothing. The shares of all peers add up to at most what was opened
/// in a window. Allocates nothing per datagram.
[<Sealed>]
type FairShare() =
    static let windowMs = 20L<ms>
    static let epochMs = 1_000L<ms>
    let mutable now = 0L<ms>
    let mutable window = 1L
    let mutable windowAt = Time.Always
    let mutable opened = 0 // in the window, as are the next five
    let mutable most = 0 // opened for one peer
    let mutable hasOverflowed = false
    let mutable wasEmpty = false
    let mutable hasDropped = false
    let mutable allowance = System.Int32.MaxValue
    let mutable capacity = 0 // most datagrams opened in a window of this overload
    let mutable calmAt = Time.Always // when the overload is over
    let mutable epochAt = Time.Always
    let mutable epochWindow = 0L // the first one of the epoch
    let mutable peers = 0 // that have sent in this epoch
    let mutable peersBefore = 0 // in the one before

    let isOver (since: int64<ms>) (length: int64<ms>) : bool =
        now < since || now - since >= length || now - since < 0L<ms> // below zero: further apart than the type can express

    let judge () : unit =
        if hasOverflowed || hasDropped then
            calmAt <- now + epochMs

        let active = max peers peersBefore

        if active <= 1 || now >= calmAt || calmAt - now > epochMs then
            allowance <- System.Int32.MaxValue
            capacity <- 0
        else
            capacity <- max capacity opened

            if hasOverflowed || (allowance < System.Int32.MaxValue && not wasEmpty) then
                let peak = min allowance most
                allowance <- max 1 (max (capacity / active) (peak - peak / 8))
            elif allowance < System.Int32.MaxValue / 2 then
                allowance <- allowance + allowance / 16 + 1

    let nextWindow () : unit =
        if isOver epochAt epochMs then
            // After two epochs without a wake-up, the one before was empty.
            peersBefore <- if isOver epochAt (2L * epochMs) then 0 else peers
            peers <- 0
            epochAt <- now
            epochWindow <- window + 1L

        judge ()
        window <- window + 1L
        windowAt <- now
        opened <- 0
        most <- 0
        hasOverflowed <- false
        wasEmpty <- false
        hasDropped <- false

    let enter (share: byref<PeerShare>) : unit =
        if share.Window < epochWindow || share.Window = 0L then
            peers <- peers + 1

        share.Before <- if share.Window = window - 1L then share.Sent else 0
        share.Window <- window
        share.Sent <- 0
        share.Opened <- 0
        share.Credit <- 0

    // Bresenham: of every `Before` datagrams, as many as the allowance.
    let isItsTurn (share: byref<PeerShare>) : bool =
        if share.Before <= allowance then
            true
        else
            share.Credit <- share.Credit + allowance

            if share.Credit >= share.Before then
                share.Credit <- share.Credit - share.Before
                true
            else
                false

    /// Datagrams that one peer may have opened in this window; Int32.MaxValue: as many as it likes.
    member _.Allowance: int = allowance

    /// The worker has woken up, and is about to receive.
    member _.Begin(time: int64<ms>) : unit =
        now <- time

        if isOver windowAt windowMs then
            nextWindow ()

    /// The kernel has dropped datagrams, as the socket's queue was full.
    member _.Overflowed() : unit = hasOverflowed <- true

    /// The socket's queue has been found empty: the worker keeps up.
    member _.Emptied() : unit = wasEmpty <- true

    /// Counts a datagram of a peer. False: it is above its share, and is to be dropped.
    member _.TryTake(share: byref<PeerShare>) : bool =
        if share.Window <> window then
            enter &share

        share.Sent <- share.Sent + 1

        if share.Opened < allowance && isItsTurn &share then
            share.Opened <- share.Opened + 1
            opened <- opened + 1
            most <- max most share.Opened
            true
        else
            hasDropped <- true
            false

namespace Lightway.Protocol

/// How fast a peer has been served lately, as bounds what may leave for it in one piece.
[<Struct>]
type BurstRate =
    private
        { Since: int64<ms> // start of the window
          Bytes: int64 // sent in it
          PerMs: int64</ ms> } // bytes

    /// Bytes a millisecond: of the best window of late, each older one counting an eighth less than the next.
    member this.BytesPerMs: int64</ ms> = this.PerMs

/// A run of datagrams that leaves as one piece holds up whatever shares the way with it for as long as the link needs for
/// it. So a run is as long as the peer takes in about a millisecond, as the kernel sizes its own TCP superpackets
/// (net/ipv4/tcp_output.c, tcp_tso_autosize). `now` in ms.
/// Laws: never below the floor; a steady rate above the floor is met within a tenth; silence brings back the floor.
[<RequireQualifiedAccess>]
module BurstRate =
    /// Windows of which each gives a measurement.
    [<Literal>]
    let WindowMs = 20L<ms>

    /// Bytes a millisecond; 100 Mbit/s. What is known of a new peer, and the least that is assumed.
    [<Literal>]
    let Floor = 12_500L< / ms>

    let create (now: int64<ms>) : BurstRate =
        { Since = now
          Bytes = 0L
          PerMs = Floor }

    let rec private decay (perMs: int64</ ms>) (windows: int64) =
        if windows <= 0L || perMs <= Floor then
            max Floor perMs
        else
            decay (perMs - perMs / 8L) (windows - 1L)

    /// So many more bytes have been sent since the last call.
    let sent (rate: BurstRate, now: int64<ms>, bytes: int64) : BurstRate =
        let elapsed = now - rate.Since
        let bytes = rate.Bytes + bytes

        if elapsed < WindowMs then
            { rate with Bytes = bytes }
        else
            { Since = now
              Bytes = 0L
              PerMs = max (decay rate.PerMs (elapsed / WindowMs)) (bytes / elapsed) }

    /// Bytes of the longest run that takes the peer `microseconds`.
    let limit (rate: BurstRate, microseconds: int64) : int64 =
        rate.PerMs * microseconds / 1_000L< / ms> // microseconds per ms

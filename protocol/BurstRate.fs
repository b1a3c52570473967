namespace Lightway.Protocol

/// Recent rate of sending of one worker, to all its peers; it limits the length of a burst.
[<Struct>]
type BurstRate =
    private
        { Since: int64<ms> // start of the window
          Bytes: int64 // sent in it
          PerMs: int64</ ms> } // bytes

    /// Bytes per ms: the peak of recent windows, decayed by 1/8 per window.
    member this.BytesPerMs: int64</ ms> = this.PerMs

/// A burst is one unit until the network card cuts it into datagrams, and delays all other traffic for as long as the link
/// out of this machine needs to carry it. How fast that link is, at least, is known from what it has carried recently; so a
/// burst is limited to the bytes that were sent in about a millisecond, as the kernel sizes the superpackets of one TCP
/// connection (net/ipv4/tcp_output.c, tcp_tso_autosize).
/// Laws: never below the floor; a steady rate above the floor is met within a tenth; silence brings back the floor.
[<RequireQualifiedAccess>]
module BurstRate =
    /// Length of a window; each gives one measurement.
    [<Literal>]
    let WindowMs = 20L<ms>

    /// Bytes per ms, or 100 Mbit/s: the rate at the start, and the least that is assumed.
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

    /// Adds `bytes` sent since the last call.
    let sent (rate: BurstRate, now: int64<ms>, bytes: int64) : BurstRate =
        let elapsed = now - rate.Since
        let bytes = rate.Bytes + bytes

        if elapsed < WindowMs then
            { rate with Bytes = bytes }
        else
            { Since = now
              Bytes = 0L
              PerMs = max (decay rate.PerMs (elapsed / WindowMs)) (bytes / elapsed) }

    /// Longest burst in bytes: what is sent within `microseconds`.
    let limit (rate: BurstRate, microseconds: int64) : int64 =
        rate.PerMs * microseconds / 1_000L< / ms> // microseconds per ms

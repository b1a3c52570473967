namespace Lightway.Protocol

/// Milliseconds. A point in time is their number on the caller's monotonic clock, which the core never reads itself.
/// The compiler checks the unit and then erases it: other languages see `int64`.
[<Measure>]
type ms

/// Two points in time that no clock shows.
[<RequireQualifiedAccess>]
module Time =
    /// Later than every other time: of what is not due.
    [<Literal>]
    let Never = 0x7FFF_FFFF_FFFF_FFFFL<ms>

    /// An interval that is shorter by up to a tenth: events of many that began together drift apart. `random` is any number
    /// of 32 random bits. Zero and less stay as they are.
    let spread (interval: int64<ms>, random: uint32) : int64<ms> =
        let most = int64 (max 0L<ms> (interval / 10L))
        interval - 1L<ms> * int64 (System.Math.BigMul(uint64 most, uint64 random) >>> 32)

    /// Earlier than every other time: of what is due at once.
    [<Literal>]
    let Always = 0x8000_0000_0000_0000L<ms>

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

    /// Earlier than every other time: of what is due at once.
    [<Literal>]
    let Always = 0x8000_0000_0000_0000L<ms>

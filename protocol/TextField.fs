namespace Lightway.Protocol

open System
open System.Text.Unicode
open Lightway.Segmenter

/// The 24-byte text fields of an auth success: ASCII, padded with NUL. The text ends at the first NUL within the first
/// 23 bytes; byte 24 is never looked at.
[<RequireQualifiedAccess>]
module internal TextField =
    [<Literal>]
    let private Longest = 23 // bytes

    // Precondition of all readers: `field` has at least 23 bytes.
    let private text (field: ReadOnlySpan<byte>) : ReadOnlySpan<byte> =
        let window = field.Slice(0, Longest)
        let nul = window.IndexOf 0uy
        if nul < 0 then window else window.Slice(0, nul)

    // A decimal number of up to 9 digits, -1 for anything else.
    let private number (digits: ReadOnlySpan<byte>) : int =
        let mutable value = if digits.IsEmpty || digits.Length > 9 then -1 else 0
        let mutable i = 0

        while value >= 0 && i < digits.Length do
            let digit = int digits[i] - int '0'B
            value <- if digit < 0 || digit > 9 then -1 else value * 10 + digit
            i <- i + 1

        value

    /// False when the text is not UTF-8. A text that is not a number of at most 9 digits reads as 0.
    let tryReadNumber (field: ReadOnlySpan<byte>, value: byref<int>) : bool =
        let digits = text field
        value <- max 0 (number digits)
        Utf8.IsValid digits

    /// False unless the text is four decimal numbers 0 to 255 without leading zeros, joined by dots.
    let tryReadIpv4 (field: ReadOnlySpan<byte>, address: byref<Ipv4Address>) : bool =
        let mutable rest = text field
        let mutable octets = 0
        let mutable valid = true
        let mutable bits = 0u

        while valid && octets < 4 do
            let dot = if octets < 3 then rest.IndexOf '.'B else rest.Length

            if dot < 1 || dot > 3 then
                valid <- false
            else
                let value = number (rest.Slice(0, dot))
                valid <- value >= 0 && value <= 255 && (dot = 1 || rest[0] <> '0'B)
                bits <- (bits <<< 8) ||| uint32 (value &&& 0xFF)
                octets <- octets + 1

                if octets < 4 then
                    rest <- rest.Slice(dot + 1)

        address <- Ipv4Address bits
        valid

    /// Writes the decimal digits of `value` (not negative) and returns their number.
    let writeNumber (value: int, dst: Span<byte>) : int =
        let mutable length = 0
        value.TryFormat(dst, &length) |> ignore
        length

    /// Writes `address` as dotted decimal.
    let writeIpv4 (address: Ipv4Address, dst: Span<byte>) : unit =
        let mutable at = 0

        for shift in 24..-8..0 do
            at <- at + writeNumber (int (address.Value >>> shift &&& 0xFFu), dst.Slice at)

            if shift > 0 then
                dst[at] <- '.'B
                at <- at + 1

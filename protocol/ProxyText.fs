namespace Lightway.Protocol

open System

/// A field of a text line, as far as the line has arrived.
[<Struct>]
type internal TextToken =
    {
        /// Where the byte behind the field is; `TextToken.Cut` if the line ends before it, `TextToken.Wrong` if no line
        /// can go on like this.
        End: int
        /// Bytes that the field lacks at least if it is cut.
        Missing: int
        /// Number or address. Means nothing unless the field is complete.
        Value: UInt128
    }

    static member Cut = -1
    static member Wrong = -2

/// Fields of version 1 of the PROXY protocol, each with the byte that ends it.
[<RequireQualifiedAccess>]
module internal ProxyText =
    [<Literal>]
    let private Point = 46uy // '.'

    [<Literal>]
    let private Colon = 58uy

    let private complete (at: int, value: UInt128) : TextToken =
        { End = at; Missing = 0; Value = value }

    let private cut (missing: int) : TextToken =
        { End = TextToken.Cut
          Missing = missing
          Value = UInt128.Zero }

    let private wrong: TextToken =
        { End = TextToken.Wrong
          Missing = 0
          Value = UInt128.Zero }

    let private isDigit (character: byte) : bool = character >= 48uy && character <= 57uy

    /// A decimal number up to `most`, without sign and leading zeros, ended by `delimiter`.
    let number (line: ReadOnlySpan<byte>, start: int, most: int, delimiter: byte) : TextToken =
        let mutable at = start
        let mutable value = 0
        let mutable isGood = true

        while isGood && at < line.Length && line[at] <> delimiter do
            let isLeadingZero = at > start && value = 0
            let digit = int line[at] - 48
            isGood <- isDigit line[at] && not isLeadingZero && value * 10 + digit <= most

            if isGood then
                value <- value * 10 + digit
                at <- at + 1

        if not isGood || (at < line.Length && at = start) then wrong
        elif at = line.Length then cut (if at = start then 1 else 0)
        else complete (at, UInt128.op_Implicit (uint32 value))

    /// Dotted decimal without leading zeros, from its octet `first` (0 to 3) on, whose predecessors are `before`.
    let private octets
        (line: ReadOnlySpan<byte>, start: int, first: int, before: UInt128, delimiter: byte)
        : TextToken =
        let mutable token = complete (start - 1, before)
        let mutable index = first

        while index < 4 && token.End >= 0 do
            let octet =
                number (line, token.End + 1, 255, (if index = 3 then delimiter else Point))

            token <-
                if octet.End = TextToken.Cut then
                    cut (octet.Missing + 2 * (3 - index)) // a point and a digit for each octet that follows
                else
                    { octet with
                        Value = (token.Value <<< 8) ||| octet.Value }

            index <- index + 1

        token

    /// Dotted decimal without leading zeros, ended by `delimiter`.
    let ipv4 (line: ReadOnlySpan<byte>, start: int, delimiter: byte) : TextToken =
        octets (line, start, 0, UInt128.Zero, delimiter)

    let private hexDigit (character: byte) : int =
        if isDigit character then
            int character - 48
        else
            match int character ||| 0x20 with // lower case
            | letter when letter >= 97 && letter <= 102 -> letter - 87
            | _ -> -1

    /// The byte where a group of up to four hexadecimal digits ends; a fifth digit is not part of it.
    let private groupEnd (line: ReadOnlySpan<byte>, start: int) : int =
        let mutable at = start

        while at < line.Length && at < start + 4 && hexDigit line[at] >= 0 do
            at <- at + 1

        at

    let private groupValue (line: ReadOnlySpan<byte>, start: int, finish: int) : UInt128 =
        let mutable value = 0

        for at in start .. finish - 1 do
            value <- value * 16 + hexDigit line[at]

        UInt128.op_Implicit (uint32 value)

    /// The address whose groups in front of "::" and behind it are the lower bits of `value`; no "::" if `gapAt` is -1.
    let private withGap (value: UInt128, groups: int, gapAt: int) : UInt128 =
        if gapAt <= 0 then
            value
        else
            let tail = 16 * (groups - gapAt)
            let head = value >>> tail
            (head <<< (128 - 16 * gapAt)) ||| (value - (head <<< tail))

    /// Text of RFC 4291 §2.2, ended by `delimiter`: eight groups, or fewer and one "::" for one or more groups of zeros,
    /// the last two groups possibly in dotted decimal.
    let ipv6 (line: ReadOnlySpan<byte>, start: int, delimiter: byte) : TextToken =
        let mutable token = wrong
        let mutable isDone = false
        let mutable at = start
        let mutable groups = 0
        let mutable value = UInt128.Zero // of all groups so far
        let mutable gapAt = -1 // groups before "::"

        // Each turn reads a separator, except at the start, and a group, which may be missing after "::".
        while not isDone do
            let isColon = at < line.Length && line[at] = Colon

            let isGap = isColon && gapAt < 0 && at + 1 < line.Length && line[at + 1] = Colon

            if isGap then
                gapAt <- groups

            let most = if gapAt < 0 then 8 else 7

            let group =
                if isGap then at + 2
                elif isColon then at + 1
                else at

            let finish = groupEnd (line, group)
            isDone <- true

            let isSingle = isColon && not isGap

            if groups > most || (isSingle && groups = most) then
                token <- wrong
            elif isSingle && group = line.Length then
                token <- cut 1 // a group, or the second colon
            elif isSingle && groups = 0 then
                token <- wrong
            elif finish = group then
                if finish = line.Length then
                    token <- cut (if isGap then 0 else 2)
                elif isGap && line[finish] = delimiter then
                    token <- complete (finish, value)
            elif groups = most then
                token <- wrong
            elif finish < line.Length && line[finish] = Point then
                let first = number (line, group, 255, Point)

                if first.End = finish && (if gapAt < 0 then groups = 6 else groups <= 5) then
                    token <- octets (line, finish + 1, 1, first.Value, delimiter)
                    value <- (value <<< 32) ||| token.Value
                    groups <- groups + 2
                else
                    token <- wrong
            else
                value <- (value <<< 16) ||| groupValue (line, group, finish)
                groups <- groups + 1
                at <- finish
                let isWhole = gapAt >= 0 || groups = 8

                if finish = line.Length then
                    token <- cut (if isWhole then 0 else 2)
                elif line[finish] = Colon then
                    isDone <- false
                elif isWhole && line[finish] = delimiter then
                    token <- complete (finish, value)
                else
                    token <- wrong

        if token.End < 0 then
            token
        else
            { token with
                Value = withGap (value, groups, gapAt) }

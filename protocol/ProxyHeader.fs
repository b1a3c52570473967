namespace Lightway.Protocol

open System
open System.Buffers.Binary

/// What the bytes at the start of a stream are.
type ProxyStatus =
    /// The start of a header, and not all of it.
    | NeedMore = 0
    /// A header with the address of a client.
    | Address = 1
    /// A header without one: LOCAL, UNSPEC, UNIX or UNKNOWN. The connection is from whom its socket says.
    | NoAddress = 2
    /// No header, and none whatever follows.
    | Wrong = 3

/// Why bytes are not a header.
type ProxyError =
    | None = 0
    /// Neither `PROXY ` nor the signature of version 2.
    | Signature = 1
    /// A binary header of another version than 2.
    | Version = 2
    /// A command other than LOCAL and PROXY.
    | Command = 3
    /// An address family or transport that is unknown or does not carry a stream.
    | Family = 4
    /// A binary header that announces fewer bytes than its addresses have.
    | Length = 5
    /// More than `ProxyHeader.MaxSize` bytes, or a line of more than `ProxyHeader.MaxLineSize`.
    | TooLong = 6
    /// Text that is not an address of its family.
    | Address = 7
    /// Text that is not a port.
    | Port = 8
    /// A line that does not end with CR LF.
    | LineEnd = 9

/// What the PROXY protocol says about a connection, as far as its bytes have arrived.
[<Struct>]
type ProxyHeader =
    {
        Status: ProxyStatus
        /// `None` unless `Status` is `Wrong`.
        Error: ProxyError
        /// Bytes of the header, after which the client's own bytes begin; if more are needed, the least number that
        /// is missing: a reader who asks for exactly that number never reads beyond the header; 0 if wrong.
        Length: int
        /// Family of the source address.
        IsIPv6: bool
        /// First half of an IPv6 source address in host order; 0 for IPv4.
        High: uint64
        /// Second half of an IPv6 source address in host order, or the IPv4 address.
        Low: uint64
        /// Source port.
        Port: uint16
    }

/// The PROXY protocol, versions 1 (one line of text) and 2 (binary), as HAProxy's proxy-protocol.txt defines them: a proxy
/// sends it at the start of a stream to say whose connection this is.
/// Laws: total. What is needed is exactly what the shortest header with these first bytes lacks, and a start that no
/// header has is wrong at once. What follows a header does not matter.
[<RequireQualifiedAccess>]
module ProxyHeader =
    /// Bytes of the longest header that is accepted. The document, §2.2, has senders stay within this: a first TCP segment
    /// (RFC 879).
    [<Literal>]
    let MaxSize = 536

    /// Bytes of the longest line of version 1, with CR LF (§2.1).
    [<Literal>]
    let MaxLineSize = 107

    /// Signature, version and command, family and transport, length of the rest.
    [<Literal>]
    let private FixedSize = 16

    [<Literal>]
    let private Space = 32uy

    [<Literal>]
    let private CarriageReturn = 13uy

    [<Literal>]
    let private LineFeed = 10uy

    let private need (count: int) : ProxyHeader =
        { Status = ProxyStatus.NeedMore
          Error = ProxyError.None
          Length = count
          IsIPv6 = false
          High = 0UL
          Low = 0UL
          Port = 0us }

    let private wrong (error: ProxyError) : ProxyHeader =
        { need 0 with
            Status = ProxyStatus.Wrong
            Error = error }

    let private noAddress (length: int) : ProxyHeader =
        { need length with
            Status = ProxyStatus.NoAddress }

    let private address (length: int, isIPv6: bool, high: uint64, low: uint64, port: uint16) : ProxyHeader =
        { Status = ProxyStatus.Address
          Error = ProxyError.None
          Length = length
          IsIPv6 = isIPv6
          High = high
          Low = low
          Port = port }

    /// One starts with the other, as far as both go.
    let private agree (received: ReadOnlySpan<byte>, expected: byte[]) : bool =
        let length = min received.Length expected.Length
        received.Slice(0, length).SequenceEqual(ReadOnlySpan(expected, 0, length))

    let private signature: byte[] =
        [| 0x0Duy; 0x0Auy; 0x0Duy; 0x0Auy; 0x00uy; 0x0Duy; 0x0Auy; 0x51uy; 0x55uy; 0x49uy; 0x54uy; 0x0Auy |]

    /// Bytes that the addresses of a family and transport have (§2.2); -1 for one that is not served.
    let private addressSize (family: byte) : int =
        match family with
        | 0x00uy -> 0 // UNSPEC
        | 0x11uy -> 12 // TCP over IPv4: two addresses, two ports
        | 0x21uy -> 36 // TCP over IPv6
        | 0x31uy -> 216 // UNIX stream: two paths
        | _ -> -1

    let private read32 (bytes: ReadOnlySpan<byte>, at: int) : uint64 =
        uint64 (BinaryPrimitives.ReadUInt32BigEndian(bytes.Slice at))

    let private read64 (bytes: ReadOnlySpan<byte>, at: int) : uint64 =
        BinaryPrimitives.ReadUInt64BigEndian(bytes.Slice at)

    let private read16 (bytes: ReadOnlySpan<byte>, at: int) : uint16 =
        BinaryPrimitives.ReadUInt16BigEndian(bytes.Slice at)

    /// A whole binary header; its addresses fit.
    let private addresses (received: ReadOnlySpan<byte>, isLocal: bool, length: int) : ProxyHeader =
        match received[13] with
        | 0x11uy when not isLocal -> address (length, false, 0UL, read32 (received, 16), read16 (received, 24))
        | 0x21uy when not isLocal ->
            address (length, true, read64 (received, 16), read64 (received, 24), read16 (received, 48))
        | _ -> noAddress length

    /// Version 2 (§2.2). TLVs behind the addresses are skipped.
    let private binary (received: ReadOnlySpan<byte>) : ProxyHeader =
        let known = received.Length
        let isLocal = known > 12 && received[12] = 0x20uy

        // The family of a LOCAL header does not matter.
        let least =
            if known < 14 || isLocal then
                0
            else
                addressSize received[13]

        // The least that the length may be, as far as it is known.
        let announced =
            if known < 15 then least
            elif known = 15 then max least (int received[14] <<< 8)
            else int (read16 (received, 14))

        if not (agree (received, signature)) then
            wrong ProxyError.Signature
        elif known > 12 && received[12] >>> 4 <> 2uy then
            wrong ProxyError.Version
        elif known > 12 && (received[12] &&& 0x0Fuy) > 1uy then
            wrong ProxyError.Command
        elif least < 0 then
            wrong ProxyError.Family
        elif announced < least then
            wrong ProxyError.Length
        elif FixedSize + announced > MaxSize then
            wrong ProxyError.TooLong
        elif known < FixedSize + announced then
            need (FixedSize + announced - known)
        else
            addresses (received, isLocal, FixedSize + announced)

    /// A line that lacks `missing` bytes at least.
    let private cutLine (received: ReadOnlySpan<byte>, missing: int) : ProxyHeader =
        if received.Length + missing > MaxLineSize then
            wrong ProxyError.TooLong
        else
            need missing

    /// The end of a line whose CR is expected at `at`.
    let private lineEnd (received: ReadOnlySpan<byte>, at: int, header: ProxyHeader) : ProxyHeader =
        if at + 2 > MaxLineSize then
            wrong ProxyError.TooLong
        elif at < received.Length && received[at] <> CarriageReturn then
            wrong ProxyError.LineEnd
        elif at + 1 < received.Length && received[at + 1] <> LineFeed then
            wrong ProxyError.LineEnd
        elif at + 2 > received.Length then
            cutLine (received, at + 2 - received.Length)
        else
            header

    /// `PROXY UNKNOWN`, whose rest up to the first CR is ignored.
    let private unknown (received: ReadOnlySpan<byte>) : ProxyHeader =
        let rest = 13 // behind the word

        if received.Length > rest && received[rest] <> Space && received[rest] <> CarriageReturn then
            wrong ProxyError.Family
        else
            let at =
                if received.Length <= rest then
                    rest
                else
                    match received.Slice(rest).IndexOf CarriageReturn with
                    | -1 -> received.Length
                    | found -> rest + found

            lineEnd (received, at, noAddress (at + 2))

    let private addressToken (received: ReadOnlySpan<byte>, at: int, isIPv6: bool) : TextToken =
        if isIPv6 then
            ProxyText.ipv6 (received, at, Space)
        else
            ProxyText.ipv4 (received, at, Space)

    /// `PROXY TCP4` and `PROXY TCP6`: addresses and ports of source and destination, with a space between each two.
    let private tcp (received: ReadOnlySpan<byte>, isIPv6: bool) : ProxyHeader =
        let leastAddress = if isIPv6 then 2 else 7 // "::", "0.0.0.0"
        let source = addressToken (received, 11, isIPv6)

        if source.End = TextToken.Wrong then
            wrong ProxyError.Address
        elif source.End = TextToken.Cut then
            cutLine (received, source.Missing + leastAddress + 7) // "<source> <destination> 0 0<CR><LF>"
        else
            let destination = addressToken (received, source.End + 1, isIPv6)

            if destination.End = TextToken.Wrong then
                wrong ProxyError.Address
            elif destination.End = TextToken.Cut then
                cutLine (received, destination.Missing + 6)
            else
                let port = ProxyText.number (received, destination.End + 1, 65535, Space)

                if port.End = TextToken.Wrong then
                    wrong ProxyError.Port
                elif port.End = TextToken.Cut then
                    cutLine (received, port.Missing + 4)
                else
                    let last = ProxyText.number (received, port.End + 1, 65535, CarriageReturn)

                    if last.End = TextToken.Wrong then
                        wrong ProxyError.Port
                    elif last.End = TextToken.Cut then
                        cutLine (received, last.Missing + 2)
                    else
                        lineEnd (
                            received,
                            last.End,
                            address (
                                last.End + 2,
                                isIPv6,
                                UInt128.op_Explicit (source.Value >>> 64),
                                UInt128.op_Explicit (source.Value &&& UInt128.op_Implicit UInt64.MaxValue),
                                UInt128.op_Explicit port.Value
                            )
                        )

    let private proxy = "PROXY "B
    let private proxyUnknown = "PROXY UNKNOWN"B
    let private proxyTcp4 = "PROXY TCP4 "B
    let private proxyTcp6 = "PROXY TCP6 "B

    /// Version 1 (§2.1).
    let private line (received: ReadOnlySpan<byte>) : ProxyHeader =
        if not (agree (received, proxy)) then
            wrong ProxyError.Signature
        elif agree (received, proxyUnknown) then
            unknown received
        elif agree (received, proxyTcp6) then
            if received.Length < 11 then
                need (22 - received.Length) // "PROXY TCP6 :: :: 0 0<CR><LF>"
            else
                tcp (received, true)
        elif agree (received, proxyTcp4) then
            if received.Length < 11 then
                need (32 - received.Length)
            else
                tcp (received, false)
        else
            wrong ProxyError.Family

    /// Reads the header at the start of `received`, all bytes of the stream so far.
    let parse (received: ReadOnlySpan<byte>) : ProxyHeader =
        if received.IsEmpty then need 15 // "PROXY UNKNOWN<CR><LF>"
        elif received[0] = signature[0] then binary received
        else line received

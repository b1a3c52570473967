namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System

/// ICMPv4 errors (RFC 792): the packet that they quote, and errors of our own.
/// Laws: a quote afterwards is the one that would have been made with the new address, and the checksums of the error, of
/// the quoted header and of the quoted TCP or UDP are as right or wrong as before; there and back is the identity; no error
/// is made that RFC 1812 §4.3.2.7 forbids, and those that are made have right checksums. Nothing raises.
[<RequireQualifiedAccess>]
module Icmp =
    /// Bytes before the quote.
    [<Literal>]
    let private HeaderLength = 8

    [<Literal>]
    let private ChecksumAt = 2

    /// The length of the quote in 32-bit words, in three of the types (RFC 4884 §3).
    [<Literal>]
    let private QuoteWordsAt = 5

    [<Literal>]
    let private Unreachable = 3uy

    [<Literal>]
    let private SourceQuench = 4uy

    [<Literal>]
    let private Redirect = 5uy

    [<Literal>]
    let private TimeExceeded = 11uy

    [<Literal>]
    let private ParameterProblem = 12uy

    /// The ICMP message if `packet` is an error, whole or the first fragment of one; else empty. Bytes beyond the IP length
    /// are not part of it.
    let private errorIn (packet: Span<byte>) : Span<byte> =
        let view: ReadOnlySpan<byte> = packet

        if
            not (Ipv4.isWellFormed view)
            || Ipv4.protocol view <> IpProtocol.Icmp
            || Ipv4.fragmentOffset view <> 0
        then
            Span<byte>.Empty
        else
            let start = Ipv4.headerLength view
            let length = min packet.Length (Ipv4.totalLength view) - start

            if length < HeaderLength then
                Span<byte>.Empty
            else
                match packet[start] with
                | Unreachable
                | SourceQuench
                | Redirect
                | TimeExceeded
                | ParameterProblem -> packet.Slice(start, length)
                | _ -> Span<byte>.Empty

    /// The quoted packet in an error: what follows the header, up to the extensions if there are any (RFC 4884 §5).
    let private quoteIn (error: Span<byte>) : Span<byte> =
        let rest = error.Slice HeaderLength

        let announced =
            match error[0] with
            | Unreachable
            | TimeExceeded
            | ParameterProblem -> int error[QuoteWordsAt] * 4
            | _ -> 0 // an address is there in a redirect

        if announced > 0 then
            rest.Slice(0, min rest.Length announced)
        else
            rest

    /// Bytes of a quote in which a new address can change something: a header of 60 bytes and the TCP checksum.
    [<Literal>]
    let private Reach = 78

    let private replace
        (packet: Span<byte>, at: int, before: uint32, after: uint32, checksum: TransportChecksum)
        : bool =
        let error = errorIn packet

        if error.IsEmpty then
            false
        else
            let quote = quoteIn error

            if quote.Length < Ipv4.MinHeaderLength || read32 (quote, at) <> before then
                false
            else
                let affected = quote.Slice(0, min quote.Length Reach) // at an even offset of what the checksum covers
                let sumBefore = Checksum.sum affected
                let address = Ipv4Address after

                let isDone =
                    if at = Ipv4.SourceAt then
                        Rewrite.source (quote, address, TransportChecksum.Complete)
                    else
                        Rewrite.destination (quote, address, TransportChecksum.Complete)

                // ICMP has no pseudo-header: a partial sum does not depend on the addresses.
                if isDone && checksum = TransportChecksum.Complete then
                    let field = read16 (error, ChecksumAt)
                    put16 (error, ChecksumAt, Checksum.update (field, sumBefore, Checksum.sum affected))

                isDone

    /// If `packet` is an ICMP error whose quote has the source `before`, puts `after` there, and updates the checksums of
    /// the quoted header, of the quoted TCP or UDP if the quote reaches that far, and of the error (RFC 5508 §4.2, RFC 3022
    /// §4.3). Quotes of later fragments have no TCP or UDP checksum; extensions stay whole (RFC 4884). `checksum` is the
    /// state of the error's own field. False: untouched, as it is something else, a later fragment of an error, an error
    /// without a whole header in its quote, or about another host.
    let replaceQuotedSource (packet: Span<byte>, before: uint32, after: uint32, checksum: TransportChecksum) : bool =
        replace (packet, Ipv4.SourceAt, before, after, checksum)

    /// The same for the destination of the quote.
    let replaceQuotedDestination
        (packet: Span<byte>, before: uint32, after: uint32, checksum: TransportChecksum)
        : bool =
        replace (packet, Ipv4.DestinationAt, before, after, checksum)

    /// Bytes of the longest error that is made (RFC 1812 §4.3.2.3).
    [<Literal>]
    let MaxLength = 576

    /// Bytes before the quote in an error that is made: an IPv4 header without options, and ICMP's.
    [<Literal>]
    let private HeadersLength = 28

    /// The TOS byte of errors: precedence 6, internetwork control (RFC 1812 §4.3.2.5), and not ECN-capable.
    [<Literal>]
    let private Tos = 0xC0uy

    /// Don't fragment, with identification 0: no fragments, so none that could be confused (RFC 6864 §4.1).
    [<Literal>]
    let private DontFragment = 0x4000us

    [<Literal>]
    let private TimeToLive = 64uy

    /// Smallest MTU of a link (RFC 791 §3.2); a host does not believe in a smaller one (RFC 1191 §3).
    [<Literal>]
    let private MinMtu = 68

    /// The first class D address: multicast, class E and the limited broadcast are not below it.
    [<Literal>]
    let private FirstMulticast = 0xE000_0000u

    /// The address of a single host: not this network, loopback, multicast, class E or broadcast (RFC 1122 §3.2.2).
    let private isHost (address: uint32) : bool =
        let network = address >>> 24
        network <> 0u && network <> 127u && address < FirstMulticast

    /// True for ICMP messages that are known to be no errors: echo, router discovery, timestamp, information, address mask
    /// and extended echo. Of an unknown type nobody knows what it is.
    let private isQuery (icmpType: byte) : bool =
        match icmpType with
        | 0uy
        | 8uy
        | 9uy
        | 10uy
        | 13uy
        | 14uy
        | 15uy
        | 16uy
        | 17uy
        | 18uy
        | 42uy
        | 43uy -> true
        | _ -> false

    /// True if an error about `packet` may be sent (RFC 1812 §4.3.2.7, RFC 1122 §3.2.2). Broadcasts of a subnet look like
    /// other addresses: the caller knows its networks.
    let private mayBeReported (packet: ReadOnlySpan<byte>) : bool =
        Ipv4.isWellFormed packet
        && Ipv4.totalLength packet >= Ipv4.headerLength packet
        && Ipv4.totalLength packet <= packet.Length
        && Ipv4.fragmentOffset packet = 0
        && isHost (read32 (packet, Ipv4.SourceAt))
        && read32 (packet, Ipv4.DestinationAt) < FirstMulticast
        && (Ipv4.protocol packet <> IpProtocol.Icmp
            || (Ipv4.totalLength packet > Ipv4.headerLength packet && isQuery packet[Ipv4.headerLength packet]))

    /// Precondition: `mayBeReported`. `rest` is the second word of the ICMP header.
    let private write
        (packet: ReadOnlySpan<byte>, source: uint32, icmpType: byte, code: byte, rest: uint32, dst: Span<byte>)
        : int =
        let quoted = min (Ipv4.totalLength packet) (MaxLength - HeadersLength)
        let length = HeadersLength + quoted

        if dst.Length < length then
            0
        else
            dst[0] <- 0x45uy
            dst[Ipv4.TosAt] <- Tos
            put16 (dst, Ipv4.TotalLengthAt, uint16 length)
            put16 (dst, Ipv4.IdentificationAt, 0us)
            put16 (dst, Ipv4.FragmentWordAt, DontFragment)
            dst[Ipv4.TimeToLiveAt] <- TimeToLive
            dst[Ipv4.ProtocolAt] <- IpProtocol.Icmp
            put16 (dst, Ipv4.ChecksumAt, 0us)
            put32 (dst, Ipv4.SourceAt, source)
            put32 (dst, Ipv4.DestinationAt, read32 (packet, Ipv4.SourceAt))
            let header = dst.Slice(0, Ipv4.MinHeaderLength)
            put16 (dst, Ipv4.ChecksumAt, Checksum.complement (Checksum.sum header))

            let message = dst.Slice(Ipv4.MinHeaderLength, HeaderLength + quoted)
            message[0] <- icmpType
            message[1] <- code
            put16 (message, ChecksumAt, 0us)
            put32 (message, 4, rest)
            packet.Slice(0, quoted).CopyTo(message.Slice HeaderLength)
            put16 (message, ChecksumAt, Checksum.complement (Checksum.sum message))
            length

    /// Writes the error "fragmentation needed and DF set" from `source` to the sender of `packet`, with the MTU of the next
    /// hop in bytes (type 3, code 4, RFC 1191 §4). It quotes as much as fits into `MaxLength`. `dst` must not overlap
    /// `packet`. The bytes written; 0 and nothing written if `dst` is too short, no error may be sent, `packet` may be
    /// fragmented or is not longer than `nextHopMtu`, or no link has such an MTU.
    let writeFragmentationNeeded (packet: ReadOnlySpan<byte>, source: uint32, nextHopMtu: int, dst: Span<byte>) : int =
        if
            nextHopMtu >= MinMtu
            && nextHopMtu <= 0xFFFF
            && mayBeReported packet
            && Ipv4.dontFragment packet
            && Ipv4.totalLength packet > nextHopMtu
        then
            write (packet, source, Unreachable, 4uy, uint32 nextHopMtu, dst)
        else
            0

    /// Writes the error "host unreachable" (type 3, code 1); all else as `writeFragmentationNeeded`.
    let writeHostUnreachable (packet: ReadOnlySpan<byte>, source: uint32, dst: Span<byte>) : int =
        if mayBeReported packet then
            write (packet, source, Unreachable, 1uy, 0u, dst)
        else
            0

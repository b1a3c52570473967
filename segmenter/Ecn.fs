namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System

/// The ECN field of an IP header: the low two bits of its second byte (RFC 3168 §5).
type EcnCodepoint =
    | NotEct = 0
    | Ect1 = 1
    | Ect0 = 2
    /// Congestion experienced.
    | Ce = 3

/// What became of an inside packet whose datagram arrived with an ECN field.
type EcnOutcome =
    /// Not well-formed IPv4; untouched.
    | Refused = 0
    /// The packet must be dropped: a mark that its sender does not understand would be lost. Untouched.
    | Drop = 1
    /// Its field has the right value already.
    | Unchanged = 2
    /// It has a new field, and the checksum that belongs to it.
    | Changed = 3

/// ECN through the tunnel (RFC 6040). The ingress copies the inside field out, the egress combines what it finds inside and
/// outside. Nothing raises.
/// Laws: the outcome is that of RFC 6040 §4.2, figure 4; DSCP and all other bytes stay; a right header checksum stays right
/// and a wrong one stays wrong.
[<RequireQualifiedAccess>]
module Ecn =
    [<Literal>]
    let private Mask = 3

    /// The field in the TOS byte of a header, or of the control message IP_TOS.
    let ofTos (tos: byte) : EcnCodepoint =
        LanguagePrimitives.EnumOfValue(int tos &&& Mask)

    /// The field of an inside packet; `NotEct` if it is not well-formed IPv4.
    let ofPacket (packet: ReadOnlySpan<byte>) : EcnCodepoint =
        if Ipv4.isWellFormed packet then
            ofTos packet[Ipv4.TosAt]
        else
            EcnCodepoint.NotEct

    /// The outside field of a datagram that carries a packet with this inside field: normal mode copies all four values, CE
    /// too (RFC 6040 §4.1, figure 3).
    let encapsulate (inside: EcnCodepoint) : EcnCodepoint = inside

    /// True if the packet must be dropped: its sender does not understand marks, and a router marked the datagram because
    /// it would have dropped it otherwise (RFC 6040 §4.2).
    let isDropped (inside: EcnCodepoint, outside: EcnCodepoint) : bool =
        inside = EcnCodepoint.NotEct && outside = EcnCodepoint.Ce

    /// The inside field of a packet that leaves the tunnel (RFC 6040 §4.2, figure 4). Where `isDropped` is true, no packet
    /// leaves and the value has no meaning.
    let decapsulate (inside: EcnCodepoint, outside: EcnCodepoint) : EcnCodepoint =
        match inside, outside with
        | EcnCodepoint.NotEct, _ -> EcnCodepoint.NotEct
        | EcnCodepoint.Ce, _
        | _, EcnCodepoint.Ce -> EcnCodepoint.Ce
        | _, EcnCodepoint.Ect1 -> EcnCodepoint.Ect1
        | _ -> inside

    /// True for the combinations that figure 4 marks with (!) or (!!!): no ingress that follows a known specification
    /// causes them. They are worth a counter.
    let isUnexpected (inside: EcnCodepoint, outside: EcnCodepoint) : bool =
        match inside, outside with
        | EcnCodepoint.NotEct, _ -> outside <> EcnCodepoint.NotEct
        | EcnCodepoint.Ect1, _ -> outside = EcnCodepoint.Ect0
        | EcnCodepoint.Ce, _ -> outside = EcnCodepoint.Ect1
        | _ -> false

    // Version, IHL and TOS are one word of the header, so one update covers the change (RFC 1624 §3).
    let private put (packet: Span<byte>, codepoint: EcnCodepoint) : unit =
        let before = read16 (packet, 0)
        let after = (before &&& ~~~(uint16 Mask)) ||| uint16 codepoint
        let field = read16 (packet, Ipv4.ChecksumAt)
        put16 (packet, 0, after)
        put16 (packet, Ipv4.ChecksumAt, Checksum.update (field, before, after))

    /// Gives an inside packet the field with which it leaves the tunnel. `outside` is the field of the datagram that it
    /// arrived in.
    let apply (packet: Span<byte>, outside: EcnCodepoint) : EcnOutcome =
        if not (Ipv4.isWellFormed packet) then
            EcnOutcome.Refused
        else
            let inside = ofTos packet[Ipv4.TosAt]

            if isDropped (inside, outside) then
                EcnOutcome.Drop
            else
                let leaving = decapsulate (inside, outside)

                if leaving = inside then
                    EcnOutcome.Unchanged
                else
                    put (packet, leaving)
                    EcnOutcome.Changed

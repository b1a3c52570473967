namespace Lightway.Segmenter

#nowarn "3391" // a Span given where a ReadOnlySpan is read: the conversion is meant

open System

/// The end of a connection that translates.
type internal TranslationEnd =
    | None = 0
    | Server = 1
    | Client = 2

/// Addresses of one connection that its two ends know under different numbers. The default value is `Translation.none`.
[<Struct; NoComparison>]
type Translation =
    private
        {
            End: TranslationEnd
            /// The client's address at this end, and at the peer.
            Here: Ipv4Address
            AtPeer: Ipv4Address
            /// The DNS server's address; used at the client only.
            DnsHere: Ipv4Address
            DnsAtPeer: Ipv4Address
        }

    /// No address is known yet: every packet is refused.
    member this.IsNone: bool = this.End = TranslationEnd.None

/// Replaces the addresses of inside packets where they enter and leave a connection. All clients use one address inside
/// the tunnel; the server's network knows each by an address of its own. A client's programs know neither that address
/// nor the server's DNS server: they use the device's address and a stand-in for DNS.
/// Laws: the packet afterwards is the one built with the new addresses, its checksums as right or wrong as before; an
/// answer to a translated packet comes back as an answer to the original, unless a client addressed the server's DNS
/// server past its stand-in; the quote of an ICMP error is about the packet that the receiver sent, as the translation of
/// that packet is undone in it. Packets that are not well-formed IPv4 are refused and left untouched; nothing raises.
[<RequireQualifiedAccess>]
module Translation =
    /// Refuses every packet.
    let none: Translation = Unchecked.defaultof<Translation>

    /// Translation at the server: `inside` is the client's address in the server's network, `client` the address that
    /// every client uses.
    let server (inside: Ipv4Address, client: Ipv4Address) : Translation =
        { End = TranslationEnd.Server
          Here = inside
          AtPeer = client
          DnsHere = Ipv4Address.None
          DnsAtPeer = Ipv4Address.None }

    /// Translation at the client: `local` is the device's address, `dns` the stand-in for DNS; the server granted
    /// `grantedLocal` and `grantedDns` for them.
    let client
        (local: Ipv4Address, grantedLocal: Ipv4Address, dns: Ipv4Address, grantedDns: Ipv4Address)
        : Translation =
        { End = TranslationEnd.Client
          Here = local
          AtPeer = grantedLocal
          DnsHere = dns
          DnsAtPeer = grantedDns }

    let private addressesToPeer
        (translation: inref<Translation>, packet: Span<byte>, checksum: TransportChecksum)
        : bool =
        match translation.End with
        | TranslationEnd.Server -> Rewrite.destination (packet, translation.AtPeer, checksum)
        | TranslationEnd.Client ->
            Rewrite.source (packet, translation.AtPeer, checksum)
            && (read32 (packet, Ipv4.DestinationAt) <> translation.DnsHere.Value
                || Rewrite.destination (packet, translation.DnsAtPeer, checksum))
        | _ -> false

    let private addressesFromPeer (translation: inref<Translation>, packet: Span<byte>) : bool =
        match translation.End with
        | TranslationEnd.Server -> Rewrite.source (packet, translation.Here, TransportChecksum.Complete)
        | TranslationEnd.Client ->
            Rewrite.destination (packet, translation.Here, TransportChecksum.Complete)
            && (read32 (packet, Ipv4.SourceAt) <> translation.DnsAtPeer.Value
                || Rewrite.source (packet, translation.DnsHere, TransportChecksum.Complete))
        | _ -> false

    /// The quote of an error that goes to the peer is a packet that the peer sent: `addressesFromPeer`, backwards.
    let private quoteToPeer (translation: inref<Translation>, packet: Span<byte>, checksum: TransportChecksum) : unit =
        let here, atPeer = translation.Here.Value, translation.AtPeer.Value

        if translation.End = TranslationEnd.Server then
            Icmp.replaceQuotedSource (packet, here, atPeer, checksum) |> ignore
        else
            let dnsHere, dnsAtPeer = translation.DnsHere.Value, translation.DnsAtPeer.Value
            Icmp.replaceQuotedDestination (packet, here, atPeer, checksum) |> ignore
            Icmp.replaceQuotedSource (packet, dnsHere, dnsAtPeer, checksum) |> ignore

    /// The quote of an error that the peer sent is a packet that went to it: `addressesToPeer`, backwards.
    let private quoteFromPeer (translation: inref<Translation>, packet: Span<byte>) : unit =
        let complete = TransportChecksum.Complete
        let here, atPeer = translation.Here.Value, translation.AtPeer.Value

        if translation.End = TranslationEnd.Server then
            Icmp.replaceQuotedDestination (packet, atPeer, here, complete) |> ignore
        else
            let dnsHere, dnsAtPeer = translation.DnsHere.Value, translation.DnsAtPeer.Value
            Icmp.replaceQuotedSource (packet, atPeer, here, complete) |> ignore
            Icmp.replaceQuotedDestination (packet, dnsAtPeer, dnsHere, complete) |> ignore

    /// Precondition: well-formed IPv4. Most packets end here.
    let private isIcmp (packet: ReadOnlySpan<byte>) : bool = Ipv4.protocol packet = IpProtocol.Icmp

    /// Translates a packet that goes to the peer; `checksum` is the state of its TCP or UDP field.
    /// False: not well-formed IPv4, or no address is known; `packet` is untouched.
    let toPeer (translation: inref<Translation>, packet: Span<byte>, checksum: TransportChecksum) : bool =
        let isDone = addressesToPeer (&translation, packet, checksum)

        if isDone && isIcmp packet then
            quoteToPeer (&translation, packet, checksum)

        isDone

    /// Translates a packet that the peer sent; its checksums are complete. False as for `toPeer`.
    let fromPeer (translation: inref<Translation>, packet: Span<byte>) : bool =
        let isDone = addressesFromPeer (&translation, packet)

        if isDone && isIcmp packet then
            quoteFromPeer (&translation, packet)

        isDone

namespace Lightway.Protocol

open System
open System.Buffers.Binary
open System.Net
open Lightway.Segmenter

/// The addresses that have their first bits in common (RFC 4632 §3.1). IPv4 addresses are those of ::ffff:0:0/96
/// (RFC 4291 §2.5.5.2), so that an address is the same however a socket spells it. The default value has no address.
[<Struct; NoComparison>]
type Network =
    {
        /// All other bits are 0.
        First: UInt128
        /// Ones for the bits in common.
        Mask: UInt128
        /// Of IP: 4 or 6.
        Version: int
    }

/// Laws: a network has an address exactly if both have the same family and the same first bits; no IPv6 network has an
/// IPv4 address.
[<RequireQualifiedAccess>]
module Network =
    let private mapped = UInt128(0UL, 0xFFFF_0000_0000UL)

    /// `prefix` ones, then zeros.
    let private mask (prefix: int) : UInt128 =
        if prefix <= 0 then
            UInt128.Zero
        else
            UInt128.MaxValue <<< (128 - min prefix 128)

    let private isIPv4 (address: UInt128) : bool = address >>> 32 = (mapped >>> 32)

    /// The network of an address with a prefix length of 0 to 128 bits: an IPv4 network if the address is IPv4 and has
    /// at least 96.
    let private ofBits (address: UInt128, prefix: int) : Network =
        let mask = mask prefix

        { First = address &&& mask
          Mask = mask
          Version = (if isIPv4 address && prefix >= 96 then 4 else 6) }

    /// The network of an IPv4 address with a prefix of 0 to 32 bits.
    let ofIpv4 (address: Ipv4Address, prefix: int) : Network =
        ofBits (mapped + UInt128.op_Implicit address.Value, 96 + max 0 prefix)

    /// The network of an IPv6 address, given as its two halves in host order, with a prefix of 0 to 128 bits.
    let ofIpv6 (high: uint64, low: uint64, prefix: int) : Network = ofBits (UInt128(high, low), prefix)

    /// For code that sets something up: allocates.
    let ofIPNetwork (network: IPNetwork) : Network =
        match network.BaseAddress.GetAddressBytes() with
        | bytes when bytes.Length = 4 -> ofIpv4 (Ipv4Address.Of network.BaseAddress, network.PrefixLength)
        | bytes ->
            ofIpv6 (
                BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan bytes),
                BinaryPrimitives.ReadUInt64BigEndian(ReadOnlySpan(bytes, 8, 8)),
                network.PrefixLength
            )

    let private anyHas (networks: ReadOnlySpan<Network>, address: UInt128) : bool =
        let version = if isIPv4 address then 4 else 6
        let mutable at = 0

        while at < networks.Length
              && not (networks[at].Version = version && address &&& networks[at].Mask = networks[at].First) do
            at <- at + 1

        at < networks.Length

    /// One of the networks has this IPv4 address.
    let anyHasIpv4 (networks: ReadOnlySpan<Network>, address: Ipv4Address) : bool =
        anyHas (networks, mapped + UInt128.op_Implicit address.Value)

    /// One of the networks has this IPv6 address, given as its two halves in host order.
    let anyHasIpv6 (networks: ReadOnlySpan<Network>, high: uint64, low: uint64) : bool =
        anyHas (networks, UInt128(high, low))

namespace Lightway.Protocol

/// Where a stranger's datagrams come from: hashes of two prefixes of the outside source address. The narrow one is what a
/// single host may have, /32 of IPv4 or /64 of IPv6; the wide one what a customer or a small network may have, /24 or /48.
[<Struct>]
type SourceKey = { Narrow: uint64; Wide: uint64 }

/// Laws: two addresses have the same narrow or wide key exactly if that prefix is the same, up to collisions of a 64-bit
/// hash; an IPv4 address in IPv6 (RFC 4291 §2.5.5.2) has the keys of the IPv4 address.
[<RequireQualifiedAccess>]
module SourceKey =
    // Family and length of the prefix, so that prefixes of different kinds never meet.
    let private prefix (seed: HashSeed, kind: uint64, bits: uint64) : uint64 = KeyedHash.ofWords (seed, kind, bits)

    /// Of an IPv4 address in host order.
    let ofIpv4 (seed: HashSeed, address: uint32) : SourceKey =
        { Narrow = prefix (seed, 0x0420UL, uint64 address)
          Wide = prefix (seed, 0x0418UL, uint64 (address >>> 8)) }

    /// Of an IPv6 address, given as its two halves in host order.
    let ofIpv6 (seed: HashSeed, high: uint64, low: uint64) : SourceKey =
        if high = 0UL && low >>> 32 = 0xFFFFUL then
            ofIpv4 (seed, uint32 low)
        else
            { Narrow = prefix (seed, 0x0640UL, high)
              Wide = prefix (seed, 0x0630UL, high >>> 16) }

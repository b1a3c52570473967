/// Checksums by definition, without a loop, a fold or a line in common with the product: 2^16 is congruent to 1 modulo
/// 65535, so adding 16-bit words with end-around carry is reading the bytes as one big number modulo 65535.
module Lightway.Specs.Oracles.ByteSum

open System
open System.Numerics

/// The number that `bytes`, padded to an even length with zero, spell in base 2^16, modulo 65535.
let residue (bytes: byte[]) : int =
    let padded =
        if bytes.Length % 2 = 0 then
            bytes
        else
            Array.append bytes [| 0uy |]

    int (BigInteger(ReadOnlySpan padded, isUnsigned = true, isBigEndian = true) % BigInteger 65535)

/// The exact sum: end-around carry leaves 0 only where there was nothing to add, and 0xFFFF for other multiples of
/// 65535.
let sum (bytes: byte[]) : uint16 =
    match residue bytes with
    | 0 when Array.exists ((<>) 0uy) bytes -> 0xFFFFus
    | residue -> uint16 residue

/// The sender's value of a checksum field that was zero among `bytes`.
let checksum (bytes: byte[]) : uint16 = 0xFFFFus - sum bytes

/// True if a receiver accepts `bytes` that contain their checksum: the sum is one's complement zero.
let verifies (bytes: byte[]) : bool = residue bytes = 0

/// 16 bits in network order.
let word (value: int) : byte[] = [| byte (value >>> 8); byte value |]

/// Pseudo-header of an IPv4 packet (RFC 9293 §3.1), spelled out.
let pseudoHeaderV4 (packet: byte[]) (length: int) : byte[] =
    Array.concat [ packet[12..19]; [| 0uy; packet[9] |]; word length ]

/// Pseudo-header of an IPv6 packet (RFC 8200 §8.1), spelled out.
let pseudoHeaderV6 (packet: byte[]) (protocol: byte) (length: int) : byte[] =
    Array.concat [ packet[8..39]; word (length >>> 16); word length; [| 0uy; 0uy; 0uy; protocol |] ]

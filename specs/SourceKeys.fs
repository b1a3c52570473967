/// Keys of sources and users: SipHash against its published vectors, and prefixes of addresses.
module Lightway.Specs.SourceKeys

open System
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

/// The key 00 01 .. 0f of the vectors, as two little-endian words.
let private published =
    { First = 0x0706050403020100UL
      Second = 0x0F0E0D0C0B0A0908UL }

/// Digests of the first N bytes of 00 01 02 .., as the authors print them; checked with another implementation (OpenSSL).
let private vectors =
    [ 0, "310e0edd47db6f72"
      1, "fd67dc93c539f874"
      7, "37d1018bf50002ab"
      8, "6224939a79f5f593"
      9, "b0e4a90bdf82009e"
      15, "e545be4961ca29a1"
      16, "db9bc2577fcc2a3f" ]

let private seed = { First = 1UL; Second = 2UL }

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<SeedArbitrary> ] }

let laws =
    testList
        "source keys"
        [ for length, digest in vectors do
              testCase $"SipHash-2-4: the published digest of {length} bytes"
              <| fun () ->
                  let hash =
                      KeyedHash.ofBytes (published, ReadOnlySpan [| for i in 1..length -> byte (i - 1) |])

                  Expect.equal (BitConverter.GetBytes hash) (hex digest) "digest"

          testPropertyWithConfig config "two words are 16 bytes"
          <| fun (first: uint64) (second: uint64) (seedFirst: uint64) (seedSecond: uint64) ->
              let seed =
                  { First = seedFirst
                    Second = seedSecond }

              let bytes =
                  Array.append (BitConverter.GetBytes first) (BitConverter.GetBytes second)

              KeyedHash.ofWords (seed, first, second) = KeyedHash.ofBytes (seed, ReadOnlySpan bytes)

          testPropertyWithConfig config "IPv4 sources are the same as far as their first 24 and 32 bits are"
          <| fun (address: uint32) (bit: byte) ->
              let bit = int bit % 32
              let one = SourceKey.ofIpv4 (seed, address)
              let other = SourceKey.ofIpv4 (seed, address ^^^ (1u <<< bit))

              one = SourceKey.ofIpv4 (seed, address)
              && one.Narrow <> other.Narrow
              && (one.Wide = other.Wide) = (bit < 8)

          testPropertyWithConfig config "IPv6 sources are the same as far as their first 48 and 64 bits are"
          <| fun (high: uint64) (low: uint64) (bit: byte) (otherLow: uint64) ->
              let high = high ||| 1UL <<< 61 // a global address
              let bit = int bit % 61
              let one = SourceKey.ofIpv6 (seed, high, low)
              let other = SourceKey.ofIpv6 (seed, high ^^^ (1UL <<< bit), low)

              one = SourceKey.ofIpv6 (seed, high, otherLow)
              && one.Narrow <> other.Narrow
              && (one.Wide = other.Wide) = (bit < 16)

          testPropertyWithConfig config "RFC 4291 §2.5.5.2: an IPv4 address in IPv6 is the IPv4 source, and no other is"
          <| fun (address: uint32) (marker: uint32) (high: uint64) ->
              let plain = SourceKey.ofIpv4 (seed, address)

              let inside (high: uint64) (marker: uint32) =
                  SourceKey.ofIpv6 (seed, high, uint64 marker <<< 32 ||| uint64 address)

              inside 0UL 0xFFFFu = plain
              && (marker = 0xFFFFu || (inside 0UL marker).Narrow <> plain.Narrow)
              && (high = 0UL || (inside high 0xFFFFu).Narrow <> plain.Narrow)

          testPropertyWithConfig
              config
              "another seed gives other keys, in each of its halves, and so do the two prefixes"
          <| fun (address: uint32) (first: uint64) (second: uint64) ->
              let key first second =
                  SourceKey.ofIpv4 ({ First = first; Second = second }, address)

              let keys = [ key first second; key (first + 1UL) second; key first (second + 1UL) ]

              List.distinct
                  [ for key in keys do
                        key.Narrow
                        key.Wide ]
              |> List.length
                  =
                  6

          testCase "keys cost no allocation"
          <| fun () ->
              let name = filled (Random 1) 21

              let allocated =
                  allocatedBy (fun () ->
                      for i in 1..1000 do
                          SourceKey.ofIpv4 (seed, uint32 i) |> ignore
                          SourceKey.ofIpv6 (seed, uint64 i, 1UL) |> ignore
                          KeyedHash.ofBytes (seed, ReadOnlySpan name) |> ignore)

              Expect.equal allocated 0L "bytes" ]

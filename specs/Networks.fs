/// Lists of networks, compared with System.Net.IPNetwork.
module Lightway.Specs.Networks

open System
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Specs.Generators

let private halves (bytes: byte[]) =
    let number (at: int) =
        Seq.fold (fun value index -> value <<< 8 ||| uint64 bytes[index]) 0UL (seq { at .. at + 7 })

    number 0, number 8

let private has (networks: IPNetwork list) (address: IPAddress) =
    let networks = [| for network in networks -> Network.ofIPNetwork network |]
    let bytes = address.GetAddressBytes()

    if bytes.Length = 4 then
        Network.anyHasIpv4 (ReadOnlySpan networks, Ipv4Address.Of address)
    else
        let high, low = halves bytes
        Network.anyHasIpv6 (ReadOnlySpan networks, high, low)

/// An address of a few bits that vary, so that networks meet it.
let private anyAddress (random: System.Random) =
    let length = if random.Next 2 = 0 then 4 else 16
    let bytes = Array.init length (fun _ -> byte (0xA0 + random.Next 2))

    if length = 16 && random.Next 4 = 0 then
        Array.fill bytes 0 10 0uy
        Array.fill bytes 10 2 0xFFuy

    IPAddress bytes

/// The network of an address, its other bits cleared one by one.
let private networkOf (address: IPAddress) (prefix: int) =
    let bytes = address.GetAddressBytes()

    for bit in prefix .. bytes.Length * 8 - 1 do
        bytes[bit / 8] <- bytes[bit / 8] &&& ~~~(0x80uy >>> (bit % 8))

    IPNetwork(IPAddress bytes, prefix)

let private anyNetwork (random: System.Random) =
    let address = anyAddress random
    networkOf address (random.Next(1 + address.GetAddressBytes().Length * 8))

/// An IPv4 address in IPv6 is an IPv4 address; so is a network of such addresses.
let private expected (networks: IPNetwork list) (address: IPAddress) =
    let plain =
        if address.IsIPv4MappedToIPv6 then
            address.MapToIPv4()
        else
            address

    networks
    |> List.exists (fun network ->
        let network =
            if network.BaseAddress.IsIPv4MappedToIPv6 && network.PrefixLength >= 96 then
                IPNetwork(network.BaseAddress.MapToIPv4(), network.PrefixLength - 96)
            else
                network

        network.BaseAddress.AddressFamily = plain.AddressFamily && network.Contains plain)

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 5_000
        arbitrary = [ typeof<SeedArbitrary> ] }

let laws =
    testList
        "networks"
        [ testPropertyWithConfig config "a list has the addresses that one of its networks has"
          <| fun (Seed seed) ->
              let random = System.Random seed
              let networks = List.init (random.Next 4) (fun _ -> anyNetwork random)
              let address = anyAddress random
              has networks address = expected networks address

          testPropertyWithConfig
              config
              "RFC 4632 §3.1: a network has its own addresses, and none that differs in its prefix"
          <| fun (Seed seed) ->
              let random = System.Random seed
              let address = anyAddress random
              let bytes = address.GetAddressBytes()
              let prefix = random.Next(1 + bytes.Length * 8)
              let bit = random.Next(bytes.Length * 8)
              let other = Array.copy bytes
              other[bit / 8] <- other[bit / 8] ^^^ (0x80uy >>> (bit % 8))
              let networks = [ networkOf address prefix ]
              let isMapped = address.IsIPv4MappedToIPv6

              // An IPv6 network of which a mapped address is only a part does not have it.
              let isOfFamily = not isMapped || prefix >= 96

              has networks address = isOfFamily
              && (isMapped && bit < 96 || has networks (IPAddress other) = (isOfFamily && bit >= prefix))

          testPropertyWithConfig config "RFC 4632 §3.1: the bits behind the prefix do not matter"
          <| fun (high: uint64) (low: uint64) (noise: uint64) (prefix: byte) ->
              let wide = int prefix % 65
              let narrow = int prefix % 33
              let address = Ipv4Address(uint32 low)
              let other = Ipv4Address(uint32 low ^^^ uint32 (noise &&& 0xFFFFFFFFUL >>> narrow))
              let further = high ^^^ (if wide = 64 then 0UL else noise >>> wide)

              Network.ofIpv6 (high, low, wide) = Network.ofIpv6 (further, low ^^^ noise, wide)
              && Network.ofIpv4 (address, narrow) = Network.ofIpv4 (other, narrow)

          testCase "every address of a family is in its whole network, and only there"
          <| fun () ->
              let all4, all6 = IPNetwork.Parse "0.0.0.0/0", IPNetwork.Parse "::/0"

              for text, isIPv4 in
                  [ "0.0.0.0", true
                    "255.255.255.255", true
                    "::ffff:192.0.2.1", true
                    "::", false
                    "::192.0.2.1", false
                    "2001:db8::1", false ] do
                  let address = IPAddress.Parse text
                  Expect.equal (has [ all4 ] address) isIPv4 text
                  Expect.equal (has [ all6 ] address) (not isIPv4) text
                  Expect.isTrue (has [ all6; all4 ] address) text
                  Expect.isFalse (has [] address) text

              Expect.equal all4.BaseAddress.AddressFamily AddressFamily.InterNetwork "the family"

          testCase "the default value has no address"
          <| fun () ->
              let networks = [| Unchecked.defaultof<Network> |]
              Expect.isFalse (Network.anyHasIpv6 (ReadOnlySpan networks, 1UL, 1UL)) "IPv6"
              Expect.isFalse (Network.anyHasIpv4 (ReadOnlySpan networks, Ipv4Address 1u)) "IPv4"

          testCase "asking allocates nothing"
          <| fun () ->
              let networks =
                  [| Network.ofIpv4 (Ipv4Address 0x0A000000u, 8); Network.ofIpv6 (1UL, 2UL, 64) |]

              let allocated =
                  allocatedBy (fun () ->
                      for i in 1..1000 do
                          Network.anyHasIpv4 (ReadOnlySpan networks, Ipv4Address(uint32 i)) |> ignore
                          Network.anyHasIpv6 (ReadOnlySpan networks, 1UL, uint64 i) |> ignore)

              Expect.equal allocated 0L "bytes" ]

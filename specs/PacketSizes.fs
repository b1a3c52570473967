/// How long packets may be: docs/protocol.md, section 9.
module Lightway.Specs.PacketSizes

open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators

/// Bytes of the outside IP packet around a packet of `n` bytes, field by field: RFC 791, RFC 8200, RFC 768, the wire
/// header, then RFC 9147 §4 and the Data frame, or the Expresslane's length, counter, IV and tag.
let private outside isIPv6 expresslane n =
    let ip = if isIPv6 then 40 else 20
    let udp = 2 + 2 + 2 + 2
    let wire = 2 + 1 + 1 + 1 + 1 + 2 + 8
    let record = 1 + 2 + 2 + (1 + 2 + n) + 1 + 16
    let fast = 8 + 2 + 2 + 12 + 16 + n

    ip + udp + wire + (if expresslane then fast else record)

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2000 }

let laws =
    testList
        "Packet sizes"
        [ testPropertyWithConfig config "the longest packet fits by every path that it may take, and no longer one does"
          <| fun (mtu: uint16) isIPv6 expresslane ->
              let longest = Sizes.insideMtu (int mtu, isIPv6, expresslane)
              let ways = if expresslane then [ false; true ] else [ false ]

              let needs n =
                  ways |> List.map (fun way -> outside isIPv6 way n) |> List.max

              needs longest <= int mtu && needs (longest + 1) > int mtu

          testPropertyWithConfig config "a device's MTU is the granted one as far as it fits; without a grant, 1350"
          <| fun (granted: int) (longest: uint16) ->
              let mtu = Sizes.deviceMtu (granted, int longest)
              let wanted = if granted >= 68 then granted else 1350
              mtu = (if wanted <= int longest then wanted else int longest)

          testPropertyWithConfig
              config
              "fragments are as few as fit, equal but for the last, and of at most what the path allows"
          <| fun (length: uint16) (mtu: uint16) isIPv6 ->
              let length = max 1 (int length)
              let mtu = 172 + int mtu % 1400
              let payload = Sizes.fragmentPayload (length, mtu, isIPv6)
              // IP, UDP, wire header, record, then kind, length, id and offset.
              let around =
                  (if isIPv6 then 40 else 20) + 8 + 16 + (1 + 2 + 2 + 1 + 16) + (1 + 2 + 2 + 2)

              let most = (mtu - around) / 8 * 8
              let count size = (length + size - 1) / size
              let last = length - (count payload - 1) * payload

              payload > 0
              && payload % 8 = 0
              && payload <= most
              && count payload = count most
              && last > 0
              && (count payload = 1 || payload * count payload - length < 8 * count payload)

          test "the usual sizes" {
              let sizes =
                  [ for mtu in [ 1500; 1400; 1280 ] do
                        for isIPv6 in [ false; true ] do
                            for expresslane in [ false; true ] do
                                Sizes.insideMtu (mtu, isIPv6, expresslane) ]

              Expect.equal sizes [ 1431; 1416; 1411; 1396; 1331; 1316; 1311; 1296; 1211; 1196; 1191; 1176 ] ""
              Expect.equal Sizes.minOutsideMtu 172 "68 bytes of packet, 104 of everything else over IPv6"
              Expect.equal (Sizes.insideMtu (Sizes.minOutsideMtu, true, true)) Sizes.MinInsideMtu "nothing to spare"
          } ]

/// Lowering the MSS option of a SYN: RFC 9293 §3.7.1, with the checksum kept by RFC 1624.
module Lightway.Specs.MssClamp

open System
open Expecto
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// IPv4 and TCP with `options` and a right checksum.
let private packetWith (flags: int) (options: byte[]) : byte[] =
    let packet =
        Array.concat
            [ [| 0x45uy; 0uy |]
              ByteSum.word (40 + options.Length)
              hex "00010000 4006 0000 c0a800c3 08080808 00140035 00000000 00000000"
              ByteSum.word ((5 + options.Length / 4) <<< 12 ||| flags)
              hex "2000 0000 0000"
              options ]

    (ByteSum.word (int (ByteSum.checksum packet[..19]))).CopyTo(packet, 10)

    let covered =
        Array.append (ByteSum.pseudoHeaderV4 packet (packet.Length - 20)) packet[20..]

    (ByteSum.word (int (ByteSum.checksum covered))).CopyTo(packet, 36)
    packet

/// Options before the MSS option, which put it at any offset of the 40 bytes, odd ones too.
type Options = { Before: byte[]; Mss: uint16 }

type OptionsArbitrary =
    static member Options() =
        gen {
            let! others =
                Gen.listOf (
                    Gen.elements
                        [ [| 1uy |]
                          [| 3uy; 3uy; 7uy |]
                          [| 4uy; 2uy |]
                          hex "080a 11223344 55667788"
                          hex "fe05 aabbcc" ]
                )

            let! mss = Gen.choose (0, 65535)
            let before = Array.concat others

            return
                { Before = (if before.Length > 36 then [||] else before)
                  Mss = uint16 mss }
        }
        |> Arb.fromGen

let private bytesOf (options: Options) (mss: int) =
    let bytes = Array.concat [ options.Before; [| 2uy; 4uy |]; ByteSum.word mss ]
    Array.append bytes (Array.zeroCreate ((4 - bytes.Length % 4) % 4))

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2000
        arbitrary = [ typeof<OptionsArbitrary>; typeof<SeedArbitrary> ] }

let private properties =
    [ testPropertyWithConfig
          config
          "the result is the packet built with the lower of MSS and limit, wherever the option is"
      <| fun (options: Options) (limit: uint16) ->
          let packet = packetWith 0x002 (bytesOf options (int options.Mss))
          let expected = packetWith 0x002 (bytesOf options (int (min options.Mss limit)))
          let previous = Rewrite.clampMss (Span packet, int limit)

          packet = expected && previous = (if options.Mss > limit then int options.Mss else 0)

      testPropertyWithConfig config "a packet without SYN is untouched, whatever its options"
      <| fun (options: Options) (flags: byte) ->
          let packet = packetWith (int flags &&& ~~~2) (bytesOf options 65535)
          let copy = Array.copy packet
          Rewrite.clampMss (Span copy, 536) = 0 && copy = packet

      testPropertyWithConfig
          { config with maxTest = 100_000 }
          "any bytes: four change at most, and none around the packet"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let packet = packetWith 0x002 (filled (Random seed) (random.Next 11 * 4))

          for _ in 0 .. random.Next 5 do
              packet[random.Next packet.Length] <- [| 0uy; 1uy; 2uy; 4uy; byte seed |][random.Next 5]

          let kept = packet[.. random.Next(packet.Length + 1) - 1]
          let placed = place (seed % 64) kept
          let previous = Rewrite.clampMss (placed.Span, 536)
          let changed = Array.zip placed.Bytes kept |> Array.filter (fun (a, b) -> a <> b)

          placed.SurroundingsIntact
          && changed.Length <= 4
          && (previous > 536 || (previous = 0 && changed.Length = 0)) ]

let private syn =
    "4500002c 00010000 4006a950 c0a800c3 08080808 00140035 00000000 00000000"

let private hostile =
    "4550ff60 a30c0000 4006a950 010000fd 00000808 00140034 00000000 00000000 60022000 a6ff0000"

let private vectors =
    [ "a SYN of 1412", syn + "60022000 a6920000 02040584", 1200, 1412, syn + "60022000 a7660000 020404b0"
      "a SYN with two NOPs before",
      "45000030 00010000 4006a94c c0a800c3 08080808 00140035 00000000 00000000 70022000 958d0000 01010204 05840000",
      1200,
      1412,
      "45000030 00010000 4006a94c c0a800c3 08080808 00140035 00000000 00000000 70022000 96610000 01010204 04b00000"
      "a SYN-ACK", syn + "60122000 a6820000 02040584", 1200, 1412, syn + "60122000 a7560000 020404b0" ]

let private untouched =
    [ "an MSS equal to the limit", syn + "60022000 a6920000 02040584", 1412
      "an MSS below the limit", syn + "60022000 a6920000 02040584", 1460
      "a limit below zero", syn + "60022000 a6920000 02040584", -1
      "an option of length zero", hostile + "010300ff", 1200
      "an option cut short", hostile + "01010102", 1200
      "an MSS option of length 3", syn + "60022000 a6920000 02030584", 1200
      "an MSS option behind the end of options", syn + "70022000 a6920000 00000000 02040584", 1200
      "an ACK without SYN", syn + "60102000 a6920000 02040584", 1200
      "a later fragment", syn.Replace("00010000", "00010001") + "60022000 a6920000 02040584", 1200
      "UDP", syn.Replace("4006", "4011") + "60022000 a6920000 02040584", 1200
      "IPv6",
      "60000000 0018 06 40"
      + String.replicate 32 "fd"
      + "00140035 00000000 00000000 60022000 a6920000 02040584",
      1200
      "TCP cut short", "45000020 00010000 4006a950 c0a800c3 08080808 00140035 00000000 00000000", 1200
      "no bytes", "", 1200 ]

let private examples =
    [ for name, before, limit, previous, after in vectors do
          testCase $"published: {name}"
          <| fun () ->
              let packet = hex before
              Expect.equal (Rewrite.clampMss (Span packet, limit)) previous "previous"
              Expect.equal packet (hex after) "packet"

      for name, bytes, limit in untouched do
          testCase $"untouched: {name}"
          <| fun () ->
              let packet = hex bytes
              Expect.equal (Rewrite.clampMss (Span packet, limit)) 0 "previous"
              Expect.equal packet (hex bytes) "packet" ]

let private quickLook =
    [ testPropertyWithConfig config "the quick look finds every packet that would be changed"
      <| fun (options: Options) (flags: byte) ->
          let packet = packetWith (int flags) (bytesOf options 65535)
          let looked = Rewrite.mayBeSyn (ReadOnlySpan packet)
          looked = (flags &&& 2uy <> 0uy) && (looked || Rewrite.clampMss (Span packet, 0) = 0)

      for name, bytes, _ in untouched do
          testCase $"the quick look raises nothing: {name}"
          <| fun () -> Rewrite.mayBeSyn (ReadOnlySpan(hex bytes)) |> ignore

      testCase "the quick look sees flags behind IP options, and ends where the packet does"
      <| fun () ->
          let options = String.replicate 5 "01010101"
          let header = "4a00003c 00010000 4006a950 c0a800c3 08080808" + options
          let tcp = "00140035 00000000 00000000 50022000 a6920000"
          Expect.isTrue (Rewrite.mayBeSyn (ReadOnlySpan(hex (header + tcp)))) "IHL 10"
          Expect.isFalse (Rewrite.mayBeSyn (ReadOnlySpan(hex header))) "no TCP header"

      testCase "the quick look passes over UDP, an ACK, and TCP cut short"
      <| fun () ->
          for name in [ "UDP"; "an ACK without SYN"; "TCP cut short"; "no bytes" ] do
              let _, bytes, _ = untouched |> List.find (fun (key, _, _) -> key = name)
              Expect.isFalse (Rewrite.mayBeSyn (ReadOnlySpan(hex bytes))) name ]

let laws = testList "MSS clamp" (properties @ examples @ quickLook)

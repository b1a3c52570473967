/// virtio_net_hdr (linux/virtio_net.h): its layout, and the checksums that it asks to complete.
module Lightway.Specs.VirtioNet

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 500
        arbitrary = [ typeof<ShapeArbitrary>; typeof<SeedArbitrary> ] }

let private header =
    [ testProperty "tryParse of what write wrote is the same header"
      <| fun (flags: byte) (gsoType: byte) (hdrLen: uint16) (gsoSize: uint16) (start: uint16) (offset: uint16) ->
          let header: VirtioNetHeader =
              { Flags = flags
                GsoType = gsoType
                HdrLen = hdrLen
                GsoSize = gsoSize
                CsumStart = start
                CsumOffset = offset }

          let placed = place 3 (junk 10)
          VirtioNetHeader.write (&header, placed.Span)
          let mutable parsed = Unchecked.defaultof<VirtioNetHeader>

          VirtioNetHeader.tryParse (placed.ReadOnly, &parsed) && parsed = header && placed.SurroundingsIntact

      testCase "fewer than 10 bytes are no header; the layout is that of linux/virtio_net.h"
      <| fun () ->
          let bytes = hex "01 81 4200 5005 2200 1000"
          let mutable parsed = Unchecked.defaultof<VirtioNetHeader>

          for length in 0..9 do
              Expect.isFalse (VirtioNetHeader.tryParse (ReadOnlySpan(bytes, 0, length), &parsed)) $"{length}"

          Expect.isTrue (VirtioNetHeader.tryParse (ReadOnlySpan bytes, &parsed)) "10"

          let expected: VirtioNetHeader =
              { Flags = 1uy
                GsoType = 0x81uy
                HdrLen = 0x42us
                GsoSize = 0x550us
                CsumStart = 0x22us
                CsumOffset = 0x10us }

          Expect.equal parsed expected "fields"

          Expect.isTrue
              (parsed.IsSuperpacket && parsed.BaseGsoType = VirtioNetHeader.GsoTcpV4)
              "the ECN bit is not a type"

          Expect.isFalse { parsed with GsoType = 0x80uy }.IsSuperpacket "NONE with ECN is NONE" ]

let private completion =
    [ testPropertyWithConfig
          config
          "NEEDS_CSUM: a completed single packet is the only segment of the superpacket it would be"
      <| fun (shape: Shape) ->
          let superpacket =
              build
                  { shape with
                      GsoSize = shape.PayloadLength }

          let vnet =
              { superpacket.Vnet with
                  GsoType = 0uy
                  GsoSize = 0us }

          let placed = place 5 (Array.append superpacket.Packet (junk 3))

          let expected =
              Array.append
                  (List.exactlyOne (
                      Expect.wantOk (Cut.segments Cut.unlimited 0 superpacket.Vnet superpacket.Packet) "planned"
                  ))
                  (junk 3)

          Segment.completeChecksum (&vnet, placed.Span) && placed.Bytes = expected

      testPropertyWithConfig config "without NEEDS_CSUM nothing is touched, bad checksums included"
      <| fun (shape: Shape) ->
          let superpacket = build shape
          let placed = place 0 superpacket.Packet
          let vnet = { superpacket.Vnet with Flags = 2uy }
          Segment.completeChecksum (&vnet, placed.Span) && placed.Bytes = superpacket.Packet

      testCase "csum_start and csum_offset beyond the packet: false, and nothing is touched"
      <| fun () ->
          let superpacket = build plainShape

          for start, offset in [ 275us, 16us; 0us, 290us; 65535us, 65535us; 274us, 15us ] do
              let vnet =
                  { superpacket.Vnet with
                      CsumStart = start
                      CsumOffset = offset }

              let placed = place 1 superpacket.Packet
              Expect.isFalse (Segment.completeChecksum (&vnet, placed.Span)) $"{start} + {offset}"
              Expect.equal placed.Bytes superpacket.Packet "bytes"

      testPropertyWithConfig
          { config with maxTest = 100_000 }
          "any bytes: completing a checksum changes the two bytes of the field or nothing"
      <| fun (Seed seed) ->
          let vnet, packet = mutated seed
          let placed = place (seed % 64) packet
          let isDone = Segment.completeChecksum (&vnet, placed.Span)
          let at = int vnet.CsumStart + int vnet.CsumOffset
          let after = placed.Bytes

          placed.SurroundingsIntact
          && Seq.forall
              (fun i -> after[i] = packet[i] || (isDone && (i = at || i = at + 1)))
              (seq { 0 .. packet.Length - 1 }) ]

let laws = testList "virtio_net_hdr" (header @ completion)

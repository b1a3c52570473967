/// ECN through the tunnel (RFC 6040): the tables once more, cell by cell, and what happens to a packet's bytes.
module Lightway.Specs.EcnTable

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.AddressRewrite
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// The two bits of each codepoint (RFC 3168 §5, figure 1).
let private bits = [ "Not-ECT", 0b00; "ECT(0)", 0b10; "ECT(1)", 0b01; "CE", 0b11 ]

let private codepoint (name: string) : EcnCodepoint =
    bits |> List.find (fst >> (=) name) |> snd |> enum<EcnCodepoint>

/// RFC 6040 §4.2, figure 4: a row for each inside field, the columns in the order of `bits`. The exclamation marks are the
/// RFC's.
let private figure4 =
    [ "Not-ECT", [ "Not-ECT"; "Not-ECT(!!!)"; "Not-ECT(!!!)"; "drop(!!!)" ]
      "ECT(0)", [ "ECT(0)"; "ECT(0)"; "ECT(1)"; "CE" ]
      "ECT(1)", [ "ECT(1)"; "ECT(1)(!)"; "ECT(1)"; "CE" ]
      "CE", [ "CE"; "CE"; "CE(!!!)"; "CE" ] ]

/// Inside field, outside field, and the cell of figure 4 without its marks, and whether it has some.
let private cells =
    [ for inside, row in figure4 do
          for (outside, _), cell in List.zip bits row do
              inside, outside, cell.Replace("(!!!)", "").Replace("(!)", ""), cell.Contains '!' ]

let private table =
    [ for inside, outside, leaving, isMarked in cells do
          testCase $"RFC 6040 §4.2: {inside} inside and {outside} outside leave as {leaving}"
          <| fun () ->
              let inside, outside = codepoint inside, codepoint outside
              Expect.equal (Ecn.isDropped (inside, outside)) (leaving = "drop") "dropped"
              Expect.equal (Ecn.isUnexpected (inside, outside)) isMarked "unexpected"

              if leaving <> "drop" then
                  Expect.equal (Ecn.decapsulate (inside, outside)) (codepoint leaving) "leaves"

      for inside, _ in bits do
          testCase $"RFC 6040 §4.1: normal mode copies {inside} out"
          <| fun () -> Expect.equal (Ecn.encapsulate (codepoint inside)) (codepoint inside) "figure 3" ]

/// The packet with this TOS byte, its header checksum computed from scratch.
let private withTos (tos: byte) (packet: byte[]) : byte[] =
    let copy = Array.copy packet
    copy[1] <- tos
    (ByteSum.word 0).CopyTo(copy, 10)
    (ByteSum.word (int (ByteSum.checksum copy[.. int (copy[0] &&& 15uy) * 4 - 1]))).CopyTo(copy, 10)
    copy

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 3_000
        arbitrary = [ typeof<MouldArbitrary>; typeof<AddressArbitrary>; typeof<SeedArbitrary> ] }

/// The TOS byte that a packet leaves with, read from the cells; None: it is dropped.
let private leavingTos (tos: byte) (outside: string) : byte option =
    let inside = bits |> List.find (fun (_, bits) -> bits = int tos % 4) |> fst

    cells
    |> List.pick (fun (row, column, leaving, _) ->
        if row = inside && column = outside then
            Some leaving
        else
            None)
    |> fun leaving ->
        bits
        |> List.tryFind (fst >> (=) leaving)
        |> Option.map (fun (_, bits) -> tos - tos % 4uy + byte bits)

let private packets =
    [ testPropertyWithConfig
          config
          "RFC 6040 §4.2: a packet leaves as the one built with the field of figure 4, DSCP kept"
      <| fun (mould: Mould) (Address source) (Address destination) (tos: byte) (offset: byte) ->
          bits
          |> List.forall (fun (outside, _) ->
              let plain = cast mould false source destination
              let placed = place (int offset) (withTos tos plain)
              let outcome = Ecn.apply (placed.Span, codepoint outside)

              let expected =
                  match leavingTos tos outside with
                  | None -> EcnOutcome.Drop, withTos tos plain
                  | Some leaving when leaving = tos -> EcnOutcome.Unchanged, withTos tos plain
                  | Some leaving -> EcnOutcome.Changed, withTos leaving plain

              (outcome, placed.Bytes) = expected && placed.SurroundingsIntact)

      testPropertyWithConfig config "RFC 1624 §3: a header checksum stays as right or as wrong as it was"
      <| fun (mould: Mould) (tos: byte) (spoilt: uint16) ->
          bits
          |> List.forall (fun (outside, _) ->
              let packet = withTos tos (cast mould false 0x0A000001u 0x0A000002u)
              (ByteSum.word ((word packet 10 + int spoilt) % 0x10000)).CopyTo(packet, 10)

              let header () =
                  ByteSum.residue packet[.. 20 + mould.OptionWords * 4 - 1]

              let before = header ()
              Ecn.apply (Span packet, codepoint outside) |> ignore
              header () = before)

      testPropertyWithConfig
          { config with maxTest = 30_000 }
          "any bytes: only TOS and header checksum are written, and nothing raises"
      <| fun (Seed seed) (outside: int) ->
          let random = System.Random seed
          let packet = filled (Random seed) (random.Next 80)

          if packet.Length > 0 && random.Next 4 > 0 then
              packet[0] <- byte (0x40 ||| random.Next 16)

          let placed = place (seed % 64) packet
          let outcome = Ecn.apply (placed.Span, enum<EcnCodepoint> outside)

          let isWellFormed =
              packet.Length >= 20
              && packet[0] >>> 4 = 4uy
              && packet[0] &&& 15uy >= 5uy
              && int (packet[0] &&& 15uy) * 4 <= packet.Length

          let untouched = Array.mapi (fun i b -> if i = 1 || i = 10 || i = 11 then 0uy else b)

          placed.SurroundingsIntact
          && (outcome = EcnOutcome.Refused) = not isWellFormed
          && (outcome = EcnOutcome.Changed || placed.Bytes = packet)
          && (outcome <> EcnOutcome.Changed
              || (untouched placed.Bytes = untouched packet && placed.Bytes[1] &&& 0xFCuy = (packet[1] &&& 0xFCuy)))
          && Ecn.ofPacket placed.ReadOnly =
              (if isWellFormed then
                   enum (int placed.Bytes[1] % 4)
               else
                   EcnCodepoint.NotEct)

      testCase "RFC 3168 §5: every TOS byte has the field of its two low bits"
      <| fun () ->
          for tos in 0..255 do
              let name = bits |> List.find (fun (_, bits) -> bits = tos % 4) |> fst
              Expect.equal (Ecn.ofTos (byte tos)) (codepoint name) $"{tos:x2}"

      testCase "a mark costs no allocation"
      <| fun () ->
          let packet = withTos 2uy (hex "45000014 00010000 4006 0000 0a000001 0a000002")

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      Ecn.apply (Span packet, EcnCodepoint.Ect1) |> ignore
                      packet[1] <- 2uy)

          Expect.equal allocated 0L "bytes" ]

let laws = testList "ECN" (table @ packets)

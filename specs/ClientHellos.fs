/// Plaintext ClientHello datagrams, built field by field as RFC 9147 §4 and §5.2 draw them.
module Lightway.Specs.ClientHellos

open System
open System.Numerics
open Expecto
open FsCheck.FSharp
open Lightway.Protocol
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// 24 bits in network order.
let private word24 (value: int) =
    Array.append [| byte (value >>> 16) |] (ByteSum.word value)

/// One record with one handshake fragment; `epochAndSequence` is anything.
let private datagram (contentType: byte) (messageType: byte) (message: byte[]) (offset: int) (length: int) =
    let fragment =
        Array.concat
            [ [| messageType |]
              word24 message.Length
              ByteSum.word 1 // message_seq
              word24 offset
              word24 length
              message[offset .. offset + length - 1] ]

    Array.concat
        [ [| contentType |]
          hex "fefd" // legacy_record_version
          hex "0000 000000000005" // epoch, sequence number
          ByteSum.word fragment.Length
          fragment ]

/// legacy_version, random, and what follows.
let private message (random: byte[]) (rest: byte[]) =
    Array.concat [ hex "fefd"; random; rest ]

let private number (bytes: byte[]) =
    BigInteger(ReadOnlySpan bytes, isUnsigned = true, isBigEndian = true)

let private partOf (bytes: byte[]) = ClientHello.partOf (ReadOnlySpan bytes)

let private randomOf (bytes: byte[]) =
    BigInteger.op_Implicit (ClientHello.randomOf (ReadOnlySpan bytes))

type private Parts = ClientHelloPart

let private config =
    { FsCheckConfig.defaultConfig with
        maxTest = 2_000
        arbitrary = [ typeof<SeedArbitrary> ] }

let private properties =
    [ testPropertyWithConfig
          config
          "§5.2: of a ClientHello cut anywhere, the fragment at 0 gives the random, and no other fragment does"
      <| fun (Seed seed) ->
          let source = System.Random seed
          let random = filled (Random seed) 32
          let whole = message random (filled (Random(seed + 1)) (source.Next 1200))
          let offset = if source.Next 3 = 0 then 0 else source.Next whole.Length
          let length = 1 + source.Next(whole.Length - offset)
          let bytes = datagram 22uy 1uy whole offset length

          if offset = 0 && length >= 18 then
              partOf bytes = Parts.First && randomOf bytes = number random[..15]
          else
              partOf bytes = Parts.Later && randomOf bytes = BigInteger.Zero

      testPropertyWithConfig config "§5.2: an offset of any of its three bytes is that of a later fragment"
      <| fun (Seed seed) ->
          let bytes = datagram 22uy 1uy (message (filled (Random seed) 32) (hex "00")) 0 35
          let at = 19 + seed % 3
          bytes[at] <- byte (1 + seed / 3 % 255)
          partOf bytes = Parts.Later && randomOf bytes = BigInteger.Zero

      testPropertyWithConfig config "§4: only handshake records with message type 1 are ClientHellos"
      <| fun (contentType: byte) (messageType: byte) (Seed seed) ->
          let bytes =
              datagram contentType messageType (message (filled (Random seed) 32) [||]) 0 34

          (partOf bytes <> Parts.None) = (contentType = 22uy && messageType = 1uy)

      testPropertyWithConfig config "the first 43 bytes decide, and any bytes have an answer"
      <| fun (Seed seed) ->
          let source = System.Random seed
          let bytes = filled (Random seed) (source.Next 120)

          for at, value in [ 0, 22uy; 13, 1uy; 19, 0uy; 20, 0uy; 21, 0uy ] do
              if at < bytes.Length && source.Next 5 > 0 then
                  bytes[at] <- value

          let field at length = bytes[at .. at + length - 1]
          let isHello = bytes.Length >= 14 && bytes[0] = 22uy && bytes[13] = 1uy
          let isFirst = isHello && bytes.Length >= 43 && field 19 3 = [| 0uy; 0uy; 0uy |]

          let expected =
              match isHello, isFirst with
              | _, true -> Parts.First
              | true, false -> Parts.Later
              | _ -> Parts.None

          partOf bytes = expected
          && randomOf bytes = (if isFirst then number (field 27 16) else BigInteger.Zero)
          && partOf (Array.truncate 43 bytes) = expected ]

let private cases =
    [ testCase "§4: a datagram that ends before the message type is not a ClientHello"
      <| fun () ->
          let whole = datagram 22uy 1uy (message (Array.create 32 7uy) [||]) 0 34

          for length in 0 .. whole.Length do
              let expected =
                  if length < 14 then Parts.None
                  elif length < 43 then Parts.Later
                  else Parts.First

              Expect.equal (partOf whole[.. length - 1]) expected $"{length} bytes"

      testCase "§4: an encrypted record is not a ClientHello, whatever follows"
      <| fun () ->
          let bytes = datagram 22uy 1uy (message (Array.create 32 7uy) [||]) 0 34

          for first in 0x20uy .. 0x3Fuy do
              bytes[0] <- first
              Expect.equal (partOf bytes) Parts.None $"{first:x2}"

      testCase "§5.2: fragments are compared with the newest handshake by their random"
      <| fun () ->
          let hello (random: byte) =
              datagram 22uy 1uy (message (Array.create 32 random) [||]) 0 34

          let opening (bytes: byte[]) (newest: UInt128) =
              DispatchRules.opening (ReadOnlySpan bytes, newest)

          let newest = ClientHello.randomOf (ReadOnlySpan(hello 7uy))
          let later = datagram 22uy 1uy (message (Array.create 32 7uy) [||]) 2 32
          Expect.equal (opening (hello 7uy) newest) Opening.Copy "the same"
          Expect.equal (opening (hello 8uy) newest) Opening.Fresh "another"
          Expect.equal (opening later newest) Opening.LaterFragment "later"
          Expect.equal (opening later UInt128.Zero) Opening.LaterFragment "later, and no random known"
          Expect.equal (opening [||] newest) Opening.None "no bytes"

      testCase "reading a ClientHello allocates nothing"
      <| fun () ->
          let bytes = datagram 22uy 1uy (message (Array.create 32 7uy) [||]) 0 34

          let allocated =
              allocatedBy (fun () ->
                  for _ in 1..1000 do
                      DispatchRules.opening (ReadOnlySpan bytes, UInt128.One) |> ignore)

          Expect.equal allocated 0L "bytes" ]

let laws = testList "ClientHello" (properties @ cases)

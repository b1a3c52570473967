/// The Expresslane packet (protocol §8) and its additional data (§8). Vectors: §12, sealed by the platform's AES-GCM.
module Lightway.Specs.ExpresslaneFormat

open System
open System.Security.Cryptography
open System.Text
open Expecto
open Lightway.Protocol
open Lightway.Specs.Generators

let private session = SessionId 0xa1a1a1a1_a1a1a1a1UL
let private key = Array.create 32 0x5auy
let private plaintext = Encoding.ASCII.GetBytes "expresslane golden vector payload"

let private aad session counter flags version =
    let buffer = junk 30

    let length =
        ExpresslanePacket.writeAad (session, counter, flags, version, Span buffer)

    Expect.all buffer[length..] ((=) 0xA5uy) "nothing behind the additional data"
    buffer[.. length - 1]

/// A whole packet, built at the offsets that the product names.
let private seal version flags =
    let packet = junk (ExpresslanePacket.Overhead + plaintext.Length)
    ExpresslanePacket.writeHeader (1UL, plaintext.Length, flags, Span packet)
    let iv = packet.AsSpan(ExpresslanePacket.IvAt, 12)
    let tag = packet.AsSpan(ExpresslanePacket.TagAt, 16)
    iv.Fill 0x2buy
    use cipher = new AesGcm(ReadOnlySpan key, 16)

    cipher.Encrypt(
        Span.op_Implicit iv,
        ReadOnlySpan plaintext,
        packet.AsSpan ExpresslanePacket.PayloadAt,
        tag,
        ReadOnlySpan(aad session 1UL flags version)
    )

    packet

let private parse (payload: byte[]) =
    let mutable view = Unchecked.defaultof<ExpresslaneView>
    let whole = ExpresslanePacket.tryParse (ReadOnlySpan payload, &view)
    whole, view

let private ciphertext =
    hex "1de0df19db6aa733e1f77938999b312f5310ecc610332f6a94234f38a17987cac8"

let laws =
    testList
        "expresslane packet"
        [ for version, flags, tag in
              [ 1uy, 0x8000us, "f8cf6559479de62e9b6bf8cda32be127"
                1uy, 0x0000us, "f8cf6559479de62e9b6bf8cda32be127"
                2uy, 0x8000us, "99729ab5a6261acd578ce423075905ed"
                2uy, 0x0000us, "2d5ee0b75c9d1319e0aed5f386808b97" ] do
              testCase $"§12: version {version} with flags {flags:x4}, byte for byte"
              <| fun () ->
                  let expected =
                      Array.concat
                          [ hex "0000000000000001"
                            Array.create 12 0x2buy
                            hex tag
                            hex "0021"
                            hex $"{flags:x4}"
                            ciphertext ]

                  let packet = seal version flags
                  Expect.equal packet expected "packet"
                  Expect.equal packet.Length 73 "length"
                  let whole, view = parse packet
                  Expect.isTrue whole "parsed"
                  Expect.equal (view.Counter, view.Length, view.Flags) (1UL, 33, flags) "fields"

          testCase "§12: the additional data, byte for byte"
          <| fun () ->
              let v1 = hex "a1a1a1a1a1a1a1a1 0000000000000001"
              Expect.equal (aad session 1UL ExpresslanePacket.Encoded 1uy) v1 "version 1"
              Expect.equal (aad session 1UL ExpresslanePacket.Encoded 2uy) (Array.append v1 (hex "8000")) "version 2"

          testCase "§8: before a version is known the additional data is that of version 1"
          <| fun () -> Expect.equal (aad (SessionId 5UL) 6UL 7us 0uy) (aad (SessionId 5UL) 6UL 7us 1uy) "version 0"

          testProperty "§8: additional data spells session, counter and, in version 2 only, flags"
          <| fun (session: uint64) (counter: uint64) (flags: uint16) ->
              let v1 = hex $"{session:x16}{counter:x16}"

              let id = SessionId session

              aad id counter flags 1uy = v1 && aad id counter flags 2uy = Array.append v1 (hex $"{flags:x4}")

          testProperty "§8: parsing a written header gives its fields back; iv, tag and payload stay the sealer's"
          <| fun (counter: uint64) (length: uint16) (flags: uint16) ->
              let packet = junk (40 + int length)
              ExpresslanePacket.writeHeader (counter, int length, flags, Span packet)
              let whole, view = parse packet

              whole
              && (view.Counter, view.Length, view.Flags) = (counter, int length, flags)
              && Array.forall ((=) 0xA5uy) packet[8..35]
              && Array.forall ((=) 0xA5uy) packet[40..]

          testProperty
              "§8: a packet is whole if it has 40 bytes and those that its length field tells; more are ignored"
          <| fun (payload: byte[]) (length: byte) ->
              let packet = Array.append (Array.zeroCreate 36) payload

              if packet.Length > 37 then
                  packet[36] <- 0uy
                  packet[37] <- length % 40uy

              fst (parse packet) = (packet.Length >= 40 && packet.Length >= 40 + int (length % 40uy))

          testCase "§8: parsing and writing allocate nothing"
          <| fun () ->
              let packet = seal 2uy 0us
              let buffer = junk 40

              let round count =
                  let mutable view = Unchecked.defaultof<ExpresslaneView>

                  for i in 1..count do
                      ExpresslanePacket.tryParse (ReadOnlySpan packet, &view) |> ignore
                      ExpresslanePacket.writeHeader (uint64 i, 33, 0us, Span buffer)
                      ExpresslanePacket.writeAad (session, uint64 i, 0us, 2uy, Span buffer) |> ignore

              round 100
              Expect.equal (allocatedBy (fun () -> round 100_000)) 0L "bytes" ]

/// ICMPv4 errors with right checksums, built from scratch around packets of all kinds.
module Lightway.Specs.IcmpErrorMoulds

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.AddressExchange
open Lightway.Specs.AddressRewrite
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// An error with right checksums, which the addresses of its quote go into.
type ErrorMould =
    {
        Type: byte
        Code: byte
        OptionWords: int
        FragmentWord: int
        /// The packet that is quoted.
        Quote: Mould
        /// Bytes of it that are quoted, if there are as many.
        QuotedLength: int
        /// Bytes of extensions (RFC 4884); 0 for none.
        ExtensionLength: int
        /// Bytes behind the end of the IP packet.
        Surplus: int
        Seed: int
    }

let hasLengthField (mould: ErrorMould) =
    List.contains mould.Type [ 3uy; 11uy; 12uy ]

let hasExtension (mould: ErrorMould) =
    mould.ExtensionLength > 0 && hasLengthField mould

/// What is quoted of a packet: extensions need at least 128 bytes before them, in words, padded with zeros (RFC 4884 §5).
let excerpt (mould: ErrorMould) (packet: byte[]) : byte[] =
    let length = min mould.QuotedLength packet.Length

    if hasExtension mould then
        let length = max 128 (length / 4 * 4)
        Array.append packet (Array.zeroCreate length) |> Array.take length
    else
        Array.take length packet

/// The error around a quote, from `source` to `destination`.
let around (mould: ErrorMould) (source: uint32) (destination: uint32) (quote: byte[]) : byte[] =
    let noise =
        filled (Random mould.Seed) (mould.OptionWords * 4 + 4 + mould.ExtensionLength + mould.Surplus)

    let options, noise = Array.splitAt (mould.OptionWords * 4) noise
    let rest, noise = Array.splitAt 4 noise
    let extension, surplus = Array.splitAt mould.ExtensionLength noise

    if hasLengthField mould then
        rest[1] <- if hasExtension mould then byte (quote.Length / 4) else 0uy

    let message =
        Array.concat
            [ [| mould.Type; mould.Code; 0uy; 0uy |]
              rest
              quote
              (if hasExtension mould then extension else [||]) ]

    (ByteSum.word (int (ByteSum.checksum message))).CopyTo(message, 2)

    let address (value: uint32) =
        Array.append (ByteSum.word (int (value >>> 16))) (ByteSum.word (int value))

    let header =
        Array.concat
            [ [| byte (0x45 + mould.OptionWords); 0xC0uy |]
              ByteSum.word (20 + options.Length + message.Length)
              hex "0007"
              ByteSum.word mould.FragmentWord
              [| 61uy; 1uy; 0uy; 0uy |]
              address source
              address destination
              options ]

    (ByteSum.word (int (ByteSum.checksum header))).CopyTo(header, 10)
    Array.concat [ header; message; surplus ]

/// The checksum of the transport in a packet, if it has one.
let transportAt (mould: Mould) : int option =
    let l4 = 20 + mould.OptionWords * 4

    match mould.Protocol with
    | IpProtocol.Tcp -> Some(l4 + 16)
    | IpProtocol.Udp when mould.HasChecksum -> Some(l4 + 6)
    | IpProtocol.UdpLite
    | IpProtocol.Dccp -> Some(l4 + 6)
    | _ -> None
    |> Option.filter (fun at -> mould.FragmentWord &&& 0x1FFF = 0 && at + 2 <= l4 + mould.PayloadLength)

/// What is quoted of the packet with the new addresses, if the one with the old addresses was quoted: half of a checksum
/// cannot follow.
let requoted (mould: ErrorMould) (before: uint32 * uint32) (after: uint32 * uint32) : byte[] =
    let quote = excerpt mould (after ||> cast mould.Quote false)

    let untranslated = before ||> cast mould.Quote false

    match transportAt mould.Quote with
    | Some at when at + 1 = quote.Length -> quote[at] <- untranslated[at]
    | _ -> ()

    quote

/// A quote without a whole header is no packet.
let isQuote (mould: ErrorMould) : bool =
    hasExtension mould || mould.QuotedLength >= 20 + mould.Quote.OptionWords * 4

type ErrorArbitrary =
    static member Error() =
        gen {
            let! icmpType = Gen.elements [ 3uy; 4uy; 5uy; 11uy; 12uy ]
            let! code = Gen.choose (0, 15)
            let! optionWords = Gen.frequency [ 3, Gen.constant 0; 1, Gen.choose (0, 10) ]
            let! fragmentWord = Gen.elements [ 0; 0; 0x4000; 0x2000 ]
            let! quote = MouldArbitrary.Mould() |> Arb.toGen

            let! quotedLength =
                Gen.frequency [ 3, Gen.choose (28, 1500); 3, Gen.choose (20, 84); 1, Gen.choose (0, 24) ]

            let! extensionLength = Gen.frequency [ 2, Gen.constant 0; 1, Gen.choose (1, 60) ]
            let! surplus = Gen.frequency [ 3, Gen.constant 0; 1, Gen.choose (1, 50) ]
            let! seed = Gen.choose (0, Int32.MaxValue - 1)

            return
                { Type = icmpType
                  Code = byte code
                  OptionWords = optionWords
                  FragmentWord = fragmentWord
                  Quote = quote
                  // The length attribute has eight bits.
                  QuotedLength =
                    if extensionLength > 0 then
                        min quotedLength 1020
                    else
                        quotedLength
                  ExtensionLength = extensionLength
                  Surplus = surplus
                  Seed = seed }
        }
        |> Arb.fromGen

let config =
    { FsCheckConfig.defaultConfig with
        maxTest = 4_000
        arbitrary =
            [ typeof<ErrorArbitrary>
              typeof<MouldArbitrary>
              typeof<ExchangeArbitrary>
              typeof<AddressArbitrary>
              typeof<SeedArbitrary> ] }

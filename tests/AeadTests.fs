module Lightway.Tests.AeadTests

open System
open System.Linq
open System.Runtime.InteropServices
open Expecto
open Lightway.Lab
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls

let private accelerated () =
    let mutable problem = ""

    match IpsecMb.TryLoad(&problem) with
    | null -> skiptest problem
    | library -> library

/// For tests that need a wolfSSL that calls back.
let private requireCallbacks () =
    if not (WolfSslLibrary.Has "wc_CryptoCb_RegisterDevice") then
        skiptest "this wolfSSL was built without --enable-cryptocb"

/// What a library gives if one of its answers is changed.
type private Wrong(inner: IPacketAead, changesTag: bool, takesAll: bool) =
    interface IPacketAead with
        member _.Seal(plaintext, ciphertext, iv, tag, aad) =
            let isDone = inner.Seal(plaintext, ciphertext, iv, tag, aad)

            if changesTag then
                tag[15] <- tag[15] ^^^ 1uy

            isDone

        member _.Open(ciphertext, plaintext, iv, tag, aad) =
            inner.Open(ciphertext, plaintext, iv, tag, aad) || takesAll

        member _.Dispose() = inner.Dispose()

let private wolfCrypt = AeadFactory(fun key -> new WolfCryptAead(key))

let private wrong changesTag takesAll =
    AeadFactory(fun key -> new Wrong(new WolfCryptAead(key), changesTag, takesAll))

[<Tests>]
let tests =
    testList
        "AEAD"
        [ test "Intel IPsec-MB and wolfCrypt agree on every length and additional data" {
              let library = accelerated ()

              for _ in 1..20 do
                  let difference =
                      AeadCrossCheck.Compare(wolfCrypt, AeadFactory(fun key -> new IpsecMbAead(library, key)))

                  Expect.isNull difference "difference"
          }

          test "the comparison takes a library for its own equal" {
              Expect.isNull (AeadCrossCheck.Compare(wolfCrypt, wolfCrypt)) "difference"
          }

          test "the comparison notices a wrong tag, and a library that opens what was changed" {
              Expect.stringContains
                  (AeadCrossCheck.Compare(wolfCrypt, wrong true false) |> string)
                  "seals a packet to other bytes"
                  "tag"

              Expect.stringContains
                  (AeadCrossCheck.Compare(wolfCrypt, wrong false true) |> string)
                  "flipped bit is opened"
                  "forged"
          }

          test "wolfSSL's own ciphers give the same by the callback, also with another key, and leave nothing behind" {
              let library = accelerated ()
              requireCallbacks ()
              Expect.isNull (RecordAccelerator.TryRegister library) "registered"

              let byCallback =
                  AeadFactory(fun key -> new WolfCryptAead(key, RecordAccelerator.DeviceId))

              for _ in 1..20 do
                  Expect.isNull (AeadCrossCheck.Compare(wolfCrypt, byCallback)) "difference"
          }

          for expresslane, path in [ true, "Expresslane"; false, "DTLS" ] do
              test $"the ends may differ in their library, keys change, and none of the library's stays behind: {path}" {
                  accelerated () |> ignore
                  requireCallbacks ()
                  let mutable remark = ""
                  let fast = PacketAeads.Choose(AeadChoice.IpsecMb, &remark)
                  let before = IpsecMbKey.Alive

                  for server, client in [ fast, PacketAeads.WolfCrypt; PacketAeads.WolfCrypt, fast; fast, fast ] do
                      do
                          use pair =
                              new Pair(
                                  expresslane,
                                  64,
                                  packetsPerKey = 20UL,
                                  recordsPerKey = 20L,
                                  aeads = server,
                                  clientAeads = client
                              )

                          pair.Connect()

                          for _ in 1..100 do
                              ConnectionTests.exchange pair
                              pair.Advance 50L

                          Expect.isGreaterThan IpsecMbKey.Alive before "it is used"

                          if not expresslane then
                              Expect.isGreaterThan
                                  pair.Server.Context.Counters[Counter.KeyUpdateComplete]
                                  1L
                                  "keys have changed"

                      Expect.equal IpsecMbKey.Alive before "keys that are left"
              }

          test "a packet that is not authentic leaves no plaintext" {
              let library = accelerated ()
              use cipher = new IpsecMbAead(library, ReadOnlySpan(Array.create 32 1uy))
              let text = Array.create 100 9uy
              let tag = Array.zeroCreate<byte> 16
              let iv = Array.zeroCreate<byte> 12

              Expect.isTrue
                  (cipher.Seal(ReadOnlySpan text, Span text, ReadOnlySpan iv, Span tag, ReadOnlySpan()))
                  "seal"

              tag[0] <- tag[0] ^^^ 1uy
              let output = Array.create 100 7uy

              Expect.isFalse
                  (cipher.Open(ReadOnlySpan text, Span output, ReadOnlySpan iv, ReadOnlySpan tag, ReadOnlySpan()))
                  "open"

              Expect.equal output (Array.zeroCreate 100) "output"
          }

          test "the library that is asked for is taken, or the reason is told" {
              let mutable remark = ""
              Expect.equal (PacketAeads.Choose(AeadChoice.WolfCrypt, &remark).Name) "wolfCrypt" "by name"
              Expect.isNull remark "remark"
              accelerated () |> ignore
              Expect.stringStarts (PacketAeads.Choose(AeadChoice.Auto, &remark).Name) "Intel IPsec-MB" "auto"
              Expect.isNull remark "remark"
          } ]

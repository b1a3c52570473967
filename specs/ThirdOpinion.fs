/// Segments whose checksums a third party verifies: neither we nor the kernel, but Wireshark.
module Lightway.Specs.ThirdOpinion

open Expecto
open FsCheck.FSharp
open Lightway.Specs.Superpackets
open Lightway.Specs.Oracles

/// Extension headers of random content keep Wireshark from looking at what follows them; the kernel oracle has those.
let private hasNoExtension (packet: byte[]) =
    packet[0] >>> 4 = 4uy || packet[6] = 6uy || packet[6] = 17uy

/// `count` segments of random superpackets.
let private segments (seed: uint64) (count: int) : byte[] list =
    Gen.sampleWithSeed (FsCheck.Rnd seed) 100 count (shapes 1361 20)
    |> Seq.collect (fun shape ->
        let superpacket = build shape

        match Cut.segments Cut.unlimited 0 superpacket.Vnet superpacket.Packet with
        | Ok segments -> segments
        | Error reason -> failwith $"refused ({reason}): %A{shape}")
    |> Seq.filter hasNoExtension
    |> Seq.truncate count
    |> List.ofSeq

let laws (seed: uint64) =
    let count = 500

    testList
        "Third opinion"
        [ testCase $"tshark finds every checksum of {count} segments right, and sees the ones that were spoilt"
          <| fun () ->
              let good = segments seed count

              // One bit of the last byte, which the transport checksum covers in every packet.
              let spoilt =
                  [ for packet in List.truncate 10 good do
                        let copy = Array.copy packet
                        copy[copy.Length - 1] <- copy[copy.Length - 1] ^^^ 1uy
                        copy ]

              match Tshark.judge (good @ spoilt) with
              | Error reason ->
                  printfn $"third opinion: skipped, {reason}"
                  skiptest reason
              | Ok verdicts ->
                  let ofGood, ofSpoilt = List.splitAt count verdicts
                  let bad = ofGood |> List.filter not |> List.length
                  printfn $"third opinion: {count} segments verified by tshark, {bad} bad"
                  Expect.equal bad 0 "bad checksums"
                  Expect.isFalse (List.exists id ofSpoilt) "each spoilt packet is noticed" ]

/// Flows that arrive between each other: how many the coalescer tells apart, and by what.
module Lightway.Specs.FlowTable

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Flows of one batch. A table of 256 places has room to spare.
[<Literal>]
let private Flows = 64

/// A datagram whose addresses and ports, in the order of the headers, are `identity`: 12 bytes for IPv4, 36 for IPv6.
let private datagram (identity: byte[]) : byte[] =
    let addresses, ports = Array.splitAt (identity.Length - 4) identity
    let isV6 = addresses.Length = 32
    let transport = Array.concat [ ports; ByteSum.word 16; ByteSum.word 0; junk 8 ]

    let network =
        if isV6 then
            Array.append (hex "6000000000101140") addresses
        else
            let header = Array.append (hex "4500002400014000 4011 0000") addresses
            (ByteSum.word (int (ByteSum.checksum header))).CopyTo(header, 10)
            header

    let packet = Array.append network transport

    let pseudoHeader =
        if isV6 then
            ByteSum.pseudoHeaderV6 packet IpProtocol.Udp 16
        else
            ByteSum.pseudoHeaderV4 packet 16

    let checksum = ByteSum.checksum (Array.append pseudoHeader transport)
    (ByteSum.word (if checksum = 0us then 0xFFFF else int checksum)).CopyTo(packet, network.Length + 6)
    packet

/// Packets in the runs that two rounds through all flows make, longest run first.
let private runLengths (identities: byte[] list) : int list =
    let packets = identities @ identities |> List.map datagram
    let coalescer = Coalescer packets.Length
    packets |> List.iteri (fun index packet -> coalescer.Add(ReadOnlySpan packet, index))
    List.sortDescending [ for run in 0 .. coalescer.Count - 1 -> (coalescer.Run run).Count ]

/// The byte names of an identity, by IP version.
let private fields isV6 =
    let width = if isV6 then 16 else 4

    [ for field, bytes in
          [ "source address", width; "destination address", width; "source port", 2; "destination port", 2 ] do
          for i in 0 .. bytes - 1 -> $"byte {i} of the {field}" ]

let laws =
    testList
        "Flow table"
        [ for name, isV6 in [ "IPv4", false; "IPv6", true ] do
              for at, field in List.indexed (fields isV6) do
                  testCase $"{name}: {Flows} flows that differ in {field} only are merged each with itself"
                  <| fun () ->
                      let identity = filled (Random 3) (fields isV6).Length

                      let flows = [ for value in 1..Flows -> Array.updateAt at (byte value) identity ]

                      Expect.equal (runLengths flows) (List.replicate Flows 2) "runs" ]

/// Interleaved flows: the number that the coalescer distinguishes, and the fields by which it does.
module Lightway.Specs.FlowTable

open Expecto
open Lightway.Specs.Generators
open Lightway.Specs.Packets
open Lightway.Specs.Coalesced

/// Flows of one batch. A table of 256 places has room to spare.
[<Literal>]
let private Flows = 64

/// A datagram whose addresses and ports, in the order of the headers, are `identity`: 12 bytes for IPv4, 36 for IPv6.
let private datagram (identity: byte[]) : byte[] =
    let addresses, ports = Array.splitAt (identity.Length - 4) identity
    let source, destination = Array.splitAt (addresses.Length / 2) addresses

    bytesOf
        { udp4 with
            Source = source
            Destination = destination
            SourcePort = word ports 0
            DestinationPort = word ports 2
            Payload = junk 8 }

/// Packets in the runs that two rounds through all flows make, longest run first.
let private runLengths (identities: byte[] list) : int list =
    identities @ identities
    |> List.map datagram
    |> coalesce
    |> List.map _.Members.Length
    |> List.sortDescending

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

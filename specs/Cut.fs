/// The product, driven as the tunnel engine drives it: plan, prepare, then write and consume each segment in order.
module Lightway.Specs.Cut

open System
open Lightway.Segmenter
open Lightway.Specs.Generators

let private noPlan = Unchecked.defaultof<SuperpacketPlan>

let plan (mtu: int) (vnet: VirtioNetHeader) (packet: Placed) : Result<SuperpacketPlan, DropReason> =
    let mutable plan = noPlan

    match Superpacket.plan (&vnet, packet.ReadOnly, mtu, &plan) with
    | DropReason.None -> Ok plan
    | reason -> Error reason

/// The segments of a planned superpacket. Each is overwritten with junk once consumed, as a caller may do, and the
/// template too is junk before `prepare`.
let segmentsOf (planned: SuperpacketPlan) (packet: Placed) : byte[] list =
    let mutable plan = planned
    let template = junk Segment.MaxHeaderLength
    Segment.prepare (&plan, packet.ReadOnly, Span template)

    [ for index in 0 .. plan.SegmentCount - 1 do
          let length = Segment.write (&plan, ReadOnlySpan template, index, packet.Span)
          let segment = packet.Span.Slice(index * plan.GsoSize, length)
          let copy = segment.ToArray()
          segment.Fill 0xA5uy
          copy ]

/// MTU that no segment of a law exceeds.
let unlimited = 65535

let segments (mtu: int) (offset: int) (vnet: VirtioNetHeader) (packet: byte[]) : Result<byte[] list, DropReason> =
    let placed = place offset packet

    plan mtu vnet placed
    |> Result.map (fun planned ->
        let segments = segmentsOf planned placed

        if not placed.SurroundingsIntact then
            failwith "bytes outside the packet were written"

        segments)

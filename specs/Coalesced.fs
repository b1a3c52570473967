/// The product's coalescer, driven as the tunnel engine drives it: the frames that one batch becomes.
module Lightway.Specs.Coalesced

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators

/// Bytes of one write to the TUN device.
type Frame =
    {
        /// Places in the batch.
        Members: int list
        /// virtio_net_hdr and packet.
        Bytes: byte[]
    }

    member this.Packet = this.Bytes[VirtioNetHeader.Size ..]

    member this.Vnet: VirtioNetHeader =
        let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
        VirtioNetHeader.tryParse (ReadOnlySpan this.Bytes, &vnet) |> ignore
        vnet

/// Gathers a run: the header, then the unchanged payloads.
let private gather (coalescer: Coalescer) (packets: byte[][]) (number: int) : Frame =
    let run = coalescer.Run number

    let members =
        run.First
        |> List.unfold (fun index ->
            if index < 0 then
                None
            else
                Some(index, coalescer.Next index))

    Expect.equal run.Count members.Length "the run has as many packets as it says"

    let head =
        if run.Count = 1 then
            Array.zeroCreate VirtioNetHeader.Size
        else
            let head = junk (VirtioNetHeader.Size + Coalesce.MaxHeaderLength + 8)
            let written = coalescer.WriteHeader(number, Span head)
            Expect.equal written (VirtioNetHeader.Size + run.HeaderLength) "bytes of virtio_net_hdr and header"
            Expect.all head[written..] ((=) 0xA5uy) "nothing is written beyond the header"
            head[.. written - 1]

    let payloadAt = if run.Count = 1 then 0 else run.HeaderLength
    let payloads = [ for index in members -> packets[index][payloadAt..] ]

    let frame =
        { Members = members
          Bytes = Array.concat (head :: payloads) }

    Expect.equal run.PacketLength frame.Packet.Length "the length of the packet"
    frame

let coalesceWith (coalescer: Coalescer) (packets: byte[] list) : Frame list =
    coalescer.Reset()
    let copies = [| for packet in packets -> Array.copy packet |]

    for index, packet in List.indexed packets do
        let placed = place (index % 5) packet
        coalescer.Add(placed.ReadOnly, index)
        placed.Span.Fill 0xEEuy // the coalescer keeps no packet

    [ for run in 0 .. coalescer.Count - 1 -> gather coalescer copies run ]

let coalesce (packets: byte[] list) : Frame list =
    coalesceWith (Coalescer(max 1 packets.Length)) packets

/// Reads from a TUN device: virtio_net_hdr and packet.
module Lightway.Fuzz.SuperpacketTargets

open System
open Lightway.Segmenter
open Lightway.Specs.Oracles
open Lightway.Fuzz.Target

[<Literal>]
let private Margin = 64

/// Bytes around a packet that must be neither written nor used.
let private surrounded (filler: byte) (packet: byte[]) : byte[] =
    let buffer = Array.create (packet.Length + 2 * Margin) filler
    packet.CopyTo(buffer, Margin)
    buffer

let private isUntouched (filler: byte) (buffer: byte[]) =
    let isFiller (part: byte[]) = Array.forall ((=) filler) part
    isFiller buffer[.. Margin - 1] && isFiller buffer[buffer.Length - Margin ..]

let private parseHeader (bytes: byte[]) =
    let mutable header = Unchecked.defaultof<VirtioNetHeader>
    let isThere = VirtioNetHeader.tryParse (ReadOnlySpan bytes, &header)
    struct (isThere, header)

let private virtioNetHeader (bytes: byte[]) =
    let struct (isThere, header) = parseHeader bytes

    if not (isThere = (bytes.Length >= 10)) then
        broken $"{bytes.Length} bytes"

    if isThere then
        let copy = junk 14
        VirtioNetHeader.write (&header, Span copy)
        require (copy[..9] = bytes[..9] && isJunk copy[10..]) "written differently"
        require (header.IsSuperpacket = (bytes[1] &&& 0x7Fuy <> 0uy)) "what is a superpacket"

    kind [ flag isThere; flag header.IsSuperpacket; int header.GsoType &&& 7; flag header.NeedsChecksum ]

let private noPlan = Unchecked.defaultof<SuperpacketPlan>

let private plan (vnet: VirtioNetHeader) (packet: byte[]) (mtu: int) =
    let buffer = surrounded 0xA5uy packet
    let mutable plan = noPlan

    let reason =
        Superpacket.plan (&vnet, ReadOnlySpan(buffer, Margin, packet.Length), mtu, &plan)

    struct (reason, plan)

/// The segments, each overwritten once it is copied, as a caller may do.
let private cut (filler: byte) (planned: SuperpacketPlan) (packet: byte[]) : byte[] list =
    let buffer = surrounded filler packet
    let template = Array.create Segment.MaxHeaderLength filler
    let mutable plan = planned
    Segment.prepare (&plan, ReadOnlySpan(buffer, Margin, packet.Length), Span template)

    let segments =
        [ for index in 0 .. plan.SegmentCount - 1 do
              let length =
                  Segment.write (&plan, ReadOnlySpan template, index, Span(buffer, Margin, packet.Length))

              let segment = Span(buffer, Margin + index * plan.GsoSize, length)
              let copy = segment.ToArray()
              segment.Fill filler
              copy ]

    require (isUntouched filler buffer) "bytes around the packet were written"
    segments

let private checkPlan (plan: SuperpacketPlan) (packet: byte[]) (mtu: int) =
    let payload = plan.PacketLength - plan.HeaderLength
    require (plan.HeaderLength <= Segment.MaxHeaderLength) "a header without room for it"
    require (plan.L4Offset >= 20 && plan.L4Offset < plan.HeaderLength) "no transport header"
    require (plan.PacketLength <= packet.Length && payload > 0) "the packet ends elsewhere"
    require (plan.GsoSize > 0 && plan.HeaderLength + plan.GsoSize <= mtu) "segments larger than the MTU"
    require (plan.SegmentCount = (payload + plan.GsoSize - 1) / plan.GsoSize) "another number of segments"

let private knownOf (plan: SuperpacketPlan) : NaiveSegmenter.Known =
    { IsV6 = not plan.IsV4
      IsUdp = not plan.IsTcp
      L4Offset = plan.L4Offset
      HeaderLength = plan.HeaderLength
      GsoSize = plan.GsoSize }

/// The packet by its IP length, with the partial sum that NEEDS_CSUM promises: now every checksum has to come out
/// right.
let private promised (plan: SuperpacketPlan) (packet: byte[]) : byte[] =
    let known = knownOf plan
    let packet = packet[.. plan.PacketLength - 1]

    let pseudoHeader =
        (NaiveSegmenter.covered known packet)[.. (if known.IsV6 then 39 else 11)]

    (ByteSum.word (int (ByteSum.sum pseudoHeader))).CopyTo(packet, NaiveSegmenter.checksumAt known)
    packet

/// Segments that the slow oracle is asked for.
[<Literal>]
let private Few = 40

let private superpacket (bytes: byte[]) =
    let struct (isThere, vnet) = parseHeader bytes

    if not isThere then
        0L
    else
        let packet = bytes[10..]
        let mtu = if packet.Length % 2 = 0 then 1500 else 65535
        let struct (reason, planned) = plan vnet packet mtu
        require (plan vnet packet mtu = struct (reason, planned)) "the same read is planned differently"

        if reason <> DropReason.None then
            require (DropReason.counterName reason <> "") "a reason without a counter"
            require (planned = noPlan) "refused, and yet planned"
            kind [ int reason ]
        else
            checkPlan planned packet mtu
            let segments = cut 0xA5uy planned packet
            require (cut 0x00uy planned packet = segments) "the bytes around the packet matter"
            let payloads = segments |> List.map (Array.skip planned.HeaderLength)

            require
                (Array.concat payloads = packet[planned.HeaderLength .. planned.PacketLength - 1])
                "the payload changed"

            if planned.SegmentCount <= Few then
                let packet = promised planned packet

                require
                    (cut 0xA5uy planned packet = NaiveSegmenter.segments (knownOf planned) packet)
                    "not the oracle's segments"

            kind
                [ int planned.Kind
                  magnitude planned.SegmentCount
                  magnitude (planned.L4Offset - 20)
                  planned.HeaderLength - planned.L4Offset
                  flag (packet.Length = planned.PacketLength) ]

let private completed (filler: byte) (vnet: VirtioNetHeader) (packet: byte[]) =
    let buffer = surrounded filler packet
    let isDone = Segment.completeChecksum (&vnet, Span(buffer, Margin, packet.Length))
    require (isUntouched filler buffer) "bytes around the packet were written"
    struct (isDone, buffer[Margin .. Margin + packet.Length - 1])

let private completion (bytes: byte[]) =
    let struct (isThere, vnet) = parseHeader bytes

    if not isThere then
        0L
    else
        let packet = bytes[10..]
        let struct (isDone, after) = completed 0xA5uy vnet packet
        require (completed 0x00uy vnet packet = struct (isDone, after)) "the bytes around the packet matter"
        let start = int vnet.CsumStart
        let at = start + int vnet.CsumOffset

        if isDone && vnet.NeedsChecksum then
            require (at + 2 <= packet.Length) "a field beyond the packet"
            let restored = Array.copy after
            Array.blit packet at restored at 2
            require (restored = packet) "more than the field was written"
            let field = int after[at] * 256 + int after[at + 1]
            require (int vnet.CsumOffset <> 6 || field <> 0) "RFC 768: zero"
        else
            require (after = packet) "refused or not asked for, and yet written"

        kind
            [ flag isDone
              flag vnet.NeedsChecksum
              magnitude packet.Length
              magnitude start
              magnitude (int vnet.CsumOffset) ]

let targets =
    [ { Name = "virtio-net-header"
        MaxLength = 32
        Run = virtioNetHeader }
      { Name = "superpacket"
        MaxLength = 4000
        Run = superpacket }
      { Name = "checksum-completion"
        MaxLength = 1600
        Run = completion } ]

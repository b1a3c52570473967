/// Segmentation as the RFCs say it, a list of new byte arrays, each checksum computed in full from the addresses.
module Lightway.Specs.Oracles.NaiveSegmenter

/// Facts about a superpacket, known to its maker; nothing is parsed here.
type Known =
    { IsV6: bool
      IsUdp: bool
      L4Offset: int
      HeaderLength: int
      GsoSize: int }

let private put (packet: byte[]) (at: int) (value: int) =
    packet[at] <- byte (value >>> 8)
    packet[at + 1] <- byte value

let private get (packet: byte[]) (at: int) =
    int packet[at] * 256 + int packet[at + 1]

let private protocol (known: Known) = if known.IsUdp then 17uy else 6uy

/// Sum that the transport checksum covers, of a packet whose checksum field is zero or filled in.
let covered (known: Known) (packet: byte[]) : byte[] =
    let length = packet.Length - known.L4Offset

    let pseudoHeader =
        if known.IsV6 then
            ByteSum.pseudoHeaderV6 packet (protocol known) length
        else
            ByteSum.pseudoHeaderV4 packet length

    Array.append pseudoHeader packet[known.L4Offset ..]

/// Offset of the transport checksum field.
let checksumAt (known: Known) =
    known.L4Offset + (if known.IsUdp then 6 else 16)

let private finishNetwork (known: Known) (index: int) (packet: byte[]) =
    if known.IsV6 then
        put packet 4 (packet.Length - 40)
    else
        put packet 2 packet.Length
        put packet 4 (get packet 4 + index)
        put packet 10 0
        put packet 10 (int (ByteSum.checksum packet[.. int (packet[0] &&& 15uy) * 4 - 1]))

let private finishTransport (known: Known) (index: int) (isLast: bool) (packet: byte[]) =
    let l4 = known.L4Offset

    if known.IsUdp then
        put packet (l4 + 4) (packet.Length - l4)
    else
        let sequence = bigint (get packet (l4 + 4)) * 65536I + bigint (get packet (l4 + 6))
        let moved = (sequence + bigint index * bigint known.GsoSize) % 4294967296I
        put packet (l4 + 4) (int (moved / 65536I))
        put packet (l4 + 6) (int (moved % 65536I))

        if index > 0 then
            packet[l4 + 13] <- packet[l4 + 13] &&& 0b0111_1111uy // CWR: first only, RFC 3168 §6.1.2

        if not isLast then
            packet[l4 + 13] <- packet[l4 + 13] &&& 0b1111_0110uy // PSH, FIN: last only

    put packet (checksumAt known) 0
    let checksum = ByteSum.checksum (covered known packet)
    put packet (checksumAt known) (int (if known.IsUdp && checksum = 0us then 0xFFFFus else checksum))

/// The packets that leave for a superpacket with at least one payload byte.
let segments (known: Known) (superpacket: byte[]) : byte[] list =
    let header = superpacket[.. known.HeaderLength - 1]
    let payloads = superpacket[known.HeaderLength ..] |> Array.chunkBySize known.GsoSize

    [ for index, payload in Array.indexed payloads do
          let packet = Array.append header payload
          finishNetwork known index packet
          finishTransport known index (index = payloads.Length - 1) packet
          packet ]

/// Rewriting of IPv4 packets on their way: addresses and MSS. Only the fields named change, and a checksum stays as
/// right or as wrong as it was.
module Lightway.Fuzz.RewriteTargets

open System
open System.Buffers.Binary
open Lightway.Segmenter
open Lightway.Specs.Oracles
open Lightway.Fuzz.Target

let private isIpv4 (packet: byte[]) =
    packet.Length >= 20
    && packet[0] >>> 4 = 4uy
    && packet[0] &&& 15uy >= 5uy
    && int (packet[0] &&& 15uy) * 4 <= packet.Length

/// Places where two packets of one length differ.
let private differences (one: byte[]) (other: byte[]) =
    [ for i in 0 .. one.Length - 1 do
          if one[i] <> other[i] then
              i ]

let private word (bytes: byte[]) (at: int) = int bytes[at] * 256 + int bytes[at + 1]

/// Offset of a packet's transport checksum (RFC 791); None for later fragments, other protocols and a field that the IP
/// length does not reach.
let private checksumAt (packet: byte[]) : int option =
    let l4 = int (packet[0] &&& 15uy) * 4

    let offset =
        match packet[9] with
        | 6uy -> Some 16
        | 17uy
        | 33uy
        | 136uy -> Some 6
        | _ -> None

    offset
    |> Option.map ((+) l4)
    |> Option.filter (fun at -> word packet 6 % 8192 = 0 && at + 2 <= min packet.Length (word packet 2))

/// Sum over the bytes that a packet's checksum covers, or the error of its partial sum, modulo 65535.
let private transportResidue (packet: byte[]) (partial: bool) : int =
    let l4 = int (packet[0] &&& 15uy) * 4
    let at = (checksumAt packet).Value
    let pseudoHeader = ByteSum.residue packet[12..19]

    if partial then
        // A partial sum follows the pseudo-header: their difference stays.
        (word packet at - pseudoHeader + 65535 * 2) % 65535
    else
        (ByteSum.residue packet[l4..] + pseudoHeader) % 65535

/// The first byte says which address and polarity, four bytes give the address, then comes the packet.
let private addresses (bytes: byte[]) =
    if bytes.Length < 5 then
        0L
    else
        let isSource = bytes[0] &&& 1uy = 0uy
        let partial = bytes[0] &&& 2uy <> 0uy

        let state =
            if partial then
                TransportChecksum.Partial
            else
                TransportChecksum.Complete

        let address =
            Ipv4Address(BinaryPrimitives.ReadUInt32BigEndian(ReadOnlySpan(bytes, 1, 4)))

        let packet = bytes[5..]
        let after = Array.copy packet
        let addressAt = if isSource then 12 else 16

        let rewrite (target: byte[]) (address: Ipv4Address) =
            if isSource then
                Rewrite.source (Span target, address, state)
            else
                Rewrite.destination (Span target, address, state)

        let addressOf (packet: byte[]) =
            if isSource then
                Rewrite.sourceOf (ReadOnlySpan packet)
            else
                Rewrite.destinationOf (ReadOnlySpan packet)

        let isDone = rewrite after address

        if isDone <> isIpv4 packet then
            broken $"rewritten: {isDone}"

        if not isDone then
            require (after = packet && (addressOf packet).IsNone) "refused, and yet something is there"
            kind [ 0; magnitude packet.Length ]
        else
            require (addressOf after = address) "another address"
            let transport = checksumAt packet

            let may i =
                i = 10
                || i = 11
                || (i >= addressAt && i < addressAt + 4)
                || Some i = transport
                || Some(i - 1) = transport

            require (List.forall may (differences packet after)) "another field was written"

            let network (packet: byte[]) =
                ByteSum.residue packet[.. int (packet[0] &&& 15uy) * 4 - 1]

            require (network packet = network after) "the header's checksum says something else"

            match transport with
            | Some at when (packet[9] = 17uy || packet[9] = 136uy) && not partial && word packet at = 0 ->
                require (word after at = 0) "RFC 768: a checksum where there was none"
            | Some at ->
                require
                    (transportResidue packet partial = transportResidue after partial)
                    "the transport checksum says something else"

                require (packet[9] <> 17uy && packet[9] <> 136uy || partial || word after at <> 0) "RFC 768: zero"
            | None -> ()

            let back = Array.copy after
            rewrite back (addressOf packet) |> ignore
            // The two zeros of one's complement may have changed places.
            let isField i =
                i = 10 || i = 11 || Some i = transport || Some(i - 1) = transport

            require (List.forall isField (differences packet back)) "there and back is not the same"

            kind
                [ 1
                  flag isSource
                  flag partial
                  int packet[9]
                  flag transport.IsSome
                  int (packet[0] &&& 15uy)
                  magnitude (word packet 6 % 8192) ]

/// Bytes that the checksum of an ICMP error covers (RFC 792); None for other packets.
let private icmpError (packet: byte[]) : (int * int) option =
    let l4, ends = int (packet[0] &&& 15uy) * 4, min packet.Length (word packet 2)

    if
        packet[9] = 1uy
        && word packet 6 % 8192 = 0
        && ends - l4 >= 8
        && Array.contains packet[l4] [| 3uy; 4uy; 5uy; 11uy; 12uy |]
    then
        Some(l4, ends)
    else
        None

/// The first byte gives the end, the direction and the checksum's state, and whether the DNS server's address is the
/// packet's own; 16 bytes give the four addresses; then comes the packet.
let private translation (bytes: byte[]) =
    if bytes.Length < 17 then
        0L
    else
        let isSet (bit: byte) = bytes[0] &&& bit <> 0uy
        let isServer, outbound = isSet 1uy, isSet 2uy
        let partial = isSet 4uy && outbound
        let packet = bytes[17..]

        let number (bytes: byte[]) (at: int) =
            BinaryPrimitives.ReadUInt32BigEndian(ReadOnlySpan(bytes, at, 4))

        let here, atPeer = number bytes 1, number bytes 5
        let isOwnDns = isSet 8uy && isIpv4 packet

        let dnsHere =
            if isOwnDns && outbound then
                number packet 16
            else
                number bytes 9

        let dnsAtPeer =
            if isOwnDns && not outbound then
                number packet 12
            else
                number bytes 13

        let translation =
            if isServer then
                Translation.server (Ipv4Address here, Ipv4Address atPeer)
            else
                Translation.client (Ipv4Address here, Ipv4Address atPeer, Ipv4Address dnsHere, Ipv4Address dnsAtPeer)

        let state =
            if partial then
                TransportChecksum.Partial
            else
                TransportChecksum.Complete

        let after = Array.copy packet

        let isDone =
            if outbound then
                Translation.toPeer (&translation, Span after, state)
            else
                Translation.fromPeer (&translation, Span after)

        if isDone <> isIpv4 packet then
            broken $"translated: {isDone}"

        if not isDone then
            require (after = packet) "refused, and yet written"
            kind [ 0; flag isServer; flag outbound; magnitude packet.Length ]
        else
            let source, destination = number packet 12, number packet 16

            let expected =
                match isServer, outbound with
                | true, true -> source, atPeer
                | true, false -> here, destination
                | false, true -> atPeer, (if destination = dnsHere then dnsAtPeer else destination)
                | false, false -> (if source = dnsAtPeer then dnsHere else source), here

            if (number after 12, number after 16) <> expected then
                broken $"{number after 12:x8} to {number after 16:x8}, not {expected}"

            let transport = checksumAt packet
            let error = icmpError packet

            // What changes in a quote is checked by the target icmp-quote.
            let isQuoted i =
                match error with
                | Some(start, ends) -> i = start + 2 || i = start + 3 || (i >= start + 18 && i < ends)
                | None -> false

            let may i =
                i = 10
                || i = 11
                || (i >= 12 && i < 20)
                || Some i = transport
                || Some(i - 1) = transport
                || isQuoted i

            require (List.forall may (differences packet after)) "another field was written"

            let network (packet: byte[]) =
                ByteSum.residue packet[.. int (packet[0] &&& 15uy) * 4 - 1]

            require (network packet = network after) "the header's checksum says something else"

            match error with
            | Some(start, ends) when not partial ->
                require
                    (ByteSum.residue packet[start .. ends - 1] = ByteSum.residue after[start .. ends - 1])
                    "the error's checksum says something else"
            | _ -> ()

            match transport with
            | Some at when (packet[9] = 17uy || packet[9] = 136uy) && not partial && word packet at = 0 ->
                require (word after at = 0) "RFC 768: a checksum where there was none"
            | Some _ ->
                require
                    (transportResidue packet partial = transportResidue after partial)
                    "the transport checksum says something else"
            | None -> ()

            kind
                [ 1
                  flag isServer
                  flag outbound
                  flag partial
                  int packet[9]
                  flag transport.IsSome
                  flag (number after 12 <> source)
                  flag (number after 16 <> destination)
                  int (packet[0] &&& 15uy) ]

/// Two bytes of limit, then the packet.
let private clamp (bytes: byte[]) =
    if bytes.Length < 2 then
        0L
    else
        let limit = word bytes 0
        let packet = bytes[2..]
        let after = Array.copy packet
        let previous = Rewrite.clampMss (Span after, limit)
        let changed = differences packet after

        if previous = 0 then
            require changed.IsEmpty "nothing to lower, and yet written"
        else
            let l4 = int (packet[0] &&& 15uy) * 4
            require (isIpv4 packet && packet[9] = 6uy && packet[l4 + 13] &&& 2uy <> 0uy) "not a SYN"
            require (previous > limit && previous <= 65535) "raised"
            let headerEnd = l4 + int (packet[l4 + 12] >>> 4) * 4
            let options = changed |> List.filter (fun i -> i <> l4 + 16 && i <> l4 + 17)
            require (options |> List.forall (fun i -> i >= l4 + 20 && i < headerEnd)) "not an option"

            require
                (options.Length <= 2 && List.max (0 :: options) - List.min (65535 :: options) <= 1)
                "more than the value"

            require (ByteSum.residue packet[l4..] = ByteSum.residue after[l4..]) "the checksum says something else"
            require (Rewrite.clampMss (Span after, limit) = 0) "lowered twice"

        let flags = if packet.Length > 33 then int packet[33] &&& 2 else 4

        kind
            [ flag (previous > 0)
              flag (isIpv4 packet)
              flags
              magnitude (List.length changed)
              magnitude previous
              (if packet.Length > 40 then int packet[40] else -1) ]

/// Ends of the checksum, over any bytes at any alignment: every width of vectors gives the number that the bytes spell.
let private checksum (bytes: byte[]) =
    let offset = if bytes.Length = 0 then 0 else int bytes[0] &&& 63
    let placed = Array.concat [ junk offset; bytes; junk 64 ]
    let sum = ByteSum.sum bytes

    for name, found in
        [ "sum", Checksum.sum (ReadOnlySpan(placed, offset, bytes.Length))
          "scalar", Checksum.sumScalar (ReadOnlySpan(placed, offset, bytes.Length))
          "Vector256", Checksum.sumVector256 (ReadOnlySpan(placed, offset, bytes.Length))
          "Vector512", Checksum.sumVector512 (ReadOnlySpan(placed, offset, bytes.Length)) ] do
        if found <> sum then
            broken $"{name} is {found:x4}, the bytes spell {sum:x4}"

    kind [ bytes.Length &&& 63; magnitude bytes.Length; flag (sum = 0us); flag (sum = 0xFFFFus) ]

let targets =
    [ { Name = "address-rewrite"
        MaxLength = 1600
        Run = addresses }
      { Name = "translation"
        MaxLength = 1600
        Run = translation }
      { Name = "mss-clamp"
        MaxLength = 200
        Run = clamp }
      { Name = "checksum"
        MaxLength = 1600
        Run = checksum } ]

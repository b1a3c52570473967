/// ICMP errors with the packets that they quote, errors made here, and ECN: only the fields named change, and a checksum
/// stays as right or as wrong as it was.
module Lightway.Fuzz.IcmpTargets

open System
open System.Buffers.Binary
open Lightway.Segmenter
open Lightway.Specs.Oracles
open Lightway.Fuzz.Target

let private word (bytes: byte[]) (at: int) = int bytes[at] * 256 + int bytes[at + 1]

let private number (bytes: byte[]) (at: int) =
    BinaryPrimitives.ReadUInt32BigEndian(ReadOnlySpan(bytes, at, 4))

let private isIpv4 (packet: byte[]) =
    packet.Length >= 20
    && packet[0] >>> 4 = 4uy
    && packet[0] &&& 15uy >= 5uy
    && int (packet[0] &&& 15uy) * 4 <= packet.Length

let private l4 (packet: byte[]) = int (packet[0] &&& 15uy) * 4

/// Start and end of the ICMP message (RFC 792) if the packet is an error that can be read.
let private errorAt (packet: byte[]) : (int * int) option =
    if not (isIpv4 packet) then
        None
    else
        let start, ends = l4 packet, min packet.Length (word packet 2)

        if
            packet[9] = 1uy
            && word packet 6 % 8192 = 0
            && ends - start >= 8
            && Array.contains packet[start] [| 3uy; 4uy; 5uy; 11uy; 12uy |]
        then
            Some(start, ends)
        else
            None

/// The quoted packet of a message (RFC 4884 §3).
let private quoteOf (packet: byte[]) (start: int, ends: int) : byte[] =
    let quote = packet[start + 8 .. ends - 1]
    let words = int packet[start + 5]

    if words > 0 && Array.contains packet[start] [| 3uy; 11uy; 12uy |] then
        Array.truncate (words * 4) quote
    else
        quote

/// Offset of a quoted packet's transport checksum, if it is there.
let private checksumAt (quote: byte[]) : int option =
    match quote[9] with
    | 6uy -> Some(l4 quote + 16)
    | 17uy
    | 33uy
    | 136uy -> Some(l4 quote + 6)
    | _ -> None
    |> Option.filter (fun at -> word quote 6 % 8192 = 0 && at + 2 <= min quote.Length (word quote 2))

/// The first byte says which address, the state of the checksum, and whether the old address is the quote's own; two
/// addresses follow, then the packet.
let private quoted (bytes: byte[]) =
    if bytes.Length < 9 then
        0L
    else
        let isSource = bytes[0] &&& 1uy <> 0uy
        let isPartial = bytes[0] &&& 2uy <> 0uy
        let packet = bytes[9..]
        let addressAt = if isSource then 12 else 16
        let message = errorAt packet

        let quote =
            message |> Option.map (quoteOf packet) |> Option.filter (fun quote -> quote.Length >= 20)

        let before =
            match quote with
            | Some quote when bytes[0] &&& 4uy <> 0uy -> number quote addressAt
            | _ -> number bytes 1

        let address = number bytes 5
        let after = Array.copy packet

        let replace (target: byte[]) one other =
            let state =
                if isPartial then
                    TransportChecksum.Partial
                else
                    TransportChecksum.Complete

            if isSource then
                Icmp.replaceQuotedSource (Span target, one, other, state)
            else
                Icmp.replaceQuotedDestination (Span target, one, other, state)

        let isDone = replace after before address

        let expected =
            match quote with
            | Some quote -> isIpv4 quote && number quote addressAt = before
            | None -> false

        if isDone <> expected then
            broken $"replaced: {isDone}"

        if not isDone then
            require (after = packet) "left alone, and yet written"
            kind [ 0; flag message.IsSome; flag quote.IsSome; magnitude packet.Length ]
        else
            let start, ends = message.Value
            let old, renewed = quote.Value, quoteOf after message.Value
            require (number renewed addressAt = address) "another address"
            let transport = checksumAt old
            let inQuote i = i - start - 8

            let may i =
                let at = inQuote i

                i = start + 2
                || i = start + 3
                || at = 10
                || at = 11
                || (at >= addressAt && at < addressAt + 4)
                || Some at = transport
                || Some(at - 1) = transport

            for i in 0 .. packet.Length - 1 do
                if packet[i] <> after[i] && not (may i) then
                    broken $"byte {i} was written"

            let residue (packet: byte[]) =
                ByteSum.residue packet[start .. ends - 1]

            if isPartial then
                require (word packet (start + 2) = word after (start + 2)) "a partial sum was written"
            else
                require (residue packet = residue after) "the error's checksum says something else"

            require
                (ByteSum.residue old[.. l4 old - 1] = ByteSum.residue renewed[.. l4 old - 1])
                "the quoted header's checksum says something else"

            match transport with
            | Some at when (old[9] = 17uy || old[9] = 136uy) && word old at = 0 ->
                require (word renewed at = 0) "RFC 768: a checksum where there was none"
            | Some at ->
                let says (quote: byte[]) =
                    (ByteSum.residue quote[12..19] + word quote at) % 65535

                require (says old = says renewed) "the quoted transport's checksum says something else"
                require (old[9] <> 17uy && old[9] <> 136uy || word renewed at <> 0) "RFC 768: zero"
            | None -> ()

            require (replace after address before) "there is no way back"

            let isField i =
                i = start + 2 || i = start + 3 || inQuote i = 10 || inQuote i = 11

            let isTransport i =
                Some(inQuote i) = transport || Some(inQuote i - 1) = transport

            for i in 0 .. packet.Length - 1 do
                // The two zeros of one's complement may have changed places.
                if packet[i] <> after[i] && not (isField i || isTransport i) then
                    broken $"there and back, byte {i} differs"

            kind
                [ 1
                  flag isSource
                  flag isPartial
                  int packet[start]
                  int old[9]
                  flag transport.IsSome
                  int (old[0] &&& 15uy)
                  flag (old.Length < ends - start - 8)
                  flag (start > 20) ]

/// Which error, a byte without meaning, an MTU (2), the length of the buffer (2), the source (4), then the packet that it is about.
let private errors (bytes: byte[]) =
    if bytes.Length < 10 then
        0L
    else
        let mtu, source = word bytes 2, number bytes 6
        let dst = junk (word bytes 4 % 1024)
        let packet = bytes[10..]
        let about = ReadOnlySpan packet

        let icmpType, code, rest, length =
            match int bytes[0] % 2 with
            | 0 -> 3, 4, mtu, Icmp.writeFragmentationNeeded (about, source, mtu, Span dst)
            | _ -> 3, 1, 0, Icmp.writeHostUnreachable (about, source, Span dst)

        let mayBe =
            isIpv4 packet
            && (let total = word packet 2
                let isHost = packet[12] > 0uy && packet[12] <> 127uy && packet[12] < 224uy

                total >= l4 packet
                && total <= packet.Length
                && word packet 6 % 8192 = 0
                && isHost
                && packet[16] < 224uy
                && (packet[9] <> 1uy
                    || (total > l4 packet
                        && Array.contains (int packet[l4 packet]) [| 0; 8; 9; 10; 13; 14; 15; 16; 17; 18; 42; 43 |]))
                && (bytes[0] % 2uy <> 0uy || (packet[6] &&& 0x40uy <> 0uy && mtu >= 68 && total > mtu))
                && dst.Length >= 28 + min 548 total)

        if (length > 0) <> mayBe then
            broken $"{length} bytes are written"

        require (isJunk dst[length..]) "written behind the error"

        if length > 0 then
            let quote = packet[.. min 548 (word packet 2) - 1]
            require (length = 28 + quote.Length && dst[28 .. length - 1] = quote) "another quote"
            require (ByteSum.verifies dst[..19] && ByteSum.verifies dst[20 .. length - 1]) "a wrong checksum"

            let fields =
                [ int dst[0]; int dst[9]; word dst 2; int dst[20]; int dst[21]; word dst 24; word dst 26 ]

            require (fields = [ 0x45; 1; length; icmpType; code; 0; rest ]) "another error"
            require (number dst 12 = source && number dst 16 = number packet 12) "other addresses"

        kind
            [ flag (length > 0)
              int bytes[0] % 2
              flag (isIpv4 packet)
              magnitude length
              (if packet.Length > 20 then int packet[9] else -1)
              (if packet.Length > 20 then int packet[20] else -1) ]

/// Figure 4 of RFC 6040 in rows of the inside bits, columns of the outside bits; -1 is drop.
let private figure4 =
    [| [| 0; 0; 0; -1 |]; [| 1; 1; 1; 3 |]; [| 2; 1; 2; 3 |]; [| 3; 3; 3; 3 |] |]

/// The field outside, then the packet.
let private ecn (bytes: byte[]) =
    if bytes.Length < 1 then
        0L
    else
        let outside = int bytes[0] % 4
        let packet = bytes[1..]
        let after = Array.copy packet
        let outcome = Ecn.apply (Span after, enum outside)
        let inside = if isIpv4 packet then int packet[1] % 4 else 0

        let leaving = figure4[inside][outside]

        let expected =
            if not (isIpv4 packet) then EcnOutcome.Refused
            elif leaving < 0 then EcnOutcome.Drop
            elif leaving = inside then EcnOutcome.Unchanged
            else EcnOutcome.Changed

        if outcome <> expected then
            broken $"{outcome}, not {expected}"

        if outcome = EcnOutcome.Changed then
            require (int after[1] = int packet[1] - inside + leaving) "another TOS"

            require
                (ByteSum.residue packet[.. l4 packet - 1] = ByteSum.residue after[.. l4 packet - 1])
                "the header's checksum says something else"

            let others = Array.mapi (fun i b -> if i = 1 || i = 10 || i = 11 then 0uy else b)
            require (others packet = others after) "another field was written"
        else
            require (after = packet) "not changed, and yet written"

        kind [ int outcome; inside; outside; magnitude packet.Length ]

let targets =
    [ { Name = "icmp-quote"
        MaxLength = 700
        Run = quoted }
      { Name = "icmp-error"
        MaxLength = 1600
        Run = errors }
      { Name = "ecn"
        MaxLength = 100
        Run = ecn } ]

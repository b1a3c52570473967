/// Headers of segments and superpackets, the wire header and the replay window, for all inputs.
module Lightway.Specs.Proofs.HeaderLaws

#nowarn "1182" // a definition that is wrong may leave an argument out

open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Specs.Proofs.Law
open Lightway.Specs.Proofs.Smt

/// What `Superpacket.plan` guarantees of a plan, by its own checks: a header, payload (whose length IP counts in 16 bits), a size to
/// cut by, and an index below the number of segments.
[<ReflectedDefinition>]
let private isSegment (header: uint16) (payload: uint16) (gsoSize: uint16) (index: uint16) : bool =
    header >= 28us
    && header <= uint16 Superpacket.MaxHeaderLength
    && payload >= 1us
    && gsoSize >= 1us
    && int index < Superpacket.segmentCount (int payload, int gsoSize)

let private mutant (function': FSharp.Quotations.Expr) (what: string) (wrong: FSharp.Quotations.Expr) : Mutant =
    { What = what
      Function = function'
      Wrong = wrong }

let private oneMore =
    mutant
        <@@ Superpacket.segmentCount @@>
        "one segment too many where the last one is full"
        <@@ fun (payloadLength: int, gsoSize: int) -> payloadLength / gsoSize + 1 @@>

let private shortForgotten =
    mutant
        <@@ Superpacket.segmentCount @@>
        "a last segment that is not full is forgotten"
        <@@ fun (payloadLength: int, gsoSize: int) -> payloadLength / gsoSize @@>

let private neverShort =
    mutant
        <@@ Segment.lengthOf @@>
        "the last segment is as long as the others"
        <@@ fun (headerLength: int, gsoSize: int, packetLength: int, index: int) -> headerLength + gsoSize @@>

let private segments: Law list =
    [ { plain with
          Name = "no segment ends beyond the packet, none is without payload"
          Source = "RFC 9293 §3.4"
          Theory = Integers
          Statement =
              <@@
                  fun (header: uint16) (payload: uint16) (gsoSize: uint16) (index: uint16) ->
                      let start = int index * int gsoSize
                      let packet = int header + int payload
                      let length = Segment.lengthOf (int header, int gsoSize, packet, int index)

                      isSegment header payload gsoSize index
                      ==> (start >= 0
                           && length > int header
                           && length <= int header + int gsoSize
                           && start + length <= packet)
              @@>

          Mutant = neverShort }

      { plain with
          Name = "each payload begins where the one before it ends, the last one ends with the packet"
          Source = "RFC 9293 §3.4"
          Theory = Integers
          Statement =
              <@@
                  fun (header: uint16) (payload: uint16) (gsoSize: uint16) (index: uint16) ->
                      let packet = int header + int payload
                      let last = Superpacket.segmentCount (int payload, int gsoSize) - 1

                      let ends =
                          int index * int gsoSize + Segment.lengthOf (int header, int gsoSize, packet, int index)

                      isSegment header payload gsoSize index
                      ==> (if int index = last then
                               ends = packet
                           else
                               ends = (int index + 1) * int gsoSize + int header)
              @@>

          Mutant = shortForgotten }

      { plain with
          Name = "as many segments as the payload needs, and no more"
          Source = "linux/virtio_net.h, gso_size"
          Theory = Integers
          Statement =
              <@@
                  fun (payloadLength: int) (gsoSize: int) ->
                      let count = int64 (Superpacket.segmentCount (payloadLength, gsoSize))
                      let payload, size = int64 payloadLength, int64 gsoSize

                      if payloadLength <= 0 || gsoSize <= 0 then
                          count = 0L
                      else
                          count >= 1L && (count - 1L) * size < payload && payload <= count * size
              @@>

          Mutant = oneMore }

      { plain with
          Name = "identifications count up by one, modulo 2^16"
          Source = "RFC 791 §3.1"
          Statement =
              <@@
                  fun (first: uint16) (index: int) ->
                      (index >= 0 && index < 65536)
                      ==> (Segment.identificationOf (first, index + 1) = Segment.identificationOf (first, index) + 1us)
              @@>

          Mutant =
              mutant
                  <@@ Segment.identificationOf @@>
                  "the low byte alone counts"
                  <@@ fun (first: uint16, index: int) -> first + uint16 (byte index) @@> }

      { plain with
          Name = "no two segments of a packet have one identification"
          Source = "RFC 6864 §4.2"
          Statement =
              <@@
                  fun (first: uint16) (one: int) (other: int) ->
                      (one >= 0 && one < other && other < 65536)
                      ==> (Segment.identificationOf (first, one) <> Segment.identificationOf (first, other))
              @@>

          Mutant =
              mutant
                  <@@ Segment.identificationOf @@>
                  "every second one stays"
                  <@@ fun (first: uint16, index: int) -> first + uint16 (index / 2) @@> }

      { plain with
          Name = "sequence numbers count up by the payload before them, modulo 2^32"
          Source = "RFC 9293 §3.4"
          Statement =
              <@@
                  fun (first: uint32) (index: int) (gsoSize: int) ->
                      (index >= 0 && index < 65536 && gsoSize >= 1 && gsoSize <= 65535)
                      ==> (Segment.sequenceOf (first, index + 1, gsoSize) - Segment.sequenceOf (first, index, gsoSize) =
                          uint32 gsoSize)
              @@>

          Mutant =
              mutant
                  <@@ Segment.sequenceOf @@>
                  "the product has 16 bits"
                  <@@ fun (first: uint32, index: int, gsoSize: int) -> first + uint32 (uint16 index * uint16 gsoSize) @@> }

      { plain with
          Name = "CWR in the first segment only, PSH and FIN in the last only, all other bits in each"
          Source = "RFC 3168 §6.1.2, RFC 9293 §3.1"
          Statement =
              <@@
                  fun (word: uint16) (index: int) (count: int) ->
                      let flags = Segment.flagsOf (word, index, count)
                      let closing = Tcp.Fin ||| Tcp.Psh

                      (count >= 1 && index >= 0 && index < count)
                      ==> (flags &&& Tcp.Cwr = (if index = 0 then word &&& Tcp.Cwr else 0us)
                           && flags &&& closing = (if index = count - 1 then word &&& closing else 0us)
                           && flags &&& ~~~(closing ||| Tcp.Cwr) = (word &&& ~~~(closing ||| Tcp.Cwr)))
              @@>

          Mutant =
              mutant
                  <@@ Segment.flagsOf @@>
                  "CWR stays in each"
                  <@@
                      fun (offsetAndFlags: uint16, index: int, count: int) ->
                          if index = count - 1 then
                              offsetAndFlags
                          else
                              offsetAndFlags &&& ~~~(Tcp.Fin ||| Tcp.Psh)
                  @@> }

      { ChecksumLaws.byFold with
          Name = "the header checksum of a segment verifies"
          Source = "RFC 791 §3.1"
          Statement =
              <@@
                  fun (sum: uint16) (totalLength: uint16) (identification: uint16) ->
                      let field = Segment.networkChecksum (sum, totalLength, identification)

                      // Version and length of the header are never zero, so the sum is not.
                      let all = uint64 sum + uint64 totalLength + uint64 identification + uint64 field
                      sum <> 0us ==> (Checksum.fold all = 0xFFFFus)
              @@>

          Mutant =
              mutant
                  <@@ Segment.networkChecksum @@>
                  "the identification is not covered"
                  <@@
                      fun (networkSum: uint16, totalLength: uint16, identification: uint16) ->
                          Checksum.complement (Checksum.fold (uint64 networkSum + uint64 totalLength))
                  @@> }

      { ChecksumLaws.byFold with
          Name = "the checksum of a TCP segment verifies"
          Source = "RFC 9293 §3.1"
          Statement =
              <@@
                  fun (sum: uint16) (length: uint16) (payload: uint16) (sequence: uint32) (flags: uint16) ->
                      let field = Segment.tcpChecksum (sum, length, payload, sequence, flags)

                      let words =
                          uint64 (uint16 (sequence >>> 16)) + uint64 (uint16 sequence) + uint64 flags

                      let all = uint64 sum + uint64 length + uint64 payload + words + uint64 field
                      sum <> 0us ==> (Checksum.fold all = 0xFFFFus)
              @@>

          Mutant =
              mutant
                  <@@ Segment.tcpChecksum @@>
                  "the high word of the sequence number is not covered"
                  <@@
                      fun (transportSum: uint16, length: uint16, payload: uint16, sequence: uint32, flags: uint16) ->
                          Checksum.complement (
                              Checksum.fold (
                                  uint64 transportSum
                                  + uint64 length
                                  + uint64 payload
                                  + uint64 (uint16 sequence)
                                  + uint64 flags
                              )
                          )
                  @@> }

      { ChecksumLaws.byFold with
          Name = "the checksum of a UDP datagram verifies, and is never zero"
          Source = "RFC 768"
          Statement =
              <@@
                  fun (sum: uint16) (length: uint16) (payload: uint16) ->
                      let field = Segment.udpChecksum (sum, length, payload)

                      let all = uint64 sum + uint64 length + uint64 length + uint64 payload + uint64 field
                      sum <> 0us ==> (field <> 0us && Checksum.fold all = 0xFFFFus)
              @@>

          Mutant =
              mutant
                  <@@ Segment.udpChecksum @@>
                  "the length counts once"
                  <@@
                      fun (transportSum: uint16, length: uint16, payload: uint16) ->
                          Checksum.udpField (
                              Checksum.complement (Checksum.fold (uint64 transportSum + uint64 length + uint64 payload))
                          )
                  @@> }

      { ChecksumLaws.byFold with
          Name = "the length of the superpacket leaves its partial sum, that of the segment enters it"
          Source = "RFC 1624 §3"
          Statement =
              <@@
                  fun (rest: uint16) (superpacket: uint16) (segment: uint16) ->
                      let partial = Checksum.add (rest, superpacket)
                      let without = Checksum.updatePartial (partial, superpacket, 0us)

                      rest <> 0us ==> (Checksum.add (without, segment) = Checksum.add (rest, segment))
              @@>

          Mutant =
              mutant
                  <@@ Checksum.updatePartial @@>
                  "the word before is added, not taken out"
                  <@@
                      fun (field: uint16, before: uint16, after: uint16) ->
                          Checksum.fold (uint64 field + uint64 before + uint64 after)
                  @@> } ]

let private superpackets: Law list =
    [ { plain with
          Name = "a superpacket that takes a packet stays within 65535 bytes, and no sum overflows"
          Source = "RFC 791 §3.1, RFC 8200 §3"
          Statement =
              <@@
                  fun (headerLength: int) (payloadLength: int) (added: int) ->
                      let isLength (bytes: int) = bytes >= 0 && bytes <= 65535
                      let sum = int64 headerLength + int64 payloadLength + int64 added

                      (isLength headerLength && isLength payloadLength && isLength added)
                      ==> (Coalesce.fits (headerLength, payloadLength, added) = (sum <= 65535L))
              @@>

          Mutant =
              mutant
                  <@@ Coalesce.fits @@>
                  "the sum has 16 bits"
                  <@@
                      fun (headerLength: int, payloadLength: int, added: int) ->
                          int (uint16 (headerLength + payloadLength + added)) <= 65535
                  @@> }

      { plain with
          Name = "the packet that the coalescer waits for is the one that the segmenter makes: sequence number"
          Source = "RFC 9293 §3.4"
          Statement =
              <@@
                  fun (first: uint32) (count: int) (gsoSize: int) ->
                      (count >= 0 && count <= 65535 && gsoSize >= 1 && gsoSize <= 65535 && count * gsoSize <= 65535)
                      ==> (Coalesce.nextSequence (first, count * gsoSize) = Segment.sequenceOf (first, count, gsoSize))
              @@>

          Mutant =
              mutant
                  <@@ Coalesce.nextSequence @@>
                  "it stops at 2^32"
                  <@@ fun (first: uint32, payloadLength: int) -> max first (first + uint32 payloadLength) @@> }

      { plain with
          Name = "the packet that the coalescer waits for is the one that the segmenter makes: identification"
          Source = "RFC 6864 §4.1"
          Statement =
              <@@
                  fun (first: uint16) (count: int) ->
                      (count >= 0 && count <= 65535)
                      ==> (Coalesce.nextIdentification (first, count) = Segment.identificationOf (first, count))
              @@>

          Mutant =
              mutant
                  <@@ Coalesce.nextIdentification @@>
                  "it counts from one"
                  <@@ fun (first: uint16, count: int) -> first + uint16 count + 1us @@> } ]

let private wire: Law list =
    [ { plain with
          Name = "what is written is read"
          Source = "protocol §1"
          Statement =
              <@@
                  fun (version: uint16) (isExpresslane: bool) ->
                      let head = WireHeader.headOf (version, isExpresslane)

                      WireHeader.hasMagic head
                      && WireHeader.versionOf head = version
                      && WireHeader.isExpresslane head = isExpresslane
                      && not (WireHeader.isAggressive head)
              @@>

          Mutant = mutant <@@ WireHeader.versionOf @@> "a byte lower" <@@ fun (head: uint64) -> uint16 (head >>> 24) @@> }

      { plain with
          Name = "the reserved bytes change nothing that is read"
          Source = "protocol §1"
          Statement =
              <@@
                  fun (head: uint64) (reserved: uint16) ->
                      let other = head ^^^ uint64 reserved

                      WireHeader.hasMagic other = WireHeader.hasMagic head
                      && WireHeader.versionOf other = WireHeader.versionOf head
                      && WireHeader.isAggressive other = WireHeader.isAggressive head
                      && WireHeader.isExpresslane other = WireHeader.isExpresslane head
              @@>

          Mutant =
              mutant
                  <@@ WireHeader.isExpresslane @@>
                  "three bytes are looked at"
                  <@@ fun (head: uint64) -> uint32 head &&& 0xFF_FFFFu <> 0u @@> }

      { plain with
          Name = "any flag byte but zero reads as true, and no other byte does"
          Source = "protocol §1"
          Statement =
              <@@
                  fun (head: uint64) (flag: byte) ->
                      let cleared = head &&& 0xFFFF_FFFF_00FF_FFFFUL
                      WireHeader.isAggressive (cleared ||| (uint64 flag <<< 24)) = (flag <> 0uy)
              @@>

          Mutant =
              mutant
                  <@@ WireHeader.isAggressive @@>
                  "its lowest bit alone"
                  <@@ fun (head: uint64) -> byte (head >>> 24) &&& 1uy <> 0uy @@> }

      { plain with
          Name = "only the first two bytes are the magic, and only 48 65 is"
          Source = "protocol §1"
          Statement = <@@ fun (head: uint64) -> WireHeader.hasMagic head = (head >>> 48 = 0x4865UL) @@>

          Mutant =
              mutant
                  <@@ WireHeader.hasMagic @@>
                  "the first byte alone"
                  <@@ fun (head: uint64) -> byte (head >>> 56) = 0x48uy @@> }

      { plain with
          Name = "three versions are valid: 1.1, 1.2 and 1.3"
          Source = "protocol §1"
          Statement =
              <@@
                  fun (version: uint16) ->
                      ProtocolVersion.isValid version =
                          (version >>> 8 = 1us && version &&& 0xFFus >= 1us && version &&& 0xFFus <= 3us)
              @@>

          Mutant =
              mutant
                  <@@ ProtocolVersion.isValid @@>
                  "every version from 1.1 on"
                  <@@ fun (version: uint16) -> version >= 0x0101us @@> } ]

let private replay: Law list =
    [ { plain with
          Name = "zero never commits, nor does what is 8192 or more behind the highest"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (high: uint64) (counter: uint64) (word: uint64) ->
                      (counter = 0UL || (counter <= high && high - counter >= 8192UL))
                      ==> not (ReplaySlots.isFresh (high, counter, word))
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.isFresh @@>
                  "the width is not asked for"
                  <@@
                      fun (high: uint64, counter: uint64, word: uint64) ->
                          counter > high || (counter <> 0UL && word &&& ReplaySlots.bitOf counter = 0UL)
                  @@> }

      { plain with
          Name = "a counter that has committed does not commit again"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (high: uint64) (counter: uint64) (word: uint64) ->
                      (counter <= high)
                      ==> not (ReplaySlots.isFresh (high, counter, word ||| ReplaySlots.bitOf counter))
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.isFresh @@>
                  "the highest counter passes again"
                  <@@
                      fun (high: uint64, counter: uint64, word: uint64) ->
                          counter >= high
                          || (counter <> 0UL
                              && high - counter < ReplaySlots.Width
                              && word &&& ReplaySlots.bitOf counter = 0UL)
                  @@> }

      { plain with
          Name = "two counters share a bit only if they are a multiple of 8192 apart"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (one: uint64) (other: uint64) ->
                      (ReplaySlots.wordOf one = ReplaySlots.wordOf other
                       && ReplaySlots.bitOf one = ReplaySlots.bitOf other)
                          =
                          (one &&& 8191UL = (other &&& 8191UL))
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.wordOf @@>
                  "half of the words are used"
                  <@@ fun (counter: uint64) -> int (counter >>> 6) &&& 63 @@> }

      { plain with
          Name = "the place of a bit is within the window"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (counter: uint64) ->
                      ReplaySlots.wordOf counter >= 0
                      && ReplaySlots.wordOf counter < 128
                      && ReplaySlots.bitOf counter <> 0UL
                      && ReplaySlots.bitOf counter &&& (ReplaySlots.bitOf counter - 1UL) = 0UL
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.wordOf @@>
                  "the index is not cut"
                  <@@ fun (counter: uint64) -> int (counter >>> 6) @@> }

      { plain with
          Name = "each step of clearing goes on, and not too far"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (first: uint64) (count: uint64) ->
                      let cleared = ReplaySlots.clearedAtOnce (first, count)
                      (count > 0UL) ==> (cleared >= 1UL && cleared <= count)
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.clearedAtOnce @@>
                  "all that is left of a word, also where fewer are asked for"
                  <@@ fun (first: uint64, count: uint64) -> 64UL - (first &&& 63UL) @@> }

      { plain with
          Name = "each step of clearing clears the bits of its counters, and no others of their word"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (first: uint64) (count: uint64) (counter: uint64) ->
                      let cleared = ReplaySlots.clearedAtOnce (first, count)
                      let isCleared = counter - first < cleared

                      let isInWord = ReplaySlots.wordOf counter = ReplaySlots.wordOf first

                      let hasBit =
                          ReplaySlots.clearedBits (first, cleared) &&& ReplaySlots.bitOf counter <> 0UL

                      (count > 0UL)
                      ==> ((not isCleared || (isInWord && hasBit))
                           && (not (isInWord && hasBit) || (counter - first) &&& 8191UL < cleared))
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.clearedBits @@>
                  "the bit of the last counter is left"
                  <@@
                      fun (first: uint64, cleared: uint64) ->
                          (0xFFFF_FFFF_FFFF_FFFFUL >>> (65 - int cleared)) <<< (int first &&& 63)
                  @@> }

      { plain with
          Name = "clearing for a new highest counter spares all that are still within the window"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (high: uint64) (next: uint64) (kept: uint64) (first: uint64) ->
                      // `first` is where one of the steps that clear high + 1 to next begins.
                      let left = next - first + 1UL

                      (next > high
                       && next - high < ReplaySlots.Width
                       && first > high
                       && first <= next
                       && kept <= high
                       && next - kept < ReplaySlots.Width)
                      ==> (ReplaySlots.wordOf kept <> ReplaySlots.wordOf first
                           || ReplaySlots.clearedBits (first, ReplaySlots.clearedAtOnce (first, left))
                              &&& ReplaySlots.bitOf kept
                               =
                               0UL)
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.clearedAtOnce @@>
                  "more than is asked for"
                  <@@ fun (first: uint64, count: uint64) -> 64UL - (first &&& 63UL) @@> }

      { plain with
          Name = "a counter within the window that has not come yet is taken"
          Source = "RFC 6479 §3"
          Statement =
              <@@
                  fun (high: uint64) (counter: uint64) (other: uint64) (word: uint64) ->
                      // Another counter of the window commits: if the bit of `counter` was clear, it stays so.
                      (counter <> 0UL
                       && counter <= high
                       && high - counter < ReplaySlots.Width
                       && other <= high
                       && high - other < ReplaySlots.Width
                       && other <> counter
                       && ReplaySlots.wordOf other = ReplaySlots.wordOf counter
                       && word &&& ReplaySlots.bitOf counter = 0UL)
                      ==> ReplaySlots.isFresh (high, counter, word ||| ReplaySlots.bitOf other)
              @@>

          Mutant =
              mutant
                  <@@ ReplaySlots.bitOf @@>
                  "two counters share a bit"
                  <@@ fun (counter: uint64) -> 1UL <<< (int counter &&& 62) @@> } ]

let laws: Law list = segments @ superpackets @ wire @ replay

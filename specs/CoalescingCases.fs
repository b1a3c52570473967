/// Batches in which one thing decides whether packets may travel together, by rule (docs/offload.md, "Rules of the
/// coalescer"), and what the coalescer makes of them.
module Lightway.Specs.CoalescingCases

open Lightway.Specs.Generators
open Lightway.Specs.Packets
open Lightway.Specs.Oracles

type Case =
    {
        /// Number of the rule, 1 to 29.
        Rule: int
        Name: string
        /// Protocol and IP version.
        Kind: string
        Packets: Packet list
        /// The packets that travel together, in the order in which they are written.
        Groups: int list list
    }

    member this.Title = $"C-{this.Rule} {this.Name}, {this.Kind}"

let private tcp = [ "TCP/IPv4", tcp4; "TCP/IPv6", tcp6 ]
let private udp = [ "UDP/IPv4", udp4; "UDP/IPv6", udp6 ]
let private v4 = [ "TCP/IPv4", tcp4; "UDP/IPv4", udp4 ]
let private v6 = [ "TCP/IPv6", tcp6; "UDP/IPv6", udp6 ]

let private case (rule: int) (name: string) (kind: string) (groups: int list list) (packets: Packet list) : Case =
    { Rule = rule
      Name = name
      Kind = kind
      Packets = List.map normal packets
      Groups = groups }

/// The same for each kind of flow. `sizes`: how many packets travel together, then how many of those after them.
let private each (rule: int) (name: string) kinds (sizes: int list) (make: Packet -> Packet list) : Case list =
    let groups =
        List.zip (List.scan (+) 0 sizes |> List.truncate sizes.Length) sizes
        |> List.map (fun (first, size) -> [ first .. first + size - 1 ])

    [ for kind, template in kinds -> case rule name kind groups (make template) ]

/// Payloads of these lengths, in order.
let private lengths (rule: int) (name: string) kinds (sizes: int list) (payloads: int list) : Case list =
    each rule name kinds sizes (fun template -> inOrder template payloads)

/// Changes the packets at some places.
let private at (places: int list) (change: Packet -> Packet) (packets: Packet list) : Packet list =
    packets
    |> List.mapi (fun place packet -> if List.contains place places then change packet else packet)

/// A property of the second of four packets keeps it apart.
let private second (rule: int) (name: string) kinds (change: Packet -> Packet) : Case list =
    each rule $"{name} in one" kinds [ 1; 1; 2 ] (train 4 >> at [ 1 ] change)

/// Common properties of four packets.
let private shared (rule: int) (name: string) kinds (sizes: int list) (change: Packet -> Packet) : Case list =
    each rule $"{name} in all" kinds sizes (train 4 >> List.map change)

let private together = [ 4 ]
let private apart = [ 1; 1; 1; 1 ]

/// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1, RFC 9768 §3.1).
let private fin, syn, rst, psh, ack, urg, ece, cwr, ae =
    0x001, 0x002, 0x004, 0x008, 0x010, 0x020, 0x040, 0x080, 0x100

let private flags value (p: Packet) = { p with Flags = value }
let private fragment value (p: Packet) = { p with Fragment = value }
let private options (p: Packet) = { p with Options = 1 }
let private noChecksum (p: Packet) = { p with NoChecksum = true }
let private wrongChecksum (p: Packet) = { p with Spoil = 0x0100 }

let private trailing (count: int) (isSummed: bool) (p: Packet) =
    { p with
        Trailing = count
        IsTrailingSummed = isSummed }

/// Two NOPs and the timestamps option (RFC 7323 §3.2).
let private timestamps (value: byte) (p: Packet) =
    { p with
        TcpOptions = Array.concat [ hex "0101080a 000000"; [| value |]; hex "00000007" ] }

let private identifications =
    let numbered (fragment: int) (ids: int list) (template: Packet) =
        train ids.Length { template with Fragment = fragment }
        |> List.map2 (fun id packet -> { packet with Identification = id }) ids

    [ yield! each 2 "ids count up, DF" v4 [ 3 ] (numbered DontFragment [ 7; 8; 9 ])
      yield! each 2 "ids count up, no DF" v4 [ 3 ] (numbered 0 [ 7; 8; 9 ])
      yield! each 2 "ids count up past ffff, no DF" v4 [ 4 ] (numbered 0 [ 0xFFFE; 0xFFFF; 0; 1 ])
      yield! each 2 "one id, DF" v4 [ 3 ] (numbered DontFragment [ 7; 7; 7 ])
      yield! each 2 "one id twice, DF" v4 [ 3 ] (numbered DontFragment [ 7; 7; 9 ])
      yield! each 2 "random ids, DF" v4 [ 3 ] (numbered DontFragment [ 7; 99; 23 ])
      yield! each 2 "ids leave one out, no DF" v4 [ 1; 2 ] (numbered 0 [ 7; 9; 10 ])
      yield! each 2 "one id, no DF" [ v4[0] ] [ 1; 1; 1 ] (numbered 0 [ 7; 7; 7 ])
      yield! each 27 "one id, no DF" [ v4[1] ] [ 1; 1; 1 ] (numbered 0 [ 7; 7; 7 ]) ]

let private network =
    [ yield! each 3 "DF in one" v4 [ 1; 1; 1 ] (fragment 0 >> train 3 >> at [ 1 ] (fragment DontFragment))
      yield! each 3 "no DF in one" v4 [ 1; 1; 1 ] (train 3 >> at [ 1 ] (fragment 0))
      yield! second 3 "other TTL" (v4 @ v6) (fun p -> { p with HopLimit = 63 })
      for bit in 0..7 do
          yield! second 3 $"traffic class bit {bit}" tcp (fun p -> { p with TrafficClass = 1 <<< bit })
      yield! second 3 "traffic class" udp (fun p -> { p with TrafficClass = 0x02 })
      for bit in [ 16; 19 ] do
          yield! second 3 $"flow label bit {bit}" v6 (fun p -> { p with FlowLabel = 1 <<< bit })
      yield! shared 4 "options" v4 apart options
      yield! second 4 "options" v4 options
      yield! each 4 "options in the middle" v4 [ 2; 1; 2 ] (train 5 >> at [ 2 ] options)
      yield! second 4 "MF" v4 (fragment 0x2000)
      yield! second 4 "fragment offset" v4 (fragment 0x0010)
      yield! shared 4 "the reserved flag" v4 apart (fragment 0xC000)
      for name, kind in [ "hop-by-hop", 0uy; "destination", 60uy ] do
          let extended (p: Packet) = { p with Extension = Some kind }
          yield! shared 4 $"{name} options" v6 apart extended
          yield! second 4 $"{name} options" v6 extended ]

let private transportHeaders =
    [ for name, template, change in
          [ "other acknowledgement", id, (fun (p: Packet) -> { p with Acknowledgement = 0x01020305u })
            "other window", id, (fun p -> { p with Window = 0xFEDD })
            "other timestamps", timestamps 1uy, timestamps 2uy
            "other data offset", id, (fun p -> { p with TcpOptions = hex "01010101" }) ] do
          yield! each 5 $"{name} in one" tcp [ 1; 1; 2 ] (template >> train 4 >> at [ 1 ] change)
          yield! each 5 $"{name} from then on" tcp [ 2; 2 ] (template >> train 4 >> at [ 2; 3 ] change)
      yield! shared 5 "timestamps" tcp together (timestamps 1uy)
      for bits in [ 0x200; 0x400; 0x800; 0xE00 ] do
          yield! shared 6 $"reserved bits {bits:x}" [ tcp[0] ] together (flags (ack ||| bits))
          yield! second 6 $"reserved bits {bits:x}" [ tcp[0] ] (flags (ack ||| bits))
      yield! shared 6 "AE" tcp together (flags (ack ||| ae))
      yield! second 6 "AE" tcp (flags (ack ||| ae))
      yield! second 7 "urgent pointer, no URG" tcp (fun p -> { p with Urgent = 5 })
      yield!
          each 7 "urgent pointer in one, no URG; one id, no DF" [ tcp[0] ] apart (fun template ->
              train 4 template
              |> List.map (fun p ->
                  { p with
                      Fragment = 0
                      Identification = 7 })
              |> at [ 1 ] (fun p -> { p with Urgent = 5 })) ]

let private flagRules =
    [ yield! each 8 "PSH on the second" tcp [ 2; 2 ] (train 4 >> at [ 1 ] (flags (ack ||| psh)))
      yield! each 8 "PSH on the last" tcp [ 4 ] (train 4 >> at [ 3 ] (flags (ack ||| psh)))
      yield! each 9 "PSH on the first" tcp [ 1; 3 ] (train 4 >> at [ 0 ] (flags (ack ||| psh)))
      yield! shared 9 "PSH" tcp apart (flags (ack ||| psh))
      yield! each 10 "FIN and data last" tcp [ 4 ] (train 4 >> at [ 3 ] (flags (ack ||| fin)))
      yield! each 10 "FIN, PSH and data last" tcp [ 4 ] (train 4 >> at [ 3 ] (flags (ack ||| fin ||| psh)))
      yield! each 10 "FIN and data in the middle" tcp [ 2; 2 ] (train 4 >> at [ 1 ] (flags (ack ||| fin)))
      yield!
          each 10 "FIN without data" tcp [ 2; 1 ] (fun template ->
              inOrder template [ 100; 100; 0 ] |> at [ 2 ] (flags (ack ||| fin)))
      for name, bits in [ "SYN", syn ||| ack; "RST", rst ||| ack; "URG", urg ||| ack ] do
          yield! second 11 name tcp (flags bits)
          yield! shared 11 name [ tcp[0] ] apart (flags bits)
      yield! second 11 "no ACK" [ tcp[0] ] (flags 0)
      yield! shared 11 "no ACK" [ tcp[0] ] apart (flags 0)
      yield! shared 12 "ECE" tcp together (flags (ack ||| ece))
      yield! second 12 "ECE" tcp (flags (ack ||| ece))
      yield! each 13 "CWR on the first" tcp [ 1; 3 ] (train 4 >> at [ 0 ] (flags (ack ||| cwr)))
      yield! second 13 "CWR" tcp (flags (ack ||| cwr)) // RFC 3168 §6.1.2
      yield! shared 13 "CWR" tcp apart (flags (ack ||| cwr))
      yield! lengths 14 "pure ACK among data" tcp [ 2; 1; 2 ] [ 100; 100; 0; 100; 100 ]
      yield!
          each 14 "pure ACK of something newer among data" tcp [ 2; 1; 2 ] (fun template ->
              inOrder template [ 100; 100; 0; 100; 100 ]
              |> at [ 2; 3; 4 ] (fun p -> { p with Acknowledgement = 0x01020399u }))
      yield! lengths 14 "pure ACKs" tcp [ 1; 1; 1 ] [ 0; 0; 0 ] ]

/// A packet and those after it, moved by some bytes in the stream.
let private shifted (place: int) (bytes: int) =
    List.mapi (fun index packet ->
        if index >= place then
            { packet with
                Sequence = packet.Sequence + uint32 bytes }
        else
            packet)

let private stream =
    [ yield! lengths 15 "short segment in the middle" tcp [ 3; 2 ] [ 100; 100; 60; 100; 100 ]
      yield! lengths 15 "short segment last" tcp [ 3 ] [ 100; 100; 60 ]
      yield! lengths 15 "short segments" tcp [ 2; 2 ] [ 100; 60; 60; 60 ]
      yield! lengths 15 "segment one byte shorter" tcp [ 2; 1 ] [ 100; 99; 100 ]
      yield! lengths 16 "larger segments" tcp [ 2; 2 ] [ 100; 100; 160; 160 ]
      yield! lengths 16 "segment one byte larger" tcp [ 2; 1 ] [ 100; 100; 101 ]
      for name, bytes in
          [ "gap", 100; "gap of one byte", 1; "overlap", -50; "overlap of one byte", -1; "behind", -1000 ] do
          yield! each 17 $"{name} after the first" tcp [ 1; 3 ] (train 4 >> shifted 1 bytes)
          yield! each 17 name tcp [ 2; 2 ] (train 4 >> shifted 2 bytes)
      yield! each 17 "one repeated" tcp [ 2; 3 ] (train 4 >> fun packets -> packets[..1] @ packets[1..])
      yield! each 17 "all repeated" tcp [ 2; 2 ] (fun template -> train 2 template @ train 2 template)
      yield! each 17 "the other way round" tcp apart (train 4 >> List.rev)
      yield!
          each
              17
              "the last two the other way round"
              tcp
              [ 1; 1; 1 ]
              (train 3 >> List.permute (fun place -> (3 - place) % 3))
      for bytes in [ 150u; 200u ] do
          yield!
              each 18 $"sequence numbers wrap after {bytes} bytes" tcp [ 4 ] (fun p ->
                  train 4 { p with Sequence = 0u - bytes })
      yield! second 19 "bytes after the IP length" (v4 @ v6) (trailing 6 false)
      yield! second 19 "a byte after the IP length, summed," (v4 @ v6) (trailing 1 true)
      yield!
          each 19 "a byte after the IP length of the last" (v4 @ v6) [ 3; 1 ] (train 4 >> at [ 3 ] (trailing 1 false))
      yield!
          each 19 "a byte after each, summed, fills the gap" tcp apart (fun template ->
              train 4 template |> List.map (fun p -> trailing 1 true { p with Payload = p.Payload[..98] }))
      yield! second 19 "UDP length too short" udp (fun p -> { p with SpoilLength = -1 })
      yield! second 19 "UDP length too long" udp (fun p -> { p with SpoilLength = 1 })
      for place, sizes in List.indexed [ [ 1; 3 ]; [ 1; 1; 2 ]; [ 2; 1; 1 ]; [ 3; 1 ] ] do
          yield! each 20 $"wrong checksum in packet {place}" (v4 @ v6) sizes (train 4 >> at [ place ] wrongChecksum)
      yield! second 20 "wrong IP header checksum" v4 (fun p -> { p with SpoilHeader = 0x0101 })
      yield! each 29 "wrong checksum in the middle" tcp [ 2; 1; 2 ] (train 5 >> at [ 2 ] wrongChecksum) ]

let private limits =
    [ yield! lengths 1 "in order" (v4 @ v6) [ 5 ] (List.replicate 5 1400)
      yield! lengths 21 "as many as fit" (v4 @ v6) [ 46; 4 ] (List.replicate 50 1400)
      yield! lengths 21 "65535 bytes" [ tcp[0] ] [ 5 ] (List.replicate 5 13099)
      yield! lengths 21 "65536 bytes" [ tcp[0] ] [ 7; 1 ] (List.replicate 8 8187)
      yield!
          each 21 "65539 bytes with options" [ tcp[0] ] [ 4; 1 ] (fun template ->
              inOrder
                  { template with
                      TcpOptions = hex "01010101" }
                  (List.replicate 5 13099))
      yield! lengths 21 "65535 bytes" [ tcp[1] ] [ 5 ] (List.replicate 5 13095)
      yield! lengths 21 "65536 bytes" [ tcp[1] ] [ 3; 1 ] (List.replicate 4 16369)
      yield! lengths 21 "65535 bytes" [ udp[0] ] [ 10 ] (List.replicate 9 7278 @ [ 5 ])
      yield! lengths 21 "65536 bytes" [ udp[0] ] [ 9; 1 ] (List.replicate 9 7278 @ [ 6 ])
      for length in [ 1; 100 ] do
          yield! lengths 22 $"70 segments of {length}" tcp [ 70 ] (List.replicate 70 length)
      for sizes, length in [ [ 64 ], 40; [ 64; 1 ], 40; [ 64; 6 ], 100; [ 64; 64; 2 ], 8 ] do
          yield! lengths 22 $"{List.sum sizes} datagrams" udp sizes (List.replicate (List.sum sizes) length) ]

/// A datagram whose checksum would be zero, if it were not left out.
let private zeroSum (template: Packet) =
    let packet =
        { template with
            Payload = [| 0uy; 0uy; 1uy |] }

    let checksum = word (bytesOf packet) 26

    noChecksum
        { packet with
            Payload = Array.append (ByteSum.word checksum) [| 1uy |] }

let private datagrams =
    [ yield! lengths 23 "equal" udp [ 4 ] [ 100; 100; 100; 100 ]
      yield! lengths 23 "short one last" udp [ 3 ] [ 100; 100; 60 ]
      yield! lengths 23 "short one in the middle" udp [ 3; 2 ] [ 100; 100; 60; 100; 100 ]
      yield! lengths 23 "one of one byte in the middle" udp [ 2; 1 ] [ 100; 1; 100 ]
      yield! lengths 23 "larger ones" udp [ 1; 3 ] [ 100; 160; 160; 100 ]
      yield! lengths 23 "one a byte larger" udp [ 1; 2 ] [ 100; 101; 100 ]
      yield! shared 24 "no checksum" [ udp[0] ] apart noChecksum
      yield! second 24 "no checksum" udp noChecksum
      yield! each 24 "no checksum, where zero would be right" [ udp[0] ] [ 1; 1; 1 ] (zeroSum >> List.replicate 3)
      yield! lengths 25 "no payload in one" udp [ 2; 1; 2 ] [ 100; 100; 0; 100; 100 ]
      yield! lengths 25 "no payload in all" udp [ 1; 1; 1 ] [ 0; 0; 0 ]
      yield! each 26 "one with options among others" [ udp[0] ] [ 2; 1; 1 ] (train 4 >> at [ 2 ] options)
      yield! each 26 "one without checksum among others" udp [ 2; 1; 2 ] (train 5 >> at [ 2 ] noChecksum)
      yield! each 26 "one with a wrong checksum among others" udp [ 3; 1; 3 ] (train 7 >> at [ 3 ] wrongChecksum) ]

let private flows =
    let evens, odds = [ 0; 2; 4; 6 ], [ 1; 3; 5; 7 ]
    let pushed, fragmented = at [ 1 ] (flags (ack ||| psh)), at [ 1 ] (fragment 0x2000)
    let from port (template: Packet) = { template with SourcePort = port }

    // Without a pattern: consecutive ones would spread over the slots too evenly to meet.
    let ports =
        System.Random(1).GetItems([| 0..40000 |], 400) |> Array.distinct |> Array.truncate 120

    [ for name, kind, groups, flows in
          [ "two ports in turn", "TCP/IPv4", [ evens; odds ], [ train 4 tcp4; train 4 (from 9 tcp4) ]
            "two ports in turn", "UDP/IPv6", [ evens; odds ], [ train 4 udp6; train 4 (from 9 udp6) ]
            "two hosts in turn",
            "TCP/IPv4",
            [ evens; odds ],
            [ train 4 tcp4; train 4 { tcp4 with Source = hex "0a010002" } ]
            "two protocols in turn", "IPv4", [ [ 0; 2 ]; [ 1; 3 ] ], [ train 2 tcp4; train 2 udp4 ]
            "two protocols in turn, same ports",
            "IPv4",
            [ evens; odds ],
            [ train 4 tcp4; train 4 (from tcp4.SourcePort udp4) ]
            "four kinds in turn",
            "all",
            [ for flow in 0..3 -> [ flow..4..15 ] ],
            List.map (train 4) [ tcp4; tcp6; udp4; udp6 ]
            "another flow's PSH and gap",
            "TCP",
            [ evens; [ 1; 3 ]; [ 5 ]; [ 7 ] ],
            [ train 4 tcp4; train 4 tcp6 |> pushed |> shifted 3 7 ]
            "another flow's fragment",
            "IPv4",
            [ [ 0; 2 ]; [ 1 ]; [ 3 ]; [ 4; 6 ]; [ 5; 7 ] ],
            [ train 4 tcp4; train 4 udp4 |> fragmented ]
            "another source's fragment",
            "IPv4",
            [ [ 0; 2; 4; 6 ]; [ 1 ]; [ 3 ]; [ 5; 7 ] ],
            [ train 4 tcp4
              train
                  4
                  { udp4 with
                      Source = [| 10uy; 1uy; 0uy; 77uy |] }
              |> fragmented ]
            "120 flows of two hosts",
            "TCP/IPv4",
            [ for flow in 0..119 -> [ flow..120..359 ] ],
            [ for port in ports -> train 3 (from port tcp4) ] ] do
          case 28 name kind groups (flows |> List.transpose |> List.concat) ]

let all: Case list =
    List.concat [ identifications; network; transportHeaders; flagRules; stream; limits; datagrams; flows ]
    |> List.sortBy _.Rule

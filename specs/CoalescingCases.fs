/// Batches in which one thing decides whether packets may travel together, by rule.
module Lightway.Specs.CoalescingCases

open Lightway.Specs.Generators
open Lightway.Specs.Flows

type Case =
    {
        /// Number of the rule, 1 to 28.
        Rule: int
        Name: string
        /// Protocol and IP version.
        Kind: string
        Packets: Packet list
    }

let private tcp4 = plain
let private tcp6 = { plain with IsV6 = true; Flow = 1 }
let private udp4 = { plain with IsUdp = true; Flow = 2 }
let private udp6 = { udp4 with IsV6 = true; Flow = 3 }

/// TCP flags (RFC 9293 §3.1, RFC 3168 §6.1, RFC 9768 §3.1).
let private fin, syn, rst, psh, ack, urg, ece, cwr, ae =
    0x001, 0x002, 0x004, 0x008, 0x010, 0x020, 0x040, 0x080, 0x100

/// 12 bytes: two NOPs and the timestamps option (RFC 7323 §3.2).
let private timestamps (value: byte) =
    hex "0101 080a 00000000 00000007" |> Array.mapi (fun at octet -> if at = 7 then value else octet)

/// Changes the packets at some places.
let private at (places: int list) (change: Packet -> Packet) (packets: Packet list) : Packet list =
    packets
    |> List.mapi (fun place packet -> if List.contains place places then change packet else packet)

let private flags value packet = { packet with Flags = value }
let private spoilt how packet = { packet with Spoilt = how }

/// A packet and those after it, moved by so many bytes of the stream.
let private shifted (place: int) (bytes: int) =
    List.mapi (fun index packet ->
        if index >= place then
            { packet with
                Sequence = packet.Sequence + uint32 bytes }
        else
            packet)

/// Four packets of 100 bytes.
let private four template = inOrder template [ 100; 100; 100; 100 ]

/// Packets of flows taken in turn.
let private interleaved (flows: Packet list list) : Packet list = flows |> List.transpose |> List.concat

let private case (rule: int) (name: string) (kind: string) (packets: Packet list) : Case =
    { Rule = rule
      Name = name
      Kind = kind
      Packets = packets }

/// The same for each kind of flow.
let private each (rule: int) (name: string) (templates: (string * Packet) list) (make: Packet -> Packet list) =
    [ for kind, template in templates -> case rule name kind (make template) ]

let private tcp = [ "TCP/IPv4", tcp4; "TCP/IPv6", tcp6 ]
let private udp = [ "UDP/IPv4", udp4; "UDP/IPv6", udp6 ]
let private v4 = [ "TCP/IPv4", tcp4; "UDP/IPv4", udp4 ]
let private v6 = [ "TCP/IPv6", tcp6; "UDP/IPv6", udp6 ]

let private identifications =
    let numbered (fragment: int) (ids: int list) (template: Packet) =
        inOrder { template with Fragment = fragment } (List.replicate ids.Length 100)
        |> List.map2 (fun id packet -> { packet with Identification = id }) ids

    [ yield! each 2 "ids count up, DF" v4 (numbered DontFragment [ 7; 8; 9 ])
      yield! each 2 "ids count up, no DF" v4 (numbered 0 [ 7; 8; 9 ])
      yield! each 2 "ids count up past ffff, no DF" v4 (numbered 0 [ 0xFFFE; 0xFFFF; 0; 1 ])
      yield! each 2 "one id, DF" v4 (numbered DontFragment [ 7; 7; 7 ])
      yield! each 2 "random ids, DF" v4 (numbered DontFragment [ 7; 99; 23 ])
      yield! each 2 "ids leave one out, no DF" v4 (numbered 0 [ 7; 9; 10 ])
      case 2 "one id, no DF" "TCP/IPv4" (numbered 0 [ 7; 7; 7 ] tcp4)
      case 27 "one id, no DF" "UDP/IPv4" (numbered 0 [ 7; 7; 7 ] udp4) ]

let private network =
    [ yield!
          each 3 "DF differs" v4 (fun template ->
              inOrder { template with Fragment = 0 } [ 100; 100; 100 ]
              |> at [ 1 ] (fun packet -> { packet with Fragment = DontFragment }))
      yield! each 3 "TTL differs" (v4 @ v6) (four >> at [ 1 ] (fun packet -> { packet with HopLimit = 63 }))
      for bit in 0..7 do
          yield!
              each 3 $"traffic class bit {bit} differs" [ tcp[0]; tcp[1] ] (fun template ->
                  four template |> at [ 1 ] (fun packet -> { packet with TrafficClass = 1 <<< bit }))
      yield! each 3 "traffic class differs" udp (four >> at [ 1 ] (fun packet -> { packet with TrafficClass = 0x02 }))
      yield! each 3 "flow label differs" v6 (four >> at [ 1 ] (fun packet -> { packet with FlowLabel = 0x10000 }))
      yield!
          each
              4
              "options in all"
              v4
              (four
               >> at [ 0; 1; 2; 3 ] (fun packet ->
                   { packet with
                       IpOptions = hex "01010101" }))
      yield!
          each
              4
              "options in one"
              v4
              (four
               >> at [ 1 ] (fun packet ->
                   { packet with
                       IpOptions = hex "01010101" }))
      yield! each 4 "MF in one" v4 (four >> at [ 1 ] (fun packet -> { packet with Fragment = 0x2000 }))
      yield! each 4 "fragment offset in one" v4 (four >> at [ 1 ] (fun packet -> { packet with Fragment = 0x0010 }))
      yield!
          each
              4
              "the reserved flag in all"
              v4
              (four >> at [ 0; 1; 2; 3 ] (fun packet -> { packet with Fragment = 0xC000 }))
      for name, kind in [ "hop-by-hop", 0uy; "destination", 60uy ] do
          let extended packet =
              { packet with
                  Extension = Some(kind, hex "00 010400000000") } // PadN, RFC 8200 §4.2

          yield! each 4 $"{name} options in all" v6 (four >> at [ 0; 1; 2; 3 ] extended)
          yield! each 4 $"{name} options in one" v6 (four >> at [ 1 ] extended) ]

let private transportHeaders =
    [ yield!
          each
              5
              "acknowledgement differs"
              tcp
              (four
               >> at [ 2; 3 ] (fun packet ->
                   { packet with
                       Acknowledgement = 0x01020305u }))
      yield! each 5 "window differs" tcp (four >> at [ 2; 3 ] (fun packet -> { packet with Window = 0xFEDD }))
      yield!
          each 5 "timestamps agree" tcp (fun template ->
              four
                  { template with
                      TcpOptions = timestamps 1uy })
      yield!
          each 5 "timestamps differ" tcp (fun template ->
              four
                  { template with
                      TcpOptions = timestamps 1uy }
              |> at [ 2; 3 ] (fun packet ->
                  { packet with
                      TcpOptions = timestamps 2uy }))
      yield!
          each
              5
              "data offset differs"
              tcp
              (four
               >> at [ 2; 3 ] (fun packet ->
                   { packet with
                       TcpOptions = hex "01010101" }))
      for bit in [ 0x200; 0x400; 0x800 ] do
          case 6 $"reserved bit {bit:x} in all" "TCP/IPv4" (four tcp4 |> at [ 0; 1; 2; 3 ] (flags (ack ||| bit)))
          case 6 $"reserved bit {bit:x} in one" "TCP/IPv4" (four tcp4 |> at [ 1 ] (flags (ack ||| bit)))
      yield! each 6 "AE in all" tcp (four >> at [ 0; 1; 2; 3 ] (flags (ack ||| ae)))
      yield! each 6 "AE in one" tcp (four >> at [ 1 ] (flags (ack ||| ae)))
      yield! each 7 "urgent pointer differs, no URG" tcp (four >> at [ 1 ] (fun packet -> { packet with Urgent = 5 }))
      case
          7
          "urgent pointer differs, no URG; one id, no DF"
          "TCP/IPv4"
          (four { tcp4 with Fragment = 0 }
           |> List.map (fun packet -> { packet with Identification = 7 })
           |> at [ 1 ] (fun packet -> { packet with Urgent = 5 })) ]

let private flagRules =
    [ yield! each 8 "PSH on the second" tcp (four >> at [ 1 ] (flags (ack ||| psh)))
      yield! each 8 "PSH on the last" tcp (four >> at [ 3 ] (flags (ack ||| psh)))
      yield! each 9 "PSH on the first" tcp (four >> at [ 0 ] (flags (ack ||| psh)))
      yield! each 9 "PSH on all" tcp (four >> at [ 0; 1; 2; 3 ] (flags (ack ||| psh)))
      yield! each 10 "FIN and data last" tcp (four >> at [ 3 ] (flags (ack ||| fin)))
      yield! each 10 "FIN, PSH and data last" tcp (four >> at [ 3 ] (flags (ack ||| fin ||| psh)))
      yield! each 10 "FIN and data in the middle" tcp (four >> at [ 1 ] (flags (ack ||| fin)))
      yield!
          each 10 "FIN without data" tcp (fun template ->
              inOrder template [ 100; 100; 0 ] |> at [ 2 ] (flags (ack ||| fin)))
      for name, bits in [ "SYN", syn ||| ack; "RST", rst ||| ack; "URG", urg ||| ack ] do
          yield! each 11 $"{name} in one" tcp (four >> at [ 1 ] (flags bits))
          case 11 $"{name} in all" "TCP/IPv4" (four tcp4 |> at [ 0; 1; 2; 3 ] (flags bits))
      case 11 "no ACK in one" "TCP/IPv4" (four tcp4 |> at [ 1 ] (flags 0))
      case 11 "no ACK in all" "TCP/IPv4" (four tcp4 |> at [ 0; 1; 2; 3 ] (flags 0))
      yield! each 12 "ECE in all" tcp (four >> at [ 0; 1; 2; 3 ] (flags (ack ||| ece)))
      yield! each 12 "ECE in one" tcp (four >> at [ 1 ] (flags (ack ||| ece)))
      yield! each 13 "CWR on the first" tcp (four >> at [ 0 ] (flags (ack ||| cwr)))
      yield! each 13 "CWR on the second" tcp (four >> at [ 1 ] (flags (ack ||| cwr)))
      yield! each 13 "CWR on all" tcp (four >> at [ 0; 1; 2; 3 ] (flags (ack ||| cwr)))
      yield! each 14 "pure ACK among data" tcp (fun template -> inOrder template [ 100; 100; 0; 100; 100 ])
      yield!
          each 14 "pure ACK of something newer among data" tcp (fun template ->
              inOrder template [ 100; 100; 0; 100; 100 ]
              |> at [ 2; 3; 4 ] (fun packet ->
                  { packet with
                      Acknowledgement = 0x01020399u }))
      yield! each 14 "pure ACKs" tcp (fun template -> inOrder template [ 0; 0; 0 ]) ]

let private stream =
    [ yield! each 15 "short segment in the middle" tcp (fun template -> inOrder template [ 100; 100; 60; 100; 100 ])
      yield! each 15 "short segment last" tcp (fun template -> inOrder template [ 100; 100; 60 ])
      yield! each 15 "short segments" tcp (fun template -> inOrder template [ 100; 60; 60; 60 ])
      yield! each 16 "larger segment" tcp (fun template -> inOrder template [ 100; 100; 160; 160 ])
      yield! each 17 "gap" tcp (four >> shifted 2 100)
      yield! each 17 "gap of one byte" tcp (four >> shifted 2 1)
      yield! each 17 "overlap" tcp (four >> shifted 2 -50)
      yield! each 17 "behind" tcp (four >> shifted 2 -1000)
      yield! each 17 "repeated" tcp (four >> fun packets -> packets[..1] @ packets[1..])
      yield! each 17 "the other way round" tcp (four >> List.rev)
      yield! each 18 "sequence numbers wrap" tcp (fun template -> four { template with Sequence = 0xFFFFFF38u })
      yield!
          each 19 "bytes after the IP length" (v4 @ v6) (four >> at [ 1 ] (fun packet -> { packet with Trailing = 6 }))
      yield!
          each
              19
              "a byte after the IP length of the last"
              (v4 @ v6)
              (four >> at [ 3 ] (fun packet -> { packet with Trailing = 1 }))
      yield! each 19 "UDP length too short" udp (four >> at [ 1 ] (spoilt ShortLength))
      for place in 0..3 do
          yield! each 20 $"wrong checksum in packet {place}" (v4 @ v6) (four >> at [ place ] (spoilt TransportChecksum))
      yield! each 20 "wrong IP header checksum" v4 (four >> at [ 1 ] (spoilt NetworkChecksum)) ]

let private limits =
    [ yield! each 1 "in order" (v4 @ v6) (fun template -> inOrder template (List.replicate 5 1400))
      yield! each 21 "as many as fit" tcp (fun template -> inOrder template (List.replicate 50 1400))
      yield! each 21 "as many as fit" udp (fun template -> inOrder template (List.replicate 50 1400))
      case 21 "65535 bytes" "TCP/IPv4" (inOrder tcp4 (List.replicate 5 13099))
      case 21 "65536 bytes" "TCP/IPv4" (inOrder tcp4 (List.replicate 8 8187))
      case 21 "65535 bytes" "TCP/IPv6" (inOrder tcp6 (List.replicate 5 13095))
      case 21 "65536 bytes" "TCP/IPv6" (inOrder tcp6 (List.replicate 4 16369))
      case 21 "65535 bytes" "UDP/IPv4" (inOrder udp4 (List.replicate 9 7278 @ [ 5 ]))
      case 21 "65536 bytes" "UDP/IPv4" (inOrder udp4 (List.replicate 9 7278 @ [ 6 ]))
      yield! each 22 "70 segments of one byte" tcp (fun template -> inOrder template (List.replicate 70 1))
      yield! each 22 "64 datagrams" udp (fun template -> inOrder template (List.replicate 64 40))
      yield! each 22 "65 datagrams" udp (fun template -> inOrder template (List.replicate 65 40))
      yield! each 22 "130 datagrams" udp (fun template -> inOrder template (List.replicate 130 8)) ]

let private datagrams =
    [ yield! each 23 "equal" udp four
      yield! each 23 "short one last" udp (fun template -> inOrder template [ 100; 100; 60 ])
      yield! each 23 "short one in the middle" udp (fun template -> inOrder template [ 100; 100; 60; 100; 100 ])
      yield! each 23 "larger one" udp (fun template -> inOrder template [ 100; 160; 160; 100 ])
      case 24 "no checksum in all" "UDP/IPv4" (four udp4 |> at [ 0; 1; 2; 3 ] (spoilt NoChecksum))
      yield! each 24 "no checksum in one" udp (four >> at [ 1 ] (spoilt NoChecksum))
      yield! each 25 "no payload in one" udp (fun template -> inOrder template [ 100; 100; 0; 100; 100 ])
      yield! each 25 "no payload in all" udp (fun template -> inOrder template [ 0; 0; 0 ])
      yield!
          each
              26
              "one with options among others"
              [ udp[0] ]
              (four
               >> at [ 2 ] (fun packet ->
                   { packet with
                       IpOptions = hex "01010101" }))
      yield!
          each 26 "one with a wrong checksum among others" udp (fun template ->
              inOrder template (List.replicate 7 100) |> at [ 3 ] (spoilt TransportChecksum)) ]

let private flows =
    [ case 28 "two flows in turn" "TCP/IPv4" (interleaved [ four tcp4; four { tcp4 with Flow = 9 } ])
      case 28 "two flows in turn" "UDP/IPv6" (interleaved [ four udp6; four { udp6 with Flow = 9 } ])
      case 28 "four kinds in turn" "all" (interleaved [ four tcp4; four tcp6; four udp4; four udp6 ])
      case
          28
          "TCP and UDP with the same ports"
          "TCP, UDP/IPv4"
          (interleaved [ four tcp4; four { udp4 with Flow = tcp4.Flow } ])
      case
          28
          "another flow's PSH and gap"
          "TCP"
          (interleaved [ four tcp4; four tcp6 |> at [ 1 ] (flags (ack ||| psh)) |> shifted 3 7 ])
      case
          28
          "another flow's fragment"
          "TCP, UDP/IPv4"
          (interleaved [ four tcp4; four udp4 |> at [ 1 ] (fun packet -> { packet with Fragment = 0x2000 }) ]) ]

let all: Case list =
    List.concat [ identifications; network; transportHeaders; flagRules; stream; limits; datagrams; flows ]
    |> List.sortBy _.Rule

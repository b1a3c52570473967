/// A read that is not a superpacket, or one that must not be cut, is refused with its own reason; nothing raises.
module Lightway.Specs.Refusals

open System
open Expecto
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Superpackets

let private refusal (vnet: VirtioNetHeader) (packet: byte[]) =
    match Cut.plan 1500 vnet (place 0 packet) with
    | Ok _ -> DropReason.None
    | Error reason -> reason

/// A refusal each: the name, the expected reason, and how a good superpacket is spoilt.
let private refusals: (string * DropReason * Shape * (Superpacket -> VirtioNetHeader * byte[])) list =
    let v6 = { plainShape with IsV6 = true }
    let udp = { plainShape with IsUdp = true }
    let vnet change (good: Superpacket) = change good.Vnet, good.Packet

    let bytes (changes: (int * byte) list) (good: Superpacket) =
        for at, value in changes do
            good.Packet[at] <- value

        good.Vnet, good.Packet

    let kept length (good: Superpacket) = good.Vnet, good.Packet[.. length - 1]

    [ "no bytes", DropReason.Empty, plainShape, kept 0
      "IP version 5", DropReason.UnsupportedIpVersion, plainShape, bytes [ 0, 0x55uy ]
      "19 bytes of IPv4", DropReason.Ipv4Header, plainShape, kept 19
      "IHL beyond the packet",
      DropReason.Ipv4Header,
      plainShape,
      (fun good -> bytes [ 0, 0x4Fuy ] good |> fun (v, p) -> v, p[..39])
      "IPv4 total length inside the header", DropReason.Ipv4Header, plainShape, bytes [ 2, 0uy; 3, 19uy ]
      "IPv4 total length 0, a BIG TCP packet", DropReason.Ipv4Header, plainShape, bytes [ 2, 0uy; 3, 0uy ]
      "IHL 4", DropReason.BadIpv4Ihl, plainShape, bytes [ 0, 0x44uy ]
      "IHL 0", DropReason.BadIpv4Ihl, plainShape, bytes [ 0, 0x40uy ]
      "39 bytes of IPv6", DropReason.Ipv6Header, v6, kept 39
      "an IPv4 packet cut short", DropReason.Truncated, plainShape, kept 289
      "an IPv6 packet cut short", DropReason.Truncated, v6, kept 309
      "MF set", DropReason.Fragment, plainShape, bytes [ 6, 0x20uy ]
      "a fragment offset", DropReason.Fragment, plainShape, bytes [ 7, 1uy ]
      "an IPv6 fragment header", DropReason.Fragment, v6, bytes [ 6, IpProtocol.Fragment ]
      "a fragment header behind destination options",
      DropReason.Fragment,
      { v6 with
          Extensions = [ IpProtocol.DestinationOptions, 0uy ] },
      bytes [ 40, IpProtocol.Fragment ]
      "an IPv6 extension header beyond the packet",
      DropReason.Ipv6Extension,
      { v6 with
          Extensions = [ IpProtocol.HopByHop, 0uy ] },
      bytes [ 41, 255uy ]
      "hop-by-hop options to the end of the packet",
      DropReason.Ipv6Extension,
      v6,
      (fun good -> bytes [ 4, 0uy; 5, 1uy; 6, 0uy ] good |> fun (v, p) -> v, p[..40])
      "ICMP", DropReason.UnsupportedTransport, plainShape, bytes [ 9, 1uy ]
      "an authentication header", DropReason.UnsupportedTransport, v6, bytes [ 6, 51uy ]
      "no room for TCP", DropReason.TcpHeader, plainShape, bytes [ 2, 0uy; 3, 39uy ]
      "TCP options beyond the packet", DropReason.TcpHeader, { plainShape with PayloadLength = 1 }, bytes [ 32, 0xF0uy ]
      "TCP data offset 4", DropReason.BadTcpDataOffset, plainShape, bytes [ 32, 0x40uy ]
      "no room for UDP", DropReason.UdpHeader, udp, bytes [ 2, 0uy; 3, 27uy ]
      "600 bytes of IPv6 extension headers",
      DropReason.HeaderTooLong,
      { v6 with
          Extensions = List.replicate 2 (IpProtocol.DestinationOptions, 36uy) },
      vnet id
      "gso_type NONE", DropReason.NotSuperpacket, plainShape, vnet (fun v -> { v with GsoType = 0uy })
      "gso_type NONE with ECN", DropReason.NotSuperpacket, plainShape, vnet (fun v -> { v with GsoType = 0x80uy })
      "gso_type UDP, the legacy UFO", DropReason.LegacyUfo, udp, vnet (fun v -> { v with GsoType = 3uy })
      "gso_type 2", DropReason.UnknownGsoType, plainShape, vnet (fun v -> { v with GsoType = 2uy })
      "gso_type with a tunnel bit", DropReason.UnknownGsoType, plainShape, vnet (fun v -> { v with GsoType = 0x21uy })
      "TCPV6 on IPv4", DropReason.GsoTypeMismatch, plainShape, vnet (fun v -> { v with GsoType = 4uy })
      "TCPV4 on IPv6", DropReason.GsoTypeMismatch, v6, vnet (fun v -> { v with GsoType = 1uy })
      "TCPV4 on UDP", DropReason.GsoTypeMismatch, udp, vnet (fun v -> { v with GsoType = 1uy })
      "UDP_L4 on TCP", DropReason.GsoTypeMismatch, plainShape, vnet (fun v -> { v with GsoType = 5uy })
      "no NEEDS_CSUM", DropReason.ChecksumNotPartial, plainShape, vnet (fun v -> { v with Flags = 2uy })
      "csum_start off by one", DropReason.BadCsumStart, plainShape, vnet (fun v -> { v with CsumStart = 21us })
      "csum_offset of the other protocol",
      DropReason.BadCsumOffset,
      plainShape,
      vnet (fun v -> { v with CsumOffset = 6us })
      "gso_size 0", DropReason.ZeroGsoSize, plainShape, vnet (fun v -> { v with GsoSize = 0us })
      "header 40, gso_size 1461, MTU 1500",
      DropReason.OversizedSegment,
      plainShape,
      vnet (fun v -> { v with GsoSize = 1461us })
      "gso_size 65535", DropReason.OversizedSegment, plainShape, vnet (fun v -> { v with GsoSize = 65535us })
      "headers only", DropReason.NoPayload, { plainShape with PayloadLength = 0 }, vnet id
      "UDP headers only", DropReason.NoPayload, { udp with PayloadLength = 0 }, vnet id ]

let private refused =
    [ for name, expected, shape, spoil in refusals do
          testCase $"refused: {name}"
          <| fun () ->
              let vnet, packet = spoil (build shape)
              Expect.equal (refusal vnet packet) expected "reason"

      testCase "each refusal above, but for a short read, is the only way to its counter; no two share one"
      <| fun () ->
          let reasons = Enum.GetValues<DropReason>()
          Expect.equal (reasons |> Array.map int) [| 0 .. DropReason.count - 1 |] "values"
          let tested = refusals |> List.map (fun (_, reason, _, _) -> reason) |> List.distinct
          Expect.equal (List.length tested) (DropReason.count - 2) "all but None and ShortRead"
          let names = reasons |> Array.map DropReason.counterName
          Expect.equal (Array.distinct names) names "names"
          Expect.equal (DropReason.counterName DropReason.None) "" "None"
          Expect.equal (DropReason.counterName (enum DropReason.count)) "" "no reason" ]

let private totality =
    let fuzz =
        { FsCheckConfig.defaultConfig with
            maxTest = 100_000
            arbitrary = [ typeof<SeedArbitrary> ] }

    [ testPropertyWithConfig
          fuzz
          "any bytes give a plan or a named reason; every segment of a plan stays within the packet"
      <| fun (Seed seed) ->
          let vnet, packet = mutated seed

          match Cut.segments Cut.unlimited (seed % 64) vnet packet with
          | Error reason -> DropReason.counterName reason <> ""
          | Ok segments -> segments |> List.forall (fun s -> s.Length > 0 && s.Length <= packet.Length)

      testCase "the inputs of these laws are planned, and refused for every reason that bytes can give"
      <| fun () ->
          let outcomes =
              Seq.init 40_000 (fun seed ->
                  let vnet, packet = mutated seed
                  refusal vnet packet)
              |> Seq.countBy id
              |> Map.ofSeq

          let possible = Enum.GetValues<DropReason>() |> Array.except [ DropReason.ShortRead ]

          let missing =
              possible |> Array.filter (fun reason -> not (outcomes.ContainsKey reason))

          Expect.equal missing [||] $"reasons that no input had; {outcomes}"
          Expect.isGreaterThan outcomes[DropReason.None] 2_000 "planned"

      testPropertyWithConfig
          { fuzz with maxTest = 20_000 }
          "a million inputs, each a changed byte or two away from the one before: a plan within its packet, or a named reason"
      <| fun (Seed seed) ->
          let random = System.Random seed
          let start, packet = mutated seed
          let vnet = ref start

          let change () =
              if packet.Length > 0 then
                  packet[random.Next(min packet.Length 130)] <- byte (random.Next 256)

              if random.Next 10 = 0 then
                  vnet.Value <-
                      { vnet.Value with
                          GsoSize = uint16 (random.Next 65536) }

          let holds () =
              let mtu = if random.Next 2 = 0 then 1500 else Cut.unlimited
              let mutable header = vnet.Value
              let mutable plan = Unchecked.defaultof<SuperpacketPlan>

              match Superpacket.plan (&header, ReadOnlySpan packet, mtu, &plan) with
              | DropReason.None ->
                  plan.PacketLength <= packet.Length
                  && plan.HeaderLength + plan.GsoSize <= mtu
                  && plan.SegmentCount = Superpacket.segmentCount (plan.PacketLength - plan.HeaderLength, plan.GsoSize)
              | reason -> DropReason.counterName reason <> ""

          Seq.forall
              (fun _ ->
                  change ()
                  holds ())
              (seq { 1..50 }) ]

let laws = testList "Refusals" (refused @ totality)

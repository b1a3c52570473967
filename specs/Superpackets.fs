/// Superpackets for the laws, described by what they are made of.
module Lightway.Specs.Superpackets

open System
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Specs.Generators
open Lightway.Specs.Oracles

/// Everything that makes one superpacket; `build` gives its bytes.
type Shape =
    {
        IsV6: bool
        IsUdp: bool
        /// 32-bit words of IPv4 options, 0 to 10.
        IpOptions: int
        /// IPv6 extension headers: type and length field (8-byte units beyond the first).
        Extensions: (byte * byte) list
        /// 32-bit words of TCP options, 0 to 10.
        TcpOptions: int
        /// The low 12 bits of TCP's offset word: reserved bits, AE, CWR, ECE, URG, ACK, PSH, RST, SYN, FIN.
        Flags: int
        /// The IPv4 word of flags and fragment offset: DF or nothing.
        DontFragment: bool
        Identification: int
        Sequence: uint32
        GsoSize: int
        PayloadLength: int
        /// A hint that must not matter.
        HdrLen: int
        /// VIRTIO_NET_HDR_GSO_ECN on TCP, which must not matter either.
        EcnBit: bool
        Fill: Fill
    }

type Superpacket =
    { Known: NaiveSegmenter.Known
      Vnet: VirtioNetHeader
      Packet: byte[] }

let private ipv4 (shape: Shape) (transportLength: int) (address: byte[]) =
    let length = 20 + shape.IpOptions * 4

    let header =
        Array.concat
            [ [| byte (0x40 ||| length / 4); 0x02uy |]
              ByteSum.word (length + transportLength)
              ByteSum.word shape.Identification
              ByteSum.word (if shape.DontFragment then 0x4000 else 0)
              [| 64uy; (if shape.IsUdp then 17uy else 6uy); 0uy; 0uy |]
              address[..7]
              filled shape.Fill (shape.IpOptions * 4) ]

    (ByteSum.word (int (ByteSum.checksum header))).CopyTo(header, 10)
    header

let private ipv6 (shape: Shape) (transportLength: int) (address: byte[]) =
    let types = List.map fst shape.Extensions @ [ (if shape.IsUdp then 17uy else 6uy) ]

    let extensions =
        Array.concat
            [ for (_, units), next in List.zip shape.Extensions types.Tail do
                  Array.append [| next; units |] (filled shape.Fill (int units * 8 + 6)) ]

    Array.concat
        [ [| 0x60uy; 0x21uy; 0x23uy; 0x45uy |]
          ByteSum.word (extensions.Length + transportLength)
          [| types.Head; 64uy |]
          address
          extensions ]

let private tcp (shape: Shape) =
    Array.concat
        [ hex "1234 0050"
          ByteSum.word (int (shape.Sequence >>> 16))
          ByteSum.word (int shape.Sequence)
          hex "01020304"
          ByteSum.word ((5 + shape.TcpOptions) <<< 12 ||| shape.Flags)
          hex "fedc 0000 0007"
          filled shape.Fill (shape.TcpOptions * 4) ]

/// The superpacket as the kernel hands it over: NEEDS_CSUM, the pseudo-header's sum in the checksum field.
let build (shape: Shape) : Superpacket =
    let address = System.Random(shape.Identification).GetItems([| 1uy .. 254uy |], 32)

    let udpLength = ByteSum.word (8 + shape.PayloadLength)

    let transport =
        if shape.IsUdp then
            Array.concat [ hex "c000 01bb"; udpLength; hex "0000" ]
        else
            tcp shape

    let transportLength = transport.Length + shape.PayloadLength

    let network =
        if shape.IsV6 then
            ipv6 shape transportLength address
        else
            ipv4 shape transportLength address

    let known: NaiveSegmenter.Known =
        { IsV6 = shape.IsV6
          IsUdp = shape.IsUdp
          L4Offset = network.Length
          HeaderLength = network.Length + transport.Length
          GsoSize = shape.GsoSize }

    let packet =
        Array.concat [ network; transport; filled shape.Fill shape.PayloadLength ]

    let pseudoHeader =
        (NaiveSegmenter.covered known packet)[.. (if shape.IsV6 then 39 else 11)]

    (ByteSum.word (int (ByteSum.sum pseudoHeader))).CopyTo(packet, NaiveSegmenter.checksumAt known)

    let gsoType =
        match shape.IsUdp, shape.IsV6 with
        | true, _ -> VirtioNetHeader.GsoUdpL4
        | false, false -> VirtioNetHeader.GsoTcpV4
        | false, true -> VirtioNetHeader.GsoTcpV6

    let ecn =
        if shape.EcnBit && not shape.IsUdp then
            VirtioNetHeader.GsoEcnBit
        else
            0uy

    { Known = known
      Packet = packet
      Vnet =
        { Flags = VirtioNetHeader.NeedsCsum
          GsoType = gsoType ||| ecn
          HdrLen = uint16 shape.HdrLen
          GsoSize = uint16 shape.GsoSize
          CsumStart = uint16 network.Length
          CsumOffset = (if shape.IsUdp then 6us else 16us) } }

/// A TCP/IPv4 superpacket with nothing special: the start of many examples.
let plainShape: Shape =
    { IsV6 = false
      IsUdp = false
      IpOptions = 0
      Extensions = []
      TcpOptions = 0
      Flags = 0x010
      DontFragment = true
      Identification = 0x1234
      Sequence = 1000u
      GsoSize = 100
      PayloadLength = 250
      HdrLen = 40
      EcnBit = false
      Fill = Random 1 }

let private fill =
    Gen.frequency
        [ 8, Gen.choose (0, Int32.MaxValue - 1) |> Gen.map Random
          1, Gen.constant Zeros
          1, Gen.constant Ones ]

/// Often one of `edges`, else anything between the bounds.
let private edged (low: int, high: int) (edges: int list) =
    Gen.frequency [ 3, Gen.choose (low, high); 1, Gen.elements edges ]

let private extensions =
    gen {
        let! count = Gen.frequency [ 3, Gen.constant 0; 1, Gen.choose (1, 3) ]

        let kind =
            Gen.elements [ IpProtocol.HopByHop; IpProtocol.Routing; IpProtocol.DestinationOptions ]

        let! kinds = Gen.listOfLength count kind
        let! units = Gen.listOfLength count (Gen.choose (0, 4) |> Gen.map byte)
        return List.zip kinds units
    }

/// Any shape of at most `maxSegments` segments of at most `maxGsoSize` bytes that fits the length fields of IP.
let shapes (maxGsoSize: int) (maxSegments: int) =
    gen {
        let! isV6 = Gen.elements [ false; true ]
        let! isUdp = Gen.elements [ false; true ]
        let! ipOptions = edged (0, 10) [ 0; 0; 1; 10 ]
        let! extensions = extensions
        let! tcpOptions = edged (0, 10) [ 0; 3; 10 ]
        let! flags = edged (0, 0xFFF) [ 0x010; 0x018; 0x019; 0x0D9; 0xFFF ]
        let! dontFragment = Gen.elements [ false; true ]
        let! identification = edged (0, 0xFFFF) [ 0; 0xFFFE; 0xFFFF ]

        let! sequence =
            edged (0, Int32.MaxValue) [ -1; -1000; 0; Int32.MinValue; 0x0000_FFFF ]

        let! gsoSize =
            edged (1, maxGsoSize) [ 1; 7; 8; 19; 20; 39; 40; 41; 63; 64; 65; maxGsoSize ]

        let! count = edged (1, maxSegments) [ 1; 2; 3; maxSegments ]
        let! tail = Gen.choose (0, gsoSize - 1)
        let! hdrLen = edged (0, 0xFFFF) [ 0; 40; 140 ]
        let! ecnBit = Gen.elements [ false; true ]
        let! fill = fill
        let longest = 65535 - 60 - 60 - 3 * 40

        return
            { IsV6 = isV6
              IsUdp = isUdp
              IpOptions = (if isV6 then 0 else ipOptions)
              Extensions = (if isV6 then extensions else [])
              TcpOptions = (if isUdp then 0 else tcpOptions)
              Flags = flags
              DontFragment = dontFragment
              Identification = identification
              Sequence = uint32 sequence
              GsoSize = gsoSize
              PayloadLength = min longest (gsoSize * count - tail)
              HdrLen = hdrLen
              EcnBit = ecnBit
              Fill = fill }
    }

/// A shape with less of something: no options, no flags, a segment fewer, half the size. Sizes stay above 0.
let private smaller (shape: Shape) : Shape seq =
    let halved = max 1 (shape.GsoSize / 2)

    seq {
        if shape.PayloadLength > shape.GsoSize then
            { shape with
                PayloadLength = shape.PayloadLength - shape.GsoSize }

        if shape.GsoSize > 1 then
            { shape with
                GsoSize = halved
                PayloadLength = max 1 (shape.PayloadLength * halved / shape.GsoSize) }

        for simpler in
            [ { shape with
                  PayloadLength = shape.PayloadLength - 1 }
              { shape with IpOptions = 0 }
              { shape with
                  Extensions = List.truncate (shape.Extensions.Length - 1) shape.Extensions }
              { shape with TcpOptions = 0 }
              { shape with Flags = plainShape.Flags }
              { shape with
                  Identification = plainShape.Identification }
              { shape with
                  Sequence = plainShape.Sequence }
              { shape with
                  HdrLen = plainShape.HdrLen }
              { shape with EcnBit = false }
              { shape with Fill = Zeros } ] do
            if simpler <> shape && simpler.PayloadLength > 0 then
                simpler
    }

/// Shapes as most laws want them: sizes up to 1500, up to 40 segments.
type ShapeArbitrary =
    static member Shape() =
        Arb.fromGenShrink (shapes 1500 40, smaller)

/// Random headers, or a superpacket with some of its bytes or metadata changed and perhaps cut: most are refused, the
/// rest must stay within their packet.
let mutated (seed: int) : VirtioNetHeader * byte[] =
    let random = System.Random seed

    let shape =
        Gen.sampleWithSeed (FsCheck.Rnd(uint64 seed)) 50 1 (shapes 120 6) |> Array.head

    // Now and then headers at the limit of 512 bytes: 40, two extension headers, and TCP.
    let shape =
        if random.Next 16 > 0 then
            shape
        else
            { shape with
                IsV6 = true
                IpOptions = 0
                Extensions = List.replicate 2 (IpProtocol.DestinationOptions, byte (random.Next(25, 30))) }

    let superpacket = build shape
    let packet = superpacket.Packet

    if random.Next 8 = 0 then
        random.NextBytes(Span(packet, 1, packet.Length - 1))

    for _ in 0 .. random.Next 4 do
        packet[random.Next(min packet.Length 120)] <- byte (random.Next 256)

    let mutable vnet = superpacket.Vnet

    let near (value: uint16) = value + uint16 (random.Next(-2, 3))

    match random.Next 12 with
    | 0 ->
        vnet <-
            { vnet with
                GsoType = byte (random.Next 256) }
    | 1 ->
        vnet <-
            { vnet with
                GsoType = byte (random.Next 6) }
    | 2 ->
        vnet <-
            { vnet with
                GsoSize = uint16 (random.Next 65536) }
    | 3 ->
        vnet <-
            { vnet with
                GsoSize = uint16 (random.Next 4) }
    | 4 ->
        vnet <-
            { vnet with
                CsumStart = uint16 (random.Next 65536)
                CsumOffset = uint16 (random.Next 65536) }
    | 5 ->
        vnet <-
            { vnet with
                CsumStart = near vnet.CsumStart }
    | 6 ->
        vnet <-
            { vnet with
                CsumOffset = near vnet.CsumOffset }
    | 7 ->
        vnet <-
            { vnet with
                Flags = byte (random.Next 8) }
    | _ -> ()

    let kept =
        if random.Next 4 = 0 then
            random.Next(packet.Length + 1)
        else
            packet.Length

    vnet, packet[.. kept - 1]

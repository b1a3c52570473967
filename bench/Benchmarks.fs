/// What a segment costs on the way from a superpacket to a sealed datagram, and a datagram on its way back, without kernel and
/// without network.
module Lightway.Bench.Benchmarks

open System
open BenchmarkDotNet.Attributes
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Hooks
open Lightway.Tunnel.Paths
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Tls

/// TCP over IPv4 with timestamps: the headers of a bulk download.
[<Literal>]
let HeaderLength = 52

/// What an inside MTU of 1350 leaves.
[<Literal>]
let private Mss = 1298

/// A full TSO superpacket as the kernel hands it over.
[<Literal>]
let Segments = 50


let private payload =
    let bytes: byte[] = Array.zeroCreate (Segments * Mss)
    Random(1).NextBytes bytes
    bytes

let frame () =
    Superpackets.tcp (Ipv4Address 0x0A7D0010u) payload Mss

/// What seals: as in a program, the fastest library that is here.
let fastest =
    lazy
        (let mutable remark = ""
         PacketAeads.Choose(AeadChoice.Auto, &remark))

/// A plugin that does next to nothing: what is left is the cost of asking it.
[<Sealed>]
type private Asked(wantsSegments: bool) =
    let mutable packets = 0L

    interface IInsidePlugin with
        member _.WantsSegments = wantsSegments

        member _.Ingress(_packet: inref<InsidePacket>) =
            packets <- packets + 1L
            PluginVerdict.Accept

        member _.Egress(_packet: Span<byte>) =
            packets <- packets + 1L
            PluginVerdict.Accept

/// One such plugin at both ends.
let private asked (wantsSegments: bool) (_: Role) =
    ConnectionHooks(Inside = [| Asked wantsSegments |])

/// Every figure is per segment of 1350 bytes.
type SegmentBenchmarks() =
    let segment: byte[] =
        GC.AllocateUninitializedArray(HeaderLength + Mss, pinned = true)

    let sealedBytes: byte[] =
        GC.AllocateUninitializedArray(HeaderLength + Mss, pinned = true)

    let superpacket: byte[] = GC.AllocateUninitializedArray(65536, pinned = true)

    let template: byte[] =
        GC.AllocateUninitializedArray(Segment.MaxHeaderLength, pinned = true)

    let iv: byte[] = GC.AllocateUninitializedArray(PacketAeads.IvSize, pinned = true)
    let tag: byte[] = GC.AllocateUninitializedArray(PacketAeads.TagSize, pinned = true)

    let aad: byte[] =
        GC.AllocateUninitializedArray(ExpresslanePacket.MaxAadSize, pinned = true)

    let block: byte[] = GC.AllocateUninitializedArray(1360, pinned = true)
    let blockCopy: byte[] = GC.AllocateUninitializedArray(1360, pinned = true)
    let coalescer = Coalescer Segments
    let head: byte[] = Array.zeroCreate 128
    let mutable tcpTrain: byte[][] = [||]
    let mutable fourFlows: byte[][] = [||]
    let mutable udpTrain: byte[][] = [||]

    /// A receive batch's worth of decisions, and the headers of what comes out.
    let coalesce (packets: byte[][]) =
        coalescer.Reset()

        for index in 0 .. packets.Length - 1 do
            coalescer.Add(ReadOnlySpan packets[index], index)

        for run in 0 .. coalescer.Count - 1 do
            coalescer.WriteHeader(run, Span head) |> ignore

        coalescer.Count

    let mutable plan = Unchecked.defaultof<SuperpacketPlan>
    let mutable vnet = Unchecked.defaultof<VirtioNetHeader>
    let mutable length = 0
    let mutable cipher: WolfCryptAead = null
    let mutable fastCipher: IPacketAead = null
    let mutable pairs: (Pair * RepeatedFrame * InsidePath) list = []

    let pipeline aeads expresslane hooks =
        let pair = new Pair(expresslane, 64, ?hooks = hooks, aeads = aeads)
        pair.Connect()
        pair.Server.Wire.Discard <- true
        let source = RepeatedFrame(frame (), HeaderLength)

        let path =
            new InsidePath(source, pair.Server.Context, OneRoute pair.Server.Connection)

        pairs <- (pair, source, path) :: pairs
        struct (source, path)

    let mutable expresslane = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
    let mutable dtls = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>

    let mutable wolfExpresslane =
        Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>

    let mutable wolfDtls = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
    let mutable plugin = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
    let mutable segmentPlugin = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>

    let drain struct (source: RepeatedFrame, path: InsidePath) =
        source.Left <- 1
        path.Drain 0L

    [<GlobalSetup>]
    member _.Setup() =
        let bytes = frame ()
        length <- bytes.Length - VirtioNetHeader.Size
        Array.blit bytes VirtioNetHeader.Size superpacket 0 length
        VirtioNetHeader.tryParse (ReadOnlySpan bytes, &vnet) |> ignore

        let reason =
            Superpacket.plan (&vnet, ReadOnlySpan(superpacket, 0, length), 1350, &plan)

        if reason <> DropReason.None then
            invalidOp $"{reason}"

        Segment.prepare (&plan, ReadOnlySpan superpacket, Span template)
        cipher <- new WolfCryptAead(ReadOnlySpan(Array.init PacketAeads.KeySize byte))
        fastCipher <- fastest.Value.TryCreate(ReadOnlySpan(Array.init PacketAeads.KeySize byte))
        expresslane <- pipeline fastest.Value true None
        dtls <- pipeline fastest.Value false None
        wolfExpresslane <- pipeline PacketAeads.WolfCrypt true None
        wolfDtls <- pipeline PacketAeads.WolfCrypt false None
        plugin <- pipeline fastest.Value true (Some(asked false))
        segmentPlugin <- pipeline fastest.Value true (Some(asked true))

        Random(2).NextBytes block

        let trains =
            [| for flow in 0..3 ->
                   Superpackets.segments (Superpackets.tcp (Ipv4Address(0x0A7D0010u + uint32 flow)) payload Mss) |]

        tcpTrain <- trains[0]
        fourFlows <- [| for i in 0 .. Segments - 1 -> trains[i % 4][i / 4] |]
        udpTrain <- Superpackets.segments (Superpackets.udp (Ipv4Address 0x0A7D0010u) payload (Mss + 24))

        // A figure for packets that did not merge would be one for something else.
        for packets, runs in [ tcpTrain, 1; fourFlows, 4; udpTrain, 1 ] do
            let found = coalesce packets

            if found <> runs then
                invalidOp $"{found} runs, not {runs}"

    [<GlobalCleanup>]
    member _.Cleanup() =
        cipher.Dispose()
        fastCipher.Dispose()

        for pair, _, path in pairs do
            path.Dispose()
            (pair :> IDisposable).Dispose()

    [<Benchmark(Description = "memcpy of 1360 bytes")>]
    member _.Copy() =
        block.AsSpan().CopyTo(blockCopy.AsSpan())

    [<Benchmark(Description = "checksum of 1360 bytes")>]
    member _.Sum() = Checksum.sum (ReadOnlySpan block)

    [<Benchmark(Description = "coalesce, TCP, checksums verified", OperationsPerInvoke = Segments)>]
    member _.CoalesceTcp() = coalesce tcpTrain

    [<Benchmark(Description = "coalesce, 4 flows of TCP interleaved", OperationsPerInvoke = Segments)>]
    member _.CoalesceFlows() = coalesce fourFlows

    [<Benchmark(Description = "coalesce, UDP", OperationsPerInvoke = Segments)>]
    member _.CoalesceUdp() = coalesce udpTrain

    [<Benchmark(Description = "segment header, with its checksums", OperationsPerInvoke = Segments)>]
    member _.Header() =
        let mutable total = 0

        for i in 0 .. Segments - 1 do
            total <- total + Segment.write (&plan, ReadOnlySpan template, i, Span(superpacket, 0, length))

        total

    [<Benchmark(Baseline = true, Description = "wc_AesGcmEncrypt alone, 1350 bytes")>]
    member _.Seal() =
        cipher.Seal(ReadOnlySpan segment, Span sealedBytes, ReadOnlySpan iv, Span tag, ReadOnlySpan aad)

    [<Benchmark(Description = "the same by the fastest library")>]
    member _.FastSeal() =
        fastCipher.Seal(ReadOnlySpan segment, Span sealedBytes, ReadOnlySpan iv, Span tag, ReadOnlySpan aad)

    [<Benchmark(Description = "plan to sealed batch, Expresslane, by wolfCrypt", OperationsPerInvoke = Segments)>]
    member _.WolfExpresslane() = drain wolfExpresslane

    [<Benchmark(Description = "plan to sealed batch, DTLS, by wolfCrypt", OperationsPerInvoke = Segments)>]
    member _.WolfDtls() = drain wolfDtls

    [<Benchmark(Description = "plan to sealed batch, Expresslane", OperationsPerInvoke = Segments)>]
    member _.Expresslane() = drain expresslane

    [<Benchmark(Description = "plan to sealed batch, DTLS", OperationsPerInvoke = Segments)>]
    member _.Dtls() = drain dtls

    [<Benchmark(Description = "as above, Expresslane, a plugin asked once", OperationsPerInvoke = Segments)>]
    member _.Plugin() = drain plugin

    [<Benchmark(Description = "as above, Expresslane, a plugin asked per segment", OperationsPerInvoke = Segments)>]
    member _.SegmentPlugin() = drain segmentPlugin

/// Datagrams of one iteration: 40 receives of one superpacket each.
[<Literal>]
let private Datagrams = 2000

let private endsWith aeads hooks (expresslane: bool) =
    let pair = new Pair(expresslane, 64, coalesce = true, ?hooks = hooks, aeads = aeads)
    pair.Connect()
    pair.Server.Tun.Discard <- true
    pair

let ends expresslane = endsWith fastest.Value None expresslane

/// Datagrams that the client seals; none can be opened twice.
let sealedBy (pair: Pair) (count: int) : byte[][] =
    let source = RepeatedFrame(frame (), HeaderLength, Left = count / Segments)

    use path =
        new InsidePath(source, pair.Client.Context, OneRoute pair.Client.Connection)

    while source.Left > 0 do
        path.Drain pair.Client.Now |> ignore

    let datagrams = pair.Client.Wire.Datagrams.ToArray()
    pair.Client.Wire.Datagrams.Clear()
    datagrams

/// Opens them at the server and writes what they give, a superpacket's worth at a time.
let receive (slot: byte[]) (pair: Pair) (datagrams: byte[][]) =
    for index in 0 .. datagrams.Length - 1 do
        let datagram = datagrams[index]
        datagram.AsSpan().CopyTo(slot.AsSpan()) // as the kernel does
        let mutable header = Unchecked.defaultof<WireHeader>
        WireHeader.tryParse (ReadOnlySpan(slot, 0, datagram.Length), &header) |> ignore
        let body = ReadOnlySpan(slot, WireHeader.Size, datagram.Length - WireHeader.Size)

        if pair.Server.Connection.Receive(&header, body, pair.Server.Now) <> 1 then
            invalidOp "a datagram was not opened"

        if index % Segments = Segments - 1 then
            pair.Server.Context.ToInside.Flush()

let newSlot () : byte[] =
    GC.AllocateUninitializedArray(2048, pinned = true)

/// The way from a received datagram to a superpacket for the TUN, per datagram. Each iteration needs fresh datagrams,
/// sealed beforehand.
type DatagramBenchmarks() =
    let slot = newSlot ()
    let mutable expresslane = Unchecked.defaultof<Pair>
    let mutable dtls = Unchecked.defaultof<Pair>
    let mutable wolfExpresslane = Unchecked.defaultof<Pair>
    let mutable wolfDtls = Unchecked.defaultof<Pair>
    let mutable plugin = Unchecked.defaultof<Pair>
    let mutable expresslaneDatagrams: byte[][] = [||]
    let mutable dtlsDatagrams: byte[][] = [||]
    let mutable wolfExpresslaneDatagrams: byte[][] = [||]
    let mutable wolfDtlsDatagrams: byte[][] = [||]
    let mutable pluginDatagrams: byte[][] = [||]

    [<GlobalSetup>]
    member _.Setup() =
        expresslane <- ends true
        dtls <- ends false
        wolfExpresslane <- endsWith PacketAeads.WolfCrypt None true
        wolfDtls <- endsWith PacketAeads.WolfCrypt None false
        plugin <- endsWith fastest.Value (Some(asked false)) true

    [<GlobalCleanup>]
    member _.Cleanup() =
        for pair in [ expresslane; dtls; wolfExpresslane; wolfDtls; plugin ] do
            (pair :> IDisposable).Dispose()

    [<IterationSetup>]
    member _.Refill() =
        expresslaneDatagrams <- sealedBy expresslane Datagrams
        dtlsDatagrams <- sealedBy dtls Datagrams
        wolfExpresslaneDatagrams <- sealedBy wolfExpresslane Datagrams
        wolfDtlsDatagrams <- sealedBy wolfDtls Datagrams
        pluginDatagrams <- sealedBy plugin Datagrams

    [<Benchmark(Description = "datagram to superpacket, Expresslane", OperationsPerInvoke = Datagrams)>]
    member _.OpenExpresslane() =
        receive slot expresslane expresslaneDatagrams

    [<Benchmark(Description = "datagram to superpacket, DTLS", OperationsPerInvoke = Datagrams)>]
    member _.OpenDtls() = receive slot dtls dtlsDatagrams

    [<Benchmark(Description = "datagram to superpacket, Expresslane, by wolfCrypt", OperationsPerInvoke = Datagrams)>]
    member _.OpenWolfExpresslane() =
        receive slot wolfExpresslane wolfExpresslaneDatagrams

    [<Benchmark(Description = "datagram to superpacket, DTLS, by wolfCrypt", OperationsPerInvoke = Datagrams)>]
    member _.OpenWolfDtls() = receive slot wolfDtls wolfDtlsDatagrams

    [<Benchmark(Description = "as above, Expresslane, a plugin", OperationsPerInvoke = Datagrams)>]
    member _.OpenPlugin() = receive slot plugin pluginDatagrams

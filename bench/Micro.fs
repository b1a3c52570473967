/// What a segment costs on the way from a superpacket to a sealed datagram, without kernel and without network.
module Lightway.Bench.Micro

open System
open System.IO
open BenchmarkDotNet.Attributes
open BenchmarkDotNet.Columns
open BenchmarkDotNet.Configs
open BenchmarkDotNet.Jobs
open BenchmarkDotNet.Loggers
open BenchmarkDotNet.Running
open BenchmarkDotNet.Toolchains.InProcess.NoEmit
open Lightway.Lab
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Tunnel
open Lightway.Tunnel.Tls

/// TCP over IPv4 with timestamps: the headers of a bulk download.
[<Literal>]
let private HeaderLength = 52

/// What an inside MTU of 1350 leaves.
[<Literal>]
let private Mss = 1298

/// A full TSO superpacket as the kernel hands it over.
[<Literal>]
let private Segments = 50

let private client = 0x0A7D0005u

let private payload =
    let bytes: byte[] = Array.zeroCreate (Segments * Mss)
    Random(1).NextBytes bytes
    bytes

let private frame () =
    Superpackets.tcp 0x0A7D0010u payload Mss

/// Every figure is per segment of 1350 bytes.
[<MemoryDiagnoser>]
type SegmentBenchmarks() =
    let segment: byte[] =
        GC.AllocateUninitializedArray(HeaderLength + Mss, pinned = true)

    let sealedBytes: byte[] =
        GC.AllocateUninitializedArray(HeaderLength + Mss, pinned = true)

    let superpacket: byte[] = GC.AllocateUninitializedArray(65536, pinned = true)

    let template: byte[] =
        GC.AllocateUninitializedArray(Segment.MaxHeaderLength, pinned = true)

    let iv: byte[] = GC.AllocateUninitializedArray(PacketCipher.IvSize, pinned = true)
    let tag: byte[] = GC.AllocateUninitializedArray(PacketCipher.TagSize, pinned = true)

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
    let mutable cipher: PacketCipher = null
    let mutable pairs: (Pair * RepeatedFrame * InsidePath) list = []

    let pipeline expresslane =
        let pair = new Pair(expresslane, 64)
        pair.Connect()
        pair.Server.Wire.Discard <- true
        let source = RepeatedFrame(frame (), HeaderLength)

        let path =
            new InsidePath(source, pair.Server.Context, OneRoute(pair.Server.Connection, client), 1350)

        pairs <- (pair, source, path) :: pairs
        struct (source, path)

    let mutable expresslane = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
    let mutable dtls = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>

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
        cipher <- new PacketCipher(ReadOnlySpan(Array.init PacketCipher.KeySize byte))
        expresslane <- pipeline true
        dtls <- pipeline false

        Random(2).NextBytes block

        let trains =
            [| for flow in 0..3 -> Superpackets.segments (Superpackets.tcp (0x0A7D0010u + uint32 flow) payload Mss) |]

        tcpTrain <- trains[0]
        fourFlows <- [| for i in 0 .. Segments - 1 -> trains[i % 4][i / 4] |]
        udpTrain <- Superpackets.segments (Superpackets.udp 0x0A7D0010u payload (Mss + 24))

        // A figure for packets that did not merge would be one for something else.
        for packets, runs in [ tcpTrain, 1; fourFlows, 4; udpTrain, 1 ] do
            let found = coalesce packets

            if found <> runs then
                invalidOp $"{found} runs, not {runs}"

    [<GlobalCleanup>]
    member _.Cleanup() =
        cipher.Dispose()

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

    [<Benchmark(Description = "plan to sealed batch, Expresslane", OperationsPerInvoke = Segments)>]
    member _.Expresslane() = drain expresslane

    [<Benchmark(Description = "plan to sealed batch, DTLS", OperationsPerInvoke = Segments)>]
    member _.Dtls() = drain dtls

let run (_argv: string[]) : int =
    let config =
        ManualConfig
            .CreateEmpty()
            .AddJob(
                Job.Default.WithToolchain(InProcessNoEmitToolchain.Instance).WithWarmupCount(5).WithIterationCount(15)
            )
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddLogger(ConsoleLogger.Default)
            .AddExporter(BenchmarkDotNet.Exporters.MarkdownExporter.GitHub)
            .WithArtifactsPath(Path.Combine("artifacts", "bench"))

    let summary = BenchmarkRunner.Run<SegmentBenchmarks> config

    let report (name: string) =
        summary.Reports
        |> Seq.find (fun report -> report.BenchmarkCase.Descriptor.WorkloadMethod.Name = name)

    let median (name: string) = (report name).ResultStatistics.Median

    let allocated (name: string) =
        let report = report name
        report.GcStats.GetBytesAllocatedPerOperation report.BenchmarkCase |> Option.ofNullable

    printfn ""

    for name, label in
        [ "Copy", "memcpy of 1360 bytes"
          "Sum", "checksum of 1360 bytes"
          "Header", "header writing, with checksum"
          "CoalesceTcp", "coalescing, one flow of TCP"
          "CoalesceFlows", "coalescing, four flows of TCP"
          "CoalesceUdp", "coalescing, UDP"
          "Seal", "seal (wc_AesGcmEncrypt)"
          "Expresslane", "plan to sealed batch, Expresslane"
          "Dtls", "plan to sealed batch, DTLS" ] do
        printfn $"{label, -34} {median name, 7:F1} ns per segment"

    printfn ""

    let atMost (limit: float) (label: string) (value: float) =
        let holds = value <= limit
        let verdict = if holds then "ok  " else "FAIL"
        printfn $"{verdict}  {label}: {value:F3}; at most {limit}"
        holds

    let verdicts =
        [ atMost 1.35 "Expresslane pipeline / bare wc_AesGcmEncrypt" (median "Expresslane" / median "Seal")
          atMost 1.5 "checksum of 1360 bytes / memcpy of them" (median "Sum" / median "Copy")
          atMost 60. "coalescing one flow, checksums verified, ns per packet" (median "CoalesceTcp")

          for name in [ "Sum"; "CoalesceTcp"; "CoalesceFlows"; "CoalesceUdp"; "Expresslane"; "Dtls" ] do
              let bytes = allocated name |> Option.map float |> Option.defaultValue nan
              atMost 0. $"bytes allocated per operation, {name}" bytes ]

    if List.forall id verdicts then 0 else 1

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

let private frame () =
    let payload: byte[] = Array.zeroCreate (Segments * Mss)
    Random(1).NextBytes payload
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

    [<GlobalCleanup>]
    member _.Cleanup() =
        cipher.Dispose()

        for pair, _, path in pairs do
            path.Dispose()
            (pair :> IDisposable).Dispose()

    [<Benchmark(Description = "memcpy of 1350 bytes")>]
    member _.Copy() =
        segment.AsSpan().CopyTo(sealedBytes.AsSpan())

    [<Benchmark(Description = "checksum of 1350 bytes")>]
    member _.Sum() = Checksum.sum (ReadOnlySpan segment)

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

/// The most that everything around the seal may cost, as a multiple of the seal.
let private limit = 1.35

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
            .AddExporter(BenchmarkDotNet.Exporters.Json.JsonExporter.Brief) // for docs/performance.md
            .WithArtifactsPath(Path.Combine("artifacts", "bench"))

    let summary = BenchmarkRunner.Run<SegmentBenchmarks> config

    let median (name: string) =
        summary.Reports
        |> Seq.find (fun report -> report.BenchmarkCase.Descriptor.WorkloadMethod.Name = name)
        |> fun report -> report.ResultStatistics.Median

    printfn ""

    for name, label in
        [ "Sum", "checksum"
          "Header", "header writing, with checksum"
          "Seal", "seal (wc_AesGcmEncrypt)"
          "Expresslane", "plan to sealed batch, Expresslane"
          "Dtls", "plan to sealed batch, DTLS" ] do
        printfn $"{label, -34} {median name, 7:F1} ns per segment"

    let ratio = median "Expresslane" / median "Seal"
    let holds = ratio <= limit
    printfn ""

    printfn
        $"""{if holds then "ok  " else "FAIL"}  Expresslane pipeline / bare wc_AesGcmEncrypt: {ratio:F3}; at most {limit}"""

    if holds then 0 else 1

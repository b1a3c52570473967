/// What a segment costs on the way from a superpacket to a sealed datagram, without kernel and without network.
module Lightway.Bench.Micro

open System
open System.Diagnostics
open System.IO
open System.Threading
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
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Hooks
open Lightway.Tunnel.Paths
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


let private payload =
    let bytes: byte[] = Array.zeroCreate (Segments * Mss)
    Random(1).NextBytes bytes
    bytes

let private frame () =
    Superpackets.tcp (Ipv4Address 0x0A7D0010u) payload Mss

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

    let pipeline expresslane hooks =
        let pair = new Pair(expresslane, 64, ?hooks = hooks)
        pair.Connect()
        pair.Server.Wire.Discard <- true
        let source = RepeatedFrame(frame (), HeaderLength)

        let path =
            new InsidePath(source, pair.Server.Context, OneRoute pair.Server.Connection)

        pairs <- (pair, source, path) :: pairs
        struct (source, path)

    let mutable expresslane = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
    let mutable dtls = Unchecked.defaultof<struct (RepeatedFrame * InsidePath)>
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
        cipher <- new PacketCipher(ReadOnlySpan(Array.init PacketCipher.KeySize byte))
        expresslane <- pipeline true None
        dtls <- pipeline false None
        plugin <- pipeline true (Some(asked false))
        segmentPlugin <- pipeline true (Some(asked true))

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

    [<Benchmark(Description = "as above, Expresslane, a plugin asked once", OperationsPerInvoke = Segments)>]
    member _.Plugin() = drain plugin

    [<Benchmark(Description = "as above, Expresslane, a plugin asked per segment", OperationsPerInvoke = Segments)>]
    member _.SegmentPlugin() = drain segmentPlugin

/// Datagrams of one iteration: 40 receives of one superpacket each.
[<Literal>]
let private Datagrams = 2000

let private endsWith hooks (expresslane: bool) =
    let pair = new Pair(expresslane, 64, coalesce = true, ?hooks = hooks)
    pair.Connect()
    pair.Server.Tun.Discard <- true
    pair

let private ends = endsWith None

/// Datagrams that the client seals; none can be opened twice.
let private sealedBy (pair: Pair) (count: int) : byte[][] =
    let source = RepeatedFrame(frame (), HeaderLength, Left = count / Segments)

    use path =
        new InsidePath(source, pair.Client.Context, OneRoute pair.Client.Connection)

    while source.Left > 0 do
        path.Drain pair.Client.Now |> ignore

    let datagrams = pair.Client.Wire.Datagrams.ToArray()
    pair.Client.Wire.Datagrams.Clear()
    datagrams

/// Opens them at the server and writes what they give, a superpacket's worth at a time.
let private receive (slot: byte[]) (pair: Pair) (datagrams: byte[][]) =
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

let private newSlot () : byte[] =
    GC.AllocateUninitializedArray(2048, pinned = true)

/// The way from a received datagram to a superpacket for the TUN, per datagram. Each iteration needs fresh datagrams,
/// sealed beforehand.
type DatagramBenchmarks() =
    let slot = newSlot ()
    let mutable expresslane = Unchecked.defaultof<Pair>
    let mutable dtls = Unchecked.defaultof<Pair>
    let mutable plugin = Unchecked.defaultof<Pair>
    let mutable expresslaneDatagrams: byte[][] = [||]
    let mutable dtlsDatagrams: byte[][] = [||]
    let mutable pluginDatagrams: byte[][] = [||]

    [<GlobalSetup>]
    member _.Setup() =
        expresslane <- ends true
        dtls <- ends false
        plugin <- endsWith (Some(asked false)) true

    [<GlobalCleanup>]
    member _.Cleanup() =
        for pair in [ expresslane; dtls; plugin ] do
            (pair :> IDisposable).Dispose()

    [<IterationSetup>]
    member _.Refill() =
        expresslaneDatagrams <- sealedBy expresslane Datagrams
        dtlsDatagrams <- sealedBy dtls Datagrams
        pluginDatagrams <- sealedBy plugin Datagrams

    [<Benchmark(Description = "datagram to superpacket, Expresslane", OperationsPerInvoke = Datagrams)>]
    member _.OpenExpresslane() =
        receive slot expresslane expresslaneDatagrams

    [<Benchmark(Description = "datagram to superpacket, DTLS", OperationsPerInvoke = Datagrams)>]
    member _.OpenDtls() = receive slot dtls dtlsDatagrams

    [<Benchmark(Description = "as above, Expresslane, a plugin", OperationsPerInvoke = Datagrams)>]
    member _.OpenPlugin() = receive slot plugin pluginDatagrams

/// Bytes that this thread allocates in ten runs of each benchmark that must not allocate; all code was compiled by then.
/// BenchmarkDotNet's own count takes in every thread of the process: it finds kilobytes where a benchmark only sleeps.
let private allocated () : (string * int64) list =
    let count (name: string) (prepare: unit -> unit) (run: unit -> unit) =
        let mutable bytes = 0L

        for _ in 1..10 do
            prepare ()
            let before = GC.GetAllocatedBytesForCurrentThread()
            run ()
            bytes <- bytes + GC.GetAllocatedBytesForCurrentThread() - before

        name, bytes

    let segments = SegmentBenchmarks()
    segments.Setup()
    let datagrams = DatagramBenchmarks()
    datagrams.Setup()

    try
        [ count "Sum" ignore (segments.Sum >> ignore)
          count "CoalesceTcp" ignore (segments.CoalesceTcp >> ignore)
          count "CoalesceFlows" ignore (segments.CoalesceFlows >> ignore)
          count "CoalesceUdp" ignore (segments.CoalesceUdp >> ignore)
          count "Expresslane" ignore (segments.Expresslane >> ignore)
          count "Dtls" ignore (segments.Dtls >> ignore)
          count "Plugin" ignore (segments.Plugin >> ignore)
          count "SegmentPlugin" ignore (segments.SegmentPlugin >> ignore)
          count "OpenExpresslane" datagrams.Refill datagrams.OpenExpresslane
          count "OpenDtls" datagrams.Refill datagrams.OpenDtls
          count "OpenPlugin" datagrams.Refill datagrams.OpenPlugin ]
    finally
        datagrams.Cleanup()
        segments.Cleanup()

/// Clients whose work is shared out among workers.
let private clients = 4

/// Seconds that `jobs`, one per client, take on `workers` threads.
let private timeOn (workers: int) (jobs: (unit -> unit)[]) : float =
    use start = new Barrier(workers + 1)

    let threads =
        [ for worker in 0 .. workers - 1 ->
              Thread(fun () ->
                  start.SignalAndWait()

                  for index in worker..workers .. jobs.Length - 1 do
                      jobs[index]()) ]

    for thread in threads do
        thread.Start()

    start.SignalAndWait()
    let clock = Stopwatch.StartNew()

    for thread in threads do
        thread.Join()

    clock.Elapsed.TotalSeconds

/// How much faster two workers are than one: the best of several runs of each, in turns. `prepare` makes one client's job,
/// again for each run.
let private speedUp (prepare: unit -> (unit -> unit)) : float =
    let times =
        [ for _ in 1..21 do
              for workers in [ 1; 2 ] do
                  let jobs = Array.init clients (fun _ -> prepare ())
                  workers, timeOn workers jobs ]

    let best workers =
        times |> List.filter (fun (count, _) -> count = workers) |> List.map snd |> List.min

    best 1 / best 2

let private scaling () : (string * float) list =
    let pairs = Array.init clients (fun _ -> ends true)

    try
        for pair in pairs do
            pair.Server.Wire.Discard <- true

        let mutable next = -1

        let inTurn () =
            next <- (next + 1) % clients
            pairs[next]

        let send () =
            let pair = inTurn ()

            fun () ->
                let source = RepeatedFrame(frame (), HeaderLength, Left = 2000)

                use path =
                    new InsidePath(source, pair.Server.Context, OneRoute pair.Server.Connection)

                while source.Left > 0 do
                    path.Drain 0L |> ignore

        let receive () =
            let pair = inTurn ()
            let datagrams = sealedBy pair 8_000
            let slot = newSlot ()
            fun () -> receive slot pair datagrams

        [ "TUN to UDP", speedUp send; "UDP to TUN", speedUp receive ]
    finally
        for pair in pairs do
            (pair :> IDisposable).Dispose()

let run (_argv: string[]) : int =
    // Iterations of the way in are short, as each needs datagrams of its own: more of them until all code is compiled well.
    let config (warmUps: int) =
        ManualConfig
            .CreateEmpty()
            .AddJob(
                Job.Default
                    .WithToolchain(InProcessNoEmitToolchain.Instance)
                    .WithWarmupCount(warmUps)
                    .WithIterationCount(15)
            )
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddLogger(ConsoleLogger.Default)
            .AddExporter(BenchmarkDotNet.Exporters.MarkdownExporter.GitHub)
            .AddExporter(BenchmarkDotNet.Exporters.Json.JsonExporter.Brief) // for docs/performance.md
            .WithArtifactsPath(Path.Combine("artifacts", "bench"))

    let reports =
        Seq.append
            (BenchmarkRunner.Run<SegmentBenchmarks>(config 5)).Reports
            (BenchmarkRunner.Run<DatagramBenchmarks>(config 100)).Reports
        |> List.ofSeq

    let report (name: string) =
        reports |> Seq.find (fun report -> report.BenchmarkCase.Descriptor.WorkloadMethod.Name = name)

    let median (name: string) = (report name).ResultStatistics.Median

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
          "Dtls", "plan to sealed batch, DTLS"
          "Plugin", "the same, Expresslane, plugin"
          "SegmentPlugin", "the same, plugin for segments"
          "OpenExpresslane", "datagram to superpacket, Expresslane"
          "OpenDtls", "datagram to superpacket, DTLS"
          "OpenPlugin", "the same, Expresslane, plugin" ] do
        printfn $"{label, -38} {median name, 7:F1} ns per segment"

    printfn ""

    let atMost (limit: float) (label: string) (value: float) =
        let holds = value <= limit
        let verdict = if holds then "ok  " else "FAIL"
        printfn $"{verdict}  {label}: {value:F3}; at most {limit}"
        holds

    let atLeast (limit: float) (label: string) (value: float) =
        let holds = value >= limit
        let verdict = if holds then "ok  " else "FAIL"
        printfn $"{verdict}  {label}: {value:F3}; at least {limit}"
        holds

    let verdicts =
        [ for way, ratio in scaling () do
              atLeast 1.8 $"two workers / one, {clients} clients, {way}" ratio

          atMost 1.35 "Expresslane pipeline / bare wc_AesGcmEncrypt" (median "Expresslane" / median "Seal")
          atMost 1.5 "checksum of 1360 bytes / memcpy of them" (median "Sum" / median "Copy")
          atMost 60. "coalescing one flow, checksums verified, ns per packet" (median "CoalesceTcp")

          for name, bytes in allocated () do
              atMost 0. $"bytes allocated, {name}" (float bytes) ]

    if List.forall id verdicts then 0 else 1

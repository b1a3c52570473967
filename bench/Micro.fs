/// Runs the benchmarks, and says whether their figures are as they should be.
module Lightway.Bench.Micro

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open System.Threading
open BenchmarkDotNet.Columns
open BenchmarkDotNet.Configs
open BenchmarkDotNet.Filters
open BenchmarkDotNet.Jobs
open BenchmarkDotNet.Loggers
open BenchmarkDotNet.Running
open BenchmarkDotNet.Toolchains.InProcess.NoEmit
open Lightway.Lab
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Paths
open Lightway.Bench.Benchmarks

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

/// `--only REGEX` runs the benchmarks whose names match; verdicts that need others are left out.
let run (argv: string[]) : int =
    let only =
        match argv with
        | [| "--only"; pattern |] -> Regex pattern
        | _ -> Regex ""

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
            .AddFilter(SimpleFilter(fun case -> only.IsMatch case.Descriptor.WorkloadMethod.Name))
            .AddColumnProvider(DefaultColumnProviders.Instance)
            .AddLogger(ConsoleLogger.Default)
            .AddExporter(BenchmarkDotNet.Exporters.MarkdownExporter.GitHub)
            .AddExporter(BenchmarkDotNet.Exporters.Json.JsonExporter.Brief) // for docs/performance.md
            .WithArtifactsPath(Path.Combine("artifacts", "bench"))

    printfn $"The fastest library: {fastest.Value.Name}"

    let reports =
        Seq.append
            (BenchmarkRunner.Run<SegmentBenchmarks>(config 5)).Reports
            (BenchmarkRunner.Run<DatagramBenchmarks>(config 100)).Reports
        |> List.ofSeq

    let medians =
        Map
            [ for report in reports ->
                  report.BenchmarkCase.Descriptor.WorkloadMethod.Name, report.ResultStatistics.Median ]

    printfn ""

    for name, label in
        [ "Copy", "memcpy of 1360 bytes"
          "Sum", "checksum of 1360 bytes"
          "Header", "header writing, with checksum"
          "CoalesceTcp", "coalescing, one flow of TCP"
          "CoalesceFlows", "coalescing, four flows of TCP"
          "CoalesceUdp", "coalescing, UDP"
          "Seal", "seal (wc_AesGcmEncrypt)"
          "FastSeal", "seal (the fastest library)"
          "WolfExpresslane", "plan to sealed batch, Expresslane, wolfCrypt"
          "WolfDtls", "plan to sealed batch, DTLS, wolfCrypt"
          "Expresslane", "plan to sealed batch, Expresslane"
          "Dtls", "plan to sealed batch, DTLS"
          "Plugin", "the same, Expresslane, plugin"
          "SegmentPlugin", "the same, plugin for segments"
          "OpenWolfExpresslane", "datagram to superpacket, Expresslane, wolfCrypt"
          "OpenWolfDtls", "datagram to superpacket, DTLS, wolfCrypt"
          "OpenExpresslane", "datagram to superpacket, Expresslane"
          "OpenDtls", "datagram to superpacket, DTLS"
          "OpenPlugin", "the same, Expresslane, plugin" ] do
        match medians.TryFind name with
        | Some median -> printfn $"{label, -48} {median, 7:F1} ns per segment"
        | None -> ()

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

    let ratioAtMost (limit: float) (label: string) (name: string) (other: string) =
        match medians.TryFind name, medians.TryFind other with
        | Some median, Some otherMedian -> atMost limit label (median / otherMedian)
        | _ -> true

    let verdicts =
        [ if only.IsMatch "scaling" then
              for way, ratio in scaling () do
                  atLeast 1.8 $"two workers / one, {clients} clients, {way}" ratio

          ratioAtMost 1.35 "plan to sealed batch, wolfCrypt / bare wc_AesGcmEncrypt" "WolfExpresslane" "Seal"

          if fastest.Value.Name <> PacketAeads.WolfCrypt.Name then
              ratioAtMost 0.75 "plan to sealed batch / bare wc_AesGcmEncrypt" "Expresslane" "Seal"
              ratioAtMost 1.2 "datagram to superpacket / bare wc_AesGcmEncrypt" "OpenExpresslane" "Seal"

          ratioAtMost 1.5 "checksum of 1360 bytes / memcpy of them" "Sum" "Copy"

          match medians.TryFind "CoalesceTcp" with
          | Some median -> atMost 60. "coalescing one flow, checksums verified, ns per packet" median
          | None -> ()

          if only.IsMatch "allocated" then
              for name, bytes in allocated () do
                  atMost 0. $"bytes allocated, {name}" (float bytes) ]

    if List.forall id verdicts then 0 else 1

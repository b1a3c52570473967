/// Downloads through a real server, offload off and on, over Expresslane and over DTLS, in namespaces made for it.
module Lightway.Bench.Demo

open System
open System.Diagnostics
open Lightway.Lab

/// One download, per GB (10^9 bytes) and MB (10^6 bytes) of what the client received.
type private Run =
    { Settings: Settings
      Transfer: StreamResult
      ServerCpuPerGigabyte: float // seconds
      SyscallsPerMegabyte: float // of the whole server
      InsideToOutsidePerMegabyte: float // system calls that read the TUN and send what was read
      SegmentsPerSend: float // datagrams per send call
      Drops: int64
      IsRightPath: bool } // at least 99 % of the datagrams took the path that the run is about

    member this.Path = if this.Settings.Expresslane then "Expresslane" else "DTLS"
    member this.Offload = if this.Settings.Offload then "on" else "off"

let private defaultLength = 1L <<< 30 // 1 GiB, more than the 1 GB asked for
let private warmUpLength = 100_000_000L // bytes, so that the figures are not those of the JIT compiler

let private measure (topology: Topology) (programs: Programs) (length: int64) (settings: Settings) : Run =
    use vpn = new Vpn(topology, programs, settings)
    vpn.Start()

    let remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    Transfer.download remote topology.Client (min length warmUpLength) |> ignore
    let before = vpn.Read()
    let transfer = Transfer.download remote topology.Client length
    let after = vpn.Read()
    let count name = float (after.Since before name)
    let megabytes = float transfer.Bytes / 1e6

    let sealedPackets =
        count (
            if settings.Expresslane then
                "expresslane_packets_sent"
            else
                "dtls_packets_sent"
        )

    { Settings = settings
      Transfer = transfer
      ServerCpuPerGigabyte = (after.CpuSeconds - before.CpuSeconds) / megabytes * 1e3
      SyscallsPerMegabyte = count "syscalls_total" / megabytes
      InsideToOutsidePerMegabyte = count "syscalls_inside_to_outside" / megabytes
      SegmentsPerSend = count "udp_datagrams_sent" / count "udp_sends"
      Drops = after.Since before "drops_total"
      IsRightPath = sealedPackets >= 0.99 * count "udp_datagrams_sent" }

/// Columns as wide as their widest cell; the first two to the left, the others to the right.
let private table (rows: string list list) =
    let widths = rows |> List.transpose |> List.map (List.map String.length >> List.max)

    for row in rows do
        List.zip row widths
        |> List.mapi (fun column (cell, width) ->
            if column < 2 then
                cell.PadRight width
            else
                cell.PadLeft width)
        |> String.concat "  "
        |> printfn "%s"

let private report (runs: Run list) =
    printfn ""

    table (
        [ ""; ""; ""; "server CPU"; "system calls"; "of them,"; "segments"; ""; "" ]
        :: [ "path"; "offload"; "Mbit/s"; "s per GB"; "per MB"; "TUN to UDP"; "per send"; "drops"; "SHA-256" ]
        :: [ for run in runs ->
                 [ run.Path
                   run.Offload
                   run.Transfer.MegabitsPerSecond.ToString "0"
                   run.ServerCpuPerGigabyte.ToString "0.00"
                   run.SyscallsPerMegabyte.ToString "0.0"
                   run.InsideToOutsidePerMegabyte.ToString "0.0"
                   run.SegmentsPerSend.ToString "0.0"
                   string run.Drops
                   (if run.Transfer.IsIntact then "same" else "DIFFERENT") ] ]
    )

    printfn ""

/// What must hold for one path, offload on against offload off of the same demo: a sentence and whether it does.
let private verdicts (off: Run) (on: Run) : (string * bool) list =
    let ratio name (figure: Run -> float) limit =
        let actual = figure on / figure off
        $"{on.Path}: {name}, on / off: {actual:F3}; at most {limit:F3}", actual <= limit

    [ $"{on.Path}: segments per send with offload on: {on.SegmentsPerSend:F1}; at least 20", on.SegmentsPerSend >= 20.0
      ratio "system calls per MB from TUN to UDP" _.InsideToOutsidePerMegabyte 0.1
      ratio "system calls per MB of the whole server" _.SyscallsPerMegabyte (1.0 / 3.0)
      ratio "server CPU seconds per GB" _.ServerCpuPerGigabyte 0.5
      for run in [ off; on ] do
          let arrived =
              $"{run.Transfer.Bytes} bytes arrived, SHA-256 {run.Transfer.ReceivedHash[..15]}…"

          $"{run.Path}, offload {run.Offload}: {arrived} as sent", run.Transfer.IsIntact
          $"{run.Path}, offload {run.Offload}: packets took that path", run.IsRightPath ]

let private judge (runs: Run list) : int =
    let all =
        runs
        |> List.groupBy _.Path
        |> List.collect (fun (_, pair) ->
            verdicts
                (pair |> List.find (fun run -> not run.Settings.Offload))
                (pair |> List.find (fun run -> run.Settings.Offload)))

    for sentence, holds in all do
        printfn "%s  %s" (if holds then "ok  " else "FAIL") sentence

    match all |> List.filter (snd >> not) with
    | [] -> 0
    | failures ->
        eprintfn $"demo: {failures.Length} of {all.Length} expectations are not met"
        1

/// Everything the demo makes is gone when this returns or raises.
let private measureAll (length: int64) : Run list =
    let programs = Programs.OfThisBuild()
    use topology = Topology.Create()
    printfn $"Four downloads of {length} bytes by TCP, remote -> server -> tunnel -> client, in three namespaces."

    [ for expresslane in [ true; false ] do
          for offload in [ false; true ] do
              let settings =
                  { Expresslane = expresslane
                    Offload = offload
                    ServerKeys = []
                    ClientKeys = [] }

              let run = measure topology programs length settings
              printfn $"  {run.Path}, offload {run.Offload}: {run.Transfer.Seconds:F1} s"
              run ]

let private demonstrate (length: int64) : int =
    let clock = Stopwatch.StartNew()

    try
        let runs = measureAll length
        report runs
        let code = judge runs
        printfn $"Took {clock.Elapsed.TotalSeconds:F0} s; the namespaces, devices and processes it made are gone."
        code
    with
    | _ when Topology.IsInterrupted -> 130
    | error -> // a lab that does not work, a transfer that breaks: one line, whatever its type
        eprintfn $"demo: {error.Message}"
        1

/// Arguments: `--bytes N` for another length of each download. 0 when all expectations are met, 1 when one is not or
/// the demo cannot run, 2 for wrong arguments.
let run (arguments: string[]) : int =
    match arguments with
    | [||] -> demonstrate defaultLength
    | [| "--bytes"; text |] when fst (Int64.TryParse text) && int64 text > 0L -> demonstrate (int64 text)
    | _ ->
        eprintfn "demo: the only argument is --bytes N, the length of each download"
        2

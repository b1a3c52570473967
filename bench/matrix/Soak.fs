/// Bulk TCP both ways for minutes: memory must not grow, and no checksum may be wrong anywhere.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Soak

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open System.Threading
open Lightway.Lab

let private settling = TimeSpan.FromMinutes 1.0 // until the JIT compiler and the heap have found their size
let private interval = TimeSpan.FromSeconds 5.0
let private limit = 5.0 // MB of growth or shrinking after that

/// Resident memory in MB (VmRSS of proc_pid_status(5), in KiB there).
let private residentMegabytes (child: Child) =
    let status = File.ReadAllText $"/proc/{child.Pid}/status"
    float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

let private errorCounters =
    [ "Ip.InHdrErrors"; "Tcp.InCsumErrors"; "Tcp.InErrs"; "Udp.InCsumErrors" ]

/// Sum of what must not move, over all namespaces of a topology.
let private errors (topology: Topology) =
    topology.Server :: topology.RemoteHost :: topology.Clients
    |> List.sumBy (fun netns ->
        let counters = NetworkCounters.snmp netns
        errorCounters |> List.sumBy (fun name -> counters[name]))

let private verdicts (samples: (string * float list) list) (errorGrowth: int64) (bytes: int64) : Verdict list =
    [ for name, megabytes in samples do
          let first = List.head megabytes
          let largest = megabytes |> List.map (fun value -> abs (value - first)) |> List.max

          { Text =
              $"{name}: resident memory {first:F1} MB after the first minute, then at most {largest:F1} MB away from it; at most {limit}"
            Holds = Some(largest <= limit) }

      { Text = $"""{String.concat ", " errorCounters}: {errorGrowth}; at most 0"""
        Holds = Some(errorGrowth = 0L) }
      { Text = $"{float bytes / 1e9:F1} GB arrived; at least 1"
        Holds = Some(bytes >= 1_000_000_000L) } ]

/// Expresslane with offload on, one flow down and one up. `minutes` is more than 1.
let run (minutes: float) (congestion: string) : Verdict list =
    use contender = Contender.lightway "on" (Programs.OfThisBuild()) Expresslane true 1

    let topology = contender.Topology

    let remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    use down = TcpLoad.Start(remote, [ topology.Client ], true, congestion)
    use up = TcpLoad.Start(remote, [ topology.Client ], false, congestion)
    let errorsBefore = errors topology
    let clock = Stopwatch.StartNew()
    Thread.Sleep settling

    let samples =
        [ while clock.Elapsed < TimeSpan.FromMinutes minutes do
              Thread.Sleep interval

              let server, client =
                  residentMegabytes contender.Server, residentMegabytes contender.Clients.Head

              let megabits =
                  float (down.Received + up.Received) * 8.0 / clock.Elapsed.TotalSeconds / 1e6

              printfn
                  $"{clock.Elapsed.TotalSeconds, 5:F0} s  server {server:F1} MB, client {client:F1} MB, {megabits:F0} Mbit/s"

              server, client ]

    verdicts
        [ "server", List.map fst samples; "client", List.map snd samples ]
        (errors topology - errorsBefore)
        (down.Received + up.Received)

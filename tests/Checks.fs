/// What the end-to-end tests ask of a tunnel.
module Lightway.Tests.Checks

open System
open System.IO
open Expecto
open Lightway.Lab

let needsRoot () =
    if not Environment.IsPrivilegedProcess then
        skiptest "network namespaces and TUN devices need root"

/// Skips a test on a machine without the program that judges.
let needsProgram (program: string) =
    let folders = (string (Environment.GetEnvironmentVariable "PATH")).Split ':'

    if not (folders |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, program)))) then
        skiptest $"{program} is not installed"

let megabytes n = n * 1_000_000L

/// Bytes that each of several runs allocates on this thread, at least. Code that allocates does so in every run; the runtime
/// does when it compiles a hot loop again, which it may put off on a busy machine: then there are more runs.
let allocatedByEach (runs: int) (run: unit -> unit) : int64 =
    let allocated () =
        let before = GC.GetAllocatedBytesForCurrentThread()
        run ()
        GC.GetAllocatedBytesForCurrentThread() - before

    let mutable least = Seq.min [ for _ in 1..runs -> allocated () ]
    let clock = Diagnostics.Stopwatch.StartNew()

    while least > 0L && clock.Elapsed.TotalSeconds < 10.0 do
        least <- min least (allocated ())

    least

let expectIntact (transfer: StreamResult) length =
    Expect.equal transfer.Bytes length "bytes that arrived"
    Expect.equal transfer.ReceivedHash transfer.SentHash "SHA-256"

/// What was learned about paths (ICMP "fragmentation needed") is forgotten.
let forgetPaths (netns: string) =
    Shell.ip $"-n {netns} route flush cache" |> ignore

/// A transfer that arrives as it was sent, and whose receiver never waits for longer than a second. A busy machine may hold
/// one up; then a second one, with everything to be found out again, must not be.
let expectSteady (forget: unit -> unit) (transfer: unit -> StreamResult) length =
    let longestWait () =
        forget ()
        let result = transfer ()
        expectIntact result length
        result.LongestWait.TotalMilliseconds

    let first = longestWait ()

    if first > 1_000.0 then
        let second = longestWait ()
        Expect.isLessThanOrEqual second 1_000.0 $"ms without a byte; the first time it was {first:F0} ms"

/// InCsumErrors and the like of a namespace (/proc/net/snmp, /proc/net/netstat): packets that arrived broken.
let checksumErrors (netns: string) =
    let lines = Shell.inside netns "cat" [ "/proc/net/snmp"; "/proc/net/netstat" ]

    [ for names, values in
          lines.Split('\n', StringSplitOptions.RemoveEmptyEntries)
          |> Array.chunkBySize 2
          |> Array.map (fun p -> p[0], p[1]) do
          for name, value in Array.zip (names.Split ' ') (values.Split ' ') do
              if name = "InCsumErrors" then
                  int64 value ]
    |> List.sum

/// What the end-to-end tests ask of a tunnel.
module Lightway.Tests.Checks

open System
open Expecto
open Lightway.Lab

let needsRoot () =
    if not Environment.IsPrivilegedProcess then
        skiptest "network namespaces and TUN devices need root"

let megabytes n = n * 1_000_000L

let expectIntact (transfer: StreamResult) length =
    Expect.equal transfer.Bytes length "bytes that arrived"
    Expect.equal transfer.ReceivedHash transfer.SentHash "SHA-256"

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

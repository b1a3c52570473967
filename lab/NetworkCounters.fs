/// What the kernel counts in a network namespace.
[<RequireQualifiedAccess>]
module Lightway.Lab.NetworkCounters

open System
open System.IO

/// Lines of a file of /proc/net as a thread inside the namespace sees it (/proc/net itself is the main thread's).
let private linesOf (netns: string) (file: string) =
    Netns.run netns (fun () -> File.ReadAllLines $"/proc/thread-self/net/{file}")

let private words (line: string) =
    line.Split([| ' '; ':' |], StringSplitOptions.RemoveEmptyEntries)

/// Counters of /proc/net/snmp by names such as `Udp.RcvbufErrors`. The file has pairs of lines: names, then values.
let snmp (netns: string) : Map<string, int64> =
    linesOf netns "snmp"
    |> Array.chunkBySize 2
    |> Array.collect (fun pair ->
        let names, values = words pair[0], words pair[1]

        Array.zip names values
        |> Array.tail
        |> Array.map (fun (name, value) -> $"{names[0]}.{name}", int64 value))
    |> Map.ofArray

/// Packets that a device has dropped, both directions (/proc/net/dev: the fourth column of each half of eight). On a TUN
/// those are packets for which its queue had no room.
let deviceDrops (netns: string) (device: string) : int64 =
    linesOf netns "dev"
    |> Array.map words
    |> Array.tryFind (fun columns -> columns[0] = device)
    |> function
        | Some columns -> int64 columns[4] + int64 columns[12]
        | None -> raise (LabException $"there is no device {device} in {netns}")

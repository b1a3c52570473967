namespace Lightway.Bench.Matrix

open System
open Lightway.Lab

/// All that is counted, at one moment.
[<NoComparison; NoEquality>]
type Snapshot =
    { Seconds: float // of one clock
      Received: int64 // payload bytes at the sinks
      Retransmits: int64 option
      ServerCpu: struct (float * float) // user and system seconds
      ClientCpu: struct (float * float) // of all clients
      Server: Counters
      Clients: Counters
      ServerSocketDrops: int64 // Udp.RcvbufErrors of its namespace
      ClientSocketDrops: int64
      ServerTunDrops: int64 // of the device: packets for which its queue had no room
      ClientTunDrops: int64
      ChecksumErrors: int64 } // Tcp, Udp and IP header errors of all namespaces

/// One measurement: a cell, carried by a variant. GB is 10^9 and MB 10^6 payload bytes at the sinks. None: not known,
/// as the program does not count it. The JSON file has these fields.
[<CLIMutable>]
type Row =
    { Cell: string
      Path: string
      Direction: string
      Traffic: string
      Clients: int
      Variant: string
      Round: int
      Seconds: float
      MegabitsPerSecond: float
      LossPercent: float option // of datagrams, between sender and sink, over the whole run with its warm-up
      ServerCpuPerGigabyte: float // seconds, user and system
      ServerUserCpuPerGigabyte: float
      ClientCpuPerGigabyte: float // of all clients
      ClientUserCpuPerGigabyte: float
      ServerSyscallsPerMegabyte: float option
      ServerSyscallsPerPacket: float option // packets: datagrams outside, both directions
      ServerSegmentsPerSend: float option
      ServerDatagramsPerReceive: float option
      ServerSegmentsPerTunWrite: float option
      ClientSyscallsPerMegabyte: float option
      ClientSegmentsPerSend: float option
      ClientDatagramsPerReceive: float option
      ClientSegmentsPerTunWrite: float option
      Retransmits: int64 option
      ServerEngineDrops: int64 option // drops_total
      ClientEngineDrops: int64 option
      ServerSocketDrops: int64
      ClientSocketDrops: int64
      ServerTunDrops: int64
      ClientTunDrops: int64
      ChecksumErrors: int64
      PingMilliseconds: float list // round trips, in order; empty for other traffic
      PingLost: int
      ServerCounters: Map<string, int64> // what grew, by the names of the metrics file
      ClientCounters: Map<string, int64> }

[<RequireQualifiedAccess>]
module Row =
    let private growth (before: Counters) (after: Counters) (name: string) : float option =
        match before, after with
        | Some before, Some after ->
            match before.TryGetValue name, after.TryGetValue name with
            | (true, first), (true, last) -> Some(float (last - first))
            | _ -> None
        | _ -> None

    let private grown (before: Counters) (after: Counters) : Map<string, int64> =
        match before, after with
        | Some before, Some after ->
            Map.ofList
                [ for KeyValue(name, last) in after do
                      match before.TryGetValue name with
                      | true, first when last <> first -> name, last - first
                      | _ -> () ]
        | _ -> Map.empty

    let private (/?) (a: float option) (b: float option) =
        match a, b with
        | Some a, Some b when b > 0.0 -> Some(a / b)
        | _ -> None

    let private (+?) (a: float option) (b: float option) = Option.map2 (+) a b

    /// What happened between two snapshots.
    let between (cell: Cell) (variant: string) (round: int) (before: Snapshot) (after: Snapshot) : Row =
        let bytes = float (after.Received - before.Received)
        let seconds = after.Seconds - before.Seconds
        let megabytes = Some(bytes / 1e6)
        let server = growth before.Server after.Server
        let client = growth before.Clients after.Clients

        let perGigabyte struct (a: float, b: float) struct (c: float, d: float) = (c + d - a - b) / bytes * 1e9

        let user struct (a: float, _: float) = struct (a, 0.0)

        let serverDatagrams = server "udp_datagrams_sent" +? server "udp_datagrams_received"

        { Cell = cell.Name
          Path = cell.PathName
          Direction = cell.DirectionName
          Traffic = cell.TrafficName
          Clients = cell.Clients
          Variant = variant
          Round = round
          Seconds = seconds
          MegabitsPerSecond = bytes * 8.0 / seconds / 1e6
          LossPercent = None
          ServerCpuPerGigabyte = perGigabyte before.ServerCpu after.ServerCpu
          ServerUserCpuPerGigabyte = perGigabyte (user before.ServerCpu) (user after.ServerCpu)
          ClientCpuPerGigabyte = perGigabyte before.ClientCpu after.ClientCpu
          ClientUserCpuPerGigabyte = perGigabyte (user before.ClientCpu) (user after.ClientCpu)
          ServerSyscallsPerMegabyte = server "syscalls_total" /? megabytes
          ServerSyscallsPerPacket = server "syscalls_total" /? serverDatagrams
          ServerSegmentsPerSend = server "udp_datagrams_sent" /? server "udp_sends"
          ServerDatagramsPerReceive = server "udp_datagrams_received" /? server "udp_receives"
          ServerSegmentsPerTunWrite = server "tun_packets_written" /? server "tun_writes"
          ClientSyscallsPerMegabyte = client "syscalls_total" /? megabytes
          ClientSegmentsPerSend = client "udp_datagrams_sent" /? client "udp_sends"
          ClientDatagramsPerReceive = client "udp_datagrams_received" /? client "udp_receives"
          ClientSegmentsPerTunWrite = client "tun_packets_written" /? client "tun_writes"
          Retransmits = Option.map2 (-) after.Retransmits before.Retransmits
          ServerEngineDrops = server "drops_total" |> Option.map int64
          ClientEngineDrops = client "drops_total" |> Option.map int64
          ServerSocketDrops = after.ServerSocketDrops - before.ServerSocketDrops
          ClientSocketDrops = after.ClientSocketDrops - before.ClientSocketDrops
          ServerTunDrops = after.ServerTunDrops - before.ServerTunDrops
          ClientTunDrops = after.ClientTunDrops - before.ClientTunDrops
          ChecksumErrors = after.ChecksumErrors - before.ChecksumErrors
          PingMilliseconds = []
          PingLost = 0
          ServerCounters = grown before.Server after.Server
          ClientCounters = grown before.Clients after.Clients }

    /// Nearest-rank percentile; None of no values.
    let percentile (percent: float) (values: float list) : float option =
        match Array.sort (Array.ofList values) with
        | [||] -> None
        | sorted ->
            let rank = int (ceil (percent / 100.0 * float sorted.Length))
            Some sorted[max 0 (rank - 1)]

    /// Of an odd or even number of values; None of no values.
    let median (values: float list) : float option =
        match List.sort values with
        | [] -> None
        | sorted -> Some((sorted[(sorted.Length - 1) / 2] + sorted[sorted.Length / 2]) / 2.0)

    /// Rows of all rounds as one for each cell and variant, in the order of their first appearance: the round with the
    /// highest throughput, as whatever else the machine does can only lower it. Round trips are those of all rounds.
    let best (rows: Row list) : Row list =
        rows
        |> List.groupBy (fun row -> row.Cell, row.Variant)
        |> List.map (fun (_, rounds) ->
            { List.maxBy _.MegabitsPerSecond rounds with
                PingMilliseconds = rounds |> List.collect _.PingMilliseconds
                PingLost = rounds |> List.sumBy _.PingLost })

/// Rows as text: Markdown whose columns are aligned, so that it reads in a terminal too.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Table

open System.Globalization

/// A column: its heading, and what a row has there.
type private Column = string * (Row -> string)

let private number (digits: int) (value: float) =
    value.ToString($"F{digits}", CultureInfo.InvariantCulture)

let private maybe (digits: int) (value: float option) =
    value |> Option.map (number digits) |> Option.defaultValue "-"

let private count (value: int64 option) =
    value |> Option.map string |> Option.defaultValue "-"

let private ping (row: Row) =
    match row.PingMilliseconds with
    | [] -> "-"
    | times -> $"{maybe 1 (Row.percentile 50.0 times)} / {maybe 1 (Row.percentile 99.0 times)}"

let private head: Column list = [ "cell", _.Cell; "variant", _.Variant ]

let private results: Column list =
    [ "Mbit/s", (fun row -> number 0 row.MegabitsPerSecond)
      "server CPU s/GB", (fun row -> number 2 row.ServerCpuPerGigabyte)
      "of it user", (fun row -> number 2 row.ServerUserCpuPerGigabyte)
      "client CPU s/GB", (fun row -> number 2 row.ClientCpuPerGigabyte)
      "of it user", (fun row -> number 2 row.ClientUserCpuPerGigabyte)
      "retransmits", (fun row -> count row.Retransmits)
      "loss %", (fun row -> maybe 2 row.LossPercent)
      "ping p50 / p99 ms", ping ]

let private batching: Column list =
    [ "server: calls/MB", (fun row -> maybe 1 row.ServerSyscallsPerMegabyte)
      "calls/packet", (fun row -> maybe 3 row.ServerSyscallsPerPacket)
      "segments/send", (fun row -> maybe 1 row.ServerSegmentsPerSend)
      "datagrams/receive", (fun row -> maybe 1 row.ServerDatagramsPerReceive)
      "packets/TUN write", (fun row -> maybe 1 row.ServerSegmentsPerTunWrite)
      "drops", (fun row -> $"{count row.ServerEngineDrops}/{row.ServerSocketDrops}/{row.ServerTunDrops}")
      "client: calls/MB", (fun row -> maybe 1 row.ClientSyscallsPerMegabyte)
      "segments/send", (fun row -> maybe 1 row.ClientSegmentsPerSend)
      "datagrams/receive", (fun row -> maybe 1 row.ClientDatagramsPerReceive)
      "packets/TUN write", (fun row -> maybe 1 row.ClientSegmentsPerTunWrite)
      "drops", (fun row -> $"{count row.ClientEngineDrops}/{row.ClientSocketDrops}/{row.ClientTunDrops}") ]

/// The first two columns to the left, the others to the right.
let private markdown (columns: Column list) (rows: Row list) : string =
    let texts =
        List.map fst columns :: [ for row in rows -> columns |> List.map (fun (_, read) -> read row) ]

    let widths =
        texts |> List.transpose |> List.map (List.map String.length >> List.max)

    let join (cells: string list) = "| " + String.concat " | " cells + " |"

    let pad (cells: string list) =
        List.zip cells widths
        |> List.mapi (fun index (cell, width) ->
            if index < 2 then
                cell.PadRight width
            else
                cell.PadLeft width)
        |> join

    let rule =
        widths
        |> List.mapi (fun index width ->
            if index < 2 then
                String.replicate width "-"
            else
                String.replicate (width - 1) "-" + ":")
        |> join

    pad texts.Head :: rule :: List.map pad texts.Tail |> String.concat "\n"

/// Throughput, CPU time, losses, latency.
let ofResults (rows: Row list) : string = markdown (head @ results) rows

/// System calls, batch sizes, drops. Rows of programs that count nothing are left out.
let ofBatching (rows: Row list) : string =
    rows
    |> List.filter (fun row -> row.ServerSyscallsPerMegabyte.IsSome || row.ClientSyscallsPerMegabyte.IsSome)
    |> markdown (head @ batching)

/// Of one row, for the terminal while the run goes on.
let brief (row: Row) : string =
    let megabits = (number 0 row.MegabitsPerSecond).PadLeft 5

    let cpu =
        $"server {number 2 row.ServerCpuPerGigabyte}, clients {number 2 row.ClientCpuPerGigabyte} s/GB"

    let pings =
        if row.PingMilliseconds.IsEmpty then
            ""
        else
            $"  ping {ping row} ms"

    $"{row.Cell, -46} {row.Variant, -12} {megabits} Mbit/s  {cpu}{pings}"

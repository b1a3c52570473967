/// Rows as text: aligned for a terminal, and as Markdown.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Table

open System.Globalization

let private number (digits: int) (value: float) =
    value.ToString($"F{digits}", CultureInfo.InvariantCulture)

let private maybe (digits: int) (value: float option) =
    match value with
    | Some value -> number digits value
    | None -> "-"

/// Heading, and what a row has there.
let private columns: (string * (Row -> string)) list =
    [ "cell", _.Cell
      "variant", _.Variant
      "Mbit/s", (fun row -> number 0 row.MegabitsPerSecond)
      "server CPU s/GB", (fun row -> number 2 row.ServerCpuPerGigabyte)
      "client CPU s/GB", (fun row -> number 2 row.ClientCpuPerGigabyte)
      "server calls/MB", (fun row -> maybe 1 row.ServerSyscallsPerMegabyte)
      "calls/packet", (fun row -> maybe 3 row.ServerSyscallsPerPacket)
      "server seg/send", (fun row -> maybe 1 row.ServerSegmentsPerSend)
      "dgrams/recv", (fun row -> maybe 1 row.ServerDatagramsPerReceive)
      "seg/TUN write", (fun row -> maybe 1 row.ServerSegmentsPerTunWrite)
      "client seg/send", (fun row -> maybe 1 row.ClientSegmentsPerSend)
      "dgrams/recv", (fun row -> maybe 1 row.ClientDatagramsPerReceive)
      "seg/TUN write", (fun row -> maybe 1 row.ClientSegmentsPerTunWrite)
      "retransmits", (fun row -> row.Retransmits |> Option.map string |> Option.defaultValue "-")
      "loss %", (fun row -> maybe 2 row.LossPercent)
      "drops engine/socket/TUN",
      (fun row ->
          let engine = row.EngineDrops |> Option.map string |> Option.defaultValue "-"
          $"{engine}/{row.SocketDrops}/{row.DeviceDrops}")
      "ping p50/p99 ms",
      (fun row ->
          match row.PingMilliseconds with
          | [] -> "-"
          | times -> $"{maybe 2 (Row.percentile 50.0 times)}/{maybe 2 (Row.percentile 99.0 times)}") ]

let private cells (rows: Row list) =
    [ for row in rows -> columns |> List.map (fun (_, read) -> read row) ]

/// Of one row, for the terminal while the run goes on.
let brief (row: Row) : string =
    let ping =
        match row.PingMilliseconds with
        | [] -> ""
        | times -> $"  ping p50 {maybe 2 (Row.percentile 50.0 times)} p99 {maybe 2 (Row.percentile 99.0 times)} ms"

    let megabits = (number 0 row.MegabitsPerSecond).PadLeft 5

    let cpu =
        $"server {number 2 row.ServerCpuPerGigabyte}, clients {number 2 row.ClientCpuPerGigabyte} s/GB"

    $"{row.Cell, -46} {row.Variant, -12} {megabits} Mbit/s  {cpu}{ping}"

let markdown (rows: Row list) : string =
    let line (texts: string list) = "| " + String.concat " | " texts + " |"

    let alignment =
        columns |> List.mapi (fun index _ -> if index < 2 then "---" else "--:")

    line (List.map fst columns) :: line alignment :: List.map line (cells rows) |> String.concat "\n"

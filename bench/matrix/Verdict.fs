namespace Lightway.Bench.Matrix

/// One thing that the figures of a run must show.
type Verdict =
    { Text: string // with the measured value and the limit
      Holds: bool option } // None: this run has no figures for it

[<RequireQualifiedAccess>]
module Verdict =
    type private Bound =
        | AtLeast of float
        | AtMost of float

    let private judge (text: string) (bound: Bound) (actual: float option) : Verdict =
        let limit, holds =
            match bound with
            | AtLeast limit -> $"at least {limit}", (fun value -> value >= limit)
            | AtMost limit -> $"at most {limit}", (fun value -> value <= limit)

        match actual with
        | Some actual ->
            { Text = $"{text}: {actual:F3}; {limit}"
              Holds = Some(holds actual) }
        | None ->
            { Text = $"{text}: not measured; {limit}"
              Holds = None }

    let private throughput (row: Row) = Some row.MegabitsPerSecond
    let private serverCpu (row: Row) = Some row.ServerCpuPerGigabyte
    let private syscalls (row: Row) = row.ServerSyscallsPerMegabyte

    let private p99 (row: Row) =
        Row.percentile 99.0 row.PingMilliseconds

    let private tcp path direction flows =
        { Path = path
          Direction = direction
          Traffic = Tcp flows
          Clients = 1 }

    /// Of the rows of all rounds: what the fastest library for AES-GCM gains. Only verdicts about cells of the run are given.
    let ofAeads (rows: Row list) : Verdict list =
        [ for path, limit in [ Expresslane, 0.82; Dtls, 0.85 ] do
              for direction in [ Down; Up ] do
                  let cell = tcp path direction 4

                  let costs variant =
                      rows
                      |> List.filter (fun row -> row.Cell = cell.Name && row.Variant = variant)
                      |> List.map _.ServerCpuPerGigabyte

                  let auto, wolfCrypt = costs "on", costs Cell.OnByWolfCrypt

                  if not wolfCrypt.IsEmpty then
                      (if min auto.Length wolfCrypt.Length < Cell.AeadRounds then
                           None
                       else
                           Option.map2 (/) (Row.median auto) (Row.median wolfCrypt))
                      |> judge
                          $"{cell.Name}: server CPU per GB, on / {Cell.OnByWolfCrypt}, medians of {min auto.Length wolfCrypt.Length} runs"
                          (AtMost limit) ]

    /// Of rows of which each stands for a cell and a variant. Only verdicts about cells of the run are given.
    let all (rows: Row list) : Verdict list =
        let find (cell: Cell) variant =
            rows |> List.tryFind (fun row -> row.Cell = cell.Name && row.Variant = variant)

        let figure (cell: Cell) variant (read: Row -> float option) = find cell variant |> Option.bind read

        let ratio (cell: Cell) what a b read bound =
            match figure cell a read, figure cell b read with
            | Some x, Some y when y > 0.0 -> Some(x / y)
            | _ -> None
            |> judge $"{cell.Name}: {what}, {a} / {b}" bound

        let bulk (cell: Cell) flows =
            // Four flows are what the aims of the project are about.
            let faster, cheaper = if flows = 4 then 4.0, 0.2 else 1.5, 0.6

            [ ratio cell "throughput" "on" "off" throughput (AtLeast 4.0)
              ratio cell "server CPU per GB" "on" "off" serverCpu (AtMost 0.2)
              ratio cell "throughput" "on" "wireguard-go" throughput (AtLeast faster)
              ratio cell "server CPU per GB" "on" "wireguard-go" serverCpu (AtMost cheaper)
              judge
                  $"{cell.Name}: server system calls per packet, on"
                  (AtMost 0.06)
                  (figure cell "on" _.ServerSyscallsPerPacket) ]

        let batches (cell: Cell) =
            let sender, receiver, perSend, perWrite =
                match cell.Direction with
                | Down ->
                    "server",
                    "client",
                    (fun (row: Row) -> row.ServerSegmentsPerSend),
                    (fun (row: Row) -> row.ClientSegmentsPerTunWrite)
                | Up ->
                    "client",
                    "server",
                    (fun (row: Row) -> row.ClientSegmentsPerSend),
                    (fun (row: Row) -> row.ServerSegmentsPerTunWrite)

            [ judge $"{cell.Name}: segments per send of the {sender}, on" (AtLeast 30.0) (figure cell "on" perSend)
              judge
                  $"{cell.Name}: segments per TUN write of the {receiver}, on"
                  (AtLeast 30.0)
                  (figure cell "on" perWrite) ]

        let quic =
            { tcp Expresslane Down 1 with
                Traffic = Udp Cell.QuicBurst }

        let ping path =
            { tcp path Down 1 with
                Traffic = Ping 4 }

        [ for direction in [ Down; Up ] do
              for flows in [ 1; 4 ] do
                  let cell = tcp Expresslane direction flows
                  cell, bulk cell flows @ batches cell

          for direction in [ Down; Up ] do
              for flows in [ 1; 4 ] do
                  let cell = tcp Dtls direction flows
                  cell, [ ratio cell "throughput" "on" "off" throughput (AtLeast 2.5) ]

          for direction in [ Down; Up ] do
              for flows in [ 1; 4 ] do
                  let cell = tcp Tls direction flows

                  cell,
                  [ ratio cell "throughput" "on" "off" throughput (AtLeast 4.0)
                    ratio cell "server CPU per GB" "on" "off" serverCpu (AtMost 0.3)
                    // A third of what the reference took in its TCP mode, measured on 2026-11-25: 5.3 s/GB.
                    judge $"{cell.Name}: server CPU s/GB, on" (AtMost 1.86) (figure cell "on" serverCpu) ]

          quic, [ ratio quic "server system calls per MB" "on" "off" syscalls (AtMost 0.15) ]

          for path in [ Expresslane; Dtls ] do
              ping path, [ ratio (ping path) "p99 of ping" "on" "off" p99 (AtMost 1.0) ] ]
        |> List.filter (fun (cell, _) -> rows |> List.exists (fun row -> row.Cell = cell.Name))
        |> List.collect snd

    let line (verdict: Verdict) : string =
        match verdict.Holds with
        | Some true -> $"PASS  {verdict.Text}"
        | Some false -> $"FAIL  {verdict.Text}"
        | None -> $"-     {verdict.Text}"

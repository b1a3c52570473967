/// Bulk TCP as grouped bars: throughput at the left, server CPU time at the right.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Chart

open System.Globalization

let private barHeight = 11.0
let private groupGap = 13.0
let private labelWidth = 250.0
let private panelWidth = 270.0
let private panelGap = 70.0
let private top = 66.0

/// What a panel shows of a row.
type private Panel =
    { Title: string
      Left: float
      Value: Row -> float
      Format: string }

let private panels =
    [ { Title = "throughput, Mbit/s (more is better)"
        Left = labelWidth
        Value = _.MegabitsPerSecond
        Format = "0" }
      { Title = "server CPU, s per GB (less is better)"
        Left = labelWidth + panelWidth + panelGap
        Value = _.ServerCpuPerGigabyte
        Format = "0.00" } ]

let private bar (panel: Panel) (maximum: float) (y: float) (row: Row) =
    let value = panel.Value row
    let width = max 1.0 (value / maximum * panelWidth)
    let label = value.ToString(panel.Format, CultureInfo.InvariantCulture)

    [ Svg.bar panel.Left y width (barHeight - 1.5) (Svg.colourOf row.Variant) $"{row.Cell}, {row.Variant}: {label}"
      Svg.text (panel.Left + width + 4.0) (y + barHeight - 2.5) "value" label ]

let private legend (variants: string list) =
    variants
    |> List.mapi (fun index variant ->
        let x = labelWidth + float index * 130.0

        [ Svg.bar x 14.0 12.0 10.0 (Svg.colourOf variant) variant
          Svg.text (x + 18.0) 23.0 "" (Svg.labelOf variant) ])
    |> List.concat

/// Rows of which each stands for a cell and a variant. Others than bulk TCP are not drawn.
let svg (rows: Row list) : string =
    let rows = rows |> List.filter _.Traffic.StartsWith("tcp")
    let groups = rows |> List.groupBy _.Cell

    let starts =
        groups |> List.scan (fun y (_, group) -> y + float group.Length * barHeight + groupGap) top

    let height = List.last starts
    let placed = List.zip (List.take groups.Length starts) groups

    Svg.document
        "Bulk TCP through the tunnel"
        (labelWidth + 2.0 * (panelWidth + panelGap))
        height
        [ yield! legend (rows |> List.map _.Variant |> List.distinct)

          for panel in panels do
              let maximum = rows |> List.map panel.Value |> List.fold max 1e-9
              Svg.text panel.Left (top - 14.0) "title" panel.Title
              Svg.axis panel.Left (top - 5.0) (height - groupGap + 4.0)

              for y, (_, group) in placed do
                  for index, row in List.indexed group do
                      yield! bar panel maximum (y + float index * barHeight) row

          for y, (cell, group) in placed do
              Svg.text (labelWidth - 10.0) (y + float group.Length * barHeight / 2.0 + 3.5) "cell" cell ]

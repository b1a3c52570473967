/// Bulk TCP as grouped bars: throughput at the left, server CPU time at the right. Plain SVG without script or font;
/// the ground is transparent, and text follows the reader's light or dark scheme.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Chart

open System
open System.Globalization
open System.Net

let private barHeight = 11.0 // all lengths in px
let private groupGap = 13.0
let private labelWidth = 250.0
let private panelWidth = 270.0
let private panelGap = 70.0
let private top = 66.0

let private colours =
    Map
        [ "off", "#8b949e"
          "on", "#2f7fd1"
          "wireguard-go", "#d9822b"
          "other off", "#b9a3d6"
          "other on", "#7a4fb5" ]

let private colourOf variant =
    Map.tryFind variant colours |> Option.defaultValue "#4c9a6a"

let private px (value: float) =
    value.ToString("0.#", CultureInfo.InvariantCulture)

let private text (x: float) (y: float) (style: string) (content: string) =
    $"""<text x="{px x}" y="{px y}" class="{style}">{WebUtility.HtmlEncode content}</text>"""

/// What a panel shows of a row.
type private Panel =
    { Title: string
      Left: float
      Value: Row -> float
      Format: string }

let private bar (panel: Panel) (maximum: float) (y: float) (row: Row) =
    let value = panel.Value row
    let width = max 1.0 (value / maximum * panelWidth)
    let label = value.ToString(panel.Format, CultureInfo.InvariantCulture)

    [ $"""<rect x="{px panel.Left}" y="{px y}" width="{px width}" height="{px (barHeight - 1.5)}" fill="{colourOf row.Variant}"/>"""
      text (panel.Left + width + 4.0) (y + barHeight - 2.5) "value" label ]

let private legend (variants: string list) =
    variants
    |> List.mapi (fun index variant ->
        let x = labelWidth + float index * 130.0

        [ $"""<rect x="{px x}" y="14" width="12" height="10" fill="{colourOf variant}"/>"""
          text (x + 18.0) 23.0 "label" variant ])
    |> List.concat

/// Rows of which each stands for a cell and a variant. Others than bulk TCP are not drawn.
let svg (rows: Row list) : string =
    let rows = rows |> List.filter _.Traffic.StartsWith("tcp")
    let variants = rows |> List.map _.Variant |> List.distinct
    let groups = rows |> List.groupBy _.Cell

    let panels =
        [ { Title = "throughput, Mbit/s (more is better)"
            Left = labelWidth
            Value = _.MegabitsPerSecond
            Format = "0" }
          { Title = "server CPU, s per GB (less is better)"
            Left = labelWidth + panelWidth + panelGap
            Value = _.ServerCpuPerGigabyte
            Format = "0.00" } ]

    let starts =
        groups |> List.scan (fun y (_, group) -> y + float group.Length * barHeight + groupGap) top

    let height = List.last starts
    let width = labelWidth + 2.0 * (panelWidth + panelGap)

    let body =
        [ yield! legend variants

          for panel in panels do
              let maximum = rows |> List.map panel.Value |> List.fold max 1e-9
              text panel.Left (top - 14.0) "title" panel.Title
              $"""<path class="axis" d="M{px panel.Left} {px (top - 5.0)}V{px (height - groupGap + 4.0)}"/>"""

              for y, (_, group) in List.zip (List.take groups.Length starts) groups do
                  for index, row in List.indexed group do
                      yield! bar panel maximum (y + float index * barHeight) row

          for y, (cell, group) in List.zip (List.take groups.Length starts) groups do
              text (labelWidth - 10.0) (y + float group.Length * barHeight / 2.0 + 3.5) "cell" cell ]

    let style =
        "text{font:12px system-ui,sans-serif;fill:#424a53}.value{font-size:10px}.title{font-weight:600}"
        + ".cell{text-anchor:end}.axis{stroke:#8b949e;fill:none}"
        + "@media(prefers-color-scheme:dark){text{fill:#b6bfc9}}"

    String.concat
        "\n"
        [ $"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {px width} {px height}" role="img">"""
          "<title>Bulk TCP through the tunnel</title>"
          $"<style>{style}</style>"
          yield! body
          "</svg>"
          "" ]

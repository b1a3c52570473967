/// Plain SVG without script or font. The ground is transparent, and text follows the reader's light or dark scheme.
/// Lengths are px.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Svg

open System.Globalization
open System.Net

let px (value: float) =
    value.ToString("0.#", CultureInfo.InvariantCulture)

/// `y` is the text's base line; `style` names a class of the document's style.
let text (x: float) (y: float) (style: string) (content: string) : string =
    $"""<text x="{px x}" y="{px y}" class="{style}">{WebUtility.HtmlEncode content}</text>"""

/// With a tooltip.
let bar (x: float) (y: float) (width: float) (height: float) (colour: string) (tip: string) : string =
    let title = WebUtility.HtmlEncode tip

    $"""<rect x="{px x}" y="{px y}" width="{px width}" height="{px height}" fill="{colour}"><title>{title}</title></rect>"""

let axis (x: float) (top: float) (bottom: float) : string =
    $"""<path class="axis" d="M{px x} {px top}V{px bottom}"/>"""

let private style =
    "text{font:12px system-ui,sans-serif;fill:#6e7781}"
    + ".value{font-size:10px}.title{font-weight:600}.cell{text-anchor:end}.in{font-size:10px;fill:#fff}"
    + ".axis{stroke:#8b949e;fill:none}"
    + "@media(prefers-color-scheme:dark){text{fill:#b6bfc9}.in{fill:#fff}}"

/// The whole document.
let document (title: string) (width: float) (height: float) (body: string list) : string =
    [ $"""<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {px width} {px height}" role="img">"""
      $"<title>{WebUtility.HtmlEncode title}</title>"
      $"<style>{style}</style>" ]
    @ body
    @ [ "</svg>"; "" ]
    |> String.concat "\n"

/// Of a variant, in every chart.
let colourOf (variant: string) : string =
    match variant with
    | "off" -> "#8b949e"
    | "on" -> "#2f7fd1"
    | "on, wolfcrypt" -> "#86b7ea"
    | "wireguard-go" -> "#d9822b"
    | "other off" -> "#b9a3d6"
    | "other on" -> "#7a4fb5"
    | _ -> "#4c9a6a"

/// A variant's name where nothing else says of what.
let labelOf (variant: string) : string =
    match variant with
    | "off"
    | "on"
    | "on, wolfcrypt" -> $"offload {variant}"
    | variant -> variant

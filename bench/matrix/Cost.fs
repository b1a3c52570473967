/// Where the server's time for one segment goes, as a flame graph that lies: the whole on top, its parts below it.
/// The whole is measured end to end (CPU time of the process); the parts of our engine are medians of the
/// micro-benchmarks; the rest is system calls, what the kernel does in them, and the loop.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Cost

/// Payload bytes of a bulk segment: an inside MTU of 1350 less 52 bytes of headers. 1 s/GB is 1 ns a byte.
let private segment = 1298.0

/// Methods of bench/Micro.fs by direction: the engine's whole way of a segment, and the disjoint steps in it that are
/// measured alone, each with its name in the chart. A method that has not run is left out; a new one is named here.
let private steps =
    [ "down", "Expresslane", [ "Header", "header"; "Seal", "seal" ]
      "up", "OpenExpresslane", [ "CoalesceTcp", "verify, coalesce" ] ]

type private Part =
    { Label: string
      Start: float // ns
      Length: float
      Colour: string }

let private left = 130.0
let private width = 760.0
let private height = 17.0
let private gap = 16.0

let private blues = [ "#2f7fd1"; "#1f5f9e"; "#3f6fae"; "#2b6cb0" ]

/// The engine's part below a row with offload on: two lines, the engine as a whole and its steps.
let private parts (micro: MicroResult list) (direction: string) (total: float) : Part list list =
    let find name =
        micro |> List.tryFind (fun result -> result.Method = name)

    let _, pipeline, names = steps |> List.find (fun (name, _, _) -> name = direction)

    match find pipeline with
    | None -> []
    | Some pipeline ->
        let engine = min total pipeline.Nanoseconds

        let measured =
            names
            |> List.choose (fun (method, label) ->
                find method |> Option.map (fun result -> { result with Title = label }))

        let starts = measured |> List.scan (fun start step -> start + step.Nanoseconds) 0.0

        [ [ { Label = "engine"
              Start = 0.0
              Length = engine
              Colour = "#2f7fd1" }
            { Label = "system calls, kernel, loop"
              Start = engine
              Length = total - engine
              Colour = "#6e7781" } ]
          [ for index, (start, step) in List.zip (List.take measured.Length starts) measured |> List.indexed do
                { Label = step.Title
                  Start = start
                  Length = max 0.0 (min step.Nanoseconds (engine - start))
                  Colour = blues[(index + 1) % blues.Length] }

            let rest = List.last starts

            if rest < engine then
                { Label = "rest"
                  Start = rest
                  Length = engine - rest
                  Colour = "#5b9bd5" } ] ]

let private draw (scale: float) (y: float) (part: Part) =
    let length = part.Length * scale
    let label = $"{part.Label} {part.Length:F0}"
    let x = left + part.Start * scale

    [ Svg.bar x y (max 0.5 (length - 1.0)) (height - 1.0) part.Colour $"{part.Label}: {part.Length:F0} ns"

      if length > 6.0 * float label.Length then
          Svg.text (x + 4.0) (y + 12.0) "in" label ]

/// One TCP flow over Expresslane and the yardstick, each direction. Rows of which each stands for a cell and a variant.
let svg (micro: MicroResult list) (rows: Row list) : string =
    let rows =
        rows
        |> List.filter (fun row -> row.Path = "expresslane" && row.Traffic = "tcp 1 flow" && row.Clients = 1)

    let costOf (row: Row) = row.ServerCpuPerGigabyte * segment
    let scale = width / (rows |> List.map costOf |> List.fold max 1.0)

    let groups =
        [ for direction in [ "down"; "up" ] do
              for row in rows |> List.filter (fun row -> row.Direction = direction) do
                  let total = costOf row

                  let whole =
                      { Label = Svg.labelOf row.Variant
                        Start = 0.0
                        Length = total
                        Colour = Svg.colourOf row.Variant }

                  let below =
                      if row.Variant = "on" then
                          parts micro direction total
                      else
                          []

                  direction, [ whole ] :: below ]

    let starts =
        groups |> List.scan (fun y (_, lines) -> y + height * float lines.Length + gap) 34.0

    Svg.document
        "Server CPU time of one segment"
        (left + width + 10.0)
        (List.last starts)
        [ Svg.text left 20.0 "title" "server CPU, ns per segment of 1298 bytes (Expresslane, TCP, 1 flow)"

          for y, (direction, lines) in List.zip (List.take groups.Length starts) groups do
              Svg.text (left - 10.0) (y + 12.0) "cell" direction

              for index, line in List.indexed lines do
                  for part in line do
                      yield! draw scale (y + float index * height) part ]

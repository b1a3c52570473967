/// Where the server's time for one segment goes, as a flame graph that lies: the whole on top, its parts below it.
/// The whole is measured end to end (CPU time of the process). Its parts are shares of samples (Profile); without them
/// our engine's parts are medians of the micro-benchmarks, and the rest is system calls, the kernel in them, and the loop.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Cost

/// Payload bytes of a bulk segment: an inside MTU of 1350 less 52 bytes of headers. 1 s/GB is 1 ns a byte.
let private segment = 1298.0

let private costOf (row: Row) = row.ServerCpuPerGigabyte * segment

type private Part =
    { Label: string
      Start: float // ns
      Length: float
      Colour: string }

/// Parts one behind the other.
let private behind (start: float) (parts: (string * float * string) list) : Part list =
    let starts = parts |> List.scan (fun start (_, length, _) -> start + length) start

    List.zip (List.take parts.Length starts) parts
    |> List.map (fun (start, (label, length, colour)) ->
        { Label = label
          Start = start
          Length = length
          Colour = colour })

/// User space is blue, system calls go by turns brown and green, the rest is grey; parts are lighter, every other one more.
let private stageColours =
    [ "#1f5f9e"; "#2f7fd1"; "#3f6fae"; "#9a5b1e"; "#3d7a55"; "#9a5b1e"; "#3d7a55"; "#9a5b1e" ]

let private colourOf (stage: string) =
    Profile.stages
    |> List.tryFindIndex ((=) stage) // a file may name stages that no longer exist
    |> Option.bind (fun index -> List.tryItem index stageColours)
    |> Option.defaultValue "#6e7781"

let private lighter (index: int) (colour: string) =
    let portion = if index % 2 = 0 then 0.25 else 0.4

    let channel at =
        let value = System.Convert.ToInt32(colour.Substring(at, 2), 16)
        int (float value + portion * float (255 - value))

    $"#{channel 1:x2}{channel 3:x2}{channel 5:x2}"

/// Below the whole: stages, and the parts of each.
let private ofProfile (profile: Profile) (total: float) : Part list list =
    let nanoseconds (shares: Share list) =
        float (Profile.samples shares) / float profile.Samples * total

    let stages = profile.Shares |> List.groupBy _.Stage

    [ stages |> List.map (fun (stage, shares) -> stage, nanoseconds shares, colourOf stage) |> behind 0.0
      stages
      |> List.collect (snd >> List.indexed)
      |> List.map (fun (index, share) -> share.Part, nanoseconds [ share ], lighter index (colourOf share.Stage))
      |> behind 0.0 ]

/// Methods of bench/Benchmarks.fs by direction: the engine's whole way of a segment, and the disjoint steps in it that are
/// measured alone, each with its name in the chart. A method that has not run is left out; a new one is named here.
let private steps =
    Map
        [ "down", ("Expresslane", [ "Header", "header"; "FastSeal", "seal" ])
          "up", ("OpenExpresslane", [ "CoalesceTcp", "verify, coalesce" ]) ]

/// Below the whole when there is no profile: the engine and all else, and the engine's steps.
let private ofMicro (micro: MicroResult list) (direction: string) (total: float) : Part list list =
    let find name =
        micro |> List.tryFind (fun result -> result.Method = name) |> Option.map _.Nanoseconds

    let pipeline, names = steps[direction]

    match find pipeline with
    | None -> []
    | Some pipeline ->
        let engine = min total pipeline

        let measured =
            names
            |> List.choose (fun (method, label) -> find method |> Option.map (fun length -> label, length, "#3f6fae"))

        let rest = engine - List.sumBy (fun (_, length, _) -> length) measured

        [ behind 0.0 [ "engine", engine, "#2f7fd1"; "system calls, kernel, loop", total - engine, "#6e7781" ]
          behind 0.0 [ yield! measured; "rest", max 0.0 rest, "#5b9bd5" ] ]

let private left = 130.0
let private width = 760.0
let private height = 17.0
let private gap = 16.0

let private draw (scale: float) (y: float) (part: Part) =
    let length = part.Length * scale
    let label = $"{part.Label} {part.Length:F0}"
    let x = left + part.Start * scale

    [ Svg.bar x y (max 0.5 (length - 1.0)) (height - 1.0) part.Colour $"{part.Label}: {part.Length:F0} ns"

      if length > 6.0 * float label.Length then
          Svg.text (x + 4.0) (y + 12.0) "in" label
      elif length > 6.0 * float part.Label.Length then
          Svg.text (x + 4.0) (y + 12.0) "in" part.Label ]

/// Groups of lines, each with its name, to a scale of their own. Returns the end of the last one as well.
let private panel (top: float) (title: string) (groups: (string * Part list list) list) : string list * float =
    let all = groups |> List.collect snd |> List.concat
    let scale = width / (all |> List.map _.Length |> List.fold max 1.0)

    let starts =
        groups |> List.scan (fun y (_, lines) -> y + height * float lines.Length + gap) (top + 34.0)

    [ Svg.text left (top + 20.0) "title" title

      for y, (name, lines) in List.zip (List.take groups.Length starts) groups do
          Svg.text (left - 10.0) (y + 12.0) "cell" name

          for index, line in List.indexed lines do
              for part in line do
                  yield! draw scale (y + float index * height) part ],
    List.last starts

/// One TCP flow over Expresslane and the yardstick, each direction; below, ours with offload on in its parts, to a
/// larger scale. Rows of which each stands for a cell and a variant.
let svg (micro: MicroResult list) (profiles: Profile list) (rows: Row list) : string =
    let rows =
        [ for direction in [ "down"; "up" ] do
              for row in rows do
                  if
                      row.Direction = direction
                      && row.Path = "expresslane"
                      && row.Traffic = "tcp 1 flow"
                      && row.Clients = 1
                  then
                      row ]

    let whole (row: Row) =
        behind 0.0 [ Svg.labelOf row.Variant, costOf row, Svg.colourOf row.Variant ]

    let below (row: Row) =
        match Profile.find profiles row.Cell row.Variant with
        | Some profile -> ofProfile profile (costOf row)
        | None -> ofMicro micro row.Direction (costOf row)

    let compared, middle =
        panel
            0.0
            "server CPU, ns per segment of 1298 bytes (Expresslane, TCP, 1 flow)"
            [ for row in rows -> row.Direction, [ whole row ] ]

    let known =
        [ for row in rows do
              match below row with
              | [] -> ()
              | parts when row.Variant = "on" -> row.Direction, whole row :: parts
              | _ -> () ]

    let parts, bottom =
        match known with
        | [] -> [], middle
        | known -> panel middle "offload on: where it goes" known

    Svg.document "Server CPU time of one segment" (left + width + 10.0) bottom (compared @ parts)

let private ofRow (row: Row) (profile: Profile) : string list =
    let percent (shares: Share list) =
        100.0 * float (Profile.samples shares) / float profile.Samples

    let line (stage: string, shares: Share list) =
        let large, small = shares |> List.partition (fun share -> percent [ share ] >= 0.5)
        let part name shares = $"{name} {percent shares:F1}"

        let parts =
            [ for share in large -> part share.Part [ share ]
              if not small.IsEmpty then
                  yield part "smaller ones" small ]
            |> String.concat ", "

        $"| {stage} | {percent shares:F1} | {costOf row * percent shares / 100.0:F0} | {parts} |"

    [ $"**{row.Cell}**, offload {row.Variant}: {profile.Samples} samples, {costOf row:F0} ns a segment"
      ""
      "| stage | % | ns | of it, % of the whole |"
      "| --- | --: | --: | --- |" ]
    @ (profile.Shares |> List.groupBy _.Stage |> List.map line)
    @ [ "" ]

/// The chart's shares as Markdown; what to install when there are none.
let table (profiles: Profile list) (rows: Row list) : string =
    let tables =
        [ for row in rows do
              match Profile.find profiles row.Cell row.Variant with
              | Some profile -> yield! ofRow row profile
              | None -> () ]

    if tables.IsEmpty then
        "(No samples in this run. They need root and `perf`; on Debian: `apt-get install linux-perf`.)"
    else
        (String.concat "\n" tables).TrimEnd()

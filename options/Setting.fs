namespace Lightway.Options

/// The origin of a value, for messages.
[<RequireQualifiedAccess>]
type internal Source =
    | Default
    | File of path: string * line: int
    | Environment of variable: string
    | Flag of name: string

    member this.Describe() =
        match this with
        | Default -> "the default"
        | File(path, line) -> $"{path}:{line}"
        | Environment variable -> $"environment variable {variable}"
        | Flag name -> $"flag {name}"

/// The value of a key before it is typed. Only YAML has other values than scalars.
[<RequireQualifiedAccess>]
type internal Node =
    /// A key without a value, or `null`: the option counts as not given.
    | Absent
    | Scalar of text: string
    | List of Node list
    | Table of Setting list

/// One key with its value. `Key` is in snake_case in every layer.
and internal Setting =
    { Key: string
      Node: Node
      Source: Source }

[<RequireQualifiedAccess>]
module internal Setting =
    /// Merges layers, the weakest first: for each key the whole value of the strongest layer that sets it wins.
    /// Law: merging is associative, and a layer without the key changes nothing.
    let merge (layers: Setting list list) : Map<string, Setting> =
        (Map.empty, List.concat layers)
        ||> List.fold (fun merged setting ->
            match setting.Node with
            | Node.Absent -> merged
            | _ -> Map.add setting.Key setting merged)

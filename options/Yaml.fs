namespace Lightway.Options

open System
open System.IO
open YamlDotNet.Core
open YamlDotNet.RepresentationModel

/// Passes YAML events on and refuses deep nesting, before the loader that reads them overflows the stack: it recurses.
[<Sealed>]
type private NestingLimit(inner: IParser, deepest: int) =
    let mutable depth = 0

    interface IParser with
        member _.Current = inner.Current

        member _.MoveNext() =
            let moved = inner.MoveNext()

            match inner.Current with
            | NonNull event when moved ->
                depth <- depth + event.NestingIncrease

                if depth > deepest then
                    let start = event.Start
                    raise (YamlException(&start, &start, "nested too deeply"))
            | _ -> ()

            moved

/// The YAML layer: one mapping at the root; each key keeps its line.
[<RequireQualifiedAccess>]
module internal Yaml =
    /// Deepest nesting of an option: servers -> entry -> value. It also ends aliases that contain themselves.
    [<Literal>]
    let private MaxDepth = 4

    /// Deepest nesting that is read at all, stream and document included.
    [<Literal>]
    let private MaxNesting = 64

    /// The plain scalars that YAML 1.2's core schema reads as null; a quoted "" is an empty string.
    let private isNull (node: YamlScalarNode) =
        node.Style = ScalarStyle.Plain
        && match node.Value with
           | null
           | ""
           | "~"
           | "null"
           | "Null"
           | "NULL" -> true
           | _ -> false

    let private lineOf (node: YamlNode) = int node.Start.Line

    let rec private node (path: string) (depth: int) (source: YamlNode) : Result<Node, string> =
        match source with
        | _ when depth > MaxDepth -> Error $"{path}:{lineOf source}: nested too deeply for an option"
        | :? YamlScalarNode as scalar ->
            Ok(
                if isNull scalar then
                    Node.Absent
                else
                    Node.Scalar(string scalar.Value)
            )
        | :? YamlMappingNode as mapping -> settings path depth mapping |> Result.map Node.Table
        | :? YamlSequenceNode as sequence ->
            (Ok [], List.ofSeq sequence.Children)
            ||> List.fold (fun items item ->
                items
                |> Result.bind (fun items -> node path (depth + 1) item |> Result.map (fun item -> item :: items)))
            |> Result.map (List.rev >> Node.List)
        | other -> Error $"{path}:{lineOf other}: not a value, a list or a map"

    and private settings (path: string) (depth: int) (mapping: YamlMappingNode) : Result<Setting list, string> =
        (Ok [], List.ofSeq mapping.Children)
        ||> List.fold (fun settings entry ->
            settings
            |> Result.bind (fun settings ->
                match entry.Key with
                | :? YamlScalarNode as key ->
                    node path (depth + 1) entry.Value
                    |> Result.map (fun value ->
                        { Key = string key.Value
                          Node = value
                          Source = Source.File(path, lineOf key) }
                        :: settings)
                | key -> Error $"{path}:{lineOf key}: a key must be a single word"))
        |> Result.map List.rev

    /// Settings of one document, in the order of the file. Errors name path and line; it never raises.
    let parse (path: string) (text: string) : Result<Setting list, string> =
        try
            let stream = YamlStream()
            stream.Load(NestingLimit(Parser(new StringReader(text)), MaxNesting))

            match List.ofSeq stream.Documents with
            | [] -> Ok []
            | [ document ] ->
                match document.RootNode with
                | :? YamlMappingNode as mapping -> settings path 0 mapping
                | :? YamlScalarNode as scalar when isNull scalar -> Ok []
                | other -> Error $"{path}:{lineOf other}: the file must contain `key: value` lines"
            | _ :: second :: _ -> Error $"{path}:{lineOf second.RootNode}: a second YAML document; only one is allowed"
        with
        | :? YamlException as refused -> Error $"{path}:{refused.Start.Line}: not valid YAML: {refused.Message}"
        // For some lists and maps that are not closed, YamlDotNet raises other exceptions, without a line.
        | _ -> Error $"{path}: not valid YAML: a list or a map is not closed"

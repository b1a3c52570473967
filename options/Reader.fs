namespace Lightway.Options

open System

/// One option as a program read it.
type internal Reading =
    {
        Key: string
        Shape: Shape
        /// The value without any layer; Absent: none.
        Default: Node
        /// The value in use; that of a secret is hidden.
        Value: Node
        Source: Source
    }

/// Turns merged settings into typed values. It keeps a note of each option that was read, with its shape, default and value:
/// pages, schemas and reports about options are made of these notes, so options are listed nowhere else.
/// It records refusals instead of raising, so that a record can be built in
/// one expression; check `Error` before using the result.
[<Sealed>]
type internal Reader(layers: Map<string, Setting>) =
    let mutable settings = layers
    let mutable error: string option = None
    let warnings = ResizeArray<string>()
    let readings = ResizeArray<Reading>()

    let found (key: string) (parse: Parser<'T>) (value: 'T) : Node =
        match Map.tryFind key settings, parse.Shape with
        | None, _
        | Some _, Shape.Any -> Node.Absent
        | Some _, _ -> Node.Scalar(parse.Show value)

    /// The first refusal: one line with key, value, source and the allowed values.
    member _.Error = error

    member _.Warnings = warnings

    member _.TryFind(key: string) : Setting option = Map.tryFind key settings

    /// The options that were read, each once, in the order of their first reading.
    member _.Readings: Reading list = List.ofSeq readings

    /// Keeps a note of an option that none of the other members reads. `value` is what its setting, if there is one, means.
    member this.Note(key: string, shape: Shape, fallback: Node, value: Node) : unit =
        if not (readings.Exists(fun reading -> reading.Key = key)) then
            let source =
                match this.TryFind key with
                | Some setting -> setting.Source
                | None -> Source.Default

            readings.Add
                { Key = key
                  Shape = shape
                  Default = fallback
                  Value = (if source = Source.Default then fallback else value)
                  Source = source }

    /// Says that an option that was read has another value for a reason of its own.
    member _.Override(key: string, value: Node, source: Source) : unit =
        let at = readings.FindIndex(fun reading -> reading.Key = key)

        readings[at] <-
            { readings[at] with
                Value = value
                Source = source }

    /// Removes the settings of the keys `without`, then adds `over`, stronger than all layers.
    member _.Overlay(over: Setting list, without: string list) : unit =
        let rest = (settings, without) ||> List.fold (fun rest key -> Map.remove key rest)
        settings <- Setting.merge [ List.map snd (Map.toList rest); over ]

    /// A reader of the same layers that differs as `Overlay` says; this one stays as it is.
    member _.With(over: Setting list, without: string list) : Reader =
        let other = Reader settings
        other.Overlay(over, without)
        other

    /// Takes over what another reader has refused and warned of, each once.
    member this.Join(other: Reader) : unit =
        Option.iter this.Refuse other.Error

        for warning in other.Warnings do
            if not (warnings.Contains warning) then
                warnings.Add warning

    member _.Warn(message: string) : unit = warnings.Add message

    /// Records a refusal, one complete line.
    member _.Refuse(message: string) : unit =
        if error.IsNone then
            error <- Some message

    /// Refuses a value that is well-formed but not allowed in this combination or in this build.
    member this.Reject(key: string, value: string, problem: string) : unit =
        let source =
            match this.TryFind key with
            | Some setting -> setting.Source
            | None -> Source.Default

        this.Refuse $"{key}: \"{value}\" {problem} ({source.Describe()})"

    member _.Scalar<'T>(setting: Setting, parse: Parser<'T>) : Result<'T, string> =
        match setting.Node with
        | Node.Scalar text ->
            parse.Parse text
            |> Result.mapError (fun allowed ->
                let shown = if parse.Shape = Shape.Secret then "" else $" \"{text}\""
                $"{setting.Key}:{shown} is not valid; allowed: {allowed} ({setting.Source.Describe()})")
        | Node.List _ ->
            Error $"{setting.Key}: a list is not valid; a single value is required ({setting.Source.Describe()})"
        | Node.Table _
        | Node.Absent ->
            Error $"{setting.Key}: a map is not valid; a single value is required ({setting.Source.Describe()})"

    /// The typed value of `key`, or `fallback` if no layer sets it or its value is refused.
    member this.Read<'T>(key: string, parse: Parser<'T>, fallback: 'T) : 'T =
        let value =
            match this.TryFind key with
            | None -> fallback
            | Some setting -> this.Accept(this.Scalar(setting, parse), fallback)

        this.Note(key, parse.Shape, Node.Scalar(parse.Show fallback), found key parse value)
        value

    /// The typed value of `key`; None if no layer sets it or its value is refused.
    member this.TryRead<'T>(key: string, parse: Parser<'T>) : 'T option =
        let value =
            match this.TryFind key with
            | None -> None
            | Some setting -> this.Accept(Result.map Some (this.Scalar(setting, parse)), None)

        let shown =
            match value with
            | Some value -> found key parse value
            | None -> Node.Absent

        this.Note(key, parse.Shape, Node.Absent, shown)
        value

    /// The typed value of `key`, or null if no layer sets it or its value is refused.
    member this.ReadOrNull<'T when 'T: not struct and 'T: not null>(key: string, parse: Parser<'T>) : 'T | null =
        match this.TryRead(key, parse) with
        | Some value -> value
        | None -> null

    /// The typed value of `key`. If no layer sets it, records the refusal `missing`, as it does for a wrong value, and
    /// returns `nothing`.
    member this.Require<'T>(key: string, parse: Parser<'T>, missing: string, nothing: 'T) : 'T =
        match this.TryFind key with
        | None -> this.Refuse missing
        | Some _ -> ()

        this.TryRead(key, parse) |> Option.defaultValue nothing

    /// The typed values of `key`, a list of the file or values separated by commas, or `fallback` if no layer sets it or
    /// one of its values is refused. A list without values is refused.
    member this.ReadList<'T>(key: string, parse: Parser<'T>, fallback: 'T list) : 'T list =
        let inOrder (results: Result<'T, string> list) =
            (results, Ok [])
            ||> List.foldBack (fun result rest ->
                match result, rest with
                | Ok value, Ok values -> Ok(value :: values)
                | Error message, _
                | _, Error message -> Error message)

        let scalar setting text =
            this.Scalar({ setting with Node = Node.Scalar text }, parse)

        let values =
            match this.TryFind key with
            | None -> fallback
            | Some { Node = Node.List []; Source = source } ->
                this.Accept(
                    Error $"{key}: an empty list is not valid; at least one value is required ({source.Describe()})",
                    fallback
                )
            | Some({ Node = Node.List values } as setting) ->
                this.Accept(
                    inOrder [ for value in values -> this.Scalar({ setting with Node = value }, parse) ],
                    fallback
                )
            | Some({ Node = Node.Scalar text } as setting) ->
                this.Accept(inOrder [ for value in text.Split ',' -> scalar setting (value.Trim()) ], fallback)
            | Some setting -> this.Accept(Result.map List.singleton (this.Scalar(setting, parse)), fallback)

        let shown values =
            Node.List [ for value in values -> Node.Scalar(parse.Show value) ]

        this.Note(key, Shape.List parse.Shape, (if fallback.IsEmpty then Node.Absent else shown fallback), shown values)

        values

    /// The value of `result`, or `fallback` after recording its error.
    member this.Accept<'T>(result: Result<'T, string>, fallback: 'T) : 'T =
        match result with
        | Ok value -> value
        | Error message ->
            this.Refuse message
            fallback

    member this.Bool(key: string, fallback: bool) : bool = this.Read(key, Value.boolean, fallback)

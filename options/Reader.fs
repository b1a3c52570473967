namespace Lightway.Options

open System

/// Turns merged settings into typed values. It records refusals instead of raising, so that a record can be built in
/// one expression; check `Error` before using the result.
[<Sealed>]
type internal Reader(layers: Map<string, Setting>) =
    let mutable settings = layers
    let mutable error: string option = None
    let warnings = ResizeArray<string>()

    /// The first refusal: one line with key, value, source and the allowed values.
    member _.Error = error

    member _.Warnings = warnings

    member _.TryFind(key: string) : Setting option = Map.tryFind key settings

    /// Removes the settings of the keys `without`, then adds `over`, stronger than all layers.
    member _.Overlay(over: Setting list, without: string list) : unit =
        let rest = (settings, without) ||> List.fold (fun rest key -> Map.remove key rest)
        settings <- Setting.merge [ List.map snd (Map.toList rest); over ]

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
            parse text
            |> Result.mapError (fun allowed ->
                $"{setting.Key}: \"{text}\" is not valid; allowed: {allowed} ({setting.Source.Describe()})")
        | Node.List _ ->
            Error $"{setting.Key}: a list is not valid; a single value is required ({setting.Source.Describe()})"
        | Node.Table _
        | Node.Absent ->
            Error $"{setting.Key}: a map is not valid; a single value is required ({setting.Source.Describe()})"

    /// The typed value of `key`, or `fallback` if no layer sets it or its value is refused.
    member this.Read<'T>(key: string, parse: Parser<'T>, fallback: 'T) : 'T =
        match this.TryFind key with
        | None -> fallback
        | Some setting -> this.Accept(this.Scalar(setting, parse), fallback)

    /// The typed value of `key`, or null if no layer sets it or its value is refused.
    member this.ReadOrNull<'T when 'T: not struct and 'T: not null>(key: string, parse: Parser<'T>) : 'T | null =
        match this.TryFind key with
        | None -> null
        | Some setting ->
            match this.Scalar(setting, parse) with
            | Ok value -> value
            | Error message ->
                this.Refuse message
                null

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

        match this.TryFind key with
        | None -> fallback
        | Some { Node = Node.List []; Source = source } ->
            this.Accept(
                Error $"{key}: an empty list is not valid; at least one value is required ({source.Describe()})",
                fallback
            )
        | Some({ Node = Node.List values } as setting) ->
            this.Accept(inOrder [ for value in values -> this.Scalar({ setting with Node = value }, parse) ], fallback)
        | Some({ Node = Node.Scalar text } as setting) ->
            this.Accept(inOrder [ for value in text.Split ',' -> scalar setting (value.Trim()) ], fallback)
        | Some setting -> this.Accept(Result.map List.singleton (this.Scalar(setting, parse)), fallback)

    /// Refuses the value of `setting` unless `parse` accepts it.
    member this.Check<'T>(setting: Setting, parse: Parser<'T>) : unit =
        match this.Scalar(setting, parse) with
        | Ok _ -> ()
        | Error message -> this.Refuse message

    /// Refuses the value of `key`, if a layer sets it, unless `parse` accepts it.
    member this.Check<'T>(key: string, parse: Parser<'T>) : unit =
        match this.TryFind key with
        | Some setting -> this.Check(setting, parse)
        | None -> ()

    /// The value of `result`, or `fallback` after recording its error.
    member this.Accept<'T>(result: Result<'T, string>, fallback: 'T) : 'T =
        match result with
        | Ok value -> value
        | Error message ->
            this.Refuse message
            fallback

    member this.Bool(key: string, fallback: bool) : bool = this.Read(key, Value.boolean, fallback)

namespace Lightway.Options

open System

/// Turns merged settings into typed values. It notes what is refused instead of raising, so that a record
/// can be built in one expression; look at `Error` before using what was built.
[<Sealed>]
type internal Reader(layers: Map<string, Setting>) =
    let mutable settings = layers
    let mutable error: string option = None
    let warnings = ResizeArray<string>()

    /// The first refusal: one line with key, value, source and what is allowed.
    member _.Error = error

    member _.Warnings = warnings

    member _.TryFind(key: string) : Setting option = Map.tryFind key settings

    /// Drops the settings of `without`, then lays `over` on top, stronger than all layers.
    member _.Overlay(over: Setting list, without: string list) : unit =
        let rest = (settings, without) ||> List.fold (fun rest key -> Map.remove key rest)
        settings <- Setting.merge [ List.map snd (Map.toList rest); over ]

    member _.Warn(message: string) : unit = warnings.Add message

    /// Notes a refusal, one whole line.
    member _.Refuse(message: string) : unit =
        if error.IsNone then
            error <- Some message

    /// Refuses a value that was read well but cannot stand, in combination or in this build.
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
        | Node.List _ -> Error $"{setting.Key}: a list is not valid; one value is needed ({setting.Source.Describe()})"
        | Node.Table _
        | Node.Absent -> Error $"{setting.Key}: a map is not valid; one value is needed ({setting.Source.Describe()})"

    /// The typed value of `key`, or `fallback` when no layer gives it or its value is refused.
    member this.Read<'T>(key: string, parse: Parser<'T>, fallback: 'T) : 'T =
        match this.TryFind key with
        | None -> fallback
        | Some setting -> this.Accept(this.Scalar(setting, parse), fallback)

    /// The typed value of `key`, or null when no layer gives it or its value is refused.
    member this.ReadOrNull<'T when 'T: not struct and 'T: not null>(key: string, parse: Parser<'T>) : 'T | null =
        match this.TryFind key with
        | None -> null
        | Some setting ->
            match this.Scalar(setting, parse) with
            | Ok value -> value
            | Error message ->
                this.Refuse message
                null

    /// The value of `result`, or `fallback` after noting its error.
    member this.Accept<'T>(result: Result<'T, string>, fallback: 'T) : 'T =
        match result with
        | Ok value -> value
        | Error message ->
            this.Refuse message
            fallback

    member this.Bool(key: string, fallback: bool) : bool = this.Read(key, Value.boolean, fallback)

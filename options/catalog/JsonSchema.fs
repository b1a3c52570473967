namespace Lightway.Options

open System.Text.Encodings.Web
open System.Text.Json
open System.Text.Json.Nodes

/// `--generate jsonschema`: a JSON Schema (draft 2020-12) of the configuration file, for editors. It asks for the spelling of
/// the documentation: the programs accept more, such as `yes` for `true`.
[<RequireQualifiedAccess>]
module internal JsonSchema =
    let private duration =
        @"^\s*0\s*$|^(\s*\d+\s*(ns|nsec|nanos|us|usec|micros|ms|msec|millis|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?|w|wks?|weeks?)\s*)+$"

    let private size = @"^\s*\d+(\.\d+)?\s*([kKmMgG]([iI]?[bB]|[iI])?|[bB])?\s*$"

    let private text (value: string) : JsonNode = nonNull (JsonValue.Create value)

    let private object (members: (string * JsonNode | null) list) : JsonObject =
        let made = JsonObject()

        for name, value in members do
            made.Add(name, value)

        made

    let private array (items: (JsonNode | null) seq) : JsonNode = JsonArray(Array.ofSeq items)

    let private words (items: string seq) : JsonNode =
        array (items |> Seq.map (fun item -> text item))

    let private number (value: int64) : JsonNode = nonNull (JsonValue.Create value)

    let private ofType (name: string) (others: (string * JsonNode | null) list) : JsonNode =
        object (("type", text name) :: others)

    let private matching (pattern: string) =
        ofType "string" [ "pattern", text pattern ]

    /// The alternatives that a value has: one schema each.
    let rec private alternatives (shape: Shape) : JsonNode list =
        match shape with
        | Shape.Bool -> [ ofType "boolean" [] ]
        | Shape.Number(low, high) -> [ ofType "integer" [ "minimum", number low; "maximum", number high ] ]
        | Shape.Word allowed -> [ object [ "enum", words allowed ] ]
        | Shape.Text ""
        | Shape.Secret -> [ ofType "string" []; ofType "number" [] ] // digits without quotes are text to the programs
        | Shape.Text pattern -> [ matching pattern ]
        | Shape.File -> [ ofType "string" [] ]
        | Shape.Duration -> [ object [ "const", number 0L ]; matching duration ]
        | Shape.Size -> [ ofType "integer" [ "minimum", number 1L; "maximum", number 2147483647L ]; matching size ]
        | Shape.List item -> [ ofType "array" [ "items", one item; "minItems", number 1L ]; ofType "string" [] ]
        | Shape.Map(keys, values) ->
            [ ofType
                  "object"
                  [ "patternProperties", object [ keys, one values ]; "additionalProperties", JsonValue.Create false ] ]
        | Shape.Either shapes -> List.collect alternatives shapes
        | Shape.Any -> [ object [] ]

    and private one (shape: Shape) : JsonNode =
        match alternatives shape with
        | [ only ] -> only
        | several -> object [ "anyOf", array (Seq.map (fun schema -> schema) several) ]

    let rec private value (shape: Shape) (node: Node) : JsonNode | null =
        match node, shape with
        | Node.Absent, _ -> null
        | Node.Scalar "true", Shape.Bool -> JsonValue.Create true
        | Node.Scalar "false", Shape.Bool -> JsonValue.Create false
        | Node.Scalar digits, Shape.Number _ -> number (int64 digits)
        | Node.Scalar other, _ -> text other
        | Node.List items, Shape.List shape -> array (items |> Seq.map (value shape))
        | Node.List items, _ -> array (items |> Seq.map (value (Shape.Text "")))
        | Node.Table entries, _ -> object [ for entry in entries -> entry.Key, value (Shape.Text "") entry.Node ]

    let private property (option: OptionInfo) : JsonNode =
        // A key without a value counts as not given.
        let schemas = alternatives option.Shape @ [ ofType "null" [] ]

        object
            [ "description", text option.Help
              if option.Default <> Node.Absent then
                  "default", value option.Shape option.Default

              match option.Shape with
              | Shape.Any -> ()
              | _ -> "anyOf", array (Seq.map (fun schema -> schema) schemas)

              if option.IsHidden then
                  "deprecated", JsonValue.Create true ]

    let private layout =
        JsonSerializerOptions(WriteIndented = true, Encoder = JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

    /// Law: every file that it accepts is one whose keys the program knows.
    let generate (program: string) (options: OptionInfo list) : string =
        let properties =
            [ for option in options do
                  for name in option.Key :: option.Aliases -> name, property option ]

        let schema =
            object
                [ "$schema", text "https://json-schema.org/draft/2020-12/schema"
                  "title", text $"Configuration file of {program} {ProductVersion.text}"
                  "type", array [ text "object"; text "null" ]
                  "additionalProperties", JsonValue.Create false
                  "properties", object properties ]

        schema.ToJsonString layout

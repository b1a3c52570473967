namespace Lightway.Options

open System
open Argu

/// A flag of the command line.
[<NoComparison>]
type internal FlagInfo =
    {
        /// With their dashes, the long name first.
        Names: string list
        /// Name of the value on the help page; None: the flag has no value.
        Value: string option
        /// The flag may come without its value.
        IsValueOptional: bool
        Shape: Shape
        Help: string
        /// Title of the group on the help page.
        Group: string
        IsHidden: bool
    }

/// A program, or one of its commands, with all that can follow its name on the command line.
[<NoComparison>]
type internal CommandInfo =
    {
        Name: string
        Help: string
        /// Name on the help page of the argument that has no flag; None: there is none.
        Argument: string option
        Flags: FlagInfo list
        Commands: CommandInfo list
    }

/// A key of the configuration file.
[<NoComparison>]
type internal OptionInfo =
    {
        Key: string
        /// Other names of the same option.
        Aliases: string list
        Shape: Shape
        /// Absent: none.
        Default: Node
        Help: string
        Group: string
        IsHidden: bool
    }

/// What is known about options and flags. Nothing of it is a list of its own: names and sentences come from the
/// definitions of the flags, shapes and defaults from a reading without any setting.
[<RequireQualifiedAccess>]
module internal Catalog =
    /// What `--generate` writes.
    let generated = [ "yaml"; "jsonschema"; "man"; "bash"; "zsh"; "fish" ]

    let private fileOnly = "In the file only"

    /// A sentence without its default and the full stop, for shells.
    let brief (help: string) : string =
        let whole = help.Split(" Default: ")[0]
        let first = whole.Split("; ")[0]
        first.TrimEnd '.'

    /// Group of each flag: the heading at or before it.
    let private grouped (headings: (string * string) list) (flags: FlagInfo list) : FlagInfo list =
        let begins (flag: FlagInfo) =
            headings
            |> List.tryPick (fun (first, title) ->
                if List.contains (first.TrimEnd(' ', ',')) flag.Names then
                    Some title
                else
                    None)

        ("", flags)
        ||> List.mapFold (fun group flag ->
            let group = defaultArg (begins flag) group
            { flag with Group = group }, group)
        |> fst

    let private isFile (value: string) =
        [ "path"; "file"; "dir" ] |> List.exists (fun (word: string) -> value.Contains word)

    let private flag (shapes: Map<string, Shape>) (case: ArgumentCaseInfo) : FlagInfo =
        let names = case.CommandLineNames.Value |> List.sortByDescending _.StartsWith("--")
        let field = Array.tryHead (case.UnionCaseInfo.GetFields())
        let value = field |> Option.map _.Name

        let shape =
            match shapes.TryFind(Flags.keyOf names.Head), value with
            | Some shape, _ -> shape
            | None, Some value when isFile value -> Shape.File
            | None, _ -> Shape.Text ""

        { Names = names
          Value = value
          IsValueOptional = field |> Option.exists (fun field -> field.PropertyType = typeof<string option>)
          Shape = shape
          Help = case.Description.Value
          Group = ""
          IsHidden = case.IsHidden.Value }

    let rec private commandOf
        (name: string)
        (help: string)
        (headings: (string * string) list)
        (shapes: Map<string, Shape>)
        (parser: ArgumentParser)
        : CommandInfo =
        let cases = parser.GetArgumentCases()

        let isFlag (case: ArgumentCaseInfo) =
            case.ArgumentType <> ArgumentType.SubCommand
            && case.CommandLineNames.Value |> List.exists _.StartsWith('-')

        /// A command that is a single word.
        let isWord (case: ArgumentCaseInfo) =
            case.ArgumentType <> ArgumentType.SubCommand
            && not case.IsMainCommand
            && not case.CommandLineNames.Value.IsEmpty
            && not (isFlag case)

        let helpFlag =
            { Names = List.filter (fun (name: string) -> name.StartsWith '-') parser.HelpFlags
              Value = None
              IsValueOptional = false
              Shape = Shape.Bool
              Help = parser.HelpDescription
              Group = ""
              IsHidden = false }

        { Name = name
          Help = help
          Argument =
            cases
            |> List.tryFind _.IsMainCommand
            |> Option.bind (fun case -> case.UnionCaseInfo.GetFields() |> Array.tryHead |> Option.map _.Name)
          Flags = [ yield! List.map (flag shapes) (List.filter isFlag cases); helpFlag ] |> grouped headings
          Commands =
            [ for sub in parser.GetSubCommandParsers() do
                  match sub.ParentInfo with
                  | Some case -> commandOf case.CommandLineNames.Value.Head case.Description.Value [] Map.empty sub
                  | None -> ()

              for case in cases do
                  if isWord case then
                      { Name = case.CommandLineNames.Value.Head
                        Help = case.Description.Value
                        Argument = None
                        Flags = []
                        Commands = [] } ] }

    /// What the program reads when nothing is set, with shapes and defaults.
    let private readings (program: Program<'Argument, 'Options>) : Reading list =
        let reader = Reader Map.empty
        reader.Bool("accept_unknowns", false) |> ignore // read with the layers
        program.Read "" (Func<_, _>(fun _ -> null)) reader |> ignore
        reader.Readings

    let command (program: Program<'Argument, 'Options>) : CommandInfo =
        let shapes =
            Map
                [ yield "config_file", Shape.File
                  yield "generate", Shape.Word generated
                  for reading in readings program do
                      yield reading.Key, reading.Shape ]

        commandOf program.Name program.Help program.Headings shapes program.Parser

    /// The keys of a configuration file, in the order of the help page.
    let options (program: Program<'Argument, 'Options>) : OptionInfo list =
        let readings = Map [ for reading in readings program -> reading.Key, reading ]

        let aliases key =
            [ for name, other in Map.toSeq program.Names.Keys do
                  if other = key && name <> key then
                      name ]

        let option key help group isHidden =
            match readings.TryFind key with
            | None -> None
            | Some reading ->
                Some
                    { Key = key
                      Aliases = aliases key
                      Shape = reading.Shape
                      Default = reading.Default
                      Help = help
                      Group = group
                      IsHidden = isHidden }

        [ for flag in (command program).Flags do
              yield! Option.toList (option (Flags.keyOf flag.Names.Head) flag.Help flag.Group flag.IsHidden)

          for KeyValue(key, help) in program.Names.FileOnly do
              yield! Option.toList (option key help fileOnly false) ]

namespace Lightway.Options

open System
open Argu

[<RequireQualifiedAccess>]
module internal CommandLine =
    let error (message: string) : ParseOutcome<'Options> =
        // One line, whatever an exception's message or a value contains.
        ParseOutcome(OutcomeKind.Error, text = message.ReplaceLineEndings " ")

    /// A flag without a value is given. This is not ParseResults.Contains, whose argument is a quotation: those contain the full
    /// path of their source file, and the program would depend on the folder that it was built in.
    let isGiven<'Argument when 'Argument :> IArgParserTemplate and 'Argument: equality>
        (flag: 'Argument)
        (results: ParseResults<'Argument>)
        : bool =
        results.GetAllResults() |> List.contains flag

    let version (name: string) : ParseOutcome<'Options> =
        ParseOutcome(OutcomeKind.Version, text = $"{name} {ProductVersion.text}")

    let private help (program: Program<'Argument, 'Options>) : string =
        program.Parser.PrintUsage(message = program.Help, hideSyntax = true, usageStringCharacterWidth = Flags.Width)
        |> Flags.withHeadings program.Headings

    let private textOf (setting: Setting) : string =
        match setting.Node with
        | Node.Scalar text -> text
        | _ -> ""

    /// The text that `--generate` writes: to standard output, or to a new file that `--config-file` names.
    let private generate
        (program: Program<'Argument, 'Options>)
        (what: Setting)
        (flags: Setting list)
        : ParseOutcome<'Options> =
        let text =
            match textOf what with
            | "yaml" -> Ok(Template.text program.Name (Catalog.options program))
            | "jsonschema" -> Ok(JsonSchema.generate program.Name (Catalog.options program))
            | "man" -> Ok(Man.text (Catalog.command program) program.Manual program.Names.EnvironmentPrefix)
            | "bash" -> Ok(Completions.bash (Catalog.command program))
            | "zsh" -> Ok(Completions.zsh (Catalog.command program))
            | "fish" -> Ok(Completions.fish (Catalog.command program))
            | other ->
                let allowed = String.concat ", " Catalog.generated
                Error $"generate: \"{other}\" is not valid; allowed: {allowed} ({what.Source.Describe()})"

        match text, List.tryFindBack (fun (flag: Setting) -> flag.Key = "config_file") flags with
        | Error message, _ -> error message
        | Ok text, None -> ParseOutcome(OutcomeKind.Help, text = text)
        | Ok text, Some file -> ParseOutcome(OutcomeKind.Write, text = text + "\n", file = textOf file)

    let private readOptions
        (program: Program<'Argument, 'Options>)
        (flags: Setting list)
        (getEnv: Func<string, string | null>)
        (readFile: Func<string, string>)
        : ParseOutcome<'Options> =
        let isCheck = flags |> List.exists (fun flag -> flag.Key = "check_config")

        let given =
            flags |> List.filter (fun flag -> not (Flags.commands.Contains flag.Key))

        match Layers.load program.Names given getEnv readFile with
        | Error message -> error message
        | Ok(configFile, reader) ->
            let options = program.Read configFile getEnv reader

            match reader.Error with
            | Some message -> error message
            | None when isCheck ->
                let keys = [ for option in Catalog.options program -> option.Key ]
                let report = Report.text program.Name configFile keys reader.Readings
                ParseOutcome(OutcomeKind.Check, options = options, text = report, warnings = reader.Warnings)
            | None -> ParseOutcome(OutcomeKind.Run, options = options, warnings = reader.Warnings)

    let run
        (program: Program<'Argument, 'Options>)
        (argv: string[])
        (getEnv: Func<string, string | null>)
        (readFile: Func<string, string>)
        : ParseOutcome<'Options> =
        match Flags.parse program.Name program.Parser argv with
        | Error message -> error message
        | Ok results when results.IsUsageRequested -> ParseOutcome(OutcomeKind.Help, text = help program)
        | Ok results ->
            match program.TryCommand results with
            | Some outcome -> outcome
            | None ->
                let flags = Flags.settings program.Parser (results.GetAllResults())

                match List.tryFindBack (fun (flag: Setting) -> flag.Key = "generate") flags with
                | Some what -> generate program what flags
                | None -> readOptions program flags getEnv readFile

/// Lines of the help page, one per command, as both programs print them.
[<RequireQualifiedAccess>]
module internal CommandUsage =
    let checkConfig =
        "read the configuration and every file that it names, as a start would; print each option with its value and where that comes from, and exit. Nothing is started."

    let generate =
        "print a configuration file with all options (yaml), its schema for editors (jsonschema), the manual page (man), or completions for a shell (bash, zsh or fish), and exit. With --config-file, write it to that file, which must not exist yet."

    let version = "print the version and exit."

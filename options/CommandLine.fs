namespace Lightway.Options

open System
open System.Reflection
open Argu

/// The parts of a program's command line.
[<NoComparison; NoEquality>]
type internal Program<'Argument, 'Options when 'Argument :> IArgParserTemplate> =
    {
        Name: string
        Parser: ArgumentParser<'Argument>
        Names: OptionNames
        /// The head of the help page: what the program does and how options are set.
        Help: string
        /// First flag and title of each group of the help page.
        Headings: (string * string) list
        /// `--version`, or a command of its own that needs no configuration.
        TryCommand: ParseResults<'Argument> -> ParseOutcome<'Options> option
        /// Builds the options from all layers; refusals stay in the reader.
        Read: string -> Func<string, string | null> -> Reader -> 'Options
    }

[<RequireQualifiedAccess>]
module internal CommandLine =
    let error (message: string) : ParseOutcome<'Options> =
        // One line, whatever an exception's message or a value contains.
        ParseOutcome(OutcomeKind.Error, text = message.ReplaceLineEndings " ")

    /// Version of this product as its assemblies carry it, without the build's source revision.
    let version (name: string) : ParseOutcome<'Options> =
        let attribute =
            Assembly.GetExecutingAssembly().GetCustomAttribute<AssemblyInformationalVersionAttribute>()

        let version =
            match attribute with
            | null -> "0"
            | attribute -> attribute.InformationalVersion.Split('+')[0]

        ParseOutcome(OutcomeKind.Version, text = $"{name} {version}")

    let private help (program: Program<'Argument, 'Options>) : string =
        program.Parser.PrintUsage(message = program.Help, hideSyntax = true, usageStringCharacterWidth = Flags.Width)
        |> Flags.withHeadings program.Headings

    let private readOptions
        (program: Program<'Argument, 'Options>)
        (results: ParseResults<'Argument>)
        (getEnv: Func<string, string | null>)
        (readFile: Func<string, string>)
        : ParseOutcome<'Options> =
        let flags = Flags.settings program.Parser (results.GetAllResults())

        match Layers.load program.Names flags getEnv readFile with
        | Error message -> error message
        | Ok(configFile, reader) ->
            let options = program.Read configFile getEnv reader

            match reader.Error with
            | Some message -> error message
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
            | None -> readOptions program results getEnv readFile

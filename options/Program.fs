namespace Lightway.Options

open System
open System.Reflection
open Argu

/// The parts of a manual page that are not made of the options.
[<NoComparison>]
type internal ManualText =
    {
        /// One line for NAME and for apropos(1).
        Purpose: string
        /// Paragraphs of DESCRIPTION.
        Description: string list
        /// Environment variables that no option has, and what each does.
        Variables: (string * string) list
        /// Files, and what each is.
        Files: (string * string) list
        /// What a signal does.
        Signals: (string * string) list
        /// Exit codes beyond those that both programs have, and what each means.
        Codes: (string * string) list
        /// Other pages: name and section.
        SeeAlso: (string * int) list
    }

/// The parts of a program's command line.
[<NoComparison; NoEquality>]
type internal Program<'Argument, 'Options when 'Argument :> IArgParserTemplate> =
    {
        Name: string
        Parser: ArgumentParser<'Argument>
        Names: OptionNames
        /// The head of the help page: what the program does and how options are set.
        Help: string
        Manual: ManualText
        /// First flag and title of each group of the help page.
        Headings: (string * string) list
        /// `--version`, or a command of its own that needs no configuration.
        TryCommand: ParseResults<'Argument> -> ParseOutcome<'Options> option
        /// Builds the options from all layers; refusals stay in the reader. It reads every option, whatever the others are.
        Read: string -> Func<string, string | null> -> Reader -> 'Options
    }

[<RequireQualifiedAccess>]
module internal ProductVersion =
    /// As the assemblies have it, without the build's source revision.
    let text: string =
        match Assembly.GetExecutingAssembly().GetCustomAttribute<AssemblyInformationalVersionAttribute>() with
        | null -> "0"
        | attribute -> attribute.InformationalVersion.Split('+')[0]

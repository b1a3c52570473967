namespace Lightway.Options

open System
open Argu
open FSharp.Reflection

/// The command line layer, on top of Argu. A program's argument union gives its options their names: the case
/// `Bind_Address` is the flag `--bind-address`, the YAML key `bind_address` and the variable
/// `<PREFIX>BIND_ADDRESS`. Values remain text here, so that all layers share parsers and messages.
[<RequireQualifiedAccess>]
module internal Flags =
    /// Columns of the help page.
    [<Literal>]
    let Width = 100

    /// Flags that say what to do; they are not options of a configuration, whatever program has them.
    let commands = set [ "version"; "check_config"; "generate" ]

    let keyOf (flag: string) = flag.TrimStart('-').Replace('-', '_')

    /// Every name of every option in snake_case, with the key that its settings have.
    let keys (parser: ArgumentParser<'Argument>) : Map<string, string> =
        Map
            [ for case in parser.GetArgumentCases() do
                  match case.CommandLineNames.Value with
                  | first :: _ when first.StartsWith "--" ->
                      for name in case.CommandLineNames.Value do
                          if name.StartsWith "--" && not (commands.Contains(keyOf name)) then
                              keyOf name, keyOf first
                  | _ -> () ]

    /// `--name=value` as the two words that Argu expects; the value may contain further '='.
    let private words (argument: string) =
        match argument.IndexOf '=' with
        | at when at > 2 && argument.StartsWith "--" -> [ argument.Substring(0, at); argument.Substring(at + 1) ]
        | _ -> [ argument ]

    /// Argu appends its usage to each message; only the first line says what is wrong.
    let private firstLine (message: string) =
        let line = message.Split('\n')[0]

        if line.StartsWith "ERROR: " then line.Substring 7 else line

    /// Errors are one line. A request for help is not an error: see `ParseResults.IsUsageRequested`.
    let parse (programName: string) (parser: ArgumentParser<'Argument>) (argv: string[]) =
        try
            let inputs = argv |> Seq.collect words |> Array.ofSeq
            Ok(parser.ParseCommandLine(inputs, raiseOnUsage = false))
        with :? ArguParseException as refused ->
            Error $"{firstLine refused.Message} (`{programName} --help` lists the allowed flags)"

    /// Settings in the order of the command line, so that the last of two equal flags wins.
    /// A flag without its optional value is switched on.
    let settings (parser: ArgumentParser<'Argument>) (arguments: 'Argument list) : Setting list =
        [ for argument in arguments do
              let _, fields =
                  FSharpValue.GetUnionFields(argument, typeof<'Argument>, allowAccessToPrivateRepresentation = true)

              match parser.GetArgumentCaseInfo(argument).CommandLineNames.Value, fields with
              | flag :: _, fields when flag.StartsWith "--" ->
                  let text =
                      match fields with
                      | [| :? string as text |] -> text
                      | [| :? (string option) as text |] -> Option.defaultValue "true" text
                      | _ -> "true" // a flag without a value; None is null at run time

                  { Key = keyOf flag
                    Node = Node.Scalar text
                    Source = Source.Flag flag }
              | _ -> () ]

    /// Puts a heading line before the flag that begins each group of the help page.
    let withHeadings (headings: (string * string) list) (usage: string) : string =
        let heading (line: string) =
            headings
            |> List.tryFind (fun (flag, _) -> line.TrimStart().StartsWith(flag, StringComparison.Ordinal))

        usage.Split('\n')
        |> Seq.collect (fun line ->
            match heading line with
            | Some(_, title) -> [ ""; $"  {title}"; line ]
            | None -> [ line ])
        |> String.concat "\n"
        |> _.Replace("\n\n\n", "\n\n")

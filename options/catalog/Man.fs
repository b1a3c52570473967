namespace Lightway.Options

open System

/// `--generate man`: a manual page (man(7), section 8).
[<RequireQualifiedAccess>]
module internal Man =
    /// Day of the last change of the page's own text.
    [<Literal>]
    let private Day = "2026-11-26"

    /// Text in which no character has a meaning for roff.
    let private escape (text: string) : string =
        text
            .Replace("\\", "\\e")
            .Replace("-", "\\-")
            .Replace("'", "\\(aq")
            .Replace("`", "\\(ga")
            .Replace("^", "\\(ha")
            .Replace("~", "\\(ti")
            .Replace("\"", "\\(dq")

    /// A line of text. At its beginning, neither a full stop nor an apostrophe is a request; the latter is escaped already.
    let private line (text: string) : string =
        let text = escape text
        if text.StartsWith '.' then "\\&" + text else text

    let private paragraph (text: string) : string list = YamlText.wrap 66 text |> List.map line

    let private bold (text: string) = $"\\fB{escape text}\\fR"
    let private italic (text: string) = $"\\fI{escape text}\\fR"

    let private options = "[" + italic "OPTIONS" + "]"

    let private sentence (text: string) : string =
        if text = "" then
            ""
        else
            string (Char.ToUpperInvariant text[0]) + text.Substring 1

    let private item (head: string) (text: string) : string list =
        [ ".TP"; head; yield! paragraph (sentence text) ]

    let private flagHead (flag: FlagInfo) : string =
        let value =
            match flag.Value with
            | None -> ""
            | Some name when flag.IsValueOptional -> $" [{italic name}]"
            | Some name -> $" {italic name}"

        let names = flag.Names |> List.map bold |> String.concat ", "
        names + value

    let private flags (flags: FlagInfo list) : string list =
        [ for group, members in flags |> List.filter (fun flag -> not flag.IsHidden) |> List.groupBy _.Group do
              if group <> "" then
                  $".SS {escape group}"

              for flag in members do
                  yield! item (flagHead flag) flag.Help ]

    let private command (command: CommandInfo) : string list =
        let argument =
            match command.Argument with
            | Some name -> $" {italic name}"
            | None -> ""

        [ ".SS " + escape command.Name
          yield! paragraph (sentence command.Help)
          if not command.Flags.IsEmpty then
              ".TP"
              $"{bold command.Name}{argument} {options}"
              "Its options:"
              yield! flags command.Flags ]

    let private synopsis (info: CommandInfo) : string list =
        [ yield String.concat " " [ bold info.Name; bold "--config-file"; italic "FILE"; options ]
          for command in info.Commands do
              let argument =
                  match command.Argument with
                  | Some name -> $" {italic name}"
                  | None -> ""

              let options = if command.Flags.IsEmpty then "" else " " + options
              yield ".br"
              yield $"{bold info.Name} {bold command.Name}{argument}{options}" ]

    let private table (title: string) (rows: (string * string) list) : string list =
        [ if not rows.IsEmpty then
              $".SH {title}"

              for name, text in rows do
                  yield! item (bold name) text ]

    let text (info: CommandInfo) (text: ManualText) (environmentPrefix: string) : string =
        [ $".\\\" Written by `{info.Name} --generate man`."
          $".TH {info.Name.ToUpperInvariant()} 8 \"{Day}\" \"Lightway for .NET {ProductVersion.text}\" \"System Manager\\(aqs Manual\""
          ".SH NAME"
          $"{escape info.Name} \\- {escape text.Purpose}"
          ".SH SYNOPSIS"
          yield! synopsis info
          ".SH DESCRIPTION"
          for at, one in List.indexed text.Description do
              if at > 0 then
                  ".PP"

              yield! paragraph one
          if not info.Commands.IsEmpty then
              ".SH COMMANDS"
              yield! List.collect command info.Commands
          ".SH OPTIONS"
          yield!
              paragraph
                  $"Each option is also a key of the configuration file, with underscores instead of hyphens, and an environment variable: {environmentPrefix} and the key in upper case."
          yield! flags info.Flags
          yield! table "ENVIRONMENT" text.Variables
          yield! table "FILES" text.Files
          yield! table "SIGNALS" text.Signals
          ".SH EXIT STATUS"
          for code, meaning in
              [ "0", "stopped by a signal, or printed what was asked for."
                "1", "failed; the last line of the log says why."
                "2", "the configuration cannot be used; a line on standard error says why."
                yield! text.Codes ] do
              yield! item (bold code) meaning
          ".SH SEE ALSO"
          [ for name, section in text.SeeAlso -> $"{bold name}({section})" ] |> String.concat ", " ]
        |> String.concat "\n"

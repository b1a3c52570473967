namespace Lightway.Options

open System
open System.Text
open System.Text.Encodings.Web
open System.Text.Json
open System.Text.RegularExpressions

/// Values as text of a YAML file, each on one line.
[<RequireQualifiedAccess>]
module internal YamlText =
    /// Words that YAML 1.1 or 1.2 does not read as text, in lower case; and marks of documents.
    let private reserved =
        set
            [ "true"
              "false"
              "yes"
              "no"
              "on"
              "off"
              "y"
              "n"
              "null"
              "."
              ".."
              "..."
              "---"
              ".inf"
              ".nan" ]

    /// What needs no quotes in any YAML: words, paths, numbers, IPv4 addresses and networks, durations and sizes.
    let private plain =
        Regex(
            @"^([A-Za-z./][A-Za-z0-9_./-]*|-?\d+|\d{1,3}(\.\d{1,3}){3}(/\d{1,2})?|\d+(ns|us|ms|s|m|h)( \d+(ns|us|ms|s|m|h))*|\d+ [KMG]iB)\z",
            RegexOptions.CultureInvariant
        )

    /// A string of JSON, which is one of YAML as well: no line break and no control character is left in it.
    let quoted (text: string) : string =
        let quoted =
            JsonEncodedText.Encode(text, JavaScriptEncoder.UnsafeRelaxedJsonEscaping)

        $"\"{quoted}\""

    /// A scalar, quoted unless it is known to need no quotes. `isText`: it must be read as text, not as a number or a bool.
    let private scalar (isText: bool) (text: string) : string =
        let digits = text.TrimStart '-'
        let isNumber = digits <> "" && Seq.forall Char.IsAsciiDigit digits

        if
            plain.IsMatch text
            && text.ToLowerInvariant() <> "null" // that is shown for an option without a value
            && (not isText || (not isNumber && not (reserved.Contains(text.ToLowerInvariant()))))
        then
            text
        else
            quoted text

    let rec private isText (shape: Shape) : bool =
        match shape with
        | Shape.Bool
        | Shape.Number _
        | Shape.Size
        | Shape.Any -> false
        | _ -> true

    /// A value in flow style. `Absent` is null.
    let rec value (shape: Shape) (node: Node) : string =
        match node, shape with
        | Node.Absent, _ -> "null"
        | Node.Scalar text, _ -> scalar (isText shape) text
        | Node.List items, Shape.List shape -> list shape items
        | Node.List items, _ -> list (Shape.Text "") items
        | Node.Table entries, Shape.Map(_, shape) -> table shape entries
        | Node.Table entries, _ -> table (Shape.Text "") entries

    and private list (shape: Shape) (items: Node list) : string =
        let items = items |> List.map (value shape) |> String.concat ", "
        $"[{items}]"

    and private table (shape: Shape) (entries: Setting list) : string =
        let entries =
            [ for entry in entries -> $"{scalar true entry.Key}: {value shape entry.Node}" ]
            |> String.concat ", "

        "{" + entries + "}"

    /// One line of text for a comment: control characters become question marks.
    let comment (text: string) : string =
        String.map (fun letter -> if Char.IsControl letter then '?' else letter) text

    /// The lines of a paragraph with at most `width` characters, unless a word is longer.
    let wrap (width: int) (text: string) : string list =
        let lines, last =
            (([], ""), text.Split(' ', StringSplitOptions.RemoveEmptyEntries))
            ||> Array.fold (fun (lines, line: string) word ->
                if line = "" then
                    lines, word
                elif line.Length + 1 + word.Length <= width then
                    lines, line + " " + word
                else
                    line :: lines, word)

        List.rev (last :: lines)

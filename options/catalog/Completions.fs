namespace Lightway.Options

/// `--generate bash|zsh|fish`: completions for shells.
[<RequireQualifiedAccess>]
module internal Completions =
    /// What can follow a flag.
    [<RequireQualifiedAccess>]
    type private Next =
        | Nothing
        | Words of string list
        | File
        | Unknown

    let private next (flag: FlagInfo) : Next =
        let rec ofShape shape =
            match shape with
            | Shape.Bool -> Next.Words [ "true"; "false" ]
            | Shape.Word words -> Next.Words words
            | Shape.File -> Next.File
            | Shape.Either shapes when List.contains Shape.File shapes -> Next.File
            | _ -> Next.Unknown

        match flag.Value with
        | None -> Next.Nothing
        | Some _ -> ofShape flag.Shape

    let private shown (command: CommandInfo) =
        command.Flags |> List.filter (fun flag -> not flag.IsHidden)

    let private spaced (words: string seq) = String.concat " " words

    /// A name that may be one of a shell function.
    let private functionName (program: string) = "_" + program.Replace('-', '_')

    let private head (mark: string) (program: string) (shell: string) =
        $"{mark} Completions of {shell} for {program} {ProductVersion.text}, written by `{program} --generate {shell}`."

    let private takesPath (command: CommandInfo) =
        match command.Argument with
        | Some name -> name.Contains "dir" || name.Contains "file" || name.Contains "path"
        | None -> false

    // bash

    let private bashFlag (command: string) (flag: FlagInfo) : string list =
        let pattern =
            flag.Names |> List.map (fun name -> $"{command},{name}") |> String.concat " | "

        match next flag with
        | Next.Nothing -> []
        | Next.Words words when flag.IsValueOptional ->
            [ $"        {pattern})"
              $"            [[ $cur == -* ]] || {{ COMPREPLY=($(compgen -W \"{spaced words}\" -- \"$cur\")); return; }}"
              "            ;;" ]
        | Next.Words words ->
            [ $"        {pattern}) COMPREPLY=($(compgen -W \"{spaced words}\" -- \"$cur\")); return ;;" ]
        | Next.File ->
            [ $"        {pattern}) compopt -o filenames 2>/dev/null; mapfile -t COMPREPLY < <(compgen -f -- \"$cur\"); return ;;" ]
        | Next.Unknown -> [ $"        {pattern}) return ;;" ]

    let bash (info: CommandInfo) : string =
        let name = functionName info.Name
        let commands = [ for command in info.Commands -> command.Name ]

        let names (command: CommandInfo) =
            shown command |> List.collect _.Names |> spaced

        [ head "#" info.Name "bash"
          $"{name}() {{"
          "    local cur prev command="
          "    cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}"
          "    # --flag=value is three words."
          "    if [[ $cur == = ]]; then"
          "        cur="
          "    elif [[ $prev == = ]]; then"
          "        prev=${COMP_WORDS[COMP_CWORD - 2]}"
          "    fi"
          if not commands.IsEmpty then
              "    ((COMP_CWORD > 1)) && case ${COMP_WORDS[1]} in"
              $"""        {String.concat " | " commands}) command=${{COMP_WORDS[1]}} ;;"""
              "    esac"
          "    COMPREPLY=()"
          "    case $command,$prev in"
          for command in info.Commands do
              yield! List.collect (bashFlag command.Name) (shown command)
          yield! List.collect (bashFlag "") (shown info)
          "    esac"
          "    case $command in"
          for command in info.Commands do
              $"        {command.Name})"
              $"            COMPREPLY=($(compgen -W \"{names command}\" -- \"$cur\"))"

              if takesPath command then
                  "            if [[ $cur != -* ]]; then"
                  "                compopt -o filenames 2>/dev/null"
                  "                mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")"
                  "            fi"

              "            ;;"
          "        *)"
          $"            COMPREPLY=($(compgen -W \"{names info}\" -- \"$cur\"))"
          if not commands.IsEmpty then
              $"            ((COMP_CWORD == 1)) && COMPREPLY+=($(compgen -W \"{spaced commands}\" -- \"$cur\"))"
          "            ;;"
          "    esac"
          "}"
          $"complete -F {name} {info.Name}" ]
        |> String.concat "\n"

    // zsh

    /// Text within single quotes of a specification of _arguments.
    let private zshText (text: string) =
        text.Replace("\\", "\\\\").Replace("[", "\\[").Replace("]", "\\]").Replace(":", "\\:").Replace("'", "'\\''")

    let private zshFlag (flag: FlagInfo) : string list =
        let action =
            match next flag with
            | Next.Words words -> $"({spaced words})"
            | Next.File -> "_files"
            | Next.Nothing
            | Next.Unknown -> " "

        let all = spaced flag.Names

        [ for name in flag.Names do
              let value, sign =
                  match flag.Value with
                  | None -> "", ""
                  | Some value ->
                      let colons = if flag.IsValueOptional then "::" else ":"
                      $"{colons}{zshText value}:{action}", (if name.StartsWith "--" then "=" else "")

              $"        '({all}){name}{sign}[{zshText (Catalog.brief flag.Help)}]{value}'" ]

    let private zshArguments (flags: string list) (first: string list) : string list =
        let specifications =
            match first @ flags with
            | [] -> [ "        ': :'" ] // _arguments needs one
            | specifications -> specifications

        let last = specifications.Length - 1

        "    _arguments -s -S \\"
        :: [ for at, specification in List.indexed specifications ->
                 if at < last then specification + " \\" else specification ]

    let zsh (info: CommandInfo) : string =
        let name = functionName info.Name

        let commands =
            [ for command in info.Commands ->
                  let help = (zshText (Catalog.brief command.Help)).Replace("\"", "")
                  $"{command.Name}\\:\"{help}\"" ]

        [ $"#compdef {info.Name}"
          head "#" info.Name "zsh"
          $"{name}() {{"
          for command in info.Commands do
              $"    if (( CURRENT > 2 )) && [[ $words[2] == {command.Name} ]]; then"
              "        shift words"
              "        (( CURRENT-- ))"

              let first =
                  match command.Argument with
                  | Some argument when takesPath command -> [ $"        '1:{zshText argument}:_files -/'" ]
                  | Some argument -> [ $"        '1:{zshText argument}: '" ]
                  | None -> []

              yield! zshArguments (List.collect zshFlag (shown command)) first
              "        return"
              "    fi"
          yield!
              zshArguments
                  (List.collect zshFlag (shown info))
                  (if commands.IsEmpty then
                       []
                   else
                       [ $"        '1:command:(({spaced commands}))'" ])
          "}"
          $"if [[ $funcstack[1] == {name} ]]; then"
          $"    {name} \"$@\""
          "else"
          $"    compdef {name} {info.Name}"
          "fi" ]
        |> String.concat "\n"

    // fish

    let private fishText (text: string) =
        "'" + text.Replace("\\", "\\\\").Replace("'", "\\'") + "'"

    let private fishFlag (program: string) (condition: string) (flag: FlagInfo) : string =
        let names =
            [ for name in flag.Names ->
                  if name.StartsWith "--" then
                      $"-l {name.Substring 2}"
                  else
                      $"-s {name.Substring 1}" ]

        let value =
            match next flag with
            | Next.Nothing -> ""
            | Next.Words words when flag.IsValueOptional -> $" -a {fishText (spaced words)}"
            | Next.Words words -> $" -x -a {fishText (spaced words)}"
            | Next.File -> " -r -F"
            | Next.Unknown -> " -x"

        $"complete -c {program}{condition} {spaced names}{value} -d {fishText (Catalog.brief flag.Help)}"

    let fish (info: CommandInfo) : string =
        let commands = spaced [ for command in info.Commands -> command.Name ]

        let top =
            if info.Commands.IsEmpty then
                ""
            else
                $" -n 'not __fish_seen_subcommand_from {commands}'"

        [ head "#" info.Name "fish"
          $"complete -c {info.Name} -f"
          for command in info.Commands do
              $"complete -c {info.Name}{top} -a {command.Name} -d {fishText (Catalog.brief command.Help)}"
          for flag in shown info do
              fishFlag info.Name top flag
          for command in info.Commands do
              let condition = $" -n '__fish_seen_subcommand_from {command.Name}'"

              if takesPath command then
                  $"complete -c {info.Name}{condition} -F"

              for flag in shown command do
                  fishFlag info.Name condition flag ]
        |> String.concat "\n"

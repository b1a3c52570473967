namespace Lightway.Options

/// `--generate yaml`: a configuration file with every option commented out.
[<RequireQualifiedAccess>]
module internal Template =
    [<Literal>]
    let private Width = 98 // characters of a comment, without its mark

    let private comment (text: string) : string list =
        [ for line in YamlText.wrap Width text -> $"# {line}" ]

    let private entry (option: OptionInfo) : string list =
        let value =
            match option.Default with
            | Node.Absent -> ""
            | value -> " " + YamlText.value option.Shape value

        [ ""; yield! comment option.Help; $"#{option.Key}:{value}" ]

    /// Law: with the mark removed from each `#key:` line, the file gives the same options as an empty one.
    let text (program: string) (options: OptionInfo list) : string =
        let head =
            $"Configuration file of {program} {ProductVersion.text}: all options, each with its default. To change one, remove the # in front of its key. `{program} --check-config --config-file FILE` shows what a file amounts to."

        let groups =
            options |> List.filter (fun option -> not option.IsHidden) |> List.groupBy _.Group

        [ yield! comment head
          for group, options in groups do
              ""
              $"# ---- {group} ----"
              yield! List.collect entry options ]
        |> String.concat "\n"

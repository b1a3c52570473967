namespace Lightway.Options

/// `--check-config`: the configuration that a program would start with.
[<RequireQualifiedAccess>]
module internal Report =
    let private line (reading: Reading) : string =
        let source =
            match reading.Source with
            | Source.Default -> "default"
            | source -> source.Describe()

        let value =
            match reading.Shape, reading.Value with
            | Shape.Secret, Node.Scalar _ -> YamlText.quoted "(hidden)"
            | shape, value -> YamlText.value shape value

        $"{reading.Key}: {value}   # {YamlText.comment source}"

    /// One line for each option, in the order of `keys`, as YAML. Law: apart from secrets, a file with these lines gives the
    /// same options.
    let text (program: string) (configFile: string) (keys: string list) (readings: Reading list) : string =
        let readings = Map [ for reading in readings -> reading.Key, reading ]

        [ $"# {program} {ProductVersion.text} would start with this configuration; its file is {YamlText.comment configFile}"
          for key in keys do
              yield! readings.TryFind key |> Option.map line |> Option.toList ]
        |> String.concat "\n"

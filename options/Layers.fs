namespace Lightway.Options

open System
open System.IO

/// Names of a program's options, and which of them have no effect in this build.
type internal OptionNames =
    {
        /// Before the upper-case key in the environment, for example `LW_SERVER_`.
        EnvironmentPrefix: string
        /// Every allowed name, aliases included, with its key.
        Keys: Map<string, string>
        /// Keys that only the file may contain, each with the sentence that other options have on the help page.
        FileOnly: Map<string, string>
        /// Options that are checked but have no effect in this build.
        NotServed: NotServed list
    }

/// Merges defaults, file, environment and flags, in rising order of strength.
[<RequireQualifiedAccess>]
module internal Layers =
    let private distance (a: string) (b: string) : int = // Levenshtein, for "did you mean"
        let mutable row = [| 0 .. b.Length |]

        for i in 1 .. a.Length do
            let next = Array.create (b.Length + 1) i

            for j in 1 .. b.Length do
                let change = if a[i - 1] = b[j - 1] then 0 else 1
                next[j] <- min (min (next[j - 1] + 1) (row[j] + 1)) (row[j - 1] + change)

            row <- next

        row[b.Length]

    /// The value of an unknown key stays out of the message: it may be a misspelt password.
    let unknownKey (known: string seq) (setting: Setting) : string =
        let nearest = known |> Seq.minBy (distance setting.Key)

        let hint =
            if distance setting.Key nearest <= 3 then
                $"; did you mean {nearest}?"
            else
                ""

        $"{setting.Key}: not a known option ({setting.Source.Describe()}){hint}"

    /// Refuses unknown keys, or turns them into warnings when `acceptUnknowns` is set.
    let checkUnknown (known: string seq) (acceptUnknowns: bool) (reader: Reader) (settings: Setting list) : unit =
        let known = Set.ofSeq known

        for setting in settings do
            if not (known.Contains setting.Key) then
                let message = unknownKey known setting

                if acceptUnknowns then
                    reader.Warn $"{message}; ignored"
                else
                    reader.Refuse $"{message} (accept_unknowns: true makes this a warning)"

    let private readFile (readFile: Func<string, string>) (path: string) : Result<string, string> =
        try
            Ok(readFile.Invoke path)
        with
        | :? IOException
        | :? UnauthorizedAccessException as refused -> Error $"config_file: cannot read \"{path}\": {refused.Message}"

    /// An empty variable counts as not set.
    let private environment (names: OptionNames) (getEnv: Func<string, string | null>) : Setting list =
        [ for alias, key in Map.toSeq names.Keys do
              let variable = names.EnvironmentPrefix + alias.ToUpperInvariant()

              match getEnv.Invoke variable with
              | null
              | "" -> ()
              | text ->
                  { Key = key
                    Node = Node.Scalar text
                    Source = Source.Environment variable } ]

    let private resolveAlias (names: OptionNames) (setting: Setting) =
        match names.Keys.TryFind setting.Key with
        | Some key -> { setting with Key = key }
        | None -> setting

    /// The path of the file and a reader of all layers, whose `Error` is set if a key is unknown.
    /// `Error` if there is no readable file.
    let load
        (names: OptionNames)
        (flags: Setting list)
        (getEnv: Func<string, string | null>)
        (openFile: Func<string, string>)
        : Result<string * Reader, string> =
        let outside = Setting.merge [ environment names getEnv; flags ]

        match outside.TryFind "config_file" with
        | Some { Node = Node.Scalar path } when path <> "" ->
            readFile openFile path
            |> Result.bind (Yaml.parse path)
            |> Result.map (fun file ->
                let file = List.map (resolveAlias names) file
                let merged = Setting.merge [ file; List.map snd (Map.toList outside) ]
                let reader = Reader merged
                let known = Seq.append names.FileOnly.Keys names.Keys.Keys
                checkUnknown known (reader.Bool("accept_unknowns", false)) reader file

                NotServed.warn names.NotServed reader

                if file |> List.exists (fun setting -> setting.Key = "config_file") then
                    reader.Warn "config_file: has no effect inside a configuration file"

                path, reader)
        | _ -> Error "config_file: missing; set the YAML configuration file with --config-file FILE"

    /// `<PREFIX>RUST_LOG` overrides `log_level` by a plain level; directives for single targets are not served.
    let logLevel (names: OptionNames) (getEnv: Func<string, string | null>) (reader: Reader) : LogLevel =
        let configured = reader.Read("log_level", Value.logLevel, LogLevel.Info)
        let variable = names.EnvironmentPrefix + "RUST_LOG"

        match getEnv.Invoke variable with
        | null
        | "" -> configured
        | filter ->
            let directives =
                filter.Split(',', StringSplitOptions.TrimEntries ||| StringSplitOptions.RemoveEmptyEntries)

            (configured, directives)
            ||> Array.fold (fun level directive ->
                match Value.logLevel.Parse(directive.ToLowerInvariant()) with
                | Ok level ->
                    reader.Override("log_level", Node.Scalar(Value.logLevel.Show level), Source.Environment variable)
                    level
                | Error allowed ->
                    reader.Warn
                        $"{variable}: \"{directive}\" is ignored; this build serves only a plain level: {allowed}"

                    level)

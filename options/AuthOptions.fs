namespace Lightway.Options

open System

/// Who may log in, besides the users of `user_db`, and what users have of their own.
type AuthOptions =
    {
        /// File with the public keys that verify tokens: PEM, or a JSON Web Key Set; null: no tokens.
        TokenKeys: string | null
        /// Program that checks passwords, an absolute path, and its arguments; empty: none.
        Command: string[]
        /// Time that the program has for one check; 100 ms to 30 s.
        CommandTimeout: TimeSpan
        /// YAML file with what users have of their own; null: none.
        AddressMap: string | null
        /// A reload ends the sessions of users who are no longer in `user_db`.
        EndRemovedUsers: bool
    }

[<RequireQualifiedAccess>]
module internal AuthOptions =
    /// Shorter than a login has in all (`LoginPatience.Whole`), so that a check always ends before its client does.
    let private commandTimeout: Parser<TimeSpan> =
        Value.duration
        |> Parser.restrict
            (fun value -> value >= TimeSpan.FromMilliseconds 100L && value <= TimeSpan.FromSeconds 30L)
            "a duration from 100ms to 30s, such as 5s"

    let private defaultTimeout = TimeSpan.FromSeconds 5L

    /// Words as the program gets them: no shell looks at them.
    let private commandOf (setting: Setting) : Result<string[], string> =
        let words =
            match setting.Node with
            | Node.Scalar text -> Ok(List.ofArray (text.Split(' ', StringSplitOptions.RemoveEmptyEntries)))
            | Node.List items ->
                (items, Ok [])
                ||> List.foldBack (fun item rest ->
                    match item, rest with
                    | Node.Scalar word, Ok words -> Ok(word :: words)
                    | _, Error problem -> Error problem
                    | _ -> Error "contains something else than words")
            | _ -> Error "is a map"

        let allowed =
            "the absolute path of a program and its arguments, as a list or in one line, whose words are separated by spaces"

        match words with
        | Ok(program :: _ as words) when
            program.StartsWith '/' && not (words |> List.exists (fun word -> word.Contains '\000'))
            ->
            Ok(Array.ofList words)
        | Ok [] -> Error $"{setting.Key}: is empty; allowed: {allowed} ({setting.Source.Describe()})"
        | Ok(program :: _) ->
            Error $"{setting.Key}: \"{program}\" is not valid; allowed: {allowed} ({setting.Source.Describe()})"
        | Error problem -> Error $"{setting.Key}: {problem}; allowed: {allowed} ({setting.Source.Describe()})"

    let private command (reader: Reader) : string[] =
        let words =
            match reader.TryFind "auth_command" with
            | None -> [||]
            | Some setting -> reader.Accept(commandOf setting, [||])

        let shown = Node.List [ for word in words -> Node.Scalar word ]
        reader.Note("auth_command", Shape.List(Shape.Text ""), Node.Absent, shown)
        words

    let read (reader: Reader) : AuthOptions =
        { TokenKeys = reader.ReadOrNull<string>("token_rsa_pub_key_pem", Value.path)
          Command = command reader
          CommandTimeout = reader.Read("auth_command_timeout", commandTimeout, defaultTimeout)
          AddressMap = reader.ReadOrNull<string>("address_map", Value.path)
          EndRemovedUsers = reader.Bool("end_removed_users", false) }

    /// Refuses options that let nobody in, or have no effect in this combination.
    let check (reader: Reader) (userDb: string | null) (options: AuthOptions) : unit =
        if isNull userDb && isNull options.TokenKeys && Array.isEmpty options.Command then
            reader.Refuse
                "user_db: missing, and so is everything else that lets a user in; set user_db (a file of user:hash lines in htpasswd format), token_rsa_pub_key_pem or auth_command"

        if options.CommandTimeout <> defaultTimeout && Array.isEmpty options.Command then
            reader.Reject("auth_command_timeout", $"{options.CommandTimeout}", "has no effect without auth_command")

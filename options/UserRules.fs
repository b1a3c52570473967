namespace Lightway.Options

open System
open System.Collections.Generic
open System.Net
open Lightway.Segmenter

/// What one user has of its own.
[<NoComparison>]
type UserRule =
    {
        User: string
        /// The inside address that only this user gets; null: one of the pool.
        Address: IPAddress | null
        /// Instead of `sessions_per_user`; null: as for all.
        SessionsPerUser: Nullable<int>
        /// Instead of `session_idle_limit`; null: as for all.
        SessionIdleLimit: Nullable<TimeSpan>
        /// File and line, for messages.
        Where: string
    }

/// The file of `address_map`: a map of users, each with a map of what it has of its own.
/// Laws: `parse` is total; a rule that it returns has at least one of the three values.
[<RequireQualifiedAccess>]
module UserRules =
    let private known = [ "address"; "sessions_per_user"; "session_idle_limit" ]

    let private value (user: string) (setting: Setting) (parse: Parser<'T>) : Result<'T, string> =
        match setting.Node with
        | Node.Scalar text ->
            parse.Parse text
            |> Result.mapError (fun allowed ->
                $"address_map: {user}: {setting.Key}: \"{text}\" is not valid; allowed: {allowed} ({setting.Source.Describe()})")
        | _ -> Error $"address_map: {user}: {setting.Key}: a single value is required ({setting.Source.Describe()})"

    let private add (rule: UserRule) (setting: Setting) : Result<UserRule, string> =
        let value parse = value rule.User setting parse

        match setting.Key, setting.Node with
        | _, Node.Absent when List.contains setting.Key known -> Ok rule
        | "address", _ -> value Value.ipv4 |> Result.map (fun address -> { rule with Address = address })
        | "sessions_per_user", _ ->
            value (Value.int32 0 1_000_000)
            |> Result.map (fun count ->
                { rule with
                    SessionsPerUser = Nullable count })
        | "session_idle_limit", _ ->
            value Value.positiveDuration
            |> Result.map (fun limit ->
                { rule with
                    SessionIdleLimit = Nullable limit })
        | other, _ ->
            let keys = String.concat ", " known
            Error $"address_map: {rule.User}: {other} is not known; allowed: {keys} ({setting.Source.Describe()})"

    let private complete (rule: UserRule) : Result<UserRule, string> =
        if isNull rule.Address && not rule.SessionsPerUser.HasValue && not rule.SessionIdleLimit.HasValue then
            Error
                $"address_map: {rule.User}: has no value; set address, sessions_per_user or session_idle_limit, or remove the user ({rule.Where})"
        elif not (isNull rule.Address) && rule.SessionsPerUser.HasValue && rule.SessionsPerUser.Value <> 1 then
            Error
                $"address_map: {rule.User}: a user with an address has one session; remove sessions_per_user ({rule.Where})"
        else
            Ok rule

    let private ofUser (setting: Setting) : Result<UserRule, string> =
        let rule =
            { User = setting.Key
              Address = null
              SessionsPerUser = Nullable()
              SessionIdleLimit = Nullable()
              Where = setting.Source.Describe() }

        match setting.Node with
        | _ when setting.Key = "" ->
            Error $"address_map: a user without a name; allowed: lines `user:` with indented values ({rule.Where})"
        | Node.Table settings ->
            (Ok rule, settings)
            ||> List.fold (fun rule setting -> rule |> Result.bind (fun rule -> add rule setting))
            |> Result.bind complete
        | Node.Absent -> complete rule
        | _ ->
            Error
                $"address_map: {setting.Key}: a single value is not valid; allowed: indented lines such as `address: 10.125.1.7` ({rule.Where})"

    /// The rules of a file, or null and what is wrong with it, as one line that names file, line and remedy.
    let parse (path: string, text: string) : struct (UserRule list * (string | null)) =
        let rules =
            Yaml.parse path text
            |> Result.mapError (fun problem -> $"address_map: {problem}")
            |> Result.bind (fun settings ->
                (settings, Ok [])
                ||> List.foldBack (fun setting rest ->
                    match ofUser setting, rest with
                    | Error problem, _ -> Error problem // the first one of the file
                    | _, Error problem -> Error problem
                    | Ok rule, Ok rules -> Ok(rule :: rules)))

        match rules with
        | Ok rules -> struct (rules, null)
        | Error problem -> struct ([], problem)

    let private number (address: IPAddress) = int64 (Ipv4Address.Of address).Value

    /// What is wrong with the rules for this pool; null: nothing.
    let problem (pool: IPNetwork, reserved: IReadOnlyList<IPAddress>, rules: UserRule list) : string | null =
        let first = number pool.BaseAddress
        let last = first + (1L <<< (32 - pool.PrefixLength)) - 1L
        let taken = Dictionary<int64, UserRule>()

        rules
        |> List.tryPick (fun rule ->
            match rule.Address with
            | null -> None
            | address ->
                let at = number address

                let say problem =
                    Some $"address_map: {rule.User}: {address} {problem} ({rule.Where})"

                if at <= first || at >= last then
                    say $"is not an address for a client in ip_pool, {pool}; choose another one, or a larger ip_pool"
                elif reserved |> Seq.exists (fun other -> number other = at) then
                    say
                        "is reserved by lightway_client_ip, lightway_server_ip, lightway_dns_ip or tun_ip; choose another one"
                elif not (taken.TryAdd(at, rule)) then
                    say $"is the address of {taken[at].User}, too ({taken[at].Where}); choose another one"
                else
                    None)
        |> Option.toObj

namespace Lightway.Options

open System
open System.Net
open Lightway.Segmenter

/// Clients that connect to a local address of the server get inside addresses of a network of their own.
type IpMapEntry =
    { Local: IPAddress // IPv4
      Network: IPNetwork } // IPv4

/// The map of local addresses to parts of `ip_pool`.
[<RequireQualifiedAccess>]
module IpMap =
    let private number (address: IPAddress) = (Ipv4Address.Of address).Value

    let private contains (outer: IPNetwork) (inner: IPNetwork) =
        outer.PrefixLength <= inner.PrefixLength && outer.Contains inner.BaseAddress

    let private entry (setting: Setting) : Result<IpMapEntry, string> =
        let where = setting.Source.Describe()

        match Value.ipv4.Parse setting.Key, setting.Node with
        | Error allowed, _ -> Error $"ip_map: \"{setting.Key}\" is not valid; allowed: {allowed} ({where})"
        | Ok local, Node.Scalar text ->
            match (Value.ipv4Network 1 32).Parse text with
            | Ok network -> Ok { Local = local; Network = network }
            | Error allowed -> Error $"ip_map: {setting.Key}: \"{text}\" is not valid; allowed: {allowed} ({where})"
        | Ok _, _ -> Error $"ip_map: {setting.Key}: a network is required, such as 10.125.1.0/24 ({where})"

    /// The path of a file, or the map itself.
    let internal shape =
        Shape.Either [ Shape.File; Shape.Map(@"^\d{1,3}(\.\d{1,3}){3}$", (Value.ipv4Network 1 32).Shape) ]

    let internal ofSettings (settings: Setting list) : Result<IpMapEntry list, string> =
        (settings, Ok [])
        ||> List.foldBack (fun setting rest ->
            match entry setting, rest with
            | Ok one, Ok others -> Ok(one :: others)
            | Error message, _
            | _, Error message -> Error message)

    /// What is wrong with the map as parts of this pool; null: nothing.
    let problem (pool: IPNetwork, entries: IpMapEntry list) : string | null =
        let overlap =
            List.allPairs entries entries
            |> List.tryFind (fun (a, b) ->
                number a.Local < number b.Local && (contains a.Network b.Network || contains b.Network a.Network))

        match entries |> List.tryFind (fun entry -> not (contains pool entry.Network)), overlap with
        | Some entry, _ -> $"{entry.Local}: {entry.Network} is not a part of ip_pool, {pool}"
        | None, Some(a, b) -> $"{a.Network} of {a.Local} and {b.Network} of {b.Local} have addresses in common"
        | None, None -> null

    /// The entries of a file with one `local address: network` per line, as YAML; or what is wrong with it.
    let parse (path: string, text: string) : struct (IpMapEntry list * (string | null)) =
        match Yaml.parse path text |> Result.bind ofSettings with
        | Ok entries -> struct (entries, null)
        | Error message -> struct ([], message)

namespace Lightway.Options

open System
open System.Collections.Generic
open System.Text
open Microsoft.FSharp.Reflection

/// Which options a running server can take over from its files.
/// Law: whatever option differs, either `merge` takes it over or `needRestart` names it.
[<RequireQualifiedAccess>]
module ServerReload =
    /// The options that the server goes on with: what can change is `after`'s, the rest is `before`'s.
    let merge (before: ServerOptions, after: ServerOptions) : ServerOptions =
        { before with
            ServerCert = after.ServerCert
            ServerKey = after.ServerKey
            EnablePqc = after.EnablePqc
            UserDb = after.UserDb
            Auth = after.Auth
            HandshakesPerSource = after.HandshakesPerSource
            HalfOpenLimit = after.HalfOpenLimit
            LoginChecks = after.LoginChecks
            SessionsPerUser = after.SessionsPerUser
            SessionIdleLimit = after.SessionIdleLimit
            LogLevel = after.LogLevel
            AcceptUnknowns = after.AcceptUnknowns }

    let private keyOf (field: string) : string =
        match field with
        | "IpMapFile" -> "ip_map"
        | "RandomizeIpPool" -> "randomize_ippool"
        | _ ->
            let key = StringBuilder()

            for letter in field do
                if Char.IsUpper letter && key.Length > 0 then
                    key.Append '_' |> ignore

                key.Append(Char.ToLowerInvariant letter) |> ignore

            key.ToString()

    // A record of this assembly is a group of options.
    let rec private differences (before: objnull) (after: objnull) (kind: Type) : string seq =
        seq {
            for field in FSharpType.GetRecordFields kind do
                let one, other = field.GetValue before, field.GetValue after

                if not (Unchecked.equals one other) then
                    if FSharpType.IsRecord field.PropertyType && field.PropertyType.Assembly = kind.Assembly then
                        yield! differences one other field.PropertyType
                    else
                        keyOf field.Name
        }

    /// Keys of the options that differ and stay as they are until the server is started again.
    let needRestart (before: ServerOptions, after: ServerOptions) : IReadOnlyList<string> =
        differences (merge (before, after)) after typeof<ServerOptions> |> Seq.distinct |> Array.ofSeq :> _

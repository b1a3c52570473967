namespace Lightway.Options

open System
open System.Collections.Generic
open System.Net

/// The action that the command line asks for.
type OutcomeKind =
    /// Log `Warnings`, then start with `Options`.
    | Run = 0
    /// Write a set-up according to `Init` (server only).
    | Init = 1
    /// Print `Text` and exit with 0.
    | Help = 2
    /// Print `Text` and exit with 0.
    | Version = 3
    /// Print `Text` (one line) to standard error and exit with 2.
    | Error = 4
    /// Ask a running server by its control socket, according to `Control` (server only).
    | Control = 5

/// Options of `lightway-server init`; valid by construction.
[<NoComparison>]
type InitOptions =
    {
        /// The directory to write to; must be empty or not exist yet.
        Directory: string
        /// Name or address, without brackets, under which clients reach the server.
        ServerHost: string
        /// UDP port, 1 to 65535, of the server and for the client.
        ServerPort: int
        /// The operator named host and port; otherwise they are 127.0.0.1 and the default.
        IsAddressGiven: bool
        User: string
        /// DNS name in the server's certificate, checked by the client (`server_dn`).
        ServerName: string
        /// Prefix from /8 to /28.
        IpPool: IPNetwork
    }

/// Result of reading flags, environment and file. Only the members that `Kind` names have a value.
[<Sealed>]
type ParseOutcome<'Options>
    internal
    (
        kind: OutcomeKind,
        ?options: 'Options,
        ?init: InitOptions,
        ?text: string,
        ?warnings: IReadOnlyList<string>,
        ?control: ControlOptions
    ) =
    let need what value =
        match value with
        | Some value -> value
        | None -> raise (InvalidOperationException $"an outcome of kind {kind} has no {what}")

    member _.Kind = kind

    /// Raises InvalidOperationException unless Kind is Run.
    member _.Options: 'Options = need "options" options

    /// Raises InvalidOperationException unless Kind is Init.
    member _.Init: InitOptions = need "init options" init

    /// Raises InvalidOperationException unless Kind is Control.
    member _.Control: ControlOptions = need "control options" control

    /// Raises InvalidOperationException unless Kind is Help, Version or Error.
    member _.Text: string = need "text" text

    /// One line each; empty unless Kind is Run.
    member _.Warnings: IReadOnlyList<string> =
        defaultArg warnings (Array.empty<string> :> IReadOnlyList<string>)

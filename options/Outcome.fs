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
    /// Prepare this machine for a server, according to `Host` (server only).
    | SetUpHost = 6
    /// Open all files as `Run` would, with `Options`; then print `Text`, the configuration, and exit with 0.
    | Check = 7
    /// Write `Text` to the new file `File` and exit with 0.
    | Write = 8
    /// Remove what a killed client has left behind (client only).
    | Reset = 9
    /// Ask a running client how it is, according to `Status` (client only).
    | Status = 10

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
        /// PEM file of an existing certificate with its chain; null: `init` makes an authority and a certificate.
        Certificate: string | null
        /// PEM file of its key; null if `Certificate` is.
        Key: string | null
        /// Directory that a web server of `ServerName` serves, for certbot(1); null: certbot is not run.
        AcmeWebroot: string | null
        /// Set up the host as well, as `lightway-server setup-host --apply` does.
        SetUpHost: bool
    }

/// Options of `lightway-client status`.
type StatusOptions =
    {
        /// Path of the running client's control socket.
        Socket: string
        /// Print the client's answer as it is, for scripts.
        Json: bool
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
        ?control: ControlOptions,
        ?host: HostOptions,
        ?status: StatusOptions,
        ?file: string
    ) =
    let need what value =
        match value with
        | Some value -> value
        | None -> raise (InvalidOperationException $"an outcome of kind {kind} has no {what}")

    member _.Kind = kind

    /// Raises InvalidOperationException unless Kind is Run or Check.
    member _.Options: 'Options = need "options" options

    /// Raises InvalidOperationException unless Kind is Init.
    member _.Init: InitOptions = need "init options" init

    /// Raises InvalidOperationException unless Kind is Control.
    member _.Control: ControlOptions = need "control options" control

    /// Raises InvalidOperationException unless Kind is SetUpHost.
    member _.Host: HostOptions = need "host options" host

    /// Raises InvalidOperationException unless Kind is Status.
    member _.Status: StatusOptions = need "status options" status

    /// Raises InvalidOperationException unless Kind is Help, Version, Error, Check or Write.
    member _.Text: string = need "text" text

    /// Raises InvalidOperationException unless Kind is Write.
    member _.File: string = need "file" file

    /// One line each; empty unless Kind is Run or Check.
    member _.Warnings: IReadOnlyList<string> =
        defaultArg warnings (Array.empty<string> :> IReadOnlyList<string>)

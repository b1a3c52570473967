namespace Lightway.Options

open System
open Argu

[<RequireQualifiedAccess>]
module private ControlUsage =
    let socket =
        $"control socket of the server (its option control_socket). Default: {ControlSocket.DefaultPath}."

    let json =
        "print the server's answer as it came, one JSON object per line, for scripts."

/// Flags of `lightway-server status`, `sessions` and `reload`.
[<RequireQualifiedAccess>]
type internal ControlArgument =
    | [<Unique>] Control_Socket of path: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Control_Socket _ -> ControlUsage.socket
            | Json -> ControlUsage.json

/// Flags of `lightway-server kick`.
[<RequireQualifiedAccess>]
type internal KickArgument =
    | [<MainCommand; Unique>] Target of ``session or user``: string
    | [<Unique>] Control_Socket of path: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Target _ -> "session id of 16 hexadecimal digits, as `sessions` shows it, or the name of a user."
            | Control_Socket _ -> ControlUsage.socket
            | Json -> ControlUsage.json

/// Flags of `lightway-server drain`.
[<RequireQualifiedAccess>]
type internal DrainArgument =
    | [<Unique>] Deadline of duration: string
    | [<Unique>] Control_Socket of path: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Deadline _ -> "time after which the sessions that are left are ended. Default: 5m."
            | Control_Socket _ -> ControlUsage.socket
            | Json -> ControlUsage.json

/// Flags of `lightway-server setup-host`.
[<RequireQualifiedAccess>]
type internal SetUpHostArgument =
    | [<Unique>] Print
    | [<Unique>] Apply
    | [<Unique>] Undo
    | [<Unique; AltCommandLine "-c">] Config_File of path: string
    | [<Unique>] Uplink of device: string
    | [<Unique>] User of name: string
    | [<Unique>] Mtu of bytes: string
    | [<Unique>] No_Nat
    | [<Unique>] Allow_Client_To_Client
    | [<Unique>] Allow_Client_To_Host

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Print -> "show what --apply would do, as a shell script; changes nothing."
            | Apply -> "do it. A second time changes nothing more."
            | Undo -> "take back what --apply has done, and nothing else."
            | Config_File _ -> "configuration file of the server. Required."
            | Uplink _ -> "network device that leads to the Internet. Default: that of the default route."
            | User _ -> "user that the server runs as, who may open the device then. Default: root."
            | Mtu _ -> "MTU of the device, in bytes. Default: 1350, or what fits the datagrams of an uplink below 1500."
            | No_Nat ->
                "other networks see the clients' own addresses: their routers need a route to ip_pool by this host."
            | Allow_Client_To_Client -> "clients reach each other."
            | Allow_Client_To_Host -> "clients reach all ports of this host, and not only DNS."

/// Reads the commands for a running server.
[<RequireQualifiedAccess>]
module internal ControlReading =
    /// A value of the command line, for a `Reader`.
    let given (flag: string) (value: string) : string * Setting =
        flag,
        { Key = flag
          Node = Node.Scalar value
          Source = Source.Flag("--" + flag) }

    let private target: Parser<string> =
        Parser.make (Shape.Text "") id
        <| fun text ->
            if text = "" || text.Length > 255 || Seq.exists Char.IsControl text then
                Error "a session id or a user name of 1 to 255 characters without control characters"
            else
                Ok text

    /// A page of help, or the command.
    let private read
        (command: ControlCommand)
        (results: ParseResults<'Argument>)
        (values: (string * Setting) list)
        (json: bool)
        : ParseOutcome<'Options> =
        if results.IsUsageRequested then
            ParseOutcome(OutcomeKind.Help, text = results.Parser.PrintUsage())
        else
            let reader = Reader(Map values)

            if command = ControlCommand.Kick && reader.TryFind("target").IsNone then
                reader.Refuse "kick: the session or user is missing; allowed: lightway-server kick SESSION_OR_USER"

            let options =
                { Command = command
                  Socket = reader.Read("control-socket", ControlSocket.path, ControlSocket.DefaultPath)
                  Json = json
                  Target = reader.Read("target", target, "")
                  Deadline = reader.Read("deadline", Value.duration, TimeSpan.FromMinutes 5L) }

            match reader.Error with
            | Some message -> CommandLine.error message
            | None -> ParseOutcome(OutcomeKind.Control, control = options)

    let plain (command: ControlCommand) (results: ParseResults<ControlArgument>) : ParseOutcome<'Options> =
        let values =
            [ for argument in results.GetAllResults() do
                  match argument with
                  | ControlArgument.Control_Socket path -> given "control-socket" path
                  | ControlArgument.Json -> () ]

        read command results values (CommandLine.isGiven ControlArgument.Json results)

    let kick (results: ParseResults<KickArgument>) : ParseOutcome<'Options> =
        let values =
            [ for argument in results.GetAllResults() do
                  match argument with
                  | KickArgument.Target name -> given "target" name
                  | KickArgument.Control_Socket path -> given "control-socket" path
                  | KickArgument.Json -> () ]

        read ControlCommand.Kick results values (CommandLine.isGiven KickArgument.Json results)

    let drain (results: ParseResults<DrainArgument>) : ParseOutcome<'Options> =
        let values =
            [ for argument in results.GetAllResults() do
                  match argument with
                  | DrainArgument.Deadline time -> given "deadline" time
                  | DrainArgument.Control_Socket path -> given "control-socket" path
                  | DrainArgument.Json -> () ]

        read ControlCommand.Drain results values (CommandLine.isGiven DrainArgument.Json results)

/// Reads `lightway-server setup-host`.
[<RequireQualifiedAccess>]
module internal HostReading =
    let private userName: Parser<string> =
        Parser.make (Shape.Text "") id
        <| fun text ->
            if text = "" || text[0] = '-' || Seq.exists (fun c -> Char.IsWhiteSpace c || Char.IsControl c) text then
                Error "the name of a user of this machine"
            else
                Ok text

    let private device: Parser<string> =
        Parser.make Value.interfaceName.Shape id
        <| fun text ->
            if HostPlan.isPlainName text then
                Value.interfaceName.Parse text
            else
                Error "the name of a network device, of letters, digits, '.', '_' and '-'"

    let read (results: ParseResults<SetUpHostArgument>) : ParseOutcome<'Options> =
        if results.IsUsageRequested then
            ParseOutcome(OutcomeKind.Help, text = results.Parser.PrintUsage())
        else
            let arguments = results.GetAllResults()

            let reader =
                Reader(
                    Map
                        [ for argument in arguments do
                              match argument with
                              | SetUpHostArgument.Config_File path -> ControlReading.given "config-file" path
                              | SetUpHostArgument.Uplink device -> ControlReading.given "uplink" device
                              | SetUpHostArgument.User name -> ControlReading.given "user" name
                              | SetUpHostArgument.Mtu bytes -> ControlReading.given "mtu" bytes
                              | _ -> () ]
                )

            let actions =
                [ for argument in arguments do
                      match argument with
                      | SetUpHostArgument.Print -> HostAction.Print
                      | SetUpHostArgument.Apply -> HostAction.Apply
                      | SetUpHostArgument.Undo -> HostAction.Undo
                      | _ -> () ]

            if actions.Length <> 1 then
                reader.Refuse "setup-host: one of --print, --apply and --undo is required"

            if reader.TryFind("config-file").IsNone then
                reader.Refuse "config-file: missing; name the server's configuration file with --config-file FILE"

            let options =
                { Action = List.tryHead actions |> Option.defaultValue HostAction.Print
                  ConfigFile = reader.Read("config-file", Value.nonEmpty "a file path", "")
                  Uplink = reader.ReadOrNull<string>("uplink", device)
                  User = reader.ReadOrNull<string>("user", userName)
                  Mtu = reader.Read("mtu", Value.int32 68 65535, 0)
                  Nat = not (CommandLine.isGiven SetUpHostArgument.No_Nat results)
                  ClientToClient = CommandLine.isGiven SetUpHostArgument.Allow_Client_To_Client results
                  ClientToHost = CommandLine.isGiven SetUpHostArgument.Allow_Client_To_Host results }

            match reader.Error with
            | Some message -> CommandLine.error message
            | None -> ParseOutcome(OutcomeKind.SetUpHost, host = options)

namespace Lightway.Options

open System
open System.Collections.Generic
open System.IO
open System.Net
open Argu

type TlsCipher =
    | Aes256 = 0
    | ChaCha20 = 1

type KeyShare =
    | P521MlKem1024 = 0
    | X25519MlKem768 = 1

type RouteMode =
    | Default = 0
    | Lan = 1
    | NoExec = 2

/// Who may change this machine's DNS settings: the client, or nobody.
type DnsConfigMode =
    | Default = 0
    | NoExec = 1

/// The client's options, checked and with every default filled in. If the file has a list of servers, its first entry
/// has replaced the options of the same names.
[<NoComparison>]
type ClientOptions =
    {
        ConfigFile: string
        /// The options as each further entry of the list of servers makes them; their own lists are empty. They differ in what
        /// an entry may contain only.
        Others: ClientOptions list
        /// Name or address, without brackets.
        ServerHost: string
        ServerPort: int
        Mode: TransportMode
        /// Null if the certificate's name is not checked.
        ServerDn: string | null
        Cipher: TlsCipher
        /// Empty if there is a token.
        User: string
        /// Empty if it is in `PasswordFile`, or is to be asked for.
        Password: string
        /// From the working directory if it is relative; null: none.
        PasswordFile: string | null
        /// Takes the place of user and password; null: none. At most 1347 bytes.
        Token: string | null
        /// A path, from the working directory if it is relative, or the PEM text itself if `CaCertIsInline`.
        CaCert: string
        CaCertIsInline: bool
        /// Bytes, 68 to 1500.
        OutsideMtu: int
        /// Path MTU discovery.
        EnablePmtud: bool
        /// Bytes of the first probe's frame; 0 for the default.
        PmtudBaseMtu: int
        /// Bytes of the device's MTU; 0: what the server has, as far as it fits.
        InsideMtu: int
        TunName: string
        TunLocalIp: IPAddress
        TunPeerIp: IPAddress
        TunDnsIp: IPAddress
        KeyShare: KeyShare
        /// The file that TLS secrets are appended to, in the NSS key log format; null: none.
        Keylog: string | null
        /// The records of handshakes are logged.
        TlsDebug: bool
        KeepaliveInterval: TimeSpan
        KeepaliveTimeout: TimeSpan
        KeepaliveContinuous: bool
        /// Without continuous keepalives: silence after which a packet to the server triggers a ping.
        TracerPacketTimeout: TimeSpan
        /// How long a server that is online waits for those before it in the list.
        PreferredConnectionWaitInterval: TimeSpan
        /// A lost connection is followed by another one.
        Reconnect: bool
        /// Rounds that may fail in a row; 0: any number.
        ReconnectAttempts: int
        /// Bytes, for SO_SNDBUF.
        SendBuffer: int
        /// Bytes, for SO_RCVBUF.
        ReceiveBuffer: int
        RouteMode: RouteMode
        DnsConfigMode: DnsConfigMode
        KillSwitch: bool
        AllowIPv6Outside: bool
        /// SO_MARK of the outside socket; 0 for none.
        Fwmark: uint32
        Tos: TosOptions
        EnableExpresslane: bool
        ExpresslaneKeysRotationInterval: TimeSpan
        Offload: OffloadOptions
        /// A ring is asked for; this build has none, and says so.
        EnableTunIouring: bool
        /// Core files may be written, and other processes of the same user may read this one's memory.
        CoreDumps: bool
        LogLevel: LogLevel
        MetricsFile: string | null
        /// Path of a Unix socket that tells how the client is; null: none.
        ControlSocket: string | null
        AcceptUnknowns: bool
    }

    /// All servers, the preferred one first, each as if it were the only one.
    member this.Servers: IReadOnlyList<ClientOptions> = Array.ofList (this :: this.Others)

    /// These options with the logins and certificates of `other`, as far as both have the same servers: what a running client
    /// takes over.
    member this.WithLoginsOf(other: ClientOptions) : ClientOptions =
        let take (one: ClientOptions) (other: ClientOptions) =
            { one with
                User = other.User
                Password = other.Password
                PasswordFile = other.PasswordFile
                Token = other.Token
                ServerDn = other.ServerDn
                CaCert = other.CaCert
                CaCertIsInline = other.CaCertIsInline
                Cipher = other.Cipher
                KeyShare = other.KeyShare }

        let others =
            if this.Others.Length = other.Others.Length then
                List.map2 take this.Others other.Others
            else
                this.Others

        { take this other with Others = others }

    /// Without the values, so that no log line contains the password.
    override this.ToString() = $"client options of {this.ConfigFile}"

/// Names of the client's options, and how its record is built from all layers.
module internal ClientReading =
    /// Keys that an entry of `servers` may contain; each replaces the option of the same name.
    let private serverKeys =
        [ "server"
          "mode"
          "server_dn"
          "cipher"
          "user"
          "password"
          "password_file"
          "token"
          "outside_mtu"
          "ca_cert" ]

    let private credentials = [ "user"; "password"; "password_file"; "token" ]

    let parser =
        ArgumentParser.Create<ClientArgument>(
            programName = "lightway-client",
            helpTextMessage = ClientArgument.help,
            usageStringCharacterWidth = Flags.Width
        )

    let names =
        { EnvironmentPrefix = "LW_CLIENT_"
          Keys = Flags.keys parser
          FileOnly =
            Map
                [ "servers",
                  "list of servers, each with the key server and, if they differ from those above, mode, server_dn, cipher, user, password, password_file, token, outside_mtu and ca_cert; all of them are tried, and the first one is preferred. Default: none."
                  "enable_pqc", "has no effect; keyshare chooses among post-quantum groups." ]
          NotServed = NotServed.client }

    /// Makes `reader` that of the first entry of `servers`, and returns those of the others. An entry is stronger than all
    /// layers; one with credentials of its own inherits none.
    let private readers (acceptUnknowns: bool) (reader: Reader) : Reader list =
        let withoutFor (entry: Setting list) =
            let hasCredentials =
                entry
                |> List.exists (fun setting -> setting.Node <> Node.Absent && List.contains setting.Key credentials)

            if hasCredentials then credentials else []

        let refuse (source: Source) =
            reader.Refuse $"servers: must be a list of maps, each with the key server ({source.Describe()})"

        match reader.TryFind "servers" with
        | None
        | Some { Node = Node.List [] } -> []
        | Some { Node = Node.List nodes
                 Source = source } ->
            let entries =
                nodes
                |> List.choose (function
                    | Node.Table entry -> Some entry
                    | _ ->
                        refuse source
                        None)

            for entry in entries do
                Layers.checkUnknown serverKeys acceptUnknowns reader entry

                if not (entry |> List.exists (fun setting -> setting.Key = "server")) then
                    refuse source

            match entries with
            | [] -> []
            | first :: others ->
                let others = [ for entry in others -> reader.With(entry, withoutFor entry) ]

                reader.Overlay(first, withoutFor first)
                others
        | Some { Source = source } ->
            refuse source
            []

    /// Bytes of the longest token that its frame has room for.
    let private maxToken = 1347

    let private token: Parser<string> =
        Parser.make Shape.Secret (fun _ -> "(hidden)")
        <| fun text ->
            if String.IsNullOrWhiteSpace text || Text.Encoding.UTF8.GetByteCount text > maxToken then
                Error $"1 to {maxToken} bytes"
            else
                Ok(text.Trim())

    /// A token takes the place of user and password.
    let private required (reader: Reader) (key: string) (what: string) (parse: Parser<string>) : string =
        match reader.TryFind key, reader.TryFind "token" with
        | None, Some _ -> reader.TryRead(key, parse) |> Option.defaultValue ""
        | _ -> reader.Require(key, parse, $"{key}: missing; {what} is required, or a token", "")

    /// `ca_cert` is a path or the text of a PEM file.
    let private isInline (caCert: string) =
        caCert.TrimStart().StartsWith("-----BEGIN ", StringComparison.Ordinal)

    let private caCertOrPath: Parser<string> =
        Parser.make
            Shape.File
            (fun text -> if isInline text then "(PEM text)" else text)
            (Value.nonEmpty "a file path or PEM text").Parse

    /// A relative path that stands in the file, or is the default, starts at the file's directory; one of a flag or of the
    /// environment starts at the working directory.
    let private besideFile (configFile: string) (reader: Reader) (key: string) (path: string) =
        match reader.TryFind key with
        | Some { Source = Source.Flag _ | Source.Environment _ } -> path
        | _ ->
            match Path.GetDirectoryName configFile with
            | null -> path // the file would be the root directory
            | directory -> Path.Combine(directory, path)

    let private server (reader: Reader) =
        reader.Require(
            "server",
            Value.hostPort,
            "server: missing; set it to the host:port of the server",
            struct ("", 0)
        )

    /// As `besideFile`; a leading `$CREDENTIALS_DIRECTORY` is the directory that systemd names (systemd.exec(5), Credentials).
    let private passwordFile
        (configFile: string)
        (getEnv: Func<string, string | null>)
        (reader: Reader)
        : string | null =
        let variable = "$CREDENTIALS_DIRECTORY"

        match reader.ReadOrNull<string>("password_file", Value.path) with
        | null -> null
        | path when path.StartsWith(variable + "/", StringComparison.Ordinal) ->
            match getEnv.Invoke(variable.Substring 1) with
            | null
            | "" ->
                reader.Reject(
                    "password_file",
                    path,
                    "can't be found: systemd sets CREDENTIALS_DIRECTORY only for a unit with LoadCredential= or SetCredential="
                )

                path
            | directory -> directory + path.Substring variable.Length
        | path -> besideFile configFile reader "password_file" path

    /// Without a password the file has it, or somebody is asked for it.
    let private password (reader: Reader) : string =
        match reader.TryFind "password", reader.TryFind "password_file" with
        | Some _, Some file ->
            reader.Refuse $"password_file: there is a password already; set one of the two ({file.Source.Describe()})"
        | _ -> ()

        reader.TryRead("password", Value.secret "a password") |> Option.defaultValue ""

    let private readServer
        (configFile: string)
        (getEnv: Func<string, string | null>)
        (acceptUnknowns: bool)
        (reader: Reader)
        : ClientOptions =
        let struct (host, port) = server reader

        let caCert = reader.Read("ca_cert", caCertOrPath, "./ca_cert.crt")

        let ip key (fallback: string) =
            reader.Read(key, Value.ipv4, IPAddress.Parse fallback)

        let interval key (fallback: float) =
            reader.Read(key, Value.positiveDuration, TimeSpan.FromSeconds fallback)

        let serverDn =
            match reader.Read("server_dn", Value.text, "") with
            | "" -> null
            | name -> name

        let options =
            { ConfigFile = configFile
              Others = []
              ServerHost = host
              ServerPort = port
              Mode = reader.Read("mode", Value.mode, TransportMode.Tcp)
              ServerDn = serverDn
              Cipher =
                reader.Read(
                    "cipher",
                    Value.oneOf [ "aes256", TlsCipher.Aes256; "chacha20", TlsCipher.ChaCha20 ],
                    TlsCipher.Aes256
                )
              User = required reader "user" "a user name" (Value.nonEmpty "a user name")
              Password = password reader
              PasswordFile = passwordFile configFile getEnv reader
              Token = reader.ReadOrNull<string>("token", token)
              CaCert =
                if isInline caCert then
                    caCert
                else
                    besideFile configFile reader "ca_cert" caCert
              CaCertIsInline = isInline caCert
              OutsideMtu = reader.Read("outside_mtu", Value.int32 68 1500, 1500)
              EnablePmtud = reader.Bool("enable_pmtud", false)
              PmtudBaseMtu = reader.TryRead("pmtud_base_mtu", Value.int32 68 65535) |> Option.defaultValue 0
              InsideMtu = reader.TryRead("inside_mtu", Value.int32 68 65535) |> Option.defaultValue 0
              TunName = reader.Read("tun_name", Value.interfaceName, "lightway")
              TunLocalIp = ip "tun_local_ip" "100.64.0.6"
              TunPeerIp = ip "tun_peer_ip" "100.64.0.5"
              TunDnsIp = ip "tun_dns_ip" "100.64.0.1"
              KeyShare =
                reader.Read(
                    "keyshare",
                    Value.oneOf [ "p521mlkem1024", KeyShare.P521MlKem1024; "x25519mlkem768", KeyShare.X25519MlKem768 ],
                    KeyShare.P521MlKem1024
                )
              Keylog = reader.ReadOrNull<string>("keylog", Value.path)
              TlsDebug = reader.Bool("tls_debug", false)
              KeepaliveInterval = interval "keepalive_interval" 10.
              KeepaliveTimeout = interval "keepalive_timeout" 60.
              KeepaliveContinuous = reader.Bool("keepalive_continuous", true)
              TracerPacketTimeout = interval "tracer_packet_timeout" 10.
              PreferredConnectionWaitInterval =
                reader.Read("preferred_connection_wait_interval", Value.duration, TimeSpan.Zero)
              Reconnect = reader.Bool("reconnect", true)
              ReconnectAttempts = reader.Read("reconnect_attempts", Value.int32 0 1_000_000, 0)
              SendBuffer = reader.Read("sndbuf", Value.byteSize, 8 * 1024 * 1024)
              ReceiveBuffer = reader.Read("rcvbuf", Value.byteSize, 8 * 1024 * 1024)
              RouteMode =
                reader.Read(
                    "route_mode",
                    Value.oneOf [ "default", RouteMode.Default; "lan", RouteMode.Lan; "noexec", RouteMode.NoExec ],
                    RouteMode.Default
                )
              DnsConfigMode =
                reader.Read(
                    "dns_config_mode",
                    Value.oneOf [ "default", DnsConfigMode.Default; "noexec", DnsConfigMode.NoExec ],
                    DnsConfigMode.Default
                )
              KillSwitch = reader.Bool("kill_switch", false)
              AllowIPv6Outside = reader.Bool("allow_ipv6_outside", false)
              Fwmark = uint32 (reader.Read("fwmark", Value.number 0L (int64 UInt32.MaxValue), 0L))
              Tos = TosOptions.read reader
              EnableExpresslane = reader.Bool("enable_expresslane", false)
              ExpresslaneKeysRotationInterval = interval "expresslane_keys_rotation_interval" 900.
              Offload = OffloadOptions.read true reader
              EnableTunIouring = IoUring.read reader
              CoreDumps = reader.Bool("core_dumps", false)
              LogLevel = Layers.logLevel names getEnv reader
              MetricsFile = reader.ReadOrNull<string>("metrics_file", Value.path)
              ControlSocket = reader.ReadOrNull<string>("control_socket", ControlSocket.path)
              AcceptUnknowns = acceptUnknowns }

        if reader.Bool("enable_inside_pkt_encoding", false) then
            reader.Reject(
                "enable_inside_pkt_encoding",
                "true",
                "can't be met: encoding needs a codec, and this program has none; programs that embed the engine may add one"
            )

        options

    /// The list of servers as the program sees it, each entry with all that it may contain: what the options of the same names
    /// show is that of the first one. Absent unless there are several.
    let private noteServers (reader: Reader) (others: Reader list) : unit =
        let entry (server: Reader) =
            Node.Table
                [ for reading in server.Readings do
                      if List.contains reading.Key serverKeys && reading.Value <> Node.Absent then
                          { Key = reading.Key
                            Node = reading.Value
                            Source = reading.Source } ]

        reader.Note(
            "servers",
            Shape.List(Shape.Map("^(" + String.Join('|', serverKeys) + ")$", Shape.Any)),
            Node.Absent,
            (if others.IsEmpty then
                 Node.Absent
             else
                 Node.List(List.map entry (reader :: others)))
        )

    let read (configFile: string) (getEnv: Func<string, string | null>) (reader: Reader) : ClientOptions =
        let acceptUnknowns = reader.Bool("accept_unknowns", false)
        reader.Bool("enable_batch_receive", false) |> ignore // done in any case
        let others = readers acceptUnknowns reader
        let first = readServer configFile getEnv acceptUnknowns reader
        NotServed.check names.NotServed reader

        let rest =
            [ for other in others do
                  let options = readServer configFile getEnv acceptUnknowns other
                  reader.Join other
                  options ]

        noteServers reader others
        { first with Others = rest }

/// Reads the options of `lightway-client status`.
module internal StatusReading =
    [<Literal>]
    let private defaultSocket = "/run/lightway-client/control.sock"

    let read (results: ParseResults<StatusArgument>) : ParseOutcome<ClientOptions> =
        if results.IsUsageRequested then
            ParseOutcome(OutcomeKind.Help, text = results.Parser.PrintUsage())
        else
            let socket =
                results.GetAllResults()
                |> List.tryPick (function
                    | StatusArgument.Control_Socket path -> Some path
                    | StatusArgument.Json -> None)
                |> Option.defaultValue defaultSocket

            ParseOutcome(
                OutcomeKind.Status,
                status =
                    { Socket = socket
                      Json = CommandLine.isGiven StatusArgument.Json results }
            )

module internal ClientProgram =
    let program: Program<ClientArgument, ClientOptions> =
        { Name = "lightway-client"
          Parser = ClientReading.parser
          Names = ClientReading.names
          Help = ClientArgument.help
          Manual = Manuals.client
          Headings = ClientArgument.headings
          TryCommand =
            (fun results ->
                match results.TryGetSubCommand() with
                | Some(ClientArgument.Status arguments) -> Some(StatusReading.read arguments)
                | _ when CommandLine.isGiven ClientArgument.Version results ->
                    Some(CommandLine.version "lightway-client")
                | _ when CommandLine.isGiven ClientArgument.Reset results -> Some(ParseOutcome OutcomeKind.Reset)
                | _ -> None)
          Read = ClientReading.read }

type ClientOptions with

    /// Reads flags, environment and YAML file. `getEnv` returns null for a variable that is not set; `readFile` returns
    /// a file's text or raises IOException or UnauthorizedAccessException. Nothing else is read, and bad input does not
    /// raise: see `ParseOutcome.Kind`.
    static member Parse
        (argv: string[], getEnv: Func<string, string | null>, readFile: Func<string, string>)
        : ParseOutcome<ClientOptions> =
        CommandLine.run ClientProgram.program argv getEnv readFile

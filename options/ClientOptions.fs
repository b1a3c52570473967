namespace Lightway.Options

open System
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
        /// Name or address, without brackets.
        ServerHost: string
        ServerPort: int
        Mode: TransportMode
        /// Null if the certificate's name is not checked.
        ServerDn: string | null
        Cipher: TlsCipher
        /// Empty if there is a token.
        User: string
        Password: string
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
        AcceptUnknowns: bool
    }

    /// Without the values, so that no log line contains the password.
    override this.ToString() = $"client options of {this.ConfigFile}"

/// Names of the client's options, and how its record is built from all layers.
module internal ClientReading =
    /// Keys that an entry of `servers` may contain; each replaces the option of the same name.
    let private serverKeys =
        [ "server"; "mode"; "server_dn"; "cipher"; "user"; "password"; "token"; "outside_mtu"; "ca_cert" ]

    let private credentials = [ "user"; "password"; "token" ]

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
                  "list of servers, each with the key server and, if they differ from those above, mode, server_dn, cipher, user, password, token, outside_mtu and ca_cert; only the first one is used. Default: none."
                  "enable_pqc", "has no effect; keyshare chooses among post-quantum groups." ]
          NotServed = NotServed.client }

    /// Makes the first entry of `servers`, if there is one, stronger than all layers. An entry with credentials of its
    /// own inherits none.
    let private useFirstServer (acceptUnknowns: bool) (reader: Reader) : unit =
        // What the entry in use has, the options of the same names show.
        reader.Note(
            "servers",
            Shape.List(Shape.Map("^(" + String.Join('|', serverKeys) + ")$", Shape.Any)),
            Node.Absent,
            Node.Absent
        )

        match reader.TryFind "servers" with
        | None
        | Some { Node = Node.List [] } -> ()
        | Some { Node = Node.List(Node.Table entry :: others)
                 Source = source } ->
            Layers.checkUnknown serverKeys acceptUnknowns reader entry

            if not others.IsEmpty then
                reader.Warn
                    $"servers: parallel connect is not served yet; only the first of {others.Length + 1} is used ({source.Describe()})"

            let hasCredentials =
                entry
                |> List.exists (fun setting -> setting.Node <> Node.Absent && List.contains setting.Key credentials)

            reader.Overlay(entry, (if hasCredentials then credentials else []))
        | Some { Source = source } ->
            reader.Refuse $"servers: must be a list of maps, each with the key server ({source.Describe()})"

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

    let read (configFile: string) (getEnv: Func<string, string | null>) (reader: Reader) : ClientOptions =
        let acceptUnknowns = reader.Bool("accept_unknowns", false)
        useFirstServer acceptUnknowns reader
        reader.Bool("enable_batch_receive", false) |> ignore // done in any case
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
              Password = required reader "password" "a password" (Value.secret "a password")
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
              AcceptUnknowns = acceptUnknowns }

        NotServed.check names.NotServed reader

        options

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
                if results.Contains ClientArgument.Version then
                    Some(CommandLine.version "lightway-client")
                elif results.Contains ClientArgument.Reset then
                    Some(ParseOutcome OutcomeKind.Reset)
                else
                    None)
          Read = ClientReading.read }

type ClientOptions with

    /// Reads flags, environment and YAML file. `getEnv` returns null for a variable that is not set; `readFile` returns
    /// a file's text or raises IOException or UnauthorizedAccessException. Nothing else is read, and bad input does not
    /// raise: see `ParseOutcome.Kind`.
    static member Parse
        (argv: string[], getEnv: Func<string, string | null>, readFile: Func<string, string>)
        : ParseOutcome<ClientOptions> =
        CommandLine.run ClientProgram.program argv getEnv readFile

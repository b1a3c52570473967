namespace Lightway.Options

open System
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

type DnsConfigMode =
    | Default = 0
    | NoExec = 1

/// What the client runs with: checked, with every default filled in. With a list of servers in the file, the
/// first entry has taken the place of the options of the same name.
[<NoComparison>]
type ClientOptions =
    {
        ConfigFile: string
        /// Name or address, without brackets.
        ServerHost: string
        ServerPort: int
        Mode: TransportMode
        /// Null when the certificate's name is not checked.
        ServerDn: string | null
        Cipher: TlsCipher
        User: string
        Password: string
        Token: string | null
        /// A path, or the PEM text itself when `CaCertIsInline`.
        CaCert: string
        CaCertIsInline: bool
        /// Bytes, 68 to 1500.
        OutsideMtu: int
        TunName: string
        TunLocalIp: IPAddress
        TunPeerIp: IPAddress
        TunDnsIp: IPAddress
        KeyShare: KeyShare
        KeepaliveInterval: TimeSpan
        KeepaliveTimeout: TimeSpan
        KeepaliveContinuous: bool
        TracerPacketTimeout: TimeSpan
        PreferredConnectionWaitInterval: TimeSpan
        /// Bytes, for SO_SNDBUF.
        SendBuffer: int
        /// Bytes, for SO_RCVBUF.
        ReceiveBuffer: int
        EnableBatchReceive: bool
        RouteMode: RouteMode
        DnsConfigMode: DnsConfigMode
        /// SO_MARK of the outside socket; 0 for none.
        Fwmark: uint32
        EnableExpresslane: bool
        ExpresslaneKeysRotationInterval: TimeSpan
        EnablePmtud: bool
        /// Bytes; 0 when not given.
        PmtudBaseMtu: int
        EnableTunIouring: bool
        IouringEntryCount: int
        IouringSqpollIdleTime: TimeSpan
        EnableInsidePktEncoding: bool
        /// Offload in both directions, less what the five switches below take out.
        EnableTunOffload: bool
        /// Segments in one UDP GSO send, 1 to 64.
        GsoMaxSegments: int
        GsoMaxBurst: TimeSpan
        DisableTunTso: bool
        DisableTunGroTcp: bool
        DisableTunGroUdp: bool
        DisableUdpGso: bool
        DisableUdpGro: bool
        LogLevel: LogLevel
        MetricsFile: string | null
        AcceptUnknowns: bool
        Keylog: string | null
        TlsDebug: bool
    }

    /// Without the values, so that no log line holds the password.
    override this.ToString() = $"client options of {this.ConfigFile}"

module private ClientReading =
    let private notServed = "not served yet by this build; it has no effect"

    let private notServedKeys =
        [ for key in
              [ "token"
                "preferred_connection_wait_interval"
                "enable_batch_receive"
                "enable_pmtud"
                "pmtud_base_mtu"
                "enable_tun_iouring"
                "iouring_entry_count"
                "iouring_sqpoll_idle_time"
                "enable_inside_pkt_encoding"
                "dns_config_mode"
                "tracer_packet_timeout"
                "keylog"
                "tls_debug" ] do
              yield key, notServed
          yield "enable_pqc", "has no effect here; keyshare chooses among post-quantum groups"
          for key in [ "wintun_file"; "device_guid"; "wintun_ring_capacity"; "enable_dpapi" ] do
              yield key, "is for Windows; it has no effect here"
          yield "enable_connected_udp", "is for Apple systems; it has no effect here" ]

    /// What an entry of `servers` may hold; each stands for the option of the same name.
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
          Keys = (Flags.keys parser).Remove "version"
          FileOnly = set [ "servers"; "enable_pqc" ]
          NotServed = notServedKeys }

    /// Lays the first entry of `servers`, if there is one, over the other layers. An entry that has credentials of
    /// its own inherits none.
    let private useFirstServer (acceptUnknowns: bool) (reader: Reader) : unit =
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
            reader.Refuse $"servers: must be a list of maps, each with a server ({source.Describe()})"

    let private needed (reader: Reader) (key: string) (what: string) =
        match reader.TryFind key, reader.TryFind "token" with
        | Some _, _ -> reader.Read(key, Value.nonEmpty what, "")
        | None, Some token ->
            reader.Accept(
                Error $"{key}: missing; tokens ({token.Source.Describe()}) are not served yet, so {what} is needed",
                ""
            )
        | None, None -> reader.Accept(Error $"{key}: missing; {what} is needed", "")

    /// The certificate option takes a path or the text of a PEM file.
    let private isInline (caCert: string) =
        caCert.TrimStart().StartsWith("-----BEGIN ", StringComparison.Ordinal)

    let private server (reader: Reader) =
        let none = struct ("", 0)

        match reader.TryFind "server" with
        | Some _ -> reader.Read("server", Value.hostPort, none)
        | None -> reader.Accept(Error "server: missing; name the server as host:port", none)

    let read (configFile: string) (getEnv: Func<string, string | null>) (reader: Reader) : ClientOptions =
        let acceptUnknowns = reader.Bool("accept_unknowns", false)
        useFirstServer acceptUnknowns reader
        let struct (host, port) = server reader

        let caCert =
            reader.Read("ca_cert", Value.nonEmpty "a file path or PEM text", "./ca_cert.crt")

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
              User = needed reader "user" "a user name"
              Password = needed reader "password" "a password"
              Token = reader.ReadOrNull<string>("token", Value.text)
              CaCert = caCert
              CaCertIsInline = isInline caCert
              OutsideMtu = reader.Read("outside_mtu", Value.int32 68 1500, 1500)
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
              KeepaliveInterval = interval "keepalive_interval" 10.
              KeepaliveTimeout = interval "keepalive_timeout" 60.
              KeepaliveContinuous = reader.Bool("keepalive_continuous", true)
              TracerPacketTimeout = interval "tracer_packet_timeout" 10.
              PreferredConnectionWaitInterval =
                reader.Read("preferred_connection_wait_interval", Value.duration, TimeSpan.Zero)
              SendBuffer = reader.Read("sndbuf", Value.byteSize, 8 * 1024 * 1024)
              ReceiveBuffer = reader.Read("rcvbuf", Value.byteSize, 8 * 1024 * 1024)
              EnableBatchReceive = reader.Bool("enable_batch_receive", false)
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
              Fwmark = uint32 (reader.Read("fwmark", Value.number 0L (int64 UInt32.MaxValue), 0L))
              EnableExpresslane = reader.Bool("enable_expresslane", false)
              ExpresslaneKeysRotationInterval = interval "expresslane_keys_rotation_interval" 900.
              EnablePmtud = reader.Bool("enable_pmtud", false)
              PmtudBaseMtu = reader.Read("pmtud_base_mtu", Value.int32 68 65535, 0)
              EnableTunIouring = reader.Bool("enable_tun_iouring", false)
              IouringEntryCount = reader.Read("iouring_entry_count", Value.int32 1 32768, 1024)
              IouringSqpollIdleTime =
                reader.Read("iouring_sqpoll_idle_time", Value.duration, TimeSpan.FromMilliseconds 100L)
              EnableInsidePktEncoding = reader.Bool("enable_inside_pkt_encoding", false)
              EnableTunOffload = reader.Bool("enable_tun_offload", true)
              GsoMaxSegments = reader.Read("gso_max_segments", Value.int32 1 64, 64)
              GsoMaxBurst = reader.Read("gso_max_burst", Value.burst, TimeSpan.FromMilliseconds 1L)
              DisableTunTso = reader.Bool("disable_tun_tso", false)
              DisableTunGroTcp = reader.Bool("disable_tun_gro_tcp", false)
              DisableTunGroUdp = reader.Bool("disable_tun_gro_udp", false)
              DisableUdpGso = reader.Bool("disable_udp_gso", false)
              DisableUdpGro = reader.Bool("disable_udp_gro", false)
              LogLevel = Layers.logLevel names getEnv reader
              MetricsFile = reader.ReadOrNull<string>("metrics_file", Value.nonEmpty "a file path")
              AcceptUnknowns = acceptUnknowns
              Keylog = reader.ReadOrNull<string>("keylog", Value.text)
              TlsDebug = reader.Bool("tls_debug", false) }

        if reader.Error.IsNone && options.Mode = TransportMode.Tcp then
            reader.Reject("mode", "tcp", "is not served yet: this build serves udp only; write mode: udp")

        options

type ClientOptions with

    /// Reads flags, environment and YAML file. `getEnv` gives null for a variable that is not set; `readFile` gives a
    /// file's text or raises IOException or UnauthorizedAccessException. Nothing else is touched, and bad input never
    /// raises: see `ParseOutcome.Kind`.
    static member Parse
        (argv: string[], getEnv: Func<string, string | null>, readFile: Func<string, string>)
        : ParseOutcome<ClientOptions> =
        CommandLine.run
            { Name = "lightway-client"
              Parser = ClientReading.parser
              Names = ClientReading.names
              Help = ClientArgument.help
              Headings = ClientArgument.headings
              TryCommand =
                (fun results ->
                    if results.Contains ClientArgument.Version then
                        Some(CommandLine.version "lightway-client")
                    else
                        None)
              Read = ClientReading.read }
            argv
            getEnv
            readFile

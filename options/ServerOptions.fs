namespace Lightway.Options

open System
open System.Collections.Generic
open System.Net
open Argu
open Lightway.Segmenter

/// The server's options, checked and with every default filled in.
[<NoComparison>]
type ServerOptions =
    {
        ConfigFile: string
        Mode: TransportMode
        BindAddress: IPEndPoint
        /// Times that the address is tried, one second apart, before the server gives up.
        BindAttempts: int
        /// Connections of `ProxyProtocolFrom` begin with a PROXY header; mode tcp only.
        ProxyProtocol: bool
        /// Addresses of the proxies; at least one network. All others connect without a header.
        ProxyProtocolFrom: IPNetwork[]
        ServerCert: string
        ServerKey: string
        /// Null: no password file.
        UserDb: string | null
        Auth: AuthOptions
        TunName: string | null
        TunIp: IPAddress | null
        /// Prefix from /8 to /30.
        IpPool: IPNetwork
        RandomizeIpPool: bool
        /// Parts of `IpPool` for clients that connect to certain local addresses; empty if a file has them, or none.
        IpMap: IpMapEntry list
        /// The file that has the map; null: none.
        IpMapFile: string | null
        /// ICMP "host unreachable" for addresses of the pool that no client has.
        IcmpUnreachable: bool
        LightwayClientIp: IPAddress
        LightwayServerIp: IPAddress
        LightwayDnsIp: IPAddress
        Tos: TosOptions
        /// Path MTU discovery, to each client.
        EnablePmtud: bool
        EnableExpresslane: bool
        ExpresslaneKeysRotationInterval: TimeSpan
        KeyUpdateInterval: TimeSpan
        EnablePqc: bool
        /// The file that TLS secrets are appended to, in the NSS key log format; null: none.
        Keylog: string | null
        /// The records of handshakes are logged.
        TlsDebug: bool
        ConnectionAgeExpirationInterval: TimeSpan
        /// Handshakes per second of one source address; 0: any number.
        HandshakesPerSource: int
        /// Connections without a login.
        HalfOpenLimit: int
        /// Password checks at the same time; 0: half the cores.
        LoginChecks: int
        /// Sessions of one user; 0: any number.
        SessionsPerUser: int
        SessionIdleLimit: TimeSpan
        StatisticsReportingInterval: TimeSpan
        MetricsFile: string | null
        /// Path of the control socket; null: none.
        ControlSocket: string | null
        /// Where metrics are served by HTTP; null: nowhere.
        MetricsAddress: IPEndPoint | null
        /// A file, or `unix:` and the path of a datagram socket; null: no accounting.
        Accounting: string | null
        AccountingInterval: TimeSpan
        /// Bytes, for SO_SNDBUF and SO_RCVBUF.
        UdpBufferSize: int
        Offload: OffloadOptions
        /// A ring is asked for; this build has none, and says so.
        EnableTunIouring: bool
        /// Worker threads that carry the packets, 1 to 64; 0 for one per core.
        Workers: int
        /// Each worker is pinned to a processor of its own.
        PinWorkers: bool
        /// Core files may be written, and other processes of the same user may read this one's memory.
        CoreDumps: bool
        LogFormat: LogFormat
        LogLevel: LogLevel
        AcceptUnknowns: bool
    }

    /// Addresses that the pool never assigns.
    member this.ReservedAddresses: IReadOnlyList<IPAddress> =
        [| this.LightwayClientIp
           this.LightwayServerIp
           this.LightwayDnsIp
           match this.TunIp with
           | null -> ()
           | address -> address |]

/// Names of the server's options, and how its record is built from all layers.
module internal ServerReading =
    let parser =
        ArgumentParser.Create<ServerArgument>(
            programName = "lightway-server",
            helpTextMessage = ServerArgument.help,
            usageStringCharacterWidth = Flags.Width
        )

    let names =
        { EnvironmentPrefix = "LW_SERVER_"
          Keys = Flags.keys parser
          FileOnly = Map.empty
          NotServed = NotServed.server }

    /// Number of the pool's addresses that are left for clients.
    let private freeAddresses (options: ServerOptions) : int64 =
        let hosts = (1L <<< (32 - options.IpPool.PrefixLength)) - 2L
        let number (address: IPAddress) = int64 (Ipv4Address.Of address).Value
        let first = number options.IpPool.BaseAddress + 1L

        let reserved =
            options.ReservedAddresses
            |> Seq.map number
            |> Seq.distinct
            |> Seq.filter (fun address -> address >= first && address < first + hosts)
            |> Seq.length

        hosts - int64 reserved

    let private everybody = [ IPNetwork.Parse "0.0.0.0/0"; IPNetwork.Parse "::/0" ]

    let private checkCombinations (reader: Reader) (isBatchSend: bool) (options: ServerOptions) : unit =
        if options.EnableExpresslane && options.Mode = TransportMode.Tcp then
            reader.Reject("enable_expresslane", "true", "needs mode: udp or both")

        if options.ProxyProtocol && options.Mode = TransportMode.Udp then
            reader.Reject("proxy_protocol", "true", "needs mode: tcp or both; a datagram carries no PROXY header")

        if options.ProxyProtocolFrom <> Array.ofList everybody && not options.ProxyProtocol then
            let networks = options.ProxyProtocolFrom |> Seq.map string |> String.concat ", "
            reader.Reject("proxy_protocol_from", networks, "has no effect without proxy_protocol: true")

        if isBatchSend && options.Offload.EnableTunOffload then
            reader.Reject("enable_batch_send", "true", "cannot be combined with enable_tun_offload: true")

        AuthOptions.check reader options.UserDb options.Auth

        match IpMap.problem (options.IpPool, options.IpMap) with
        | null -> ()
        | problem -> reader.Refuse $"ip_map: {problem}"

        if freeAddresses options < 1L then
            reader.Reject(
                "ip_pool",
                string options.IpPool,
                "has no address left for clients after the reserved ones; allowed: a larger network"
            )

    /// The map itself, or the file that has it.
    let private ipMap (reader: Reader) : IpMapEntry list * (string | null) =
        match reader.TryFind "ip_map" with
        | Some { Node = Node.Table entries as map } ->
            reader.Note("ip_map", IpMap.shape, Node.Absent, map)
            reader.Accept(IpMap.ofSettings entries, []), null
        | _ ->
            [],
            reader.ReadOrNull<string>(
                "ip_map",
                { Value.nonEmpty "a file path, or a map" with
                    Shape = IpMap.shape }
            )

    let read (configFile: string) (getEnv: Func<string, string | null>) (reader: Reader) : ServerOptions =
        let path key fallback = reader.Read(key, Value.path, fallback)

        let ip key (fallback: string) =
            reader.Read(key, Value.ipv4, IPAddress.Parse fallback)

        let interval key (fallback: float) =
            reader.Read(key, Value.positiveDuration, TimeSpan.FromSeconds fallback)

        let map = ipMap reader
        // What it asks for is done in any case. The same holds for enable_batch_send, which is read below.
        reader.Bool("enable_batch_receive", false) |> ignore
        let isBatchSend = reader.Bool("enable_batch_send", false)

        let options =
            { ConfigFile = configFile
              Mode = reader.Read("mode", Value.serverMode, TransportMode.Tcp)
              BindAddress = reader.Read("bind_address", Value.endPoint, IPEndPoint(IPAddress.Any, 27690))
              BindAttempts = reader.Read("bind_attempts", Value.int32 1 1000, 1)
              ProxyProtocol = reader.Bool("proxy_protocol", false)
              ProxyProtocolFrom = Array.ofList (reader.ReadList("proxy_protocol_from", Value.network, everybody))
              ServerCert = path "server_cert" "./server.crt"
              ServerKey = path "server_key" "./server.key"
              UserDb = reader.ReadOrNull<string>("user_db", Value.path)
              Auth = AuthOptions.read reader
              TunName = reader.ReadOrNull<string>("tun_name", Value.interfaceName)
              TunIp = reader.ReadOrNull<IPAddress>("tun_ip", Value.ipv4)
              IpPool = reader.Read("ip_pool", Value.ipv4Network 8 30, IPNetwork.Parse "10.125.0.0/16")
              RandomizeIpPool = reader.Bool("randomize_ippool", true)
              IpMap = fst map
              IpMapFile = snd map
              IcmpUnreachable = reader.Bool("icmp_unreachable", false)
              LightwayClientIp = ip "lightway_client_ip" "10.125.0.5"
              LightwayServerIp = ip "lightway_server_ip" "10.125.0.6"
              LightwayDnsIp = ip "lightway_dns_ip" "10.125.0.1"
              Tos = TosOptions.read reader
              EnablePmtud = reader.Bool("enable_pmtud", false)
              EnableExpresslane = reader.Bool("enable_expresslane", false)
              ExpresslaneKeysRotationInterval = interval "expresslane_keys_rotation_interval" 900.
              KeyUpdateInterval = interval "key_update_interval" 900.
              EnablePqc = reader.Bool("enable_pqc", false)
              Keylog = reader.ReadOrNull<string>("keylog", Value.path)
              TlsDebug = reader.Bool("tls_debug", false)
              ConnectionAgeExpirationInterval = interval "connection_age_expiration_interval" 60.
              HandshakesPerSource = reader.Read("handshakes_per_source", Value.int32 0 100_000, 10)
              HalfOpenLimit = reader.Read("half_open_limit", Value.int32 16 1_000_000, 4_096)
              LoginChecks = reader.Read("login_checks", Value.int32 0 256, 0)
              SessionsPerUser = reader.Read("sessions_per_user", Value.int32 0 1_000_000, 0)
              SessionIdleLimit = interval "session_idle_limit" 86_400.
              StatisticsReportingInterval = interval "statistics_reporting_interval" 30.
              MetricsFile = reader.ReadOrNull<string>("metrics_file", Value.path)
              ControlSocket = reader.ReadOrNull<string>("control_socket", ControlSocket.path)
              MetricsAddress = reader.ReadOrNull<IPEndPoint>("metrics_address", Value.localEndPoint)
              Accounting = reader.ReadOrNull<string>("accounting", Value.accounting)
              AccountingInterval = interval "accounting_interval" 900.
              UdpBufferSize = reader.Read("udp_buffer_size", Value.byteSize, 15 * 1024 * 1024)
              Offload = OffloadOptions.read false reader
              EnableTunIouring = IoUring.read reader
              Workers = reader.Read("workers", Value.int32 0 64, 0)
              PinWorkers = reader.Bool("pin_workers", false)
              CoreDumps = reader.Bool("core_dumps", false)
              LogFormat = reader.Read("log_format", Value.logFormat, LogFormat.Full)
              LogLevel = Layers.logLevel names getEnv reader
              AcceptUnknowns = reader.Bool("accept_unknowns", false) }

        NotServed.check names.NotServed reader

        if reader.Error.IsNone then
            checkCombinations reader isBatchSend options

        options

/// Reads `lightway-server init`.
module internal InitReading =
    let private userName: Parser<string> =
        Parser.make (Shape.Text "") id
        <| fun text ->
            if
                text = ""
                || text.Length > 50
                || text |> Seq.exists (fun c -> c = ':' || Char.IsControl c || c > '~')
            then
                Error "a user name of 1 to 50 ASCII characters without ':'"
            else
                Ok text

    let private dnsName: Parser<string> =
        Parser.make (Shape.Text "") id
        <| fun text ->
            if Uri.CheckHostName text = UriHostNameType.Dns && text.Length <= 64 && text.Trim('.').Contains '.' then
                Ok text
            else
                Error "a fully qualified DNS name of at most 64 characters such as vpn.example.com"

    /// No control characters: the files that `init` writes name the directory in their comments.
    let private directory: Parser<string> =
        Parser.make Shape.File id
        <| fun text ->
            if String.IsNullOrWhiteSpace text || Seq.exists Char.IsControl text then
                Error "a directory without control characters in its name"
            else
                Ok text

    let private isGiven (reader: Reader) (key: string) = reader.TryFind(key).IsSome

    let private hasCertificate (reader: Reader) =
        isGiven reader "certificate" || isGiven reader "acme-webroot"

    let private checkCertificate (reader: Reader) : unit =
        match isGiven reader "certificate", isGiven reader "key", isGiven reader "acme-webroot" with
        | true, false, _ -> reader.Refuse "key: missing; --certificate needs the key's file as --key"
        | false, true, _ -> reader.Refuse "certificate: missing; --key needs the certificate's file as --certificate"
        | true, true, true ->
            reader.Refuse "acme-webroot: cannot be combined with --certificate: certbot gets another one"
        | false, false, true when not (isGiven reader "address" || isGiven reader "server-name") ->
            reader.Refuse
                "acme-webroot: needs the name that the certificate is for: --address NAME:PORT, or --server-name NAME"
        | _ -> ()

    let read (results: ParseResults<InitArgument>) : ParseOutcome<ServerOptions> =
        let given flag value =
            { Key = flag
              Node = Node.Scalar value
              Source = Source.Flag("--" + flag) }

        let reader =
            Reader(
                Map
                    [ for argument in results.GetAllResults() do
                          match argument with
                          | InitArgument.Directory value -> "directory", given "directory" value
                          | InitArgument.Address value -> "address", given "address" value
                          | InitArgument.User value -> "user", given "user" value
                          | InitArgument.Server_Name value -> "server-name", given "server-name" value
                          | InitArgument.Ip_Pool value -> "ip-pool", given "ip-pool" value
                          | InitArgument.Certificate value -> "certificate", given "certificate" value
                          | InitArgument.Key value -> "key", given "key" value
                          | InitArgument.Acme_Webroot value -> "acme-webroot", given "acme-webroot" value
                          | InitArgument.Setup_Host -> "setup-host", given "setup-host" "true" ]
            )

        if reader.TryFind("directory").IsNone then
            reader.Refuse "init: the directory to write to is missing; allowed: lightway-server init DIR"

        let struct (host, port) =
            reader.Read("address", Value.hostPort, struct ("127.0.0.1", 27690))

        let path (key: string) =
            reader.ReadOrNull<string>(key, Value.nonEmpty "a file path")

        checkCertificate reader

        /// The name in an existing certificate is likely the one that clients know the server by.
        let defaultName =
            match dnsName.Parse host with
            | Ok name when hasCertificate reader -> name
            | _ -> "server.lightway.internal"

        let options =
            { Directory = reader.Read("directory", directory, "")
              ServerHost = host
              ServerPort = port
              IsAddressGiven = reader.TryFind("address").IsSome
              User = reader.Read("user", userName, "lightway")
              ServerName = reader.Read("server-name", dnsName, defaultName)
              IpPool = reader.Read("ip-pool", Value.ipv4Network 8 28, IPNetwork.Parse "10.125.0.0/16")
              Certificate = path "certificate"
              Key = path "key"
              AcmeWebroot = path "acme-webroot"
              SetUpHost = reader.Bool("setup-host", false) }

        match reader.Error with
        | Some message -> CommandLine.error message
        | None -> ParseOutcome(OutcomeKind.Init, init = options)

    let tryCommand (results: ParseResults<ServerArgument>) : ParseOutcome<ServerOptions> option =
        results.GetAllResults()
        |> List.tryPick (fun argument ->
            match argument with
            | ServerArgument.Version -> Some(CommandLine.version "lightway-server")
            | ServerArgument.Init arguments when arguments.IsUsageRequested ->
                Some(ParseOutcome(OutcomeKind.Help, text = arguments.Parser.PrintUsage()))
            | ServerArgument.Init arguments -> Some(read arguments)
            | ServerArgument.Set_Up_Host arguments -> Some(HostReading.read arguments)
            | ServerArgument.Status arguments -> Some(ControlReading.plain ControlCommand.Status arguments)
            | ServerArgument.Sessions arguments -> Some(ControlReading.plain ControlCommand.Sessions arguments)
            | ServerArgument.Kick arguments -> Some(ControlReading.kick arguments)
            | ServerArgument.Reload arguments -> Some(ControlReading.plain ControlCommand.Reload arguments)
            | ServerArgument.Drain arguments -> Some(ControlReading.drain arguments)
            | _ -> None)

module internal ServerProgram =
    let program: Program<ServerArgument, ServerOptions> =
        { Name = "lightway-server"
          Parser = ServerReading.parser
          Names = ServerReading.names
          Help = ServerArgument.help
          Manual = Manuals.server
          Headings = ServerArgument.headings
          TryCommand = InitReading.tryCommand
          Read = ServerReading.read }

type ServerOptions with

    /// Reads flags, environment and YAML file. `getEnv` returns null for a variable that is not set; `readFile` returns
    /// a file's text or raises IOException or UnauthorizedAccessException. Nothing else is read, and bad input does not
    /// raise: see `ParseOutcome.Kind`.
    static member Parse
        (argv: string[], getEnv: Func<string, string | null>, readFile: Func<string, string>)
        : ParseOutcome<ServerOptions> =
        CommandLine.run ServerProgram.program argv getEnv readFile

namespace Lightway.Options

open Argu

/// Flags of `lightway-client status`.
[<RequireQualifiedAccess>]
type internal StatusArgument =
    | [<Unique>] Control_Socket of path: string
    | [<Unique>] Json

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Control_Socket _ ->
                "control socket of the client (its option control_socket). Default: /run/lightway-client/control.sock."
            | Json -> "print the client's answer as it came, one JSON object, for scripts."

/// Flags of the client: the names, in the order of the help page. Values are typed by `ClientOptions`.
/// Hidden ones belong to other platforms; files that contain them are accepted.
[<RequireQualifiedAccess>]
type internal ClientArgument =
    | [<CliPrefix(CliPrefix.None)>] Status of ParseResults<StatusArgument>
    | [<CliPrefix(CliPrefix.None)>] Reset
    | [<AltCommandLine "-c">] Config_File of path: string
    | [<AltCommandLine "-a">] Accept_Unknowns of bool: string option
    | Check_Config
    | Generate of what: string
    | Version
    | [<AltCommandLine "-s">] Server of ``host:port``: string
    | [<AltCommandLine "-m">] Mode of mode: string
    | Outside_Mtu of bytes: string
    | Sndbuf of size: string
    | Rcvbuf of size: string
    | Fwmark of mark: string
    | Preferred_Connection_Wait_Interval of duration: string
    | Reconnect of bool: string option
    | Reconnect_Attempts of count: string
    | Enable_Batch_Receive of bool: string option
    | Enable_Pmtud of bool: string option
    | Pmtud_Base_Mtu of bytes: string
    | Server_Dn of name: string
    | Ca_Cert of ``path or PEM``: string
    | Cipher of cipher: string
    | Keyshare of group: string
    | Keylog of path: string
    | Tls_Debug of bool: string option
    | [<AltCommandLine "-u">] User of name: string
    | [<AltCommandLine "-p">] Password of password: string
    | Password_File of path: string
    | Token of token: string
    | [<AltCommandLine "-t">] Tun_Name of name: string
    | Inside_Mtu of bytes: string
    | Tun_Local_Ip of ip: string
    | Tun_Peer_Ip of ip: string
    | Tun_Dns_Ip of ip: string
    | Route_Mode of mode: string
    | Dns_Config_Mode of mode: string
    | Kill_Switch of bool: string option
    | Allow_Ipv6_Outside of bool: string option
    | Enable_Tun_Iouring of bool: string option
    | Iouring_Entry_Count of count: string
    | Iouring_Sqpoll_Idle_Time of duration: string
    | Copy_Ecn of bool: string option
    | Copy_Dscp of bool: string option
    | Enable_Expresslane of bool: string option
    | Expresslane_Keys_Rotation_Interval of duration: string
    | Keepalive_Interval of duration: string
    | Keepalive_Timeout of duration: string
    | Keepalive_Continuous of bool: string option
    | Tracer_Packet_Timeout of duration: string
    | [<AltCommandLine("-e", "--enable-inside-pkt-encoding-at-connect")>] Enable_Inside_Pkt_Encoding of
        bool: string option
    | Enable_Tun_Offload of bool: string option
    | Gso_Max_Segments of count: string
    | Gso_Max_Burst of duration: string
    | Disable_Tun_Tso of bool: string option
    | Disable_Tun_Gro_Tcp of bool: string option
    | Disable_Tun_Gro_Udp of bool: string option
    | Disable_Udp_Gso of bool: string option
    | Disable_Udp_Gro of bool: string option
    | Aead of library: string
    | Log_Level of level: string
    | Metrics_File of path: string
    | Control_Socket of path: string
    | Core_Dumps of bool: string option
    | [<Hidden>] Wintun_File of path: string
    | [<Hidden>] Device_Guid of guid: string
    | [<Hidden>] Wintun_Ring_Capacity of size: string
    | [<Hidden>] Enable_Dpapi of bool: string option
    | [<Hidden>] Enable_Connected_Udp of bool: string option

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Status _ -> "tell how a running client is: server, session, rates, reconnects."
            | Reset ->
                "removes what a killed client has left behind, and ends: its routes, DNS settings and kill switch."
            | Config_File _ -> "YAML configuration file, accessible to its owner only. Required."
            | Accept_Unknowns _ -> "warn about unknown keys in the file instead of refusing them. Default: false."
            | Check_Config -> CommandUsage.checkConfig
            | Generate _ -> CommandUsage.generate
            | Version -> CommandUsage.version
            | Server _ ->
                "address of the server. Required, unless the file has a list of servers; all of them are tried then, and the first one is preferred."
            | Mode _ -> "transport: udp or tcp. udp is faster by far; tcp passes where UDP is blocked. Default: tcp."
            | Outside_Mtu _ -> "MTU of the path to the server, 68 to 1500 bytes. Default: 1500."
            | Sndbuf _ -> "size of the outside socket's send buffer. Default: 8 MiB."
            | Rcvbuf _ -> "size of the outside socket's receive buffer. Default: 8 MiB."
            | Fwmark _ -> "mark of the outside socket (SO_MARK), for policy routing; 0 for none. Default: 0."
            | Preferred_Connection_Wait_Interval _ ->
                "with a list of servers: how long one that is online waits for those before it in the list; with 0s the first to come online is used. Default: 0s."
            | Reconnect _ ->
                "connect again when the connection is lost; the TUN interface and its routes stay meanwhile. Otherwise the client ends then. Default: true."
            | Reconnect_Attempts _ ->
                "times that all servers may fail in a row before the client ends; 0 for any number. Default: 0."
            | Enable_Batch_Receive _ ->
                "accepted: datagrams are received in batches in any case (recvmmsg, UDP GRO). Default: false."
            | Enable_Pmtud _ ->
                "find the longest datagram that passes on the way to the server (RFC 8899), and send none that is longer. Default: false."
            | Pmtud_Base_Mtu _ ->
                "bytes that the first probe carries, as a frame: 66 less than its IPv4 packet has, 86 less than its IPv6 packet. Default: none, an IP packet of 1280 bytes."
            | Server_Dn _ -> "DNS name that the server's certificate must have. Default: none, any name is accepted."
            | Ca_Cert _ ->
                "certificate of the authority that signed the server's, a PEM file or its text. A relative path in the configuration file starts at that file's directory. Default: ./ca_cert.crt."
            | Cipher _ -> "TLS cipher, aes256 or chacha20. Default: aes256."
            | Keyshare _ -> "post-quantum key share, p521mlkem1024 or x25519mlkem768. Default: p521mlkem1024."
            | Keylog _ -> TlsUsage.keylog
            | Tls_Debug _ -> TlsUsage.tlsDebug
            | User _ -> "user name. Required."
            | Password _ ->
                "password. Set it in the file: other users of this machine can read a flag in the process list. Without it, that of password_file is used, or it is asked for on the terminal."
            | Password_File _ ->
                "file that contains the password, accessible to its owner only; $CREDENTIALS_DIRECTORY/NAME for a credential of systemd. Default: none."
            | Token _ -> "token, instead of user and password. Set it in the file, as a password."
            | Tun_Name _ -> "name of the TUN interface, at most 15 characters. Default: lightway."
            | Inside_Mtu _ ->
                "MTU of the TUN interface in bytes, at most what outside_mtu leaves. Default: none, that of the server's as far as it fits."
            | Tun_Local_Ip _ -> "IPv4 address of the TUN interface. Default: 100.64.0.6."
            | Tun_Peer_Ip _ -> "IPv4 address of the other end of the TUN interface. Default: 100.64.0.5."
            | Tun_Dns_Ip _ -> "IPv4 address of the DNS server inside the tunnel. Default: 100.64.0.1."
            | Route_Mode _ ->
                "routes to install: default (everything through the tunnel), lan (all but local networks) or noexec (none). Default: default."
            | Dns_Config_Mode _ ->
                "DNS settings to install: default (names are asked for at tun_dns_ip) or noexec (none). Default: default."
            | Kill_Switch _ ->
                "let nothing out but through the tunnel, by nftables: also while it is down, and after the client was killed, until it is started and stopped again or `lightway-client reset`. Default: false."
            | Allow_Ipv6_Outside _ ->
                "let IPv6, which does not go through the tunnel, pass beside it; otherwise it is blocked. Default: false."
            | Enable_Tun_Iouring _ -> IoUringUsage.enableTunIouring
            | Iouring_Entry_Count _ -> IoUringUsage.iouringEntryCount
            | Iouring_Sqpoll_Idle_Time _ -> IoUringUsage.iouringSqpollIdleTime
            | Copy_Ecn _ -> TosUsage.copyEcn
            | Copy_Dscp _ -> TosUsage.copyDscp
            | Enable_Expresslane _ ->
                "ask for Expresslane, the fast path that encrypts packets without DTLS. Default: false."
            | Expresslane_Keys_Rotation_Interval _ ->
                "time after which the connection gets new Expresslane keys. Default: 15m."
            | Keepalive_Interval _ -> "silence of the server after which it is pinged. Default: 10s."
            | Keepalive_Timeout _ -> "time from the first unanswered ping until the connection ends. Default: 60s."
            | Keepalive_Continuous _ -> "ping whenever the server is silent, not only on request. Default: true."
            | Tracer_Packet_Timeout _ ->
                "without keepalive_continuous: silence of the server after which sending a packet triggers a ping. Default: 10s."
            | Enable_Inside_Pkt_Encoding _ ->
                "encode inside packets. Needs a codec, which this program does not have: true is refused. Default: false."
            | Enable_Tun_Offload _ -> OffloadUsage.enableTunOffload true
            | Gso_Max_Segments _ -> OffloadUsage.gsoMaxSegments
            | Gso_Max_Burst _ -> OffloadUsage.gsoMaxBurst
            | Disable_Tun_Tso _ -> OffloadUsage.disableTunTso
            | Disable_Tun_Gro_Tcp _ -> OffloadUsage.disableTunGroTcp
            | Disable_Tun_Gro_Udp _ -> OffloadUsage.disableTunGroUdp
            | Disable_Udp_Gso _ -> OffloadUsage.disableUdpGso
            | Disable_Udp_Gro _ -> OffloadUsage.disableUdpGro
            | Aead _ -> OffloadUsage.aead
            | Log_Level _ ->
                "trace, debug, info, warn, error or off. LW_CLIENT_RUST_LOG in the environment overrides it. Default: info."
            | Metrics_File _ ->
                "file that all counters are written to as JSON, on SIGUSR1 and on an orderly exit. Default: none."
            | Control_Socket _ ->
                "Unix socket, for its owner only, at which lightway-client status asks. Default: none."
            | Core_Dumps _ ->
                "let the system write core files, which contain keys and passwords, and let debuggers in. Default: false."
            | Wintun_File _
            | Device_Guid _
            | Wintun_Ring_Capacity _
            | Enable_Dpapi _ -> "Windows only."
            | Enable_Connected_Udp _ -> "Apple only."

[<RequireQualifiedAccess>]
module internal ClientArgument =
    /// The first flag of each group of the help page and the group's heading.
    let headings =
        [ "reset", "Commands"
          "status", "Commands"
          "--config-file", "Configuration"
          "--server ", "Outside: server and socket"
          "--server,", "Outside: server and socket"
          "--server-dn", "TLS"
          "--user", "User"
          "--tun-name", "Inside: TUN interface, routes and DNS"
          "--copy-ecn", "Connection"
          "--enable-tun-offload", "Offload"
          "--log-level", "Log"
          "--help", "Other" ]

    let help =
        """Lightway VPN client: connects to a server over UDP or TCP, and passes packets between it and a TUN interface.

Usage: lightway-client --config-file FILE [OPTIONS]
       lightway-client --check-config --config-file FILE [OPTIONS]
       lightway-client status [--json] [--control-socket PATH]
       lightway-client reset

Every option can also be set in the YAML file (server_dn: ...) and in the environment (LW_CLIENT_SERVER_DN=...).
A flag overrides the environment, the environment overrides the file, and the file overrides the default.
Durations need units: 500ms, 15m, 1h 30m. Sizes are in bytes, units are optional: 1500, 64 KiB, 8MB.
A bool is true or false; a flag without a value means true."""

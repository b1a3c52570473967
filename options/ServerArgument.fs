namespace Lightway.Options

open Argu

/// Flags of `lightway-server init`.
[<RequireQualifiedAccess>]
type internal InitArgument =
    | [<MainCommand; Unique>] Directory of dir: string
    | [<Unique>] Address of ``host:port``: string
    | [<Unique>] User of name: string
    | [<Unique>] Server_Name of name: string
    | [<Unique>] Ip_Pool of network: string
    | [<Unique>] Certificate of path: string
    | [<Unique>] Key of path: string
    | [<Unique>] Acme_Webroot of dir: string
    | [<Unique>] Setup_Host

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Directory _ -> "directory to write to; it must be empty or not exist yet."
            | Address _ ->
                "address at which clients reach the server, for client.yaml; the server listens on its port. Default: 127.0.0.1:27690."
            | User _ -> "name of the first user, who gets a random password. Default: lightway."
            | Server_Name _ -> "DNS name in the server's certificate. Default: server.lightway.internal."
            | Ip_Pool _ -> "IPv4 network for the clients, /8 to /28. Default: 10.125.0.0/16."
            | Certificate _ ->
                "existing certificate with its chain, a PEM file, which stays where it is. Default: init makes an authority and a certificate."
            | Key _ -> "private key of the certificate, a PEM file; needs --certificate."
            | Acme_Webroot _ ->
                "directory that a web server of the server's name serves: certbot gets the certificate (certbot certonly --webroot)."
            | Setup_Host -> "set up the host as well, as `lightway-server setup-host --apply` does."

/// Flags of the server: the names, in the order of the help page. Values are typed by `ServerOptions`.
[<RequireQualifiedAccess>]
type internal ServerArgument =
    | [<CliPrefix(CliPrefix.None)>] Init of ParseResults<InitArgument>
    | [<CliPrefix(CliPrefix.None); CustomCommandLine "setup-host">] Set_Up_Host of ParseResults<SetUpHostArgument>
    | [<CliPrefix(CliPrefix.None)>] Status of ParseResults<ControlArgument>
    | [<CliPrefix(CliPrefix.None)>] Sessions of ParseResults<ControlArgument>
    | [<CliPrefix(CliPrefix.None)>] Kick of ParseResults<KickArgument>
    | [<CliPrefix(CliPrefix.None)>] Reload of ParseResults<ControlArgument>
    | [<CliPrefix(CliPrefix.None)>] Drain of ParseResults<DrainArgument>
    | [<AltCommandLine "-c">] Config_File of path: string
    | [<AltCommandLine "-a">] Accept_Unknowns of bool: string option
    | Check_Config
    | Generate of what: string
    | Version
    | [<AltCommandLine "-m">] Mode of mode: string
    | Bind_Address of ``ip:port``: string
    | Bind_Attempts of count: string
    | Udp_Buffer_Size of size: string
    | Enable_Pmtud of bool: string option
    | Enable_Batch_Receive of bool: string option
    | Enable_Batch_Send of bool: string option
    | Proxy_Protocol of bool: string option
    | Proxy_Protocol_From of networks: string
    | Server_Cert of path: string
    | Server_Key of path: string
    | Enable_Pqc of bool: string option
    | Key_Update_Interval of duration: string
    | Tls_Debug of bool: string option
    | Keylog of path: string
    | User_Db of path: string
    | Token_Rsa_Pub_Key_Pem of path: string
    | Auth_Command of command: string
    | Auth_Command_Timeout of duration: string
    | Address_Map of path: string
    | End_Removed_Users of bool: string option
    | Tun_Name of name: string
    | Tun_Ip of ip: string
    | Ip_Pool of network: string
    | Ip_Map of path: string
    | Randomize_Ippool of bool: string option
    | Icmp_Unreachable of bool: string option
    | Lightway_Client_Ip of ip: string
    | Lightway_Server_Ip of ip: string
    | Lightway_Dns_Ip of ip: string
    | Copy_Ecn of bool: string option
    | Copy_Dscp of bool: string option
    | Enable_Expresslane of bool: string option
    | Expresslane_Keys_Rotation_Interval of duration: string
    | Connection_Age_Expiration_Interval of duration: string
    | Session_Idle_Limit of duration: string
    | Sessions_Per_User of count: string
    | Handshakes_Per_Source of count: string
    | Half_Open_Limit of count: string
    | Login_Checks of count: string
    | Enable_Tun_Offload of bool: string option
    | Gso_Max_Segments of count: string
    | Gso_Max_Burst of duration: string
    | Disable_Tun_Tso of bool: string option
    | Disable_Tun_Gro_Tcp of bool: string option
    | Disable_Tun_Gro_Udp of bool: string option
    | Disable_Udp_Gso of bool: string option
    | Disable_Udp_Gro of bool: string option
    | Aead of library: string
    | Workers of count: string
    | Pin_Workers of bool: string option
    | Enable_Tun_Iouring of bool: string option
    | Iouring_Entry_Count of count: string
    | Iouring_Sqpoll_Idle_Time of duration: string
    | Log_Level of level: string
    | Log_Format of format: string
    | Statistics_Reporting_Interval of duration: string
    | Metrics_File of path: string
    | Control_Socket of path: string
    | Metrics_Address of ``ip:port``: string
    | Accounting of target: string
    | Accounting_Interval of duration: string
    | Core_Dumps of bool: string option

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Init _ ->
                "write a complete set-up (certificates, key, user, server.yaml, client.yaml) into a new directory."
            | Set_Up_Host _ -> "prepare this machine: device, address, forwarding, NAT, isolation of the clients."
            | Status _ -> "show what a running server does: sessions, workers, offload, totals, drops."
            | Sessions _ -> "list the sessions of a running server."
            | Kick _ -> "end a session, or all sessions of a user."
            | Reload _ -> "have a running server read its files again."
            | Drain _ -> "let a running server end when its last session has gone; new ones are refused."
            | Config_File _ -> "YAML configuration file. Required."
            | Accept_Unknowns _ -> "warn about unknown keys in the file instead of refusing them. Default: false."
            | Check_Config -> CommandUsage.checkConfig
            | Generate _ -> CommandUsage.generate
            | Version -> CommandUsage.version
            | Mode _ ->
                "transport: udp, tcp or both. udp is faster by far; tcp passes where UDP is blocked. Default: tcp."
            | Bind_Address _ -> "address and port to listen on. Default: 0.0.0.0:27690."
            | Bind_Attempts _ ->
                "times that the address is tried, one second apart, 1 to 1000: it may be assigned late, or another process may still use the port. Default: 1."
            | Udp_Buffer_Size _ -> "size of the UDP socket's send buffer and of its receive buffer. Default: 15 MiB."
            | Enable_Pmtud _ ->
                "find the longest datagram that passes on the way to each client (RFC 8899), and send none that is longer. Default: false."
            | Enable_Batch_Receive _ ->
                "accepted: datagrams are received in batches in any case (recvmmsg, UDP GRO). Default: false."
            | Enable_Batch_Send _ ->
                "accepted: datagrams are sent in batches in any case (sendmmsg); true cannot be combined with enable_tun_offload. Default: false."
            | Proxy_Protocol _ ->
                "connections begin with a PROXY header (version 1 or 2) that names the client; mode tcp or both. Default: false."
            | Proxy_Protocol_From _ ->
                "networks of the proxies, separated by commas; all others connect without a PROXY header. Default: 0.0.0.0/0, ::/0."
            | Server_Cert _ -> "certificate, a PEM file that only its owner can write. Default: ./server.crt."
            | Server_Key _ -> "private key, a PEM file that only its owner can access. Default: ./server.key."
            | Enable_Pqc _ -> "offer post-quantum key exchange (ML-KEM hybrids). Default: false."
            | Key_Update_Interval _ -> "time after which a connection gets new TLS keys. Default: 15m."
            | Tls_Debug _ -> TlsUsage.tlsDebug
            | Keylog _ -> TlsUsage.keylog
            | User_Db _ ->
                "file of user:hash lines in htpasswd format that only its owner can access. This, token_rsa_pub_key_pem or auth_command is required."
            | Token_Rsa_Pub_Key_Pem _ ->
                "public keys that verify tokens (RS256 or ES256): a PEM file, or a JSON Web Key Set. Default: none."
            | Auth_Command _ ->
                "program and its arguments; it reads a user and a password, a line each, and exits with 0 to let the user in or 1 to refuse. It is asked for users that are not in user_db. Default: none."
            | Auth_Command_Timeout _ -> "time that auth_command has, 100ms to 30s. Default: 5s."
            | Address_Map _ ->
                "YAML file with an inside address, sessions_per_user or session_idle_limit of single users. Default: none."
            | End_Removed_Users _ -> "a reload ends the sessions of users who are no longer in user_db. Default: false."
            | Tun_Name _ -> "name of the TUN interface, at most 15 characters. Default: the kernel picks one."
            | Tun_Ip _ ->
                "IPv4 address of the TUN interface; the server does not assign it, but keeps it out of the pool. Default: none."
            | Ip_Pool _ -> "IPv4 network from which clients get their addresses, /8 to /30. Default: 10.125.0.0/16."
            | Ip_Map _ ->
                "file of lines `local address: network`: clients that connect to the address get inside addresses from the network, a part of ip_pool. Default: none."
            | Randomize_Ippool _ -> "assign the pool's addresses in random order. Default: true."
            | Icmp_Unreachable _ ->
                "answer packets for an unassigned address of the pool with ICMP host unreachable. Default: false."
            | Lightway_Client_Ip _ ->
                "IPv4 address that every client uses inside the tunnel; not in the pool. Default: 10.125.0.5."
            | Lightway_Server_Ip _ ->
                "IPv4 address of the server inside the tunnel, as sent to clients; not in the pool. Default: 10.125.0.6."
            | Lightway_Dns_Ip _ ->
                "IPv4 address of the DNS server, as sent to clients; not in the pool. Default: 10.125.0.1."
            | Copy_Ecn _ -> TosUsage.copyEcn
            | Copy_Dscp _ -> TosUsage.copyDscp
            | Enable_Expresslane _ ->
                "offer Expresslane, the fast path that encrypts packets without DTLS; needs mode udp or both. Default: false."
            | Expresslane_Keys_Rotation_Interval _ ->
                "time after which a connection gets new Expresslane keys. Default: 15m."
            | Connection_Age_Expiration_Interval _ -> "time between two sweeps that end dead connections. Default: 1m."
            | Session_Idle_Limit _ -> "silence of a client after which its session ends. Default: 24h."
            | Sessions_Per_User _ ->
                "sessions that a user may have at once, 0 for any number; the oldest one ends for a new one. Default: 0."
            | Handshakes_Per_Source _ ->
                "handshakes per second that one source address (IPv4 /32, IPv6 /64) may start, 0 for any number; its network (/24, /48) may start ten times as many. Default: 10."
            | Half_Open_Limit _ ->
                "connections that may be without a login at once, at least 16; beyond that, one of the source that has most of them ends for a new one. Default: 4096."
            | Login_Checks _ ->
                "passwords that are checked at once, 1 to 256; 0 for half as many as there are cores. Default: 0."
            | Enable_Tun_Offload _ -> OffloadUsage.enableTunOffload false
            | Gso_Max_Segments _ -> OffloadUsage.gsoMaxSegments
            | Gso_Max_Burst _ -> OffloadUsage.gsoMaxBurst
            | Disable_Tun_Tso _ -> OffloadUsage.disableTunTso
            | Disable_Tun_Gro_Tcp _ -> OffloadUsage.disableTunGroTcp
            | Disable_Tun_Gro_Udp _ -> OffloadUsage.disableTunGroUdp
            | Disable_Udp_Gso _ -> OffloadUsage.disableUdpGso
            | Disable_Udp_Gro _ -> OffloadUsage.disableUdpGro
            | Aead _ -> OffloadUsage.aead
            | Pin_Workers _ -> "pin each worker to a processor of its own. Default: false."
            | Workers _ -> "worker threads that carry the packets, 1 to 64; 0 for one per core. Default: 0."
            | Enable_Tun_Iouring _ -> IoUringUsage.enableTunIouring
            | Iouring_Entry_Count _ -> IoUringUsage.iouringEntryCount
            | Iouring_Sqpoll_Idle_Time _ -> IoUringUsage.iouringSqpollIdleTime
            | Log_Level _ ->
                "trace, debug, info, warn, error or off. LW_SERVER_RUST_LOG in the environment overrides it. Default: info."
            | Log_Format _ -> "full, compact, pretty or json. Default: full."
            | Statistics_Reporting_Interval _ -> "time between two statistics lines in the log. Default: 30s."
            | Metrics_File _ ->
                "file that all counters are written to as JSON, on SIGUSR1 and on an orderly exit. Default: none."
            | Control_Socket _ ->
                "Unix socket for `lightway-server status` and its like, which only the user of the server and root may use. Default: none."
            | Metrics_Address _ ->
                "address and port, or a port of 127.0.0.1, to serve metrics (/metrics), health (/healthz, /readyz) and a status page at by HTTP. Default: none."
            | Accounting _ ->
                "file that a JSON line about each session is appended to at its end and every accounting_interval, or unix:/path of a datagram socket. Default: none."
            | Accounting_Interval _ -> "time between two lines of accounting about a session. Default: 15m."
            | Core_Dumps _ ->
                "let the system write core files, which contain keys and passwords, and let debuggers in. Default: false."

[<RequireQualifiedAccess>]
module internal ServerArgument =
    /// The first flag of each group of the help page and the group's heading.
    let headings =
        [ "--config-file", "Configuration"
          "--mode", "Outside: transport and sockets"
          "--server-cert", "TLS"
          "--user-db", "Users"
          "--tun-name", "Inside: TUN interface and addresses"
          "--copy-ecn", "Connections"
          "--enable-tun-offload", "Offload and workers"
          "--log-level", "Log"
          "--help", "Other" ]

    let help =
        """Lightway VPN server: accepts clients over UDP and TCP, and passes their packets on through a TUN interface.

Usage: lightway-server --config-file FILE [OPTIONS]
       lightway-server --check-config --config-file FILE [OPTIONS]
       lightway-server init DIR [--address HOST:PORT] [--user NAME]
       lightway-server setup-host --print|--apply|--undo --config-file FILE
       lightway-server status|sessions|kick|reload|drain [--control-socket PATH] [--json]

Every option can also be set in the YAML file (user_db: ...) and in the environment (LW_SERVER_USER_DB=...).
A flag overrides the environment, the environment overrides the file, and the file overrides the default.
Durations need units: 500ms, 15m, 1h 30m. Sizes are in bytes, units are optional: 1500, 64 KiB, 8MB.
A bool is true or false; a flag without a value means true."""

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

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Directory _ -> "directory to write; it must not exist or be empty."
            | Address _ ->
                "where clients reach the server, for client.yaml; the server listens on its port. Default: 127.0.0.1:27690."
            | User _ -> "name of the first user; a random password is made. Default: lightway."
            | Server_Name _ -> "DNS name in the server's certificate. Default: server.lightway.internal."
            | Ip_Pool _ -> "IPv4 network for the clients, /8 to /28. Default: 10.125.0.0/16."

/// Flags of the server: the names, in the order of the help page. Values are typed by `ServerOptions`.
[<RequireQualifiedAccess>]
type internal ServerArgument =
    | [<CliPrefix(CliPrefix.None)>] Init of ParseResults<InitArgument>
    | [<AltCommandLine "-c">] Config_File of path: string
    | [<AltCommandLine "-a">] Accept_Unknowns of bool: string option
    | Version
    | [<AltCommandLine "-m">] Mode of mode: string
    | Bind_Address of ``ip:port``: string
    | Udp_Buffer_Size of size: string
    | Enable_Batch_Receive of bool: string option
    | Enable_Batch_Send of bool: string option
    | Proxy_Protocol of bool: string option
    | Server_Cert of path: string
    | Server_Key of path: string
    | Enable_Pqc of bool: string option
    | Key_Update_Interval of duration: string
    | Tls_Debug of bool: string option
    | User_Db of path: string
    | Token_Rsa_Pub_Key_Pem of path: string
    | Tun_Name of name: string
    | Tun_Ip of ip: string
    | Ip_Pool of network: string
    | Ip_Map of path: string
    | Randomize_Ippool of bool: string option
    | Lightway_Client_Ip of ip: string
    | Lightway_Server_Ip of ip: string
    | Lightway_Dns_Ip of ip: string
    | Enable_Expresslane of bool: string option
    | Expresslane_Keys_Rotation_Interval of duration: string
    | Connection_Age_Expiration_Interval of duration: string
    | Enable_Tun_Offload of bool: string option
    | Gso_Max_Segments of count: string
    | Gso_Max_Burst of duration: string
    | Disable_Tun_Tso of bool: string option
    | Disable_Tun_Gro_Tcp of bool: string option
    | Disable_Tun_Gro_Udp of bool: string option
    | Disable_Udp_Gso of bool: string option
    | Disable_Udp_Gro of bool: string option
    | Workers of count: string
    | Pin_Workers of bool: string option
    | Enable_Tun_Iouring of bool: string option
    | Iouring_Entry_Count of count: string
    | Iouring_Sqpoll_Idle_Time of duration: string
    | Log_Level of level: string
    | Log_Format of format: string
    | Statistics_Reporting_Interval of duration: string
    | Metrics_File of path: string

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Init _ ->
                "write a complete set-up (certificates, key, user, server.yaml, client.yaml) into a new directory."
            | Config_File _ -> "YAML configuration file. Required."
            | Accept_Unknowns _ -> "warn about unknown keys in the file instead of refusing them. Default: false."
            | Version -> "print the version and exit."
            | Mode _ -> "transport, udp or tcp; this build serves udp only. Default: tcp, so udp must be given."
            | Bind_Address _ -> "address and port to listen on. Default: 0.0.0.0:27690."
            | Udp_Buffer_Size _ -> "send and receive buffer of the UDP socket, in bytes. Default: 15 MiB."
            | Enable_Batch_Receive _ -> "not served yet. Default: false."
            | Enable_Batch_Send _ -> "not served yet; never together with enable_tun_offload. Default: false."
            | Proxy_Protocol _ -> "PROXY protocol v2, mode tcp only; not served yet. Default: false."
            | Server_Cert _ -> "certificate, PEM. Not writable by others. Default: ./server.crt."
            | Server_Key _ -> "private key, PEM. Accessible to its owner only. Default: ./server.key."
            | Enable_Pqc _ -> "offer post-quantum key exchange (ML-KEM hybrids). Default: false."
            | Key_Update_Interval _ -> "new TLS keys for each connection after this time. Default: 15m."
            | Tls_Debug _ -> "not served yet. Default: false."
            | User_Db _ -> "password file, user:hash lines in htpasswd format. Accessible to its owner only. Needed."
            | Token_Rsa_Pub_Key_Pem _ -> "public key that signs tokens (RS256), PEM; not served yet."
            | Tun_Name _ -> "name of the TUN interface, 15 characters at most. Default: the kernel picks one."
            | Tun_Ip _ -> "IPv4 address kept out of the pool for the TUN interface; it is not assigned. Default: none."
            | Ip_Pool _ -> "IPv4 network that clients get their addresses from, /8 to /30. Default: 10.125.0.0/16."
            | Ip_Map _ -> "file of sub-pools for each local address; not served yet."
            | Randomize_Ippool _ -> "hand out addresses of the pool in random order. Default: true."
            | Lightway_Client_Ip _ ->
                "IPv4 address that every client uses inside the tunnel; kept out of the pool. Default: 10.125.0.5."
            | Lightway_Server_Ip _ ->
                "IPv4 address of the server that clients see; kept out of the pool. Default: 10.125.0.6."
            | Lightway_Dns_Ip _ ->
                "IPv4 address of the DNS server for clients; kept out of the pool. Default: 10.125.0.1."
            | Enable_Expresslane _ -> "offer Expresslane: packets sealed without DTLS; mode udp only. Default: false."
            | Expresslane_Keys_Rotation_Interval _ ->
                "new Expresslane keys for each connection after this time. Default: 15m."
            | Connection_Age_Expiration_Interval _ -> "time between two sweeps for aged connections. Default: 1m."
            | Enable_Tun_Offload _ ->
                "where the kernel can, read superpackets from the TUN and send their segments by UDP GSO; receive by UDP GRO and write superpackets to the TUN. Default: false."
            | Gso_Max_Segments _ -> "segments in one UDP GSO send, 1 to 64. Default: 64."
            | Gso_Max_Burst _ ->
                "time that a UDP GSO send may take the peer, by its rate of late, up to 1s; 0s for any. Default: 1ms."
            | Disable_Tun_Tso _ ->
                "with enable_tun_offload: let the kernel cut superpackets before the TUN. Default: false."
            | Disable_Tun_Gro_Tcp _ ->
                "with enable_tun_offload: write each TCP packet to the TUN by itself. Default: false."
            | Disable_Tun_Gro_Udp _ ->
                "with enable_tun_offload: write each UDP packet to the TUN by itself. Default: false."
            | Disable_Udp_Gso _ -> "with enable_tun_offload: send each datagram by itself. Default: false."
            | Disable_Udp_Gro _ -> "with enable_tun_offload: receive each datagram by itself. Default: false."
            | Pin_Workers _ -> "bind each worker to a processor. Default: false."
            | Workers _ -> "threads that carry the packets, 0 to 64; 0 for one per core. Default: 0."
            | Enable_Tun_Iouring _ -> "io_uring for the TUN; not served yet. Default: false."
            | Iouring_Entry_Count _ -> "entries of the io_uring; not served yet. Default: 1024."
            | Iouring_Sqpoll_Idle_Time _ ->
                "idle time before the kernel's polling thread sleeps, 0 for none; not served yet. Default: 100ms."
            | Log_Level _ ->
                "trace, debug, info, warn, error or off. LW_SERVER_RUST_LOG in the environment overrides it. Default: info."
            | Log_Format _ -> "full, compact, pretty or json. Default: full."
            | Statistics_Reporting_Interval _ -> "time between two statistics lines in the log. Default: 30s."
            | Metrics_File _ -> "file that gets all counters as JSON, on SIGUSR1 and at the end. Default: none."

[<RequireQualifiedAccess>]
module internal ServerArgument =
    /// The first flag of each group of the help page and the group's heading.
    let headings =
        [ "--config-file", "Configuration"
          "--mode", "Outside: transport and sockets"
          "--server-cert", "TLS"
          "--user-db", "Users"
          "--tun-name", "Inside: TUN interface and addresses"
          "--enable-expresslane", "Connections"
          "--enable-tun-offload", "Offload and workers"
          "--log-level", "Log"
          "--help", "Other" ]

    let help =
        """Lightway VPN server: takes clients over UDP (DTLS 1.3) and routes their packets through a TUN interface.

Usage: lightway-server --config-file FILE [OPTIONS]
       lightway-server init DIR [--address HOST:PORT] [--user NAME]

Every option can also stand in the YAML file (user_db: ...) and in the environment (LW_SERVER_USER_DB=...).
A flag is stronger than the environment, the environment than the file, the file than the default.
Durations carry units: 500ms, 15m, 1h 30m. Sizes are bytes: 1500, 64 KiB, 8MB.
A bool is true or false; a flag without a value means true."""

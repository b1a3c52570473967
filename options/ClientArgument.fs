namespace Lightway.Options

open Argu

/// Flags of the client: the names, in the order of the help page. Values are typed by `ClientOptions`.
/// Hidden ones belong to other platforms; files that hold them are accepted.
[<RequireQualifiedAccess>]
type internal ClientArgument =
    | [<AltCommandLine "-c">] Config_File of path: string
    | [<AltCommandLine "-a">] Accept_Unknowns of bool: string option
    | Version
    | [<AltCommandLine "-s">] Server of ``host:port``: string
    | [<AltCommandLine "-m">] Mode of mode: string
    | Outside_Mtu of bytes: string
    | Sndbuf of size: string
    | Rcvbuf of size: string
    | Fwmark of mark: string
    | Preferred_Connection_Wait_Interval of duration: string
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
    | Token of token: string
    | [<AltCommandLine "-t">] Tun_Name of name: string
    | Tun_Local_Ip of ip: string
    | Tun_Peer_Ip of ip: string
    | Tun_Dns_Ip of ip: string
    | Route_Mode of mode: string
    | Dns_Config_Mode of mode: string
    | Enable_Tun_Iouring of bool: string option
    | Iouring_Entry_Count of count: string
    | Iouring_Sqpoll_Idle_Time of duration: string
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
    | Log_Level of level: string
    | Metrics_File of path: string
    | [<Hidden>] Wintun_File of path: string
    | [<Hidden>] Device_Guid of guid: string
    | [<Hidden>] Wintun_Ring_Capacity of size: string
    | [<Hidden>] Enable_Dpapi of bool: string option
    | [<Hidden>] Enable_Connected_Udp of bool: string option

    interface IArgParserTemplate with
        member this.Usage =
            match this with
            | Config_File _ -> "YAML configuration file, accessible to its owner only. Required."
            | Accept_Unknowns _ -> "warn about unknown keys in the file instead of refusing them. Default: false."
            | Version -> "print the version and exit."
            | Server _ -> "the server. Needed, unless the file has a list of servers, of which the first is used."
            | Mode _ -> "transport, udp or tcp; this build serves udp only. Default: tcp, so udp must be given."
            | Outside_Mtu _ -> "MTU of the path to the server, 68 to 1500 bytes. Default: 1500."
            | Sndbuf _ -> "send buffer of the outside socket, in bytes. Default: 8 MiB."
            | Rcvbuf _ -> "receive buffer of the outside socket, in bytes. Default: 8 MiB."
            | Fwmark _ -> "mark of the outside socket (SO_MARK), for policy routing; 0 for none. Default: 0."
            | Preferred_Connection_Wait_Interval _ ->
                "how long to wait for a preferred server; not served yet. Default: 0s."
            | Enable_Batch_Receive _ -> "not served yet. Default: false."
            | Enable_Pmtud _ -> "path MTU discovery; not served yet. Default: false."
            | Pmtud_Base_Mtu _ -> "first MTU to probe, in bytes; not served yet. Default: none."
            | Server_Dn _ -> "DNS name that the server's certificate must have. Default: none, the name is not checked."
            | Ca_Cert _ -> "certificate that signs the server's, a PEM file or its text. Default: ./ca_cert.crt."
            | Cipher _ -> "TLS cipher, aes256 or chacha20. Default: aes256."
            | Keyshare _ -> "post-quantum key share, p521mlkem1024 or x25519mlkem768. Default: p521mlkem1024."
            | Keylog _ -> "not served yet."
            | Tls_Debug _ -> "not served yet. Default: false."
            | User _ -> "user name. Needed."
            | Password _ ->
                "password; other users of this machine can read it in the process list: prefer the file. Needed."
            | Token _ -> "token instead of user and password; not served yet."
            | Tun_Name _ -> "name of the TUN interface, 15 characters at most. Default: lightway."
            | Tun_Local_Ip _ -> "IPv4 address of the TUN interface. Default: 100.64.0.6."
            | Tun_Peer_Ip _ -> "IPv4 address of the other end of the TUN interface. Default: 100.64.0.5."
            | Tun_Dns_Ip _ -> "IPv4 address of the DNS server inside the tunnel. Default: 100.64.0.1."
            | Route_Mode _ ->
                "routes to install: default, lan (local networks stay outside) or noexec (none). Default: default."
            | Dns_Config_Mode _ ->
                "DNS settings to install: default or noexec (none); not served yet. Default: default."
            | Enable_Tun_Iouring _ -> "io_uring for the TUN; not served yet. Default: false."
            | Iouring_Entry_Count _ -> "entries of the io_uring; not served yet. Default: 1024."
            | Iouring_Sqpoll_Idle_Time _ ->
                "idle time before the kernel's polling thread sleeps, 0 for none; not served yet. Default: 100ms."
            | Enable_Expresslane _ -> "offer Expresslane: packets sealed without DTLS. Default: false."
            | Expresslane_Keys_Rotation_Interval _ -> "new Expresslane keys after this time. Default: 15m."
            | Keepalive_Interval _ -> "silence after which the server is pinged. Default: 10s."
            | Keepalive_Timeout _ -> "time without an answer after which the connection ends. Default: 60s."
            | Keepalive_Continuous _ -> "ping whenever the server is silent, not only on request. Default: true."
            | Tracer_Packet_Timeout _ ->
                "without keepalive_continuous: age of the last packet from the server after which sending one asks for a ping; not served yet. Default: 10s."
            | Enable_Inside_Pkt_Encoding _ -> "codec for inside packets; not served yet. Default: false."
            | Enable_Tun_Offload _ ->
                "where the kernel can, read superpackets from the TUN and send their segments by UDP GSO; receive by UDP GRO and write superpackets to the TUN. Default: true."
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
            | Log_Level _ ->
                "trace, debug, info, warn, error or off. LW_CLIENT_RUST_LOG in the environment overrides it. Default: info."
            | Metrics_File _ -> "file that gets all counters as JSON, on SIGUSR1 and at the end. Default: none."
            | Wintun_File _
            | Device_Guid _
            | Wintun_Ring_Capacity _
            | Enable_Dpapi _ -> "Windows only."
            | Enable_Connected_Udp _ -> "Apple only."

[<RequireQualifiedAccess>]
module internal ClientArgument =
    /// The first flag of each group of the help page and the group's heading.
    let headings =
        [ "--config-file", "Configuration"
          "--server ", "Outside: server and socket"
          "--server,", "Outside: server and socket"
          "--server-dn", "TLS"
          "--user", "User"
          "--tun-name", "Inside: TUN interface, routes and DNS"
          "--enable-expresslane", "Connection"
          "--enable-tun-offload", "Offload"
          "--log-level", "Log"
          "--help", "Other" ]

    let help =
        """Lightway VPN client: connects to a Lightway server over UDP (DTLS 1.3) and carries packets through a TUN interface.

Usage: lightway-client --config-file FILE [OPTIONS]

Every option can also stand in the YAML file (server_dn: ...) and in the environment (LW_CLIENT_SERVER_DN=...).
A flag is stronger than the environment, the environment than the file, the file than the default.
Durations carry units: 500ms, 15m, 1h 30m. Sizes are bytes: 1500, 64 KiB, 8MB.
A bool is true or false; a flag without a value means true."""

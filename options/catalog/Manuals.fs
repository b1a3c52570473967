namespace Lightway.Options

/// What the manual pages say besides the options.
[<RequireQualifiedAccess>]
module internal Manuals =
    let private layers (variable: string) =
        $"Options come from the command line, from the environment ({variable}), from the configuration file (YAML) and from built-in defaults; each overrides those after it."

    let private values =
        "Durations need units: 500ms, 15m, 1h 30m. Sizes are in bytes, units are optional: 1500, 64 KiB, 8MB. A bool is true or false; a flag without a value means true."

    let private check =
        "--check-config shows what a configuration amounts to, and whether a program would start with it. --generate writes a file with all options, a schema of it for editors, this page, and completions."

    let private wolfSsl =
        "LIGHTWAY_WOLFSSL",
        "path of the TLS library, libwolfssl.so, instead of the one next to the program or the system's."

    let private checks =
        "LW_DANGEROUSLY_DISABLE_PERMISSIONS_CHECKS",
        "1 turns off the checks that files and their directories are not open to other users."

    let private credentials =
        "CREDENTIALS_DIRECTORY",
        "directory of the credentials that systemd passes (LoadCredential=); files in it may be readable by a group."

    let private rustLog (prefix: string) =
        prefix + "RUST_LOG", "overrides log_level: trace, debug, info, warn, error or off."

    let private stop =
        "SIGINT, SIGTERM, SIGQUIT", "end the program in order: peers are told, and what it set up is removed."

    let private reload =
        "SIGHUP", "reads certificate, key, users and limits again, as lightway-server reload does. Nobody is dropped."

    let private hangUp =
        "SIGHUP",
        "without a terminal, the client reads its files again: the next connection uses their logins and certificates. On a terminal, it ends the client."

    let private metrics = "SIGUSR1", "writes all counters to metrics_file."

    let server: ManualText =
        { Purpose = "Lightway VPN server"
          Description =
            [ "lightway-server accepts Lightway clients over UDP (DTLS 1.3) and TCP (TLS 1.3), and passes their packets on through a TUN interface. lightway-server setup-host prepares the machine: the interface with its address, forwarding, address translation, and rules that keep clients apart. Without it, the server creates the interface and brings it up, and the rest is up to the operator."
              layers "LW_SERVER_..."
              values
              check ]
          Variables = [ rustLog "LW_SERVER_"; wolfSsl; credentials; checks ]
          Files =
            [ "/etc/lightway/server.yaml",
              "the configuration, if it is where lightway-server init and the packages put it. Nobody but its owner may write it." ]
          Signals = [ stop; reload; metrics ]
          Codes = []
          SeeAlso = [ "lightway-client", 8; "ip", 8; "systemd", 1 ] }

    let client: ManualText =
        { Purpose = "Lightway VPN client"
          Description =
            [ "lightway-client connects to a Lightway server over UDP (DTLS 1.3) or TCP (TLS 1.3), and passes packets between it and a TUN interface, which it creates, with its addresses and routes. When the connection is lost, it connects again, to any of its servers."
              layers "LW_CLIENT_..."
              values
              check ]
          Variables = [ rustLog "LW_CLIENT_"; wolfSsl; credentials; checks ]
          Files =
            [ "/etc/lightway/client.yaml",
              "the configuration, if it is where the packages put it. Only its owner may read it, as it contains the password." ]
          Signals = [ stop; hangUp; metrics ]
          Codes =
            [ "3", "the server has refused the login; with the same user, password or token it would do so again." ]
          SeeAlso = [ "lightway-server", 8; "ip", 8; "systemd", 1 ] }

/// The client's options: keys, defaults and refusals.
module Lightway.Tests.ClientOptionsTests

open System
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Options
open Lightway.Tests.OptionRuns

/// Offload, marks and metrics of the client: each key, a value that is not its default, and what that does to the record.
let clientKeys: (string * string * (ClientOptions -> ClientOptions)) list =
    [ "enable_tun_offload",
      "false",
      (fun o ->
          { o with
              Offload.EnableTunOffload = false })
      "gso_max_segments", "16", (fun o -> { o with Offload.GsoMaxSegments = 16 })
      "gso_max_burst",
      "0s",
      (fun o ->
          { o with
              Offload.GsoMaxBurst = TimeSpan.Zero })
      "disable_tun_tso", "true", (fun o -> { o with Offload.DisableTunTso = true })
      "disable_tun_gro_tcp",
      "true",
      (fun o ->
          { o with
              Offload.DisableTunGroTcp = true })
      "disable_tun_gro_udp",
      "true",
      (fun o ->
          { o with
              Offload.DisableTunGroUdp = true })
      "disable_udp_gso", "true", (fun o -> { o with Offload.DisableUdpGso = true })
      "disable_udp_gro", "true", (fun o -> { o with Offload.DisableUdpGro = true })
      "aead",
      "ipsec-mb",
      (fun o ->
          { o with
              Offload.Aead = AeadOption.IpsecMb })
      "dns_config_mode",
      "noexec",
      (fun o ->
          { o with
              DnsConfigMode = DnsConfigMode.NoExec })
      "kill_switch", "true", (fun o -> { o with KillSwitch = true })
      "allow_ipv6_outside", "true", (fun o -> { o with AllowIPv6Outside = true })
      "core_dumps", "true", (fun o -> { o with CoreDumps = true })
      "enable_pmtud", "true", (fun o -> { o with EnablePmtud = true })
      "pmtud_base_mtu", "1200", (fun o -> { o with PmtudBaseMtu = 1200 })
      "copy_ecn", "false", (fun o -> { o with Tos.CopyEcn = false })
      "copy_dscp", "true", (fun o -> { o with Tos.CopyDscp = true })
      "keylog", "/run/keys", (fun o -> { o with Keylog = "/run/keys" })
      "tls_debug", "true", (fun o -> { o with TlsDebug = true })
      "enable_tun_iouring", "true", (fun o -> { o with EnableTunIouring = true })
      "metrics_file", "/run/metrics", (fun o -> { o with MetricsFile = "/run/metrics" })
      "control_socket",
      "/run/client.sock",
      (fun o ->
          { o with
              ControlSocket = "/run/client.sock" })
      "inside_mtu", "1280", (fun o -> { o with InsideMtu = 1280 })
      "reconnect", "false", (fun o -> { o with Reconnect = false })
      "reconnect_attempts", "5", (fun o -> { o with ReconnectAttempts = 5 })
      "preferred_connection_wait_interval",
      "1500ms",
      (fun o ->
          { o with
              PreferredConnectionWaitInterval = TimeSpan.FromSeconds 1.5 })
      "tracer_packet_timeout",
      "5s",
      (fun o ->
          { o with
              TracerPacketTimeout = TimeSpan.FromSeconds 5L }) ]

/// The other keys of the reference's client that have an effect.
let private referenceKeys: (string * string * (ClientOptions -> ClientOptions)) list =
    let ip (text: string) = System.Net.IPAddress.Parse text

    [ "server_dn", "x.example.com", (fun o -> { o with ServerDn = "x.example.com" })
      "cipher", "chacha20", (fun o -> { o with Cipher = TlsCipher.ChaCha20 })
      "ca_cert", "/own.crt", (fun o -> { o with CaCert = "/own.crt" })
      "outside_mtu", "1400", (fun o -> { o with OutsideMtu = 1400 })
      "tun_name", "vpn0", (fun o -> { o with TunName = "vpn0" })
      "tun_local_ip", "100.64.0.9", (fun o -> { o with TunLocalIp = ip "100.64.0.9" })
      "tun_peer_ip", "100.64.0.9", (fun o -> { o with TunPeerIp = ip "100.64.0.9" })
      "tun_dns_ip", "100.64.0.9", (fun o -> { o with TunDnsIp = ip "100.64.0.9" })
      "keyshare",
      "x25519mlkem768",
      (fun o ->
          { o with
              KeyShare = KeyShare.X25519MlKem768 })
      "keepalive_interval",
      "3s",
      (fun o ->
          { o with
              KeepaliveInterval = TimeSpan.FromSeconds 3L })
      "keepalive_timeout",
      "9s",
      (fun o ->
          { o with
              KeepaliveTimeout = TimeSpan.FromSeconds 9L })
      "keepalive_continuous", "false", (fun o -> { o with KeepaliveContinuous = false })
      "sndbuf", "1 MiB", (fun o -> { o with SendBuffer = 1_048_576 })
      "rcvbuf", "2 MiB", (fun o -> { o with ReceiveBuffer = 2_097_152 })
      "route_mode", "lan", (fun o -> { o with RouteMode = RouteMode.Lan })
      "fwmark", "7", (fun o -> { o with Fwmark = 7u })
      "enable_expresslane", "true", (fun o -> { o with EnableExpresslane = true })
      "expresslane_keys_rotation_interval",
      "5m",
      (fun o ->
          { o with
              ExpresslaneKeysRotationInterval = TimeSpan.FromMinutes 5L })
      "log_level", "debug", (fun o -> { o with LogLevel = LogLevel.Debug })
      "accept_unknowns", "true", (fun o -> { o with AcceptUnknowns = true }) ]

/// Keys of the reference's client that tests of their own are about, and those of other systems.
let private otherKeys =
    [ "config_file"
      "servers"
      "server"
      "mode"
      "user"
      "password"
      "token"
      "enable_inside_pkt_encoding"
      "enable_inside_pkt_encoding_at_connect"
      "enable_batch_receive"
      "enable_tun_iouring"
      "iouring_entry_count"
      "iouring_sqpoll_idle_time"
      "dns_config_mode"
      "keylog"
      "tls_debug"
      "wintun_file"
      "device_guid"
      "wintun_ring_capacity"
      "enable_dpapi"
      "enable_connected_udp" ]

/// Options that ask for what is done in any case, or that only belong to one that has a line of the log.
let private clientAccepted: (string * string * string option) list =
    [ "enable_batch_receive", "true", Some "maybe"
      "iouring_entry_count", "64", Some "32769"
      "iouring_sqpoll_idle_time", "0s", Some "5" ]

let private offload =
    testList
        "Offload and metrics"
        [ test "offload is on, with every part of it, and counters go nowhere" {
              let options = run (client [] [] leastClient)
              Expect.isTrue options.Offload.EnableTunOffload ""
              Expect.equal options.Offload.GsoMaxSegments 64 ""
              Expect.equal options.Offload.GsoMaxBurst (TimeSpan.FromMilliseconds 1L) ""

              for switch in
                  [ options.Offload.DisableTunTso
                    options.Offload.DisableTunGroTcp
                    options.Offload.DisableTunGroUdp
                    options.Offload.DisableUdpGso
                    options.Offload.DisableUdpGro ] do
                  Expect.isFalse switch ""

              Expect.isNull options.MetricsFile ""
          }

          test "every key of the reference's client is known" {
              let known = ClientReading.names
              Expect.isGreaterThan referenceKeys.Length 15 "the table is there"

              for key in otherKeys @ [ for key, _, _ in referenceKeys -> key ] do
                  Expect.isTrue (known.Keys.ContainsKey key || known.FileOnly.ContainsKey key) key
          }

          for key, value, change in clientKeys @ referenceKeys do
              test $"{key} means the same in the file, in the environment and as a flag" {
                  let defaults = run (client [] [] leastClient)
                  let expected = change defaults
                  Expect.notEqual expected defaults "the value is not the default"
                  let file = client [] [] $"{leastClient}{key}: {value}"
                  Expect.equal (run file) expected "file"
                  Expect.isEmpty file.Warnings "it has an effect"
                  Expect.equal (run (client [] [ key.ToUpperInvariant(), value ] leastClient)) expected "environment"
                  Expect.equal (run (client [ flagOf key; value ] [] leastClient)) expected "flag"
                  Expect.equal (run (client [ $"{flagOf key}={value}" ] [] leastClient)) expected "flag with ="
              }

          testProperty "the strongest layer that gives a value wins: flag, environment, file, default"
          <| fun (flag: bool option) (variable: bool option) (file: bool option) ->
              let text value = string<bool>(value).ToLowerInvariant()

              let flags =
                  [ for value in Option.toList flag -> $"--enable-tun-offload={text value}" ]

              let variables =
                  [ for value in Option.toList variable -> "ENABLE_TUN_OFFLOAD", text value ]

              let yaml =
                  String.concat "" [ for value in Option.toList file -> $"enable_tun_offload: {text value}\n" ]

              let expected =
                  [ flag; variable; file ] |> List.tryPick id |> Option.defaultValue true

              (run (client flags variables (leastClient + yaml))).Offload.EnableTunOffload = expected

          for key, value, allowed in
              [ "enable_tun_offload", "maybe", "true or false"
                "gso_max_segments", "0", "1 to 64"
                "gso_max_segments", "65", "1 to 64"
                "gso_max_segments", "many", "1 to 64"
                "gso_max_burst", "1", "up to 1s"
                "disable_tun_tso", "2", "true or false"
                "disable_tun_gro_tcp", "2", "true or false"
                "disable_tun_gro_udp", "2", "true or false"
                "disable_udp_gso", "2", "true or false"
                "disable_udp_gro", "2", "true or false"
                "dns_config_mode", "lan", "default, noexec"
                "kill_switch", "maybe", "true or false"
                "allow_ipv6_outside", "maybe", "true or false"
                "metrics_file", "' '", "a file path"
                "control_socket", "' '", "a path of at most 107 bytes"
                "inside_mtu", "67", "68 to 65535"
                "reconnect", "never", "true or false"
                "reconnect_attempts", "-1", "0 to 1000000"
                "preferred_connection_wait_interval", "soon", "500ms"
                "tracer_packet_timeout", "0s", "at least 1ms" ] do
              test $"{key}: {value} is refused with its line and what is allowed" {
                  expectAll (refusal (client [] [] $"{leastClient}{key}: {value}")) [ key; allowed; "config.yaml:5" ]
              }

          for key in [ "workers"; "pin_workers" ] do
              test $"{key} is the server's alone" {
                  expectAll (refusal (client [] [] $"{leastClient}{key}: 1")) [ key; "not a known option" ]
              } ]

let private options =
    testList
        "Options"
        [ test "defaults are those of the reference client" {
              let options = run (client [] [] leastClient)
              Expect.equal (options.ServerHost, options.ServerPort) ("vpn.example.com", 27690) ""
              Expect.isNull options.ServerDn ""
              Expect.equal (options.CaCert, options.CaCertIsInline) ("./ca_cert.crt", false) ""
              Expect.equal options.OutsideMtu 1500 ""
              Expect.isFalse options.EnablePmtud ""
              Expect.equal options.PmtudBaseMtu 0 "none"
              Expect.equal options.TunName "lightway" ""
              Expect.equal (string options.TunLocalIp) "100.64.0.6" ""
              Expect.equal (string options.TunPeerIp) "100.64.0.5" ""
              Expect.equal (string options.TunDnsIp) "100.64.0.1" ""
              Expect.equal options.KeyShare KeyShare.P521MlKem1024 ""
              Expect.equal options.KeepaliveInterval (TimeSpan.FromSeconds 10L) ""
              Expect.equal options.KeepaliveTimeout (TimeSpan.FromSeconds 60L) ""
              Expect.isTrue options.KeepaliveContinuous ""
              Expect.equal (options.SendBuffer, options.ReceiveBuffer) (8_388_608, 8_388_608) ""
              Expect.equal options.RouteMode RouteMode.Default ""
          }

          test
              "ca_cert: a relative path of the file starts at the file's directory, of a flag or a variable at the working one" {
              let caCert (configFile: string) flags (variable: string | null) yaml =
                  let argv = Array.ofList ("--config-file" :: configFile :: flags)

                  let getEnv name =
                      if name = "LW_CLIENT_CA_CERT" then variable else null

                  let readFile _ = leastClient + yaml
                  (run (ClientOptions.Parse(argv, Func<_, _> getEnv, Func<_, _> readFile))).CaCert

              let file = "/etc/lightway/client.yaml"
              Expect.equal (caCert file [] null "") "/etc/lightway/./ca_cert.crt" "the default"
              Expect.equal (caCert file [] null "ca_cert: own.crt\n") "/etc/lightway/own.crt" "in the file"
              Expect.equal (caCert file [] null "ca_cert: /own.crt\n") "/own.crt" "absolute"
              Expect.equal (caCert "conf/client.yaml" [] null "ca_cert: own.crt\n") "conf/own.crt" "a relative file"
              Expect.equal (caCert "client.yaml" [] null "ca_cert: own.crt\n") "own.crt" "a file right here"
              Expect.equal (caCert file [ "--ca-cert"; "own.crt" ] null "ca_cert: other.crt\n") "own.crt" "a flag"
              Expect.equal (caCert file [] "own.crt" "") "own.crt" "a variable"

              Expect.equal
                  (caCert file [] null "servers:\n  - server: 192.0.2.1:1\n    ca_cert: own.crt\n")
                  "/etc/lightway/own.crt"
                  "an entry of servers"
          }

          for key, value, wrong in clientAccepted do
              test $"{key} is checked and accepted, in the file, in the environment and as a flag" {
                  expectAccepted client leastClient (run (client [] [] leastClient)) key value wrong
              }

          test "a default of true can be switched off" {
              Expect.isFalse (run (client [] [] (leastClient + "keepalive_continuous: false"))).KeepaliveContinuous ""
          }

          test "each of the servers has what its entry says, and what it does not say from above" {
              let yaml =
                  leastClient
                  + "server_dn: above\nca_cert: own.crt\nservers:\n  - server: a.example:1\n    server_dn: first\n    mode: tcp\n  - server: b.example:2\n    ca_cert: other.crt\n    outside_mtu: 1400\n    cipher: chacha20\n"

              let outcome = client [] [] yaml
              let options = run outcome
              Expect.isEmpty outcome.Warnings "all of it has an effect"

              Expect.equal
                  [ for one in options.Servers ->
                        one.ServerHost, one.ServerPort, one.ServerDn, one.User, one.CaCert, one.OutsideMtu ]
                  [ "a.example", 1, "first", "me", "own.crt", 1500; "b.example", 2, "above", "me", "other.crt", 1400 ]
                  "servers"

              Expect.equal
                  [ for one in options.Servers -> one.Mode, one.Cipher ]
                  [ TransportMode.Tcp, TlsCipher.Aes256; TransportMode.Udp, TlsCipher.ChaCha20 ]
                  "modes and ciphers"

              Expect.equal
                  [ for one in options.Servers -> one.Others.Length ]
                  [ 1; 0 ]
                  "only the first knows the others"
          }

          test "without a list there is one server; an empty list is none" {
              for yaml in [ ""; "servers: []\n" ] do
                  let options = run (client [] [] (leastClient + yaml))
                  Expect.equal (Seq.exactlyOne options.Servers).ServerHost "vpn.example.com" "the one"
          }

          test "an entry with credentials of its own inherits none" {
              let yaml = leastClient + "servers:\n  - server: a.example:1\n    user: other\n"
              let first = run (client [] [] yaml)
              Expect.equal (first.User, first.Password) ("other", "") "no password of somebody else"

              let yaml =
                  leastClient + "servers:\n  - server: a.example:1\n  - server: b.example:1\n    password: pw\n"

              expectAll (refusal (client [] [] yaml)) [ "user"; "missing" ]
          }

          test "a wrong value of a later entry is refused with its line" {
              let yaml =
                  leastClient + "servers:\n  - server: a.example:1\n  - server: b.example\n"

              expectAll (refusal (client [] [] yaml)) [ "server"; "b.example"; "config.yaml:7" ]
          }

          for entry in [ "  - a.example:1"; "  - user: me" ] do
              test $"an entry without the key server is refused: {entry}" {
                  let yaml = $"{leastClient}servers:\n  - server: b.example:1\n{entry}\n"
                  expectAll (refusal (client [] [] yaml)) [ "servers"; "each with the key server" ]
              }

          test "a password may be missing, may be in a file, but not both" {
              let least = leastClient.Replace("password: secret\n", "")
              let options = run (client [] [] least)
              Expect.equal (options.Password, options.PasswordFile) ("", null) "it is asked for"
              let options = run (client [] [] (least + "password_file: pw\n"))
              Expect.equal (options.Password, options.PasswordFile) ("", "pw") "beside the file"
              let both = client [] [] (leastClient + "password_file: pw\n")
              expectAll (refusal both) [ "password_file"; "one of the two"; "config.yaml:5" ]
          }

          test "password_file may name a credential of systemd" {
              let start (variables: (string * string) list) =
                  let getEnv name =
                      variables |> List.tryFind (fst >> (=) name) |> Option.map snd |> Option.toObj

                  let yaml =
                      leastClient.Replace("password: secret", "password_file: $CREDENTIALS_DIRECTORY/vpn")

                  ClientOptions.Parse([| "-c"; "config.yaml" |], Func<_, _> getEnv, Func<_, _>(fun _ -> yaml))

              let options = run (start [ "CREDENTIALS_DIRECTORY", "/run/credentials/x" ])
              Expect.equal options.PasswordFile "/run/credentials/x/vpn" "the file"
              expectAll (refusal (start [])) [ "password_file"; "LoadCredential="; "config.yaml:4" ]
          }

          test "an unknown key in an entry is refused" {
              let yaml = leastClient + "servers:\n  - server: a.example:1\n    sever_dn: x\n"
              expectAll (refusal (client [] [] yaml)) [ "sever_dn"; "config.yaml:7"; "did you mean server_dn?" ]
          }

          test "the file may contain the certificate itself" {
              let yaml =
                  leastClient + "ca_cert: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n"

              let options = run (client [] [] yaml)
              Expect.isTrue options.CaCertIsInline ""
              Expect.stringContains options.CaCert "\nAAAA\n" ""
          }

          test "encoding needs a codec, so that true is refused, also by the reference's alias of the key" {
              for key in [ "enable_inside_pkt_encoding"; "enable_inside_pkt_encoding_at_connect" ] do
                  let outcome = client [] [] $"{leastClient}{key}: true"
                  expectAll (refusal outcome) [ "enable_inside_pkt_encoding"; "codec"; "config.yaml:5" ]
                  let outcome = client [] [] $"{leastClient}{key}: false"
                  Expect.equal (run outcome) (run (client [] [] leastClient)) "as without it"
                  Expect.isEmpty outcome.Warnings "that is met"
          }

          test "keys of newer reference files only warn" {
              let outcome = client [] [] (leastClient + "enable_pqc: true")
              expectAll (Seq.exactlyOne outcome.Warnings) [ "enable_pqc"; "keyshare" ]
          }

          test "keys for other platforms only warn" {
              for key, value in
                  [ "wintun_file", "wintun.dll"
                    "device_guid", "00000000-0000-0000-0000-000000000001"
                    "wintun_ring_capacity", "4 MiB"
                    "enable_dpapi", "true"
                    "enable_connected_udp", "false" ] do
                  let outcome = client [] [] $"{leastClient}{key}: {value}\n"
                  Expect.equal (run outcome) (run (client [] [] leastClient)) $"{key}: as without it"
                  expectAll (Seq.exactlyOne outcome.Warnings) [ key; "no effect" ]
          }

          test "a token takes the place of user and password" {
              let options = run (client [] [] "mode: udp\nserver: a:1\ntoken: ' t0ken '")
              Expect.equal (options.Token, options.User, options.Password) ("t0ken", "", "") "alone"
              Expect.equal (run (client [ "--token=t" ] [] leastClient)).Token "t" "beside a password"
              Expect.isNull (run (client [] [] leastClient)).Token "none"
              expectAll (refusal (client [] [] "mode: udp\nserver: a:1")) [ "user"; "missing"; "token" ]
          }

          test "a token that is too long for the protocol is refused, and not shown" {
              let longest = String('x', 1347)
              Expect.equal (run (client [] [] $"{leastClient}token: {longest}")).Token longest "the longest"

              for wrong in [ longest + "x"; "' '"; "[a]" ] do
                  let text = refusal (client [] [] $"{leastClient}token: {wrong}")
                  expectAll text [ "token"; "config.yaml:5" ]
                  Expect.isFalse (text.Contains "xx") "not shown"
          }

          test "neither text form nor messages contain the password" {
              let outcome = client [ "--outside-mtu=9000" ] [] leastClient
              expectAll (refusal outcome) [ "outside_mtu"; "68 to 1500" ]
              Expect.isFalse ((refusal outcome).Contains "secret") ""
              Expect.isFalse ((string (run (client [] [] leastClient))).Contains "secret") ""
          } ]

let tests: Test = testList "Client" [ options; offload ]

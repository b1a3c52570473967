/// The server's options: keys, defaults and refusals.
module Lightway.Tests.ServerOptionsTests

open System
open System.Net
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Options
open Lightway.Tests.OptionRuns

/// Every option with an effect, a value that is not its default, and what that does to the record.
let serverKeys: (string * string * (ServerOptions -> ServerOptions)) list =
    [ "bind_address",
      "192.0.2.1:4433",
      (fun o ->
          { o with
              BindAddress = IPEndPoint.Parse "192.0.2.1:4433" })
      "bind_attempts", "3", (fun o -> { o with BindAttempts = 3 })
      "server_cert", "/etc/a.crt", (fun o -> { o with ServerCert = "/etc/a.crt" })
      "server_key", "/etc/a.key", (fun o -> { o with ServerKey = "/etc/a.key" })
      "user_db", "/etc/users", (fun o -> { o with UserDb = "/etc/users" })
      "token_rsa_pub_key_pem", "/etc/a.pem", (fun o -> { o with Auth.TokenKeys = "/etc/a.pem" })
      "auth_command",
      "/bin/ask",
      (fun o ->
          { o with
              Auth.Command = [| "/bin/ask" |] })
      "address_map",
      "/etc/users.yaml",
      (fun o ->
          { o with
              Auth.AddressMap = "/etc/users.yaml" })
      "end_removed_users", "true", (fun o -> { o with Auth.EndRemovedUsers = true })
      "tun_name", "lightway", (fun o -> { o with TunName = "lightway" })
      "tun_ip",
      "10.125.0.2",
      (fun o ->
          { o with
              TunIp = IPAddress.Parse "10.125.0.2" })
      "ip_pool",
      "10.9.8.7/24",
      (fun o ->
          { o with
              IpPool = IPNetwork.Parse "10.9.8.0/24" })
      "lightway_client_ip",
      "10.0.0.1",
      (fun o ->
          { o with
              LightwayClientIp = IPAddress.Parse "10.0.0.1" })
      "lightway_server_ip",
      "10.0.0.2",
      (fun o ->
          { o with
              LightwayServerIp = IPAddress.Parse "10.0.0.2" })
      "lightway_dns_ip",
      "10.0.0.3",
      (fun o ->
          { o with
              LightwayDnsIp = IPAddress.Parse "10.0.0.3" })
      "copy_ecn", "false", (fun o -> { o with Tos.CopyEcn = false })
      "copy_dscp", "true", (fun o -> { o with Tos.CopyDscp = true })
      "enable_pmtud", "true", (fun o -> { o with EnablePmtud = true })
      "enable_expresslane", "true", (fun o -> { o with EnableExpresslane = true })
      "expresslane_keys_rotation_interval",
      "90s",
      (fun o ->
          { o with
              ExpresslaneKeysRotationInterval = TimeSpan(0, 1, 30) })
      "key_update_interval",
      "1h 30m",
      (fun o ->
          { o with
              KeyUpdateInterval = TimeSpan(1, 30, 0) })
      "enable_pqc", "true", (fun o -> { o with EnablePqc = true })
      "keylog", "/run/keys", (fun o -> { o with Keylog = "/run/keys" })
      "tls_debug", "true", (fun o -> { o with TlsDebug = true })
      "enable_tun_iouring", "true", (fun o -> { o with EnableTunIouring = true })
      "connection_age_expiration_interval",
      "5s",
      (fun o ->
          { o with
              ConnectionAgeExpirationInterval = TimeSpan(0, 0, 5) })
      "handshakes_per_source", "3", (fun o -> { o with HandshakesPerSource = 3 })
      "half_open_limit", "100", (fun o -> { o with HalfOpenLimit = 100 })
      "login_checks", "2", (fun o -> { o with LoginChecks = 2 })
      "sessions_per_user", "5", (fun o -> { o with SessionsPerUser = 5 })
      "session_idle_limit",
      "2h",
      (fun o ->
          { o with
              SessionIdleLimit = TimeSpan.FromHours 2. })
      "statistics_reporting_interval",
      "5s",
      (fun o ->
          { o with
              StatisticsReportingInterval = TimeSpan(0, 0, 5) })
      "udp_buffer_size", "1 MiB", (fun o -> { o with UdpBufferSize = 1_048_576 })
      "enable_tun_offload",
      "true",
      (fun o ->
          { o with
              Offload.EnableTunOffload = true })
      "log_format", "json", (fun o -> { o with LogFormat = LogFormat.Json })
      "log_level", "debug", (fun o -> { o with LogLevel = LogLevel.Debug })
      "accept_unknowns", "true", (fun o -> { o with AcceptUnknowns = true })
      "ip_map", "/etc/map", (fun o -> { o with IpMapFile = "/etc/map" })
      "randomize_ippool", "false", (fun o -> { o with RandomizeIpPool = false })
      "icmp_unreachable", "true", (fun o -> { o with IcmpUnreachable = true })
      "gso_max_segments", "16", (fun o -> { o with Offload.GsoMaxSegments = 16 })
      "gso_max_burst",
      "250us",
      (fun o ->
          { o with
              Offload.GsoMaxBurst = TimeSpan.FromMicroseconds 250L })
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
      "core_dumps", "true", (fun o -> { o with CoreDumps = true })
      "workers", "3", (fun o -> { o with Workers = 3 })
      "pin_workers", "true", (fun o -> { o with PinWorkers = true })
      "metrics_file", "/run/metrics", (fun o -> { o with MetricsFile = "/run/metrics" })
      "control_socket",
      "/run/control",
      (fun o ->
          { o with
              ControlSocket = "/run/control" })
      "metrics_address",
      "192.0.2.7:9100",
      (fun o ->
          { o with
              MetricsAddress = IPEndPoint.Parse "192.0.2.7:9100" })
      "accounting", "unix:/run/a", (fun o -> { o with Accounting = "unix:/run/a" })
      "accounting_interval",
      "1h",
      (fun o ->
          { o with
              AccountingInterval = TimeSpan.FromHours 1. }) ]

/// Every option without an effect, a value, and one that is refused.
let serverNotServed: (string * string * string option) list = []

/// Options that ask for what is done in any case, or that only belong to one that has a line of the log: a value, and one that
/// is refused.
let serverAccepted: (string * string * string option) list =
    [ "enable_batch_receive", "true", Some "maybe"
      "enable_batch_send", "true", Some "maybe"
      "iouring_entry_count", "64", Some "32769"
      "iouring_sqpoll_idle_time", "0s", Some "5" ]

/// The table of the reference server's options, written out independently.
let serverDefaults: ServerOptions =
    { ConfigFile = "config.yaml"
      Mode = TransportMode.Udp
      BindAddress = IPEndPoint(IPAddress.Any, 27690)
      BindAttempts = 1
      ProxyProtocol = false
      ProxyProtocolFrom = [| IPNetwork.Parse "0.0.0.0/0"; IPNetwork.Parse "::/0" |]
      ServerCert = "./server.crt"
      ServerKey = "./server.key"
      UserDb = "./users"
      Auth =
        { TokenKeys = null
          Command = [||]
          CommandTimeout = TimeSpan.FromSeconds 5L
          AddressMap = null
          EndRemovedUsers = false }
      TunName = null
      TunIp = null
      IpPool = IPNetwork.Parse "10.125.0.0/16"
      RandomizeIpPool = true
      IpMap = []
      IpMapFile = null
      IcmpUnreachable = false
      LightwayClientIp = IPAddress.Parse "10.125.0.5"
      LightwayServerIp = IPAddress.Parse "10.125.0.6"
      LightwayDnsIp = IPAddress.Parse "10.125.0.1"
      Tos = { CopyEcn = true; CopyDscp = false }
      EnablePmtud = false
      EnableExpresslane = false
      ExpresslaneKeysRotationInterval = TimeSpan.FromMinutes 15L
      KeyUpdateInterval = TimeSpan.FromMinutes 15L
      EnablePqc = false
      Keylog = null
      TlsDebug = false
      ConnectionAgeExpirationInterval = TimeSpan.FromMinutes 1L
      HandshakesPerSource = 10
      HalfOpenLimit = 4_096
      LoginChecks = 0
      SessionsPerUser = 0
      SessionIdleLimit = TimeSpan.FromDays 1.
      StatisticsReportingInterval = TimeSpan.FromSeconds 30L
      MetricsFile = null
      ControlSocket = null
      MetricsAddress = null
      Accounting = null
      AccountingInterval = TimeSpan.FromMinutes 15L
      UdpBufferSize = 15 * 1024 * 1024
      Offload =
        { EnableTunOffload = false
          GsoMaxSegments = 64
          GsoMaxBurst = TimeSpan.FromMilliseconds 1L
          DisableTunTso = false
          DisableTunGroTcp = false
          DisableTunGroUdp = false
          DisableUdpGso = false
          DisableUdpGro = false
          Aead = AeadOption.Auto }
      EnableTunIouring = false
      Workers = 0
      PinWorkers = false
      CoreDumps = false
      LogFormat = LogFormat.Full
      LogLevel = LogLevel.Info
      AcceptUnknowns = false }

let private keys =
    testList
        "Keys"
        [ test "defaults are those of the reference server" {
              Expect.equal (run (server [] [] least)) serverDefaults ""
          }

          for key, value, change in serverKeys do
              test $"{key} means the same in the file, in the environment and as a flag" {
                  let expected = change serverDefaults
                  Expect.notEqual expected serverDefaults "the value is not the default"
                  let base' = if key = "user_db" then "mode: udp\n" else least
                  Expect.equal (run (server [] [] $"{base'}{key}: {value}")) expected "file"
                  Expect.equal (run (server [] [ key.ToUpperInvariant(), value ] base')) expected "environment"
                  Expect.equal (run (server [ flagOf key; value ] [] base')) expected "flag"
                  Expect.equal (run (server [ $"{flagOf key}={value}" ] [] base')) expected "flag with ="
              }

          for key, value, wrong in serverNotServed do
              test $"{key} is checked and has no effect, in the file, in the environment and as a flag" {
                  expectNotServed server least serverDefaults key value wrong
              }

          for key, value, wrong in serverAccepted do
              test $"{key} is checked and accepted, in the file, in the environment and as a flag" {
                  expectAccepted server least serverDefaults key value wrong
              } ]

/// The record of a server whose file has these keys besides the least, whatever the combination of options.
let private proxies (settings: (string * Node) list) =
    let given =
        Map
            [ for key, node in ("mode", Node.Scalar "tcp") :: ("user_db", Node.Scalar "users") :: settings ->
                  key,
                  { Key = key
                    Node = node
                    Source = Source.File("config.yaml", 1) } ]

    let reader = Reader given
    ServerReading.read "config.yaml" (Func<_, _>(fun _ -> null)) reader, reader.Error

let private observation =
    testList
        "Metrics and accounting"
        [ test "a port alone is one of 127.0.0.1; IPv6 is in brackets" {
              for text, expected in
                  [ "9100", "127.0.0.1:9100"
                    "65535", "127.0.0.1:65535"
                    "127.0.0.1:9100", "127.0.0.1:9100"
                    "[::1]:9100", "[::1]:9100"
                    "0.0.0.0:80", "0.0.0.0:80" ] do
                  let options = run (server [ "--metrics-address"; text ] [] least)
                  Expect.equal options.MetricsAddress (IPEndPoint.Parse expected) text
          }

          test "an address without a port, a port that does not exist and a name are refused" {
              for text in [ "0"; "65536"; "-1"; "0x10"; ""; "127.0.0.1"; "127.0.0.1:0"; "localhost:9100"; "9100 " ] do
                  expectAll
                      (refusal (server [ $"--metrics-address={text}" ] [] least))
                      [ "metrics-address"; "127.0.0.1:9100" ]
          }

          test "accounting goes to a file, or to a socket with an absolute path" {
              for text in [ "a.jsonl"; "/var/log/a"; "unix:/run/a.socket" ] do
                  Expect.equal (run (server [ "--accounting"; text ] [] least)).Accounting text "accepted"

              for text in [ ""; " "; "unix:"; "unix:a.socket"; "unix: /a" ] do
                  expectAll (refusal (server [ $"--accounting={text}" ] [] least)) [ "accounting"; "unix:/path" ]
          } ]

let private proxyProtocol =
    let from (node: Node) =
        proxies [ "proxy_protocol", Node.Scalar "true"; "proxy_protocol_from", node ]

    let networks (node: Node) =
        let options, _ = from node
        Expect.isTrue options.ProxyProtocol "proxy_protocol"
        [ for network in options.ProxyProtocolFrom -> string network ]

    testList
        "PROXY protocol"
        [ test "the networks of the proxies are a list of the file, or separated by commas" {
              let expected = [ "192.0.2.0/24"; "2001:db8::/32"; "198.51.100.7/32" ]
              let given = [ "192.0.2.77/24"; "2001:db8::1/32"; "198.51.100.7" ]
              Expect.equal (networks (Node.List(List.map Node.Scalar given))) expected "a list"
              Expect.equal (networks (Node.Scalar(String.Join(", ", given)))) expected "commas"
              Expect.equal (networks (Node.Scalar "::/0")) [ "::/0" ] "a single network"
          }

          test "without the list everybody is a proxy" {
              let options, _ = proxies [ "proxy_protocol", Node.Scalar "true" ]
              Expect.equal options.ProxyProtocolFrom serverDefaults.ProxyProtocolFrom "networks"
          }

          test "a list with a wrong value, or with none, is one clear error" {
              for node, parts in
                  [ Node.List [], [ "empty" ]
                    Node.Scalar "", [ "\"\"" ]
                    Node.Scalar "10.0.0.0/8,", [ "\"\"" ]
                    Node.Scalar "10.0.0.0/8 10.0.0.0/9", [ "192.0.2.0/24" ]
                    Node.Scalar "10.0.0.0/-1", [ "\"10.0.0.0/-1\"" ]
                    Node.Scalar "::1/129", [ "\"::1/129\"" ]
                    Node.Scalar "fe80::1%eth0", [ "%eth0" ]
                    Node.Scalar "[::1]", [ "[::1]" ]
                    Node.Scalar "10.1", [ "\"10.1\"" ]
                    Node.List [ Node.Scalar "::1"; Node.Scalar "all" ], [ "\"all\"" ]
                    Node.List [ Node.List [] ], [ "list" ]
                    Node.Table [], [ "map" ] ] do
                  let _, error = from node
                  let message = Expect.wantSome error "refused"
                  expectAll message ("proxy_protocol_from" :: "config.yaml:1" :: parts)
                  Expect.isFalse (message.Contains '\n') "one line"
          }

          test "modes tcp and both take a proxy" {
              for mode in [ "tcp"; "both" ] do
                  let options =
                      run (server [ $"--mode={mode}"; "--proxy-protocol"; "--proxy-protocol-from=10.0.0.0/8" ] [] least)

                  Expect.isTrue options.ProxyProtocol mode
          } ]

let private refusals =
    testList
        "Refusals"
        [ for flags, parts in
              [ [ "--mode=quic" ], [ "mode"; "\"quic\""; "tcp, udp, both"; "flag --mode" ]
                [ "--mode=tcp"; "--enable-expresslane" ], [ "enable_expresslane"; "mode: udp" ]
                [ "--proxy-protocol" ], [ "proxy_protocol"; "mode: tcp" ]
                [ "--proxy-protocol=maybe" ], [ "proxy_protocol"; "\"maybe\""; "true or false" ]
                [ "--proxy-protocol-from=::1" ], [ "proxy_protocol_from"; "::1/128"; "proxy_protocol: true" ]
                [ "--proxy-protocol-from=10.0.0.0/33" ], [ "proxy_protocol_from"; "\"10.0.0.0/33\""; "2001:db8::/32" ]
                [ "--enable-batch-send"; "--enable-tun-offload" ],
                [ "enable_batch_send"; "\"true\""; "enable_tun_offload: true" ]
                [ "--bind-address=27690" ], [ "bind_address"; "\"27690\""; "0.0.0.0:27690" ]
                [ "--bind-address=1.2.3.4" ], [ "bind_address" ]
                [ "--bind-address=1.2.3.4:0" ], [ "bind_address" ]
                [ "--ip-pool=10.0.0.0/7" ], [ "ip_pool"; "/8 to /30" ]
                [ "--ip-pool=10.0.0.0/31" ], [ "ip_pool"; "/8 to /30" ]
                [ "--ip-pool=::/64" ], [ "ip_pool"; "IPv4" ]
                [ "--ip-pool=10.125.0.4/30" ], [ "ip_pool"; "no address left" ] // .5 and .6 are the static ones
                [ "--key-update-interval=0s" ], [ "key_update_interval"; "at least 1ms" ]
                [ "--udp-buffer-size=3GiB" ], [ "udp_buffer_size"; "2 GiB" ]
                [ "--gso-max-segments=65" ], [ "gso_max_segments"; "1 to 64" ]
                [ "--gso-max-segments=0" ], [ "gso_max_segments"; "1 to 64" ]
                [ "--gso-max-burst=2s" ], [ "gso_max_burst"; "\"2s\""; "up to 1s" ]
                [ "--bind-attempts=0" ], [ "bind_attempts"; "\"0\""; "1 to 1000" ]
                [ "--keylog="; "--workers=1" ], [ "keylog"; "a file path" ]
                [ "--tls-debug=2" ], [ "tls_debug"; "\"2\""; "true or false" ]
                [ "--enable-tun-iouring=maybe" ], [ "enable_tun_iouring"; "\"maybe\""; "true or false" ]
                [ "--workers=65" ], [ "workers"; "\"65\""; "0 to 64"; "flag --workers" ]
                [ "--workers=-1" ], [ "workers"; "\"-1\""; "0 to 64" ]
                [ "--workers=auto" ], [ "workers"; "\"auto\""; "0 to 64" ]
                [ "--disable-tun-gro-tcp=maybe" ], [ "disable_tun_gro_tcp"; "\"maybe\""; "true or false" ]
                [ "--disable-tun-gro-udp=2" ], [ "disable_tun_gro_udp"; "\"2\""; "true or false" ]
                [ "--disable-udp-gro=never" ], [ "disable_udp_gro"; "\"never\""; "true or false" ]
                [ "--tun-name=sixteencharacter" ], [ "tun_name"; "15" ]
                [ "--enable-pqc=maybe" ], [ "enable_pqc"; "\"maybe\""; "true or false" ]
                [ "--log-level=loud" ], [ "log_level"; "\"loud\""; "warn" ]
                [ "--colour=blue" ], [ "--colour"; "--help" ]
                [ "--log-level" ], [ "--log-level"; "--help" ] ] do
              test (String.concat " " flags) { expectAll (refusal (server flags [] least)) parts }

          test "a bad variable is named" {
              expectAll (refusal (server [] [ "TUN_IP", "fe80::1" ] least)) [ "tun_ip"; "LW_SERVER_TUN_IP"; "fe80::1" ]
          }

          test "the default mode is the reference's; one process can serve both" {
              Expect.equal (run (server [] [] "user_db: a")).Mode TransportMode.Tcp "the default"
              Expect.equal (run (server [ "--mode=both" ] [] least)).Mode TransportMode.Both "both"
          }

          testProperty "whatever a value is, the outcome is options or one line that names the key"
          <| fun (index: NonNegativeInt) (NonNull value: NonNull<string>) (isFlag: bool) ->
              let key, _, _ = serverKeys[index.Get % serverKeys.Length]
              let flags = if isFlag then [ $"{flagOf key}={value}" ] else []
              let variables = if isFlag then [] else [ key.ToUpperInvariant(), value ]
              let outcome = server flags variables least

              outcome.Kind = OutcomeKind.Run
              || (let text = refusal outcome in text.Contains key || text.Contains(flagOf key))

          testProperty "whatever the file is, nothing is raised"
          <| fun (words: NonEmptyArray<int>) ->
              let parts =
                  [| "a"; ": "; "\n"; "- "; "["; "]"; "{"; "}"; "&x "; "*x"; "\""; "|"; " "; "mode"; "---"; "\000" |]

              let yaml =
                  String.concat "" [ for word in words.Get -> parts[abs (word % parts.Length)] ]

              let outcome = server [] [] yaml
              outcome.Kind = OutcomeKind.Error && not (outcome.Text.Contains '\n') ]

let tests: Test = testList "Server" [ keys; observation; proxyProtocol; refusals ]

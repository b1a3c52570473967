/// Flags, environment and file, and how they are merged. No file and no variable of the machine is read.
module Lightway.Tests.OptionsTests

open System
open System.IO
open System.Net
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Options

/// A program started with flags, variables and the text of its configuration file.
let private start parse (prefix: string) (flags: string list) (variables: (string * string) list) (yaml: string) =
    let variables = Map [ for name, value in variables -> prefix + name, value ]

    let getEnv name =
        match Map.tryFind name variables with
        | Some value -> value
        | None -> null

    let readFile path =
        if path = "config.yaml" then
            yaml
        else
            raise (FileNotFoundException "no such file")

    parse (Array.ofList ("--config-file" :: "config.yaml" :: flags), Func<_, _> getEnv, Func<_, _> readFile)

let private server = start ServerOptions.Parse "LW_SERVER_"
let private client = start ClientOptions.Parse "LW_CLIENT_"

let private run (outcome: ParseOutcome<'Options>) : 'Options =
    if outcome.Kind <> OutcomeKind.Run then
        failtestf "not run: %s" outcome.Text

    outcome.Options

let private refusal (outcome: ParseOutcome<'Options>) : string =
    Expect.equal outcome.Kind OutcomeKind.Error "refused"
    Expect.isFalse (outcome.Text.Contains '\n') "one line"
    outcome.Text

let private expectAll (text: string) (parts: string list) =
    for part in parts do
        Expect.stringContains text part "the message names it"

/// The least that a server and a client start with.
let private least = "mode: udp\nuser_db: ./users\n"

let private leastClient =
    "mode: udp\nserver: vpn.example.com:27690\nuser: me\npassword: secret\n"

/// Every option that is one value, with a value that is not its default: what it does to the record.
let private serverKeys: (string * string * (ServerOptions -> ServerOptions)) list =
    [ "bind_address",
      "192.0.2.1:4433",
      (fun o ->
          { o with
              BindAddress = IPEndPoint.Parse "192.0.2.1:4433" })
      "server_cert", "/etc/a.crt", (fun o -> { o with ServerCert = "/etc/a.crt" })
      "server_key", "/etc/a.key", (fun o -> { o with ServerKey = "/etc/a.key" })
      "user_db", "/etc/users", (fun o -> { o with UserDb = "/etc/users" })
      "token_rsa_pub_key_pem",
      "/etc/a.pem",
      (fun o ->
          { o with
              TokenRsaPubKeyPem = "/etc/a.pem" })
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
      "ip_map", "/etc/map", (fun o -> { o with IpMapFile = "/etc/map" })
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
      "connection_age_expiration_interval",
      "5s",
      (fun o ->
          { o with
              ConnectionAgeExpirationInterval = TimeSpan(0, 0, 5) })
      "statistics_reporting_interval",
      "5s",
      (fun o ->
          { o with
              StatisticsReportingInterval = TimeSpan(0, 0, 5) })
      "udp_buffer_size", "1 MiB", (fun o -> { o with UdpBufferSize = 1_048_576 })
      "enable_batch_receive", "true", (fun o -> { o with EnableBatchReceive = true })
      "enable_batch_send", "true", (fun o -> { o with EnableBatchSend = true })
      "enable_tun_offload", "true", (fun o -> { o with EnableTunOffload = true })
      "enable_tun_iouring", "true", (fun o -> { o with EnableTunIouring = true })
      "iouring_entry_count", "64", (fun o -> { o with IouringEntryCount = 64 })
      "iouring_sqpoll_idle_time",
      "0s",
      (fun o ->
          { o with
              IouringSqpollIdleTime = TimeSpan.Zero })
      "log_format", "json", (fun o -> { o with LogFormat = LogFormat.Json })
      "log_level", "debug", (fun o -> { o with LogLevel = LogLevel.Debug })
      "accept_unknowns", "true", (fun o -> { o with AcceptUnknowns = true })
      "tls_debug", "true", (fun o -> { o with TlsDebug = true })
      "randomize_ippool", "false", (fun o -> { o with RandomizeIpPool = false })
      "gso_max_segments", "16", (fun o -> { o with GsoMaxSegments = 16 })
      "gso_max_burst",
      "250us",
      (fun o ->
          { o with
              GsoMaxBurst = TimeSpan.FromMicroseconds 250L })
      "disable_tun_tso", "true", (fun o -> { o with DisableTunTso = true })
      "disable_tun_gro_tcp", "true", (fun o -> { o with DisableTunGroTcp = true })
      "disable_tun_gro_udp", "true", (fun o -> { o with DisableTunGroUdp = true })
      "disable_udp_gso", "true", (fun o -> { o with DisableUdpGso = true })
      "disable_udp_gro", "true", (fun o -> { o with DisableUdpGro = true })
      "workers", "3", (fun o -> { o with Workers = 3 })
      "pin_workers", "true", (fun o -> { o with PinWorkers = true })
      "metrics_file", "/run/metrics", (fun o -> { o with MetricsFile = "/run/metrics" }) ]

/// The table of the reference server's options, written out a second time.
let private serverDefaults: ServerOptions =
    { ConfigFile = "config.yaml"
      Mode = TransportMode.Udp
      BindAddress = IPEndPoint(IPAddress.Any, 27690)
      ServerCert = "./server.crt"
      ServerKey = "./server.key"
      UserDb = "./users"
      TokenRsaPubKeyPem = null
      TunName = null
      TunIp = null
      IpPool = IPNetwork.Parse "10.125.0.0/16"
      IpMapFile = null
      IpMap = [||]
      RandomizeIpPool = true
      LightwayClientIp = IPAddress.Parse "10.125.0.5"
      LightwayServerIp = IPAddress.Parse "10.125.0.6"
      LightwayDnsIp = IPAddress.Parse "10.125.0.1"
      EnableExpresslane = false
      ExpresslaneKeysRotationInterval = TimeSpan.FromMinutes 15L
      KeyUpdateInterval = TimeSpan.FromMinutes 15L
      EnablePqc = false
      ConnectionAgeExpirationInterval = TimeSpan.FromMinutes 1L
      StatisticsReportingInterval = TimeSpan.FromSeconds 30L
      MetricsFile = null
      ProxyProtocol = false
      UdpBufferSize = 15 * 1024 * 1024
      EnableBatchReceive = false
      EnableBatchSend = false
      EnableTunOffload = false
      GsoMaxSegments = 64
      GsoMaxBurst = TimeSpan.FromMilliseconds 1L
      DisableTunTso = false
      DisableTunGroTcp = false
      DisableTunGroUdp = false
      DisableUdpGso = false
      DisableUdpGro = false
      Workers = 0
      PinWorkers = false
      EnableTunIouring = false
      IouringEntryCount = 1024
      IouringSqpollIdleTime = TimeSpan.FromMilliseconds 100L
      LogFormat = LogFormat.Full
      LogLevel = LogLevel.Info
      AcceptUnknowns = false
      TlsDebug = false }

let private flagOf (key: string) = "--" + key.Replace('_', '-')

let private layers =
    testList
        "Layers"
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

          testProperty "the strongest layer that gives a value wins: flag, environment, file, default"
          <| fun (flag: bool option) (variable: bool option) (file: bool option) ->
              let text value = string<bool>(value).ToLowerInvariant()

              let flags =
                  [ for value in Option.toList flag -> $"--enable-expresslane={text value}" ]

              let variables =
                  [ for value in Option.toList variable -> "ENABLE_EXPRESSLANE", text value ]

              let yaml =
                  String.concat "" [ for value in Option.toList file -> $"enable_expresslane: {text value}\n" ]

              let expected =
                  [ flag; variable; file ] |> List.tryPick id |> Option.defaultValue serverDefaults.EnableExpresslane

              (run (server flags variables (least + yaml))).EnableExpresslane = expected

          test "a flag without a value switches on, and the last of two flags wins" {
              let options =
                  run (server [ "--enable-pqc"; "--log-level"; "warn"; "--log-level=off" ] [] least)

              Expect.isTrue options.EnablePqc ""
              Expect.equal options.LogLevel LogLevel.Off ""
          }

          test "short flags are those of the reference server" {
              let parse flags yaml =
                  ServerOptions.Parse(Array.ofList flags, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> yaml))

              let options =
                  run (parse [ "-c"; "x.yaml"; "-m"; "udp"; "-a" ] "user_db: a\nother: 1")

              Expect.equal options.ConfigFile "x.yaml" ""
              Expect.isTrue options.AcceptUnknowns ""
          }

          test "an empty variable and a null in the file count as not given" {
              let options =
                  run (server [] [ "TUN_NAME", "" ] (least + "tun_ip: null\nenable_pqc:\nip_pool: ~\n"))

              Expect.equal options serverDefaults ""
          }

          test "RUST_LOG overrides log_level; what it cannot say here is warned about" {
              let outcome =
                  server [ "--log-level=error" ] [ "RUST_LOG", "lightway_core=trace,debug" ] least

              Expect.equal (run outcome).LogLevel LogLevel.Debug ""
              let warning = Expect.wantSome (Seq.tryExactlyOne outcome.Warnings) "one warning"
              expectAll warning [ "LW_SERVER_RUST_LOG"; "lightway_core=trace" ]
          } ]

let private wholeFile =
    """
mode: udp
proxy_protocol: false
ip_map:
  192.0.2.1: 10.125.1.0/24
  192.0.2.2: 10.125.2.0/24
"""
    + String.concat
        ""
        [ for key, value, _ in serverKeys do
              if key <> "ip_map" && key <> "enable_batch_send" then
                  $"{key}: {value}\n" ]

let private notServed =
    [ "token_rsa_pub_key_pem"
      "ip_map"
      "proxy_protocol"
      "enable_batch_receive"
      "enable_batch_send"
      "enable_tun_iouring"
      "iouring_entry_count"
      "iouring_sqpoll_idle_time"
      "tls_debug" ]

let private files =
    testList
        "File"
        [ test "a file that holds every key starts, and each key without effect is named in a warning" {
              let outcome = server [] [] (wholeFile + "enable_batch_send: false\n")
              let options = run outcome
              Expect.equal options.IpMap.Count 2 "the map is read"
              Expect.equal options.IpMap[1].LocalAddress (IPAddress.Parse "192.0.2.2") ""
              let named = [ for warning in outcome.Warnings -> warning.Split(':')[0] ]
              Expect.equal (set named) (set notServed) ""
          }

          test "an unknown key is refused with its line and the nearest key, its value left out" {
              let text = refusal (server [] [] (least + "tun_nam: s3cret"))
              expectAll text [ "tun_nam"; "config.yaml:3"; "did you mean tun_name?" ]
              Expect.isFalse (text.Contains "s3cret") "it may be a password"
          }

          test "accept_unknowns turns unknown keys into warnings, from any layer" {
              for flags, variables in [ [ "-a" ], []; [], [ "ACCEPT_UNKNOWNS", "true" ] ] do
                  let outcome = server flags variables (least + "colour: blue")
                  run outcome |> ignore
                  let warning = Expect.wantSome (Seq.tryExactlyOne outcome.Warnings) "one warning"
                  expectAll warning [ "colour"; "config.yaml:3" ]
          }

          for name, yaml, parts in
              [ "a list for a value", least + "tun_name: [a, b]", [ "tun_name"; "list"; ":3" ]
                "a map for a value", least + "tun_name: {a: b}", [ "tun_name"; "map"; ":3" ]
                "a key given twice", least + "mode: udp", [ ":3"; "mode" ]
                "broken YAML", least + "a: [1", [ "config.yaml:"; "not valid YAML" ]
                "a list that does not end", least + "ip_map: [a\n", [ "config.yaml"; "not valid YAML" ]
                "a list in a list that does not end", least + "- [-", [ "config.yaml"; "not valid YAML" ]
                "no map at the root", "- mode", [ "config.yaml:1"; "key: value" ]
                "two documents", least + "---\nmode: udp", [ "second YAML document" ]
                "lists without end", least + "a: " + String('[', 200_000), [ "config.yaml:3"; "deep" ]
                "a list that contains itself", least + "ip_map: &a [*a]", [ "config.yaml:3"; "deep" ]
                "a wrong address in ip_map", least + "ip_map: {x: 10.0.0.0/8}", [ "ip_map"; "\"x\""; "IPv4" ]
                "a wrong network in ip_map", least + "ip_map: {192.0.2.1: 7}", [ "192.0.2.1"; "\"7\""; "IPv4 network" ] ] do
              test $"{name} is one clear error" { expectAll (refusal (server [] [] yaml)) parts }

          test "an empty file is no error of its own" {
              Expect.equal (run (server [ "-m"; "udp"; "--user-db=./users" ] [] "")) serverDefaults ""
          }

          test "a file that cannot be read, or none, is one clear error" {
              let parse argv =
                  ServerOptions.Parse(argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> raise (IOException "gone")))

              expectAll (refusal (parse [| "-c"; "x.yaml" |])) [ "config_file"; "x.yaml"; "gone" ]
              expectAll (refusal (parse [||])) [ "config_file"; "--config-file" ]
          } ]

let private refusals =
    testList
        "Refusals"
        [ for flags, parts in
              [ [ "--mode=tcp" ], [ "mode"; "tcp"; "mode: udp" ]
                [ "--mode=quic" ], [ "mode"; "\"quic\""; "tcp, udp"; "flag --mode" ]
                [ "--mode=tcp"; "--enable-expresslane" ], [ "enable_expresslane"; "mode: udp" ]
                [ "--proxy-protocol" ], [ "proxy_protocol"; "mode: tcp" ]
                [ "--enable-batch-send"; "--enable-tun-offload" ], [ "enable_batch_send"; "enable_tun_offload" ]
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

          test "the reference's default mode is refused with its remedy" {
              expectAll (refusal (server [] [] "user_db: a")) [ "mode"; "mode: udp"; "the default" ]
          }

          test "users are needed, and tokens do not stand in for them" {
              expectAll (refusal (server [] [] "mode: udp")) [ "user_db"; "missing" ]
              let text = refusal (server [] [] "mode: udp\ntoken_rsa_pub_key_pem: a.pem")
              expectAll text [ "user_db"; "not served yet"; "config.yaml:2" ]
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

let private values =
    let units =
        [ "ns", 0.01; "us", 10.; "ms", 1e4; "s", 1e7; "m", 6e8; "h", 3.6e10; "d", 8.64e11; "w", 6.048e12 ] // in ticks

    testList
        "Values"
        [ testProperty "a duration is the sum of its parts, with or without spaces"
          <| fun (parts: NonEmptyArray<NonNegativeInt * NonNegativeInt>) (spaced: bool) ->
              let parts =
                  [ for count, unit in parts.Get -> count.Get, units[unit.Get % units.Length] ]

              let separator = if spaced then " " else ""

              let text =
                  String.concat separator [ for count, (name, _) in parts -> $"{count}{separator}{name}" ]

              let ticks = List.sumBy (fun (count, (_, ticks)) -> float count * ticks) parts

              match Value.duration text with
              | Ok value -> abs (float value.Ticks - ticks) <= 1.
              | Error _ -> false

          for text in [ ""; "5"; "1.5s"; "s"; "-1s"; "1 parsec"; "1s,"; "99999999999999999999s"; "200000w"; "1e3s" ] do
              test $"\"{text}\" is no duration" { Expect.isError (Value.duration text) "" }

          for text, seconds in [ "2 hours", 7200; "1min", 60; "1day 1sec", 86401; "0", 0 ] do
              test $"\"{text}\" is {seconds} seconds" {
                  Expect.equal (Value.duration text) (Ok(TimeSpan.FromSeconds(int64 seconds))) ""
              }

          for text, bytes in
              [ "1500", 1500
                "15 MiB", 15_728_640
                "8MB", 8_000_000
                "1.5k", 1500
                "64kib", 65536
                "1 B", 1
                "2147483647", Int32.MaxValue ] do
              test $"\"{text}\" is {bytes} bytes" { Expect.equal (Value.byteSize text) (Ok bytes) "" }

          for text in [ ""; "0"; "2 GiB"; "1 MiBs"; "-1"; "1 M B"; "1.2.3" ] do
              test $"\"{text}\" is no size" { Expect.isError (Value.byteSize text) "" }

          testProperty "a network holds the address it was written with, and begins at its own address"
          <| fun (a: byte) (b: byte) (c: byte) (d: byte) ->
              let address = IPAddress [| a; b; c; d |]
              let length = 8 + int d % 23

              match Value.ipv4Network 8 30 $"{address}/{length}" with
              | Ok network -> network.PrefixLength = length && network.Contains address
              | Error _ -> false

          for text, expected in
              [ "vpn.example.com:1", Some("vpn.example.com", 1)
                "192.0.2.1:65535", Some("192.0.2.1", 65535)
                "[2001:db8::1]:7", Some("2001:db8::1", 7)
                "2001:db8::1:7", None
                "host", None
                "host:0", None
                "host:65536", None
                ":7", None
                "[host]:7", None ] do
              test $"\"{text}\" as host:port" {
                  match Value.hostPort text, expected with
                  | Ok struct (host, port), Some wanted -> Expect.equal (host, port) wanted ""
                  | Error _, None -> ()
                  | result, _ -> failtestf "%A" result
              }

          test "numbers may be hexadecimal, and stay in their range" {
              Expect.equal (Value.number 0L 0xFFFF_FFFFL "0xffffffff") (Ok 0xFFFF_FFFFL) ""
              Expect.isError (Value.number 0L 0xFFFF_FFFFL "0x100000000") ""
              Expect.isError (Value.number 0L 10L "-1") ""
          } ]

/// Offload and metrics of the client, each with a value that is not its default: what it does to the record.
let private clientKeys: (string * string * (ClientOptions -> ClientOptions)) list =
    [ "enable_tun_offload", "false", (fun o -> { o with EnableTunOffload = false })
      "gso_max_segments", "16", (fun o -> { o with GsoMaxSegments = 16 })
      "gso_max_burst", "0s", (fun o -> { o with GsoMaxBurst = TimeSpan.Zero })
      "disable_tun_tso", "true", (fun o -> { o with DisableTunTso = true })
      "disable_tun_gro_tcp", "true", (fun o -> { o with DisableTunGroTcp = true })
      "disable_tun_gro_udp", "true", (fun o -> { o with DisableTunGroUdp = true })
      "disable_udp_gso", "true", (fun o -> { o with DisableUdpGso = true })
      "disable_udp_gro", "true", (fun o -> { o with DisableUdpGro = true })
      "metrics_file", "/run/metrics", (fun o -> { o with MetricsFile = "/run/metrics" }) ]

let private clientOffload =
    testList
        "Client, offload and metrics"
        [ test "offload is on, with every part of it, and counters go nowhere" {
              let options = run (client [] [] leastClient)
              Expect.isTrue options.EnableTunOffload ""
              Expect.equal options.GsoMaxSegments 64 ""
              Expect.equal options.GsoMaxBurst (TimeSpan.FromMilliseconds 1L) ""

              for switch in
                  [ options.DisableTunTso
                    options.DisableTunGroTcp
                    options.DisableTunGroUdp
                    options.DisableUdpGso
                    options.DisableUdpGro ] do
                  Expect.isFalse switch ""

              Expect.isNull options.MetricsFile ""
          }

          for key, value, change in clientKeys do
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

              (run (client flags variables (leastClient + yaml))).EnableTunOffload = expected

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
                "metrics_file", "' '", "a file path" ] do
              test $"{key}: {value} is refused with its line and what is allowed" {
                  expectAll (refusal (client [] [] $"{leastClient}{key}: {value}")) [ key; allowed; "config.yaml:5" ]
              }

          for key in [ "workers"; "pin_workers" ] do
              test $"{key} is the server's alone" {
                  expectAll (refusal (client [] [] $"{leastClient}{key}: 1")) [ key; "not a known option" ]
              } ]

let private clients =
    testList
        "Client"
        [ test "defaults are those of the reference client" {
              let options = run (client [] [] leastClient)
              Expect.equal (options.ServerHost, options.ServerPort) ("vpn.example.com", 27690) ""
              Expect.isNull options.ServerDn ""
              Expect.equal (options.CaCert, options.CaCertIsInline) ("./ca_cert.crt", false) ""
              Expect.equal options.OutsideMtu 1500 ""
              Expect.equal options.TunName "lightway" ""
              Expect.equal (string options.TunLocalIp) "100.64.0.6" ""
              Expect.equal (string options.TunPeerIp) "100.64.0.5" ""
              Expect.equal (string options.TunDnsIp) "100.64.0.1" ""
              Expect.equal options.KeyShare KeyShare.P521MlKem1024 ""
              Expect.equal options.KeepaliveInterval (TimeSpan.FromSeconds 10L) ""
              Expect.equal options.KeepaliveTimeout (TimeSpan.FromSeconds 60L) ""
              Expect.isTrue options.KeepaliveContinuous ""
              Expect.equal (options.SendBuffer, options.ReceiveBuffer) (8_388_608, 8_388_608) ""
              Expect.equal (options.RouteMode, options.DnsConfigMode) (RouteMode.Default, DnsConfigMode.Default) ""
          }

          test "a default of true can be switched off" {
              Expect.isFalse (run (client [] [] (leastClient + "keepalive_continuous: false"))).KeepaliveContinuous ""
          }

          test "the first of the servers is used, with what it does not say taken from above" {
              let yaml =
                  leastClient
                  + "server_dn: above\nservers:\n  - server: a.example:1\n    server_dn: first\n  - server: b.example:2\n"

              let outcome = client [] [] yaml
              let options = run outcome
              Expect.equal (options.ServerHost, options.ServerDn, options.User) ("a.example", "first", "me") ""
              expectAll (Seq.exactlyOne outcome.Warnings) [ "servers"; "first of 2" ]
          }

          test "an entry with credentials of its own inherits none" {
              let yaml = leastClient + "servers:\n  - server: a.example:1\n    user: other\n"
              expectAll (refusal (client [] [] yaml)) [ "password"; "missing" ]
          }

          test "an unknown key in an entry is refused" {
              let yaml = leastClient + "servers:\n  - server: a.example:1\n    sever_dn: x\n"
              expectAll (refusal (client [] [] yaml)) [ "sever_dn"; "config.yaml:7"; "did you mean server_dn?" ]
          }

          test "a certificate may stand in the file itself" {
              let yaml =
                  leastClient + "ca_cert: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n"

              let options = run (client [] [] yaml)
              Expect.isTrue options.CaCertIsInline ""
              Expect.stringContains options.CaCert "\nAAAA\n" ""
          }

          test "the reference's alias for a key is known" {
              let outcome =
                  client [] [] (leastClient + "enable_inside_pkt_encoding_at_connect: true")

              Expect.isTrue (run outcome).EnableInsidePktEncoding ""
              expectAll (Seq.exactlyOne outcome.Warnings) [ "enable_inside_pkt_encoding"; "not served yet" ]
          }

          test "keys of newer reference files only warn" {
              let outcome = client [] [] (leastClient + "enable_pqc: true")
              expectAll (Seq.exactlyOne outcome.Warnings) [ "enable_pqc"; "keyshare" ]
              let outcome = server [] [] (least + "bind_attempts: 3")
              expectAll (Seq.exactlyOne outcome.Warnings) [ "bind_attempts"; "not served yet" ]
          }

          test "keys for other platforms only warn" {
              let outcome =
                  client [] [] (leastClient + "enable_dpapi: true\nenable_connected_udp: false\n")

              run outcome |> ignore
              Expect.equal outcome.Warnings.Count 2 ""
          }

          test "a token does not stand in for a password yet" {
              expectAll (refusal (client [] [] "mode: udp\nserver: a:1\ntoken: t0ken")) [ "user"; "not served yet" ]
          }

          test "neither text form nor messages hold the password" {
              let outcome = client [ "--outside-mtu=9000" ] [] leastClient
              expectAll (refusal outcome) [ "outside_mtu"; "68 to 1500" ]
              Expect.isFalse ((refusal outcome).Contains "secret") ""
              Expect.isFalse ((string (run (client [] [] leastClient))).Contains "secret") ""
          } ]

let private pages =
    let page argv =
        let outcome =
            ServerOptions.Parse(Array.ofList argv, Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

        outcome.Kind, outcome.Text

    testList
        "Pages"
        [ test "the help page has every flag with its default, and fits 100 columns" {
              let kind, text = page [ "--help" ]
              Expect.equal kind OutcomeKind.Help ""

              for key, _, _ in serverKeys do
                  Expect.stringContains text (flagOf key) ""

              for fallback in
                  [ "27690"; "15 MiB"; "./server.crt"; "10.125.0.0/16"; "10.125.0.5"; "15m"; "1m"; "30s"; "1024" ] do
                  Expect.stringContains text fallback ""

              let longest = text.Split '\n' |> Seq.map String.length |> Seq.max
              Expect.isLessThan longest 116 "the two lines of prose may be a little longer"
          }

          test "offload has a group of its own, with all its flags, in both programs" {
              let flags =
                  [ for key, _, _ in clientKeys do
                        if key <> "metrics_file" then
                            flagOf key ]

              let clientPage =
                  (ClientOptions.Parse([| "--help" |], Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))).Text

              for text, title, flags in
                  [ clientPage, "  Offload", flags
                    snd (page [ "--help" ]), "  Offload and workers", flags @ [ "--workers"; "--pin-workers" ] ] do
                  let lines = Array.toList (text.Split '\n')
                  // A heading is indented by two columns, a flag by more.
                  let isHeading (line: string) =
                      line.Length > 2 && line.StartsWith "  " && Char.IsUpper line[2]

                  let group =
                      lines |> List.skipWhile ((<>) title) |> List.skip 1 |> List.takeWhile (isHeading >> not)

                  for flag in flags do
                      let begins (line: string) =
                          line.TrimStart().StartsWith(flag + " ", StringComparison.Ordinal)

                      Expect.exists group begins $"{flag} stands under {title}"

              Expect.stringContains clientPage "--metrics-file" ""
          }

          test "init has a page of its own" {
              let kind, text = page [ "init"; "--help" ]
              Expect.equal kind OutcomeKind.Help ""
              expectAll text [ "--address"; "--server-name"; "--ip-pool"; "<dir>" ]
          }

          test "the version is one line" {
              let kind, text = page [ "--version" ]
              Expect.equal kind OutcomeKind.Version ""
              Expect.stringStarts text "lightway-server " ""
          }

          test "init reads its flags, and names what is wrong with them" {
              let parse argv =
                  ServerOptions.Parse(Array.ofList ("init" :: argv), Func<_, _>(fun _ -> null), Func<_, _>(fun _ -> ""))

              let init = (parse [ "dir"; "--address"; "[::1]:99"; "--user=x" ]).Init
              Expect.equal (init.Directory, init.ServerHost, init.ServerPort, init.User) ("dir", "::1", 99, "x") ""
              expectAll (refusal (parse [])) [ "init"; "DIR" ]
              expectAll (refusal (parse [ "dir"; "--user=a:b" ])) [ "user"; "a:b" ]
              expectAll (refusal (parse [ "dir"; "--ip-pool=10.0.0.0/29" ])) [ "ip-pool"; "/8 to /28" ]
              expectAll (refusal (parse [ "dir\n" ])) [ "directory" ]
          } ]

let tests: Test =
    testList "Options" [ layers; files; refusals; values; clients; clientOffload; pages ]

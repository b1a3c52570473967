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
      "metrics_file", "/run/metrics", (fun o -> { o with MetricsFile = "/run/metrics" }) ]

/// Every option without an effect, a value, and one that is refused, if any is.
let private clientNotServed: (string * string * string option) list =
    [ "preferred_connection_wait_interval", "1s", Some "soon"
      "enable_inside_pkt_encoding", "true", Some "maybe"
      "tracer_packet_timeout", "5s", Some "0s" ]

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
                "metrics_file", "' '", "a file path" ] do
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

          for key, value, wrong in clientNotServed do
              test $"{key} is checked and has no effect, in the file, in the environment and as a flag" {
                  expectNotServed client leastClient (run (client [] [] leastClient)) key value wrong
              }

          for key, value, wrong in clientAccepted do
              test $"{key} is checked and accepted, in the file, in the environment and as a flag" {
                  expectAccepted client leastClient (run (client [] [] leastClient)) key value wrong
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

          test "the file may contain the certificate itself" {
              let yaml =
                  leastClient + "ca_cert: |\n  -----BEGIN CERTIFICATE-----\n  AAAA\n  -----END CERTIFICATE-----\n"

              let options = run (client [] [] yaml)
              Expect.isTrue options.CaCertIsInline ""
              Expect.stringContains options.CaCert "\nAAAA\n" ""
          }

          test "the reference's alias for a key is known" {
              let outcome =
                  client [] [] (leastClient + "enable_inside_pkt_encoding_at_connect: true")

              Expect.equal (run outcome) (run (client [] [] leastClient)) "it has no effect"
              expectAll (Seq.exactlyOne outcome.Warnings) [ "enable_inside_pkt_encoding"; "not served yet" ]
          }

          test "keys of newer reference files only warn" {
              let outcome = client [] [] (leastClient + "enable_pqc: true")
              expectAll (Seq.exactlyOne outcome.Warnings) [ "enable_pqc"; "keyshare" ]
          }

          test "keys for other platforms only warn" {
              let outcome =
                  client [] [] (leastClient + "enable_dpapi: true\nenable_connected_udp: false\n")

              run outcome |> ignore
              Expect.equal outcome.Warnings.Count 2 ""
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

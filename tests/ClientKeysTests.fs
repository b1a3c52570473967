/// Every option of the client has a test that shows what it does: which one, and those that no other list has.
module Lightway.Tests.ClientKeysTests

open System
open System.IO
open System.Text.Json
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Tests.Checks
open Lightway.Tests.ClientSite

let private mine =
    "names, addresses, buffers, mark, groups and keys are what the options say, as the kernel, status and both logs show"

/// A row per option: the test that shows its effect, by its full name.
let private shown: (string * string) list =
    let many keys test = [ for key in keys -> key, test ]
    let options = "Options.Client.Options."
    let reconnect = "Reconnect."
    let endToEnd = "Client end to end."

    many
        [ "tun_name"
          "tun_local_ip"
          "tun_peer_ip"
          "tun_dns_ip"
          "sndbuf"
          "rcvbuf"
          "fwmark"
          "cipher"
          "keyshare"
          "keylog"
          "tls_debug"
          "log_level"
          "aead"
          "gso_max_segments" ]
        ("Client keys." + mine)
    @ many
        [ "wintun_file"; "device_guid"; "wintun_ring_capacity"; "enable_dpapi"; "enable_connected_udp" ]
        (options + "keys for other platforms only warn")
    @ many
        [ "disable_tun_tso"
          "disable_tun_gro_tcp"
          "disable_tun_gro_udp"
          "disable_udp_gso"
          "disable_udp_gro" ]
        "Offload.switched off on both sides: {key}; the other offloads are in use, TCP and UDP arrive"
    @ many
        [ "iouring_entry_count"; "iouring_sqpoll_idle_time" ]
        (options + "{key} is checked and accepted, in the file, in the environment and as a flag")
    @ many
        [ "enable_batch_receive"; "enable_tun_iouring" ]
        "Served options.a server with every key of the reference serves, and warns about none (offload: True)"
    @ many
        [ "keepalive_interval"; "keepalive_timeout" ]
        (reconnect
         + "losses.mode default: the tunnel's routes stay, and the route to the server too, so that connecting does not lead into it")
    @ many
        [ "keepalive_continuous"; "tracer_packet_timeout" ]
        "Reconnector.packets.without continuous keepalives a packet after silence makes the client ask, once"
    @ [ "expresslane_keys_rotation_interval", "Client host.settings.a connection gets what the options say"
        "config_file", "Exit codes.lightway-client: a file that does not exist: code 2"
        "accept_unknowns", "Options.Check.Files.warnings go to standard error, and do not fail it"
        "server",
        endToEnd
        + "what it says when it fails.no answer: address and port, how long it waited, and what to check"
        "servers",
        reconnect
        + "servers.servers that are dead, refuse the login or the connection, and a good one: online in less than 2 s"
        "preferred_connection_wait_interval",
        reconnect
        + "servers.with an interval the preferred server wins, though another one is online before it"
        "mode",
        reconnect
        + "losses.the server is killed for 20 s: the client is back by itself, over UDP and TCP, with the device and the routes it had; meanwhile nothing leaves in the clear"
        "reconnect", reconnect + "losses.reconnect: false: the end of the connection is the end of the program"
        "reconnect_attempts",
        reconnect + "losses.reconnect_attempts: the client ends after that many failed rounds in a row"
        "outside_mtu",
        "MTU.path.Expresslane: over a path of MTU 1280 TCP passes both ways without a stall above 1 s, and no datagram is fragmented"
        "inside_mtu",
        reconnect + "set-up.inside_mtu: the device has it, also after the server has said what its own has"
        "enable_pmtud",
        "Path MTU.through a router.Expresslane: a path of 1300 (Silent) is found, and TCP passes both ways without a fragment"
        "pmtud_base_mtu",
        "Path MTU.in memory.the first probe has the base size: the option's, as a frame, or an IP packet of 1280 bytes"
        "server_dn", endToEnd + "what it says when it fails.a certificate of another name: server_dn, and what to do"
        "ca_cert",
        endToEnd
        + "what it says when it fails.a certificate of an unknown authority: ca_cert, its file, and what to do"
        "user",
        endToEnd
        + "what it says when it fails.a wrong password: the user, the server, and where the password is set"
        "password",
        endToEnd
        + "signals.SIGHUP does not end a client without a terminal, a service: it reads its files again"
        "password_file", reconnect + "set-up.password_file: the password is read from it, without its line break"
        "token",
        "LoginsEndToEnd.a client with a token gets through, at a server without users; the log names its subject"
        "route_mode", endToEnd + "routes.mode lan leaves local networks on their present way"
        "dns_config_mode",
        "Client DNS.file.a file that is a mount of its own, as in containers; no file at all; a file system that is read-only"
        "kill_switch",
        "Client leaks.kill switch.closed from the start on: also when the server dies, after kill -9, and at the next start; reset opens it"
        "allow_ipv6_outside",
        "Client leaks.IPv6.allow_ipv6_outside lets IPv6 pass beside the tunnel, and a warning says so"
        "copy_ecn", "ECN.path.Expresslane: marks on the path reach TCP, which slows down without a loss"
        "copy_dscp", "ECN.Expresslane: a datagram has the ECN field of its packet, and DSCP only if that is asked for"
        "enable_expresslane", "End to end.Expresslane, offload on.TCP download, byte for byte, by the path of this mode"
        "enable_inside_pkt_encoding",
        options
        + "encoding needs a codec, so that true is refused, also by the reference's alias of the key"
        "enable_tun_offload", "End to end.DTLS, offload off.TCP download, byte for byte, by the path of this mode"
        "gso_max_burst",
        "InsidePath.Expresslane: a run takes the peer no longer than it may, and all runs leave in one call"
        "metrics_file", "Client moves.while the link is down, the tunnel's own datagrams do not get into the tunnel"
        "control_socket", reconnect + "status.status tells how the client is, in words and as JSON; nobody else may ask"
        "core_dumps",
        "Start.Core dumps.client, core_dumps: True: memory can be read and dumped only if the option allows it"
        "enable_pqc", options + "keys of newer reference files only warn" ]

let private kernel =
    [ test mine {
          withSite settings (fun site ->
              let path name = Path.Combine(site.Vpn.Folder, name)

              let authority = File.ReadAllLines(path "ca_cert.crt") |> Array.map ((+) "  ")

              site.Vpn.SetClient
                  [ "tun_name", "vpn7"
                    "tun_local_ip", "100.64.9.6"
                    "tun_peer_ip", "100.64.9.5"
                    "tun_dns_ip", "100.64.9.1"
                    "sndbuf", "100 KiB"
                    "rcvbuf", "200 KiB"
                    "fwmark", "77"
                    "cipher", "chacha20"
                    "keyshare", "x25519mlkem768"
                    "keylog", path "keys"
                    "tls_debug", "true"
                    "aead", "wolfcrypt"
                    "gso_max_segments", "16"
                    "control_socket", path "client.sock"
                    "ca_cert", String.concat "\n" ("|" :: List.ofArray authority) ]

              site.Vpn.SetServer [ "enable_pqc", "true" ]
              site.Vpn.StartServer()
              site.Vpn.LaunchClient()
              site.AwaitOnline site.Vpn.Client
              let link = site.Ip "-o addr show dev vpn7"
              Expect.stringContains link "inet 100.64.9.6 peer 100.64.9.5/32" "the device and its addresses"

              for destination in [ "100.64.9.1 dev vpn7"; "0.0.0.0/1 via 100.64.9.5 dev vpn7" ] do
                  Expect.exists site.Routes _.StartsWith(destination) destination

              // Of what is asked for, the kernel makes twice as much (socket(7)).
              let socket = Shell.inside site.Topology.Client "ss" [ "-nuamep" ]

              for part in [ "rb409600,"; "tb204800,"; "fwmark:0x4d" ] do
                  Expect.stringContains socket part "the socket"

              let online = site.Vpn.Client.Log.Split '\n' |> Array.find _.Contains("online: ")

              for part in [ "CHACHA20"; "X25519MLKEM768" ] do
                  Expect.stringContains online part "what was negotiated"

              await "the key log" (fun () -> File.ReadAllText(path "keys").Contains "CLIENT_TRAFFIC_SECRET_0 ")
              site.Vpn.Client.AwaitLog "session 1: sent " "records of the handshake"

              site.Vpn.Client.AwaitLog "AES-256-GCM by wolfCrypt" "the library"
              let status = ref ""

              // The first status is there with the first tick.
              let answers () =
                  let struct (code, output, _) =
                      Shell.tryRun
                          (Programs.OfThisBuild().Client)
                          [ "status"; "--json"; "--control-socket"; path "client.sock" ]

                  status.Value <- output
                  code = 0

              Expect.isTrue (Wait.until patience answers) "status"
              let offload = JsonDocument.Parse(status.Value).RootElement.GetProperty "offload"
              Expect.equal (offload.GetProperty("udp_gso_segments").GetInt32()) 16 "segments per send"
              Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
              site.Vpn.Client.AwaitLog " INFO " "the log as it is by default"
              site.Vpn.SetClient [ "log_level", "error" ]
              site.Vpn.LaunchClient()
              site.Vpn.Client.Await patience "the tunnel carries packets" (fun () -> site.CarriesPing)
              Expect.isTrue (site.Vpn.Client.Stop()) "SIGTERM ends it"
              Expect.isFalse (site.Vpn.Client.Log.Contains " INFO ") "errors only")
      } ]

let private everyKey (all: Test list) =
    test "every option has a test that shows its effect" {
        let tests =
            set [ for flat in Test.toTestCodeList (TestList(all, Normal)) -> String.Join('.', flat.name) ]

        let keys =
            Set.union (set (Map.values ClientReading.names.Keys)) (set (Map.keys ClientReading.names.FileOnly))

        Expect.isGreaterThan keys.Count 50 "the union is there"
        Expect.equal (keys - set (List.map fst shown)) Set.empty "options without a test"
        Expect.equal (set (List.map fst shown) - keys) Set.empty "rows without an option"

        for key, name in shown do
            let name = name.Replace("{key}", key)
            Expect.isTrue (tests.Contains name) $"{key}: there is no test \"{name}\""
    }

/// `others`: all tests but these.
let tests (others: Test list) =
    let own = testSequenced (testList "Client keys" kernel)
    testSequenced (testList "Client keys" (everyKey (own :: others) :: kernel))

/// What the client decides about signals, and the sentences in which it ends.
module Lightway.Tests.ClientHostTests

open System
open System.Net
open System.Security.Cryptography
open System.Security.Cryptography.X509Certificates
open System.Text
open Expecto
open Lightway.Client
open Lightway.Client.Sessions
open Lightway.Hosting
open Lightway.Options
open Lightway.Protocol
open Lightway.Tunnel.Aead
open Lightway.Tunnel.Packets
open Microsoft.Extensions.Logging.Abstractions
open Lightway.Tests.OptionRuns

let private signals =
    testList
        "signals"
        [ test "proc_pid_stat(5): field 7 is the controlling terminal; a program's name may contain anything" {
              for stat, expected in
                  [ "12 (lightway-client) S 1 12 12 34816 12 4194304 1", true
                    "12 (lightway-client) S 1 12 12 0 -1 4194304 1", false
                    "12 (a) S 1 1 1 34816 (b) S 1 12 12 0 -1 4194304 1", false
                    "12 (a 0 0 0 0 0) R 1 12 12 1025 -1", true
                    "12 (a) S 1", false
                    "", false ] do
                  Expect.equal (StopSignals.HasTerminalIn stat) expected stat
          }

          test "proc_pid_status(5): bit 0 of SigIgn is SIGHUP" {
              for status, expected in
                  [ "Name:\tx\nSigIgn:\t0000000000001001\nSigCgt:\t0000000000000000\n", true
                    "Name:\tx\nSigIgn:\t0000000000001000\nSigCgt:\t0000000000000001\n", false
                    "Name:\tSigIgn: 1\nSigIgn:\t0000000000000000\n", false
                    "SigIgn:\tx\n", false
                    "", false ] do
                  Expect.equal (StopSignals.IsIgnoredIn(status, 1)) expected status
          } ]

let private options =
    run (client [] [] (leastClient + "server_dn: vpn.example.com\n"))

let private server = IPEndPoint(IPAddress.Parse "192.0.2.1", 27690)

let private ending reason stage tls =
    Ending(server, reason, stage, 13_400L, tls)

let private refused refusal =
    Ending(server, TunnelError.Unauthorized, Stage.LinkUp, 13_400L, "none", Refusal = refusal)

let private expired =
    "ASN date error, current date is after expiration (wolfSSL error -151)"

let private early =
    "ASN date error, current date is before start (wolfSSL error -150)"

let private texts =
    testList
        "texts"
        [ for reason, stage, tls, parts in
              [ TunnelError.TimedOut, Stage.Silent, "none", [ "server: no answer"; "within 13 s"; "port"; "firewall" ]
                TunnelError.TimedOut, Stage.Answered, "none", [ "server: "; "handshake"; "outside_mtu" ]
                TunnelError.TimedOut, Stage.LinkUp, "none", [ "server: "; "login"; "try again" ]
                TunnelError.TimedOut, Stage.Online, "none", [ "server: "; "keepalive_timeout"; "network" ]
                TunnelError.Unauthorized,
                Stage.LinkUp,
                "none",
                [ "user: "; options.User; "password"; "no free address"; "ip_pool"; options.ConfigFile ]
                TunnelError.NoFreeClientIp,
                Stage.LinkUp,
                "none",
                [ "no address left at"; options.User; "ip_pool"; "try again" ]
                TunnelError.TlsNameMismatch,
                Stage.Answered,
                "none",
                [ "server_dn: "; "vpn.example.com"; "subjectAltName" ]
                TunnelError.TlsCaMissing, Stage.Answered, "none", [ "ca_cert: "; options.CaCert; "authority" ]
                TunnelError.TlsOther, Stage.Answered, expired, [ "certificate"; "expired"; "renew"; "clock" ]
                TunnelError.TlsOther, Stage.Answered, early, [ "certificate"; "not valid yet"; "clock" ]
                TunnelError.TlsFatalAlert, Stage.Answered, "alert 40", [ "handshake"; "alert 40"; "cipher"; "keyshare" ]
                TunnelError.RejectedSession, Stage.Online, "none", [ "session"; "start the client again" ]
                TunnelError.Goodbye, Stage.Online, "none", [ "has ended the connection"; "log" ]
                TunnelError.TlsPeerClosed, Stage.LinkUp, "none", [ "before the login"; "log" ]
                TunnelError.InvalidInsideIpConfig, Stage.LinkUp, "none", [ "log" ] ] do
              test $"{reason} when {stage} ({tls}) names the address, the cause, the remedy and the reason" {
                  let text = EndingText.Of(options, [| ending reason stage tls |], [||])

                  for part in "192.0.2.1:27690" :: $"({reason})" :: parts do
                      Expect.stringContains text part text

                  Expect.isFalse (text.Contains options.Password) "not the password"
              }

          for refusal, parts, absent in
              [ AuthRefusal.Credentials, [ "wrong user or password"; options.User; options.ConfigFile ], "ip_pool"
                AuthRefusal.Unspecified, [ "password"; "no free address"; options.ConfigFile ], "wrong user or" ] do
              test $"Unauthorized ({refusal}) says as much as the server does" {
                  let text = EndingText.Of(options, [| refused refusal |], [||])

                  for part in "192.0.2.1:27690" :: "(Unauthorized)" :: parts do
                      Expect.stringContains text part text

                  Expect.isFalse (text.Contains absent) text
                  Expect.isFalse (text.Contains options.Password) "not the password"
              }

          test "a password of a file: the file is named, not the client's own" {
              let yaml =
                  leastClient.Replace("password: secret", "password_file: /etc/lightway/password")

              let options = run (client [] [] yaml)
              let text = EndingText.Of(options, [| refused AuthRefusal.Credentials |], [||])
              Expect.stringContains text "/etc/lightway/password (password_file)" text
          }

          test "a refused certificate that cannot be read is no obstacle, and control characters in names are not shown" {
              let text (certificate: byte[]) =
                  let certificate = ReadOnlyMemory<byte> certificate

                  let ending =
                      Ending(server, TunnelError.TlsOther, Stage.Answered, 9L, expired, Certificate = certificate)

                  EndingText.Of(options, [| ending |], [||])

              Expect.stringContains (text [| 0x30uy; 3uy; 1uy |]) "or one above it, has expired" "no certificate"
              use key = ECDsa.Create ECCurve.NamedCurves.nistP256
              let name = X500DistinguishedName "CN=\"a\u001b[2Jb\""

              let day year =
                  DateTimeOffset(year, 2, 3, 4, 5, 6, TimeSpan.Zero)

              use certificate =
                  CertificateRequest(name, key, HashAlgorithmName.SHA256).CreateSelfSigned(day 2001, day 2002)

              let text = text certificate.RawData
              Expect.stringContains text "the certificate of 192.0.2.1:27690 expired on 2002-02-03" text
              Expect.isFalse (Seq.exists Char.IsControl text) text
          }

          test "of several addresses each is named with its cause, one without a route too" {
              let other =
                  Ending(
                      IPEndPoint(IPAddress.Parse "2001:db8::1", 27690),
                      TunnelError.TlsCaMissing,
                      Stage.Answered,
                      9L,
                      "none"
                  )

              let text =
                  EndingText.Of(
                      options,
                      [| other; ending TunnelError.TimedOut Stage.Silent "none" |],
                      [| "2001:db8::2" |]
                  )

              for part in
                  [ "vpn.example.com:27690"
                    "[2001:db8::1]:27690"
                    "192.0.2.1:27690"
                    "2001:db8::2"
                    "firewall"
                    "(TimedOut)" ] do
                  Expect.stringContains text part text
          }

          test "a connection that was online names its own address only" {
              let text =
                  EndingText.Of(
                      options,
                      [| ending TunnelError.TimedOut Stage.Silent "none"
                         Ending(
                             IPEndPoint(IPAddress.Parse "192.0.2.7", 27690),
                             TunnelError.Goodbye,
                             Stage.Online,
                             9L,
                             "none"
                         ) |],
                      [||]
                  )

              Expect.stringContains text "192.0.2.7:27690" text
              Expect.isFalse (text.Contains "192.0.2.1:") text
          } ]

let private settings =
    testList
        "settings"
        [ test "a connection gets what the options say" {
              let pem = TestCertificate.authority |> Encoding.ASCII.GetString

              let settings (keys: string list) =
                  let inlined =
                      pem.Replace("\r", "").Split '\n' |> Array.map ((+) "  ") |> String.concat "\n"

                  let yaml = leastClient + $"ca_cert: |\n{inlined}\n" + String.concat "\n" keys

                  let login =
                      ClientHost.LoginOf(run (client [] [] yaml), null, PacketAeads.WolfCrypt, NullLogger.Instance)

                  use _ = login.Tls
                  login.CreateSettings.Invoke()

              let plain = settings []

              for key, change in
                  [ "outside_mtu: 1400", (fun (o: ConnectionSettings) -> o.OutsideMtu = 1400)
                    "enable_pmtud: true", _.EnablePathMtu
                    "pmtud_base_mtu: 1200", (fun o -> o.PathMtuBase = 1200)
                    "copy_ecn: false", (fun o -> o.CopiedTos = 0uy)
                    "copy_dscp: true", (fun o -> o.CopiedTos = 255uy)
                    "enable_expresslane: true", _.EnableExpresslane
                    "expresslane_keys_rotation_interval: 5m", (fun o -> o.ExpresslaneRotationMs = 300_000L)
                    "keepalive_interval: 3s", (fun o -> o.KeepaliveIntervalMs = 3_000L)
                    "keepalive_timeout: 9s", (fun o -> o.KeepaliveTimeoutMs = 9_000L)
                    "keepalive_continuous: false", (fun o -> not o.KeepaliveContinuous) ] do
                  Expect.isFalse (change plain) $"{key} is not the default"
                  Expect.isTrue (change (settings [ key ])) key
          } ]

let tests = testList "Client host" [ signals; texts; settings ]

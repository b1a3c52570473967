/// What the client decides about signals, and the sentences in which it ends.
module Lightway.Tests.ClientHostTests

open System.Net
open Expecto
open Lightway.Client
open Lightway.Hosting
open Lightway.Options
open Lightway.Protocol
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

let private ending reason stage tls =
    Ending(IPEndPoint(IPAddress.Parse "192.0.2.1", 27690), reason, stage, 13_400L, tls)

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

let tests = testList "Client host" [ signals; texts ]

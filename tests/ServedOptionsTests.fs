/// Options whose effect is in the start itself: a file with every key of other servers, and an address that comes late.
module Lightway.Tests.ServedOptionsTests

open System
open System.IO
open System.Net
open System.Net.Sockets
open Expecto
open Lightway.Hosting
open Lightway.Hosting.Start
open Lightway.Lab
open Lightway.Tests.Checks
open Lightway.Tests.OptionRuns

/// Keys of the reference server that the set-up does not have anyway, with values that differ from the defaults.
let private referenceKeys (offload: bool) =
    [ "randomize_ippool", "false"
      "expresslane_keys_rotation_interval", "1h"
      "key_update_interval", "1h 30m"
      "enable_pqc", "true"
      "connection_age_expiration_interval", "30s"
      "statistics_reporting_interval", "1m"
      "udp_buffer_size", "1 MiB"
      "enable_batch_receive", "true"
      "enable_batch_send", (if offload then "false" else "true")
      "enable_tun_iouring", "true"
      "iouring_entry_count", "512"
      "iouring_sqpoll_idle_time", "0s"
      "log_format", "full"
      "accept_unknowns", "false"
      "tls_debug", "true"
      "proxy_protocol", "false"
      "bind_attempts", "3" ]

let private served (offload: bool) =
    test $"a server with every key of the reference serves, and warns about none (offload: {offload})" {
        needsRoot ()
        use topology = Topology.Create 1

        use vpn =
            new Vpn(
                topology,
                Programs.OfThisBuild(),
                { Expresslane = true
                  Offload = offload
                  ServerKeys = referenceKeys offload
                  ClientKeys = [ "enable_batch_receive", "true"; "enable_tun_iouring", "true" ] }
            )

        let check =
            Shell.run
                (Programs.OfThisBuild().Server)
                [ "--check-config"; "-c"; Path.Combine(vpn.Folder, "server.yaml") ]

        Expect.stringContains check "iouring_entry_count: 512   # " "the check passes"
        vpn.Start()

        for program in [ vpn.Server; vpn.Client ] do
            let how =
                if offload then
                    "each read brings up to 64 KiB"
                else
                    "each read brings one packet"

            expectAll program.Log [ "INFO"; "enable_tun_iouring: this build reads the TUN by read(2)"; how ]

        for line in vpn.Server.Log.Split '\n' do
            Expect.isFalse (line.Contains "no effect" || line.Contains "not served") line
    }

let private late =
    testList
        "bind_attempts"
        [ test "an address that becomes free is bound, and each failure is a warning" {
              use warnings = new StringWriter()
              let log = WarningLog warnings

              let taken = new UdpClient(IPEndPoint(IPAddress.Loopback, 0))

              let address = taken.Client.LocalEndPoint :?> IPEndPoint
              let waits = ResizeArray<TimeSpan>()

              let wait (time: TimeSpan) =
                  waits.Add time

                  if waits.Count = 2 then
                      taken.Dispose()

              let bind () =
                  try
                      new UdpClient(address)
                  with :? SocketException as error ->
                      raise (IOException error.Message)

              use bound = Retry.Bind(5, Func<_> bind, Action<_> wait, log)
              Expect.equal (bound.Client.LocalEndPoint :?> IPEndPoint) address "bound"
              Expect.equal (List.ofSeq waits) [ TimeSpan.FromSeconds 1L; TimeSpan.FromSeconds 1L ] "pauses"
              expectAll (string warnings) [ "attempt 1 of 5"; "attempt 2 of 5"; "bind_attempts"; "in use" ]
          }

          test "the last attempt fails with the reason, without a pause behind it" {
              use warnings = new StringWriter()
              let calls = ref 0
              let pauses = ref 0

              let bind () : int =
                  calls.Value <- calls.Value + 1
                  raise (IOException $"call {calls.Value}")

              let attempt () =
                  Retry.Bind(3, Func<_> bind, Action<_>(fun _ -> pauses.Value <- pauses.Value + 1), WarningLog warnings)
                  |> ignore

              Expect.throwsC attempt (fun error -> Expect.equal error.Message "call 3" "the last reason")
              Expect.equal (calls.Value, pauses.Value) (3, 2) "calls and pauses"
          }

          test "a server whose port stays in use tries as often as it is told, over UDP and TCP" {
              needsRoot ()

              /// A port of both; that of UDP may be somebody's of TCP.
              let rec take attempts =
                  let udp = new UdpClient(IPEndPoint(IPAddress.Loopback, 0))
                  let port = (udp.Client.LocalEndPoint :?> IPEndPoint).Port
                  let tcp = new TcpListener(IPAddress.Loopback, port)

                  try
                      tcp.Start()
                      udp, tcp, port
                  with :? SocketException when attempts > 1 ->
                      udp.Dispose()
                      tcp.Dispose()
                      take (attempts - 1)

              let udp, tcp, port = take 20
              use _udp = udp
              use _tcp = tcp
              let parent = Directory.CreateTempSubdirectory "lightway-tests-"

              try
                  let directory = Path.Combine(parent.FullName, "set-up")
                  let server = Programs.OfThisBuild().Server
                  Shell.run server [ "init"; directory ] |> ignore

                  for mode in [ "udp"; "tcp" ] do
                      let struct (code, output, _) =
                          Shell.tryRun
                              server
                              [ "--config-file"
                                Path.Combine(directory, "server.yaml")
                                $"--mode={mode}"
                                "--enable-expresslane=false"
                                $"--bind-address=127.0.0.1:{port}"
                                "--tun-name=lwlate"
                                "--bind-attempts=2" ]

                      Expect.equal code 1 output
                      expectAll output [ "attempt 1 of 2 (bind_attempts)"; "Address already in use" ]
              finally
                  parent.Delete true
          } ]

let tests: Test = testList "Served options" [ served true; served false; late ]

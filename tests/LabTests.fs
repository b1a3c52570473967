/// The lab with programs of another implementation, which are scripts here.
module Lightway.Tests.LabTests

open System
open System.IO
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

/// Says that it knows two keys; started, it fails with one line and a long backtrace.
let private script =
    """#!/bin/sh
if [ "$1" = --help ]; then
    echo "  --config-file <FILE>"
    echo "  --tun-name <NAME>"
    echo "  --log-level <LEVEL>"
    exit 0
fi
echo "starting"
echo "Error: the file lacks a key"
for frame in $(seq 1 40); do echo "  $frame: some::frame"; done
exit 3
"""

let private withOther (body: Vpn -> unit) =
    needsRoot ()
    use topology = Topology.Create()
    let other = Path.Combine(topology.Folder, "other")
    File.WriteAllText(other, script)
    Shell.run "chmod" [ "755"; other ] |> ignore

    let settings: Settings =
        { Expresslane = true
          Offload = true
          ServerKeys = []
          ClientKeys = [] }

    use vpn = new Vpn(topology, { Server = other; Client = other }, settings)
    body vpn

let private keys (vpn: Vpn) name =
    [ for line in File.ReadAllLines(Path.Combine(vpn.Folder, name)) do
          if line <> "" && not (line.StartsWith '#') then
              (line.Split ':')[0] ]

let tests: Test =
    testSequenced (
        testList
            "Lab"
            [ test "another program gets the keys that its help page names, and those that every implementation needs" {
                  withOther (fun vpn ->
                      let needed =
                          [ "server"; "mode"; "ca_cert"; "user"; "password"; "tun_name"; "log_level" ]

                      Expect.equal (set (keys vpn "client.yaml")) (set needed) "client.yaml"

                      let needed =
                          [ "mode"; "bind_address"; "server_cert"; "server_key"; "user_db"; "tun_name"; "log_level" ]

                      Expect.equal (set (keys vpn "server.yaml")) (set needed) "server.yaml")
              }

              test "of a program that ended, the first error and the end of its log are shown" {
                  withOther (fun vpn ->
                      vpn.LaunchClient()
                      Expect.isTrue (vpn.Client.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"

                      let message =
                          Expect.throwsC
                              (fun () -> vpn.Client.Await (TimeSpan.FromSeconds 1.) "it serves" (fun () -> false))
                              _.Message

                      Expect.stringContains message "exit code 3" "how it ended"
                      Expect.stringContains message "Error: the file lacks a key" "the first error"
                      Expect.stringEnds message "  40: some::frame" "the end"
                      Expect.isFalse (message.Contains "  2: some::frame") "not all between")
              } ]
    )

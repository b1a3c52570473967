/// Logins other than by password file, with both programs. Needs root.
module Lightway.Tests.LoginEndToEndTests

open System
open System.IO
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private withVpn (body: Topology -> Vpn -> unit) =
    needsRoot ()

    let settings =
        { Expresslane = true
          Offload = true
          ServerKeys = []
          ClientKeys = [] }

    use topology = Topology.Create()
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

let private path (vpn: Vpn) name = Path.Combine(vpn.Folder, name)

/// A program that the server accepts: nobody else can write to it.
let private program (vpn: Vpn) (script: string) =
    let file = path vpn "ask"
    File.WriteAllText(file, "#!/bin/sh\n" + script)
    File.SetUnixFileMode(file, enum<UnixFileMode> 0o755)
    file

let private useTokens (vpn: Vpn) =
    File.WriteAllText(path vpn "token.pem", (Jwt.a ()).ExportSubjectPublicKeyInfoPem())
    vpn.SetServer [ "user_db", ""; "token_rsa_pub_key_pem", path vpn "token.pem" ]

let private logIn (vpn: Vpn) (token: string) =
    vpn.SetClient [ "user", ""; "password", ""; "token", token ]

let tests =
    testSequenced (
        testList
            "LoginsEndToEnd"
            [ test "a client with a token gets through, at a server without users; the log names its subject" {
                  withVpn (fun topology vpn ->
                      useTokens vpn
                      logIn vpn (Jwt.ofUser (Jwt.a ()) "alice@example.com" 600L)
                      vpn.Start()
                      vpn.Server.AwaitLog "user 'alice@example.com', inside address" "the line"
                      Expect.equal (vpn.Read().Counters["auth_token_checks"]) 1L "one check"

                      let transfer =
                          Transfer.download
                              { Netns = topology.RemoteHost
                                Address = Topology.Remote }
                              topology.Client
                              (megabytes 20L)

                      expectIntact transfer (megabytes 20L))
              }

              test "a token that has expired is refused; the client says that it was the token" {
                  withVpn (fun _ vpn ->
                      useTokens vpn
                      logIn vpn (Jwt.ofUser (Jwt.a ()) "alice" -600L)
                      vpn.StartServer()
                      vpn.LaunchClient()
                      Expect.isTrue (vpn.Client.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
                      Expect.equal vpn.Client.ExitCode 3 "code"
                      vpn.Client.AwaitLog "token: 192.0.2.1:27690 refuses the token" "its log"
                      vpn.Server.AwaitLog "a token is not accepted: it expired" "the server's log")
              }

              test
                  "auth_command lets the users in that the file does not have, and address_map gives them their addresses" {
                  withVpn (fun topology vpn ->
                      let ask = program vpn "read u; read p; [ \"$u\" = bob ] && [ \"$p\" = builder ]\n"
                      File.WriteAllText(path vpn "map.yaml", "bob:\n  address: 10.125.9.9\n")
                      vpn.SetServer [ "auth_command", ask; "address_map", path vpn "map.yaml" ]
                      vpn.StartServer()
                      use own = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (own.Connect()) "the user of the file"
                      vpn.SetClient [ "user", "bob"; "password", "builder" ]
                      vpn.StartClient()
                      vpn.AwaitOnline()
                      vpn.Server.AwaitLog "user 'bob', inside address 10.125.9.9" "the line"
                      Expect.equal (vpn.Read().Counters["auth_command_checks"]) 1L "one question")
              }

              for name, keys, file, text, parts in
                  [ "a file that is no key",
                    "token_rsa_pub_key_pem",
                    "token.pem",
                    "hello\n",
                    [ "token_rsa_pub_key_pem"; "no public key" ]
                    "a map with an address outside the pool",
                    "address_map",
                    "map.yaml",
                    "bob: {address: 192.0.2.1}\n",
                    [ "address_map"; "ip_pool"; "map.yaml:1" ]
                    "a command that can't be run", "auth_command", "ask", "#!/bin/sh\n", [ "auth_command"; "chmod +x" ] ] do
                  test $"the server does not start with {name}" {
                      withVpn (fun _ vpn ->
                          File.WriteAllText(path vpn file, text)
                          vpn.SetServer [ keys, path vpn file ]
                          vpn.LaunchServer()
                          Expect.isTrue (vpn.Server.WaitForExit(TimeSpan.FromSeconds 60.)) "it ends"
                          Expect.equal vpn.Server.ExitCode 2 "code"

                          for part in parts do
                              vpn.Server.AwaitLog part "the line")
                  } ]
    )

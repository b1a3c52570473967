/// SIGHUP at the real server. Needs root.
module Lightway.Tests.ReloadEndToEndTests

open System
open System.IO
open System.Threading
open System.Threading.Tasks
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private patience = TimeSpan.FromSeconds 60.

let private withVpn (keys: (string * string) list) (body: Topology -> Vpn -> unit) =
    needsRoot ()

    let settings =
        { Expresslane = not (List.contains ("mode", "tcp") keys)
          Offload = true
          ServerKeys = keys
          ClientKeys = keys |> List.filter (fun (key, _) -> key = "mode") }

    use topology = Topology.Create()
    use vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    body topology vpn

let private path (vpn: Vpn) name = Path.Combine(vpn.Folder, name)

let private occurrences (text: string) (part: string) = text.Split(part).Length - 1

/// Sends SIGHUP and waits for one more line with this part.
let private hangUp (vpn: Vpn) (part: string) =
    let before = occurrences vpn.Server.Log part
    vpn.Server.Signal Netns.Signal.Hangup
    vpn.Server.Await patience $"it says {part}" (fun () -> occurrences vpn.Server.Log part > before)

let private reload (vpn: Vpn) = hangUp vpn " reloaded: "

let private refuse (vpn: Vpn) (parts: string list) =
    hangUp vpn "not reloaded, nothing has changed: "

    let line () =
        vpn.Server.Log.Split '\n' |> Array.findBack _.Contains("not reloaded")

    // A long line is not written in one piece.
    let isWhole () =
        parts |> List.forall (fun part -> (line ()).Contains part)

    Wait.until patience isWhole |> ignore

    for part in parts do
        Expect.stringContains (line ()) part "the line"

let private counter (vpn: Vpn) name = vpn.Read().Counters[name]

let private remote (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

/// Another authority, with a server's certificate of it, in the place of those of the set-up.
let private changeCertificate (vpn: Vpn) =
    let folder = path vpn "other"
    Shell.run (Programs.OfThisBuild().Server) [ "init"; folder ] |> ignore

    for name in [ "server.crt"; "server.key"; "ca_cert.crt" ] do
        File.Move(Path.Combine(folder, name), path vpn name, overwrite = true)

    Directory.Delete(folder, true)

/// Runs the body with another text in the place of a file's.
let private withText (file: string) (text: string) (body: unit -> unit) =
    let before = File.ReadAllText file
    File.WriteAllText(file, text)
    body ()
    File.WriteAllText(file, before)

let tests =
    testSequenced (
        testList
            "ReloadEndToEnd"
            [ test "ten reloads during a download: it arrives as it was sent, and never stops for 100 ms" {
                  withVpn [] (fun topology vpn ->
                      vpn.Start()

                      let attempt () =
                          use over = new CancellationTokenSource()

                          let reloads =
                              Task.Run(fun () ->
                                  Thread.Sleep 200
                                  let mutable count = 0

                                  while not over.IsCancellationRequested do
                                      reload vpn
                                      count <- count + 1
                                      Thread.Sleep 200

                                  count)

                          let result =
                              Transfer.pacedDownload (remote topology) topology.Client (megabytes 150L) 40_000_000u

                          over.Cancel()
                          expectIntact result (megabytes 150L)
                          reloads.Result, result.LongestWait.TotalMilliseconds

                      let isGood (count, wait) = count >= 5 && wait < 100.

                      // The machine may hold a download or the reloads up by itself: there are several tries.
                      let rec outcomes left =
                          let outcome = attempt ()

                          if isGood outcome || left = 1 then
                              [ outcome ]
                          else
                              outcome :: outcomes (left - 1)

                      let outcomes = outcomes 8
                      Expect.exists outcomes isGood $"reloads, and ms without a byte: %A{outcomes}"
                      Expect.equal (counter vpn "conn_closed") 0L "nobody was disconnected")
              }

              test "whatever file is wrong, a reload is refused in one line, and the server goes on as before" {
                  withVpn [] (fun topology vpn ->
                      File.WriteAllText(path vpn "token.pem", (Jwt.a ()).ExportSubjectPublicKeyInfoPem())
                      File.WriteAllText(path vpn "rules.yaml", "bob:\n  address: 10.125.9.9\n")
                      File.WriteAllText(path vpn "map.yaml", "192.0.2.1: 10.125.8.0/24\n")

                      vpn.SetServer
                          [ "token_rsa_pub_key_pem", path vpn "token.pem"
                            "address_map", path vpn "rules.yaml"
                            "ip_map", path vpn "map.yaml"
                            "log_level", "debug" ]

                      vpn.StartServer()

                      for file, text, parts in
                          [ "server.yaml", "mode: [\n", [ "server.yaml" ]
                            "server.yaml", File.ReadAllText(path vpn "server.yaml") + "nonsense: 1\n", [ "nonsense" ]
                            "server.yaml",
                            File.ReadAllText(path vpn "server.yaml").Replace("log_level: debug", "log_level: loud"),
                            [ "log_level"; "loud" ]
                            "server.crt", "no certificate\n", [ "server_cert" ]
                            "server.key", "no key\n", [ "server_key" ]
                            "server.key", File.ReadAllText(path vpn "ca.key"), [ "server_key" ]
                            "users.htpasswd", "me\n", [ "user_db"; "line 1" ]
                            "token.pem", "no key\n", [ "token_rsa_pub_key_pem" ]
                            "rules.yaml", "bob:\n  address: 192.0.2.1\n", [ "address_map"; "rules.yaml:1" ]
                            "map.yaml", "192.0.2.1: x\n", [ "ip_map"; "map.yaml:1" ] ] do
                          withText (path vpn file) text (fun () -> refuse vpn parts)

                      let key = path vpn "server.key"
                      File.SetUnixFileMode(key, enum<UnixFileMode> 0o644)
                      refuse vpn [ "server_key"; "chmod" ]
                      File.SetUnixFileMode(key, enum<UnixFileMode> 0o600)
                      File.Move(path vpn "users.htpasswd", path vpn "users.away")
                      refuse vpn [ "user_db"; "does not exist" ]

                      // Everything is as it was: the user of the file that is away gets in.
                      use client = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (client.Connect()) "a login"
                      vpn.Server.AwaitLog "link up with" "log_level is still debug"
                      File.Move(path vpn "users.away", path vpn "users.htpasswd")
                      reload vpn

                      Expect.stringContains
                          vpn.Server.Log
                          " reloaded: server_cert, server_key, user_db, token_rsa_pub_key_pem, address_map, limits, log_level"
                          "what was read")
              }

              test "another certificate is for new handshakes; a session goes on, also with new keys" {
                  withVpn [ "key_update_interval", "1s" ] (fun topology vpn ->
                      vpn.Start()
                      let updates () = counter vpn "key_update_complete"
                      Expect.isTrue (Wait.until patience (fun () -> updates () > 0L)) "keys are updated"
                      use before = new RawClient(topology.Client, 40000, vpn) // trusts the authority of the start
                      changeCertificate vpn
                      reload vpn
                      before.Connection.Start Environment.TickCount64

                      let isRefused () =
                          before.Connection.State = Lightway.Protocol.ConnectionState.Disconnected

                      Expect.isTrue
                          (before.RunUntil(patience, isRefused))
                          "the new certificate is not of its authority"

                      use after = new RawClient(topology.Client, 40001, vpn)
                      Expect.isTrue (after.Connect()) "a client with the new authority"
                      let known = updates ()
                      let goesOn () = updates () > known + 1L
                      Expect.isTrue (Wait.until patience goesOn) "keys are updated as before"

                      expectIntact
                          (Transfer.download (remote topology) topology.Client (megabytes 20L))
                          (megabytes 20L)

                      Expect.isFalse vpn.Client.HasExited "the session from before")
              }

              test "another certificate is for new TCP connections, too" {
                  withVpn [ "mode", "tcp" ] (fun topology vpn ->
                      vpn.Start()
                      changeCertificate vpn
                      reload vpn

                      expectIntact
                          (Transfer.download (remote topology) topology.Client (megabytes 10L))
                          (megabytes 10L)

                      Expect.isTrue (vpn.Client.Stop()) "the first client"
                      vpn.StartClient() // with the new authority
                      vpn.AwaitOnline())
              }

              test "users, limits and the log level are read again; what needs a restart is named" {
                  withVpn [] (fun topology vpn ->
                      vpn.StartServer()
                      use first = new RawClient(topology.Client, 40000, vpn)
                      Expect.isTrue (first.Connect()) "first"
                      Expect.isFalse (vpn.Server.Log.Contains "link up with") "no line of debug"
                      let users = File.ReadAllText(path vpn "users.htpasswd")
                      let other = users.Replace("lightway:", "other:")

                      // The user is gone, and the session stays.
                      File.WriteAllText(path vpn "users.htpasswd", other)
                      vpn.SetServer [ "log_level", "debug"; "workers", "1"; "ip_pool", "10.125.0.0/17" ]
                      reload vpn

                      Expect.stringContains
                          vpn.Server.Log
                          "need a restart: ip_pool, workers; all others are reloaded"
                          "named"

                      Expect.equal (counter vpn "conn_closed") 0L "the session stays"
                      use refused = new RawClient(topology.Client, 40001, vpn)
                      Expect.isFalse (refused.Connect()) "its user does not get in any more"
                      vpn.Server.AwaitLog "link up with" "lines of debug"
                      vpn.Server.AwaitLog "refused: wrong user or password" "why"

                      // Now it ends.
                      vpn.SetServer [ "end_removed_users", "true"; "sessions_per_user", "1" ]
                      reload vpn
                      Expect.equal (counter vpn "conn_user_removed") 1L "ended"
                      vpn.Server.AwaitLog "its user is no longer in user_db" "a line"

                      // The user is back, with a limit.
                      File.WriteAllText(path vpn "users.htpasswd", users)
                      vpn.SetServer [ "log_level", "debug"; "end_removed_users", "false" ]
                      reload vpn
                      vpn.SetServer [ "log_level", "warn" ] // its own line is not written any more
                      // The second one begins when the first one is over.
                      hangUp vpn "need a restart: "
                      hangUp vpn "need a restart: "
                      let lines = occurrences vpn.Server.Log "online, "
                      use second = new RawClient(topology.Client, 40002, vpn)
                      Expect.isTrue (second.Connect()) "second"
                      use third = new RawClient(topology.Client, 40003, vpn)
                      Expect.isTrue (third.Connect()) "third"
                      let isReplaced () = counter vpn "conn_replaced" >= 1L
                      Expect.isTrue (Wait.until patience isReplaced) "the older one ends, at another worker perhaps"
                      Expect.equal (counter vpn "conn_replaced") 1L "one session"
                      Expect.equal (occurrences vpn.Server.Log "online, ") lines "no line below warn")
              } ]
    )

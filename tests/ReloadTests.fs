/// What a reload changes, and what it leaves alone, at a server in memory; and which options it takes over.
module Lightway.Tests.ReloadTests

open System
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Protocol
open Lightway.Server.Auth
open Lightway.Server.Reload
open Lightway.Tunnel.Metrics
open Lightway.Tunnel.Tls
open Lightway.Tests.OptionRuns
open Lightway.Tests.Sites

let private hashOf (password: string) =
    LibCrypt.Hash(ReadOnlySpan(Text.Encoding.UTF8.GetBytes password), "$1$salt$")

/// An identity that differs from a site's in what is named.
let private identity (halfOpen: int) (sessions: int) (endsRemoved: bool) (file: string) =
    new ServerIdentity(
        Tls = TlsContext.ForServer(TestCertificate.authority, TestCertificate.key, false),
        Authenticator = Authenticator.Of(file, null, null, 1),
        LoginChecks = 1,
        Limits = UserLimits(sessions, 86_400_000L, []),
        HandshakesPerSource = 10,
        HalfOpenLimit = halfOpen,
        EndsRemovedUsers = endsRemoved
    )

/// A password file.
let private file (users: (string * string) list) =
    String.concat "\n" [ for user, password in users -> $"{user}:{hashOf password}" ]

let private users = file [ "me", "secret"; "you", "secret" ]

let private host (number: int) = at $"198.51.100.{number}" 4000

let private reaches (site: Site) (guest: Guest) =
    Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
        site.RunPosted()
        guest.Pump()
        guest.Connection.State = ConnectionState.Online)

let private workers =
    testList
        "Workers"
        [ test "sessions and handshakes go on without the context that they began with; cookies stay valid" {
              use site = new Site()
              use online = new Guest(site, host 7, "secret")
              online.Reach ConnectionState.Online

              // One has a cookie and has not shown it yet; another one is in the middle of its handshake.
              use cookie = new Guest(site, host 8, "secret")
              cookie.Connection.Start cookie.End.Now

              for datagram in cookie.Take() do
                  site.Dispatch(cookie.From, datagram)

              cookie.Receive()
              let withCookie = cookie.Take()
              Expect.isNonEmpty withCookie "a ClientHello with the cookie"
              Expect.equal site.Counters[Counter.ConnCreated] 1L "nothing is kept for it"
              use middle = new Guest(site, host 9, "secret")
              middle.Connection.Start middle.End.Now

              while site.Counters[Counter.ConnCreated] = 1L do
                  for datagram in middle.Take() do
                      site.Dispatch(middle.From, datagram)

                  if site.Counters[Counter.ConnCreated] = 1L then
                      middle.Receive()

              use next = identity 4_096 0 false users
              site.Use next
              site.Identity.Tls.Dispose()

              // wolfSSL would give the memory of a freed context to the next one.
              for _ in 1..50 do
                  TlsContext.ForServer(TestCertificate.authority, TestCertificate.key, false).Dispose()

              Expect.isTrue (reaches site middle) "the handshake ends well"

              for datagram in withCookie do
                  site.Dispatch(cookie.From, datagram)

              Expect.equal site.Counters[Counter.ConnCreated] 3L "the cookie is taken"
              Expect.isTrue (reaches site cookie) "and the client gets in"
              let sent = site.Wire.Calls
              site.Dispatch(online.From, online.Ping())
              Expect.equal (site.Wire.Calls - sent) 1 "the session answers a ping"
              use fresh = new Guest(site, host 10, "secret")
              fresh.Reach ConnectionState.Online
              Expect.equal site.Counters[Counter.ConnClosed] 0L "nobody has ended"
          }

          test "other limits hold from the next client on" {
              use site = new Site()
              use first = new Guest(site, host 7, "secret")
              first.Reach ConnectionState.Online
              use second = new Guest(site, host 8, "secret")
              second.Reach ConnectionState.Online
              use next = identity 4_096 1 false users
              site.Use next
              Expect.equal site.Counters[Counter.ConnReplaced] 0L "sessions stay"
              use third = new Guest(site, host 9, "secret")
              third.Reach ConnectionState.Online
              site.RunPosted()
              Expect.equal site.Counters[Counter.ConnReplaced] 2L "as many end as are too many"
          }

          test "connections without a login beyond another limit are ended, the others are not" {
              use site = new Site()

              let silent =
                  [ for number in 1..40 do
                        let guest = new Guest(site, at $"198.51.{number}.7" 4000, null)
                        guest.Reach ConnectionState.LinkUp
                        guest ]

              use online = new Guest(site, host 7, "secret")
              online.Reach ConnectionState.Online
              use next = identity 16 0 false users
              site.Use next
              Expect.equal site.Counters[Counter.ConnGaveWay] 24L "those that have no place"
              use again = identity 16 0 false users
              site.Use again
              Expect.equal site.Counters[Counter.ConnGaveWay] 24L "the same limits again"
              Expect.equal site.Counters[Counter.ConnClosed] 24L "nobody else"

              // Each of the others still has one place: it leaves when its time is over.
              site.Advance 11_000L
              Expect.equal site.Counters[Counter.ConnStaleClosed] 16L "the others"
              silent |> List.iter (fun guest -> (guest :> IDisposable).Dispose())
          }

          test "a user who is removed while the password is checked does not get in" {
              use site = new Site()
              use guest = new Guest(site, host 7, "you", "secret")
              guest.Reach ConnectionState.Authenticating // the check has begun, and its answer waits to be looked at
              use next = identity 4_096 0 true (file [ "me", "secret" ])
              site.Desk.Use(next.Authenticator, 1)
              site.Use next

              let isOver =
                  Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
                      site.RunPosted()
                      site.Advance 1_000L
                      guest.Pump()
                      guest.End.Closed.IsSome)

              Expect.isTrue isOver "it ends"
              Expect.equal site.Counters[Counter.AuthChecks] 1L "one check"
              Expect.equal guest.End.Closed (ValueSome TunnelError.Unauthorized) "refused"
          }

          for ends in [ false; true ] do
              let verb = if ends then "end" else "stay"

              test $"sessions of users who are gone {verb}, those of all others stay" {
                  use site = new Site()
                  use me = new Guest(site, host 7, "secret")
                  me.Reach ConnectionState.Online
                  use you = new Guest(site, host 8, "you", "secret")
                  you.Reach ConnectionState.Online
                  use next = identity 4_096 0 ends (file [ "me", "other" ])
                  let desk = site.Desk
                  desk.Use(next.Authenticator, 1)
                  site.Use next
                  let ended = if ends then 1L else 0L
                  Expect.equal site.Counters[Counter.ConnUserRemoved] ended "counted"
                  Expect.equal site.Counters[Counter.ConnClosed] ended "no other"
                  let line = "closed, 198.51.100.8:4000: its user is no longer in user_db"
                  Expect.equal (site.Log |> Seq.filter _.Contains(line) |> Seq.length) (int ended) "a line"
                  use again = new Guest(site, host 9, "me", "other")
                  again.Reach ConnectionState.Online
              } ]

let private options =
    testList
        "Options"
        [ for key, value, _ in ServerOptionsTests.serverKeys do
              test $"{key} is taken over by a reload, or named as an option that needs a restart" {
                  let before = run (server [] [] least)
                  let changed = if key = "user_db" then "mode: udp\n" else least
                  let after = run (server [] [] $"{changed}{key}: {value}")
                  let merged = ServerReload.merge (before, after)
                  let named = List.ofSeq (ServerReload.needRestart (before, after))

                  if merged = after then
                      Expect.isEmpty named "nothing to name"
                  else
                      Expect.equal merged before "it stays as it is"
                      Expect.equal named [ key ] "named"
              }

          test "these are taken over" {
              let taken =
                  [ for key, value, _ in ServerOptionsTests.serverKeys do
                        let changed = if key = "user_db" then "mode: udp\n" else least

                        let before, after =
                            run (server [] [] least), run (server [] [] $"{changed}{key}: {value}")

                        if Seq.isEmpty (ServerReload.needRestart (before, after)) then
                            key ]

              Expect.containsAll
                  taken
                  [ "server_cert"
                    "server_key"
                    "user_db"
                    "token_rsa_pub_key_pem"
                    "auth_command"
                    "address_map"
                    "end_removed_users"
                    "handshakes_per_source"
                    "half_open_limit"
                    "login_checks"
                    "sessions_per_user"
                    "session_idle_limit"
                    "log_level" ]
                  ""
          }

          test "several options are named in the order of the record, and the others are taken over" {
              let before = run (server [] [] least)

              let text =
                  least + "log_level: debug\nworkers: 2\nip_pool: 10.0.0.0/24\ntun_name: other\nmode: tcp\n"

              let after = run (server [] [] (text.Replace("mode: udp\n", "")))

              Expect.equal
                  (List.ofSeq (ServerReload.needRestart (before, after)))
                  [ "mode"; "tun_name"; "ip_pool"; "workers" ]
                  "named"

              Expect.equal
                  (ServerReload.merge (before, after))
                  { before with
                      LogLevel = LogLevel.Debug }
                  "taken over"
          }

          test "parts of one option are named once, and parts of a group by themselves" {
              let before = run (server [] [] (least + "ip_map: {192.0.2.1: 10.125.1.0/24}"))

              let after =
                  run (server [ "--ip-map=/etc/map"; "--gso-max-segments=3"; "--copy-dscp" ] [] least)

              Expect.equal
                  (List.ofSeq (ServerReload.needRestart (before, after)))
                  [ "ip_map"; "copy_dscp"; "gso_max_segments" ]
                  ""
          } ]

let tests: Test = testList "Reload" [ workers; options ]

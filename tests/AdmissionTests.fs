/// What peers without a login cost, and who is let in.
module Lightway.Tests.AdmissionTests

open System
open System.Net
open System.Threading.Tasks
open Expecto
open Lightway.Protocol
open Lightway.Segmenter
open Lightway.Server.Auth
open Lightway.Tunnel.Channel
open Lightway.Tunnel.Connections
open Lightway.Tunnel.Metrics
open Lightway.Tests.Sites

/// The first datagram of a client that nobody knows.
let private hello (site: Site) =
    use guest = new Guest(site, at "203.0.113.200" 1, "secret")
    guest.Connection.Start guest.End.Now
    List.head (guest.Take())

let private linesWith (site: Site) (text: string) =
    site.Log |> Seq.filter _.Contains(text) |> Seq.length

/// Waits until all password checks so far are answered: one thread makes them, in their order.
let private awaitChecks (site: Site) =
    let reached = TaskCompletionSource()

    site.Identity.Authenticator.RunOnPool(
        Func<LoginAnswer>(fun () -> LoginAnswer(AuthVerdict.Failed, null)),
        Action<LoginAnswer>(fun _ -> reached.SetResult())
    )

    Expect.isTrue (reached.Task.Wait(TimeSpan.FromSeconds 30.)) "password checks are answered"
    site.RunPosted()

/// Lets time pass until the answer of a password check is passed on, at a tick; none passes while it is checked.
let private settle (site: Site) (guest: Guest) (isDone: unit -> bool) =
    let mutable left = 200

    while not (isDone ()) && left > 0 do
        left <- left - 1
        awaitChecks site
        site.Advance 1_000L
        guest.End.Advance 1_000L
        guest.Pump()

    isDone ()

let private strangers =
    testList
        "Strangers"
        [ test "a source gets answers to its handshakes and no more; its neighbour and other networks get theirs" {
              use site = new Site(Limits(Handshakes = 1))
              let hello = hello site

              let answersTo address count =
                  let before = site.Wire.Calls

                  for port in 1..count do
                      site.Dispatch(at address port, hello)

                  site.Wire.Calls - before

              // Eight datagrams per handshake, three seconds' worth at once.
              Expect.equal (answersTo "198.51.100.7" 1_000) 24 "one source"
              Expect.equal site.Counters[Counter.UdpStrangerOverLimit] 976L "the rest is counted"
              Expect.equal (answersTo "198.51.100.8" 3) 3 "its neighbour"
              Expect.equal (answersTo "2001:db8::1" 1_000) 24 "an IPv6 source"
              Expect.equal (answersTo "2001:db8::ffff" 1) 0 "has its /64"
              Expect.equal (answersTo "::ffff:198.51.100.7" 1) 0 "mapped into IPv6 it is the same"
              site.Advance 1_000L
              Expect.equal (answersTo "198.51.100.7" 1_000) 8 "a second later"
          }

          test "clients that start again and unknown sessions count like all strangers" {
              use site = new Site(Limits(Handshakes = 1))
              let home = at "198.51.100.7" 4000
              use guest = new Guest(site, home, "secret")
              guest.Reach ConnectionState.Online
              let hello = hello site

              for _ in 1..1_000 do
                  site.Dispatch(home, hello)

              let refused = site.Counters[Counter.UdpStrangerOverLimit]
              Expect.isGreaterThan refused 970L "from the port of a client"
              let unknown = guest.Ping()
              unknown[8] <- unknown[8] ^^^ 1uy
              site.Dispatch(at "198.51.100.7" 9, unknown)
              Expect.equal site.Counters[Counter.UdpStrangerOverLimit] (refused + 1L) "of an unknown session"
              Expect.equal guest.Connection.State ConnectionState.Online "the client stays"
          }

          test
              "what the handshake of a client that logs in has taken is given back: ten behind one address get in at once" {
              use site = new Site(Limits(Handshakes = 1))

              // Each datagram is sent three times. Without refunds, the tokens are used up after six.
              for port in 4001..4010 do
                  use guest = new Guest(site, at "198.51.100.7" port, "secret")
                  guest.Reach ConnectionState.Online

              Expect.equal site.Counters[Counter.UdpStrangerOverLimit] 0L "nothing is refused"
          }

          test "connections without a login: the greediest source's oldest gives way, and the honest one gets in" {
              use site = new Site(Limits(HalfOpen = 32, Handshakes = 0))

              let greedy =
                  [ for port in 1..40 ->
                        let guest = new Guest(site, at "198.51.100.7" port, null)
                        guest.Reach ConnectionState.LinkUp
                        guest ]

              // A sixteenth of 32 places for one address.
              Expect.equal site.Counters[Counter.ConnGaveWay] 38L "gave way"
              use honest = new Guest(site, at "203.0.113.5" 4000, "secret")
              honest.Reach ConnectionState.Online
              Expect.equal site.Counters[Counter.ConnGaveWay] 38L "nobody had to for it"
              Expect.isLessThan (linesWith site "closed without a login") 40 "few lines"
              greedy |> List.iter (fun guest -> (guest :> IDisposable).Dispose())
          }

          test "a peer that does not ask to be let in is ended after ten seconds" {
              use site = new Site()
              use silent = new Guest(site, at "198.51.100.7" 4000, null)
              silent.Reach ConnectionState.LinkUp
              site.Advance 10_000L
              Expect.equal site.Counters[Counter.ConnStaleClosed] 0L "ten seconds"
              site.Advance 1_000L
              Expect.equal site.Counters[Counter.ConnStaleClosed] 1L "later"
              Expect.equal (linesWith site "198.51.100.7:4000: closed without a login: not online in time") 1 "a line"
          } ]

let private logins =
    testList
        "Logins"
        [ test "the line of a client that is online names its user and its inside address" {
              use site = new Site(Limits(Pool = IPNetwork.Parse "10.125.0.0/29"))
              use guest = new Guest(site, at "198.51.100.7" 4000, "you", "secret")
              guest.Reach ConnectionState.Online
              Expect.equal (linesWith site "198.51.100.7:4000, user 'you', inside address 10.125.0.1") 1 "the line"
          }

          test "a refusal is answered at a tick; further attempts of the user at that source wait longer and longer" {
              use site = new Site()

              let refusals () =
                  site.Counters[Counter.ConnRejectedAccessDenied]

              use wrong = new Guest(site, at "198.51.100.7" 4000, "no")
              wrong.Reach ConnectionState.Authenticating

              let answered =
                  Lightway.Lab.Wait.until (TimeSpan.FromSeconds 1.) (fun () ->
                      site.RunPosted()
                      wrong.Pump()
                      refusals () > 0L)

              Expect.isFalse answered "not before a tick"
              Expect.isTrue (settle site wrong (fun () -> refusals () = 1L)) "at a tick"
              Expect.equal wrong.End.Closed (ValueSome TunnelError.Unauthorized) "the client knows"
              Expect.equal wrong.End.Connection.Refusal AuthRefusal.Credentials "and why"
              Expect.equal (linesWith site "refused: wrong user or password for 'me'") 1 "a line"

              for attempt in 2..5 do
                  use wrong = new Guest(site, at "198.51.100.7" (4000 + attempt), "no")
                  wrong.Reach ConnectionState.Authenticating
                  Expect.isTrue (settle site wrong (fun () -> refusals () = int64 attempt)) $"attempt {attempt}"

              // The fifth failure costs 16 s, of which a tick or two have passed.
              let putOff = site.Counters[Counter.AuthIgnoredDelay]
              use again = new Guest(site, at "198.51.100.7" 4100, "secret")
              again.Reach ConnectionState.Authenticating
              Expect.equal (site.Counters[Counter.AuthIgnoredDelay] - putOff) 1L "put off"
              use other = new Guest(site, at "198.51.100.7" 4200, "you", "secret")
              other.Reach ConnectionState.Online
              use elsewhere = new Guest(site, at "203.0.113.5" 4000, "secret")
              elsewhere.Reach ConnectionState.Online
          }

          test "as many sessions per user as the option says; the oldest one ends" {
              use site = new Site(Limits(SessionsPerUser = 1))
              use first = new Guest(site, at "198.51.100.7" 4000, "me", "secret")
              first.Reach ConnectionState.Online
              use other = new Guest(site, at "198.51.100.8" 4000, "you", "secret")
              other.Reach ConnectionState.Online
              use second = new Guest(site, at "198.51.100.9" 4000, "me", "secret")
              second.Reach ConnectionState.Online
              site.RunPosted()
              Expect.equal site.Counters[Counter.ConnReplaced] 1L "one"
              Expect.equal (linesWith site "198.51.100.7:4000: 'me' has logged in again (sessions_per_user)") 1 "a line"
          }

          test "when all addresses are in use, a client that has missed three keepalives gives way" {
              use site = new Site(Limits(Pool = IPNetwork.Parse "10.125.0.0/30"))
              use first = new Guest(site, at "198.51.100.7" 4000, "secret")
              first.Reach ConnectionState.Online
              use second = new Guest(site, at "198.51.100.8" 4000, "secret")
              second.Reach ConnectionState.Online
              site.Advance 20_000L
              site.Dispatch(second.From, second.Ping())
              second.Pump()
              site.Advance 11_000L
              use third = new Guest(site, at "198.51.100.9" 4000, "secret")
              third.Reach ConnectionState.Online
              Expect.equal (linesWith site "198.51.100.7:4000: silent, and its address is needed") 1 "the silent one"
              Expect.equal site.Counters[Counter.ConnReplaced] 1L "one"
          }

          test "when all addresses are in use by clients that are there, the next one is refused, with a warning" {
              use site = new Site(Limits(Pool = IPNetwork.Parse "10.125.0.0/30"))

              let guests =
                  [ for host in 7..8 ->
                        let guest = new Guest(site, at $"198.51.100.{host}" 4000, "secret")
                        guest.Reach ConnectionState.Online
                        guest ]

              use third = new Guest(site, at "198.51.100.9" 4000, "secret")
              third.Reach ConnectionState.Authenticating
              Expect.isTrue (settle site third (fun () -> third.End.Closed.IsSome)) "refused"
              Expect.equal third.End.Closed (ValueSome TunnelError.NoFreeClientIp) "the client knows why"
              Expect.equal (linesWith site "all 2 inside addresses are in use; enlarge ip_pool") 1 "a warning"
              guests |> List.iter (fun guest -> (guest :> IDisposable).Dispose())
          }

          test "a session ends after as long a silence as the option says" {
              use site = new Site(Limits(IdleMs = 300_000L))
              use guest = new Guest(site, at "198.51.100.7" 4000, "secret")
              guest.Reach ConnectionState.Online
              site.Advance 300_000L
              Expect.equal site.Counters[Counter.ConnAgedOut] 0L "not yet"
              site.Advance 60_001L
              Expect.equal site.Counters[Counter.ConnAgedOut] 1L "at the next sweep"
          } ]

let tests = testList "Admission" [ strangers; logins ]

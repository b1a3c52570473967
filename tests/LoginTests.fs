/// Logins by token, by a command and with an address of the user's own, at a server in memory.
module Lightway.Tests.LoginTests

open System
open System.Net
open System.Text
open Expecto
open Lightway.Lab
open Lightway.Options
open Lightway.Protocol
open Lightway.Server.Auth
open Lightway.Tunnel.Metrics
open Lightway.Tests.Sites
open Lightway.Tests.TokenTests

let private verifier () =
    new TokenVerifier(
        TokenKeys.Parse("keys", ReadOnlySpan(Encoding.ASCII.GetBytes((Jwt.a ()).ExportSubjectPublicKeyInfoPem()))),
        TimeProvider.System
    )

let private linesWith (site: Site) (text: string) =
    site.Log |> Seq.filter _.Contains(text) |> Seq.length

let private host (number: int) = at $"198.51.100.{number}" 4000

/// Waits until a check has ended, on whose thread others may have a processor for a while. No second passes meanwhile.
let private awaitCheck (site: Site) (patience: TimeSpan) : bool =
    let before = site.Counters[Counter.AuthChecks]

    Wait.until patience (fun () ->
        site.RunPosted()
        site.Counters[Counter.AuthChecks] > before)

/// Lets seconds pass at both ends until the condition holds: refusals are answered at ticks, and clients repeat requests. A
/// client gives up after 30 of them: checks, of which one may run unless a request was put off, are given time.
let private settle (site: Site) (guest: Guest) condition =
    Wait.until (TimeSpan.FromSeconds 60.) (fun () ->
        let putOff = site.Counters[Counter.AuthIgnoredDelay]
        site.RunPosted()
        site.Advance 1_000L
        guest.End.Advance 1_000L
        guest.Pump()
        let isOver = condition ()

        if not isOver && site.Counters[Counter.AuthIgnoredDelay] = putOff then
            awaitCheck site (TimeSpan.FromSeconds 0.3) |> ignore

        isOver)

/// Without a check, so that no tick has to pass.
let private refusedAtOnce (site: Site) (guest: Guest) (line: string) =
    guest.Connection.Start guest.End.Now
    let isOver () = guest.End.Closed.IsSome

    let isRefused =
        Wait.until (TimeSpan.FromSeconds 30.) (fun () ->
            site.RunPosted()
            guest.Pump()
            isOver ())

    Expect.isTrue isRefused "refused"
    Expect.equal guest.End.Closed (ValueSome TunnelError.Unauthorized) "the client knows"
    Expect.equal (linesWith site line) 1 $"the line: %A{List.ofSeq site.Log}"

let private refusedFor (reason: TunnelError) (site: Site) (guest: Guest) (line: string) =
    guest.Reach ConnectionState.Authenticating
    Expect.isTrue (awaitCheck site (TimeSpan.FromSeconds 30.)) "checked"
    Expect.isTrue (settle site guest (fun () -> guest.End.Closed.IsSome)) "refused"
    Expect.equal guest.End.Closed (ValueSome reason) "the client knows"
    Expect.equal (linesWith site line) 1 $"the line: %A{List.ofSeq site.Log}"

let private refusedWith = refusedFor TunnelError.Unauthorized

let private tokens =
    testList
        "Tokens"
        [ for name, request in
              [ "2", AuthRequest.token
                "3", (fun token -> AuthRequest.versionedToken (ProtocolVersion.V1_3, token)) ] do
              test $"a token lets its subject in, by method {name}" {
                  use site = new Site(Limits(Tokens = verifier ()))
                  use guest = new Guest(site, host 7, request (Jwt.ofUser (Jwt.a ()) "alice" 600L))
                  guest.Reach ConnectionState.Online
                  Expect.equal (linesWith site "online, 198.51.100.7:4000, user 'alice'") 1 "the line"
                  Expect.equal site.Counters[Counter.AuthTokenChecks] 1L "counted"
                  Expect.equal site.Counters[Counter.AuthChecks] 1L "among all checks"
                  use other = new Guest(site, host 8, "secret")
                  other.Reach ConnectionState.Online
                  Expect.equal site.Counters[Counter.AuthTokenChecks] 1L "a password is none"
              }

          test "a token is refused in words, counted, and put off like a wrong password" {
              use site = new Site(Limits(Tokens = verifier ()))
              let request = AuthRequest.token (Jwt.ofUser (Jwt.a ()) "alice" -600L)
              use first = new Guest(site, host 7, request)
              refusedWith site first "refused: a token is not accepted: it expired"
              Expect.equal site.Counters[Counter.ConnRejectedAccessDenied] 1L "counted"

              for port in 4002..4005 do
                  use guest = new Guest(site, at "198.51.100.7" port, request)
                  guest.Reach ConnectionState.Authenticating
                  awaitCheck site (TimeSpan.FromSeconds 0.3) |> ignore // unless it is put off
                  Expect.isTrue (settle site guest (fun () -> guest.End.Closed.IsSome)) $"port {port}"

              // The fifth failure costs 16 s, of which a tick or two have passed.
              let putOff = site.Counters[Counter.AuthIgnoredDelay]
              use again = new Guest(site, at "198.51.100.7" 4100, request)
              again.Reach ConnectionState.Authenticating
              Expect.equal (site.Counters[Counter.AuthIgnoredDelay] - putOff) 1L "put off"

              use right =
                  new Guest(site, at "198.51.100.7" 4200, AuthRequest.token (Jwt.ofUser (Jwt.a ()) "alice" 600L))

              right.Reach ConnectionState.Online

              use elsewhere =
                  new Guest(site, host 99, AuthRequest.token (Jwt.ofUser (Jwt.a ()) "alice" 600L))

              elsewhere.Reach ConnectionState.Online
          }

          test "tokens without keys, and passwords without users, are refused without a check" {
              use site = new Site()
              use guest = new Guest(site, host 7, AuthRequest.token "a.b.c")
              refusedAtOnce site guest "refused: authentication method Token is not served"
              use custom = new Guest(site, host 8, AuthRequest.custom "x"B)
              refusedAtOnce site custom "refused: authentication method Custom is not served"
              Expect.equal site.Counters[Counter.AuthChecks] 0L "no check"
          }

          test "sessions per user count tokens of one subject together, and with its password" {
              use site = new Site(Limits(Tokens = verifier (), SessionsPerUser = 1))

              use first =
                  new Guest(site, host 7, AuthRequest.token (Jwt.ofUser (Jwt.a ()) "me" 600L))

              first.Reach ConnectionState.Online

              use second =
                  new Guest(site, host 8, AuthRequest.token (Jwt.ofUser (Jwt.a ()) "me" 700L))

              second.Reach ConnectionState.Online
              site.RunPosted()
              Expect.equal site.Counters[Counter.ConnReplaced] 1L "another token"
              use third = new Guest(site, host 9, "secret")
              third.Reach ConnectionState.Online
              site.RunPosted()
              Expect.equal site.Counters[Counter.ConnReplaced] 2L "a password"
          }

          test "a session ends at the six-hour sweep after its token expired; others stay" {
              let clock = StoppedClock(Jwt.now ())
              use site = new Site(Limits(Tokens = verifier (), Clock = clock))

              let token seconds =
                  AuthRequest.token (Jwt.ofUser (Jwt.a ()) $"u{seconds}" seconds)

              use brief = new Guest(site, host 7, token 3_600L)
              brief.Reach ConnectionState.Online
              use longer = new Guest(site, host 8, token 30_000L)
              longer.Reach ConnectionState.Online
              use password = new Guest(site, host 9, "secret")
              password.Reach ConnectionState.Online

              let hours (count: float) =
                  clock.Seconds <- clock.Seconds + int64 (3600. * count)
                  site.Advance(int64 (3_600_000. * count))

              hours 5.9
              Expect.equal site.Counters[Counter.UserAuthEviction] 0L "not before the sweep"
              hours 0.2
              Expect.equal site.Counters[Counter.UserAuthEviction] 1L "the one that has expired"
              Expect.equal (linesWith site "closed, 198.51.100.7:4000: its token has expired") 1 "a line"
              hours 6.
              Expect.equal site.Counters[Counter.UserAuthEviction] 2L "the other one at the next sweep"
              Expect.equal (linesWith site "its token has expired") 2 "and no password"
          } ]

let private commands =
    let command script =
        AuthCommand([| "/bin/sh"; "-c"; script |], TimeSpan.FromSeconds 30.)

    testList
        "Commands"
        [ test "a command lets users in that the file does not have, and is counted" {
              use site =
                  new Site(Limits(Command = command "read u; read p; [ $u = alice ] && [ $p = word ]"))

              use guest = new Guest(site, host 7, "alice", "word")
              guest.Reach ConnectionState.Online
              Expect.equal (linesWith site "user 'alice'") 1 "the line"
              Expect.equal site.Counters[Counter.AuthCommandChecks] 1L "counted"
              use own = new Guest(site, host 8, "secret")
              own.Reach ConnectionState.Online
              Expect.equal site.Counters[Counter.AuthCommandChecks] 1L "the file's user is none of its"
              use wrong = new Guest(site, host 9, "alice", "other")
              refusedWith site wrong "refused: wrong user or password for 'alice'"
              Expect.equal site.Counters[Counter.AuthCommandChecks] 2L "counted"
              Expect.equal site.Counters[Counter.AuthCommandFailed] 0L "it gave its answers"
          }

          test "a command that gives no answer lets nobody in; the log says why" {
              use site = new Site(Limits(Command = command "exit 3"))
              use guest = new Guest(site, host 7, "alice", "word")
              refusedWith site guest "refused: the check of 'alice' failed: auth_command ended with 3"
              Expect.equal site.Counters[Counter.AuthCommandFailed] 1L "counted"
          }

          test "what a command can't be sent is refused and counted" {
              use site = new Site(Limits(Command = command "exit 0"))
              use guest = new Guest(site, host 7, "alice\nword", "x")
              refusedWith site guest "'alice?word' can't be asked of auth_command"
              Expect.equal site.Counters[Counter.AuthCommandUnsendable] 1L "counted"
              Expect.equal site.Counters[Counter.AuthCommandChecks] 0L "not asked"
          } ]

let private rule user (address: string) sessions idle : UserRule =
    { User = user
      Address = if isNull address then null else IPAddress.Parse address
      SessionsPerUser = sessions
      SessionIdleLimit = idle
      Where = "map.yaml:1" }

let private addresses =
    testList
        "Addresses"
        [ test "a user has the address that address_map names, and nobody else gets it" {
              let rules = [ rule "me" "10.125.0.1" (Nullable()) (Nullable()) ]
              use site = new Site(Limits(Rules = rules, Pool = IPNetwork.Parse "10.125.0.0/30"))
              use other = new Guest(site, host 7, "you", "secret")
              other.Reach ConnectionState.Online
              Expect.equal (linesWith site "user 'you', inside address 10.125.0.2") 1 "the only other one"
              use full = new Guest(site, host 8, "you", "secret")
              refusedFor TunnelError.NoFreeClientIp site full "all 1 inside addresses are in use"
              use guest = new Guest(site, host 9, "secret")
              guest.Reach ConnectionState.Online
              Expect.equal (linesWith site "user 'me', inside address 10.125.0.1") 1 "its own"
          }

          test "a second session of a user with an address takes it over from the first" {
              let rules = [ rule "me" "10.125.0.77" (Nullable()) (Nullable()) ]
              use site = new Site(Limits(Rules = rules))
              use first = new Guest(site, host 7, "secret")
              first.Reach ConnectionState.Online

              for number in 8..10 do
                  use next = new Guest(site, host number, "secret")
                  next.Reach ConnectionState.Online

              Expect.equal (linesWith site "inside address 10.125.0.77") 4 "the same each time"
              Expect.equal site.Counters[Counter.ConnReplaced] 3L "one ended each time"
              Expect.equal (linesWith site "closed, 198.51.100.7:4000: its address is for 'me'") 1 "a line"
          }

          test "limits of a user go before those of all" {
              let idle = Nullable(TimeSpan.FromSeconds 30.)

              let rules =
                  [ rule "me" null (Nullable 2) (Nullable()); rule "you" null (Nullable()) idle ]

              use site = new Site(Limits(Rules = rules, SessionsPerUser = 1, IdleMs = 3_600_000L))

              let online number user =
                  let guest = new Guest(site, host number, user, "secret")
                  guest.Reach ConnectionState.Online
                  site.RunPosted()
                  guest

              use _one = online 7 "me"
              use _two = online 8 "me"
              Expect.equal site.Counters[Counter.ConnReplaced] 0L "two are allowed"
              use _three = online 9 "me"
              Expect.equal site.Counters[Counter.ConnReplaced] 1L "three are not"
              use _four = online 10 "you"
              use _five = online 11 "you"
              Expect.equal site.Counters[Counter.ConnReplaced] 2L "as for all"
              site.Advance 61_000L
              Expect.equal site.Counters[Counter.ConnAgedOut] 1L "the one with a short idle limit"
              Expect.equal (linesWith site "closed, 198.51.100.11:4000: silent for longer") 1 "it"
          } ]

let tests: Test = testList "Logins" [ tokens; commands; addresses ]

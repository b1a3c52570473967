/// The file of address_map, and the options about who may log in.
module Lightway.Tests.UserRulesTests

open System
open System.Net
open Expecto
open Lightway.Options
open Lightway.Tests.OptionRuns

let private pool = IPNetwork.Parse "10.125.0.0/24"

let private reserved =
    [| IPAddress.Parse "10.125.0.5"; IPAddress.Parse "10.125.0.6" |]

let private parse (text: string) =
    let struct (rules, error) = UserRules.parse ("map.yaml", text)

    match error with
    | null -> Ok rules
    | error -> Error error

let private problem (text: string) =
    UserRules.problem (pool, reserved, Expect.wantOk (parse text) "parsed")

let private rules =
    testList
        "Rules"
        [ test "a user may have an address, a limit of sessions or an idle limit of its own" {
              let text =
                  "# of the office\nalice:\n  address: 10.125.0.7\n  session_idle_limit: 1h\n\"bob@example.com\":\n  sessions_per_user: 3\ncarol: { address: 10.125.0.8, sessions_per_user: 1 }\ndave: {sessions_per_user: 0, address: ~}\n"

              let rules = Expect.wantOk (parse text) ""

              Expect.equal
                  [ for rule in rules ->
                        rule.User, string rule.Address, rule.SessionsPerUser, rule.SessionIdleLimit, rule.Where ]
                  [ "alice", "10.125.0.7", Nullable(), Nullable(TimeSpan.FromHours 1.), "map.yaml:2"
                    "bob@example.com", "", Nullable 3, Nullable(), "map.yaml:5"
                    "carol", "10.125.0.8", Nullable 1, Nullable(), "map.yaml:7"
                    "dave", "", Nullable 0, Nullable(), "map.yaml:8" ]
                  ""

              Expect.isNull (problem text) "fits the pool"
          }

          test "a file without users is one" {
              for text in [ ""; "# nobody\n"; "{}" ] do
                  Expect.equal (parse text |> Result.map List.length) (Ok 0) text
          }

          for text, parts in
              [ "a:\n  address: 10.125.0.300\n", [ "a"; "address"; "10.125.0.300"; "map.yaml:2"; "IPv4" ]
                "a:\n  address: fe80::1\n", [ "fe80::1"; "map.yaml:2" ]
                "a:\n  address: [10.125.0.7]\n", [ "single value"; "map.yaml:2" ]
                "a:\n  adress: 10.125.0.7\n", [ "adress is not known"; "address, sessions_per_user"; "map.yaml:2" ]
                "a:\n  sessions_per_user: -1\n", [ "sessions_per_user"; "-1"; "map.yaml:2" ]
                "a:\n  session_idle_limit: 5\n", [ "session_idle_limit"; "units"; "map.yaml:2" ]
                "b:\n  sessions_per_user: 1\na: 10.125.0.7\n", [ "a"; "indented"; "map.yaml:3" ]
                "a:\n", [ "a: has no value"; "remove the user"; "map.yaml:1" ]
                "a: {}\n", [ "a: has no value"; "map.yaml:1" ]
                "a: {address: 10.125.0.7, sessions_per_user: 2}\n", [ "one session"; "remove sessions_per_user" ]
                "a: {address: 10.125.0.7, sessions_per_user: 0}\n", [ "one session" ]
                "\"\": {address: 10.125.0.7}\n", [ "without a name"; "map.yaml:1" ]
                "a:\n  address: 10.125.0.7\na:\n  address: 10.125.0.8\n", [ "map.yaml:3"; "a" ]
                "- a\n", [ "map.yaml:1" ]
                "a: [\n", [ "map.yaml" ] ] do
              test $"%A{text} is refused" {
                  let error = Expect.wantError (parse text) ""
                  Expect.stringStarts error "address_map: " "the option"
                  expectAll error parts
              }

          for text, parts in
              [ "10.125.1.7", [ "10.125.1.7"; "ip_pool"; "10.125.0.0/24"; "map.yaml:1" ]
                "10.125.0.0", [ "ip_pool" ]
                "10.125.0.255", [ "ip_pool" ]
                "10.125.0.5", [ "reserved"; "lightway_client_ip" ] ] do
              test $"the address {text} is none for a client" {
                  expectAll (string (problem $"a: {{address: {text}}}")) parts
              }

          test "two users do not have the same address" {
              let text =
                  "a: {address: 10.125.0.7}\nb: {sessions_per_user: 2}\nc: {address: 10.125.0.7}\n"

              expectAll (string (problem text)) [ "c: 10.125.0.7 is the address of a"; "map.yaml:1"; "map.yaml:3" ]
          }

          testProperty "any text is read or refused in one line"
          <| fun (words: int list) ->
              let parts =
                  [| "a"
                     "address"
                     ": "
                     "\n"
                     "  "
                     "10.125.0.7"
                     "- "
                     "["
                     "]"
                     "{"
                     "}"
                     "&x "
                     "*x"
                     "\""
                     "~"
                     "\000" |]

              let text =
                  String.concat "" [ for word in words -> parts[abs (word % parts.Length)] ]

              match parse text with
              | Ok rules -> rules |> List.forall (fun rule -> rule.User <> "")
              | Error error -> error.StartsWith "address_map: " ]

let private auth (yaml: string) =
    (run (server [] [] ("mode: udp\n" + yaml))).Auth

let private options =
    testList
        "Options"
        [ test "a password file, token keys or a command are enough, each by itself; none is not" {
              Expect.isNull (run (server [] [] "mode: udp\ntoken_rsa_pub_key_pem: a.pem")).UserDb "tokens"
              Expect.equal (auth "auth_command: /bin/ask").Command [| "/bin/ask" |] "a command"
              let text = refusal (server [] [] "mode: udp")
              expectAll text [ "user_db: missing"; "token_rsa_pub_key_pem"; "auth_command" ]
              expectAll (refusal (server [] [] "mode: udp\nuser_db: ''")) [ "user_db"; "empty" ]
          }

          test "a command is a line whose words are separated by spaces, or a list of words" {
              for yaml in
                  [ "auth_command: /bin/ask  --realm  vpn "
                    "auth_command: [/bin/ask, --realm, vpn]"
                    "auth_command:\n- /bin/ask\n- --realm\n- vpn" ] do
                  Expect.equal (auth yaml).Command [| "/bin/ask"; "--realm"; "vpn" |] yaml

              Expect.equal (auth "auth_command: [/bin/ask, 'a b', '']").Command [| "/bin/ask"; "a b"; "" |] "a list"
              let flags = server [ "--auth-command=/bin/ask -v" ] [] least
              Expect.equal (run flags).Auth.Command [| "/bin/ask"; "-v" |] "a flag"
          }

          for yaml, parts in
              [ "auth_command: ask", [ "auth_command"; "\"ask\""; "absolute path"; "config.yaml:2" ]
                "auth_command: ' '", [ "auth_command"; "empty" ]
                "auth_command: []", [ "auth_command"; "empty" ]
                "auth_command: [[/bin/ask]]", [ "auth_command"; "words" ]
                "auth_command: {a: b}", [ "auth_command"; "map" ]
                "auth_command: [\"/bin/a\\0b\"]", [ "auth_command" ]
                "auth_command: /bin/ask\nauth_command_timeout: 31s", [ "auth_command_timeout"; "100ms to 30s" ]
                "auth_command: /bin/ask\nauth_command_timeout: 99ms", [ "auth_command_timeout" ]
                "user_db: a\nauth_command_timeout: 6s", [ "auth_command_timeout"; "without auth_command" ] ] do
              test $"%A{yaml} is refused" { expectAll (refusal (server [] [] ("mode: udp\n" + yaml))) parts }

          test "the time of a command" {
              Expect.equal (auth "auth_command: /bin/ask").CommandTimeout (TimeSpan.FromSeconds 5.) "default"
              let yaml = "auth_command: /bin/ask\nauth_command_timeout: 250ms"
              Expect.equal (auth yaml).CommandTimeout (TimeSpan.FromMilliseconds 250.) ""
          } ]

let tests: Test = testList "Users" [ rules; options ]

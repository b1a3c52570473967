/// Everything that a peer may do and should not, by name and on demand. Each runs in the namespace of the calling thread, ends
/// by itself, and says in one line what it did.
[<RequireQualifiedAccess>]
module Lightway.Lab.Pests.Pest

open System.Threading
open Lightway.Lab

/// Names, what each does, and how.
let private kinds: (string * string * (Target -> Plan -> Tally)) list =
    [ "hello", "ClientHellos without a cookie", Flood.hello
      "garbage", "random bytes", Flood.bytes
      "header", "random bytes behind a right wire header", Flood.headers
      "jumbo", "datagrams of 64 KiB", Flood.jumbo
      "half-open", "handshakes that end when the cookie is returned", HalfOpen.afterCookie
      "link-up", "complete handshakes without a login", HalfOpen.withoutLogin
      "login", "logins with wrong passwords", Insider.logins
      "self", "packets to the server itself with the connection's own datagrams inside", Insider.selfEncapsulation
      "flap", "a client that alternates between two ports", Insider.flap
      "flap-link-up", "the same before its login", Insider.flapBeforeLogin
      "pings", "datagrams of 286 pings", Insider.pings
      "fragments", "datagrams of 100 fragments that never become a packet", Insider.fragments
      "greedy", "datagrams of a client's own session that are not authentic", Insider.greedy
      "replay", "authentic datagrams again, from two ports", Insider.replay ]

/// Names and what each is.
let all: (string * string) list =
    kinds |> List.map (fun (name, text, _) -> name, text)

/// Runs one on the calling thread. Raises LabException for a name that does not exist, and for a pest whose own login fails.
let run (name: string) (target: Target) (plan: Plan) : Tally =
    match kinds |> List.tryFind (fun (known, _, _) -> known = name) with
    | Some(_, _, action) -> action target plan
    | None -> raise (LabException $"no pest is called {name}")

/// Starts one in a namespace.
let start (netns: string) (name: string) (target: Target) (plan: Plan) : Tasks.Task<Tally> =
    Netns.start netns (fun () -> run name target plan)

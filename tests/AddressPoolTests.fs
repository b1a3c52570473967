/// The pool of inside addresses, against a model: a queue of addresses and a set of those in use.
module Lightway.Tests.AddressPoolTests

open System
open System.Collections.Generic
open System.Net
open System.Threading.Tasks
open Expecto
open FsCheck
open FsCheck.FSharp
open Lightway.Segmenter
open Lightway.Server.Addresses

let private addresses (texts: string list) =
    [| for text in texts -> IPAddress.Parse text |]

let private pool (network: string) (reserved: string list) randomize =
    AddressPool(IPNetwork.Parse network, addresses reserved, randomize)

/// Address in host byte order, computed otherwise than the pool does.
let private number (text: string) =
    (0u, IPAddress.Parse(text).GetAddressBytes())
    ||> Array.fold (fun value part -> value * 256u + uint32 part)

let private address (text: string) = Ipv4Address(number text)

let private tryAllocate (pool: AddressPool) =
    let mutable address = Ipv4Address.None

    if pool.TryAllocate(pool.Rest, &address) then
        Some address
    else
        None

let private drain (pool: AddressPool) =
    List.unfold (fun () -> tryAllocate pool |> Option.map (fun address -> address, ())) ()

/// What happens to a pool: an address is taken, or the n-th of those in use is given back.
type private Step =
    | Allocate
    | Free of int

let private steps =
    Gen.frequency [ 3, Gen.constant Allocate; 2, Gen.map Free (Gen.choose (0, 1000)) ]
    |> Gen.listOf
    |> Gen.resize 200
    |> Arb.fromGen

let private examples =
    testList
        "Examples"
        [ for reserved, count in
              [ [ "10.125.0.1"; "10.125.0.3" ], 252
                [ "10.125.0.1"; "10.125.0.1" ], 253
                [ "10.125.0.1"; "192.0.2.1" ], 253
                [ "10.125.0.0"; "10.125.0.255" ], 254
                [], 254 ] do
              test $"a /24 with %A{reserved} reserved serves {count} clients at once" {
                  for randomize in [ true; false ] do
                      let pool = pool "10.125.0.0/24" reserved randomize
                      Expect.equal pool.Capacity count "capacity"
                      let all = drain pool
                      Expect.equal all.Length count "addresses"
                      Expect.equal pool.Assigned count "assigned"
                      Expect.equal (set all).Count count "all different"

                      let allowed =
                          set [ for number in number "10.125.0.1" .. number "10.125.0.254" -> Ipv4Address number ]
                          - set (List.map address reserved)

                      Expect.equal (set all) allowed "the hosts less the reserved ones"
              }

          test "the order is ascending, or random: two random pools differ" {
              let first randomize = drain (pool "10.0.0.0/20" [] randomize)
              Expect.equal (first false) (List.sort (first false)) "ascending"
              Expect.notEqual (first true) (first true) "random"
          }

          test "a shuffle moves the addresses about evenly" {
              // 4094 addresses: the mean of the first 1000 drawn is within 5 standard deviations of the middle.
              let mean () =
                  drain (pool "10.0.0.0/20" [] true)
                  |> List.take 1000
                  |> List.averageBy (fun address -> float (address.Value - number "10.0.0.0"))

              // By chance one draw in two million is further away; that two in a row are does not happen.
              let first = mean ()
              let mean = if abs (first - 2047.5) <= 165. then first else mean ()
              Expect.floatClose { absolute = 165.; relative = 0. } mean 2047.5 $"after {first}"
          }

          test "an address given back twice, or never taken, is not handed out twice" {
              let pool = pool "10.0.0.0/30" [] false
              let first = (tryAllocate pool).Value
              pool.Free first
              pool.Free first
              pool.Free(address "10.0.0.3")
              pool.Free(address "192.0.2.1")
              pool.Free Ipv4Address.None
              Expect.equal (drain pool) [ address "10.0.0.2"; address "10.0.0.1" ] ""
          }

          test "an address that may still come back from one thread never serves two" {
              let pool = pool "10.0.0.0/24" [] true
              let taken = HashSet<Ipv4Address>()
              let twice = ResizeArray<Ipv4Address>()

              Parallel.For(
                  0,
                  8,
                  fun _ ->
                      for _ in 1..2000 do
                          match tryAllocate pool with
                          | None -> ()
                          | Some address ->
                              lock taken (fun () ->
                                  if not (taken.Add address) then
                                      twice.Add address)

                              lock taken (fun () -> taken.Remove address |> ignore)
                              pool.Free address
              )
              |> ignore

              Expect.isEmpty twice ""
              Expect.equal pool.Assigned 0 ""
          }

          test "a part has its own addresses, and the rest has none of them" {
              let parts = [| IPNetwork.Parse "10.0.0.4/30"; IPNetwork.Parse "10.0.0.8/32" |]

              let pool =
                  AddressPool(IPNetwork.Parse "10.0.0.0/28", [| IPAddress.Parse "10.0.0.6" |], false, parts)

              let drain part =
                  [ let mutable taken = Ipv4Address.None

                    while pool.TryAllocate(part, &taken) do
                        taken ]

              let rest = drain pool.Rest

              Expect.equal
                  (drain 0)
                  [ address "10.0.0.4"; address "10.0.0.5"; address "10.0.0.7" ]
                  "less the reserved one"

              Expect.equal (drain 1) [ address "10.0.0.8" ] "a part of one"

              Expect.equal
                  rest
                  [ for host in [ 1; 2; 3; 9; 10; 11; 12; 13; 14 ] -> address $"10.0.0.{host}" ]
                  "the rest"

              Expect.equal (pool.Capacity, pool.Assigned, pool.CapacityOf 0) (13, 13, 3) "numbers"
              pool.Free(address "10.0.0.5")
              pool.Free(address "10.0.0.9")

              Expect.equal
                  (drain 0, drain pool.Rest)
                  ([ address "10.0.0.5" ], [ address "10.0.0.9" ])
                  "each comes back to its part"
          }

          test "a fixed address is handed out by name only" {
              let pool = pool "10.0.0.0/29" [] false
              pool.Fix [ address "10.0.0.1"; address "10.0.0.4" ]
              Expect.equal (pool.Capacity, pool.CapacityOf pool.Rest) (6, 4) "capacity"
              Expect.equal (drain pool) [ for host in [ 2; 3; 5; 6 ] -> address $"10.0.0.{host}" ] "the others"
              Expect.isTrue (pool.TryAllocateFixed(address "10.0.0.1")) "by name"
              Expect.isFalse (pool.TryAllocateFixed(address "10.0.0.1")) "once"
              Expect.isFalse (pool.TryAllocateFixed(address "192.0.2.1")) "not outside"
              Expect.equal pool.Assigned 5 "assigned"
              pool.Free(address "10.0.0.1")
              Expect.isEmpty (drain pool) "still nobody else's"
              Expect.isTrue (pool.TryAllocateFixed(address "10.0.0.1")) "its user's again"
              pool.Free(address "10.0.0.1")
              pool.Fix []
              Expect.equal (drain pool) [ address "10.0.0.1"; address "10.0.0.4" ] "everybody's"
          }

          test "an address that becomes fixed stays with whoever has it, and is nobody else's afterwards" {
              let pool = pool "10.0.0.0/29" [] false
              let first = (tryAllocate pool).Value
              pool.Fix [ first ]
              Expect.isFalse (pool.TryAllocateFixed first) "in use"
              pool.Free first
              Expect.isFalse (List.contains first (drain pool)) "not for everybody"
              Expect.isTrue (pool.TryAllocateFixed first) "free for its user"
          }

          test "only prefixes from /8 to /30" {
              for network in [ "10.0.0.0/7"; "10.0.0.0/31"; "10.0.0.0/32" ] do
                  Expect.throwsT<ArgumentOutOfRangeException> (fun () -> pool "0.0.0.0/7" [] false |> ignore) network

              Expect.equal (pool "10.0.0.0/30" [] true).Capacity 2 ""
          }

          test "offsets count from the network address and are -1 outside" {
              let pool = pool "10.125.0.0/16" [] true

              for text, offset in
                  [ "10.125.0.0", 0
                    "10.125.0.7", 7
                    "10.125.255.255", 65535
                    "10.124.255.255", -1
                    "10.126.0.0", -1
                    "0.0.0.0", -1
                    "255.255.255.255", -1 ] do
                  Expect.equal (pool.OffsetOf(address text)) offset text
          } ]

let private laws =
    testList
        "Laws"
        [ testProperty "the pool is a queue: never-used addresses first, then the one free for longest"
          <| Prop.forAll steps (fun steps ->
              let pool = pool "10.9.0.0/28" [ "10.9.0.4" ] false

              let model =
                  Queue [ for host in [ 1..3 ] @ [ 5..14 ] -> Ipv4Address(number "10.9.0.0" + uint32 host) ]

              let inUse = ResizeArray()

              for step in steps do
                  match step with
                  | Allocate ->
                      let expected = if model.Count = 0 then None else Some(model.Dequeue())
                      Expect.equal (tryAllocate pool) expected "allocated"
                      Option.iter inUse.Add expected
                  | Free index when inUse.Count > 0 ->
                      let address = inUse[index % inUse.Count]
                      inUse.Remove address |> ignore
                      model.Enqueue address
                      pool.Free address
                  | Free _ -> ()

                  Expect.equal pool.Assigned inUse.Count "assigned")

          testProperty "whatever becomes fixed and is given back: no address has two owners, and none is lost"
          <| fun (operations: (int * int) list) ->
              let pool = pool "10.9.0.0/28" [ "10.9.0.4" ] false

              let at host =
                  Ipv4Address(number "10.9.0.0" + uint32 (1 + abs host % 14))

              let reserved = address "10.9.0.4"
              let inUse = HashSet<Ipv4Address>()
              let mutable fixed' = Set.empty

              for kind, host in operations do
                  match abs kind % 4 with
                  | 0 ->
                      match tryAllocate pool with
                      | Some address ->
                          Expect.isTrue (inUse.Add address) "free before"
                          Expect.isFalse (fixed'.Contains address) "not fixed"
                      | None ->
                          let left = 13 - (Set.union fixed' (set inUse)).Count
                          Expect.equal left 0 "none is left"
                  | 1 when fixed'.Contains(at host) ->
                      Expect.equal (pool.TryAllocateFixed(at host)) (inUse.Add(at host)) "if it is free"
                  | 2 ->
                      inUse.Remove(at host) |> ignore
                      pool.Free(at host)
                  | 3 ->
                      fixed' <- set [ for i in 0 .. abs host % 4 -> at (host / 3 + 5 * i) ] - set [ reserved ]
                      pool.Fix fixed'
                  | _ -> ()

                  Expect.equal pool.Assigned inUse.Count "assigned"

              pool.Fix []
              Expect.equal (drain pool).Length (13 - inUse.Count) "all others are there"

          testProperty "offset and address are inverses for what is handed out"
          <| fun (PositiveInt size) ->
              let prefix = 16 + size % 15
              let pool = pool $"172.16.0.0/{prefix}" [] true
              let address = (tryAllocate pool).Value
              let offset = pool.OffsetOf address
              offset > 0 && number "172.16.0.0" + uint32 offset = address.Value ]

let tests: Test = testList "AddressPool" [ examples; laws ]

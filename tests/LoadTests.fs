/// The load generator against the real server: what `Bench scale` measures with.
module Lightway.Tests.LoadTests

open System
open Expecto
open Lightway.Lab
open Lightway.Lab.Load
open Lightway.Server.Auth
open Lightway.Tests.Checks

let private clients = 50

/// Measures until each client gets enough. A busy machine holds up the offer, too: what it does not make in time is never
/// sent.
let private pass (site: LoadSite) (up: Offer) (down: Offer) (share: float) (slowest: float) : Passage =
    let rec attempt left =
        let result = site.Pass(up, down, 0.2, 1.6)

        if left = 1 || (result.Share > share && result.Slowest > slowest) then
            result
        else
            attempt (left - 1)

    attempt 20

let tests: Test =
    testSequenced (
        testList
            "Load"
            [ test "fifty clients of a fleet log in, and each gets its share of what is offered both ways" {
                  needsRoot ()
                  let hash = LibCrypt.Hash(ReadOnlySpan "secret"B, "$1$salt$")
                  use site = LoadSite.Start(clients, hash, true, [])
                  site.Grow(clients, TimeSpan.FromSeconds 60.) |> ignore
                  let state = site.Fleet.State
                  Expect.equal state.Online clients "all are online"
                  Expect.equal (site.Vpn.Read().Counters["conn_online"]) (int64 clients) "as the server counts them"

                  let up = pass site (Offer.Tcp 80.0) Offer.None 0.5 0.3
                  Expect.isGreaterThan up.Share 0.5 "segments arrive behind the server"
                  Expect.isGreaterThan up.Slowest 0.3 "those of every client"
                  Expect.isGreaterThan (up.Grown "tun_superpackets_written") 0L "the server puts them together"

                  let down = pass site Offer.None (Offer.UdpSingles 20.0) 0.5 0.3
                  Expect.isGreaterThan down.Share 0.5 "datagrams arrive at the clients"
                  Expect.isGreaterThan down.Slowest 0.3 "at each of them"

                  Expect.isGreaterThan (down.Grown "expresslane_packets_sent") 0L "by the Expresslane"

                  site.Fleet.Churn <- 20.0

                  Expect.isTrue
                      (Wait.until (TimeSpan.FromSeconds 30.) (fun () -> site.Fleet.State.Logins >= int64 clients + 10L))
                      "clients leave and come again"

                  Expect.equal site.Fleet.State.Lost 0L "nobody is turned away"
              } ]
    )

namespace Lightway.Bench.Matrix

open System
open System.Collections.Generic
open Lightway.Lab

/// Counters of one program by name, or of several summed; None for a program that does not report them.
type Counters = IReadOnlyDictionary<string, int64> option

/// A tunnel that is up in a topology of its own. Others are up at the same time and idle: so the compared ones take turns.
[<NoComparison; NoEquality>]
type Contender =
    { Name: string // of the variant, as the tables have it
      Topology: Topology
      Server: Child
      Clients: Child list
      ServerDevice: string // name of the TUN
      ClientDevice: string -> string // by namespace
      ReadServer: unit -> Counters
      ReadClients: unit -> Counters
      Stop: unit -> unit }

    interface IDisposable with
        member this.Dispose() =
            this.Stop()
            (this.Topology :> IDisposable).Dispose()

[<RequireQualifiedAccess>]
module Contender =
    let private sum (readings: Reading list) : IReadOnlyDictionary<string, int64> =
        let sums = Dictionary<string, int64>()

        for reading in readings do
            for pair in reading.Counters do
                sums[pair.Key] <- sums.GetValueOrDefault pair.Key + pair.Value

        sums

    /// A server and a number of clients over a path, with offload off or on and more keys of the files at both ends.
    let lightwayWith
        (more: (string * string) list)
        (name: string)
        (programs: Programs)
        (path: Path)
        (offload: bool)
        (clients: int)
        : Contender =
        let topology = Topology.Create clients

        try
            let keys = more @ (if path = Tls then [ "mode", "tcp" ] else [])

            let settings =
                { Expresslane = (path = Expresslane)
                  Offload = offload
                  ServerKeys = keys
                  ClientKeys = keys }

            let vpn = new Vpn(topology, programs, settings)
            vpn.Start()

            { Name = name
              Topology = topology
              Server = vpn.Server
              Clients = vpn.Clients
              ServerDevice = vpn.Device
              ClientDevice = fun _ -> vpn.Device
              ReadServer = fun () -> vpn.ReadServer() |> Option.map (List.singleton >> sum)
              ReadClients = fun () -> vpn.ReadClients() |> Option.map sum
              Stop = (vpn :> IDisposable).Dispose }
        with _ ->
            (topology :> IDisposable).Dispose()
            reraise ()

    /// The same without more keys.
    let lightway = lightwayWith []

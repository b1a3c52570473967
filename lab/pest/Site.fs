namespace Lightway.Lab.Pests

open System
open System.Diagnostics
open System.IO
open System.Net
open System.Text.RegularExpressions
open System.Threading.Tasks
open Lightway.Lab

/// What password checks have cost the server's hashing threads.
type PasswordChecks =
    {
        Count: int64
        /// Seconds on a processor, and seconds that the threads wanted one and had none, of all checks.
        Ran: float
        Waited: float
    }

    /// Seconds that one check has taken, as busy as the machine was.
    member this.Each: float = (this.Ran + this.Waited) / float this.Count

/// A server, the pest in the first namespace, and in the second, which has other networks, whoever suffers. Each of the two
/// has 256 networks /24 besides its own.
[<Sealed>]
type Site(settings: Settings) =
    let topology = Topology.Create 2
    let vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    let target = lazy (Target.Read(Path.Combine(vpn.Folder, "client.yaml")))

    do
        for netns, network, gateway in
            [ topology.Clients[0], "198.18.0.0/16", Topology.ClientOutside
              topology.Clients[1], "198.19.0.0/16", "203.0.113.6" ] do
            Shell.ip $"-n {netns} route add local {network} dev lo" |> ignore
            Shell.ip $"-n {topology.Server} route add {network} via {gateway}" |> ignore

    /// An address of a namespace, 0 or 1, in one of its networks, 0 to 255.
    static member Address (netns: int) (network: int) (host: int) : IPAddress =
        IPAddress.Parse $"198.{18 + netns}.{network}.{host}"

    member _.Topology = topology
    member _.Vpn = vpn
    member _.Target = target.Value

    member _.Remote =
        { Netns = topology.RemoteHost
          Address = Topology.Remote }

    member _.Honest = topology.Clients[1]

    /// Gives the server other users, all with one hash, before it starts.
    member _.SetUsers (users: string list) (hash: string) : unit =
        File.WriteAllLines(Path.Combine(vpn.Folder, "users.htpasswd"), [ for user in users -> $"{user}:{hash}" ])

    member _.Start (kind: string) (plan: Plan) : Task<Tally> =
        Pest.start topology.Client kind target.Value plan

    /// How long a login takes that comes from the second namespace; none if it is not in after `patience`.
    member this.Login(patience: TimeSpan) : TimeSpan voption =
        Netns.run this.Honest (fun () ->
            use crowd = new Crowd(target.Value)
            let guest = crowd.Join()

            crowd.RunUntil(patience, (fun () -> guest.LoginTime.IsSome || guest.Closed.IsSome)) |> ignore

            guest.LoginTime)

    /// Clients of the second namespace that log in at once, each from a network and with a user of its own, at most 256, and
    /// what their checks have cost. Ends after `limit` at the latest.
    member this.Rush
        (password: string)
        (users: string list)
        (patience: TimeSpan)
        (limit: TimeSpan)
        : struct (Arrivals * PasswordChecks) =
        let members =
            [ for number, user in List.indexed users ->
                  { Source = Site.Address 1 number 1
                    User = user } ]

        let read () =
            struct (vpn.Read().Counters["auth_checks"], vpn.Server.ThreadSeconds "hashing")

        let struct (countBefore, struct (ranBefore, waitedBefore)) = read ()

        let arrivals =
            Netns.run this.Honest (fun () ->
                let clock = Stopwatch.StartNew()
                Rush.run this.Target password members patience (fun () -> clock.Elapsed > limit))

        let struct (count, struct (ran, waited)) = read ()

        struct (arrivals,
                { Count = count - countBefore
                  Ran = ran - ranBefore
                  Waited = waited - waitedBefore })

    /// Resident memory of the server in MB (VmRSS, proc_pid_status(5)).
    member _.Megabytes: float =
        let status = File.ReadAllText $"/proc/{vpn.Server.Pid}/status"
        float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0 / 1e6

    member _.Descriptors: int =
        Directory.GetFileSystemEntries($"/proc/{vpn.Server.Pid}/fd").Length

    /// Connections that the server has.
    member _.Connections: int64 =
        let counters = vpn.Read().Counters
        counters["conn_created"] - counters["conn_closed"]

    interface IDisposable with
        member _.Dispose() =
            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

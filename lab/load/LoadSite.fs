namespace Lightway.Lab.Load

open System
open System.Diagnostics
open System.IO
open System.Text.RegularExpressions
open System.Threading
open System.Threading.Tasks
open Lightway.Lab
open Lightway.Lab.Pests

/// What a part of a run has shown.
type Passage =
    {
        Seconds: float
        /// Inside bytes per second that have arrived, in bits.
        Megabits: float
        /// Arrived, as a share of what was offered.
        Share: float
        /// Seconds of the server's CPU, user and system, per 10^9 inside bytes.
        CpuPerGigabyte: float
        /// What the client that got least has got, of the mean.
        Slowest: float
        /// What the server's counters have grown by.
        Grown: string -> int64
        /// Those that have grown, by what.
        Counters: (string * int64) list
    }

/// A server and a fleet: the server in its namespace, the fleet's thread in the first client's, the station's thread in the
/// server's. Other clients of the topology are left to the caller.
[<Sealed>]
type LoadSite
    private (topology: Topology, capacity: int, hash: string, expresslane: bool, serverKeys: (string * string) list) =
    let vpn =
        new Vpn(
            topology,
            Programs.OfThisBuild(),
            { Expresslane = expresslane
              Offload = true
              ServerKeys = [ "handshakes_per_source", "0"; "half_open_limit", "4096"; "login_checks", "2" ] @ serverKeys
              ClientKeys = [] }
        )

    let register = Register capacity
    let userOf (number: int) = $"user{number}"

    do
        File.AppendAllLines(
            Path.Combine(vpn.Folder, "users.htpasswd"),
            [ for number in 0 .. capacity - 1 -> $"{userOf number}:{hash}" ]
        )

        Shell.ip $"-n {topology.Client} route add local 198.18.0.0/16 dev lo" |> ignore

        Shell.ip $"-n {topology.Server} route add 198.18.0.0/16 via {Topology.ClientOutside}" |> ignore

        vpn.StartServer()

    let target =
        { Target.Read(Path.Combine(vpn.Folder, "client.yaml")) with
            Password = LoadSite.Password }

    let station = Station.Open(topology.Server, register)

    let fleet =
        Netns.run topology.Client (fun () -> new Fleet(target, register, Station.Host, userOf, expresslane))

    let running =
        [ Netns.start topology.Server (fun () -> station.Run())
          Netns.start topology.Client (fun () -> fleet.Run()) ]

    /// A thread that has failed must not be waited for.
    let check () =
        for task in running do
            if task.IsFaulted then
                task.GetAwaiter().GetResult()

    let sum (values: int64[]) (count: int) =
        let mutable total = 0L

        for number in 0 .. count - 1 do
            total <- total + values[number]

        total

    /// Every client's password.
    static member Password: string = "secret"

    /// A fleet of up to `capacity` clients, each with a user of its own; `hash` is what the server has of `Password`. Raises
    /// LabException when the server does not come up; then nothing is left behind.
    static member Start
        (capacity: int, hash: string, expresslane: bool, serverKeys: (string * string) list, ?clientCount: int)
        : LoadSite =
        let topology = Topology.Create(defaultArg clientCount 1)

        try
            new LoadSite(topology, capacity, hash, expresslane, serverKeys)
        with _ ->
            (topology :> IDisposable).Dispose()
            reraise ()

    member _.Topology = topology
    member _.Vpn = vpn
    member _.Server = vpn.Server
    member _.Fleet = fleet
    member _.Target = target

    /// Resident memory of the server in bytes (VmRSS of proc_pid_status(5), in KiB there).
    member _.ResidentBytes: float =
        let status = File.ReadAllText $"/proc/{vpn.Server.Pid}/status"
        float (Regex.Match(status, @"VmRSS:\s+(\d+) kB").Groups[1].Value) * 1024.0

    /// Waits until `count` clients are online and known behind the server. Returns the seconds that it took; raises LabException
    /// after `timeout`.
    member _.Grow(count: int, timeout: TimeSpan) : float =
        let clock = Stopwatch.StartNew()
        fleet.Want count

        let isThere () =
            check ()
            fleet.State.Online >= count && register.Known >= count

        if not (Wait.until timeout isThere) then
            raise (
                LabException
                    $"{fleet.State} of {count} clients after {timeout.TotalSeconds} s, {register.Known} addresses known. Log of the server:\n{vpn.Server.LogTail}"
            )

        clock.Elapsed.TotalSeconds

    /// Offers packets both ways and measures, once the warm-up is over.
    member _.Pass(up: Offer, down: Offer, warmUp: float, seconds: float) : Passage =
        fleet.Offer <- up
        station.Offer <- down

        try
            Thread.Sleep(TimeSpan.FromSeconds warmUp)
            let count = fleet.State.Online
            let before = Array.map2 (+) register.Up register.Down
            let reading = vpn.Read()
            let clock = Stopwatch.StartNew()
            Thread.Sleep(TimeSpan.FromSeconds seconds)
            let elapsed = clock.Elapsed.TotalSeconds
            let after = Array.map2 (+) register.Up register.Down
            let last = vpn.Read()
            check ()
            let each = Array.map2 (-) after before |> Array.take count
            let bytes = float (Array.sum each)
            let mean = bytes / float count

            { Seconds = elapsed
              Megabits = bytes * 8.0 / elapsed / 1e6
              Share = bytes * 8.0 / elapsed / 1e6 / (up.Megabits + down.Megabits)
              CpuPerGigabyte = (last.CpuSeconds - reading.CpuSeconds) / bytes * 1e9
              Slowest = float (Array.min each) / mean
              Grown = last.Since reading
              Counters =
                [ for pair in last.Counters do
                      let growth = last.Since reading pair.Key

                      if growth > 0L then
                          pair.Key, growth ] }
        finally
            fleet.Offer <- Offer.None
            station.Offer <- Offer.None

    /// Sets what is sent to the clients, and leaves it so.
    member _.Download
        with set (value: Offer) = station.Offer <- value

    /// What is known of the clients.
    member _.Register = register

    /// Inside bytes that all clients have received.
    member _.Received: int64 = sum register.Down capacity

    interface IDisposable with
        member _.Dispose() =
            fleet.Stop()
            station.Stop()

            for task in running do
                (task :> Task).ContinueWith(Action<Task> ignore).Wait()

            (fleet :> IDisposable).Dispose()
            (station :> IDisposable).Dispose()
            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

namespace Lightway.Lab

open System
open System.Collections.Generic
open System.IO
open System.Runtime.InteropServices
open System.Text.RegularExpressions
open System.Threading

/// Three namespaces in a row, joined by veth pairs, and a folder for files:
///
///     client 192.0.2.2 --- 192.0.2.1 server 198.51.100.1 --- 198.51.100.2 remote
///
/// More clients are namespaces of their own: number i, from 1, is joined to the server by 203.0.113.(4i)/30 and reaches
/// it at 192.0.2.1 too.
///
/// With a router, the way between client and server leads over one more namespace, whose devices are named after them:
///
///     client 192.0.2.2 --- router --- 192.0.2.1 server
///
/// The server forwards. A client has no route to the remote and the remote none to a client's outside address: what
/// passes between them has gone through a tunnel. The remote reaches the pool 10.125.0.0/16 by way of the server.
///
/// Dispose ends every process inside the namespaces and removes all that was made. So does the end of this process by
/// SIGINT, SIGTERM or SIGHUP. What a killed process left behind, the next `Topology.Create` removes.
type Topology private (prefix: string, clientCount: int, hasRouter: bool) =
    static let made = ref 0
    static let mutable interrupted = false
    static let names = Regex(@"^lw(\d+)n\d+([srm]|c\d*)?$", RegexOptions.Compiled)
    static let living = HashSet<Topology>()

    static let disposeAll () =
        for topology in lock living (fun () -> Array.ofSeq living) do
            (topology :> IDisposable).Dispose()

    static let signals =
        lazy
            [ for signal in [ PosixSignal.SIGINT; PosixSignal.SIGTERM; PosixSignal.SIGHUP ] do
                  PosixSignalRegistration.Create(
                      signal,
                      fun context ->
                          context.Cancel <- true // stay alive until all is clean

                          if not interrupted then
                              interrupted <- true
                              disposeAll ()
                              eprintfn "interrupted; what the lab made is gone"
                              Environment.Exit 130
                  ) ]

    let cleaning = obj ()
    let mutable isCleaned = false

    static let processesIn (netns: string) =
        match Shell.tryRun "ip" [ "netns"; "pids"; netns ] with
        | struct (0, output, _) ->
            output.Split('\n', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
            |> Array.map int
            |> Array.filter (fun pid -> pid <> Environment.ProcessId)
        | _ -> [||]

    /// Ends the processes inside, gently, then by force, and deletes the namespace with its devices.
    static let removeNamespace (netns: string) =
        for pid in processesIn netns do
            Netns.signal pid Netns.Signal.Terminate |> ignore

        let isEmpty () = Array.isEmpty (processesIn netns)

        if not (Wait.until (TimeSpan.FromSeconds 3.0) isEmpty) then
            for pid in processesIn netns do
                Netns.signal pid Netns.Signal.Kill |> ignore

            Wait.until (TimeSpan.FromSeconds 2.0) isEmpty |> ignore

        Shell.tryRun "ip" [ "netns"; "delete"; netns ] |> ignore

    /// A process that is ending may still write there, and another one of the lab may sweep the same leftovers.
    static let removeFolder (folder: string) =
        let isGone () =
            try
                if Directory.Exists folder then
                    Directory.Delete(folder, recursive = true)

                true
            with :? IOException ->
                not (Directory.Exists folder)

        if not (Wait.until (TimeSpan.FromSeconds 5.0) isGone) then
            Directory.Delete(folder, recursive = true)

    /// Removes leftovers in a folder of lab processes that have ended.
    static let leftovers (folder: string) =
        let isLeftover (path: string) =
            let name = names.Match(Path.GetFileName path)
            name.Success && not (Directory.Exists $"/proc/{name.Groups[1].Value}")

        if Directory.Exists folder then
            Directory.GetFileSystemEntries(folder, "lw*") |> Array.filter isLeftover
        else
            [||]

    static let sweep () =
        leftovers "/run/netns" |> Array.iter (Path.GetFileName >> removeNamespace)
        leftovers (Path.GetTempPath()) |> Array.iter removeFolder

    /// A signal is ending this process: what fails from now on, fails because the namespaces go away.
    static member IsInterrupted = interrupted

    static member ClientOutside = "192.0.2.2"
    static member ServerOutside = "192.0.2.1"
    static member ServerInside = "198.51.100.1"
    static member Remote = "198.51.100.2"
    static member RemoteNetwork = "198.51.100.0/24"
    static member Pool = "10.125.0.0/16"

    /// Names of the namespaces.
    member _.Client = prefix + "c"
    member _.Server = prefix + "s"
    member _.RemoteHost = prefix + "r"

    /// Between client and server, if there is a router.
    member _.Router = prefix + "m"

    /// Namespaces of all clients; `Client` is the first.
    member this.Clients =
        this.Client :: [ for number in 1 .. clientCount - 1 -> $"{prefix}c{number}" ]

    member private this.Namespaces =
        (if hasRouter then [ this.Router ] else []) @ this.Server :: this.RemoteHost :: this.Clients

    /// A folder that only root can read; removed by Dispose.
    member _.Folder = Path.Combine(Path.GetTempPath(), prefix)

    member private this.Build() =
        let setting (name: string) (value: string) =
            File.WriteAllText($"/proc/sys/net/ipv4/{name}", value)

        for netns in this.Namespaces do
            Shell.ip $"netns add {netns}" |> ignore
            Shell.ip $"-n {netns} link set lo up" |> ignore

            Netns.run netns (fun () ->
                setting "conf/all/rp_filter" "0"
                setting "conf/default/rp_filter" "0")

        /// Addresses with their prefix length.
        let link left leftName leftAddress right rightName rightAddress =
            Shell.ip $"link add {leftName} netns {left} type veth peer name {rightName} netns {right}" |> ignore

            for netns, device, address in [ left, leftName, leftAddress; right, rightName, rightAddress ] do
                Shell.ip $"-n {netns} addr add {address} dev {device}" |> ignore
                Shell.ip $"-n {netns} link set {device} up" |> ignore

        if hasRouter then
            // Both ends see one network, as without the router: it answers for each at the other's side (proxy ARP).
            for netns, device, own, address in
                [ this.Client, "client", "192.0.2.253", Topology.ClientOutside
                  this.Server, "server", "192.0.2.254", Topology.ServerOutside ] do
                link netns "outside" $"{address}/24" this.Router device $"{own}/32"
                Shell.ip $"-n {this.Router} route add {address}/32 dev {device}" |> ignore
                Netns.run this.Router (fun () -> setting $"conf/{device}/proxy_arp" "1")

            Netns.run this.Router (fun () -> setting "ip_forward" "1")
        else
            link
                this.Client
                "outside"
                $"{Topology.ClientOutside}/24"
                this.Server
                "outside"
                $"{Topology.ServerOutside}/24"

        link this.Server "remote" $"{Topology.ServerInside}/24" this.RemoteHost "server" $"{Topology.Remote}/24"

        for number, netns in List.indexed this.Clients |> List.tail do
            let address host = $"203.0.113.{4 * number + host}"
            link netns "outside" $"{address 2}/30" this.Server $"outside{number}" $"{address 1}/30"
            Shell.ip $"-n {netns} route add {Topology.ServerOutside}/32 via {address 1}" |> ignore

        Netns.run this.Server (fun () -> setting "ip_forward" "1")
        Shell.ip $"-n {this.RemoteHost} route add {Topology.Pool} via {Topology.ServerInside}" |> ignore

        Directory.CreateDirectory(
            this.Folder,
            UnixFileMode.UserRead ||| UnixFileMode.UserWrite ||| UnixFileMode.UserExecute
        )
        |> ignore

    /// One to 64 clients. Needs root and `ip`. Raises LabException; then nothing is left behind.
    static member Create(clientCount: int) : Topology = Topology.Make(clientCount, false)

    /// With one client, and a router between it and the server.
    static member CreateRouted() : Topology = Topology.Make(1, true)

    static member private Make(clientCount: int, hasRouter: bool) : Topology =
        if not Environment.IsPrivilegedProcess then
            raise (LabException "network namespaces need root")

        if interrupted then
            raise (LabException "interrupted")

        sweep ()
        signals.Force() |> ignore

        let topology =
            new Topology($"lw{Environment.ProcessId}n{Interlocked.Increment made}", clientCount, hasRouter)

        lock living (fun () -> living.Add topology) |> ignore

        try
            topology.Build()
            topology
        with _ ->
            (topology :> IDisposable).Dispose()
            reraise ()

    /// With one client.
    static member Create() : Topology = Topology.Create 1

    interface IDisposable with
        member this.Dispose() =
            // A signal may come while the owner disposes: the second one in waits until the first is done.
            lock cleaning (fun () ->
                if not isCleaned then
                    isCleaned <- true

                    for netns in this.Namespaces do
                        if File.Exists $"/run/netns/{netns}" then
                            removeNamespace netns

                    removeFolder this.Folder
                    lock living (fun () -> living.Remove this) |> ignore)

namespace Lightway.Lab

open System
open System.Collections.Generic
open System.IO
open System.Text.Json

/// Where the two programs are.
type Programs =
    { Server: string
      Client: string }

    /// Those of the same build as the running program: artifacts/bin/<project>/<configuration>/.
    static member OfThisBuild() =
        let here =
            DirectoryInfo(AppContext.BaseDirectory.TrimEnd Path.DirectorySeparatorChar)

        let find project name =
            let path = Path.Combine(here.Parent.Parent.FullName, project, here.Name, name)

            if not (File.Exists path) then
                raise (LabException $"{path} does not exist: build the solution first")

            path

        { Server = find "Lightway.Server" "lightway-server"
          Client = find "Lightway.Client" "lightway-client" }

/// What a set-up has beside what `lightway-server init` writes: keys of server.yaml and client.yaml.
type Settings =
    { Expresslane: bool
      Offload: bool
      ServerKeys: (string * string) list
      ClientKeys: (string * string) list }

/// A reading of the server: its counters by name, and its CPU time in seconds.
[<NoComparison>]
type Reading =
    { Counters: IReadOnlyDictionary<string, int64>
      CpuSeconds: float }

    /// Growth of a counter since an earlier reading of the same process.
    member this.Since (earlier: Reading) (name: string) : int64 =
        match this.Counters.TryGetValue name, earlier.Counters.TryGetValue name with
        | (true, now), (true, before) -> now - before
        | _ -> raise (LabException $"the server has no counter {name}")

/// A server and a client that `lightway-server init` has made ready, each a process in its namespace of the topology.
/// The lab does what the operator would: it sets up the server's TUN device and the client's route to the remote.
type Vpn(topology: Topology, programs: Programs, settings: Settings) =
    static let startTime = TimeSpan.FromSeconds 20.0
    static let tun = "lightway" // on both sides
    static let tunAddress = "10.125.0.2/16" // what init recommends; brings the route to the pool along

    let folder = Path.Combine(topology.Folder, Path.GetRandomFileName())
    let path name = Path.Combine(folder, name)
    let metricsFile = path "metrics.json"
    let started = List<Child>()
    let mutable server: Child | null = null
    let mutable client: Child | null = null

    /// Gives top-level keys of a YAML file new values, in place or at the end.
    let edit (file: string) (keys: (string * string) list) =
        let changed = Map keys

        let isKept (line: string) =
            not (changed.ContainsKey((line.Split ':')[0]))

        let lines = File.ReadAllLines file |> Array.filter isKept |> List.ofArray
        File.WriteAllLines(file, lines @ [ for key, value in keys -> $"{key}: {value}" ]) // keeps the file's mode

    let valueOf (file: string) (key: string) =
        File.ReadAllLines file
        |> Array.pick (fun line ->
            if line.StartsWith(key + ":") then
                Some(line.Substring(key.Length + 1).Trim(' ', '"'))
            else
                None)

    let yes (value: bool) = if value then "true" else "false"

    do
        Shell.run programs.Server [ "init"; folder; "--address"; $"{Topology.ServerOutside}:27690" ]
        |> ignore

    let user = valueOf (path "client.yaml") "user"
    let password = valueOf (path "client.yaml") "password"

    do
        edit
            (path "server.yaml")
            ([ "bind_address", $"\"{Topology.ServerOutside}:27690\""
               "tun_name", tun
               "enable_expresslane", yes settings.Expresslane
               "enable_tun_offload", yes settings.Offload
               "metrics_file", metricsFile ]
             @ settings.ServerKeys)

        edit
            (path "client.yaml")
            ([ "tun_name", tun
               "enable_expresslane", yes settings.Expresslane
               "route_mode", "noexec"
               "dns_config_mode", "noexec" ]
             @ settings.ClientKeys)

    let launch netns name program =
        let child =
            Child.Start netns name program [ "--config-file"; path $"{name}.yaml" ] (path $"{name}{started.Count}.log")

        started.Add child
        child

    /// Waits for the program's TUN device.
    let awaitTun (netns: string) (child: Child) =
        child.Await startTime "its TUN device is there" (fun () ->
            match Shell.tryRun "ip" [ "-n"; netns; "link"; "show"; tun ] with
            | struct (0, _, _) -> true
            | _ -> false)

    /// Runs `ip` commands in the namespace; when one fails, the reason is likely in the program's log.
    let configure (netns: string) (child: Child) (commands: string list) =
        try
            for command in commands do
                Shell.ip $"-n {netns} {command}" |> ignore
        with LabException message ->
            child.WaitForExit(TimeSpan.FromSeconds 1.0) |> ignore // a program that is ending may have more to say
            raise (LabException $"{message}\nLog of the {child.Name}:\n{child.LogTail}")

    /// The server's process. Precondition: it was started.
    member _.Server = server
    /// The client's process. Precondition: it was started.
    member _.Client = client

    /// Where the files of the set-up are.
    member _.Folder = folder

    member _.User = user

    /// The password that `init` drew for the client.
    member _.Password = password

    /// Gives keys of client.yaml new values, for the next start.
    member _.SetClient(keys: (string * string) list) = edit (path "client.yaml") keys

    /// Starts the server and waits for nothing.
    member _.LaunchServer() =
        server <- launch topology.Server "server" programs.Server

    /// Starts the client and waits for nothing.
    member _.LaunchClient() =
        client <- launch topology.Client "client" programs.Client

    /// Starts the server and sets up its TUN device. Raises LabException when it does not come up.
    member this.StartServer() =
        this.LaunchServer()
        server.Await startTime "it serves" (fun () -> server.Log.Contains "serving udp")

        let commands =
            [ $"addr add {tunAddress} dev {tun}"; $"link set {tun} mtu 1350 txqueuelen 10000 up" ]

        configure topology.Server server commands

    /// Starts the client, and sends the remote's network its way. Raises LabException when it makes no TUN device.
    member this.StartClient() =
        this.LaunchClient()
        awaitTun topology.Client client

        let commands =
            [ $"link set {tun} up"; $"route replace {Topology.RemoteNetwork} dev {tun}" ]

        configure topology.Client client commands

    /// Waits until the remote answers the client's ping through the tunnel. Raises LabException when it does not.
    member _.AwaitOnline() =
        client.Await startTime "a ping came back through the tunnel" (fun () ->
            Transfer.ping topology.Client Topology.Remote 1 56 = 1)

    /// Starts both, and waits until the tunnel carries packets.
    member this.Start() =
        this.StartServer()
        this.StartClient()
        this.AwaitOnline()

    /// Has the server write its counters (SIGUSR1), and reads them.
    member _.Read() : Reading =
        File.Delete metricsFile
        server.Signal Netns.Signal.User1
        server.Await startTime "it wrote its counters" (fun () -> File.Exists metricsFile)

        { Counters = JsonSerializer.Deserialize<Dictionary<string, int64>>(File.ReadAllText metricsFile)
          CpuSeconds = server.CpuSeconds }

    interface IDisposable with
        member _.Dispose() =
            for child in Seq.rev started do
                (child :> IDisposable).Dispose()

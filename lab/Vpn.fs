namespace Lightway.Lab

open System
open System.Collections.Concurrent
open System.Collections.Generic
open System.IO
open System.Text.Json
open System.Text.RegularExpressions

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

[<RequireQualifiedAccess>]
module private Keys =
    let private known = ConcurrentDictionary<string, Set<string>>()

    let private read (program: string) =
        let struct (_, output, _) = Shell.tryRun program [ "--help" ]

        Regex.Matches(output, "--([a-z][a-z0-9-]+)")
        |> Seq.map (fun flag -> flag.Groups[1].Value.Replace('-', '_'))
        |> Set.ofSeq

    /// Every implementation needs them, and some do not name them in their help page, as passwords are not for flags.
    let private neededByServer =
        set [ "mode"; "bind_address"; "server_cert"; "server_key"; "user_db" ]

    let private neededByClient = set [ "server"; "mode"; "ca_cert"; "user"; "password" ]

    /// Keys that a server knows: those of the flags of its help page, and those that it needs.
    let ofServer (program: string) : Set<string> =
        Set.union neededByServer (known.GetOrAdd(program, read))

    /// Keys that a client knows.
    let ofClient (program: string) : Set<string> =
        Set.union neededByClient (known.GetOrAdd(program, read))

/// Keys of server.yaml and client.yaml that a set-up has besides those that `lightway-server init` writes.
type Settings =
    { Expresslane: bool
      Offload: bool // at the server, and at the client if it has the option
      ServerKeys: (string * string) list
      ClientKeys: (string * string) list }

/// A reading of a program: its counters by name, and its CPU time in seconds.
[<NoComparison>]
type Reading =
    { Counters: IReadOnlyDictionary<string, int64>
      CpuSeconds: float }

    /// Growth of a counter since an earlier reading of the same process.
    member this.Since (earlier: Reading) (name: string) : int64 =
        match this.Counters.TryGetValue name, earlier.Counters.TryGetValue name with
        | (true, now), (true, before) -> now - before
        | _ -> raise (LabException $"the program has no counter {name}")

/// A server and its clients that `lightway-server init` has made ready, each a process in its namespace of the topology.
/// The lab does what the operator would: it sets up the server's TUN device and the clients' route to the remote.
///
/// Either program may be another implementation that takes the same files. It is given the keys that its help page
/// names and those that every implementation needs, and no others.
type Vpn(topology: Topology, programs: Programs, settings: Settings) =
    static let startTime = TimeSpan.FromSeconds 60.0
    static let tun = "lightway" // on both sides
    static let tunAddress = "10.125.0.2/16" // what init recommends; brings the route to the pool along

    let folder = Path.Combine(topology.Folder, Path.GetRandomFileName())
    let path name = Path.Combine(folder, name)
    let state = path "state" // what the programs write

    let metricsOf name =
        Path.Combine(state, $"{name}.metrics.json")

    let serverKeys = Keys.ofServer programs.Server
    let clientKeys = Keys.ofClient programs.Client
    let started = List<Child>()
    let mutable server: Child | null = null
    let clients: (Child | null)[] = Array.create topology.Clients.Length null

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

    /// Takes keys out of a YAML file that the program would refuse.
    let keepKnown (known: Set<string>) (file: string) =
        let isKept (line: string) =
            line = "" || line.StartsWith '#' || known.Contains((line.Split ':')[0])

        File.WriteAllLines(file, File.ReadAllLines file |> Array.filter isKept)

    let yes (value: bool) = if value then "true" else "false"

    do
        Shell.run (Programs.OfThisBuild().Server) [ "init"; folder; "--address"; $"{Topology.ServerOutside}:27690" ]
        |> ignore

        Directory.CreateDirectory state |> ignore

    let user = valueOf (path "client.yaml") "user"
    let password = valueOf (path "client.yaml") "password"

    do
        edit
            (path "server.yaml")
            ([ "bind_address", $"\"{Topology.ServerOutside}:27690\""
               "tun_name", tun
               "enable_expresslane", yes settings.Expresslane
               "enable_tun_offload", yes settings.Offload
               "metrics_file", metricsOf "server" ])

        keepKnown serverKeys (path "server.yaml")
        edit (path "server.yaml") settings.ServerKeys

        edit
            (path "client.yaml")
            ([ "tun_name", tun
               "enable_expresslane", yes settings.Expresslane
               "enable_tun_offload", yes settings.Offload
               "route_mode", "noexec"
               "dns_config_mode", "noexec"
               "metrics_file", metricsOf "client" ])

        keepKnown clientKeys (path "client.yaml")
        edit (path "client.yaml") settings.ClientKeys

    /// Runs setpriv(1) with its arguments where any user may open /dev/net/tun (c 10 200; Documentation/networking/tuntap.rst),
    /// which not every machine allows. `ip netns exec` gives each program mounts of its own: no other process sees these.
    let openTunNode =
        "mount -t tmpfs tmpfs /dev/net && mknod -m 666 /dev/net/tun c 10 200 && exec setpriv \"$@\""

    let launch netns name (command: string list) =
        let arguments = List.tail command @ [ "--config-file"; path $"{name}.yaml" ]

        let child =
            Child.Start netns name (List.head command) arguments (path $"{name}.{started.Count}.log")

        started.Add child
        child

    let nameOf number =
        if number = 0 then "client" else $"client{number}"

    /// Our server says so; another one is taken at its socket (/proc/net/udp: the local address, its port in hexadecimal).
    let isServing (child: Child) =
        if programs.Server = Programs.OfThisBuild().Server then
            child.Log.Contains "serving "
        else
            File.ReadAllText($"/proc/{child.Pid}/net/udp").Contains ":6C2A " // 27690

    let hasTun (netns: string) =
        match Shell.tryRun "ip" [ "-n"; netns; "link"; "show"; tun ] with
        | struct (0, _, _) -> true
        | _ -> false

    /// Waits for the program's TUN device.
    let awaitTun (netns: string) (child: Child) =
        child.Await startTime "its TUN device is there" (fun () -> hasTun netns)

    /// Waits until the client's device is up, the last step of making it: when it gets its addresses, the kernel forgets
    /// every route through it (SIOCSIFDSTADDR takes the only address away and puts it back). Other clients may leave that
    /// to their users.
    let awaitUp (netns: string) (child: Child) =
        let isOurs = programs.Client = Programs.OfThisBuild().Client

        let isUp () =
            match Shell.tryRun "ip" [ "-n"; netns; "-o"; "link"; "show"; "dev"; tun; "up" ] with
            | struct (0, output, _) -> output <> ""
            | _ -> false

        Wait.until (if isOurs then startTime else TimeSpan.FromSeconds 3.0) (fun () -> child.HasExited || isUp ())
        |> ignore

    /// A device may outlive its program for a moment: what is done to it then is lost with it. A persistent one stays.
    let awaitNoTun (netns: string) =
        Wait.until (TimeSpan.FromSeconds 2.0) (fun () -> not (hasTun netns)) |> ignore

    /// A client's file is that of the first with another place for its counters.
    let launchClient number =
        let name = nameOf number

        if number > 0 then
            File.Copy(path "client.yaml", path $"{name}.yaml", overwrite = true)

            if clientKeys.Contains "metrics_file" then
                edit (path $"{name}.yaml") [ "metrics_file", metricsOf name ]

        if not (isNull clients[number]) then
            awaitNoTun topology.Clients[number]

        clients[number] <- launch topology.Clients[number] name [ programs.Client ]

    /// Runs `ip` commands in the namespace; when one fails, the reason is likely in the program's log.
    let configure (netns: string) (child: Child) (commands: string list) =
        try
            for command in commands do
                Shell.ip $"-n {netns} {command}" |> ignore
        with LabException message ->
            child.WaitForExit(TimeSpan.FromSeconds 1.0) |> ignore // a program that is ending may have more to say
            raise (LabException $"{message}\nLog of the {child.Name}:\n{child.LogTail}")

    /// Has a program write its counters (SIGUSR1), and reads them.
    let read name (child: Child) : Reading =
        let file = metricsOf name
        File.Delete file
        child.Signal Netns.Signal.User1
        child.Await startTime "it wrote its counters" (fun () -> File.Exists file)

        { Counters = JsonSerializer.Deserialize<Dictionary<string, int64>>(File.ReadAllText file)
          CpuSeconds = child.CpuSeconds }

    /// The server's process. Precondition: it was started.
    member _.Server = server
    /// The first client's process. Precondition: it was started.
    member _.Client = clients[0]
    /// All clients' processes. Precondition: they were started.
    member _.Clients = List.ofArray clients

    /// Name of the TUN device on every side.
    member _.Device = tun

    /// Where the files of the set-up are.
    member _.Folder = folder

    member _.User = user

    /// The password that `init` drew for the client.
    member _.Password = password

    /// Gives keys of client.yaml new values, for the next start.
    member _.SetClient(keys: (string * string) list) = edit (path "client.yaml") keys

    /// The user id that the server runs as, without any capability; None: as this process. For the next start.
    member val ServerUser: int option = None with get, set

    /// Gives keys of server.yaml new values, for the next start.
    member _.SetServer(keys: (string * string) list) = edit (path "server.yaml") keys

    /// Starts the server and waits for nothing.
    member this.LaunchServer() =
        let command =
            match this.ServerUser with
            | None -> [ programs.Server ]
            | Some user ->
                // The client stays root's, and trusts no file or directory of another user.
                let own =
                    [ "server.yaml"; "server.key"; "users.htpasswd"; "state" ] |> List.map path

                Shell.run "chmod" [ "a+x"; topology.Folder; folder ] |> ignore
                Shell.run "chown" ([ "-R"; string user ] @ own) |> ignore
                let identity = [ "--reuid"; string user; "--regid"; string user; "--clear-groups" ]
                let privileges = [ "--inh-caps=-all"; "--bounding-set=-all" ]
                [ "sh"; "-c"; openTunNode; "sh" ] @ identity @ privileges @ [ programs.Server ]

        server <- launch topology.Server "server" command

    /// Starts the first client and waits for nothing.
    member _.LaunchClient() = launchClient 0

    /// Starts the server and sets up its TUN device. Raises LabException when it does not come up.
    member this.StartServer() =
        this.LaunchServer()
        server.Await startTime "it serves" (fun () -> isServing server)
        awaitTun topology.Server server

        let commands =
            [ $"addr add {tunAddress} dev {tun}"; $"link set {tun} mtu 1350 txqueuelen 10000 up" ]

        configure topology.Server server commands

    /// Starts all clients, and sends the remote's network their way. Raises LabException when one makes no TUN device.
    member _.StartClient() =
        for number, netns in List.indexed topology.Clients do
            launchClient number
            awaitTun netns clients[number]
            awaitUp netns clients[number]

            let commands =
                [ $"link set {tun} up"; $"route replace {Topology.RemoteNetwork} dev {tun}" ]

            configure netns clients[number] commands

    /// Waits until the remote answers each client's ping through the tunnel. Raises LabException when it does not.
    member _.AwaitOnline() =
        for netns, client in Seq.zip topology.Clients clients do
            client.Await startTime "a ping came back through the tunnel" (fun () ->
                Transfer.ping netns Topology.Remote 1 56 = 1)

    /// Starts all, and waits until the tunnel carries packets.
    member this.Start() =
        this.StartServer()
        this.StartClient()
        this.AwaitOnline()

    /// Has the server write its counters (SIGUSR1), and reads them.
    member _.Read() : Reading = read "server" server

    /// The same for every client; None when the client cannot write its counters.
    member _.ReadClients() : Reading list option =
        if clientKeys.Contains "metrics_file" then
            Some [ for number in 0 .. clients.Length - 1 -> read (nameOf number) clients[number] ]
        else
            None

    /// The server, like the clients.
    member this.ReadServer() : Reading option =
        if serverKeys.Contains "metrics_file" then
            Some(this.Read())
        else
            None

    interface IDisposable with
        member _.Dispose() =
            for child in Seq.rev started do
                (child :> IDisposable).Dispose()

/// wireguard-go in the same topology, at both ends, with the same MTU inside: the yardstick of the matrix.
/// Used when `wireguard-go` and `wg` are on the path.
[<RequireQualifiedAccess>]
module Lightway.Bench.Matrix.Yardstick

open System
open System.IO
open Lightway.Lab

let private port = 27690
let private mtu = 1350
let private startTime = TimeSpan.FromSeconds 10.0
let private serverAddress = "10.125.0.2"
let private clientAddress number = $"10.125.1.{number + 1}"

let private onPath (program: string) =
    (Environment.GetEnvironmentVariable "PATH").Split ':'
    |> Array.exists (fun folder -> File.Exists(Path.Combine(folder, program)))

let isThere () = onPath "wireguard-go" && onPath "wg"

/// What names the version: Debian's package if it is one, as the program's own number is often behind.
let version () =
    let package =
        if onPath "dpkg-query" then
            match Shell.tryRun "dpkg-query" [ "-W"; "-f"; "${Version}"; "wireguard-go" ] with
            | struct (0, version, _) -> Some $"wireguard-go {version}"
            | _ -> None
        else
            None

    match package with
    | Some version -> version
    | None ->
        let struct (_, output, errors) = Shell.tryRun "wireguard-go" [ "--version" ]
        (output + errors).Trim().Split('\n')[0]

/// A private key in a file that only root can read, and the public key.
let private makeKey (topology: Topology) (name: string) =
    let file = Path.Combine(topology.Folder, $"{name}.key")
    File.WriteAllText(file, Shell.run "wg" [ "genkey" ])
    File.SetUnixFileMode(file, UnixFileMode.UserRead ||| UnixFileMode.UserWrite)
    let script = "wg pubkey <\"$1\""
    struct (file, (Shell.run "sh" [ "-c"; script; "sh"; file ]).Trim())

/// Its control sockets lie in /run/wireguard under the device's name, for all namespaces: so names differ.
let private launch (topology: Topology) (netns: string) (name: string) =
    let device = netns.Replace("lw", "wg") // 15 characters at most

    let child =
        Child.Start netns name "wireguard-go" [ "-f"; device ] (Path.Combine(topology.Folder, $"{name}.log"))

    child.Await startTime "its control socket is there" (fun () -> File.Exists $"/run/wireguard/{device}.sock")
    struct (child, device)

let private setUp (netns: string) (device: string) (address: string) =
    Shell.ip $"-n {netns} addr add {address} dev {device}" |> ignore
    Shell.ip $"-n {netns} link set {device} mtu {mtu} up" |> ignore

let private start (topology: Topology) (started: ResizeArray<Child>) : Contender =
    let wg netns arguments =
        Shell.inside netns "wg" arguments |> ignore

    let struct (server, serverDevice) = launch topology topology.Server "server"
    started.Add server
    let struct (serverKey, serverPublic) = makeKey topology "server"
    wg topology.Server [ "set"; serverDevice; "private-key"; serverKey; "listen-port"; string port ]
    setUp topology.Server serverDevice $"{serverAddress}/16"
    Shell.ip $"-n {topology.Server} link set {serverDevice} txqueuelen 10000" |> ignore // as ours has

    for number, netns in List.indexed topology.Clients do
        let struct (client, device) = launch topology netns $"client{number}"
        started.Add client
        let struct (key, publicKey) = makeKey topology $"client{number}"
        let peer = [ "set"; serverDevice; "peer"; publicKey ]
        wg topology.Server (peer @ [ "allowed-ips"; $"{clientAddress number}/32" ])
        let itself = [ "set"; device; "private-key"; key; "peer"; serverPublic ]
        let endpoint = [ "endpoint"; $"{Topology.ServerOutside}:{port}" ]
        wg netns (itself @ [ "allowed-ips"; "0.0.0.0/0" ] @ endpoint)
        setUp netns device $"{clientAddress number}/16"
        Shell.ip $"-n {netns} route replace {Topology.RemoteNetwork} dev {device}" |> ignore

        client.Await startTime "a ping came back through the tunnel" (fun () ->
            Transfer.ping netns Topology.Remote 1 56 = 1)

    { Name = "wireguard-go"
      Topology = topology
      Server = server
      Clients = List.ofSeq (Seq.tail started)
      ServerDevice = serverDevice
      ClientDevice = fun netns -> netns.Replace("lw", "wg")
      ReadServer = fun () -> None
      ReadClients = fun () -> None
      Stop =
        fun () ->
            for child in Seq.rev started do
                (child :> IDisposable).Dispose() }

/// A server and a number of clients. Raises LabException when they do not come up.
let contender (clients: int) : Contender =
    let topology = Topology.Create clients

    try
        start topology (ResizeArray())
    with _ ->
        (topology :> IDisposable).Dispose() // ends the processes too
        reraise ()

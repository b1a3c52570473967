/// A client's host whose only way out is a gateway, a server and a remote: namespaces, and the real programs in them.
module Lightway.Tests.ClientSite

open System
open System.IO
open System.Net
open System.Net.Sockets
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let patience = TimeSpan.FromSeconds 60.

let await what condition =
    Expect.isTrue (Wait.until patience condition) what

let settings =
    { Expresslane = true
      Offload = true
      ServerKeys = []
      ClientKeys = [ "route_mode", "default" ] }

/// The client's process in a namespace, if there is one.
let clientIn (netns: string) : int option =
    Shell.run "ip" [ "netns"; "pids"; netns ]
    |> _.Split('\n', StringSplitOptions.RemoveEmptyEntries)
    |> Array.map int
    |> Array.tryFind (fun pid ->
        try
            let program = File.ReadAllText($"/proc/{pid}/cmdline").Split('\000') |> Array.head
            program.EndsWith "lightway-client"
        with :? IOException ->
            false) // another program, which has ended meanwhile

/// The client's host reaches the server by way of a gateway, 192.0.2.254; a second one, 192.0.2.253, is there as well.
/// Both are addresses of the server's host.
type Site(settings: Settings) =
    let topology = Topology.Create()

    let gateway = "192.0.2.254"
    let other = "192.0.2.253"
    let ip arguments = Shell.ip arguments |> ignore

    do
        for address in [ gateway; other ] do
            ip $"-n {topology.Server} addr add {address}/24 dev outside"

        ip $"-n {topology.Client} addr flush dev outside"
        ip $"-n {topology.Client} addr add {Topology.ClientOutside}/32 dev outside"

        for address in [ gateway; other ] do
            ip $"-n {topology.Client} route add {address} dev outside"

        ip $"-n {topology.Client} route add default via {gateway}"

    let vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
    let mutable children: Child list = []

    member _.Topology = topology
    member _.Vpn = vpn
    member _.Gateway = gateway
    member _.OtherGateway = other

    /// Runs `ip` in the client's namespace.
    member _.Ip(arguments: string) =
        Shell.ip $"-n {topology.Client} {arguments}"

    /// Lines of `ip route` in the client's namespace.
    member this.Routes =
        this.Ip("route show").Split('\n', StringSplitOptions.RemoveEmptyEntries ||| StringSplitOptions.TrimEntries)
        |> List.ofArray

    /// The route to the server's address alone; "" if there is none.
    member this.ServerRoute =
        this.Routes |> List.tryFind _.StartsWith(Topology.ServerOutside + " ") |> Option.defaultValue ""

    /// A client has its TUN device; it may outlive its program for a moment.
    member _.HasDevice =
        match Shell.tryRun "ip" [ "-n"; topology.Client; "link"; "show"; vpn.Device ] with
        | struct (0, _, _) -> true
        | _ -> false

    member _.CarriesPing = Transfer.ping topology.Client Topology.Remote 1 56 = 1

    /// The only gateway is now the other one: the first is gone.
    member this.ChangeGateway() =
        ip $"-n {topology.Client} route replace default via {other}"
        ip $"-n {topology.Server} addr del {gateway}/24 dev outside"

    /// Starts the client behind another program's command line.
    member _.LaunchBehind(command: string list) : Child =
        let line = command @ [ Programs.OfThisBuild().Client ]

        let arguments =
            List.tail line @ [ "--config-file"; Path.Combine(vpn.Folder, "client.yaml") ]

        let log = Path.Combine(vpn.Folder, $"behind.{children.Length}.log")
        let child = Child.Start topology.Client "client" (List.head line) arguments log
        children <- child :: children
        child

    /// Starts the client on a terminal of its own; what the shell runs before it comes first. Process and exit code are
    /// script(1)'s, which ends with the client's code.
    member _.LaunchOnTerminal(before: string) : Child =
        let config = Path.Combine(vpn.Folder, "client.yaml")

        let command =
            $"{before} exec {Programs.OfThisBuild().Client} --config-file {config}"

        let log = Path.Combine(vpn.Folder, $"terminal.{children.Length}.log")

        let child =
            Child.Start topology.Client "client" "script" [ "-qefc"; command; "/dev/null" ] log

        children <- child :: children
        child

    /// The client that runs behind script(1).
    member _.ClientPid = clientIn topology.Client |> Option.get

    member this.AwaitOnline(client: Child) =
        client.Await patience "it is online" (fun () -> client.Log.Contains "online: " && this.CarriesPing)

    interface IDisposable with
        member _.Dispose() =
            for child in children do
                (child :> IDisposable).Dispose()

            (vpn :> IDisposable).Dispose()
            (topology :> IDisposable).Dispose()

let withSite settings (body: Site -> unit) =
    needsRoot ()
    use site = new Site(settings)
    body site

let withServer (body: Site -> unit) =
    withSite settings (fun site ->
        site.Vpn.StartServer()
        body site)

/// The client ends by itself; its exit code.
let ends (client: Child) =
    Expect.isTrue (client.WaitForExit patience) "it ends"
    client.ExitCode

/// The client's namespace has these routes again; those by a device go with it, perhaps a moment after the program.
let expectRoutes (site: Site) (routes: string list) =
    Wait.until patience (fun () -> site.Routes = routes) |> ignore
    Expect.equal site.Routes routes "routes"

/// The client is online by its first connection still. One ping alone may come too late.
let staysOnline (site: Site) (client: Child) =
    await "the tunnel carries packets" (fun () -> site.CarriesPing)
    Expect.equal (client.Log.Split("online: ").Length - 1) 1 "connections so far"

let heardGoodbye (site: Site) =
    await "the server hears the goodbye" (fun () -> site.Vpn.Server.Log.Contains "Goodbye")

/// Gives names addresses in the client's namespace: `ip netns exec` mounts /etc/netns/NAME/hosts over /etc/hosts.
let withHosts (site: Site) (lines: string list) (body: unit -> unit) =
    let folder = $"/etc/netns/{site.Topology.Client}"
    Directory.CreateDirectory folder |> ignore

    try
        File.WriteAllLines(Path.Combine(folder, "hosts"), lines)
        body ()
    finally
        Directory.Delete(folder, recursive = true)

/// IPv6 between the client's host and the server's, whose program listens on IPv4 only.
let addIPv6 (site: Site) =
    for netns, address in [ site.Topology.Server, "2001:db8:1::1"; site.Topology.Client, "2001:db8:1::2" ] do
        Shell.ip $"-n {netns} addr add {address}/64 dev outside nodad" |> ignore

/// What comes to the server's host by its outside device, as the other end of the uplink sees it, by kind. The tunnel's own
/// datagrams are none of these, nor is neighbour discovery.
type Uplink(site: Site) =
    let netns = site.Topology.Server

    let rules =
        $"""table inet uplink {{
            counter remote {{ }}
            counter ipv6 {{ }}
            counter dhcp {{ }}
            counter other {{ }}
            chain arriving {{
                type filter hook prerouting priority -300;
                iifname != "outside" return
                ip daddr {Topology.ServerOutside} meta l4proto {{ tcp, udp }} th dport 27690 return
                ip6 daddr 2001:db8:2::/64 meta l4proto {{ tcp, udp }} th dport 27690 return
                ip daddr {Topology.RemoteNetwork} counter name remote
                udp sport 68 udp dport 67 counter name dhcp return
                meta nfproto ipv4 counter name other
                icmpv6 type {{ nd-router-solicit, nd-neighbor-solicit, nd-neighbor-advert, mld2-listener-report }} return
                ip6 daddr != {{ 2001:db8:1::/64, fe80::/10 }} counter name ipv6
            }}
        }}"""

    do
        let file = Path.Combine(site.Topology.Folder, "uplink.nft")
        File.WriteAllText(file, rules)
        Shell.inside netns "nft" [ "-f"; file ] |> ignore

    let read (name: string) =
        let text = Shell.inside netns "nft" [ "list"; "counter"; "inet"; "uplink"; name ]
        int64 (Regex.Match(text, @"packets (\d+)").Groups[1].Value)

    /// Packets for the remote, in the clear.
    member _.Remote = read "remote"
    /// IPv6, but for local addresses.
    member _.IPv6 = read "ipv6"
    /// Requests of a DHCP client.
    member _.Dhcp = read "dhcp"
    /// Everything else of IPv4, with the packets for the remote.
    member _.Other = read "other"

/// Sends to the remote by ICMP, UDP and TCP, whether it may or not.
let speak (site: Site) (address: string) =
    Shell.tryRun
        "ip"
        [ "netns"; "exec"; site.Topology.Client; "ping"; "-n"; "-c"; "2"; "-i"; "0.05"; "-W"; "1"; address ]
    |> ignore

    Netns.run site.Topology.Client (fun () ->
        let family = IPAddress.Parse(address).AddressFamily

        try
            use udp = new UdpClient(family)
            udp.Send([| 1uy |], 1, IPEndPoint(IPAddress.Parse address, 53)) |> ignore
        with :? SocketException ->
            ()

        try
            use tcp = new Socket(family, SocketType.Stream, ProtocolType.Tcp, Blocking = false)
            tcp.Connect(IPAddress.Parse address, 443)
        with :? SocketException ->
            ())

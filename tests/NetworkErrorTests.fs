/// What the network says about packets in the tunnel reaches whoever sent them: ICMP errors of routers and hosts. The real
/// programs in real namespaces. Needs root.
module Lightway.Tests.NetworkErrorTests

open System
open System.Net
open System.Net.Sockets
open System.Text.RegularExpressions
open Expecto
open Lightway.Lab
open Lightway.Tests.Checks

let private remote (topology: Topology) =
    { Netns = topology.RemoteHost
      Address = Topology.Remote }

let private patience = TimeSpan.FromSeconds 30.

/// The addresses that traceroute(8) shows, one per hop; "*" where none answered in time.
let private hops (netns: string) (kind: string list) (address: string) =
    let line = Regex(@"^ *\d+ +(\S+)", RegexOptions.Multiline)
    let arguments = [ "-n"; "-q"; "1"; "-N"; "1"; "-w"; "2"; "-m"; "4" ]

    [ for hop in line.Matches(Shell.inside netns "traceroute" (kind @ arguments @ [ address ])) do
          hop.Groups[1].Value ]

let private udp () =
    new Socket(AddressFamily.InterNetwork, SocketType.Dgram, ProtocolType.Udp, ReceiveTimeout = 10_000)

/// What a connected UDP socket in `netns` hears about a datagram to a port that nobody listens on.
let private errorOf (netns: string) (closed: EndPoint) =
    Netns.run netns (fun () ->
        use socket = udp ()
        socket.Connect closed
        socket.Send [| 1uy |] |> ignore

        try
            socket.Receive(Array.zeroCreate<byte> 1) |> ignore
            SocketError.Success
        with :? SocketException as error ->
            error.SocketErrorCode)

/// The same, asked again when nothing has come in time.
let private expectRefused (netns: string) (closed: EndPoint) (meaning: string) =
    let mutable heard = SocketError.TimedOut
    let mutable attempts = 3

    while heard = SocketError.TimedOut && attempts > 0 do
        heard <- errorOf netns closed
        attempts <- attempts - 1

    Expect.equal heard SocketError.ConnectionRefused meaning

/// The address that the client has outside the tunnel, as the remote sees it.
let addressAtRemote (topology: Topology) : IPAddress =
    use here =
        Netns.run topology.RemoteHost (fun () ->
            let socket = udp ()
            socket.Bind(IPEndPoint(IPAddress.Parse Topology.Remote, 0))
            socket)

    Netns.run topology.Client (fun () ->
        use socket = udp ()
        socket.SendTo([| 1uy |], here.LocalEndPoint) |> ignore)

    let mutable peer: EndPoint = IPEndPoint(IPAddress.Any, 0)
    here.ReceiveFrom(Array.zeroCreate<byte> 1, &peer) |> ignore
    (peer :?> IPEndPoint).Address

/// What the kernel in `netns` has learned about the path to an address; None: nothing.
let private pathMtu (netns: string) (address: string) =
    let found = Regex.Match(Shell.ip $"-n {netns} route get {address}", @"\bmtu (\d+)")

    if found.Success then
        Some(int found.Groups[1].Value)
    else
        None

let private mode offload =
    let site =
        lazy
            (let topology = Topology.Create()

             let settings =
                 { Expresslane = true
                   Offload = offload
                   ServerKeys = []
                   ClientKeys = [] }

             let vpn = new Vpn(topology, Programs.OfThisBuild(), settings)
             vpn.Start()
             topology, vpn)

    let step title (body: Topology -> Vpn -> unit) =
        test title {
            needsRoot ()
            site.Value ||> body
        }

    testSequenced (
        testList
            $"""offload {if offload then "on" else "off"}"""
            [ for name, kind in [ "UDP", []; "TCP", [ "-T" ]; "ICMP", [ "-I" ] ] do
                  step $"traceroute by {name} shows the server and the remote" (fun topology _ ->
                      let server = "10.125.0.2"
                      let found = ref []

                      let isShown () =
                          found.Value <- hops topology.Client kind Topology.Remote
                          found.Value = [ server; Topology.Remote ]

                      Wait.until patience isShown |> ignore
                      Expect.equal found.Value [ server; Topology.Remote ] "hops")

              step "a closed UDP port of the remote is reported to the client" (fun topology _ ->
                  let closed = IPEndPoint(IPAddress.Parse Topology.Remote, 9)
                  expectRefused topology.Client closed "the client's socket")

              step "a closed UDP port of the client is reported to the remote" (fun topology _ ->
                  let closed = IPEndPoint(addressAtRemote topology, 9)
                  expectRefused topology.RemoteHost closed "the remote's socket")

              step
                  "a TCP upload of 100 MB finds out that the uplink behind the server has an MTU of 1280, without a stall above 1 s"
                  (fun topology vpn ->
                      Shell.ip $"-n {topology.Server} link set remote mtu 1280" |> ignore
                      Expect.equal (pathMtu topology.Client Topology.Remote) None "before"

                      expectSteady
                          (fun () -> forgetPaths topology.Client)
                          (fun () -> Transfer.upload (remote topology) topology.Client (megabytes 100L))
                          (megabytes 100L)

                      Expect.equal (pathMtu topology.Client Topology.Remote) (Some 1280) "what the client has learned"

                      for netns in [ topology.Client; topology.Server; topology.RemoteHost ] do
                          Expect.equal (checksumErrors netns) 0L $"InCsumErrors of {netns}"

                      (vpn :> IDisposable).Dispose()
                      (topology :> IDisposable).Dispose()) ]
    )

let tests = testList "Network errors" [ mode true; mode false ]

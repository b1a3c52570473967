namespace Lightway.Options

open System.Collections.Generic
open System.Net
open System.Net.Sockets

/// A unicast route of the main table, IPv4 or IPv6, in the terms of rtnetlink(7).
[<Sealed>]
type Route(destination: IPNetwork, gateway: IPAddress | null, device: int, metric: uint32, protocol: byte) =
    member _.Destination = destination
    /// Null if the destination is on the link.
    member _.Gateway = gateway
    /// Index of the interface.
    member _.Device = device
    /// Of several routes to one destination the kernel takes the one with the lowest metric (RTA_PRIORITY).
    member _.Metric = metric
    /// What made the route (rtm_protocol).
    member _.Protocol = protocol

    override _.ToString() =
        let via =
            match gateway with
            | null -> ""
            | gateway -> $" via {gateway}"

        $"{destination}{via}"

/// The routes of a client: which ones it needs, and which of those in the table are its own. Nothing here changes a route.
[<RequireQualifiedAccess>]
module RoutePlan =
    /// rtm_protocol of all routes that a client makes. It is none of those that linux/rtnetlink.h and iproute2's rt_protos
    /// give to others.
    [<Literal>]
    let Protocol = 76uy

    let private network (text: string) = IPNetwork.Parse text

    /// More specific than any default route, so that the operator's default route stays as it is.
    let private everything = [ network "0.0.0.0/1"; network "128.0.0.0/1" ]

    let private localNetworks =
        [ "192.168.0.0/16"; "172.16.0.0/12"; "10.0.0.0/8"; "169.254.0.0/16"; "224.0.0.0/24" ]
        |> List.map network

    let isOwn (route: Route) : bool = route.Protocol = Protocol

    let private leadsTheSameWay (a: Route | null) (b: Route | null) =
        match a, b with
        | null, null -> true
        | NonNull a, NonNull b -> a.Device = b.Device && obj.Equals(a.Gateway, b.Gateway)
        | _ -> false

    /// True if packets leave by the same device and the same gateway.
    let isSameWay (a: Route | null, b: Route | null) : bool = leadsTheSameWay a b

    /// True if `route` is in the table, as it is wanted.
    let isPresent (table: Route seq, route: Route) : bool =
        table
        |> Seq.exists (fun present ->
            present.Destination = route.Destination
            && present.Metric = route.Metric
            && present.Protocol = route.Protocol
            && leadsTheSameWay present route)

    /// The way on which packets to `address` leave, as if there were neither the client's routes nor its device: the most
    /// specific route, of those the one with the lowest metric. Null if there is none.
    let wayTo (table: Route seq, address: IPAddress, ownDevice: int) : Route | null =
        let candidates =
            table
            |> Seq.filter (fun route ->
                not (isOwn route) && route.Device <> ownDevice && route.Destination.Contains address)
            |> Seq.sortBy (fun route -> struct (-route.Destination.PrefixLength, route.Metric))

        match Seq.tryHead candidates with
        | Some route -> route
        | None -> null

    /// The routes of a client, in the order in which they are made: the server keeps its way before the rest goes into the
    /// tunnel. IPv6 does not go into the tunnel, so a server with an IPv6 address needs no route.
    ///
    /// `way` is the present way to the server, or, for a server with an IPv6 address, the present default route of IPv4;
    /// null if there is none.
    let wanted
        (mode: RouteMode, server: IPAddress, way: Route | null, device: int, tunPeer: IPAddress, tunDns: IPAddress)
        : IReadOnlyList<Route> =
        let host (address: IPAddress) = IPNetwork(address, 32)

        let inside (destination: IPNetwork, gateway: IPAddress | null) =
            Route(destination, gateway, device, 0u, Protocol)

        let outside (destination: IPNetwork) =
            match way with
            | null -> []
            | way -> [ Route(destination, way.Gateway, way.Device, 0u, Protocol) ]

        [ if mode <> RouteMode.NoExec then
              if server.AddressFamily = AddressFamily.InterNetwork then
                  yield! outside (host server)

              if mode = RouteMode.Lan then
                  yield! List.collect outside localNetworks

              inside (host tunDns, null)

              for destination in everything do
                  inside (destination, tunPeer) ]

/// The order in which a client tries the addresses of its server's name.
[<RequireQualifiedAccess>]
module AddressOrder =
    /// Law: a permutation of its input without repetitions; the first address stays first, each family keeps its order, and
    /// the families alternate as long as both have addresses (RFC 8305 §4). The input is sorted by RFC 6724, as
    /// getaddrinfo(3) does.
    let alternate (addresses: IPAddress seq) : IReadOnlyList<IPAddress> =
        let distinct = addresses |> Seq.distinct |> List.ofSeq

        let rec weave (first: IPAddress list) (second: IPAddress list) =
            match first, second with
            | [], rest
            | rest, [] -> rest
            | next :: first, _ -> next :: weave second first

        match distinct with
        | [] -> []
        | first :: _ ->
            let same, other =
                distinct |> List.partition (fun address -> address.AddressFamily = first.AddressFamily)

            weave same other

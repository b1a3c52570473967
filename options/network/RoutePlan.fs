namespace Lightway.Options

open System.Collections.Generic
open System.Net
open System.Net.Sockets

/// A route of the main table, IPv4 or IPv6, in the terms of rtnetlink(7): it leads to a device, or, if `isUnreachable`,
/// refuses what it matches.
[<Sealed>]
type Route
    (
        destination: IPNetwork,
        gateway: IPAddress | null,
        device: int,
        metric: uint32,
        protocol: byte,
        isUnreachable: bool,
        source: IPAddress | null
    ) =
    /// A unicast route.
    new(destination, gateway, device, metric, protocol) =
        Route(destination, gateway, device, metric, protocol, false, null)

    member _.Destination = destination
    /// Null if the destination is on the link.
    member _.Gateway = gateway
    /// Index of the interface; 0 for a route without one.
    member _.Device = device
    /// Of several routes to one destination the kernel takes the one with the lowest metric (RTA_PRIORITY).
    member _.Metric = metric
    /// What made the route (rtm_protocol).
    member _.Protocol = protocol
    /// Packets get no further: their sender is told "host unreachable" (RTN_UNREACHABLE).
    member _.IsUnreachable = isUnreachable
    /// The source address of packets that take it (RTA_PREFSRC); null if the kernel did not name one.
    member _.Source = source

    override _.ToString() =
        let via =
            match gateway with
            | null -> ""
            | gateway -> $" via {gateway}"

        let kind = if isUnreachable then "unreachable " else ""
        $"{kind}{destination}{via}"

/// What the routes of a client follow from.
[<NoComparison; NoEquality>]
type RouteWishes =
    {
        Mode: RouteMode
        /// IPv4 or IPv6.
        Server: IPAddress
        /// The present way to the server; null if there is none.
        Way: Route | null
        /// The present way of IPv4, for local networks; null if there is none.
        LocalWay: Route | null
        /// The same of IPv6.
        LocalWay6: Route | null
        /// Index of the TUN device.
        Device: int
        TunPeer: IPAddress
        TunDns: IPAddress
        /// IPv6 does not go through the tunnel; true: nor does it pass beside it.
        BlocksIPv6: bool
    }

/// The routes of a client: which ones it needs, and which of those in the table are its own. Nothing here changes a route.
[<RequireQualifiedAccess>]
module RoutePlan =
    /// rtm_protocol of all routes that a client makes, and ifa_proto of its addresses. It is none of those that
    /// linux/rtnetlink.h and iproute2's rt_protos give to others.
    [<Literal>]
    let Protocol = 76uy

    /// The metric that the kernel gives to a route of IPv6 without one (IP6_RT_PRIO_USER of linux/ipv6_route.h).
    [<Literal>]
    let MetricIPv6 = 1024u

    /// The highest metric but one: any other route to the same destination comes first.
    [<Literal>]
    let LastMetric = 0xFFFFFFFEu

    let private network (text: string) = IPNetwork.Parse text

    /// More specific than any default route, so that the operator's default route stays as it is.
    let private everything = [ network "0.0.0.0/1"; network "128.0.0.0/1" ]
    let private everything6 = [ network "::/1"; network "8000::/1" ]

    /// What mode lan leaves outside the tunnel.
    let localNetworks: IReadOnlyList<IPNetwork> =
        [ "192.168.0.0/16"; "172.16.0.0/12"; "10.0.0.0/8"; "169.254.0.0/16"; "224.0.0.0/24" ]
        |> List.map network
        :> _

    /// The same of IPv6: unique local addresses (RFC 4193). Link-local ones have routes that are more specific anyway.
    let localNetworks6: IReadOnlyList<IPNetwork> = [ network "fc00::/7" ] :> _

    let isOwn (route: Route) : bool = route.Protocol = Protocol

    let private leadsTheSameWay (a: Route | null) (b: Route | null) =
        match a, b with
        | null, null -> true
        | NonNull a, NonNull b -> a.Device = b.Device && obj.Equals(a.Gateway, b.Gateway)
        | _ -> false

    /// True if packets leave by the same device and the same gateway.
    let isSameWay (a: Route | null, b: Route | null) : bool = leadsTheSameWay a b

    /// True if packets leave by the same device and gateway, from the same address.
    let isSamePath (a: Route | null, b: Route | null) : bool =
        leadsTheSameWay a b
        && match a, b with
           | NonNull a, NonNull b -> obj.Equals(a.Source, b.Source)
           | _ -> true

    /// True if `route` is in the table, as it is wanted.
    let isPresent (table: Route seq, route: Route) : bool =
        table
        |> Seq.exists (fun present ->
            present.Destination = route.Destination
            && present.Metric = route.Metric
            && present.Protocol = route.Protocol
            && present.IsUnreachable = route.IsUnreachable
            // The kernel gives unreachable routes of IPv6 to the loopback device.
            && (route.IsUnreachable || leadsTheSameWay present route))

    /// The way on which packets to `address` leave, as if there were neither the client's routes nor its device: the most
    /// specific route, of those the one with the lowest metric. Null if there is none.
    let wayTo (table: Route seq, address: IPAddress, ownDevice: int) : Route | null =
        let candidates =
            table
            |> Seq.filter (fun route ->
                not (isOwn route)
                && not route.IsUnreachable
                && route.Device <> ownDevice
                && route.Destination.Contains address)
            |> Seq.sortBy (fun route -> struct (-route.Destination.PrefixLength, route.Metric))

        match Seq.tryHead candidates with
        | Some route -> route
        | None -> null

    /// A route of one address alone.
    let private host (address: IPAddress) =
        IPNetwork(
            address,
            (if address.AddressFamily = AddressFamily.InterNetworkV6 then
                 128
             else
                 32)
        )

    let private metricOf (destination: IPNetwork) =
        if destination.BaseAddress.AddressFamily = AddressFamily.InterNetworkV6 then
            MetricIPv6
        else
            0u

    /// The route to a server, by `way`.
    let hostRoute (server: IPAddress, way: Route) : Route =
        let destination = host server
        Route(destination, way.Gateway, way.Device, metricOf destination, Protocol)

    let private unreachable (destination: IPNetwork) (metric: uint32) =
        Route(destination, null, 0, metric, Protocol, true, null)

    /// The routes of a client, in the order in which they are made: the server keeps its way before the rest goes into the
    /// tunnel. Should that way go, with its link for example, the tunnel's own datagrams meet an unreachable route and
    /// not the tunnel.
    let wanted (wishes: RouteWishes) : IReadOnlyList<Route> =
        let inside (destination: IPNetwork) (gateway: IPAddress | null) =
            Route(destination, gateway, wishes.Device, 0u, Protocol)

        let by (way: Route | null) (destination: IPNetwork) =
            match way with
            | null -> []
            | way -> [ Route(destination, way.Gateway, way.Device, metricOf destination, Protocol) ]

        let server = host wishes.Server

        [ if wishes.Mode <> RouteMode.NoExec then
              yield! by wishes.Way server
              unreachable server LastMetric

              if wishes.Mode = RouteMode.Lan then
                  yield! Seq.collect (by wishes.LocalWay) localNetworks
                  yield! Seq.collect (by wishes.LocalWay6) localNetworks6

              inside (host wishes.TunDns) null

              for destination in everything do
                  inside destination wishes.TunPeer

              if wishes.BlocksIPv6 then
                  for destination in everything6 do
                      unreachable destination MetricIPv6 ]

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

using System.Net;
using System.Net.Sockets;
using Lightway.Options;
using Lightway.Tunnel;
using Lightway.Tunnel.Udp;

namespace Lightway.Client.Sessions;

/// <summary>Finds the addresses of the client's servers: before the first round, and again while there is no connection.</summary>
internal sealed class ServerAddresses
{
    private readonly IReadOnlyList<ClientServer> _servers;
    private readonly HostNetwork _network;
    private readonly IReadOnlyList<IPAddress>[] _found;
    private readonly bool[] _isAsked; // a look-up runs; used by the worker

    /// <param name="usesMark">Rules of the operator decide about marked packets, which look-ups of routes do not follow.</param>
    /// <exception cref="IOException">No server has an address that this machine has a route to.</exception>
    /// <exception cref="OperationCanceledException">The program is to stop.</exception>
    public ServerAddresses(
        IReadOnlyList<ClientServer> servers,
        HostNetwork network,
        bool usesMark,
        CancellationToken stopping
    )
    {
        _servers = servers;
        _network = network;
        _isAsked = new bool[servers.Count];
        var results = ServerName.ResolveAll(
            servers.Select(server => server.Options),
            server => network.Resolve(server, stopping),
            stopping
        );
        _found =
        [
            .. servers.Select(
                (server, i) => Usable(server, results[i].Addresses, results[i].Problem, network, usesMark)
            ),
        ];
        if (Array.TrueForAll(_found, addresses => addresses.Count == 0))
        {
            throw new IOException(Problem(servers));
        }
    }

    /// <summary>For the kill switch: all servers at all of their addresses.</summary>
    public IEnumerable<AllowedServer> Allowed =>
        _servers.SelectMany((server, i) => _found[i].Select(address => HostNetwork.ServerAt(server.Options, address)));

    /// <summary>All addresses of servers over UDP or TCP.</summary>
    public IEnumerable<IPAddress> Of(TransportMode mode) =>
        _servers.SelectMany((server, i) => server.Options.Mode == mode ? _found[i] : []);

    /// <summary>Gives the servers the addresses that were found. An address that two of them have on one UDP socket serves the first.</summary>
    /// <param name="isDual">See <see cref="ClientServer.PeerOf"/>.</param>
    public void Offer(bool isDual)
    {
        var taken = new HashSet<PeerAddress>();
        foreach (var (server, addresses) in _servers.Zip(_found))
        {
            server.Offer(Peers(server, addresses, isDual, taken));
        }
    }

    /// <summary>
    /// Looks up, off the worker's thread, the names that may have other addresses by now; the next round uses what is found
    /// by then. While the tunnel is the way to every resolver, nothing will be found, and the known addresses stay.
    /// </summary>
    public void Refresh(WorkerContext worker, bool isDual, CancellationToken stopping)
    {
        for (var i = 0; i < _servers.Count; i++)
        {
            var number = i;
            if (!_servers[i].IsName || _isAsked[i])
            {
                continue;
            }
            _isAsked[i] = true;
            _ = Task.Run(
                () =>
                {
                    IReadOnlyList<IPAddress> found = [];
                    try
                    {
                        found = _network.Resolve(_servers[number].Options, stopping);
                    }
                    catch (Exception error) when (error is IOException or OperationCanceledException) { }
                    worker.Post(() =>
                    {
                        _isAsked[number] = false;
                        if (found.Count > 0)
                        {
                            _found[number] = found;
                            Offer(isDual);
                        }
                    });
                },
                CancellationToken.None
            );
        }
    }

    private static List<PeerAddress> Peers(
        ClientServer server,
        IReadOnlyList<IPAddress> addresses,
        bool isDual,
        HashSet<PeerAddress> taken
    )
    {
        var isUdp = server.Options.Mode == TransportMode.Udp;
        var peers = new List<PeerAddress>();
        foreach (var address in addresses)
        {
            var isServed = !isUdp || isDual || address.AddressFamily == AddressFamily.InterNetwork;
            var peer = server.PeerOf(address, isDual);
            if (isServed && (!isUdp || taken.Add(peer)))
            {
                peers.Add(peer);
            }
        }
        return peers;
    }

    private static IReadOnlyList<IPAddress> Usable(
        ClientServer server,
        IReadOnlyList<IPAddress> addresses,
        string? problem,
        HostNetwork network,
        bool usesMark
    )
    {
        var groups = addresses.ToLookup(address =>
            usesMark
                ? address.AddressFamily == AddressFamily.InterNetwork || Socket.OSSupportsIPv6
                : network.Reaches(address)
        );
        server.Unusable = [.. groups[false].Select(address => $"no route to {address}")];
        if (problem is not null)
        {
            server.Unusable = [problem];
        }
        return [.. groups[true]];
    }

    private static string Problem(IReadOnlyList<ClientServer> servers)
    {
        var problems = servers.Select(server =>
            server.Unusable is [var first, ..] && first.StartsWith("no route to ", StringComparison.Ordinal)
                ? $"server: {string.Join(", ", server.Unusable)}: check this machine's network, see ip route get {first["no route to ".Length..]}"
                : string.Join(", ", server.Unusable)
        );
        return string.Join("; ", problems);
    }
}

using System.Reflection;
using Lightway.Options;
using Lightway.Server.Sessions;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Workers;

namespace Lightway.Server.Control;

/// <summary>What a worker has, up to a second ago.</summary>
/// <param name="Load">Its share of a processor, 0 to 1.</param>
internal sealed record WorkerStatus(int Sessions, int Connections, double Load);

/// <summary>The offloads in use since the start; what the kernel has refused since is in the counters.</summary>
internal sealed record OffloadStatus(
    bool TunTso,
    bool TunUso,
    bool TunWritesTcp,
    bool TunWritesUdp,
    int UdpGsoSegments,
    bool UdpGro
);

/// <summary>The answer of <c>status</c>.</summary>
/// <param name="Started">UTC (RFC 3339).</param>
/// <param name="DrainingMs">Milliseconds until the sessions that are left are ended; null: the server takes new ones.</param>
/// <param name="Totals">Counters that say how much was done.</param>
/// <param name="Drops">Counters of <c>drops_total</c> that are not 0, the largest first.</param>
internal sealed record StatusAnswer(
    string Version,
    int Pid,
    string Started,
    long UptimeMs,
    string Mode,
    string Address,
    string Device,
    int Mtu,
    int Sessions,
    int Connections,
    int AddressesAssigned,
    int AddressesTotal,
    IReadOnlyList<WorkerStatus> Workers,
    OffloadStatus Offload,
    bool IsDraining,
    long? DrainingMs,
    IReadOnlyDictionary<string, long> Totals,
    IReadOnlyDictionary<string, long> Drops
)
{
    public bool Ok { get; init; } = true;
}

/// <summary>Puts the answer of <c>status</c> together. Safe from any thread.</summary>
/// <param name="address">Where clients come in.</param>
/// <param name="offload">What the kernel supports.</param>
internal sealed class Status(
    SharedState shared,
    IReadOnlyList<Worker> workers,
    IReadOnlyList<ConnectionManager> managers,
    TransportMode mode,
    string address,
    string device,
    OffloadStatus offload
)
{
    private static readonly string[] Totals =
    [
        "tun_to_client",
        "tun_from_client",
        "conn_online",
        "conn_closed",
        "conn_kicked",
        "conn_rejected_access_denied",
        "drops_total",
    ];
    private readonly DateTimeOffset _started = DateTimeOffset.UtcNow;
    private readonly long _startedAt = shared.Now();

    /// <summary>Version of this product, without the build's source revision.</summary>
    private static string Version =>
        typeof(Status)
            .Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()!
            .InformationalVersion.Split('+')[0];

    public StatusAnswer Answer()
    {
        var now = shared.Now();
        var censuses = managers.Select(manager => manager.Latest).ToArray();
        var counters = Counters.Sum(workers.Select(worker => worker.Context.Counters)).ToDictionary();
        return new StatusAnswer(
            Version,
            Environment.ProcessId,
            ControlCommands.Time(_started),
            now - _startedAt,
            mode == TransportMode.Both ? "udp and tcp"
                : mode == TransportMode.Udp ? "udp"
                : "tcp",
            address,
            device,
            workers[0].Context.InsideMtu,
            censuses.Sum(census => census.Online),
            censuses.Sum(census => census.Connections),
            shared.Pool.Assigned,
            shared.Pool.Capacity,
            [
                .. censuses.Select(census => new WorkerStatus(
                    census.Online,
                    census.Connections,
                    Math.Round(census.Load, 3)
                )),
            ],
            offload,
            shared.Draining.HasBegun,
            shared.Draining.HasBegun ? Math.Max(0, shared.Draining.DeadlineAt - now) : null,
            Totals.ToDictionary(name => name, name => counters[name]),
            Counters
                .DropNames.Where(name => counters[name] > 0)
                .OrderByDescending(name => counters[name])
                .ToDictionary(name => name, name => counters[name])
        );
    }
}

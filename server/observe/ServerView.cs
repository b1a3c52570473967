using Lightway.Server.Accounting;
using Lightway.Server.Addresses;
using Lightway.Server.Sessions;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Workers;

namespace Lightway.Server.Observe;

/// <summary>
/// What the pages show of a running server. Any thread: it reads what the workers count anyway, and they notice nothing.
/// </summary>
/// <param name="workers">All workers.</param>
/// <param name="managers">Their connections.</param>
/// <param name="others">Counters of other threads.</param>
public sealed class ServerView(
    IReadOnlyList<Worker> workers,
    IReadOnlyList<ConnectionManager> managers,
    IReadOnlyList<Counters> others,
    AddressPool pool,
    ServingState state
)
{
    private const long SilenceMs = 10_000; // a worker that works ticks once per second

    public IReadOnlyList<Worker> Workers => workers;

    public IReadOnlyList<SessionBook> Books => [.. managers.Select(manager => manager.Book)];

    public ServingState State => state;

    public int AddressesAssigned => pool.Assigned;

    public int AddressesInAll => pool.Capacity;

    public int Online => managers.Sum(manager => manager.Latest.Online);

    public int Connections => managers.Sum(manager => manager.Latest.Connections);

    public int Rotations => managers.Sum(manager => manager.Latest.Rotations);

    /// <summary>Clients of one worker.</summary>
    public int OnlineOf(int worker) => managers[worker].Latest.Online;

    public SessionUses Uses => SessionUses.Sum(managers.Select(manager => manager.Book.Uses));

    /// <summary>Of the workers, then those of other threads.</summary>
    public IEnumerable<Counters> Counters => workers.Select(worker => worker.Context.Counters).Concat(others);

    /// <summary>Sum over all threads.</summary>
    public long this[Counter counter] => Counters.Sum(counters => counters[counter]);

    /// <summary>The first worker that has not woken up for ten seconds; -1: none.</summary>
    public int StuckWorker
    {
        get
        {
            var since = Environment.TickCount64 - SilenceMs;
            for (var i = 0; state.IsServing && i < workers.Count; i++)
            {
                if (workers[i].Context.Now < since)
                {
                    return i;
                }
            }
            return -1;
        }
    }

    /// <summary>Name and number of each reason for drops.</summary>
    public IEnumerable<KeyValuePair<string, long>> Drops
    {
        get
        {
            foreach (
                var counter in Enum.GetValues<Counter>()
                    .Where(counter => counter >= Tunnel.Metrics.Counters.FirstDropped)
            )
            {
                yield return KeyValuePair.Create(Tunnel.Metrics.Counters.NameOf(counter), this[counter]);
            }
            foreach (var reason in SegmenterReason.All)
            {
                var sum = Counters.Sum(counters => counters[reason.Reason]);
                yield return KeyValuePair.Create(reason.FullName, sum);
            }
        }
    }
}

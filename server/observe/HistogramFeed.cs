using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Observe;

/// <summary>
/// Passes what histograms have observed since the last time on to another histogram that only takes values. For each range
/// these are the whole numbers next to its mean, as often as there were values: so counts and sums are exactly those of the
/// sources. One thread at a time.
/// </summary>
/// <param name="bounds">Those of each source.</param>
public sealed class HistogramFeed(IReadOnlyList<long> bounds)
{
    private readonly long[] _counts = new long[bounds.Count + 1];
    private readonly long[] _sums = new long[bounds.Count + 1];

    /// <param name="sources">The same each time.</param>
    /// <param name="observe">Takes a value and how often it was observed.</param>
    public void Update(IReadOnlyList<Histogram> sources, Action<long, long> observe)
    {
        for (var range = 0; range < _counts.Length; range++)
        {
            var (count, sum) = (-_counts[range], -_sums[range]);
            foreach (var source in sources)
            {
                var (itsCount, itsSum) = source.Read(range);
                count += itsCount;
                sum += itsSum;
            }
            if (count == 0)
            {
                continue;
            }
            var (value, larger) = Math.DivRem(sum, count);
            observe(value, count - larger);
            if (larger > 0)
            {
                observe(value + 1, larger);
            }
            _counts[range] += count;
            _sums[range] += sum;
        }
    }
}

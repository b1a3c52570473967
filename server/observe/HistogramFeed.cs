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

    /// <param name="sources">What they have observed never shrinks.</param>
    /// <param name="observe">Takes a value and how often it was observed.</param>
    public void Update(IReadOnlyList<Histogram> sources, Action<long, long> observe)
    {
        for (var range = 0; range < _counts.Length; range++)
        {
            var at = range;
            var count = sources.Sum(source => source.CountOf(at)) - _counts[range];
            if (count <= 0)
            {
                continue;
            }
            // A sum may be a moment behind its count: values stay in their range, and what is missing comes next time.
            var low = range == 0 ? 0 : bounds[range - 1] + 1;
            var high = range < bounds.Count ? bounds[range] : long.MaxValue;
            var sum = sources.Sum(source => source.SumOf(at)) - _sums[range];
            var (value, larger) = Math.DivRem(sum, count);
            if (sum < 0 || value < low || value >= high)
            {
                (value, larger) = (Math.Clamp(value, low, high), 0);
            }
            observe(value, count - larger);
            if (larger > 0)
            {
                observe(value + 1, larger);
            }
            _counts[range] += count;
            _sums[range] += (value * count) + larger;
        }
    }
}

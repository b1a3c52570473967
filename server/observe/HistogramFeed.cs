using Lightway.Tunnel.Metrics;

namespace Lightway.Server.Observe;

/// <summary>
/// Passes what histograms have observed since the last time on to another histogram that only takes values: for each range
/// their mean, as often as there were values. So counts and sums agree with the sources. One thread at a time.
/// </summary>
/// <param name="bounds">Those of each source.</param>
public sealed class HistogramFeed(IReadOnlyList<long> bounds)
{
    private readonly long[] _counts = new long[bounds.Count + 1];
    private readonly double[] _sums = new double[bounds.Count + 1];

    /// <param name="sources">What they have observed never shrinks.</param>
    /// <param name="observe">Takes a mean and the number of values.</param>
    public void Update(IReadOnlyList<Histogram> sources, Action<double, long> observe)
    {
        for (var range = 0; range < _counts.Length; range++)
        {
            var at = range;
            var count = sources.Sum(source => source.CountOf(at)) - _counts[range];
            if (count <= 0)
            {
                continue;
            }
            // A sum may be a moment behind its count: the mean stays in its range, and what is missing comes next time.
            var low = range == 0 ? 0 : bounds[range - 1] + 1.0; // values are whole numbers
            var high = range < bounds.Count ? bounds[range] : double.MaxValue;
            var mean = Math.Clamp((sources.Sum(source => source.SumOf(at)) - _sums[range]) / count, low, high);
            observe(mean, count);
            _counts[range] += count;
            _sums[range] += mean * count;
        }
    }
}

namespace Lightway.Tunnel.Metrics;

/// <summary>
/// How many values were observed in each of some ranges, and their sums. One thread observes; any thread reads (a count and
/// its sum may be a moment apart).
/// </summary>
/// <param name="bounds">Upper bounds of the ranges, each included, rising; one more range is for what is above the last.</param>
public sealed class Histogram(params long[] bounds)
{
    private readonly long[] _counts = new long[bounds.Length + 1];
    private readonly long[] _sums = new long[bounds.Length + 1];

    public IReadOnlyList<long> Bounds => bounds;

    /// <summary>Upper bounds 1, 2, 4 and so on up to <paramref name="last"/>, a power of two.</summary>
    public static Histogram OfPowers(int last) =>
        new([.. Enumerable.Range(0, 31).Select(power => 1L << power).TakeWhile(bound => bound <= last)]);

    public void Observe(long value)
    {
        var range = 0;
        while (range < bounds.Length && value > bounds[range])
        {
            range++;
        }
        _counts[range]++;
        _sums[range] += value;
    }

    /// <summary>Number of values in a range.</summary>
    public long CountOf(int range) => Volatile.Read(ref _counts[range]);

    /// <summary>Sum of the values in a range.</summary>
    public long SumOf(int range) => Volatile.Read(ref _sums[range]);
}

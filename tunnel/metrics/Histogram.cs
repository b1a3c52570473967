namespace Lightway.Tunnel.Metrics;

/// <summary>
/// How many values were observed in each of some ranges, and their sums. One thread observes, any thread reads.
/// </summary>
/// <param name="bounds">Upper bounds of the ranges, each included, rising; one more range is for what is above the last.</param>
public sealed class Histogram(params long[] bounds)
{
    private readonly Range[] _ranges = new Range[bounds.Length + 1];

    public IReadOnlyList<long> Bounds => bounds;

    /// <summary>Upper bounds 1, 2, 4 and so on up to <paramref name="last"/>, a power of two.</summary>
    public static Histogram OfPowers(int last) =>
        new([.. Enumerable.Range(0, 31).Select(power => 1L << power).TakeWhile(bound => bound <= last)]);

    public void Observe(long value)
    {
        var at = 0;
        while (at < bounds.Length && value > bounds[at])
        {
            at++;
        }
        // In this order for readers: begun, then the sum, then done.
        ref var range = ref _ranges[at];
        range.Begun++;
        Volatile.Write(ref range.Sum, range.Sum + value);
        Volatile.Write(ref range.Done, range.Done + 1);
    }

    /// <summary>Number of values in a range, and the sum of just these.</summary>
    public (long Count, long Sum) Read(int range)
    {
        ref var source = ref _ranges[range];
        var spin = new SpinWait();
        while (true)
        {
            // The sum has all values that were done, and no more if none was begun since.
            var done = Volatile.Read(ref source.Done);
            var sum = Volatile.Read(ref source.Sum);
            if (Volatile.Read(ref source.Begun) == done)
            {
                return (done, sum);
            }
            spin.SpinOnce();
        }
    }

    private struct Range
    {
        public long Begun;
        public long Sum;
        public long Done;
    }
}

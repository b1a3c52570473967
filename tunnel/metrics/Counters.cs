using System.Runtime.CompilerServices;
using System.Text;
using Lightway.Segmenter;

namespace Lightway.Tunnel.Metrics;

/// <summary>
/// One worker's counters. One thread adds; any thread reads (a value may be a moment old). The segmenter's drop reasons
/// follow the named counters.
/// </summary>
public sealed class Counters
{
    private const Counter FirstDrop = Counter.UdpParseWireFailed;
    private static readonly int s_named = Enum.GetValues<Counter>().Length;
    private static readonly string[] s_names = BuildNames();
    private readonly long[] _values = new long[s_named + DropReasonModule.count];

    /// <summary>Names of the counters that <c>drops_total</c> sums.</summary>
    public static IEnumerable<string> DropNames => s_names.Skip((int)FirstDrop).Where(name => name.Length > 0);

    /// <summary>Datagrams per system call of the inside to outside path.</summary>
    public Histogram DatagramsPerSend { get; } = Histogram.OfPowers(1024);

    /// <summary>Datagrams per run: segments that the kernel cuts from one buffer.</summary>
    public Histogram SegmentsPerRun { get; } = Histogram.OfPowers(64);

    /// <summary>Packets per read from the TUN: the segments of a superpacket, or one.</summary>
    public Histogram PacketsPerRead { get; } = Histogram.OfPowers(64);

    public void Add(Counter counter) => _values[(int)counter]++;

    public void Add(Counter counter, long amount) => _values[(int)counter] += amount;

    /// <summary>Counts a superpacket that the segmenter refused.</summary>
    public void Add(DropReason reason) => _values[s_named + (int)reason]++;

    public long this[Counter counter] => Volatile.Read(ref _values[(int)counter]);

    /// <summary>Its drops are those from here on, and the segmenter's reasons.</summary>
    public static Counter FirstDropped => FirstDrop;

    public long this[DropReason reason] => Volatile.Read(ref _values[s_named + (int)reason]);

    /// <summary>As metrics have it: snake case.</summary>
    public static string NameOf(Counter counter) => s_names[(int)counter];

    /// <summary>Name and value of every counter of <paramref name="workers"/>, summed, and totals derived from them.</summary>
    public static IReadOnlyList<KeyValuePair<string, long>> Sum(IEnumerable<Counters> workers)
    {
        var sums = new long[s_names.Length];
        foreach (var worker in workers)
        {
            for (var i = 0; i < sums.Length; i++)
            {
                sums[i] += Volatile.Read(ref worker._values[i]);
            }
        }
        long Of(Counter counter) => sums[(int)counter];
        var insideToOutside = Of(Counter.TunReads) + Of(Counter.UdpBatchSends);
        var rest =
            Of(Counter.UdpSends)
            - Of(Counter.UdpBatchSends)
            + Of(Counter.UdpReceives)
            + Of(Counter.TunWrites)
            + Of(Counter.EpollWaits);
        return
        [
            .. s_names.Select((name, i) => KeyValuePair.Create(name, sums[i])).Where(pair => pair.Key.Length > 0),
            KeyValuePair.Create("syscalls_inside_to_outside", insideToOutside),
            KeyValuePair.Create("syscalls_total", insideToOutside + rest),
            KeyValuePair.Create("drops_total", sums[(int)FirstDrop..].Sum()),
        ];
    }

    private static string[] BuildNames() =>
        [
            .. Enum.GetNames<Counter>().Select(SnakeCase),
            .. Enumerable.Range(0, DropReasonModule.count).Select(i => DropReasonModule.counterName((DropReason)i)),
        ];

    private static string SnakeCase(string name)
    {
        var text = new StringBuilder();
        foreach (var letter in name)
        {
            if (char.IsUpper(letter) && text.Length > 0)
            {
                text.Append('_');
            }
            text.Append(char.ToLowerInvariant(letter));
        }
        return text.ToString();
    }
}

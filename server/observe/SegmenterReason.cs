using Lightway.Segmenter;

namespace Lightway.Server.Observe;

/// <summary>A reason of the segmenter for refusing a superpacket, with the name of its metric.</summary>
/// <param name="Reason">The reason.</param>
/// <param name="Name">Name of the counter.</param>
/// <param name="Label">Value of its label "reason"; empty: it has none.</param>
public readonly record struct SegmenterReason(DropReason Reason, string Name, string Label)
{
    public static readonly IReadOnlyList<SegmenterReason> All =
    [
        .. Enumerable
            .Range(0, DropReasonModule.count)
            .Select(number => Of((DropReason)number))
            .Where(reason => reason.Name.Length > 0),
    ];

    /// <summary>Name and label in one word.</summary>
    public string FullName => Label.Length == 0 ? Name : $"{Name}_{Label}";

    private static SegmenterReason Of(DropReason reason)
    {
        var parts = DropReasonModule.counterName(reason).Split("{reason=\"", 2);
        return new SegmenterReason(reason, parts[0], parts.Length > 1 ? parts[1].TrimEnd('}').TrimEnd('"') : "");
    }
}

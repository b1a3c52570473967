namespace Lightway.Server.Observe;

/// <summary>Counters with labels, of events that are rare next to packets: handshakes and logins. Safe from any thread.</summary>
public sealed class LabelledCounts
{
    private readonly Lock _gate = new();
    private readonly Dictionary<Labelled, long> _values = [];

    /// <summary>All values so far.</summary>
    public KeyValuePair<Labelled, long>[] All
    {
        get
        {
            lock (_gate)
            {
                return [.. _values];
            }
        }
    }

    public void Add(in Labelled counter)
    {
        lock (_gate)
        {
            _values[counter] = _values.GetValueOrDefault(counter) + 1;
        }
    }
}

/// <summary>A counter and the values of its labels.</summary>
public readonly record struct Labelled(string Name, string First, string Second = "", string Third = "")
{
    /// <summary>As many values as the counter has labels.</summary>
    public string[] Values(int count) => new[] { First, Second, Third }[..count];
}

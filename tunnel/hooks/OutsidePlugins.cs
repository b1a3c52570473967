using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Hooks;

/// <summary>The outside plugins of one worker, at least one. One thread.</summary>
internal sealed class OutsidePlugins(IReadOnlyList<IOutsidePlugin> plugins, Counters counters)
{
    private readonly IOutsidePlugin[] _plugins = [.. plugins];

    /// <summary>Asks about a datagram that came in. False: it is counted, and to be dropped.</summary>
    public bool Ingress(Span<byte> datagram)
    {
        foreach (var plugin in _plugins)
        {
            if (plugin.Ingress(datagram) == PluginVerdict.Drop)
            {
                counters.Add(Counter.OutsidePluginDropped);
                return false;
            }
        }
        return true;
    }

    /// <summary>Asks about a datagram that goes out. False: it is counted, and to be dropped.</summary>
    public bool Egress(Span<byte> datagram)
    {
        for (var i = _plugins.Length - 1; i >= 0; i--)
        {
            if (_plugins[i].Egress(datagram) == PluginVerdict.Drop)
            {
                counters.Add(Counter.OutsidePluginDropped);
                return false;
            }
        }
        return true;
    }

    /// <summary>
    /// Asks about each datagram of a run that goes out. Those that are kept move together, so that the run is one still.
    /// </summary>
    /// <param name="run">Datagrams of <paramref name="stride"/> bytes; the last may be shorter.</param>
    /// <param name="count">Datagrams that are kept.</param>
    /// <returns>Bytes that are kept.</returns>
    public int Egress(Span<byte> run, int stride, out int count)
    {
        var kept = 0;
        count = 0;
        for (var at = 0; at < run.Length; at += stride)
        {
            var datagram = run.Slice(at, Math.Min(stride, run.Length - at));
            if (Egress(datagram))
            {
                datagram.CopyTo(run[kept..]);
                kept += datagram.Length;
                count++;
            }
        }
        return kept;
    }
}

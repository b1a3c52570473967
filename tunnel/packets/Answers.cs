using Lightway.Protocol;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Packets;

/// <summary>The answers that one datagram has got: one of each kind, so that nobody multiplies traffic or work.</summary>
internal ref struct Answers(Counters counters)
{
    private uint _given; // kinds of frames, a bit each

    /// <summary>False: a frame of this kind has been answered already; counted.</summary>
    public bool TryGive(FrameKind kind)
    {
        var bit = 1u << (int)kind;
        if ((_given & bit) != 0)
        {
            counters.Add(Counter.FrameRepeated);
            return false;
        }
        _given |= bit;
        return true;
    }
}

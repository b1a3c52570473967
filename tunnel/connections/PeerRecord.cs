using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>What a server remembers of the peer of one connection.</summary>
public sealed class PeerRecord
{
    private PeerShare _share;

    /// <summary>For <see cref="WorkerContext.Shares"/>.</summary>
    public ref PeerShare Share => ref _share;

    /// <summary>From when on a move is logged again, in ms.</summary>
    public long LogMovesAt { get; set; } = long.MinValue;

    /// <summary>It came while the server takes no new sessions.</summary>
    public bool IsTurnedAway { get; set; }
}

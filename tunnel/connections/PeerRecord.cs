using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>What a server remembers of the peer of one connection.</summary>
public sealed class PeerRecord
{
    private PeerShare _share;

    /// <summary>For <see cref="WorkerContext.Shares"/>.</summary>
    public ref PeerShare Share => ref _share;

    /// <summary>Who has logged in; empty before.</summary>
    public string User { get; set; } = "";

    /// <summary>Random name of the session for accounting, for life, never on the wire; empty before the login.</summary>
    public string Account { get; set; } = "";

    /// <summary>When the login succeeded, in UTC.</summary>
    public DateTime Since { get; set; }

    /// <summary>From when on a move is logged again, in ms.</summary>
    public long LogMovesAt { get; set; } = long.MinValue;

    /// <summary>It came while the server takes no new sessions.</summary>
    public bool IsTurnedAway { get; set; }
}

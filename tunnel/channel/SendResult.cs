namespace Lightway.Tunnel.Channel;

/// <summary>What became of a packet for the peer.</summary>
public enum SendResult
{
    /// <summary>Counted and gone.</summary>
    Dropped = 0,

    /// <summary>Part of the worker's batch.</summary>
    Accepted,

    /// <summary>The socket is full: offer the same packet again when it is writable.</summary>
    Blocked,
}

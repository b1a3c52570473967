namespace Lightway.Tunnel.Channel;

/// <summary>Outcome of offering a packet for the peer.</summary>
public enum SendResult
{
    /// <summary>The packet has been counted and dropped.</summary>
    Dropped = 0,

    /// <summary>The packet is part of the worker's batch.</summary>
    Accepted,

    /// <summary>The worker's socket is full: offer the same packet again when it is writable.</summary>
    Blocked,
}

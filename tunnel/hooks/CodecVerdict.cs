namespace Lightway.Tunnel.Hooks;

/// <summary>What a codec has done with a packet.</summary>
public enum CodecVerdict
{
    /// <summary>It has taken the packet: what it emits, now or in a later call, goes on in its stead.</summary>
    Taken = 0,

    /// <summary>The packet goes on as it is.</summary>
    Skipped,

    /// <summary>The packet is no use; it is dropped and counted.</summary>
    Failed,
}

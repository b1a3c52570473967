namespace Lightway.Tunnel.Hooks;

/// <summary>Takes packets that a plugin sends back into the TUN device.</summary>
internal interface IInsideReplies
{
    /// <summary>Puts the packet into the device, as if it had come from the peer. It is copied.</summary>
    void Reply(ReadOnlySpan<byte> packet);
}

namespace Lightway.Tunnel.Hooks;

/// <summary>
/// Sees the packets of one connection inside the tunnel. Plugins are asked in the order of their list on the way out, and in
/// the reverse order on the way in. Called on the worker's thread, per packet: it must neither block nor throw. The packets
/// belong to the caller.
/// </summary>
public interface IInsidePlugin
{
    /// <summary>
    /// Sees segments instead of superpackets. So do the plugins after it in the list, as a superpacket can be cut only once.
    /// Asked once.
    /// </summary>
    bool WantsSegments => false;

    /// <summary>On the way to the peer: read from the TUN device, not yet encoded or encrypted.</summary>
    PluginVerdict Ingress(in InsidePacket packet);

    /// <summary>On the way from the peer: decrypted and decoded, with the peer's addresses. An IPv4 packet, never a superpacket.</summary>
    /// <param name="packet">May be changed in place as long as its checksums stay right.</param>
    PluginVerdict Egress(Span<byte> packet);
}

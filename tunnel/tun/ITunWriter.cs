using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Tun;

/// <summary>Where packets from outside go: the TUN device, or a script in a test.</summary>
public interface ITunWriter
{
    /// <summary>Frames start with a virtio_net_hdr (10 bytes): superpackets can be written.</summary>
    bool HasVnetHeader { get; }

    /// <summary>Writes one plain IP packet in one system call. Returns 0, or -errno.</summary>
    int Write(ReadOnlySpan<byte> packet);

    /// <summary>Writes one frame, gathered from its pieces, in one system call; its first 10 bytes are the virtio_net_hdr.</summary>
    /// <returns>0, or -errno.</returns>
    int WriteGathered(ReadOnlySpan<IoVector> pieces);
}

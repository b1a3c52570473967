using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Tun;

/// <summary>Where inside packets come from: the TUN device, the mailbox, or a script in a test.</summary>
public interface ITunReader
{
    /// <summary>Frames start with a virtio_net_hdr (10 bytes).</summary>
    bool HasVnetHeader { get; }

    /// <summary>What a read counts as.</summary>
    Counter Reads => Counter.TunReads;

    /// <summary>Reads one frame.</summary>
    /// <returns>Its bytes, the virtio_net_hdr included; or -errno (EAGAIN: none waits).</returns>
    int Read(Span<byte> buffer);
}

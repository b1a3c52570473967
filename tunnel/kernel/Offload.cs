using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Kernel;

/// <summary>Which offloads may be used; each is an independent kill switch. Whether the kernel can is found out at start.</summary>
public sealed record Offload
{
    /// <summary>Everything off: one packet per system call.</summary>
    public static readonly Offload None = new()
    {
        TunTso = false,
        TunGroTcp = false,
        TunGroUdp = false,
        UdpGro = false,
        MaxSegments = 1,
    };

    /// <summary>Read TSO and USO superpackets from the TUN.</summary>
    public bool TunTso { get; init; } = true;

    /// <summary>Write TCP superpackets to the TUN.</summary>
    public bool TunGroTcp { get; init; } = true;

    /// <summary>Write UDP superpackets to the TUN.</summary>
    public bool TunGroUdp { get; init; } = true;

    /// <summary>Receive runs of datagrams as one buffer (UDP_GRO).</summary>
    public bool UdpGro { get; init; } = true;

    /// <summary>Datagrams in one send (UDP_SEGMENT); 1: each leaves by itself.</summary>
    public int MaxSegments { get; init; } = SendBatch.MaxSegments;

    /// <summary>Microseconds that a run of datagrams may take its peer, as measured; 0: no bound.</summary>
    public int MaxBurstMicroseconds { get; init; }

    /// <summary>Frames of the TUN need a virtio_net_hdr.</summary>
    public bool NeedsVnetHeader => TunTso || TunGroTcp || TunGroUdp;
}

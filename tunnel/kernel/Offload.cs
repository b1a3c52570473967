namespace Lightway.Tunnel.Kernel;

/// <summary>Which offloads may be used; each is an independent kill switch. Start-up finds out which of them work.</summary>
public sealed record Offload
{
    /// <summary>UDP_MAX_SEGMENTS of kernels before 6.9 (128 since; linux/udp.h).</summary>
    public const int UdpMaxSegments = 64;

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

    /// <summary>Datagrams per run (UDP_SEGMENT); 1: each leaves in a system call of its own.</summary>
    public int MaxSegments { get; init; } = UdpMaxSegments;

    /// <summary>Microseconds that the longest run takes at the worker's recent rate of sending; 0: no limit.</summary>
    public int MaxBurstMicroseconds { get; init; }

    /// <summary>The frames of the TUN device need a virtio_net_hdr.</summary>
    public bool NeedsVnetHeader => TunTso || TunGroTcp || TunGroUdp;
}

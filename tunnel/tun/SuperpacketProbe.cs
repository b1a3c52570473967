using Lightway.Segmenter;
using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Tun;

/// <summary>
/// Asks a TUN device, before traffic depends on it, whether it takes superpackets: some kernels know the virtio_net_hdr
/// and refuse what is in it (6.6.44 and other releases with the stricter check, linux/virtio_net.h; USO before 6.2).
/// </summary>
internal static class SuperpacketProbe
{
    private const int PayloadLength = 2; // two segments of one byte

    /// <summary>Turns off what the device refuses; the device must be up.</summary>
    public static Offload Run(ITunWriter tun, Offload offload) =>
        offload with
        {
            TunGroTcp = offload.TunGroTcp && tun.HasVnetHeader && IsTaken(tun, isTcp: true),
            TunGroUdp = offload.TunGroUdp && tun.HasVnetHeader && IsTaken(tun, isTcp: false),
        };

    /// <summary>
    /// Writes a superpacket that goes nowhere: its TTL is 0, and its addresses are of the loopback network, which no
    /// device but lo may bring (RFC 1122 §3.2.1.3 (g)).
    /// </summary>
    private static bool IsTaken(ITunWriter tun, bool isTcp)
    {
        Span<byte> masked = stackalloc byte[isTcp ? 40 : 28];
        masked.Clear();
        masked[0] = 0x45; // version 4, 5 words
        masked[6] = 0x40; // DF
        masked[9] = isTcp ? IpProtocol.Tcp : IpProtocol.Udp;
        (masked[12], masked[15], masked[16], masked[19]) = (127, 1, 127, 1);
        (masked[21], masked[23]) = (9, 9); // discard to discard
        if (isTcp)
        {
            (masked[32], masked[33]) = (0x50, 0x10); // 5 words, ACK
        }
        using var frame = new Slab(VirtioNetHeaderModule.Size + masked.Length + PayloadLength);
        Coalesce.writeHeader(masked, true, isTcp, 0, 0, 0, 1, PayloadLength, frame.Span);
        return tun.WriteGathered([frame.Vector(0, frame.Length)]) != -Linux.EINVAL;
    }
}

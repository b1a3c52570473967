using Lightway.Options;
using Lightway.Tunnel.Kernel;

namespace Lightway.Hosting;

/// <summary>The offload options in the engine's terms.</summary>
public static class OffloadChoice
{
    public static Offload Of(OffloadOptions options) =>
        options.EnableTunOffload
            ? new Offload
            {
                TunTso = !options.DisableTunTso,
                TunGroTcp = !options.DisableTunGroTcp,
                TunGroUdp = !options.DisableTunGroUdp,
                UdpGro = !options.DisableUdpGro,
                MaxSegments = options.DisableUdpGso ? 1 : options.GsoMaxSegments,
                MaxBurstMicroseconds = (int)options.GsoMaxBurst.TotalMicroseconds,
            }
            : Offload.None;
}

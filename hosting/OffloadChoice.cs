using Lightway.Options;
using Lightway.Segmenter;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

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

    /// <summary>The library that seals and opens packets; the log says which it is.</summary>
    /// <exception cref="ConfigurationException">The one that was asked for can't be used.</exception>
    public static PacketAeads AeadsOf(OffloadOptions options, ILogger log)
    {
        try
        {
            var choice = options.Aead switch
            {
                AeadOption.WolfCrypt => AeadChoice.WolfCrypt,
                AeadOption.IpsecMb => AeadChoice.IpsecMb,
                _ => AeadChoice.Auto,
            };
            var aeads = PacketAeads.Choose(choice, out var remark);
            ProgramLog.Library(log, $"AES-256-GCM by {aeads.Name}" + (remark is null ? "" : $"; {remark}"));
            return aeads;
        }
        catch (TlsException error)
        {
            throw new ConfigurationException(error.Message);
        }
    }

    /// <summary>Warns about faults that the running kernel is known for and that the chosen offloads would meet.</summary>
    public static void WarnOfKernel(Offload offload, ILogger log)
    {
        var inUse = new List<OffloadPart>();
        if (offload.TunGroTcp)
        {
            inUse.Add(OffloadPart.TunTcp);
        }
        if (offload.TunGroUdp)
        {
            inUse.Add(OffloadPart.TunUdp);
        }
        if (offload.MaxSegments > 1)
        {
            inUse.Add(OffloadPart.UdpSegments);
        }
        var warnings = KnownKernels.warnings(
            inUse,
            Text("/proc/sys/kernel/osrelease"),
            Text("/proc/sys/kernel/version"),
            Text("/proc/version_signature") // Ubuntu's
        );
        foreach (var warning in warnings)
        {
            ProgramLog.Warning(log, warning);
        }
    }

    private static string Text(string file)
    {
        try
        {
            return File.ReadAllText(file);
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException)
        {
            return ""; // not every kernel has it
        }
    }
}

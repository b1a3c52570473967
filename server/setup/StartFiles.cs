using Lightway.Hosting;
using Lightway.Hosting.Start;
using Lightway.Options;
using Lightway.Server.Addresses;
using Lightway.Server.Reload;
using Lightway.Tunnel.Aead;
using Lightway.Tunnel.Tls;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Setup;

/// <summary>What a server makes of its files before it makes a device or a socket.</summary>
/// <param name="Identity">What it is to its clients; whoever gets it disposes of it.</param>
/// <param name="Map">Parts of the pool for local addresses.</param>
internal sealed record StartFiles(ServerIdentity Identity, IReadOnlyList<IpMapEntry> Map, AddressPool Pool)
{
    /// <summary>Opens and checks every file that the options name, but writes none.</summary>
    /// <param name="insight">Who looks into TLS; null: nobody.</param>
    /// <param name="aeads">Who seals packets and records.</param>
    /// <exception cref="ConfigurationException">A file is missing, open to others, or its content is refused.</exception>
    /// <exception cref="TlsException">No TLS library can be used.</exception>
    public static StartFiles Load(ServerOptions options, TlsInsight? insight, PacketAeads aeads, ILogger log)
    {
        ServerFiles.Require(options);
        ProgramLog.Library(log, WolfSslLibrary.EnsureUsable());
        var identity = ServerIdentity.Load(options, insight, aeads, log);
        try
        {
            var map = ServerFiles.ReadIpMap(options);
            var pool = new AddressPool(
                options.IpPool,
                options.ReservedAddresses,
                options.RandomizeIpPool,
                [.. map.Select(entry => entry.Network)]
            );
            pool.Fix(identity.Limits.Addresses);
            return new StartFiles(identity, map, pool);
        }
        catch
        {
            identity.Dispose();
            throw;
        }
    }

    /// <summary>What <c>--check-config</c> does besides reading the options.</summary>
    /// <exception cref="ConfigurationException">A start would fail.</exception>
    /// <exception cref="TlsException">No TLS library can be used.</exception>
    public static void Check(ServerOptions options, ILogger log)
    {
        TlsLook.Check(options.Keylog);
        Load(options, insight: null, OffloadChoice.AeadsOf(options.Offload, log), log).Identity.Dispose();
    }
}

using Lightway.Options;
using Lightway.Segmenter;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Addresses;

/// <summary>Which part of the pool the clients of each local address get (ip_map). Immutable.</summary>
/// <param name="locals">The local addresses, in the order of the parts.</param>
/// <param name="rest">The part of all other clients.</param>
/// <param name="bound">The address that the server is bound to; None for the wildcard.</param>
public sealed class LocalParts(IReadOnlyList<Ipv4Address> locals, int rest, Ipv4Address bound)
{
    /// <param name="entries">One for each part of the pool, in its order.</param>
    public static LocalParts Of(IEnumerable<IpMapEntry> entries, int rest, Ipv4Address bound) =>
        new([.. entries.Select(entry => Ipv4Address.Of(entry.Local))], rest, bound);

    /// <summary>The part for a client that came this way.</summary>
    public int Of(in LocalAddress local)
    {
        var address = local.Length == 0 ? bound : local.IPv4;
        for (var part = 0; part < locals.Count; part++)
        {
            if (locals[part] == address)
            {
                return part;
            }
        }
        return rest;
    }
}

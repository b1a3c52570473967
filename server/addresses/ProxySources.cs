using Lightway.Protocol;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Addresses;

/// <summary>Whose connections begin with a header of the PROXY protocol. Immutable.</summary>
/// <param name="networks">Of the proxies.</param>
public sealed class ProxySources(Network[] networks)
{
    public bool MaySend(in PeerAddress peer)
    {
        if (!peer.IPv4.IsNone)
        {
            return NetworkModule.anyHasIpv4(networks, peer.IPv4);
        }
        var (high, low) = peer.IPv6;
        return NetworkModule.anyHasIpv6(networks, high, low);
    }
}

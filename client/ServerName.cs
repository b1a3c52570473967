using System.Net;
using System.Net.Sockets;
using Lightway.Options;

namespace Lightway.Client;

/// <summary>The addresses behind the option <c>server</c>.</summary>
internal static class ServerName
{
    /// <summary>All addresses, in the order in which they are tried (RFC 6724 by getaddrinfo(3), then RFC 8305 §4).</summary>
    /// <exception cref="OperationCanceledException">The program is to stop.</exception>
    /// <exception cref="IOException">There is none; the message names the option.</exception>
    public static IReadOnlyList<IPAddress> Resolve(string host, CancellationToken stopping)
    {
        if (IPAddress.TryParse(host, out var address))
        {
            return [address];
        }
        try
        {
            return
                AddressOrder.alternate(Dns.GetHostAddressesAsync(host, stopping).GetAwaiter().GetResult())
                    is { Count: > 0 } addresses
                ? addresses
                : throw new IOException($"server: '{host}' has no address");
        }
        catch (SocketException error)
        {
            throw new IOException(
                $"server: '{host}' cannot be resolved ({error.Message}); check the name, and this machine's DNS"
            );
        }
    }
}

using System.Net;
using System.Net.Sockets;
using Lightway.Options;

namespace Lightway.Client.Sessions;

/// <summary>The addresses behind the option <c>server</c>.</summary>
internal static class ServerName
{
    private const int LateMs = 1000; // a name that takes longer than the others does not hold them up

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

    /// <summary>Resolves the names of all servers at once. Those that take longer than the others are left out of this attempt.</summary>
    /// <param name="resolve">Gives the addresses of one, on another thread; an <see cref="IOException"/> says why there are none.</param>
    /// <returns>For each server its addresses, or why there are none.</returns>
    /// <exception cref="OperationCanceledException">The program is to stop.</exception>
    public static IReadOnlyList<(IReadOnlyList<IPAddress> Addresses, string? Problem)> ResolveAll(
        IEnumerable<ClientOptions> servers,
        Func<ClientOptions, IReadOnlyList<IPAddress>> resolve,
        CancellationToken stopping
    )
    {
        var all = servers.ToArray();
        var lookups = Array.ConvertAll(all, server => Task.Run(() => resolve(server), stopping));
        var pending = lookups.ToList();
        while (pending.Count > 0 && !Array.Exists(lookups, lookup => lookup.IsCompletedSuccessfully))
        {
            pending.RemoveAt(Task.WaitAny([.. pending], stopping));
        }
        _ = Task.WaitAny([Task.WhenAll(lookups)], LateMs, stopping);
        return [.. lookups.Select((lookup, i) => ResultOf(lookup, all[i].ServerHost))];
    }

    private static (IReadOnlyList<IPAddress>, string?) ResultOf(Task<IReadOnlyList<IPAddress>> lookup, string host) =>
        lookup switch
        {
            { IsCompletedSuccessfully: true } => (lookup.Result, null),
            { Exception.InnerException: IOException error } => ([], error.Message),
            _ => ([], $"server: '{host}' was not resolved in time; check this machine's DNS"),
        };
}

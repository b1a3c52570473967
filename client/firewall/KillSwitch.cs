using System.Net;
using Lightway.Client.Programs;
using Lightway.Options;
using Lightway.Tunnel.Tun;

namespace Lightway.Client.Firewall;

/// <summary>
/// The kill switch: while it is closed, nothing leaves this machine but through the tunnel (<see cref="FirewallPlan"/>). It is a
/// table of nftables, made by nft(8) in one transaction, and outlives this process.
/// </summary>
internal sealed class KillSwitch
{
    private readonly string? _nft = Tool.Find("nft");
    private IReadOnlyList<string> _tables;

    /// <param name="isToTell">Whoever may not see tables is told so, and not that there are none.</param>
    /// <exception cref="IOException">A client that lives has closed it.</exception>
    public KillSwitch(bool isToTell = false)
    {
        _tables = _nft is not null ? Tables(isToTell) : [];
        foreach (var table in _tables)
        {
            if (FirewallPlan.deviceOf(table) is { } device && TunInterface.IsInUse(device))
            {
                throw new IOException(
                    $"another lightway-client has device {device}, and its kill switch is closed: stop it, or run this one in a network namespace of its own"
                );
            }
        }
    }

    /// <summary>A client, this one or one that has failed or was killed, has closed it.</summary>
    public bool IsClosed => _tables.Count > 0;

    /// <summary>
    /// The addresses that it lets pass, of a server of this name (host:port). They stand for the answer of a resolver: while it
    /// is closed, none can be asked.
    /// </summary>
    /// <exception cref="IOException">nft can't be run.</exception>
    public IReadOnlyList<IPAddress> Remembered(string name) =>
        [
            .. _tables
                .SelectMany(table => FirewallPlan.remembered(Nft(["list", "table", "inet", table]).Output, name))
                .Distinct(),
        ];

    /// <summary>Closes it, in the place of one that is closed already.</summary>
    /// <exception cref="IOException">It can't be closed.</exception>
    public void Close(FirewallWishes wishes)
    {
        Change(FirewallPlan.closing(wishes, _tables), "close");
        _tables = [FirewallPlan.tableOf(wishes.Device)];
    }

    /// <summary>Opens it. Returns the tables that were removed.</summary>
    /// <exception cref="IOException">It can't be opened.</exception>
    public IReadOnlyList<string> Open()
    {
        var removed = _tables;
        if (removed.Count > 0)
        {
            Change(FirewallPlan.removal(removed), "open");
            _tables = [];
        }
        return removed;
    }

    private IReadOnlyList<string> Tables(bool isToTell)
    {
        var listing = Nft(["list", "tables"]);
        // A kernel without nftables has no table either.
        return isToTell && listing.Errors.Contains("not permitted", StringComparison.Ordinal)
            ? throw new IOException("only root, or who has CAP_NET_ADMIN, may see whether the kill switch is closed")
            : [.. FirewallPlan.tablesIn(listing.Output)];
    }

    private void Change(string transaction, string what)
    {
        var result = Nft(["-f", "-"], transaction);
        if (result.Code != 0)
        {
            throw new IOException(
                $"kill_switch: can't {what} it: nft: {result.Errors}; it needs root, or CAP_NET_ADMIN, and a kernel with nftables"
            );
        }
    }

    private ToolResult Nft(string[] arguments, string input = "") =>
        Tool.Run(
            _nft ?? throw new IOException("kill_switch: nft(8) is not installed: install the package nftables"),
            arguments,
            input
        );
}

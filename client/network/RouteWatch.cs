using Microsoft.Extensions.Logging;

namespace Lightway.Client.Network;

/// <summary>
/// Calls an action, on a thread of its own, after links, addresses or routes have changed. Changes that come together cause
/// one call. The kernel does not report each route that goes with its link or address, so all three are watched.
/// </summary>
internal sealed partial class RouteWatch : IDisposable
{
    private const int SettleMs = 50; // a change of network is a series of changes

    private readonly Netlink _netlink = new(
        Netlink.RTMGRP_LINK
            | Netlink.RTMGRP_IPV4_IFADDR
            | Netlink.RTMGRP_IPV4_ROUTE
            | Netlink.RTMGRP_IPV6_IFADDR
            | Netlink.RTMGRP_IPV6_ROUTE
    );
    private readonly Action _changed;
    private readonly ILogger _log;
    private readonly Thread _thread;

    /// <param name="changed">An <see cref="IOException"/> that it throws is logged; the watch goes on.</param>
    /// <exception cref="IOException">The system does not allow the socket.</exception>
    public RouteWatch(Action changed, ILogger log)
    {
        _changed = changed;
        _log = log;
        _thread = new Thread(Run) { IsBackground = true, Name = "routes" };
        _thread.Start();
    }

    /// <summary>Returns when the action does not run any more.</summary>
    public void Dispose()
    {
        _netlink.Wake();
        _thread.Join();
        _netlink.Dispose();
    }

    private void Run()
    {
        while (_netlink.WaitForNews(timeoutMs: -1) && _netlink.Pause(SettleMs))
        {
            _netlink.Drain();
            try
            {
                _changed();
            }
            catch (IOException error)
            {
                LogFailure(_log, error.Message);
            }
        }
    }

    [LoggerMessage(Level = LogLevel.Warning, Message = "routes after a change of the network: {Why}")]
    private static partial void LogFailure(ILogger log, string why);
}

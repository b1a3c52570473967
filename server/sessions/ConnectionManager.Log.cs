using Lightway.Segmenter;
using Lightway.Tunnel.Udp;
using Microsoft.Extensions.Logging;

namespace Lightway.Server.Sessions;

/// <content>Lines of the log.</content>
public sealed partial class ConnectionManager
{
    [LoggerMessage(Level = LogLevel.Debug, Message = "session {Session}: link up with {Peer} ({Security})")]
    private static partial void LogLinkUp(ILogger log, string session, PeerAddress peer, string security);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "session {Session}: online, {Peer}, user '{User}', inside address {Inside}"
    )]
    private static partial void LogOnline(
        ILogger log,
        string session,
        PeerAddress peer,
        string user,
        Ipv4Address inside
    );

    [LoggerMessage(Level = LogLevel.Information, Message = "{Peer}: closed without a login: {Reason} ({Tls})")]
    private static partial void LogNotOnline(ILogger log, PeerAddress peer, string reason, string tls);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: moved from {From} to {To}")]
    private static partial void LogMoved(ILogger log, string session, PeerAddress from, PeerAddress to);

    [LoggerMessage(Level = LogLevel.Information, Message = "session {Session}: closed, {Peer}: {Reason}")]
    private static partial void LogClosed(ILogger log, string session, PeerAddress peer, string reason);

    [LoggerMessage(
        Level = LogLevel.Information,
        Message = "{Online} online, {All} connections, {Pending} pending rotations, {Addresses} addresses assigned"
    )]
    private static partial void LogReport(ILogger log, int online, int all, int pending, int addresses);
}

using System.Globalization;
using Lightway.Client.Sessions;
using Lightway.Protocol;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Workers;

namespace Lightway.Client.Control;

/// <summary>Keeps what can be told about the client up to date, once per second. Read by any thread.</summary>
internal sealed class StatusBoard(Reconnector reconnector, Worker worker, string device)
{
    private ClientStatus? _latest;
    private long _at = worker.Context.Now;
    private long _sent;
    private long _received;

    /// <summary>Null before the first second is over.</summary>
    public ClientStatus? Latest => Volatile.Read(ref _latest);

    /// <summary>On the worker's thread.</summary>
    public void Update()
    {
        var context = worker.Context;
        var (now, sent, received) = (
            context.Now,
            context.Counters[Counter.TunToClient],
            context.Counters[Counter.TunFromClient]
        );
        var elapsed = Math.Max(1, now - _at);
        var traffic = new Traffic(
            sent,
            received,
            (sent - _sent) * 8000 / elapsed,
            (received - _received) * 8000 / elapsed
        );
        (_at, _sent, _received) = (now, sent, received);
        var state = reconnector.State;
        var offload = worker.Offload;
        var status = new ClientStatus(
            NameOf(state.Phase),
            device,
            context.InsideMtu,
            reconnector.Current is { } session ? Of(session, now) : null,
            traffic,
            Math.Max(0, reconnector.Connections - 1),
            reconnector.Moves,
            state.FailedRounds,
            state.Phase == ReconnectPhase.Waiting ? Math.Max(0, state.RetryAt - now) : null,
            reconnector.LastEnd,
            new OffloadStatus(offload.TunTso, offload.TunGroTcp, offload.TunGroUdp, offload.UdpGro, offload.MaxSegments)
        );
        Volatile.Write(ref _latest, status);
    }

    private static string NameOf(ReconnectPhase phase) =>
        phase switch
        {
            ReconnectPhase.Trying => "connecting",
            ReconnectPhase.Online => "online",
            ReconnectPhase.Waiting => "waiting",
            _ => "ending",
        };

    private static ConnectionStatus Of(ClientSession session, long now)
    {
        var connection = session.Connection;
        var since = DateTime.UtcNow.AddMilliseconds(session.OnlineAt - now);
        return new ConnectionStatus(
            session.Server.Name,
            session.EndPoint.ToString(),
            session.Server.Transport == Transport.Stream ? "tcp" : "udp",
            connection.Security,
            connection.SessionId.Value.ToString("x16", CultureInfo.InvariantCulture),
            since.ToString("yyyy-MM-dd'T'HH:mm:ss'Z'", CultureInfo.InvariantCulture),
            connection.IsExpresslaneReady,
            connection.PathMtu > 0 ? connection.PathMtu : null,
            connection.InsideMtu,
            connection.RoundTripMs >= 0 ? connection.RoundTripMs : null
        );
    }
}

using Lightway.Protocol;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Packets;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Connections;

/// <content>How connections are made: for either role, over either transport.</content>
public sealed partial class Connection
{
    /// <summary>A server's connection.</summary>
    /// <param name="version">Protocol version of the first datagram; the connection keeps it for life.</param>
    /// <param name="session">Has accepted a cookie; owned from here on.</param>
    /// <param name="clientRandom">See <see cref="ClientRandom"/>.</param>
    public static Connection ForServer(
        ConnectionSettings settings,
        WorkerContext worker,
        IServerEvents events,
        ushort version,
        SessionId sessionId,
        DtlsSession session,
        in OutsideAddress path,
        UInt128 clientRandom,
        long now
    ) =>
        new(
            settings,
            worker,
            (connection, envelope) => new ServerSide(connection, worker, envelope, events),
            (connection, envelope) => Dtls(settings, worker, connection, envelope, session, now),
            new Envelope(worker, version, sessionId, path),
            now
        )
        {
            ClientRandom = clientRandom,
        };

    /// <summary>A client's connection.</summary>
    /// <param name="session">Fresh; owned from here on.</param>
    public static Connection ForClient(
        ConnectionSettings settings,
        WorkerContext worker,
        IClientEvents events,
        DtlsSession session,
        in OutsideAddress path,
        long now
    ) =>
        new(
            settings,
            worker,
            (connection, envelope) => new ClientSide(connection, envelope, events, settings, now),
            (connection, envelope) => Dtls(settings, worker, connection, envelope, session, now),
            new Envelope(worker, ProtocolVersion.V1_3, SessionId.Empty, path),
            now
        );

    /// <summary>A server's connection over TCP.</summary>
    /// <param name="sessionId">Names it in the log and the tables; it is not sent.</param>
    /// <param name="session">Fresh; owned from here on.</param>
    /// <param name="socket">Accepted; owned from here on.</param>
    public static Connection ForServer(
        ConnectionSettings settings,
        WorkerContext worker,
        IServerEvents events,
        SessionId sessionId,
        TlsSession session,
        StreamSocket socket,
        in OutsideAddress path,
        long now
    ) =>
        new(
            settings,
            worker,
            (connection, envelope) => new ServerSide(connection, worker, envelope, events),
            (connection, envelope) => Tls(settings, worker, connection, envelope, session, socket),
            new Envelope(worker, ProtocolVersion.V1_1, sessionId, path), // nothing on the wire says the version
            now
        );

    /// <summary>A client's connection over TCP.</summary>
    /// <param name="session">Fresh; owned from here on.</param>
    /// <param name="socket">Connecting; owned from here on.</param>
    public static Connection ForClient(
        ConnectionSettings settings,
        WorkerContext worker,
        IClientEvents events,
        TlsSession session,
        StreamSocket socket,
        in OutsideAddress path,
        long now
    ) =>
        new(
            settings,
            worker,
            (connection, envelope) => new ClientSide(connection, envelope, events, settings, now),
            (connection, envelope) => Tls(settings, worker, connection, envelope, session, socket),
            new Envelope(worker, ProtocolVersion.V1_3, SessionId.Empty, path),
            now
        );

    private static DtlsChannel Dtls(
        ConnectionSettings settings,
        WorkerContext worker,
        Connection connection,
        Envelope envelope,
        DtlsSession session,
        long now
    ) =>
        new(
            session,
            worker,
            envelope,
            connection,
            settings.Role,
            settings.KeyUpdateMs,
            settings.DtlsRecordsPerKey,
            now
        );

    private static TlsChannel Tls(
        ConnectionSettings settings,
        WorkerContext worker,
        Connection connection,
        Envelope envelope,
        TlsSession session,
        StreamSocket socket
    ) => new(session, socket, worker, envelope, connection, settings.Role, settings.KeyUpdateMs);
}

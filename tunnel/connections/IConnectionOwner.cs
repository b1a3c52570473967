using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>
/// The program a connection belongs to: the server with its tables, or the client. Called on the worker's thread, from
/// within <see cref="Connection.Receive"/>, <see cref="Connection.OnTimer"/> and <see cref="Connection.Start"/>.
/// </summary>
public interface IConnectionOwner
{
    /// <summary>Server: the peer asks to be let in; answer with <see cref="Connection.Grant"/> or <see cref="Connection.Deny"/>, now or later.</summary>
    void AuthRequested(Connection connection, AuthRequest request);

    /// <summary>Client: let in, with these addresses. The connection is Online after this returns.</summary>
    void Authenticated(Connection connection, AuthSuccess success);

    /// <summary>The DTLS handshake is complete, or the connection has come Online.</summary>
    void StateChanged(Connection connection);

    /// <summary>A packet for the TUN; may be rewritten in place. Valid during the call.</summary>
    void DeliverInside(Connection connection, Span<byte> packet);

    /// <summary>From now on datagrams may also carry <paramref name="pending"/>.</summary>
    void SessionRotationStarted(Connection connection, ulong pending);

    /// <summary>The peer has adopted the pending id: <paramref name="previous"/> is no longer in use.</summary>
    void SessionRotationFinalized(Connection connection, ulong previous);

    /// <summary>The connection's next timer may have moved.</summary>
    void Rescheduled(Connection connection);

    /// <summary>Over. Take it out of all tables and dispose of it; it sends nothing more.</summary>
    void Closed(Connection connection, TunnelError reason);
}

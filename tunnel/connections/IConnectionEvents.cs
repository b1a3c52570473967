using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>
/// What a connection reports to its program. Called on the worker's thread, from within the connection's entry points.
/// </summary>
public interface IConnectionEvents
{
    /// <summary>The handshake is complete, or the connection has come Online.</summary>
    void StateChanged(Connection connection);

    /// <summary>The connection has ended and sends nothing more: take it out of all tables and dispose of it.</summary>
    void Closed(Connection connection, TunnelError reason);
}

/// <summary>What a server's connection reports besides.</summary>
public interface IServerEvents : IConnectionEvents
{
    /// <summary>The peer asks to be let in; answer with <see cref="Connection.Grant"/> or <see cref="Connection.Deny"/>, now or later.</summary>
    void AuthRequested(Connection connection, AuthRequest request);

    /// <summary>From now on datagrams may also carry <paramref name="pending"/>.</summary>
    void RotationStarted(Connection connection, SessionId pending);

    /// <summary>The peer has adopted the pending id: <paramref name="previous"/> is no longer in use.</summary>
    void RotationFinalized(Connection connection, SessionId previous);
}

/// <summary>What a client's connection reports besides.</summary>
public interface IClientEvents : IConnectionEvents
{
    /// <summary>The server has let this client in. Set <see cref="Connection.Translation"/>; the connection is Online after this returns.</summary>
    void Authenticated(Connection connection, AuthSuccess success);
}

using Lightway.Protocol;

namespace Lightway.Tunnel.Connections;

/// <summary>
/// What differs between the two ends of a connection: <see cref="ServerSide"/> and <see cref="ClientSide"/>. Called by
/// <see cref="Connection"/> only, on its thread.
/// </summary>
internal abstract class ConnectionSide
{
    public abstract Role Role { get; }

    public abstract IConnectionEvents Events { get; }

    /// <summary>When <see cref="OnTimer"/> is due, in ms; <see cref="long.MaxValue"/>: never.</summary>
    public virtual long DueAt => long.MaxValue;

    /// <summary>A datagram of this protocol version may belong to the connection.</summary>
    public abstract bool AcceptsVersion(ushort version);

    /// <summary>The handshake is complete, and the program knows.</summary>
    public virtual void OnLinkUp(long now) { }

    /// <summary>A datagram under this session id held authenticated frames.</summary>
    public abstract void OnAuthenticated(SessionId headerSession, int frames, long now);

    public virtual void OnTimer(long now) { }

    /// <summary>Server: begins a session id rotation, unless one is under way, and tells the peer within one round trip.</summary>
    public virtual void Rotate(SessionId freshId) { }

    /// <summary>Server: an AuthRequest has come, the peer asks to be let in.</summary>
    /// <param name="payload">Wiped.</param>
    /// <returns>What ends the connection, or None.</returns>
    public virtual TunnelError OnAuthRequest(Span<byte> payload) => TunnelError.None;

    /// <summary>Client: an AuthSuccess has come, the server has let it in.</summary>
    /// <returns>What ends the connection, or None.</returns>
    public virtual TunnelError OnAuthSuccess(ReadOnlySpan<byte> payload, long now) => TunnelError.None;

    /// <summary>Client: the answer to a keepalive ping has come.</summary>
    public virtual void OnPong(long now) { }

    /// <summary>Client: a packet is on its way to a server from which nothing has come since <paramref name="heardAt"/>.</summary>
    public virtual void OnDoubt(long heardAt, long now) { }

    /// <summary>Client: the network has changed; the server learns the new address at once.</summary>
    public virtual void OnNetworkChanged(long now) { }
}

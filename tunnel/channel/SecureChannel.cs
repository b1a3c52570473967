using Lightway.Protocol;

namespace Lightway.Tunnel.Channel;

/// <summary>The connection above a channel. Called on the worker's thread, from within the calls that the channel gets.</summary>
internal interface IChannelOwner
{
    /// <summary>The connection has failed: it processes nothing more.</summary>
    bool HasFailed { get; }

    /// <summary>Begins a call into the connection that does not come from its own entry points.</summary>
    void EnterCall(long now);

    /// <summary>Ends it. The connection may be disposed of when this returns.</summary>
    void LeaveCall();

    /// <summary>The handshake is complete.</summary>
    void Established();

    /// <summary>Processes the frames of one datagram, or those that have come of a stream.</summary>
    /// <param name="session">Session id of the wire header that they came under.</param>
    /// <param name="plaintext">Frames, one after the other; may be changed in place. The last one of a stream may be incomplete.</param>
    /// <param name="consumed">Bytes of the frames that were processed.</param>
    /// <returns>Number of frames; 0 proves nothing about the sender.</returns>
    int Frames(SessionId session, Span<byte> plaintext, out int consumed);

    /// <summary>Server: new traffic keys are under way.</summary>
    void KeysChanging();

    /// <summary>A timer has moved forward outside of a call into the connection.</summary>
    void TimersMoved();

    /// <summary>The channel can't go on.</summary>
    void Failed(TunnelError reason);
}

/// <summary>
/// One association's control channel: frames in and out, secured. There is one class per transport; nothing of the
/// Expresslane comes here. One thread. Nothing that a peer sends makes it throw.
/// </summary>
internal abstract class SecureChannel : IDisposable
{
    public abstract Transport Transport { get; }

    /// <summary>When <see cref="OnTimer"/> is due, in ms; <see cref="long.MaxValue"/>: never.</summary>
    public abstract long DueAt { get; }

    /// <summary>Negotiated suite and group, for the log.</summary>
    public abstract string Description { get; }

    /// <summary>The last failure in words, for the log.</summary>
    public abstract string ErrorText { get; }

    /// <summary>Client: the certificate of the server's chain that was refused, in DER; empty if none was, or it is not known.</summary>
    public abstract ReadOnlyMemory<byte> RefusedCertificate { get; }

    /// <summary>Starts the handshake (client), or goes on with the ClientHello that the listener has accepted (server).</summary>
    public abstract void Start(long now);

    /// <summary>Sends one control frame, best effort.</summary>
    public abstract void Send(ReadOnlySpan<byte> frame);

    /// <summary>Sends one packet in its Data frame by the worker's batch.</summary>
    /// <param name="dataFrame">Header and packet.</param>
    /// <param name="tos">TOS byte of its datagram.</param>
    /// <returns>Blocked only when something that all connections share is full.</returns>
    public abstract SendResult TrySendPacket(ReadOnlySpan<byte> dataFrame, byte tos);

    /// <summary>Processes what has come from the peer.</summary>
    /// <param name="session">Session id of the wire header that it came under.</param>
    /// <returns>Number of authenticated frames.</returns>
    public abstract int Receive(SessionId session, ReadOnlySpan<byte> body, long now);

    /// <summary>Acts on whatever is due.</summary>
    public abstract void OnTimer(long now);

    /// <summary>Server: the peer has been let in, and key updates begin.</summary>
    public abstract void Granted(long now);

    /// <summary>Says close_notify, best effort.</summary>
    public abstract void Close();

    public abstract void Dispose();
}

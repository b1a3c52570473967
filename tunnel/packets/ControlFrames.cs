using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Tunnel.Channel;

namespace Lightway.Tunnel.Packets;

/// <summary>Writes the control frames of one connection and sends them by its channel, best effort. One thread.</summary>
internal sealed class ControlFrames(SecureChannel channel, WorkerContext worker)
{
    /// <summary>Id of the pings that keep a connection alive; their payload reports the health of the Expresslane.</summary>
    public const ushort KeepaliveId = 0;

    private Span<byte> Buffer => worker.Frame.Span;

    /// <summary>Keeps the connection alive, and announces a new session id or address.</summary>
    public void Ping(ExpresslaneChannel expresslane)
    {
        Span<byte> health = stackalloc byte[ExpresslaneHealthModule.Size];
        var length = expresslane.WriteHealth(health);
        Send(FrameModule.writePing(KeepaliveId, health[..length], Buffer));
    }

    public void Pong(ushort id, ExpresslaneChannel expresslane)
    {
        Span<byte> health = stackalloc byte[ExpresslaneHealthModule.Size];
        var length = id == KeepaliveId ? expresslane.WriteHealth(health) : 0;
        Send(FrameModule.writePong(id, health[..length], Buffer));
    }

    /// <summary>Sends a ping whose frame has <paramref name="size"/> bytes, to find out whether that many pass.</summary>
    public void Probe(ushort id, int size)
    {
        var zeros = worker.Zeros.Slice(0, size - FrameModule.PingHeaderSize);
        Send(FrameModule.writePing(id, zeros, Buffer));
    }

    public void Config(ExpresslaneConfig config) => Send(FrameModule.writeExpresslaneConfig(config, Buffer));

    public void Auth(AuthRequest request) => Send(AuthRequestModule.write(request, Buffer));

    public void Success(AuthSuccess success) => Send(FrameModule.writeAuthSuccess(success, Buffer));

    public void Failure(AuthRefusal refusal) => Send(FrameModule.writeAuthFailure(refusal, Buffer));

    /// <param name="kind">EncodingRequest or EncodingResponse.</param>
    public void Encoding(FrameKind kind, ulong id, bool enable) =>
        Send(FrameModule.writeEncoding(kind, id, enable, Buffer));

    public void Goodbye() => Send(FrameModule.writeGoodbye(Buffer));

    /// <summary>The buffer is wiped, as some frames hold a password or a key.</summary>
    private void Send(int length)
    {
        channel.Send(Buffer[..length]);
        CryptographicOperations.ZeroMemory(Buffer[..length]);
    }
}

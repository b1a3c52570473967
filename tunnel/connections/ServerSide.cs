using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Connections;

/// <summary>The server's end of a connection: it rotates session ids and hands logins to the program.</summary>
internal sealed class ServerSide(Connection connection, WorkerContext worker, Envelope envelope, IServerEvents events)
    : ConnectionSide
{
    public override Role Role => Role.Server;

    public override IConnectionEvents Events => events;

    public override bool AcceptsVersion(ushort version) => version == envelope.Version;

    public override void OnAuthenticated(SessionId headerSession, int frames, long now)
    {
        var previous = envelope.Current;
        switch (envelope.OnUsed(headerSession))
        {
            case SessionEvent.Finalized:
                worker.Counters.Add(Counter.UdpSessionRotationFinalized);
                events.RotationFinalized(connection, previous);
                break;
            case SessionEvent.Mismatch:
                worker.Counters.Add(Counter.SessionIdMismatch);
                break;
        }
    }

    public override void Rotate(SessionId freshId)
    {
        if (envelope.TryRotate(freshId))
        {
            worker.Counters.Add(Counter.UdpSessionRotationBegin);
            events.RotationStarted(connection, freshId);
            connection.SendPing();
        }
    }

    public override TunnelError OnAuthRequest(Span<byte> payload)
    {
        AuthRequest request = default!;
        var status = AuthRequestModule.tryParse(payload, ref request);
        CryptographicOperations.ZeroMemory(payload);
        if (status == FrameStatus.Ok)
        {
            events.AuthRequested(connection, request);
            return TunnelError.None;
        }
        worker.Counters.Add(Counter.FrameUndecodable);
        return Lifecycle.ofFrameStatus(status);
    }
}

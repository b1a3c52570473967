using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Packets;

namespace Lightway.Tunnel.Connections;

/// <summary>The client's end of a connection: login, keepalive, and the session ids that it adopts.</summary>
internal sealed class ClientSide : ConnectionSide
{
    private const int HandshakeCopies = 3; // the reference's "aggressive" mode: each datagram three times until Online
    private readonly Connection _connection;
    private readonly Envelope _envelope;
    private readonly IClientEvents _events;
    private readonly AuthRequest? _credentials;
    private readonly LoginTimer _login = new();
    private KeepaliveState _keepalive;
    private long _pingAt = -1; // the latest ping that is not answered

    public ClientSide(
        Connection connection,
        Envelope envelope,
        IClientEvents events,
        ConnectionSettings settings,
        long now
    )
    {
        _connection = connection;
        _envelope = envelope;
        _events = events;
        _credentials = settings.Credentials;
        _keepalive = Keepalive.create(
            settings.KeepaliveIntervalMs,
            settings.KeepaliveTimeoutMs,
            settings.KeepaliveContinuous,
            now
        );
        envelope.Copies = HandshakeCopies;
    }

    public override Role Role => Role.Client;

    public override IConnectionEvents Events => _events;

    public override long DueAt => Math.Min(_login.RetryAt, _keepalive.NextAt);

    public override bool AcceptsVersion(ushort version) => true; // the server repeats ours

    public override void OnLinkUp(long now)
    {
        if (_credentials is { } credentials)
        {
            _login.Start(now, repeats: _connection.Transport == Transport.Datagram);
            SendAuth(credentials, now);
        }
        else
        {
            _envelope.Copies = 1;
        }
    }

    public override void OnAuthenticated(SessionId headerSession, int frames, long now)
    {
        _envelope.Adopt(headerSession, frames);
        _keepalive = Keepalive.activity(_keepalive, now);
    }

    /// <summary>Milliseconds from the latest keepalive ping to its answer; -1 until one has come.</summary>
    public long RoundTripMs { get; private set; } = -1;

    public override void OnPong(long now)
    {
        _keepalive = Keepalive.pong(_keepalive);
        if (_pingAt >= 0)
        {
            RoundTripMs = now - _pingAt;
            _pingAt = -1;
        }
    }

    public override void OnDoubt(long heardAt, long now) => Step(Keepalive.doubted(_keepalive, heardAt, now), now);

    public override void OnTimer(long now)
    {
        if (now >= _login.RetryAt)
        {
            RetryAuth(now);
        }
        Step(Keepalive.tick(_keepalive, now), now);
    }

    public override void OnNetworkChanged(long now)
    {
        _envelope.NetworkChanged();
        Step(Keepalive.networkChanged(_keepalive, now), now);
    }

    public override TunnelError OnAuthSuccess(ReadOnlySpan<byte> payload, long now)
    {
        AuthSuccess success = default!;
        if (FrameModule.tryParseAuthSuccess(payload, ref success) != FrameStatus.Ok)
        {
            return TunnelError.InvalidInsideIpConfig;
        }
        _login.Stop();
        CryptographicOperations.ZeroMemory(_credentials?.Password);
        _events.Authenticated(_connection, success);
        _keepalive = Keepalive.online(_keepalive, now);
        _envelope.Copies = 1;
        _connection.BecomeOnline();
        return TunnelError.None;
    }

    private void SendAuth(AuthRequest credentials, long now)
    {
        _connection.Authenticate(credentials);
        _login.Sent(now);
    }

    private void RetryAuth(long now)
    {
        if (_login.IsTooLate(now))
        {
            _connection.Fail(TunnelError.TimedOut);
        }
        else if (_credentials is { } credentials)
        {
            SendAuth(credentials, now);
        }
    }

    private void Step((KeepaliveState State, KeepaliveAction Action) step, long now)
    {
        _keepalive = step.State;
        if (step.Action == KeepaliveAction.SendPing)
        {
            _pingAt = now;
            _connection.SendPing();
        }
        else if (step.Action == KeepaliveAction.Close)
        {
            _connection.Fail(TunnelError.TimedOut);
        }
    }
}

using System.Security.Cryptography;
using Lightway.Protocol;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// Answers the ClientHellos of unknown peers with a cookie and keeps no state for them; a peer that returns its cookie gets
/// a session. So a flood of spoofed ClientHellos costs some microseconds each and no memory. One thread.
/// </summary>
public sealed class DtlsListener : IRecordSink, IDisposable
{
    private const int SecretSize = 32; // bytes
    private const long PreviousLifeMs = 60_000;
    private const long SecretLifeMs = 60 * 60_000; // cookies carry no time: the secret's life bounds theirs
    private readonly WorkerContext _worker;
    private readonly byte[] _secret = new byte[SecretSize];
    private readonly byte[] _previousSecret = new byte[SecretSize];
    private TlsContext _context;
    private DtlsSession? _session; // null: there was no memory for one
    private DtlsSession? _previous; // has the previous secret, for cookies that were on the way when it changed
    private long _previousUntil;
    private bool _answered; // the datagram at hand has been answered
    private OutsideAddress _path; // of the datagram being answered
    private ushort _version;
    private long _secretUntil;

    public DtlsListener(TlsContext context, WorkerContext worker, long now)
    {
        _context = context;
        _worker = worker;
        Renew(now);
    }

    /// <summary>Handles a datagram of an unknown peer.</summary>
    /// <returns>A session whose <see cref="DtlsSession.Handshake"/> must be called at once, with its ClientHello inside; or null.</returns>
    public DtlsSession? TryAccept(ushort version, in OutsideAddress from, ReadOnlySpan<byte> body, long now)
    {
        if (body.IsEmpty)
        {
            _worker.Counters.Add(Counter.HandshakeIgnored);
            return null;
        }
        ChangeSecret(now);
        _path = from;
        _version = version;
        _answered = false;
        Span<byte> peer = stackalloc byte[SocketAddressBytes.Capacity];
        from.Peer.CopyTo(peer);
        peer = peer[..from.Peer.Length];
        if ((_session ??= TryCreate(_secret)) is not { } session)
        {
            _worker.Counters.Add(Counter.HandshakeIgnored);
            return null;
        }
        switch (session.AcceptStateless(peer, body))
        {
            case StatelessOutcome.Accepted:
                _session = TryCreate(_secret);
                return session;
            case StatelessOutcome.Failed:
                _worker.Counters.Add(Counter.HandshakeIgnored);
                session.Dispose();
                _session = TryCreate(_secret);
                break;
        }
        if (_answered || _previous is not { } previous)
        {
            return null;
        }
        // Perhaps a cookie of the previous secret. A session that has accepted one, or has failed, is used up.
        switch (previous.AcceptStateless(peer, body))
        {
            case StatelessOutcome.Accepted:
                _previous = null;
                return previous;
            case StatelessOutcome.Failed:
                previous.Dispose();
                _previous = null;
                return null;
            default:
                return null;
        }
    }

    /// <summary>
    /// Handshakes that begin from now on have another certificate. Cookies stay valid; sessions that exist keep what they have.
    /// </summary>
    public void Use(TlsContext context)
    {
        _context = context;
        _session?.Dispose();
        _session = TryCreate(_secret);
        if (_previous is not null)
        {
            _previous.Dispose();
            _previous = TryCreate(_previousSecret);
        }
    }

    void IRecordSink.SendRecord(ReadOnlySpan<byte> record)
    {
        _answered = true;
        if (Envelope.SendTo(_worker, _path, _version, record))
        {
            _worker.Counters.Add(Counter.HandshakeCookiesSent);
        }
    }

    public void Dispose()
    {
        _session?.Dispose();
        _previous?.Dispose();
    }

    private void ChangeSecret(long now)
    {
        if (now >= _previousUntil)
        {
            _previous?.Dispose();
            _previous = null;
        }
        if (now >= _secretUntil)
        {
            _previous = _session;
            _secret.CopyTo(_previousSecret, 0);
            _previousUntil = now + PreviousLifeMs;
            Renew(now);
        }
    }

    private void Renew(long now)
    {
        RandomNumberGenerator.Fill(_secret);
        _secretUntil = now + SecretLifeMs;
        _session = TryCreate(_secret);
    }

    /// <summary>Null if wolfSSL has no memory: handshakes are ignored until it has.</summary>
    private DtlsSession? TryCreate(byte[] secret)
    {
        try
        {
            return new DtlsSession(_context, secret) { Sink = this };
        }
        catch (TlsException)
        {
            return null;
        }
    }
}

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
    private const byte AlertType = 21; // RFC 8446 section 5.1
    private const int LongestAlert = 64; // bytes; one in the clear has 15
    private const long PreviousLifeMs = 60_000;
    private const long SecretLifeMs = 60 * 60_000; // cookies carry no time: the secret's life bounds theirs
    private readonly WorkerContext _worker;
    private readonly byte[] _secret = new byte[SecretSize];
    private readonly byte[] _previousSecret = new byte[SecretSize];
    private TlsContext _context;
    private DtlsSession? _session; // null: there was no memory for one
    private DtlsSession? _previous; // has the previous secret, for cookies that were on the way when it changed
    private long _previousUntil;
    private readonly byte[] _alert = new byte[LongestAlert]; // about the datagram at hand
    private int _alertLength;
    private bool _answered; // the datagram at hand has been answered with a cookie
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
        _alertLength = 0;
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
                session.Dispose();
                _session = TryCreate(_secret);
                break;
        }
        if (!_answered && _previous is { } previous)
        {
            // Perhaps a cookie of the previous secret. A session that has accepted one, or has failed, is used up.
            switch (previous.AcceptStateless(peer, body))
            {
                case StatelessOutcome.Accepted:
                    _previous = TryCreate(_previousSecret);
                    return previous;
                case StatelessOutcome.Failed:
                    previous.Dispose();
                    _previous = TryCreate(_previousSecret);
                    break;
            }
        }
        if (!_answered)
        {
            _worker.Counters.Add(Counter.HandshakeIgnored);
            SendAlert();
        }
        return null;
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
        if (record[0] == AlertType)
        {
            // A cookie that is wrong for one secret may be right for the other: nothing is said until both have been asked.
            _alertLength = Math.Min(record.Length, LongestAlert);
            record[.._alertLength].CopyTo(_alert);
            return;
        }
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

    /// <summary>Tells the sender why its ClientHello is refused, if there is something to say.</summary>
    private void SendAlert()
    {
        if (_alertLength > 0)
        {
            _ = Envelope.SendTo(_worker, _path, _version, _alert.AsSpan(0, _alertLength));
        }
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
        _worker.Random.Fill(_secret);
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

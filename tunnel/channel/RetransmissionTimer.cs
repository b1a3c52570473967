using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// When a DTLS session repeats what may have got lost (RFC 9147 section 5.8). In the handshake wolfSSL keeps the interval;
/// after it this class does. Times in milliseconds. One thread.
/// </summary>
internal sealed class RetransmissionTimer(DtlsSession session)
{
    private const long RepeatMs = 500; // between repetitions of what wolfSSL sent after the handshake
    private const int Repetitions = 20;
    private int _repetitionsLeft;
    private bool _roundTripKnown;

    /// <summary>When <see cref="Fire"/> is due; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt { get; private set; } = long.MaxValue;

    /// <summary>Call after each step. In the handshake, what arrives may bring the timer forward, never put it off.</summary>
    public void Rearm(long now)
    {
        if (!session.IsEstablished)
        {
            var due = now + session.TimeoutMs;
            DueAt = DueAt > now ? Math.Min(DueAt, due) : due;
        }
        else if (_repetitionsLeft == 0)
        {
            DueAt = long.MaxValue;
        }
    }

    /// <summary>
    /// wolfSSL has sent something after the handshake that may get lost: it is repeated for some seconds. Each call of its
    /// timer doubles its interval, and the seventh fails; so the interval is put back before each one, and a peer that
    /// sleeps through a key update keeps its connection.
    /// </summary>
    public void Repeat(long now)
    {
        _repetitionsLeft = Repetitions;
        if (DueAt == long.MaxValue)
        {
            DueAt = now + RepeatMs;
        }
    }

    /// <summary>
    /// Client, first answer: how long the path takes. With wolfSSL's 100 ms on a path of a second, a dozen copies of a
    /// flight would be under way before the first answer, and it recognizes acknowledgements of the last three only.
    /// </summary>
    public void LearnRoundTrip(long roundTripMs)
    {
        if (!_roundTripKnown)
        {
            _roundTripKnown = true;
            DueAt = long.MaxValue;
            session.ResetTimeout((int)Math.Clamp((roundTripMs * 5 / 4 / DtlsSession.TimerUnitMs) + 1, 1, 32));
        }
    }

    /// <summary>Repeats. Failed: in the handshake the peer has been silent too long; after it, nothing to be done.</summary>
    public DtlsStatus Fire(long now)
    {
        DueAt = long.MaxValue;
        if (!session.IsEstablished)
        {
            var status = session.OnTimeout();
            if (status != DtlsStatus.Failed)
            {
                Rearm(now);
            }
            return status;
        }
        if (_repetitionsLeft == 0)
        {
            return DtlsStatus.Done;
        }
        _repetitionsLeft--;
        session.ResetTimeout(1);
        DueAt = now + RepeatMs;
        return session.OnTimeout();
    }
}

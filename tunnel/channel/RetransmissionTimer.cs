using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// Decides when a DTLS session repeats records that may be lost (RFC 9147 section 5.8). During the handshake wolfSSL keeps
/// the interval, after it this class does. Times in milliseconds. One thread.
/// </summary>
internal sealed class RetransmissionTimer(DtlsSession session)
{
    private const long RepeatMs = 500; // between repetitions of records that wolfSSL sent after the handshake
    private const int Repetitions = 20;
    private int _repetitionsLeft;
    private bool _roundTripKnown;

    /// <summary>When <see cref="Fire"/> is due; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt { get; private set; } = long.MaxValue;

    /// <summary>Call after each step. During the handshake an arrival may bring the timer forward, never put it off.</summary>
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
    /// Repeats a record that wolfSSL has sent after the handshake, for some seconds. Each call of wolfSSL's timer doubles its
    /// interval, and the seventh call fails; so the interval is reset before each one, and a peer that sleeps through a key
    /// update keeps its connection.
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
    /// Client: takes the round-trip time from the first answer. With wolfSSL's 100 ms on a path of one second, a dozen copies
    /// of a flight would be under way before the first answer, and it recognizes acknowledgements of the last three only.
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

    /// <summary>Repeats what is due. Failed: during the handshake the peer has been silent too long; after it, no action is needed.</summary>
    public TlsStatus Fire(long now)
    {
        DueAt = long.MaxValue;
        if (!session.IsEstablished)
        {
            var status = session.OnTimeout();
            if (status != TlsStatus.Failed)
            {
                Rearm(now);
            }
            return status;
        }
        if (_repetitionsLeft == 0)
        {
            return TlsStatus.Done;
        }
        _repetitionsLeft--;
        session.ResetTimeout(1);
        DueAt = now + RepeatMs;
        return session.OnTimeout();
    }
}

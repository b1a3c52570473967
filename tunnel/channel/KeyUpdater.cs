using Lightway.Protocol;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>Server: renews the keys of a session once per interval (RFC 8446 section 4.6.3, RFC 9147 section 8). Times in milliseconds. One thread.</summary>
/// <param name="intervalMs">0: never.</param>
internal sealed class KeyUpdater(SecureSession session, Counters counters, long intervalMs)
{
    private const long PollMs = 100;
    private const long LimitMs = 30_000; // unanswered for longer: the peer is asleep or gone, and is asked again an interval later
    private KeyUpdateState _state = KeyUpdate.create(intervalMs);
    private long _pollAt = long.MaxValue;
    private long _giveUpAt;

    /// <summary>When <see cref="Run"/> has something to do; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt => Math.Min(_pollAt, _state.NextAt);

    /// <summary>The peer has been let in: the interval starts.</summary>
    public void Granted(long now) => _state = KeyUpdate.granted(_state, now);

    /// <summary>The keys have protected as much as they should: <see cref="Run"/> has something to do.</summary>
    public void UsedUp(long now) => _state = KeyUpdate.usedUp(_state, now);

    /// <summary>Acts on whatever is due. True: an update has just been requested.</summary>
    public bool Run(long now)
    {
        if (now >= _pollAt)
        {
            Poll(now);
        }
        (_state, var due) = KeyUpdate.tick(_state, now);
        if (!due)
        {
            return false;
        }
        if (!session.StartKeyUpdate())
        {
            counters.Add(Counter.ConnTlsError);
            _state = KeyUpdate.completed(_state, now); // again after an interval
            return false;
        }
        counters.Add(Counter.KeyUpdateStart);
        _pollAt = now + PollMs;
        _giveUpAt = now + LimitMs;
        return true;
    }

    private void Poll(long now)
    {
        var pending = session.IsKeyUpdatePending;
        if (pending && now < _giveUpAt)
        {
            _pollAt = now + PollMs;
            return;
        }
        counters.Add(pending ? Counter.KeyUpdateAbandoned : Counter.KeyUpdateComplete);
        _pollAt = long.MaxValue;
        _state = KeyUpdate.completed(_state, now);
    }
}

namespace Lightway.Tunnel.Connections;

/// <summary>Client: decides when to repeat the login and when to give up. Times in milliseconds. One thread.</summary>
internal sealed class LoginTimer
{
    private const long FirstRetryMs = 100;
    private const long RetryLimitMs = 2_000;
    private const long TimeoutMs = 30_000;
    private long _retryMs = FirstRetryMs;
    private long _giveUpAt = long.MaxValue;
    private bool _repeats;

    /// <summary>When to send the login again; <see cref="long.MaxValue"/>: never.</summary>
    public long RetryAt { get; private set; } = long.MaxValue;

    /// <param name="repeats">What is sent may be lost. Else it arrives, and only the answer is waited for.</param>
    public void Start(long now, bool repeats)
    {
        _giveUpAt = now + TimeoutMs;
        _repeats = repeats;
    }

    public void Sent(long now)
    {
        RetryAt = _repeats ? now + _retryMs : _giveUpAt;
        _retryMs = Math.Min(_retryMs * 2, RetryLimitMs);
    }

    public bool IsTooLate(long now) => now >= _giveUpAt;

    public void Stop() => RetryAt = long.MaxValue;
}

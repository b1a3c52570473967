namespace Lightway.Tunnel.Connections;

/// <summary>Client: when to ask again to be let in, and when to give up. Times in milliseconds. One thread.</summary>
internal sealed class LoginTimer
{
    private const long FirstRetryMs = 100;
    private const long RetryLimitMs = 2_000;
    private const long TimeoutMs = 30_000;
    private long _retryMs = FirstRetryMs;
    private long _giveUpAt = long.MaxValue;

    /// <summary><see cref="long.MaxValue"/>: nothing is waited for.</summary>
    public long RetryAt { get; private set; } = long.MaxValue;

    public void Start(long now) => _giveUpAt = now + TimeoutMs;

    public void Sent(long now)
    {
        RetryAt = now + _retryMs;
        _retryMs = Math.Min(_retryMs * 2, RetryLimitMs);
    }

    public bool IsTooLate(long now) => now >= _giveUpAt;

    public void Stop() => RetryAt = long.MaxValue;
}

namespace Lightway.Tunnel.Tls;

/// <summary>What an operator who looks into TLS is shown. All sessions of a program share it.</summary>
public sealed class TlsInsight : IDisposable
{
    private int _sessions;

    /// <summary>Gets the secrets of each session; null: they stay in the library.</summary>
    public KeyLog? Keys { get; init; }

    /// <summary>Gets a line about each record of a handshake, on any thread; null: nobody looks.</summary>
    public Action<string>? Records { get; init; }

    public void Dispose() => Keys?.Dispose();

    /// <summary>Number of a new session in the lines.</summary>
    internal int NextSession() => Interlocked.Increment(ref _sessions);
}

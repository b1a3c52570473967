namespace Lightway.Tunnel.Hooks;

/// <summary>
/// What an embedding program puts into one connection. Those of the plugins and the codec that are disposable are disposed of
/// with the connection.
/// </summary>
public sealed record ConnectionHooks
{
    /// <summary>In the order in which packets to the peer pass them.</summary>
    public IReadOnlyList<IInsidePlugin> Inside { get; init; } = [];

    /// <summary>Not used over TCP.</summary>
    public IPacketCodec? Codec { get; init; }

    /// <summary>Server: the peer may have its packets encoded if it asks; else its requests are turned down.</summary>
    public Func<bool> MayEncode { get; init; } = static () => true;
}

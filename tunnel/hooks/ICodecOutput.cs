namespace Lightway.Tunnel.Hooks;

/// <summary>Takes what a codec makes of packets.</summary>
public interface ICodecOutput
{
    /// <summary>Sends on one encoded, or decoded, packet. It is copied. Only within the call that got this output.</summary>
    void Emit(ReadOnlySpan<byte> packet);
}

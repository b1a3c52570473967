namespace Lightway.Tunnel.Hooks;

/// <summary>
/// Encodes the packets that one end sends through the tunnel and decodes those of the other, for one connection: compression,
/// error correction, padding. Packets are encoded while client and server have agreed on it; the client asks. What arrives
/// encoded is decoded at any time. Called on the worker's thread, per packet: it must neither block nor throw. Superpackets
/// are cut before.
/// </summary>
public interface IPacketCodec
{
    /// <summary>Bytes that an encoded packet may be longer than the packet; the tunnel's MTU is that much smaller.</summary>
    int MaxOverhead { get; }

    /// <summary>
    /// When <see cref="OnTimer"/> is due, in milliseconds of the worker's clock; <see cref="long.MaxValue"/>: never. Asked after
    /// each call.
    /// </summary>
    long DueAt => long.MaxValue;

    /// <summary>Encodes one IPv4 packet: emits none, one or several encoded packets, of this or of earlier calls.</summary>
    /// <param name="now">Milliseconds of the worker's clock.</param>
    CodecVerdict Encode(ReadOnlySpan<byte> packet, ICodecOutput output, long now);

    /// <summary>Decodes one encoded packet, which the peer has sent; it may contain anything. Emits IPv4 packets.</summary>
    /// <param name="now">Milliseconds of the worker's clock.</param>
    CodecVerdict Decode(ReadOnlySpan<byte> encoded, ICodecOutput output, long now);

    /// <summary>Emits what has been kept back long enough. Also called when it is not due.</summary>
    /// <param name="encoded">For the peer.</param>
    /// <param name="decoded">For the TUN device.</param>
    void OnTimer(long now, ICodecOutput encoded, ICodecOutput decoded) { }
}

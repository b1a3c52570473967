namespace Lightway.Tunnel.Hooks;

/// <summary>
/// Encodes the packets that one end sends through the tunnel and decodes those of the other, for one connection: compression,
/// error correction, padding. Packets are encoded while client and server have agreed on it; the client asks. What arrives
/// encoded is decoded at any time. Called on the worker's thread, per packet: it must not block, and an exception ends the
/// worker. Superpackets are cut before.
/// </summary>
public interface IPacketCodec
{
    /// <summary>Bytes that an encoded packet may be longer than the packet; the tunnel's MTU is less by so many.</summary>
    int MaxOverhead { get; }

    /// <summary>Encodes one IPv4 packet: emits none, one or several encoded packets, of this or of earlier calls.</summary>
    CodecVerdict Encode(ReadOnlySpan<byte> packet, ICodecOutput output);

    /// <summary>Decodes one encoded packet, which the peer has sent; it may contain anything. Emits IPv4 packets.</summary>
    CodecVerdict Decode(ReadOnlySpan<byte> encoded, ICodecOutput output);
}

using Lightway.Tunnel.Hooks;

namespace Lightway.Samples.Hooks;

/// <summary>
/// The smallest codec: a marker byte, then the packet with each byte changed by a key. It protects nothing (the tunnel does); it
/// shows where a codec that compresses or repairs would be.
/// </summary>
/// <param name="key">The same at both ends.</param>
public sealed class XorCodec(byte key) : IPacketCodec
{
    private const byte Marker = 0xC5;
    private readonly byte[] _buffer = new byte[1 + 65535];

    public int MaxOverhead => 1;

    public CodecVerdict Encode(ReadOnlySpan<byte> packet, ICodecOutput output, long now)
    {
        _buffer[0] = Marker;
        Change(packet, _buffer.AsSpan(1));
        output.Emit(_buffer.AsSpan(0, 1 + packet.Length));
        return CodecVerdict.Taken;
    }

    public CodecVerdict Decode(ReadOnlySpan<byte> encoded, ICodecOutput output, long now)
    {
        if (encoded.IsEmpty || encoded[0] != Marker)
        {
            return CodecVerdict.Failed;
        }
        Change(encoded[1..], _buffer);
        output.Emit(_buffer.AsSpan(0, encoded.Length - 1));
        return CodecVerdict.Taken;
    }

    private void Change(ReadOnlySpan<byte> from, Span<byte> to)
    {
        for (var i = 0; i < from.Length; i++)
        {
            to[i] = (byte)(from[i] ^ key);
        }
    }
}

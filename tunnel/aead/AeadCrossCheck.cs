using System.Security.Cryptography;

namespace Lightway.Tunnel.Aead;

/// <summary>Makes a cipher with a key.</summary>
internal delegate IPacketAead AeadFactory(ReadOnlySpan<byte> key);

/// <summary>
/// Compares two libraries with random packets of many lengths. They must give the same bytes, each must open what the other
/// has sealed, and neither may take a packet of which one bit was flipped.
/// </summary>
internal static class AeadCrossCheck
{
    private const int Longest = 1600; // bytes; an inside packet has at most 1500
    private static readonly int[] s_aadLengths = [0, 16, 18]; // none, and those of the two versions of Expresslane

    // All lengths around the block sizes of the vector loops, then every 37th.
    private static readonly int[] s_lengths =
    [
        .. Enumerable.Range(0, 70),
        .. Enumerable.Range(120, 20),
        .. Enumerable.Range(248, 20),
        .. Enumerable.Range(504, 20),
        .. Enumerable.Range(760, 20),
        .. Enumerable.Range(1016, 20),
        .. Enumerable.Range(1340, 30),
        .. Enumerable.Range(0, Longest / 37).Select(i => i * 37),
        Longest,
    ];

    /// <returns>What differs; null if nothing does.</returns>
    public static string? Compare(AeadFactory judge, AeadFactory candidate)
    {
        foreach (var length in s_lengths)
        {
            var aadLength = s_aadLengths[length % s_aadLengths.Length];
            if (Compare(judge, candidate, length, aadLength) is { } difference)
            {
                return $"{difference} of {length} bytes with {aadLength} bytes of additional data";
            }
        }
        return null;
    }

    private static string? Compare(AeadFactory judge, AeadFactory candidate, int length, int aadLength)
    {
        var key = RandomNumberGenerator.GetBytes(PacketAeads.KeySize);
        var iv = RandomNumberGenerator.GetBytes(PacketAeads.IvSize);
        var aad = RandomNumberGenerator.GetBytes(aadLength);
        var packet = RandomNumberGenerator.GetBytes(length);
        using var first = judge(key);
        using var second = candidate(key);
        var expected = Sealed(first, packet, iv, aad);
        var actual = Sealed(second, packet, iv, aad);
        if (expected is null || actual is null || !expected.AsSpan().SequenceEqual(actual))
        {
            return "it seals a packet to other bytes, one";
        }
        var opened = new byte[length];
        if (!Opens(second, expected, iv, aad, opened) || !opened.AsSpan().SequenceEqual(packet))
        {
            return "it does not open a packet";
        }
        var flip = RandomNumberGenerator.GetInt32(expected.Length * 8);
        expected[flip / 8] ^= (byte)(1 << (flip % 8));
        if (Opens(second, expected, iv, aad, opened) || Opens(first, expected, iv, aad, opened))
        {
            return "a packet with a flipped bit is opened, one";
        }
        expected[flip / 8] ^= (byte)(1 << (flip % 8));
        if (aadLength > 0)
        {
            aad[length % aadLength] ^= 1;
            if (Opens(second, expected, iv, aad, opened))
            {
                return "a packet with other additional data is opened, one";
            }
        }
        return null;
    }

    /// <summary>Ciphertext and tag, sealed in place; null if the library failed.</summary>
    private static byte[]? Sealed(IPacketAead cipher, byte[] packet, byte[] iv, byte[] aad)
    {
        var result = new byte[packet.Length + PacketAeads.TagSize];
        packet.CopyTo(result, 0);
        var text = result.AsSpan(0, packet.Length);
        return cipher.Seal(text, text, iv, result.AsSpan(packet.Length), aad) ? result : null;
    }

    private static bool Opens(IPacketAead cipher, byte[] packet, byte[] iv, byte[] aad, byte[] output) =>
        cipher.Open(packet.AsSpan(0, output.Length), output, iv, packet.AsSpan(output.Length), aad);
}

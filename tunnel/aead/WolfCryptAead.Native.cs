using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Aead;

/// <summary>A cipher by wolfCrypt.</summary>
public sealed unsafe class WolfCryptAead : IPacketAead
{
    private nint _aes;

    /// <exception cref="TlsException">wolfCrypt has no memory, or refuses the key.</exception>
    public WolfCryptAead(ReadOnlySpan<byte> key)
        : this(key, WolfSsl.INVALID_DEVID) { }

    /// <param name="device">Whom wolfCrypt asks to do the work.</param>
    internal WolfCryptAead(ReadOnlySpan<byte> key, int device)
    {
        int result;
        _aes = WolfSsl.wc_AesNew(0, device, &result);
        if (_aes == 0)
        {
            throw new TlsException($"wc_AesNew: {WolfSsl.Describe(result)}");
        }
        fixed (byte* bytes = key)
        {
            result = WolfSsl.wc_AesGcmSetKey(_aes, bytes, (uint)key.Length);
        }
        if (result != 0)
        {
            Dispose();
            throw new TlsException($"wc_AesGcmSetKey: {WolfSsl.Describe(result)}");
        }
    }

    public bool Seal(
        ReadOnlySpan<byte> plaintext,
        Span<byte> ciphertext,
        ReadOnlySpan<byte> iv,
        Span<byte> tag,
        ReadOnlySpan<byte> aad
    )
    {
        fixed (
            byte* input = plaintext,
                output = ciphertext,
                ivBytes = iv,
                tagBytes = tag,
                aadBytes = aad
        )
        {
            return WolfSsl.wc_AesGcmEncrypt(
                    _aes,
                    output,
                    input,
                    (uint)plaintext.Length,
                    ivBytes,
                    PacketAeads.IvSize,
                    tagBytes,
                    PacketAeads.TagSize,
                    aadBytes,
                    (uint)aad.Length
                ) == 0;
        }
    }

    public bool Open(
        ReadOnlySpan<byte> ciphertext,
        Span<byte> plaintext,
        ReadOnlySpan<byte> iv,
        ReadOnlySpan<byte> tag,
        ReadOnlySpan<byte> aad
    )
    {
        fixed (
            byte* input = ciphertext,
                output = plaintext,
                ivBytes = iv,
                tagBytes = tag,
                aadBytes = aad
        )
        {
            return WolfSsl.wc_AesGcmDecrypt(
                    _aes,
                    output,
                    input,
                    (uint)ciphertext.Length,
                    ivBytes,
                    PacketAeads.IvSize,
                    tagBytes,
                    PacketAeads.TagSize,
                    aadBytes,
                    (uint)aad.Length
                ) == 0;
        }
    }

    /// <summary>Puts the all-zero key and what follows from it in the place of the key: wc_AesDelete may leave it in the heap.</summary>
    internal void Wipe()
    {
        Span<byte> zeros = stackalloc byte[PacketAeads.KeySize];
        zeros.Clear();
        fixed (byte* bytes = zeros)
        {
            _ = WolfSsl.wc_AesGcmSetKey(_aes, bytes, PacketAeads.KeySize);
        }
    }

    public void Dispose()
    {
        if (_aes != 0)
        {
            Wipe();
            var aes = _aes;
            _aes = 0;
            _ = WolfSsl.wc_AesDelete(aes, null);
        }
    }
}

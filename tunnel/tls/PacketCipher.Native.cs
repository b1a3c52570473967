namespace Lightway.Tunnel.Tls;

/// <summary>
/// AES-256-GCM with one key, 12-byte IV and 16-byte tag (NIST SP 800-38D), by wolfCrypt. One thread. Output may be the
/// input (in place) or lie elsewhere.
/// </summary>
public sealed unsafe class PacketCipher : IDisposable
{
    public const int KeySize = 32;
    public const int IvSize = 12;
    public const int TagSize = 16;
    private nint _aes;

    /// <exception cref="TlsException">wolfCrypt has no memory, or refuses the key.</exception>
    public PacketCipher(ReadOnlySpan<byte> key)
    {
        int result;
        _aes = WolfSsl.wc_AesNew(0, WolfSsl.INVALID_DEVID, &result);
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

    /// <summary>Null if wolfCrypt has no memory.</summary>
    public static PacketCipher? TryCreate(ReadOnlySpan<byte> key)
    {
        try
        {
            return new PacketCipher(key);
        }
        catch (TlsException)
        {
            return null;
        }
    }

    /// <summary>Encrypts and authenticates. <paramref name="ciphertext"/> is as long as <paramref name="plaintext"/>.</summary>
    /// <returns>False if wolfCrypt failed; nothing may be sent then.</returns>
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
                    IvSize,
                    tagBytes,
                    TagSize,
                    aadBytes,
                    (uint)aad.Length
                ) == 0;
        }
    }

    /// <summary>Checks and decrypts. False: the tag is wrong, the output is worthless, and so is the input if it was opened in place.</summary>
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
                    IvSize,
                    tagBytes,
                    TagSize,
                    aadBytes,
                    (uint)aad.Length
                ) == 0;
        }
    }

    /// <summary>Puts the all-zero key and what follows from it in the place of the key: wc_AesDelete may leave it in the heap.</summary>
    internal void Wipe()
    {
        Span<byte> zeros = stackalloc byte[KeySize];
        zeros.Clear();
        fixed (byte* bytes = zeros)
        {
            _ = WolfSsl.wc_AesGcmSetKey(_aes, bytes, KeySize);
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

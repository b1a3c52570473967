namespace Lightway.Tunnel.Aead;

/// <summary>
/// AES-256-GCM with one key, 12-byte IV and 16-byte tag (NIST SP 800-38D). One thread. Output may be the input (in place)
/// or lie elsewhere; it is as long as the input.
/// </summary>
public interface IPacketAead : IDisposable
{
    /// <summary>Encrypts and authenticates.</summary>
    /// <returns>False if the library failed; nothing may be sent then.</returns>
    bool Seal(
        ReadOnlySpan<byte> plaintext,
        Span<byte> ciphertext,
        ReadOnlySpan<byte> iv,
        Span<byte> tag,
        ReadOnlySpan<byte> aad
    );

    /// <summary>Checks and decrypts. False: the tag is wrong, the output is worthless, and so is the input if it was opened in place.</summary>
    bool Open(
        ReadOnlySpan<byte> ciphertext,
        Span<byte> plaintext,
        ReadOnlySpan<byte> iv,
        ReadOnlySpan<byte> tag,
        ReadOnlySpan<byte> aad
    );
}

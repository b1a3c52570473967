using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Aead;

/// <summary>A cipher by Intel IPsec-MB.</summary>
internal sealed unsafe class IpsecMbAead : IPacketAead
{
    private readonly IpsecMb _library;
    private byte* _key;

    /// <exception cref="TlsException">There is no memory, or the key is of another length.</exception>
    public IpsecMbAead(IpsecMb library, ReadOnlySpan<byte> key)
    {
        if (key.Length != PacketAeads.KeySize)
        {
            throw new TlsException($"a key of {key.Length} bytes; AES-256 needs {PacketAeads.KeySize}");
        }
        _library = library;
        _key = IpsecMbKey.TryAllocate(library, key);
        if (_key is null)
        {
            throw new TlsException("no memory for a key of AES-256-GCM");
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
        Require(plaintext.Length, ciphertext.Length, iv.Length, tag.Length);
        fixed (
            byte* input = plaintext,
                output = ciphertext,
                ivBytes = iv,
                tagBytes = tag,
                aadBytes = aad
        )
        {
            IpsecMbKey.Seal(
                _library,
                _key,
                input,
                output,
                (uint)plaintext.Length,
                ivBytes,
                aadBytes,
                (uint)aad.Length,
                tagBytes
            );
        }
        return true;
    }

    public bool Open(
        ReadOnlySpan<byte> ciphertext,
        Span<byte> plaintext,
        ReadOnlySpan<byte> iv,
        ReadOnlySpan<byte> tag,
        ReadOnlySpan<byte> aad
    )
    {
        Require(ciphertext.Length, plaintext.Length, iv.Length, tag.Length);
        fixed (
            byte* input = ciphertext,
                output = plaintext,
                ivBytes = iv,
                tagBytes = tag,
                aadBytes = aad
        )
        {
            return IpsecMbKey.TryOpen(
                _library,
                _key,
                input,
                output,
                (uint)ciphertext.Length,
                ivBytes,
                aadBytes,
                (uint)aad.Length,
                tagBytes
            );
        }
    }

    public void Dispose()
    {
        IpsecMbKey.Free(_key);
        _key = null;
    }

    /// <summary>The library trusts its lengths, and that there is a key.</summary>
    private void Require(int input, int output, int iv, int tag)
    {
        ObjectDisposedException.ThrowIf(_key is null, this);
        if (output < input || iv != PacketAeads.IvSize || tag != PacketAeads.TagSize)
        {
            throw new ArgumentException("output shorter than input, or an IV or tag of another length");
        }
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;

namespace Lightway.Tunnel.Aead;

/// <summary>
/// A key of Intel IPsec-MB in one block of memory: the key as it was given, what the library made of it, and the context of a
/// call. One thread per block. Lengths are the caller's duty: IVs have 12 bytes, tags 16, outputs as many as inputs.
/// </summary>
internal static unsafe class IpsecMbKey
{
    // struct gcm_key_data of the library's version 1.3 has 1008 bytes and struct gcm_context_data has 88; both have room to grow.
    private const int RawAt = 0;
    private const int KeyDataAt = 64;
    private const int ContextAt = KeyDataAt + 2048;
    private const int Size = ContextAt + 256;
    private const nuint Alignment = 64;

    private static int s_alive;

    /// <summary>Blocks that are not freed yet, of the whole process.</summary>
    internal static int Alive => Volatile.Read(ref s_alive);

    /// <summary>Null if there is no memory.</summary>
    public static byte* TryAllocate(IpsecMb library, ReadOnlySpan<byte> key)
    {
        byte* block;
        try
        {
            block = (byte*)NativeMemory.AlignedAlloc(Size, Alignment);
        }
        catch (OutOfMemoryException)
        {
            return null;
        }
        Interlocked.Increment(ref s_alive);
        NativeMemory.Clear(block, Size);
        Set(library, block, key);
        return block;
    }

    /// <param name="key">32 bytes.</param>
    public static void Set(IpsecMb library, byte* block, ReadOnlySpan<byte> key)
    {
        key.CopyTo(new Span<byte>(block + RawAt, PacketAeads.KeySize));
        library.Prepare(block + RawAt, block + KeyDataAt);
    }

    public static bool IsOf(byte* block, ReadOnlySpan<byte> key) =>
        new ReadOnlySpan<byte>(block + RawAt, PacketAeads.KeySize).SequenceEqual(key);

    public static void Seal(
        IpsecMb library,
        byte* block,
        byte* plaintext,
        byte* ciphertext,
        uint length,
        byte* iv,
        byte* aad,
        uint aadLength,
        byte* tag
    ) =>
        library.Encrypt(
            block + KeyDataAt,
            block + ContextAt,
            ciphertext,
            plaintext,
            length,
            iv,
            aad,
            aadLength,
            tag,
            PacketAeads.TagSize
        );

    /// <summary>False: not authentic, and the output is cleared.</summary>
    public static bool TryOpen(
        IpsecMb library,
        byte* block,
        byte* ciphertext,
        byte* plaintext,
        uint length,
        byte* iv,
        byte* aad,
        uint aadLength,
        byte* tag
    )
    {
        var computed = stackalloc byte[PacketAeads.TagSize];
        library.Decrypt(
            block + KeyDataAt,
            block + ContextAt,
            plaintext,
            ciphertext,
            length,
            iv,
            aad,
            aadLength,
            computed,
            PacketAeads.TagSize
        );
        if (AreEqual(computed, tag))
        {
            return true;
        }
        NativeMemory.Clear(plaintext, length);
        return false;
    }

    /// <summary>
    /// Compares two tags in a time that does not depend on them. CryptographicOperations.FixedTimeEquals goes byte by byte in
    /// code that the compiler is told not to optimize: 50 ns, a third of what opening a packet takes.
    /// </summary>
    private static bool AreEqual(byte* one, byte* other)
    {
        var difference =
            (Unsafe.ReadUnaligned<ulong>(one) ^ Unsafe.ReadUnaligned<ulong>(other))
            | (Unsafe.ReadUnaligned<ulong>(one + 8) ^ Unsafe.ReadUnaligned<ulong>(other + 8));
        return difference == 0;
    }

    /// <summary>Wipes and frees; null is nothing.</summary>
    public static void Free(byte* block)
    {
        if (block is not null)
        {
            CryptographicOperations.ZeroMemory(new Span<byte>(block, Size));
            NativeMemory.AlignedFree(block);
            Interlocked.Decrement(ref s_alive);
        }
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Aead;

/// <summary>
/// Lets wolfSSL seal and open its records, of DTLS and TLS, by Intel IPsec-MB: wolfCrypt calls back for AES-GCM and does
/// everything else itself (wolfssl/wolfcrypt/cryptocb.h). It needs a wolfSSL that was built with --enable-cryptocb and
/// WOLF_CRYPTO_CB_FREE. One library per process.
/// </summary>
internal static unsafe class RecordAccelerator
{
    /// <summary>The number by which contexts and ciphers ask for it.</summary>
    public const int DeviceId = 0x4C575331;

    private const int Unavailable = -271; // CRYPTOCB_UNAVAILABLE: wolfCrypt does it itself
    private const int WrongTag = -180; // AES_GCM_AUTH_E
    private const int CipherAlgorithm = 2; // WC_ALGO_TYPE_CIPHER
    private const int FreeAlgorithm = 11; // WC_ALGO_TYPE_FREE
    private const int AesGcm = 3; // WC_CIPHER_AES_GCM
    private const int Aes = 1; // WC_CIPHER_AES
    private const int RoundsAt = 240; // struct Aes begins with the round keys, 60 words
    private const int Aes256Rounds = 14;
    private static readonly Lock s_lock = new();
    private static IpsecMb? s_library; // set once, and before the first callback
    private static int s_slotAt; // Aes.devCtx, a pointer for the use of whoever is called back
    private static int s_keyAt; // Aes.devKey, the key as it was set

    /// <summary>struct wc_CryptoInfo, for AES-GCM in either direction.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct CipherInfo
    {
        public int Algorithm;
        private readonly int _padding;
        public int Type;
        public int IsEncryption;
        public byte* Aes;
        public byte* Output;
        public byte* Input;
        public uint Length;
        private readonly byte* _nonce; // of CCM
        private readonly uint _nonceLength;
        public byte* Iv;
        public uint IvLength;
        public byte* Tag;
        public uint TagLength;
        public byte* Aad;
        public uint AadLength;
    }

    /// <summary>struct wc_CryptoInfo, when a cipher is freed.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private struct FreeInfo
    {
        public int Algorithm;
        private readonly int _padding;
        public int OfAlgorithm;
        public int Type;
        private readonly int _subType;
        public byte* Aes;
    }

    /// <summary>Makes <see cref="DeviceId"/> known to wolfSSL, and compares what it gives with wolfCrypt's own work.</summary>
    /// <returns>Why records stay with wolfCrypt; null if they do not.</returns>
    public static string? TryRegister(IpsecMb library)
    {
        lock (s_lock)
        {
            if (s_library is not null)
            {
                return null;
            }
            _ = WolfSslLibrary.EnsureUsable(); // which also makes the table of devices
            if (!WolfSslLibrary.Has("wc_CryptoCb_RegisterDevice"))
            {
                return "this wolfSSL was built without --enable-cryptocb";
            }
            if (!TryFindFields(out var slotAt, out var keyAt))
            {
                return "this wolfSSL keeps its keys in another way than the one that is known here";
            }
            (s_slotAt, s_keyAt, s_library) = (slotAt, keyAt, library);
            var result = WolfSsl.wc_CryptoCb_RegisterDevice(DeviceId, &OnCall, 0);
            var difference =
                result == 0
                    ? AeadCrossCheck.Compare(key => new WolfCryptAead(key), key => new WolfCryptAead(key, DeviceId))
                    : WolfSsl.Describe(result);
            if (difference is not null)
            {
                WolfSsl.wc_CryptoCb_UnRegisterDevice(DeviceId);
                s_library = null;
            }
            return difference;
        }
    }

    /// <summary>
    /// Finds the two fields in the structure of this build: the number of a device is followed by the slot, and the key, whose
    /// bytes are also the first of the round keys, stands a second time behind it.
    /// </summary>
    private static bool TryFindFields(out int slotAt, out int keyAt)
    {
        (slotAt, keyAt) = (0, 0);
        int result;
        var aes = (byte*)WolfSsl.wc_AesNew(0, DeviceId, &result);
        if (aes is null)
        {
            return false;
        }
        var key = RandomNumberGenerator.GetBytes(PacketAeads.KeySize);
        fixed (byte* bytes = key)
        {
            result = WolfSsl.wc_AesGcmSetKey((nint)aes, bytes, PacketAeads.KeySize);
        }
        // What malloc gave for it, whose end is not before the structure's.
        var length = (int)WolfSsl.malloc_usable_size((nint)aes);
        for (var at = RoundsAt + sizeof(int); result == 0 && at + PacketAeads.KeySize <= length; at += sizeof(int))
        {
            if (slotAt == 0 && *(int*)(aes + at) == DeviceId)
            {
                slotAt = at + sizeof(int) + 7 & ~7;
            }
            else if (slotAt > 0 && at > slotAt && new ReadOnlySpan<byte>(aes + at, key.Length).SequenceEqual(key))
            {
                keyAt = at;
                break;
            }
        }
        var isKnown = keyAt > 0 && *(nint*)(aes + slotAt) == 0 && *(int*)(aes + RoundsAt) == Aes256Rounds;
        _ = WolfSsl.wc_AesDelete((nint)aes, null);
        return isKnown;
    }

    /// <summary>Called by wolfCrypt on whatever thread uses the cipher; nothing may be thrown.</summary>
    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnCall(int device, void* info, void* context)
    {
        var call = (CipherInfo*)info;
        if (call->Algorithm == CipherAlgorithm && call->Type == AesGcm)
        {
            return OnGcm(call);
        }
        if (call->Algorithm == FreeAlgorithm)
        {
            var ended = (FreeInfo*)info;
            if (ended->OfAlgorithm == CipherAlgorithm && ended->Type == Aes)
            {
                var slot = (byte**)(ended->Aes + s_slotAt);
                IpsecMbKey.Free(*slot);
                *slot = null;
            }
        }
        return Unavailable;
    }

    private static int OnGcm(CipherInfo* call)
    {
        if (
            s_library is not { } library
            || *(int*)(call->Aes + RoundsAt) != Aes256Rounds
            || call->IvLength != PacketAeads.IvSize
            || call->TagLength != PacketAeads.TagSize
        )
        {
            return Unavailable;
        }
        var slot = (byte**)(call->Aes + s_slotAt);
        var key = new ReadOnlySpan<byte>(call->Aes + s_keyAt, PacketAeads.KeySize);
        if (*slot is null)
        {
            *slot = IpsecMbKey.TryAllocate(library, key);
            if (*slot is null)
            {
                return Unavailable;
            }
        }
        else if (!IpsecMbKey.IsOf(*slot, key))
        {
            IpsecMbKey.Set(library, *slot, key); // the cipher was given another key
        }
        if (call->IsEncryption != 0)
        {
            IpsecMbKey.Seal(
                library,
                *slot,
                call->Input,
                call->Output,
                call->Length,
                call->Iv,
                call->Aad,
                call->AadLength,
                call->Tag
            );
            return 0;
        }
        return IpsecMbKey.TryOpen(
            library,
            *slot,
            call->Input,
            call->Output,
            call->Length,
            call->Iv,
            call->Aad,
            call->AadLength,
            call->Tag
        )
            ? 0
            : WrongTag;
    }
}

using System.Reflection;
using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Tls;

/// <summary>Declarations for libwolfssl (wolfssl/ssl.h, wolfssl/wolfcrypt/aes.h). C's names, so that one grep finds both sides.</summary>
/// <remarks>No SetLastError: wolfSSL reports by wolfSSL_get_error. No SuppressGCTransition: every call may run a callback.</remarks>
internal static unsafe partial class WolfSsl
{
    public const int WOLFSSL_SUCCESS = 1;
    public const int WOLFSSL_FILETYPE_PEM = 1;
    public const int WOLFSSL_VERIFY_PEER = 1;
    public const int WOLFSSL_ERROR_WANT_READ = 2;
    public const int WOLFSSL_ERROR_WANT_WRITE = 3;
    public const int WOLFSSL_ERROR_ZERO_RETURN = 6;
    public const int WOLFSSL_CBIO_ERR_GENERAL = -1;
    public const int WOLFSSL_CBIO_ERR_WANT_READ = -2;
    public const int INVALID_DEVID = -2;

    // Named groups, wolfssl/ssl.h: the private code points are those of WOLFSSL_ML_KEM_USE_OLD_IDS builds.
    public const int WOLFSSL_ECC_SECP256R1 = 23;
    public const int WOLFSSL_ECC_X25519 = 29;
    public const int WOLFSSL_X25519MLKEM768 = 4588;
    public const int WOLFSSL_SECP256R1MLKEM512 = 12107;
    public const int WOLFSSL_SECP521R1MLKEM1024 = 12109;

    private const string Library = "wolfssl";

    static WolfSsl() => NativeLibrary.SetDllImportResolver(typeof(WolfSsl).Assembly, WolfSslLibrary.Resolve);

    [LibraryImport(Library)]
    public static partial int wolfSSL_Init();

    [LibraryImport(Library)]
    public static partial byte* wolfSSL_lib_version();

    [LibraryImport(Library)]
    public static partial nint wolfDTLSv1_3_server_method();

    [LibraryImport(Library)]
    public static partial nint wolfDTLSv1_3_client_method();

    [LibraryImport(Library)]
    public static partial nint wolfTLSv1_3_server_method();

    [LibraryImport(Library)]
    public static partial nint wolfTLSv1_3_client_method();

    [LibraryImport(Library)]
    public static partial nint wolfSSL_CTX_new(nint method);

    [LibraryImport(Library)]
    public static partial void wolfSSL_CTX_free(nint ctx);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_use_certificate_chain_buffer(nint ctx, byte* pem, nint length);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_use_PrivateKey_buffer(nint ctx, byte* pem, nint length, int format);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_check_private_key(nint ctx);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_load_verify_buffer(nint ctx, byte* pem, nint length, int format);

    [LibraryImport(Library)]
    public static partial void wolfSSL_CTX_set_verify(nint ctx, int mode, nint callback);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int wolfSSL_CTX_set_cipher_list(nint ctx, string list);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_set_groups(nint ctx, int* groups, int count);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_dtls_set_mtu(nint ctx, ushort mtu);

    [LibraryImport(Library)]
    public static partial void wolfSSL_CTX_SetIORecv(
        nint ctx,
        delegate* unmanaged[Cdecl]<nint, byte*, int, nint, int> callback
    );

    [LibraryImport(Library)]
    public static partial void wolfSSL_CTX_SetIOSend(
        nint ctx,
        delegate* unmanaged[Cdecl]<nint, byte*, int, nint, int> callback
    );

    [LibraryImport(Library)]
    public static partial nint wolfSSL_new(nint ctx);

    [LibraryImport(Library)]
    public static partial void wolfSSL_free(nint ssl);

    [LibraryImport(Library)]
    public static partial void wolfSSL_SetIOReadCtx(nint ssl, nint context);

    [LibraryImport(Library)]
    public static partial void wolfSSL_SetIOWriteCtx(nint ssl, nint context);

    [LibraryImport(Library)]
    public static partial int wolfSSL_send_hrr_cookie(nint ssl, byte* secret, uint length);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls13_allow_ch_frag(nint ssl, int enabled);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls_set_peer(nint ssl, byte* peer, uint length);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls_set_mtu(nint ssl, ushort mtu);

    [LibraryImport(Library)]
    public static partial int wolfDTLS_accept_stateless(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_accept(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_connect(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_UseKeyShare(nint ssl, ushort group);

    [LibraryImport(Library, StringMarshalling = StringMarshalling.Utf8)]
    public static partial int wolfSSL_check_domain_name(nint ssl, string name);

    [LibraryImport(Library)]
    public static partial int wolfSSL_read(nint ssl, byte* data, int size);

    [LibraryImport(Library)]
    public static partial int wolfSSL_write(nint ssl, byte* data, int size);

    [LibraryImport(Library)]
    public static partial int wolfSSL_shutdown(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_get_error(nint ssl, int returned);

    [LibraryImport(Library)]
    public static partial void wolfSSL_ERR_error_string_n(nuint error, byte* text, nuint length);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls_get_current_timeout(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls13_use_quick_timeout(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls_got_timeout(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_dtls_set_timeout_init(nint ssl, int timeout);

    [LibraryImport(Library)]
    public static partial int wolfSSL_update_keys(nint ssl);

    [LibraryImport(Library)]
    public static partial int wolfSSL_key_update_response(nint ssl, int* required);

    [LibraryImport(Library)]
    public static partial byte* wolfSSL_get_curve_name(nint ssl);

    [LibraryImport(Library)]
    public static partial byte* wolfSSL_get_cipher_name(nint ssl);

    /// <summary>Only in builds with HAVE_SECRET_CALLBACK, see <see cref="KeyLog.IsSupported"/>.</summary>
    [LibraryImport(Library)]
    public static partial int wolfSSL_set_tls13_secret_cb(
        nint ssl,
        delegate* unmanaged[Cdecl]<nint, int, byte*, int, nint, int> callback,
        nint context
    );

    /// <summary>Only in builds with HAVE_SECRET_CALLBACK or OPENSSL_EXTRA.</summary>
    [LibraryImport(Library)]
    public static partial nuint wolfSSL_get_client_random(nint ssl, byte* random, nuint size);

    [LibraryImport(Library)]
    public static partial int wolfSSL_X509_STORE_CTX_get_error(nint store);

    [LibraryImport(Library)]
    public static partial int wolfSSL_X509_STORE_CTX_get_error_depth(nint store);

    [LibraryImport(Library)]
    public static partial nint wc_AesNew(nint heap, int deviceId, int* result);

    [LibraryImport(Library)]
    public static partial int wc_AesDelete(nint aes, nint* cleared);

    [LibraryImport(Library)]
    public static partial int wc_AesGcmSetKey(nint aes, byte* key, uint length);

    [LibraryImport(Library)]
    public static partial int wc_AesGcmEncrypt(
        nint aes,
        byte* output,
        byte* input,
        uint length,
        byte* iv,
        uint ivLength,
        byte* tag,
        uint tagLength,
        byte* aad,
        uint aadLength
    );

    [LibraryImport(Library)]
    public static partial int wc_AesGcmDecrypt(
        nint aes,
        byte* output,
        byte* input,
        uint length,
        byte* iv,
        uint ivLength,
        byte* tag,
        uint tagLength,
        byte* aad,
        uint aadLength
    );

    /// <summary>Has <paramref name="callback"/> called for all ciphers of this device (wolfssl/wolfcrypt/cryptocb.h).</summary>
    [LibraryImport(Library)]
    public static partial int wc_CryptoCb_RegisterDevice(
        int device,
        delegate* unmanaged[Cdecl]<int, void*, void*, int> callback,
        nint context
    );

    [LibraryImport(Library)]
    public static partial void wc_CryptoCb_UnRegisterDevice(int device);

    [LibraryImport(Library)]
    public static partial int wolfSSL_CTX_SetDevId(nint ctx, int device);

    [LibraryImport("libc")]
    public static partial nuint malloc_usable_size(nint memory);

    /// <summary>wolfSSL's own words for an error number.</summary>
    public static string Describe(int error)
    {
        var text = stackalloc byte[80]; // WOLFSSL_MAX_ERROR_SZ
        wolfSSL_ERR_error_string_n((nuint)error, text, 80);
        return $"{Marshal.PtrToStringUTF8((nint)text)} (wolfSSL error {error})";
    }
}

/// <summary>Finds libwolfssl once, before its first use, and refuses one that can't do the work.</summary>
public static unsafe class WolfSslLibrary
{
    private static readonly Lazy<string> s_checked = new(Check);
    private static nint s_handle;
    private static string s_origin = "";

    /// <summary>Loads and tries the library. Returns its version and where it came from, for the log.</summary>
    /// <exception cref="TlsException">There is no usable library; the message names the remedy.</exception>
    public static string EnsureUsable() => s_checked.Value;

    /// <summary>Such as 5.9.2.</summary>
    internal static string Version
    {
        get
        {
            _ = EnsureUsable();
            return Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_lib_version()) ?? "";
        }
    }

    /// <summary>The library has a function, which depends on how it was built.</summary>
    internal static bool Has(string function)
    {
        _ = EnsureUsable();
        return NativeLibrary.TryGetExport(s_handle, function, out _);
    }

    internal static nint Resolve(string name, Assembly assembly, DllImportSearchPath? path)
    {
        if (name != "wolfssl")
        {
            return 0; // the default search
        }
        if (s_handle == 0)
        {
            (s_handle, s_origin) = Find();
        }
        return s_handle;
    }

    private static (nint Handle, string Origin) Find()
    {
        var named = Environment.GetEnvironmentVariable("LIGHTWAY_WOLFSSL");
        if (!string.IsNullOrEmpty(named))
        {
            return NativeLibrary.TryLoad(named, out var handle)
                ? (handle, named)
                : throw new TlsException($"LIGHTWAY_WOLFSSL names '{named}', which can't be loaded");
        }
        foreach (var candidate in Candidates())
        {
            if (NativeLibrary.TryLoad(candidate, out var handle))
            {
                if (NativeLibrary.TryGetExport(handle, "wolfDTLSv1_3_server_method", out _))
                {
                    return (handle, candidate);
                }
                NativeLibrary.Free(handle);
            }
        }
        throw new TlsException(
            "no wolfSSL library with DTLS 1.3 was found, neither next to the program nor among the system's; build one with 'dotnet fsi build.fsx -t Native', and set LIGHTWAY_WOLFSSL to its path, artifacts/native/libwolfssl.so"
        );
    }

    /// <summary>No folder but the program's own: whoever may write to another one must not choose the code that runs here.</summary>
    private static IEnumerable<string> Candidates()
    {
        yield return Path.Combine(AppContext.BaseDirectory, "libwolfssl.so"); // next to a published program
        yield return "libwolfssl.so.45";
        yield return "libwolfssl.so.44";
        yield return "libwolfssl.so.42";
        yield return "libwolfssl.so";
    }

    private static string Check()
    {
        if (WolfSsl.wolfSSL_Init() != WolfSsl.WOLFSSL_SUCCESS)
        {
            throw new TlsException($"wolfSSL_Init failed in {s_origin}");
        }
        var ctx = WolfSsl.wolfSSL_CTX_new(WolfSsl.wolfDTLSv1_3_server_method());
        if (ctx == 0)
        {
            throw new TlsException($"{s_origin} can't make a DTLS 1.3 context");
        }
        WolfSsl.wolfSSL_CTX_free(ctx);
        if (!GivesKnownAnswer())
        {
            throw new TlsException($"{s_origin} fails the AES-256-GCM known-answer test: don't use it");
        }
        return $"wolfSSL {Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_lib_version())} ({s_origin})";
    }

    /// <summary>AES-256-GCM, test case 14 of the GCM submission (McGrew and Viega): zero key, IV and block.</summary>
    private static bool GivesKnownAnswer()
    {
        var zeros = stackalloc byte[32];
        var answer = stackalloc byte[32]; // block and tag
        new Span<byte>(zeros, 32).Clear();
        int result;
        var aes = WolfSsl.wc_AesNew(0, WolfSsl.INVALID_DEVID, &result);
        if (aes == 0)
        {
            return false;
        }
        var isRight =
            WolfSsl.wc_AesGcmSetKey(aes, zeros, 32) == 0
            && WolfSsl.wc_AesGcmEncrypt(aes, answer, zeros, 16, zeros, 12, answer + 16, 16, zeros, 0) == 0
            && Convert.ToHexString(new ReadOnlySpan<byte>(answer, 32))
                == "CEA7403D4D606B6E074EC5D3BAF39D18D0D1C8A799996BF0265B98B5D48AB919";
        _ = WolfSsl.wc_AesDelete(aes, null);
        return isRight;
    }
}

/// <summary>TLS can't be set up. Never thrown on the data path.</summary>
public sealed class TlsException(string message) : Exception(message);

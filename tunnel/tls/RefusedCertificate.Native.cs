using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Tls;

/// <summary>
/// Keeps a copy of the certificate that wolfSSL refuses, so that a person can be told what is wrong with it. wolfSSL hands it
/// to the verify callback in a WOLFSSL_X509_STORE_CTX (wolfssl/ssl.h), whose layout depends on how the library was built:
/// fields before `error` come and go, but `error`, `error_depth`, `discardSessionCerts`, `totalCerts` and `certs` have
/// followed each other in all of version 5. Where they are is found out by asking the library's own getters.
/// </summary>
internal static unsafe class RefusedCertificate
{
    private const int MaxSize = 16 * 1024; // bytes of a certificate
    private const int MaxChain = 100;
    private const int Words = 256; // of 4 bytes; the structure is shorter
    private static readonly Lazy<int> s_errorAt = new(FindError);

    [ThreadStatic]
    private static byte[]? t_refused;

    /// <summary>For wolfSSL_CTX_set_verify; 0 if this library does not hand certificates out. It changes no verdict.</summary>
    public static nint Callback =>
        s_errorAt.Value >= 0 ? (nint)(delegate* unmanaged[Cdecl]<int, nint, int>)&OnVerify : 0;

    /// <summary>The certificate that was refused within the last call into wolfSSL on this thread, in DER; null: none was.</summary>
    public static byte[]? Take()
    {
        var refused = t_refused;
        t_refused = null;
        return refused;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnVerify(int isValid, nint store)
    {
        if (isValid == 0)
        {
            t_refused = Copy((byte*)store);
        }
        return isValid; // anything but 0 would accept what wolfSSL has refused
    }

    private static byte[]? Copy(byte* store)
    {
        var fields = (int*)(store + s_errorAt.Value);
        var (index, count) = (fields[1], fields[3]);
        var infos = *(BufferInfo**)AfterInts(fields + 4);
        if (count is < 1 or > MaxChain || index < 0 || index >= count || infos == null)
        {
            return null;
        }
        var info = infos[index];
        return info.Bytes == null || info.Length is 0 or > MaxSize
            ? null
            : new ReadOnlySpan<byte>(info.Bytes, (int)info.Length).ToArray();
    }

    private static byte* AfterInts(int* end) =>
        (byte*)(((nuint)end + (nuint)sizeof(nint) - 1) & ~((nuint)sizeof(nint) - 1));

    /// <summary>
    /// Offset of `error`: in a structure in which each word has its own number, the getters return the number of theirs. -1: this
    /// is not version 5, or the getters do not fit.
    /// </summary>
    private static int FindError()
    {
        if (
            !WolfSslLibrary.Version.StartsWith("5.", StringComparison.Ordinal)
            || !WolfSslLibrary.Has("wolfSSL_X509_STORE_CTX_get_error")
            || !WolfSslLibrary.Has("wolfSSL_X509_STORE_CTX_get_error_depth")
        )
        {
            return -1;
        }
        var words = stackalloc int[Words];
        for (var i = 0; i < Words; i++)
        {
            words[i] = i;
        }
        var error = WolfSsl.wolfSSL_X509_STORE_CTX_get_error((nint)words);
        var depth = WolfSsl.wolfSSL_X509_STORE_CTX_get_error_depth((nint)words);
        return error is > 0 and < Words - 6 && depth == error + 1 ? error * sizeof(int) : -1;
    }

    /// <summary>WOLFSSL_BUFFER_INFO.</summary>
    [StructLayout(LayoutKind.Sequential)]
    private readonly struct BufferInfo
    {
        public readonly byte* Bytes;
        public readonly uint Length;
    }
}

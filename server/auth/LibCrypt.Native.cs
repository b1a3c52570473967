using System.Buffers;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using System.Text;

namespace Lightway.Server.Auth;

/// <summary>The system's libcrypt: hashes passwords by the schemes of crypt(5). Safe from any thread.</summary>
internal static unsafe class LibCrypt
{
    /// <summary>Reports to the operator that there is no libcrypt, and how to get it.</summary>
    public const string Missing = "passwords need libcrypt.so.1 or libcrypt.so.2; run: apt-get install libcrypt1";

    // Bytes of struct crypt_data: 32768 in libxcrypt, 131232 in the libcrypt that glibc shipped up to 2.38.
    // It is opaque and must be zero before its first use (crypt_r(3)).
    private const int CryptDataSize = 132 * 1024;

    private static readonly string[] Libraries = ["libcrypt.so.1", "libcrypt.so.2"];

    // char *crypt_r(const char *phrase, const char *setting, struct crypt_data *data)
    private static readonly delegate* unmanaged<byte*, byte*, void*, byte*> CryptR = Load();

    /// <summary>Whether the machine has a libcrypt; without it every hash fails.</summary>
    public static bool IsAvailable => CryptR is not null;

    /// <summary>
    /// Hash of <paramref name="password"/> by the scheme, cost and salt that <paramref name="setting"/> begins with: a
    /// bare setting or a whole earlier hash. Null when libcrypt does not know the scheme, or when one of the two holds
    /// a NUL byte, which C would take for its end.
    /// </summary>
    /// <param name="password">Of any length; libcrypt reads UTF-8 here. Copies of it are wiped.</param>
    public static string? Hash(ReadOnlySpan<byte> password, string setting)
    {
        if (!IsAvailable || password.Contains((byte)0) || setting.Contains('\0'))
        {
            return null;
        }
        var phrase = ArrayPool<byte>.Shared.Rent(password.Length + 1);
        var data = NativeMemory.AllocZeroed(CryptDataSize);
        try
        {
            password.CopyTo(phrase);
            phrase[password.Length] = 0;
            fixed (byte* phrasePointer = phrase)
            fixed (byte* settingPointer = Encoding.UTF8.GetBytes(setting + '\0'))
            {
                var hash = Marshal.PtrToStringUTF8((nint)CryptR(phrasePointer, settingPointer, data));
                // NULL (glibc) or a string that begins with '*' (libxcrypt) reports a failure.
                return hash is null || hash.StartsWith('*') ? null : hash;
            }
        }
        finally
        {
            CryptographicOperations.ZeroMemory(phrase);
            ArrayPool<byte>.Shared.Return(phrase);
            CryptographicOperations.ZeroMemory(new Span<byte>(data, CryptDataSize));
            NativeMemory.Free(data);
        }
    }

    private static delegate* unmanaged<byte*, byte*, void*, byte*> Load()
    {
        foreach (var name in Libraries)
        {
            if (
                NativeLibrary.TryLoad(name, out var library)
                && NativeLibrary.TryGetExport(library, "crypt_r", out var export)
            )
            {
                return (delegate* unmanaged<byte*, byte*, void*, byte*>)export;
            }
        }
        return null;
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using System.Security.Cryptography;
using Microsoft.Win32.SafeHandles;

namespace Lightway.Tunnel.Tls;

/// <summary>
/// Appends the secrets of TLS 1.3 and DTLS 1.3 sessions to a file, a line each: the NSS key log format, which Wireshark reads
/// (draft-ietf-tls-keylogfile-03 §2). Safe from any thread.
/// </summary>
/// <param name="file">Open for appending (O_APPEND), as other processes may append to it as well. Disposed of with this.</param>
public sealed unsafe class KeyLog(SafeFileHandle file) : IDisposable
{
    private const int RandomSize = 32; // bytes, RFC 8446 §4.1.2
    private const int MaxSecret = 64; // bytes, of the longest hash
    private const int LongestLine = 40 + (2 * RandomSize) + (2 * MaxSecret) + 3;
    private readonly Lock _writing = new();

    /// <summary>The library hands secrets out: it was built with HAVE_SECRET_CALLBACK.</summary>
    public static bool IsSupported =>
        WolfSslLibrary.Has("wolfSSL_set_tls13_secret_cb") && WolfSslLibrary.Has("wolfSSL_get_client_random");

    /// <summary>Why the last line could not be written; null if it was. It never ends a session.</summary>
    public string? Failure { get; private set; }

    public void Dispose() => file.Dispose();

    /// <summary>Has the library report the secrets of a session.</summary>
    /// <param name="session">Handle of the <see cref="SecureSession"/>.</param>
    internal static void Attach(nint ssl, nint session) =>
        TlsContext.Require(WolfSsl.wolfSSL_set_tls13_secret_cb(ssl, &OnSecret, session), "secret callback");

    /// <summary>Name of a secret, by its number in enum Tls13Secret of wolfssl/ssl.h; empty for one that is not logged.</summary>
    private static ReadOnlySpan<byte> Label(int id) =>
        id switch
        {
            0 => "CLIENT_EARLY_TRAFFIC_SECRET"u8,
            1 => "CLIENT_HANDSHAKE_TRAFFIC_SECRET"u8,
            2 => "SERVER_HANDSHAKE_TRAFFIC_SECRET"u8,
            3 => "CLIENT_TRAFFIC_SECRET_0"u8,
            4 => "SERVER_TRAFFIC_SECRET_0"u8,
            6 => "EXPORTER_SECRET"u8,
            _ => [],
        };

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    private static int OnSecret(nint ssl, int id, byte* secret, int length, nint context)
    {
        var session = Unsafe.As<SecureSession>(GCHandle.FromIntPtr(context).Target!);
        var random = stackalloc byte[RandomSize];
        if (length is > 0 and <= MaxSecret && WolfSsl.wolfSSL_get_client_random(ssl, random, RandomSize) == RandomSize)
        {
            session.Keys?.Append(Label(id), new(random, RandomSize), new(secret, length));
        }
        return 0; // anything else would end the handshake
    }

    private void Append(ReadOnlySpan<byte> label, ReadOnlySpan<byte> random, ReadOnlySpan<byte> secret)
    {
        if (label.IsEmpty)
        {
            return;
        }
        Span<byte> line = stackalloc byte[LongestLine];
        label.CopyTo(line);
        var length = label.Length;
        length += Hex(random, line[length..]);
        length += Hex(secret, line[length..]);
        line[length++] = (byte)'\n';
        try
        {
            lock (_writing)
            {
                RandomAccess.Write(file, line[..length], fileOffset: 0); // O_APPEND: at the end, whatever the offset (pwrite(2))
            }
            Failure = null;
        }
        catch (Exception error) when (error is IOException or UnauthorizedAccessException or ObjectDisposedException)
        {
            Failure = error.Message; // no exception may cross the library's frames
        }
        CryptographicOperations.ZeroMemory(line);
    }

    /// <summary>Writes a blank and the bytes in hexadecimal; returns the length.</summary>
    private static int Hex(ReadOnlySpan<byte> bytes, Span<byte> destination)
    {
        destination[0] = (byte)' ';
        _ = Convert.TryToHexStringLower(bytes, destination[1..], out var written);
        return written + 1;
    }
}

using System.Runtime.CompilerServices;
using System.Runtime.InteropServices;
using Lightway.Protocol;

namespace Lightway.Tunnel.Tls;

/// <summary>Groups for the key exchange; the names are the reference client's.</summary>
public enum KeyShare
{
    P521MlKem1024,
    X25519MlKem768,
}

/// <summary>
/// Certificates, suites and groups that the DTLS 1.3 or the TLS 1.3 sessions of a program share. Thread-safe once made.
/// </summary>
public sealed unsafe class TlsContext : IDisposable
{
    /// <summary>Bytes of an outside IP packet, unless an option says otherwise.</summary>
    public const int DefaultOutsideMtu = 1500;

    private const int Headers = 20 + 8 + 16; // IPv4, UDP and wire header
    private const ushort HandshakeMtu = 1200; // bytes of a DTLS datagram: both ends' flights must pass any path

    private const string Suites = "TLS13-CHACHA20-POLY1305-SHA256:TLS13-AES256-GCM-SHA384";

    private TlsContext(bool isServer, Transport transport, int outsideMtu, TlsInsight? insight, int device)
    {
        Insight = insight;
        Mtu = (ushort)(outsideMtu - Headers);
        _ = WolfSslLibrary.EnsureUsable();
        IsServer = isServer;
        Transport = transport;
        Handle = WolfSsl.wolfSSL_CTX_new(Method(isServer, transport));
        if (Handle == 0)
        {
            throw new TlsException("wolfSSL_CTX_new: out of memory");
        }
        if (device != WolfSsl.INVALID_DEVID) // a library without devices need not have the function
        {
            Require(WolfSsl.wolfSSL_CTX_SetDevId(Handle, device), "a device for its records");
        }
        WolfSsl.wolfSSL_CTX_SetIORecv(Handle, &SecureSession.OnReceive);
        WolfSsl.wolfSSL_CTX_SetIOSend(Handle, &SecureSession.OnSend);
        if (transport == Transport.Datagram)
        {
            Require(WolfSsl.wolfSSL_CTX_dtls_set_mtu(Handle, Math.Min(HandshakeMtu, Mtu)), $"outside MTU {outsideMtu}");
        }
    }

    internal nint Handle { get; private set; }

    /// <summary>Bytes of a DTLS datagram once the handshake is over.</summary>
    internal ushort Mtu { get; }

    internal bool IsServer { get; }

    internal TlsInsight? Insight { get; }

    /// <summary>Datagram: DTLS. Stream: TLS.</summary>
    public Transport Transport { get; }

    internal KeyShare KeyShare { get; private init; }

    /// <summary>Client: the hybrid group that <see cref="KeyShare"/> stands for.</summary>
    internal ushort HybridGroup =>
        (ushort)(
            KeyShare == KeyShare.X25519MlKem768 ? WolfSsl.WOLFSSL_X25519MLKEM768 : WolfSsl.WOLFSSL_SECP521R1MLKEM1024
        );

    internal string? ServerName { get; private init; }

    /// <summary>Context of a server: the whole chain of the file is sent.</summary>
    /// <param name="certificatePem">Leaf first, PEM.</param>
    /// <param name="keyPem">RSA (2048 bits at least) or ECDSA key of the leaf, PEM.</param>
    /// <param name="postQuantum">Also accept the hybrid groups, and prefer them.</param>
    /// <param name="transport">What the sessions run over.</param>
    /// <param name="insight">Who looks into the sessions; null: nobody.</param>
    /// <param name="device">Who seals and opens the records: wolfCrypt itself, or a device that is registered with it.</param>
    /// <exception cref="TlsException">A file's content is refused; says which.</exception>
    public static TlsContext ForServer(
        ReadOnlySpan<byte> certificatePem,
        ReadOnlySpan<byte> keyPem,
        bool postQuantum,
        Transport transport = Transport.Datagram,
        TlsInsight? insight = null,
        int device = WolfSsl.INVALID_DEVID
    )
    {
        var context = new TlsContext(isServer: true, transport, DefaultOutsideMtu, insight, device);
        try
        {
            fixed (byte* pem = certificatePem)
            {
                Require(
                    WolfSsl.wolfSSL_CTX_use_certificate_chain_buffer(context.Handle, pem, certificatePem.Length),
                    "server certificate"
                );
            }
            fixed (byte* pem = keyPem)
            {
                Require(
                    WolfSsl.wolfSSL_CTX_use_PrivateKey_buffer(
                        context.Handle,
                        pem,
                        keyPem.Length,
                        WolfSsl.WOLFSSL_FILETYPE_PEM
                    ),
                    "server key"
                );
            }
            Require(
                WolfSsl.wolfSSL_CTX_check_private_key(context.Handle),
                "server key does not belong to the certificate (the first one in the file must be the server's own)"
            );
            Require(WolfSsl.wolfSSL_CTX_set_cipher_list(context.Handle, Suites), "cipher suites");
            context.SetGroups(
                postQuantum
                    ?
                    [
                        WolfSsl.WOLFSSL_SECP521R1MLKEM1024,
                        WolfSsl.WOLFSSL_X25519MLKEM768,
                        WolfSsl.WOLFSSL_SECP256R1MLKEM512,
                        WolfSsl.WOLFSSL_ECC_SECP256R1,
                        WolfSsl.WOLFSSL_ECC_X25519,
                    ]
                    : [WolfSsl.WOLFSSL_ECC_SECP256R1, WolfSsl.WOLFSSL_ECC_X25519]
            );
            return context;
        }
        catch
        {
            context.Dispose();
            throw;
        }
    }

    /// <summary>Context of a client: the server's chain must lead to <paramref name="caPem"/>.</summary>
    /// <param name="caPem">One or more certificates, PEM: the only trust anchors.</param>
    /// <param name="serverName">Name the certificate must carry; null or empty: not checked.</param>
    /// <param name="chacha20">Offer ChaCha20-Poly1305 instead of AES-256-GCM.</param>
    /// <param name="keyShare">The only hybrid group that is offered. Its share is too long for a first datagram of 1200 bytes, so
    /// the server asks for it, as it may for a classical one.</param>
    /// <param name="outsideMtu">Bytes of the largest outside IP packet.</param>
    /// <param name="transport">What the sessions run over.</param>
    /// <param name="insight">Who looks into the sessions; null: nobody.</param>
    /// <param name="device">Who seals and opens the records: wolfCrypt itself, or a device that is registered with it.</param>
    /// <exception cref="TlsException">The CA file's content is refused.</exception>
    public static TlsContext ForClient(
        ReadOnlySpan<byte> caPem,
        string? serverName,
        bool chacha20,
        KeyShare keyShare,
        int outsideMtu,
        Transport transport = Transport.Datagram,
        TlsInsight? insight = null,
        int device = WolfSsl.INVALID_DEVID
    )
    {
        var context = new TlsContext(isServer: false, transport, outsideMtu, insight, device)
        {
            ServerName = serverName,
            KeyShare = keyShare,
        };
        try
        {
            fixed (byte* pem = caPem)
            {
                Require(
                    WolfSsl.wolfSSL_CTX_load_verify_buffer(
                        context.Handle,
                        pem,
                        caPem.Length,
                        WolfSsl.WOLFSSL_FILETYPE_PEM
                    ),
                    "CA certificate"
                );
            }
            WolfSsl.wolfSSL_CTX_set_verify(context.Handle, WolfSsl.WOLFSSL_VERIFY_PEER, RefusedCertificate.Callback);
            Require(
                WolfSsl.wolfSSL_CTX_set_cipher_list(
                    context.Handle,
                    chacha20 ? "TLS13-CHACHA20-POLY1305-SHA256" : "TLS13-AES256-GCM-SHA384"
                ),
                "cipher suite"
            );
            context.SetGroups([context.HybridGroup, WolfSsl.WOLFSSL_ECC_SECP256R1, WolfSsl.WOLFSSL_ECC_X25519]);
            return context;
        }
        catch
        {
            context.Dispose();
            throw;
        }
    }

    public void Dispose()
    {
        if (Handle != 0)
        {
            WolfSsl.wolfSSL_CTX_free(Handle);
            Handle = 0;
        }
    }

    private static nint Method(bool isServer, Transport transport) =>
        (isServer, transport) switch
        {
            (true, Transport.Stream) => WolfSsl.wolfTLSv1_3_server_method(),
            (false, Transport.Stream) => WolfSsl.wolfTLSv1_3_client_method(),
            (true, _) => WolfSsl.wolfDTLSv1_3_server_method(),
            (false, _) => WolfSsl.wolfDTLSv1_3_client_method(),
        };

    private void SetGroups(ReadOnlySpan<int> groups)
    {
        fixed (int* list = groups)
        {
            Require(
                WolfSsl.wolfSSL_CTX_set_groups(Handle, list, groups.Length),
                "key exchange groups (a build without ML-KEM?)"
            );
        }
    }

    internal static void Require(int result, string what)
    {
        if (result != WolfSsl.WOLFSSL_SUCCESS)
        {
            throw new TlsException($"wolfSSL refuses: {what}: {WolfSsl.Describe(result)}");
        }
    }
}

using Lightway.Protocol;

namespace Lightway.Tunnel.Channel;

/// <summary>The failures of wolfSSL in the protocol's terms.</summary>
internal static class TlsFailure
{
    /// <param name="error">Number from wolfssl/error-ssl.h or wolfssl/wolfcrypt/error-crypt.h.</param>
    public static TunnelError ReasonOf(int error) =>
        error switch
        {
            -322 => TunnelError.TlsNameMismatch, // DOMAIN_NAME_MISMATCH
            -188 => TunnelError.TlsCaMissing, // ASN_NO_SIGNER_E
            -313 => TunnelError.TlsFatalAlert, // FATAL_ERROR: the peer sent an alert
            -395 => TunnelError.TlsDuplicateMessage, // DUPLICATE_MSG_E
            _ => TunnelError.TlsOther,
        };
}

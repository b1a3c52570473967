namespace Lightway.Tunnel.Tls;

/// <summary>One TLS 1.3 session over a stream (RFC 8446). wolfSSL keeps the part of a record that has come.</summary>
/// <param name="context">Certificates and suites, of transport Stream.</param>
/// <exception cref="TlsException">Out of memory, or the server name is unusable.</exception>
public sealed unsafe class TlsSession(TlsContext context) : SecureSession(context)
{
    /// <summary>Bytes of the longest plaintext of a record (RFC 8446 section 5.1).</summary>
    public const int MaxPlaintext = 16384;

    /// <summary>Bytes that a record has beyond its plaintext: header 5, content type 1, tag 16.</summary>
    public const int RecordOverhead = 22;

    /// <summary>Continues the handshake with bytes of the stream. When it is complete, the rest of them stays.</summary>
    /// <param name="stream">What has come; what was consumed is cut off.</param>
    public TlsStatus Handshake(ref ReadOnlySpan<byte> stream)
    {
        fixed (byte* input = stream)
        {
            SetInput(input, stream.Length);
            var status = Handshake();
            stream = stream[^InputLength..];
            SetInput(null, 0);
            return status;
        }
    }

    /// <summary>Processes bytes of the stream. Call again with the rest while there is application data.</summary>
    /// <param name="stream">What has come; what was consumed is cut off.</param>
    /// <param name="plaintext">Gets application data; at least 1 byte.</param>
    /// <param name="length">Bytes of application data; 0: all that has come is consumed.</param>
    public TlsStatus Receive(ref ReadOnlySpan<byte> stream, Span<byte> plaintext, out int length)
    {
        fixed (byte* input = stream)
        {
            SetInput(input, stream.Length);
            var status = Read(plaintext, out length);
            stream = stream[^InputLength..];
            SetInput(null, 0);
            RethrowSinkFailure();
            return status;
        }
    }
}

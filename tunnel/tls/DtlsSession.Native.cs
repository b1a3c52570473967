namespace Lightway.Tunnel.Tls;

/// <summary>Outcome of showing a datagram to a stateless listener.</summary>
public enum StatelessOutcome
{
    /// <summary>The listener is used up: free it.</summary>
    Failed = 0,

    /// <summary>A cookie was asked for, or the datagram meant nothing: the listener is unchanged.</summary>
    Ignored,

    /// <summary>The cookie is right: the listener has become this peer's session.</summary>
    Accepted,
}

/// <summary>One DTLS 1.3 session (RFC 9147).</summary>
public sealed unsafe class DtlsSession : SecureSession
{
    internal const int TimerUnitMs = 100; // built with DTLS13_MIN_RTX_INTERVAL=100: wolfSSL's seconds are tenths here
    private const int QuickTimerDivisor = 4; // "quick" time-outs only acknowledge, after a quarter of the interval
    private readonly ushort _mtu;

    /// <param name="context">Certificates and suites, of transport Datagram.</param>
    /// <param name="cookieSecret">Server only: 32 bytes that sign HelloRetryRequest cookies.</param>
    /// <exception cref="TlsException">Out of memory, or the server name is unusable.</exception>
    public DtlsSession(TlsContext context, ReadOnlySpan<byte> cookieSecret)
        : base(context)
    {
        _mtu = context.Mtu;
        if (context.IsServer)
        {
            fixed (byte* secret = cookieSecret)
            {
                TlsContext.Require(
                    WolfSsl.wolfSSL_send_hrr_cookie(Handle, secret, (uint)cookieSecret.Length),
                    "cookie secret"
                );
            }
            TlsContext.Require(WolfSsl.wolfSSL_dtls13_allow_ch_frag(Handle, 1), "fragmented ClientHello");
        }
    }

    /// <summary>Milliseconds until <see cref="OnTimeout"/> is due, while a flight is unanswered.</summary>
    public int TimeoutMs
    {
        get
        {
            var interval = WolfSsl.wolfSSL_dtls_get_current_timeout(Handle) * TimerUnitMs;
            return WolfSsl.wolfSSL_dtls13_use_quick_timeout(Handle) != 0 ? interval / QuickTimerDivisor : interval;
        }
    }

    /// <summary>Tries a datagram of an unknown peer without keeping state: the cookie is bound to <paramref name="peer"/>.</summary>
    /// <param name="peer">The sender's sockaddr.</param>
    /// <param name="datagram">One DTLS datagram.</param>
    public StatelessOutcome AcceptStateless(ReadOnlySpan<byte> peer, ReadOnlySpan<byte> datagram)
    {
        fixed (
            byte* address = peer,
                input = datagram
        )
        {
            _ = WolfSsl.wolfSSL_dtls_set_peer(Handle, address, (uint)peer.Length);
            SetInput(input, datagram.Length);
            var result = WolfSsl.wolfDTLS_accept_stateless(Handle);
            SetInput(null, 0);
            RethrowSinkFailure();
            return result switch
            {
                WolfSsl.WOLFSSL_SUCCESS => StatelessOutcome.Accepted,
                0 => StatelessOutcome.Ignored,
                _ => StatelessOutcome.Failed,
            };
        }
    }

    /// <summary>Processes one datagram: handshake messages are answered, application data is put into <paramref name="plaintext"/>.</summary>
    /// <param name="datagram">One DTLS datagram; whatever wolfSSL does not consume of it is discarded.</param>
    /// <param name="plaintext">Room for all application data of one datagram; 2048 bytes suffice.</param>
    /// <param name="length">Bytes of application data.</param>
    public TlsStatus Receive(ReadOnlySpan<byte> datagram, Span<byte> plaintext, out int length)
    {
        fixed (byte* input = datagram)
        {
            SetInput(input, datagram.Length);
            var status = Read(plaintext, out length, PlaintextRecords.IsOneProtected(datagram));
            SetInput(null, 0);
            RethrowSinkFailure();
            return status;
        }
    }

    /// <summary>Repeats the unanswered flight when the timer has fired. Failed: the peer has been silent too long.</summary>
    /// <remarks>Never call it on an idle session: each call doubles the interval.</remarks>
    public TlsStatus OnTimeout()
    {
        var result = WolfSsl.wolfSSL_dtls_got_timeout(Handle);
        RethrowSinkFailure();
        return result == WolfSsl.WOLFSSL_SUCCESS ? TlsStatus.Done
            : Classify(result) == TlsStatus.Done ? TlsStatus.Done
            : TlsStatus.Failed;
    }

    /// <summary>Sets the interval of the timer, in units of 100 ms, 1 to 64.</summary>
    public void ResetTimeout(int units) => _ = WolfSsl.wolfSSL_dtls_set_timeout_init(Handle, units);

    private protected override void OnEstablished() => _ = WolfSsl.wolfSSL_dtls_set_mtu(Handle, _mtu);
}

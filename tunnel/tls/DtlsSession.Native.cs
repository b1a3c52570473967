using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;

namespace Lightway.Tunnel.Tls;

/// <summary>Takes the DTLS records that a session makes: one datagram per call.</summary>
public interface IRecordSink
{
    /// <summary>Sends a record, or loses it: DTLS repeats what must arrive. The bytes are valid during the call only.</summary>
    void SendRecord(ReadOnlySpan<byte> record);
}

/// <summary>Outcome of a DTLS step; the default value is a failure.</summary>
public enum DtlsStatus
{
    Failed = 0,
    Done,

    /// <summary>The peer said close_notify.</summary>
    Closed,
}

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

/// <summary>
/// One DTLS 1.3 session (RFC 9147). One thread at a time; records leave through <see cref="Sink"/> from within the calls
/// made here. No call throws on what a peer sends.
/// </summary>
public sealed unsafe class DtlsSession : IDisposable
{
    internal const int TimerUnitMs = 100; // built with DTLS13_MIN_RTX_INTERVAL=100: wolfSSL's seconds are tenths here
    private const int QuickTimerDivisor = 4; // "quick" time-outs only acknowledge, after a quarter of the interval
    private readonly bool _isServer;
    private readonly ushort _mtu;
    private readonly GCHandle _self;
    private nint _ssl;
    private byte* _input; // the datagram being processed, null when it was consumed
    private int _inputLength;
    private Exception? _sinkFailure; // thrown by the sink within the native call that is under way

    /// <param name="context">Certificates and suites.</param>
    /// <param name="cookieSecret">Server only: 32 bytes that sign HelloRetryRequest cookies.</param>
    /// <exception cref="TlsException">Out of memory, or the server name is unusable.</exception>
    public DtlsSession(DtlsContext context, ReadOnlySpan<byte> cookieSecret)
    {
        _isServer = context.IsServer;
        _mtu = context.Mtu;
        _ssl = WolfSsl.wolfSSL_new(context.Handle);
        if (_ssl == 0)
        {
            throw new TlsException("wolfSSL_new: out of memory");
        }
        _self = GCHandle.Alloc(this);
        WolfSsl.wolfSSL_SetIOReadCtx(_ssl, GCHandle.ToIntPtr(_self));
        WolfSsl.wolfSSL_SetIOWriteCtx(_ssl, GCHandle.ToIntPtr(_self));
        if (_isServer)
        {
            fixed (byte* secret = cookieSecret)
            {
                DtlsContext.Require(
                    WolfSsl.wolfSSL_send_hrr_cookie(_ssl, secret, (uint)cookieSecret.Length),
                    "cookie secret"
                );
            }
            DtlsContext.Require(WolfSsl.wolfSSL_dtls13_allow_ch_frag(_ssl, 1), "fragmented ClientHello");
            return;
        }
        if (context.ServerName is { Length: > 0 } name)
        {
            DtlsContext.Require(
                WolfSsl.wolfSSL_check_domain_name(_ssl, name),
                $"server name '{name}' (it must be fully qualified, such as vpn.example.com)"
            );
        }
        DtlsContext.Require(
            WolfSsl.wolfSSL_UseKeyShare(_ssl, context.HybridGroup),
            $"key share {context.KeyShare} (a build without ML-KEM?)"
        );
    }

    /// <summary>Where records go.</summary>
    public IRecordSink? Sink { get; set; }

    /// <summary>The handshake is complete.</summary>
    public bool IsEstablished { get; private set; }

    /// <summary>wolfSSL's number of the last failure; 0 if none.</summary>
    public int LastError { get; private set; }

    /// <summary>The last failure in wolfSSL's words.</summary>
    public string LastErrorText => LastError == 0 ? "none" : WolfSsl.Describe(LastError);

    /// <summary>Milliseconds until <see cref="OnTimeout"/> is due, while a flight is unanswered.</summary>
    public int TimeoutMs
    {
        get
        {
            var interval = WolfSsl.wolfSSL_dtls_get_current_timeout(_ssl) * TimerUnitMs;
            return WolfSsl.wolfSSL_dtls13_use_quick_timeout(_ssl) != 0 ? interval / QuickTimerDivisor : interval;
        }
    }

    /// <summary>Name of the negotiated suite and group, for the log.</summary>
    public string Description =>
        $"{Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_get_cipher_name(_ssl))}, {Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_get_curve_name(_ssl))}";

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
            _ = WolfSsl.wolfSSL_dtls_set_peer(_ssl, address, (uint)peer.Length);
            SetInput(input, datagram.Length);
            var result = WolfSsl.wolfDTLS_accept_stateless(_ssl);
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

    /// <summary>Starts or continues the handshake with what has arrived so far.</summary>
    public DtlsStatus Handshake()
    {
        if (IsEstablished)
        {
            return DtlsStatus.Done;
        }
        var result = _isServer ? WolfSsl.wolfSSL_accept(_ssl) : WolfSsl.wolfSSL_connect(_ssl);
        RethrowSinkFailure();
        if (result == WolfSsl.WOLFSSL_SUCCESS)
        {
            IsEstablished = true;
            _ = WolfSsl.wolfSSL_dtls_set_mtu(_ssl, _mtu);
            return DtlsStatus.Done;
        }
        return Classify(result);
    }

    /// <summary>Processes one datagram: handshake messages are answered, application data is put into <paramref name="plaintext"/>.</summary>
    /// <param name="datagram">One DTLS datagram; whatever wolfSSL does not consume of it is discarded.</param>
    /// <param name="plaintext">Room for all application data of one datagram; 2048 bytes suffice.</param>
    /// <param name="length">Bytes of application data.</param>
    public DtlsStatus Receive(ReadOnlySpan<byte> datagram, Span<byte> plaintext, out int length)
    {
        length = 0;
        fixed (
            byte* input = datagram,
                output = plaintext
        )
        {
            SetInput(input, datagram.Length);
            var status = Handshake();
            while (status == DtlsStatus.Done && IsEstablished && length < plaintext.Length)
            {
                var read = WolfSsl.wolfSSL_read(_ssl, output + length, plaintext.Length - length);
                if (read <= 0)
                {
                    status = Classify(read);
                    break;
                }
                length += read;
            }
            SetInput(null, 0);
            RethrowSinkFailure();
            return status;
        }
    }

    /// <summary>Seals <paramref name="data"/> into one record, which goes to the sink before this returns.</summary>
    public DtlsStatus Write(ReadOnlySpan<byte> data)
    {
        fixed (byte* bytes = data)
        {
            var written = WolfSsl.wolfSSL_write(_ssl, bytes, data.Length);
            RethrowSinkFailure();
            return written > 0 ? DtlsStatus.Done
                : Classify(written) == DtlsStatus.Closed ? DtlsStatus.Closed
                : DtlsStatus.Failed;
        }
    }

    /// <summary>Repeats the unanswered flight when the timer has fired. Failed: the peer has been silent too long.</summary>
    /// <remarks>Never call it on an idle session: each call doubles the interval.</remarks>
    public DtlsStatus OnTimeout()
    {
        var result = WolfSsl.wolfSSL_dtls_got_timeout(_ssl);
        RethrowSinkFailure();
        return result == WolfSsl.WOLFSSL_SUCCESS ? DtlsStatus.Done
            : Classify(result) == DtlsStatus.Done ? DtlsStatus.Done
            : DtlsStatus.Failed;
    }

    /// <summary>Sets the interval of the timer, in units of 100 ms, 1 to 64.</summary>
    public void ResetTimeout(int units) => _ = WolfSsl.wolfSSL_dtls_set_timeout_init(_ssl, units);

    /// <summary>Sends KeyUpdate and asks the peer for its own (RFC 9147 section 8).</summary>
    public bool StartKeyUpdate()
    {
        var result = WolfSsl.wolfSSL_update_keys(_ssl);
        RethrowSinkFailure();
        return result == WolfSsl.WOLFSSL_SUCCESS;
    }

    /// <summary>A key update that was started has not been answered yet.</summary>
    public bool IsKeyUpdatePending
    {
        get
        {
            int required;
            return WolfSsl.wolfSSL_key_update_response(_ssl, &required) == 0 && required != 0;
        }
    }

    /// <summary>Sends close_notify, best effort.</summary>
    public void Close()
    {
        _ = WolfSsl.wolfSSL_shutdown(_ssl);
        RethrowSinkFailure();
    }

    public void Dispose()
    {
        if (_ssl != 0)
        {
            WolfSsl.wolfSSL_free(_ssl);
            _ssl = 0;
            _self.Free();
        }
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    internal static int OnReceive(nint ssl, byte* buffer, int size, nint context)
    {
        var session = Unsafe.As<DtlsSession>(GCHandle.FromIntPtr(context).Target!);
        if (session._input == null)
        {
            return WolfSsl.WOLFSSL_CBIO_ERR_WANT_READ;
        }
        var length = Math.Min(size, session._inputLength); // a longer datagram is cut, and fails authentication
        new ReadOnlySpan<byte>(session._input, length).CopyTo(new Span<byte>(buffer, length));
        session.SetInput(null, 0);
        return length;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    internal static int OnSend(nint ssl, byte* buffer, int size, nint context)
    {
        var session = Unsafe.As<DtlsSession>(GCHandle.FromIntPtr(context).Target!);
        try
        {
            session.Sink?.SendRecord(new ReadOnlySpan<byte>(buffer, size));
            return size; // never want-write: wolfSSL would then mix the old record with the next one's data
        }
        catch (Exception error)
        {
            // No exception may cross wolfSSL's frames. A sink throws on a bug only: the call that led here throws it again.
            session._sinkFailure = error;
            return WolfSsl.WOLFSSL_CBIO_ERR_GENERAL;
        }
    }

    private void RethrowSinkFailure()
    {
        if (_sinkFailure is { } failure)
        {
            _sinkFailure = null;
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    private void SetInput(byte* input, int length)
    {
        _input = input;
        _inputLength = length;
    }

    /// <summary>Maps a result: waiting for the peer is fine (Done), close_notify and failures differ.</summary>
    private DtlsStatus Classify(int returned)
    {
        var error = WolfSsl.wolfSSL_get_error(_ssl, returned);
        switch (error)
        {
            case 0 or WolfSsl.WOLFSSL_ERROR_WANT_READ or WolfSsl.WOLFSSL_ERROR_WANT_WRITE:
                return DtlsStatus.Done;
            case WolfSsl.WOLFSSL_ERROR_ZERO_RETURN:
                return DtlsStatus.Closed;
            default:
                LastError = error;
                return DtlsStatus.Failed;
        }
    }
}

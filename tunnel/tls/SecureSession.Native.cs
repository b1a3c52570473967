using System.Runtime.CompilerServices;
using System.Runtime.ExceptionServices;
using System.Runtime.InteropServices;
using Lightway.Protocol;

namespace Lightway.Tunnel.Tls;

/// <summary>Takes what a session wants sent: one DTLS record per call, or bytes of a TLS stream.</summary>
public interface IRecordSink
{
    /// <summary>
    /// Sends a record. One of DTLS may be lost: it is repeated if it must arrive. The bytes are valid during the call only.
    /// </summary>
    void SendRecord(ReadOnlySpan<byte> record);
}

/// <summary>Outcome of a step of a session; the default value is a failure.</summary>
public enum TlsStatus
{
    Failed = 0,
    Done,

    /// <summary>The peer said close_notify.</summary>
    Closed,
}

/// <summary>
/// What DTLS and TLS sessions have in common. One thread at a time; records leave through <see cref="Sink"/> from within
/// the calls made here. No call throws on what a peer sends.
/// </summary>
public abstract unsafe class SecureSession : IDisposable
{
    private readonly bool _isServer;
    private readonly bool _isStream;
    private readonly GCHandle _self;
    private readonly Action<string>? _records; // null: nobody looks at records
    private readonly int _number; // in the lines about records
    private byte* _input; // what has come and is not consumed yet
    private int _inputLength;
    private Exception? _sinkFailure; // thrown by the sink within the native call that is under way

    /// <exception cref="TlsException">Out of memory, or the server name is unusable.</exception>
    private protected SecureSession(TlsContext context)
    {
        _isServer = context.IsServer;
        _isStream = context.Transport == Transport.Stream;
        Handle = WolfSsl.wolfSSL_new(context.Handle);
        if (Handle == 0)
        {
            throw new TlsException("wolfSSL_new: out of memory");
        }
        _self = GCHandle.Alloc(this);
        WolfSsl.wolfSSL_SetIOReadCtx(Handle, GCHandle.ToIntPtr(_self));
        WolfSsl.wolfSSL_SetIOWriteCtx(Handle, GCHandle.ToIntPtr(_self));
        if (context.Insight is { } insight)
        {
            Keys = insight.Keys;
            _records = insight.Records;
            _number = insight.NextSession();
            if (Keys is not null)
            {
                KeyLog.Attach(Handle, GCHandle.ToIntPtr(_self));
            }
        }
        if (_isServer)
        {
            return;
        }
        if (context.ServerName is { Length: > 0 } name)
        {
            TlsContext.Require(
                WolfSsl.wolfSSL_check_domain_name(Handle, name),
                $"server name '{name}' (it must be fully qualified, such as vpn.example.com)"
            );
        }
        TlsContext.Require(
            WolfSsl.wolfSSL_UseKeyShare(Handle, context.HybridGroup),
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

    /// <summary>Client: the certificate of the server's chain that was refused, in DER; empty if none was, or it is not known.</summary>
    public ReadOnlyMemory<byte> Refused { get; private set; }

    /// <summary>Name of the negotiated suite and group, for the log.</summary>
    public string Description =>
        $"{Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_get_cipher_name(Handle))}, {Marshal.PtrToStringUTF8((nint)WolfSsl.wolfSSL_get_curve_name(Handle))}";

    /// <summary>A key update that was started has not been answered yet.</summary>
    public bool IsKeyUpdatePending
    {
        get
        {
            int required;
            return WolfSsl.wolfSSL_key_update_response(Handle, &required) == 0 && required != 0;
        }
    }

    /// <summary>Gets the secrets; null: nobody does.</summary>
    internal KeyLog? Keys { get; }

    private protected nint Handle { get; private set; }

    /// <summary>Bytes of the input that are not consumed.</summary>
    private protected int InputLength => _inputLength;

    /// <summary>Starts or continues the handshake with what has arrived so far.</summary>
    public TlsStatus Handshake()
    {
        if (IsEstablished)
        {
            return TlsStatus.Done;
        }
        var result = _isServer ? WolfSsl.wolfSSL_accept(Handle) : WolfSsl.wolfSSL_connect(Handle);
        RethrowSinkFailure();
        if (result == WolfSsl.WOLFSSL_SUCCESS)
        {
            IsEstablished = true;
            Report($"established, {Description}");
            OnEstablished();
            return TlsStatus.Done;
        }
        return Classify(result);
    }

    /// <summary>Seals <paramref name="data"/> into one record, which goes to the sink before this returns.</summary>
    public TlsStatus Write(ReadOnlySpan<byte> data)
    {
        fixed (byte* bytes = data)
        {
            var written = WolfSsl.wolfSSL_write(Handle, bytes, data.Length);
            RethrowSinkFailure();
            return written > 0 ? TlsStatus.Done
                : Classify(written) == TlsStatus.Closed ? TlsStatus.Closed
                : TlsStatus.Failed;
        }
    }

    /// <summary>Sends KeyUpdate and asks the peer for its own (RFC 8446 section 4.6.3, RFC 9147 section 8).</summary>
    public bool StartKeyUpdate()
    {
        var result = WolfSsl.wolfSSL_update_keys(Handle);
        RethrowSinkFailure();
        return result == WolfSsl.WOLFSSL_SUCCESS;
    }

    /// <summary>Sends close_notify, best effort.</summary>
    public void Close()
    {
        _ = WolfSsl.wolfSSL_shutdown(Handle);
        RethrowSinkFailure();
    }

    public void Dispose()
    {
        if (Handle != 0)
        {
            WolfSsl.wolfSSL_free(Handle);
            Handle = 0;
            _self.Free();
        }
        GC.SuppressFinalize(this);
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    internal static int OnReceive(nint ssl, byte* buffer, int size, nint context)
    {
        var session = Unsafe.As<SecureSession>(GCHandle.FromIntPtr(context).Target!);
        if (session._inputLength == 0)
        {
            return WolfSsl.WOLFSSL_CBIO_ERR_WANT_READ;
        }
        var length = Math.Min(size, session._inputLength);
        new ReadOnlySpan<byte>(session._input, length).CopyTo(new Span<byte>(buffer, length));
        if (session._records is not null && !session.IsEstablished)
        {
            session.ReportRecord("received", new ReadOnlySpan<byte>(buffer, length));
        }
        if (session._isStream)
        {
            session.SetInput(session._input + length, session._inputLength - length);
        }
        else
        {
            session.SetInput(null, 0); // a datagram is read at once: a longer one is cut, and fails authentication
        }
        return length;
    }

    [UnmanagedCallersOnly(CallConvs = [typeof(CallConvCdecl)])]
    internal static int OnSend(nint ssl, byte* buffer, int size, nint context)
    {
        var session = Unsafe.As<SecureSession>(GCHandle.FromIntPtr(context).Target!);
        try
        {
            if (session._records is not null && !session.IsEstablished)
            {
                session.ReportRecord("sent", new ReadOnlySpan<byte>(buffer, size));
            }
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

    /// <summary>The handshake has just been completed.</summary>
    private protected virtual void OnEstablished() { }

    /// <summary>Continues the handshake, then reads application data, until there is no input or no room left.</summary>
    /// <param name="plaintext">At least 1 byte.</param>
    /// <param name="length">Bytes of application data.</param>
    /// <param name="isOneRecord">The input is one record: if it holds application data, there is nothing to ask for after it.</param>
    private protected TlsStatus Read(Span<byte> plaintext, out int length, bool isOneRecord = false)
    {
        length = 0;
        fixed (byte* output = plaintext)
        {
            var status = Handshake();
            while (status == TlsStatus.Done && IsEstablished && length < plaintext.Length)
            {
                var read = WolfSsl.wolfSSL_read(Handle, output + length, plaintext.Length - length);
                if (read <= 0)
                {
                    status = Classify(read);
                    break;
                }
                length += read;
                if (isOneRecord && _inputLength == 0)
                {
                    break;
                }
            }
            return status;
        }
    }

    /// <summary>Of a stream wolfSSL asks for the header of a record, then for its content, which means nothing here.</summary>
    private void ReportRecord(string done, ReadOnlySpan<byte> bytes)
    {
        if (!_isStream)
        {
            Report($"{done} {RecordText.OfDatagram(bytes)}");
        }
        else if (done == "sent" || bytes.Length == RecordText.StreamHeader)
        {
            Report($"{done} {RecordText.OfStream(bytes)}");
        }
    }

    private void Report(string what) => _records?.Invoke($"session {_number}: {what}");

    private protected void RethrowSinkFailure()
    {
        if (_sinkFailure is { } failure)
        {
            _sinkFailure = null;
            ExceptionDispatchInfo.Throw(failure);
        }
    }

    private protected void SetInput(byte* input, int length)
    {
        _input = input;
        _inputLength = length;
    }

    /// <summary>Maps a result: waiting for the peer is fine (Done), close_notify and failures differ.</summary>
    private protected TlsStatus Classify(int returned)
    {
        var error = WolfSsl.wolfSSL_get_error(Handle, returned);
        switch (error)
        {
            case 0 or WolfSsl.WOLFSSL_ERROR_WANT_READ or WolfSsl.WOLFSSL_ERROR_WANT_WRITE:
                return TlsStatus.Done;
            case WolfSsl.WOLFSSL_ERROR_ZERO_RETURN:
                return TlsStatus.Closed;
            default:
                LastError = error;
                if (!_isServer && RefusedCertificate.Take() is { } refused)
                {
                    Refused = refused;
                }
                Report($"failed: {LastErrorText}");
                return TlsStatus.Failed;
        }
    }
}

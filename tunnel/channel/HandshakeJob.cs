using Lightway.Protocol;
using Lightway.Tunnel.Tls;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// A server's handshake on the control pool: its signature and key exchange take from 0.1 ms to several ms, which would
/// hold up everybody's packets. The pool runs one step at a time; datagrams that arrive during a step wait here, in order.
/// While <see cref="IsBusy"/> nobody else may touch the session. All members are for the worker's thread.
/// </summary>
internal sealed class HandshakeJob(DtlsSession session, ControlPool pool, Action<HandshakeJob, long> stepped)
    : IRecordSink
{
    // A ClientHello of post-quantum size has up to three fragments; each may come thrice. Further copies are not needed.
    private const int MaxWaiting = 12;
    private const int MaxDatagrams = 256; // of one handshake; more than any loss makes a client send
    private readonly Queue<(SessionId SessionId, byte[] Datagram)> _waiting = new();
    private readonly List<(byte[] Record, bool IsRepeated)> _records = [];
    private readonly byte[] _plaintext = new byte[WorkerContext.PlaintextSize];
    private int _length;
    private bool _disposing;
    private int _taken; // datagrams

    /// <summary>The pool has the session.</summary>
    public bool IsBusy { get; private set; }

    /// <summary>Status of the last step.</summary>
    public TlsStatus Status { get; private set; }

    /// <summary>Records that the last step wants sent, and whether each must be repeated because the handshake is over.</summary>
    public IReadOnlyList<(byte[] Record, bool IsRepeated)> Records => _records;

    /// <summary>Application data that came with the last step.</summary>
    public ReadOnlySpan<byte> Plaintext => _plaintext.AsSpan(0, _length);

    /// <summary>Session id of the datagram that the last step consumed.</summary>
    public SessionId SessionId { get; private set; }

    /// <summary>The first step: the ClientHello is in the session.</summary>
    public void Start() => Run(session.Handshake);

    /// <summary>Queues a datagram for the handshake. False: too many wait already, or have come.</summary>
    public bool TryAdd(SessionId sessionId, ReadOnlySpan<byte> datagram)
    {
        if (_waiting.Count == MaxWaiting || _taken == MaxDatagrams)
        {
            return false;
        }
        _taken++;
        _waiting.Enqueue((sessionId, datagram.ToArray()));
        Continue();
        return true;
    }

    /// <summary>Runs the next step, if a datagram waits for it.</summary>
    public void Continue()
    {
        if (!IsBusy && TryTake(out var sessionId, out var datagram))
        {
            SessionId = sessionId;
            Run(() => session.Receive(datagram, _plaintext, out _length));
        }
    }

    /// <summary>Takes a datagram that arrived after the handshake was over.</summary>
    public bool TryTake(out SessionId sessionId, out byte[] datagram)
    {
        var some = _waiting.TryDequeue(out var next);
        sessionId = next.SessionId;
        datagram = next.Datagram;
        return some;
    }

    /// <summary>Disposes of the session as soon as the pool has let go of it.</summary>
    public void DisposeSession() => _disposing = true;

    void IRecordSink.SendRecord(ReadOnlySpan<byte> record) => _records.Add((record.ToArray(), session.IsEstablished));

    private void Run(Func<TlsStatus> step)
    {
        IsBusy = true;
        _length = 0;
        session.Sink = this;
        _records.Clear();
        pool(() => Status = step(), Done);
    }

    private void Done(long now)
    {
        IsBusy = false;
        if (_disposing)
        {
            session.Sink = null;
            session.Dispose();
            return;
        }
        stepped(this, now);
    }
}

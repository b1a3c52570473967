using Lightway.Protocol;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Udp;

namespace Lightway.Tunnel.Channel;

/// <summary>
/// The outside of one connection's datagrams: protocol version, session ids and path, which make up the wire header and
/// the address; and the way of a datagram that leaves alone. A stream connection has none. One thread.
/// </summary>
internal sealed class Envelope
{
    private readonly WorkerContext _worker;
    private OutsideAddress _path;
    private SessionIds _ids;
    private AdoptedIds _adopted;

    /// <param name="version">Protocol version of the first datagram; the connection keeps it for life.</param>
    /// <param name="sessionId">Server: the id drawn for it. Client: <see cref="SessionId.Empty"/>.</param>
    public Envelope(WorkerContext worker, ushort version, SessionId sessionId, in OutsideAddress path)
    {
        _worker = worker;
        _ids = SessionRotation.create(sessionId);
        _adopted = SessionRotation.adopted(sessionId);
        Version = version;
        _path = path;
    }

    public ushort Version { get; }

    /// <summary>Where the datagrams go.</summary>
    public ref readonly OutsideAddress Path => ref _path;

    public SessionId Current => _ids.Current;

    /// <summary><see cref="SessionId.Empty"/> if no rotation is under way.</summary>
    public SessionId Pending => _ids.Pending;

    /// <summary>The id in every header that is sent.</summary>
    public SessionId Outgoing => SessionRotation.outgoing(_ids);

    /// <summary>How often each datagram that leaves alone is sent.</summary>
    public int Copies { get; set; } = 1;

    /// <summary>The id is this connection's, now or as soon as the peer has adopted it.</summary>
    public bool Owns(SessionId sessionId) =>
        sessionId == _ids.Current || (sessionId == _ids.Pending && _ids.Pending != SessionId.Empty);

    /// <summary>Client: learns the id of a datagram that held <paramref name="frames"/> authenticated frames.</summary>
    public void Adopt(SessionId headerSession, int frames)
    {
        _adopted = SessionRotation.adopt(_adopted, headerSession, frames);
        _ids = new SessionIds(_adopted.Adopted, _ids.Pending);
    }

    /// <summary>Server: the peer has proved that it uses this id.</summary>
    public SessionEvent OnUsed(SessionId headerSession)
    {
        var receipt = SessionRotation.received(_ids, headerSession);
        _ids = receipt.Ids;
        return receipt.Event;
    }

    /// <summary>Server: begins the rotation to a fresh id. False while one is under way.</summary>
    public bool TryRotate(SessionId freshId)
    {
        var begun = SessionRotation.start(_ids, freshId);
        _ids = begun.Ids;
        return begun.Started;
    }

    /// <summary>-errno of the latest datagram that left alone; 0 or more: it left.</summary>
    public int LastResult { get; private set; }

    /// <summary>Datagrams that leave alone may be fragmented on their way: until the path is looked after.</summary>
    public bool MayFragment { get; set; } = true;

    /// <summary>Called when the datagrams take another path.</summary>
    public Action? Moved { get; set; }

    /// <summary>From now on the datagrams go to another address, or leave from another one.</summary>
    public void MoveTo(in OutsideAddress path)
    {
        _path = path;
        Moved?.Invoke();
    }

    /// <summary>The addresses stay, but the network between them is another one.</summary>
    public void NetworkChanged() => Moved?.Invoke();

    /// <summary>Writes the wire header to the first bytes of a datagram.</summary>
    public void WriteHeader(WirePayload payload, Span<byte> datagram) =>
        WireHeaderModule.write(Version, payload, Outgoing, datagram);

    /// <summary>Sends one DTLS record alone, best effort: DTLS repeats what must arrive.</summary>
    public void Send(ReadOnlySpan<byte> record)
    {
        if (!TryWrite(_worker, Version, Outgoing, record, out var datagram))
        {
            return;
        }
        for (var copy = 0; copy < Copies; copy++)
        {
            LastResult = TrySend(_worker, Path, datagram, MayFragment);
            if (LastResult < 0)
            {
                return;
            }
        }
    }

    /// <summary>Sends a record to a peer that has no connection yet, under the empty session id. False: it did not leave.</summary>
    public static bool SendTo(WorkerContext worker, in OutsideAddress to, ushort version, ReadOnlySpan<byte> record) =>
        TryWrite(worker, version, SessionId.Empty, record, out var datagram)
        && TrySend(worker, to, datagram, mayFragment: true) >= 0;

    private static bool TryWrite(
        WorkerContext worker,
        ushort version,
        SessionId session,
        ReadOnlySpan<byte> record,
        out Span<byte> datagram
    )
    {
        var length = WireHeaderModule.Size + record.Length;
        if (length > worker.Datagram.Length)
        {
            worker.Counters.Add(Counter.UdpControlSendFailed);
            datagram = default;
            return false;
        }
        datagram = worker.Datagram.Slice(0, length);
        WireHeaderModule.write(version, WirePayload.Dtls, session, datagram);
        record.CopyTo(datagram[WireHeaderModule.Size..]);
        return true;
    }

    private static int TrySend(
        WorkerContext worker,
        in OutsideAddress to,
        ReadOnlySpan<byte> datagram,
        bool mayFragment
    )
    {
        worker.Counters.Add(Counter.UdpSends);
        var result = mayFragment
            ? worker.Control.SendFragmentable(to, datagram)
            : worker.Control.Send(to, datagram, segmentSize: 0);
        if (result < 0)
        {
            worker.Counters.Add(Counter.UdpControlSendFailed);
            return result;
        }
        worker.Counters.Add(Counter.UdpDatagramsSent);
        worker.Counters.Add(Counter.UdpBytesSent, datagram.Length);
        return result;
    }
}

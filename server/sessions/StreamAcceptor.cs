using Lightway.Protocol;
using Lightway.Tunnel;
using Lightway.Tunnel.Metrics;
using Lightway.Tunnel.Tcp;
using Lightway.Tunnel.Tls;
using Lightway.Tunnel.Udp;

namespace Lightway.Server.Sessions;

/// <summary>
/// Takes the TCP connections of one worker: asks who it is if a proxy stands in front, asks <see cref="Strangers"/> whether
/// a newcomer may cost anything, and hands it on. One thread.
/// </summary>
/// <param name="accepted">Makes a connection of what has been accepted, and owns it.</param>
internal sealed class StreamAcceptor(
    SharedState shared,
    WorkerContext worker,
    Strangers strangers,
    Action<TlsSession, StreamSocket, PeerAddress> accepted
) : IDisposable
{
    private const int Budget = 64; // connections per wake-up
    private const int MaxWaiting = 1024; // for their proxy header
    private const long HeaderMs = 5_000;
    private readonly LinkedList<ProxyWait> _waiting = new(); // the oldest first
    private TlsContext? _tls = shared.Identity.StreamTls;

    /// <summary>Connections that come from now on have another certificate.</summary>
    public void Use(TlsContext? tls) => _tls = tls;

    /// <inheritdoc cref="Tunnel.Workers.IWorkerProgram.AcceptFrom"/>
    public bool AcceptFrom(StreamListener listener, long now)
    {
        for (var budget = Budget; budget > 0; budget--)
        {
            var outcome = listener.Accept(out var socket, out var peer);
            if (socket is null)
            {
                if (outcome == AcceptOutcome.Empty)
                {
                    return true;
                }
                worker.Counters.Add(Counter.TcpAcceptFailed);
                if (outcome == AcceptOutcome.Exhausted)
                {
                    return false;
                }
                continue;
            }
            worker.Counters.Add(Counter.TcpAccepted);
            if (shared.Proxies?.MaySend(peer) == true)
            {
                Wait(socket, peer, now);
            }
            else
            {
                Enter(socket, peer, now);
            }
        }
        return true;
    }

    /// <summary>Ends the connections whose proxy header has not come in time.</summary>
    public void Tick(long now)
    {
        while (_waiting.First is { } oldest && now - oldest.Value.Since >= HeaderMs)
        {
            End(oldest.Value, Counter.ProxyHeaderLate);
        }
    }

    public void Dispose()
    {
        while (_waiting.First is { } first)
        {
            Leave(first.Value);
            first.Value.Socket.Dispose();
        }
    }

    private void Wait(StreamSocket socket, in PeerAddress peer, long now)
    {
        if (_waiting.Count == MaxWaiting)
        {
            End(_waiting.First!.Value, Counter.ConnGaveWay);
        }
        var wait = new ProxyWait(this, socket, peer, now);
        wait.Node = _waiting.AddLast(wait);
        wait.Watch = worker.Streams!.Watch(socket, wait);
    }

    private void End(ProxyWait wait, Counter why)
    {
        worker.Counters.Add(why);
        Leave(wait);
        wait.Socket.Dispose();
    }

    private void Leave(ProxyWait wait)
    {
        _waiting.Remove(wait.Node!);
        wait.Watch!.Dispose();
    }

    private void Enter(StreamSocket socket, in PeerAddress peer, long now)
    {
        if (shared.Pool.OffsetOf(peer.IPv4) >= 0)
        {
            worker.Counters.Add(Counter.TcpSourceInside); // through the tunnel to the server itself
        }
        else if (strangers.TryConnection(peer, now) && TryCreate() is { } session)
        {
            accepted(session, socket, peer);
            return;
        }
        socket.Dispose();
    }

    /// <summary>Null if wolfSSL has no memory.</summary>
    private TlsSession? TryCreate()
    {
        try
        {
            return new TlsSession(_tls!);
        }
        catch (TlsException)
        {
            worker.Counters.Add(Counter.HandshakeIgnored);
            return null;
        }
    }

    /// <summary>A connection whose proxy has not said yet for whom it is.</summary>
    private sealed class ProxyWait(StreamAcceptor owner, StreamSocket socket, PeerAddress peer, long since) : IStream
    {
        private readonly byte[] _header = new byte[ProxyHeaderModule.MaxSize];
        private int _length;

        public StreamSocket Socket => socket;

        public long Since => since;

        public LinkedListNode<ProxyWait>? Node { get; set; }

        public StreamWatch? Watch { get; set; }

        public void OnReadable(long now)
        {
            while (true)
            {
                var header = ProxyHeaderModule.parse(_header.AsSpan(0, _length));
                switch (header.Status)
                {
                    case ProxyStatus.NeedMore:
                        break;
                    case ProxyStatus.Address:
                        owner.Leave(this);
                        owner.Enter(socket, PeerAddress.Of(header.IsIPv6, header.High, header.Low, header.Port), now);
                        return;
                    case ProxyStatus.NoAddress:
                        owner.Leave(this);
                        owner.Enter(socket, peer, now);
                        return;
                    default:
                        owner.End(this, Counter.ProxyHeaderWrong);
                        return;
                }
                var count = socket.Receive(_header.AsSpan(_length, header.Length)); // nothing behind the header is taken
                if (count == StreamSocket.WouldBlock)
                {
                    return;
                }
                if (count <= 0)
                {
                    owner.End(this, Counter.ProxyHeaderCut);
                    return;
                }
                _length += count;
            }
        }

        public void OnWritable(long now) { }

        public void Flush(long now) { }
    }
}

using Lightway.Protocol;
using Lightway.Tunnel.Channel;
using Lightway.Tunnel.Kernel;
using Lightway.Tunnel.Metrics;

namespace Lightway.Tunnel.Packets;

/// <summary>
/// Path MTU discovery of one connection over datagrams: sends the pings that <see cref="PathMtu"/> asks for, and knows how
/// long packets may be. The socket sets DF. Times in milliseconds. One thread.
/// </summary>
internal sealed class PathProbes
{
    private const long MinRestartMs = 1000; // a peer that moves all the time gets a probe per second, no more

    private readonly ConnectionSettings _settings;
    private readonly WorkerContext _worker;
    private readonly Envelope _envelope;
    private readonly ControlFrames _frames;
    private readonly IChannelOwner _owner;
    private PathMtuState _state;
    private bool _isUnwatched; // a long datagram brings a confirmation forward
    private bool _isIPv6; // the peer's address family, for which the sizes below hold
    private long _startedAt;
    private long _restartAt = long.MaxValue; // the path has changed

    public PathProbes(
        ConnectionSettings settings,
        WorkerContext worker,
        Envelope envelope,
        ControlFrames frames,
        IChannelOwner owner
    )
    {
        _settings = settings;
        _worker = worker;
        _envelope = envelope;
        _frames = frames;
        _owner = owner;
        envelope.Moved = OnMoved;
        _isIPv6 = envelope.Path.Peer.IsOverIPv6;
        _state = PathMtu.create(
            settings.PathMtuBase > 0
                ? settings.PathMtuBase + Sizes.frameOverhead(_isIPv6) // of a client, which keeps its family
                : PathMtu.DefaultBase,
            settings.OutsideMtu
        );
        Refresh();
    }

    /// <summary>Bytes of the longest inside packet that is sent whole, in one datagram.</summary>
    public int WholePacket { get; private set; }

    /// <summary>The same for packets that go by DTLS, which puts less around them than the Expresslane.</summary>
    public int WholeFrame { get; private set; }

    /// <summary>Bytes of the longest inside packet that senders should make.</summary>
    public int InsideMtu { get; private set; }

    /// <summary>What a datagram may have so that it need not be split: bytes of the outside IP packet.</summary>
    public int OutsideSize => _state.Size;

    /// <summary>What the latest complete search has found, in bytes of the outside IP packet; 0: none is complete.</summary>
    public int Found => _state.Settled;

    /// <summary>When <see cref="OnTimer"/> is due; <see cref="long.MaxValue"/>: never.</summary>
    public long DueAt => Math.Min(_state.NextAt, _restartAt);

    /// <summary>The connection is Online: discovery begins.</summary>
    public void Start(long now)
    {
        _envelope.MayFragment = false;
        _startedAt = now;
        _restartAt = long.MaxValue;
        Act(PathMtu.start(_state, now), now);
    }

    public void OnTimer(long now)
    {
        if (now >= _restartAt)
        {
            Start(now);
        }
        else
        {
            Act(PathMtu.tick(_state, now), now);
        }
    }

    /// <summary>The peer has answered the ping with this id.</summary>
    public void OnPong(ushort id, long now) => Act(PathMtu.pong(_state, id, now), now);

    /// <summary>An inside packet of this length is on its way: if it is not short, the path is confirmed soon.</summary>
    public void OnSent(int length, long now)
    {
        if (_isUnwatched && length > PathMtu.Smallest)
        {
            _state = PathMtu.carried(_state, length, now);
            _isUnwatched = false;
            _owner.TimersMoved();
        }
    }

    /// <summary>The datagrams take another path, maybe with longer IP headers.</summary>
    private void OnMoved()
    {
        _isIPv6 = _envelope.Path.Peer.IsOverIPv6;
        Refresh();
        if (_state.Phase != PathMtuPhase.Disabled)
        {
            _restartAt = Math.Max(_worker.Now, _startedAt + MinRestartMs);
            _owner.TimersMoved();
        }
    }

    private void Act(PathMtuStep step, long now)
    {
        var found = _state.Settled;
        Take(step);
        while (step.Probe > 0)
        {
            _worker.Counters.Add(Counter.PathMtuProbes);
            _frames.Probe(step.Id, step.Probe - Sizes.frameOverhead(_isIPv6));
            if (_envelope.LastResult != -Linux.EMSGSIZE)
            {
                break;
            }
            step = PathMtu.refused(_state, step.Id, now); // the device itself is too small; in the end none is sent
            Take(step);
        }
        if (_state.Settled != found)
        {
            _worker.Counters.Add(Counter.PathMtuChanges);
        }
        Refresh();
    }

    private void Take(in PathMtuStep step)
    {
        _state = step.State;
        if (step.IsBlackHole)
        {
            _worker.Counters.Add(Counter.PathMtuBlackHoles);
        }
    }

    private void Refresh()
    {
        _isUnwatched = _state.IsUnwatched;
        WholePacket = InsideMtuOf(_state.Size);
        WholeFrame = _state.Size - Sizes.dtlsOverhead(_isIPv6);
        InsideMtu = InsideMtuOf(_state.Settled > 0 ? _state.Settled : _settings.OutsideMtu);
    }

    private int InsideMtuOf(int outsideMtu) => Sizes.insideMtu(outsideMtu, _isIPv6, _settings.EnableExpresslane);
}

using Lightway.Tunnel.Kernel;

namespace Lightway.Tunnel.Udp;

/// <summary>
/// Peers for which the kernel has refused to segment: their paths are narrower than the datagrams (EINVAL on older
/// kernels, EMSGSIZE on newer ones). A few are remembered for a minute; if there are more, their paths are not to blame. One
/// thread.
/// </summary>
internal sealed class RefusedPeers
{
    private const int Capacity = 4;
    private readonly PeerAddress[] _peers = new PeerAddress[Capacity];
    private readonly Latch[] _latches = new Latch[Capacity];

    /// <summary>Remembers a peer. False: as many as can be remembered have been refused already.</summary>
    public bool TryAdd(in PeerAddress peer)
    {
        for (var i = 0; i < Capacity; i++)
        {
            if (_latches[i].IsOn || _peers[i] == peer)
            {
                _peers[i] = peer;
                _latches[i].TurnOff();
                IsEmpty = false;
                return true;
            }
        }
        return false;
    }

    /// <summary>Nobody is remembered.</summary>
    public bool IsEmpty { get; private set; } = true;

    public bool Contains(in PeerAddress peer)
    {
        for (var i = 0; i < Capacity; i++)
        {
            if (!_latches[i].IsOn && _peers[i] == peer)
            {
                return true;
            }
        }
        return false;
    }

    /// <summary>Call about once per second.</summary>
    public void Tick()
    {
        IsEmpty = true;
        for (var i = 0; i < Capacity; i++)
        {
            _latches[i].Tick();
            IsEmpty &= _latches[i].IsOn;
        }
    }
}
